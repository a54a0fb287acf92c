"""Payloads, code and counts of calls go through journal, seal, merge, archive and view, once each."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from otel_debugstore import DebugStore
from otel_debugstore.config import Settings
from otel_debugstore.outbox import CallCount, Code, Payload
from otel_debugstore_exporters import codec, seal, segment
from otel_debugstore_exporters.archive import archive_session
from otel_debugstore_exporters.batch import SpanBatch, batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.merging import merge
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.seal import seal_if_idle
from otel_debugstore_exporters.segment import SegmentWriter, Source
from otel_debugstore_exporters.session import SessionPaths
from otel_debugstore_exporters.sync import DuckDBSyncProcessor
from sessions import START_NS, span
from strategies import batches_beside

SUMS = ("call_count", "error_count", "duration_ns", "recorded_count", "recording_ns")


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "s")


def payload(text: str) -> Payload:
    return Payload(f"digest of {text}", "application/msgpack", True, text.encode())


def count(component: str, calls: int = 1, *, second: int = 0) -> CallCount:
    start = START_NS + second * 1_000_000_000
    return CallCount(start, start + 1_000_000_000, "function", component, calls, 1, 10 * calls, 2, 7)


def beside(*payloads: str, counts: Sequence[CallCount] = (), variants: Sequence[str] = ()) -> SpanBatch:
    """A batch without spans."""
    return SpanBatch(
        payloads=list(map(payload, payloads)),
        code=[Code(variant, f"module.{variant}", "/m.py", 3, "abc", "def f(): ...") for variant in variants],
        counts=list(counts),
        pid=7,
    )


def append(paths: SessionPaths, *batches: SpanBatch) -> None:
    with Journal.open(paths.journal) as journal:
        for batch in batches:
            journal.append([codec.encode(batch, START_NS)])


def rows(base_path: Path, sql: str) -> list[tuple[Any, ...]]:
    with SessionReader(base_path) as reader:
        return reader.query(sql).rows


def sums(base_path: Path) -> list[tuple[Any, ...]]:
    """The counters as anybody adds them up, and from when to when."""
    added = ", ".join(f"sum({name})::BIGINT" for name in SUMS)
    return rows(
        base_path,
        f"SELECT session, layer, component, pid, min(start_ns), max(end_ns), {added} FROM counters "
        "GROUP BY ALL ORDER BY ALL",
    )


def contents(base_path: Path) -> tuple[list[Any], list[Any]]:
    """Everything but counters, sorted; what is there twice is here twice."""
    return (
        rows(base_path, "SELECT digest, media_type, size_bytes, replayable, content FROM payloads ORDER BY ALL"),
        rows(base_path, "FROM code ORDER BY ALL"),
    )


def expected_sums(batches: Sequence[SpanBatch]) -> list[tuple[Any, ...]]:
    found: dict[tuple[Any, ...], list[int]] = {}
    for batch in batches:
        for one in batch.counts:
            key = ("session", one.layer, one.component.replace("\ud800", "?"), batch.pid)
            values = [getattr(one, name) for name in SUMS]
            known = found.setdefault(key, [one.start_ns, one.end_ns, *[0] * len(SUMS)])
            known[0], known[1] = min(known[0], one.start_ns), max(known[1], one.end_ns)
            known[2:] = [a + b for a, b in zip(known[2:], values, strict=True)]
    return sorted(((*key, *values) for key, values in found.items()), key=lambda row: (row[2], row[3] or 10**9))


@given(batches_beside())
@settings(deadline=None)
def test_a_blob_holds_it(batch: SpanBatch) -> None:
    """Every field survives the journal's format, with spans and without."""
    back = codec.decode(codec.encode(batch, 1))
    assert (back.payloads, back.code, back.counts, back.layers) == (
        batch.payloads,
        batch.code,
        batch.counts,
        batch.layers,
    )
    assert (len(back), back.pid) == (len(batch), batch.pid)


@pytest.mark.slow
@given(batches_beside(), batches_beside())
@settings(
    deadline=None,
    max_examples=15,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
def test_it_comes_back_from_every_form_of_storage(first: SpanBatch, second: SpanBatch) -> None:
    """Tail, segment beside tail, two segments, a merged one and an archive agree: contents once, sums exact."""
    batches = [first, second, SpanBatch(payloads=first.payloads, code=first.code, pid=1)]
    payloads = {one.digest: one for batch in batches for one in batch.payloads}
    variants = {one.variant for batch in batches for one in batch.code}
    counted = expected_sums(batches)

    def check(base_path: Path) -> None:
        found, code = contents(base_path)
        assert found == sorted(
            (one.digest, one.media_type, len(one.content), one.replayable, one.content) for one in payloads.values()
        )
        assert {row[0] for row in code} == variants
        assert len(code) == len(variants)
        assert sorted(sums(base_path), key=lambda row: (row[2], row[3] or 10**9)) == counted

    with tempfile.TemporaryDirectory() as folder:
        base_path = Path(folder)
        paths = SessionPaths(base_path, "session")
        with Journal.open(paths.journal, map_size=1 << 20) as journal:
            journal.append([codec.encode(batch, 1) for batch in batches[:2]])
            check_partly = rows(base_path, "SELECT count(*) FROM payloads")
            assert check_partly[0][0] == len(payloads)
            with segment.connect() as connection:
                seal.seal_once(paths, journal, 1, connection)
            journal.append([codec.encode(batches[2], 2)])
            check(base_path)
            seal.seal(paths, journal, segment_spans=1)
            check(base_path)
            merge(paths)
            assert len(paths.segments()) == 1
            check(base_path)
        archive_session(paths, remove=True)
        check(base_path)


def test_blobs_without_spans_are_sealed(paths: SessionPaths) -> None:
    """A journal that holds nothing else becomes a segment without spans, which the doctor finds sound."""
    append(paths, beside("a", counts=[count("f")]), beside("b", variants=["v"]))
    assert seal_if_idle(paths)
    with Journal.open(paths.journal) as journal:
        assert journal.stats().blob_count == 0
    assert rows(paths.base_path, "SELECT count(*) FROM spans") == [(0,)]
    assert rows(paths.base_path, "SELECT digest FROM payloads ORDER BY 1") == [("digest of a",), ("digest of b",)]
    assert rows(paths.base_path, "SELECT qualified_name, line_number FROM code") == [("module.v", 3)]
    assert rows(paths.base_path, "SELECT component, pid, call_count FROM counters") == [("f", 7, 1)]
    from otel_debugstore_exporters import doctor

    assert doctor.examine(paths.base_path) == []


def test_what_weighs_is_sealed_without_spans(paths: SessionPaths) -> None:
    """The sealing thread acts on blobs and bytes, too: a program all of whose calls are counted is sealed."""
    with Journal.open(paths.journal) as journal:
        journal.append([codec.encode(beside(counts=[count("f", second=i)]), START_NS) for i in range(80)])
        assert journal.stats().span_count == 0
        assert journal.stats().weight >= 1000
    settings = Settings(base_path=paths.base_path, session_id="s", segment_spans=1000)
    sync = DuckDBSyncProcessor(paths, settings, may_seal=True)
    try:
        deadline = time.monotonic() + 30
        while not paths.segments() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        sync.shutdown()
    assert len(paths.segments()) == 1
    assert rows(paths.base_path, "SELECT sum(call_count)::BIGINT FROM counters") == [(80,)]


def test_large_payloads_make_segments_of_their_own(paths: SessionPaths) -> None:
    """A segment takes a bounded number of bytes, however few spans come with them."""
    append(paths, *(SpanBatch(payloads=[Payload(str(i), "", True, os.urandom(100_000))], pid=1) for i in range(5)))
    with Journal.open(paths.journal) as journal:
        assert len(seal.seal(paths, journal, segment_spans=200)) == 2
    assert rows(paths.base_path, "SELECT count(*), sum(size_bytes)::BIGINT FROM payloads") == [(5, 500_000)]


def test_a_reader_that_stays_counts_once(paths: SessionPaths) -> None:
    """A blob that was in the tail and is in a segment now counts once, and the tail keeps nothing of it."""
    append(paths, beside("a", counts=[count("f", 3)]))
    other = SessionPaths(paths.base_path, "other")
    append(other, beside("a", "b", counts=[count("g")]))
    with SessionReader(paths.base_path) as reader:
        total = "SELECT (SELECT sum(call_count)::BIGINT FROM counters), (SELECT count(*) FROM payloads)"
        assert reader.query(total).rows == [(4, 2)]
        with Journal.open(paths.journal) as journal:
            blob = journal.read()[0][1]
            seal.seal(paths, journal)
            journal.append([blob])  # as if the sealer had died before it deleted it, but under a new sequence
        assert reader.query(total).rows == [(7, 2)]
        with Journal.open(other.journal) as journal:
            seal.seal(other, journal)
        assert reader.query(total).rows == [(7, 2)]
        with Journal.open(paths.journal) as journal:
            seal.seal(paths, journal)
        assert reader.query(total).rows == [(7, 2)]
        left = "SELECT (SELECT count(*) FROM tail.payloads), (SELECT count(*) FROM tail.counters)"
        assert reader.query(left).rows == [(0, 0)]


def test_a_blob_in_tail_and_segment_counts_once(paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sealer that dies before it deletes what it sealed does not double counts."""
    append(paths, beside("a", counts=[count("f", 3)]))
    monkeypatch.setattr(Journal, "delete", lambda *_: None)
    with Journal.open(paths.journal) as journal:
        seal.seal(paths, journal)
        assert journal.stats().blob_count == 1
    assert rows(paths.base_path, "SELECT sum(call_count)::BIGINT FROM counters") == [(3,)]


def test_counts_of_one_component_share_ten_seconds(paths: SessionPaths) -> None:
    """`counters` grows with time, not with commits; processes stay apart."""
    second = beside(counts=[count("f", 5, second=2)])
    second.pid = 8
    append(paths, *(beside(counts=[count("f", second=i)]) for i in range(30)), second)
    with Journal.open(paths.journal) as journal:
        seal.seal(paths, journal, segment_spans=10)
    merge(paths)
    found = rows(paths.base_path, "SELECT pid, start_ns, call_count FROM counters ORDER BY ALL")
    assert [(pid, (start - START_NS) // 10**9, calls) for pid, start, calls in found] == [
        (7, 0, 10),
        (7, 10, 10),
        (7, 20, 10),
        (8, 2, 5),
    ]


def test_a_large_batch_carries_it_once(paths: SessionPaths) -> None:
    """A batch of more spans than a row group is cut, and what goes beside them is there once."""
    batch = batch_from_records([span(number) for number in range(segment.ROW_GROUP_SIZE + 10)], 1)
    batch.payloads, batch.counts = [payload("a")], [count("f")]
    batch.layers = dict.fromkeys(range(len(batch)), "tool")
    with SegmentWriter(paths) as writer:
        writer.add(batch)
        writer.add_source(Source("x", span_count=writer.span_count))
        writer.publish()
    assert rows(paths.base_path, "SELECT layer, count(*) FROM spans GROUP BY 1") == [("tool", len(batch))]
    assert rows(paths.base_path, "SELECT count(*), sum(call_count)::BIGINT FROM counters") == [(1, 1)]


def test_the_store_shows_it(paths: SessionPaths) -> None:
    """`DebugStore` seals and queries it like anything else."""
    append(paths, beside("a", counts=[count("f")], variants=["v"]))
    with DebugStore("s", paths.base_path, auto_sync=False) as store:
        store.write_record("tool", "1", "t")
        store.sync_to_duckdb()
        (row,) = store.query_analytics(
            "SELECT (SELECT count(*) FROM payloads) p, (SELECT count(*) FROM code) c, "
            "(SELECT sum(call_count)::BIGINT FROM counters) n, (SELECT count(*) FROM spans) s"
        )
    assert row == {"p": 1, "c": 1, "n": 1, "s": 1}
