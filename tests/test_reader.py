"""The fresh view: sealed or not, while others write, seal, merge, archive and remove; and SQL of strangers."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from faults import Workers, seal_and_merge, stored_names
from otel_debugstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InvalidSessionIdError,
    QueryError,
    SessionNotFoundError,
)
from otel_debugstore_exporters import archive, codec, schema
from otel_debugstore_exporters.archive import ArchiveError, archive_session
from otel_debugstore_exporters.batch import Event, Link, Resource, SpanRecord, batch_from_records
from otel_debugstore_exporters.doctor import examine
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.seal import merge, seal
from otel_debugstore_exporters.session import SessionPaths
from sessions import hex_id, span, write_journal, write_sealed


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def paths(base: Path) -> SessionPaths:
    return SessionPaths(base, "s")


def count(reader: SessionReader) -> int:
    return int(reader.query("SELECT count(*) FROM spans").rows[0][0])


# --- freshness


def test_it_is_fresh(base: Path, paths: SessionPaths) -> None:
    """Each query sees what was committed before it, sealed or not, and a refresh says whether there was anything."""
    write_journal(base, "s", [span(1)])
    with SessionReader(base, ["s"]) as reader:
        assert reader.refresh()
        assert not reader.refresh()
        assert count(reader) == 1
        write_journal(base, "s", [span(2)])
        assert count(reader) == 2
        seal_and_merge(paths)
        assert count(reader) == 2
        write_journal(base, "s", [span(3)])
        write_sealed(base, "s", [span(4), span(5)])
        assert count(reader) == 5
        seal_and_merge(paths)
        assert count(reader) == 5
        assert reader.query("SELECT list(span_id ORDER BY span_id) FROM spans").rows == [
            ([hex_id(number) for number in range(1, 6)],)
        ]
        assert reader.query("SELECT span_count FROM traces").rows == [(5,)]


def test_several_sessions(base: Path) -> None:
    """Named ones, or all, also those that begin later; the columns say which is which."""
    for session_id in ("a", "b", "c"):
        write_sealed(base, session_id, [span(1)])
        write_journal(base, session_id, [span(2)])
    with SessionReader(base, ["a", "c"]) as reader, SessionReader(base) as everything:
        assert count(reader) == 4
        assert count(everything) == 6
        write_journal(base, "d", [span(3)])
        assert count(reader) == 4
        assert count(everything) == 7
        sql = "SELECT session, count(*) FROM spans GROUP BY ALL ORDER BY ALL"
        assert everything.query(sql).rows == [("a", 2), ("b", 2), ("c", 2), ("d", 1)]
        assert everything.query("SELECT count(*) FROM traces").rows == [(4,)]


def test_sessions_that_are_not_there(base: Path) -> None:
    """An unknown id, and ids that no file may have, are errors; an empty folder is an empty view."""
    with SessionReader(base) as reader:
        assert count(reader) == 0
    with pytest.raises(SessionNotFoundError, match="there is none"):
        SessionReader(base, ["s"])
    write_journal(base, "known", [span(1)])
    with pytest.raises(SessionNotFoundError, match="known"):
        SessionReader(base, ["s"])
    for bad in (
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc",
        "a b",
        "é",
        "a\0b",
        "a\n",
        "+",
        "a+b",
        "-x",
        ".x",
        "x" * 129,
        "*",
    ):
        with pytest.raises(InvalidSessionIdError, match="Choose another"):
            SessionReader(base, [bad])
    assert [path.name for path in base.iterdir()] == ["known.lmdb"]


@pytest.mark.parametrize("session_id", ["_", "a..b", "x" * 128, "a.lmdb", "a.duckdb", "s.archive", "A-_.9"])
def test_sessions_with_odd_names(base: Path, session_id: str) -> None:
    """Everything that may be an id works as one, and stays apart from its neighbours."""
    for name in (session_id, "a"):
        write_journal(base, name, [span(1)])
        write_sealed(base, name, [span(2)])
        write_sealed(base, name, [span(3)])
    with SessionReader(base, [session_id]) as reader:
        assert count(reader) == 3
    with SessionReader(base) as reader:
        assert count(reader) == 6
        assert sorted(reader.session_ids) == sorted([session_id, "a"])


def test_views_of_an_empty_session(base: Path) -> None:
    """Every view is there and empty."""
    write_journal(base, "s", [])
    with SessionReader(base, ["s"]) as reader:
        views = [row[0] for row in reader.query("SELECT view_name FROM duckdb_views() WHERE NOT internal").rows]
        assert {"spans", "traces", "otel_traces", "records", "performance_summary", "rollup"} <= set(views)
        for view in views:
            assert reader.query(f"SELECT * FROM {view}").rows == []
        assert list(reader.records()) == []


def test_a_damaged_blob_does_not_hide_the_others(base: Path, paths: SessionPaths) -> None:
    """The doctor names it; the rest is shown."""
    good = codec.encode(batch_from_records([span(1)], 1), 1)
    damaged = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
    with Journal.open(paths.journal) as journal:
        journal.append([good, damaged, b"", good])
    with SessionReader(base, ["s"]) as reader:
        assert count(reader) == 2


def test_a_blob_from_the_future_is_an_error_every_time(base: Path, paths: SessionPaths) -> None:
    """A query never answers without what it can't read; with a newer version it would answer with it."""
    good = codec.encode(batch_from_records([span(1)], 1), 1)
    with Journal.open(paths.journal) as journal:
        journal.append([good, b"\x07" + good[1:], good])
    with SessionReader(base, ["s"]) as reader:
        for _ in range(3):
            with pytest.raises(FormatVersionError, match="upgrade"):
                count(reader)
        with Journal.open(paths.journal) as journal:
            journal.delete(1, 1)
        assert count(reader) == 2


def test_a_segment_that_can_not_be_read_is_an_error_every_time(base: Path) -> None:
    """And when it is mended, the same reader goes on."""
    write_sealed(base, "s", [span(1)])
    write_sealed(base, "s", [span(2)])
    with SessionReader(base, ["s"]) as reader:
        assert count(reader) == 2
        write_sealed(base, "s", [span(3)])
        (newest,) = set(base.glob("s*.duckdb")) - {segment.path for segment in reader.segments()}
        good = newest.read_bytes()
        newest.write_bytes(good[:1000])
        for _ in range(3):
            with pytest.raises(CorruptDataError, match="doctor"):
                count(reader)
        newest.rename(newest.with_suffix(".aside"))
        assert count(reader) == 2
        newest.with_suffix(".aside").write_bytes(good)
        newest.with_suffix(".aside").rename(newest)
        assert count(reader) == 3


def test_damage_that_shows_only_when_columns_are_read(base: Path) -> None:
    """It is an error of ours, whatever reads it."""
    write_sealed(base, "s", [span(n, attributes={"text": f"{n * 7919:x}" * 9}) for n in range(1, 3000)])
    write_journal(base, "s", [span(5000)])
    (path,) = base.glob("s.duckdb")
    good = path.read_bytes()
    seen = set()
    for place in range(12_288, len(good), len(good) // 9):
        path.write_bytes(good[:place] + bytes(64) + good[place + 64 :])
        try:
            with SessionReader(base, ["s"]) as reader:
                assert reader.query("SELECT sum(hash(s)) FROM spans s").rows
                assert len(list(reader.records())) == 3000
        except (CorruptDataError, QueryError) as error:
            seen.add(type(error))
    assert CorruptDataError in seen


def test_a_journal_that_begins_anew(base: Path, paths: SessionPaths) -> None:
    """A reader follows when the journal it has open is removed, and when another one takes its place."""
    write_journal(base, "s", [span(1), span(2)])
    write_sealed(base, "s", [span(3)])
    with SessionReader(base, ["s"]) as reader:
        assert count(reader) == 3
        shutil.rmtree(paths.journal)
        assert count(reader) == 1
        write_journal(base, "s", [span(4)])
        assert count(reader) == 2
        shutil.rmtree(paths.journal)
        paths.main_segment.unlink()
        assert count(reader) == 0
        assert not reader.refresh()


# --- consistency


def test_a_count_never_drops(base: Path, paths: SessionPaths) -> None:
    """While another thread records, seals and merges, every answer lies between what was there before and after."""
    write_journal(base, "s", [span(1)])
    written, problems, done = [1], list[str](), threading.Event()

    def watch() -> None:
        last = 0
        with SessionReader(base, ["s"], threads=1) as reader:
            while not done.is_set():
                before = written[0]
                found = count(reader)
                if not max(last, before) <= found <= written[0] + 5:
                    problems.append(f"{found} after {last}, of {before} to {written[0]}")
                last = found

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        with Journal.open(paths.journal) as journal:
            for number in range(6):
                for part in range(3):
                    records = [span(100 + number * 50 + part * 5 + i) for i in range(5)]
                    journal.append([codec.encode(batch_from_records(records, 1), 1)])
                    written[0] += 5
                seal(paths, journal, segment_spans=10)
                if number % 3 == 2:
                    merge(paths, at_least=2)
    finally:
        done.set()
        for watcher in watchers:
            watcher.join()
    assert problems == []
    with SessionReader(base, ["s"]) as reader:
        assert count(reader) == 1 + 6 * 15


def test_a_segment_appears_while_the_tail_is_read_again(
    base: Path, paths: SessionPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealing between two steps of a refresh hides nothing: what left the journal is looked for in segments again."""
    write_journal(base, "s", [span(1)])
    with SessionReader(base, ["s"]) as reader:
        assert count(reader) == 1
        write_journal(base, "s", [span(2)])
        with Journal.open(paths.journal) as journal:
            seal(paths, journal, segment_spans=1)
        write_journal(base, "s", [span(3)])
        real, calls = SessionReader._forget_tail, list[int]()

        def forget_and_somebody_seals(self: SessionReader, session: object) -> None:
            real(self, session)  # type: ignore[arg-type]
            calls.append(1)
            if len(calls) == 1:
                with Journal.open(paths.journal) as journal:
                    seal(paths, journal, segment_spans=1)

        monkeypatch.setattr(SessionReader, "_forget_tail", forget_and_somebody_seals)
        assert count(reader) == 3
        assert calls


# --- archives


def test_an_archive_reads_like_the_session(base: Path, paths: SessionPaths) -> None:
    """Every span and view, from Parquet alone."""
    spans = [
        span(n, parent=1 if n > 1 else None, error="E" if n == 3 else None, attributes={"n": n}) for n in range(1, 9)
    ]
    write_sealed(base, "s", spans[:3])
    write_sealed(base, "s", spans[3:6])
    write_journal(base, "s", spans[6:])
    queries = [
        f"SELECT * FROM {view} ORDER BY ALL" for view in ("traces", "otel_traces", "records", "performance_summary")
    ]
    queries.append(
        f"SELECT {', '.join(c for c in schema.SPAN_COLUMNS if c != 'attributes')[:-7]} FROM spans ORDER BY ALL"
    )
    with SessionReader(base, ["s"]) as reader:
        expected = [reader.query(sql).rows for sql in queries]
    archive_session(paths, remove=True)
    assert [path.name for path in base.iterdir()] == ["s.archive"]
    with SessionReader(base, ["s"]) as reader:
        assert [reader.query(sql).rows for sql in queries] == expected
        assert reader.query("SELECT sum(attributes['n']::INTEGER) FROM spans").rows == [(36,)]
        assert len(list(reader.records())) == 8
        assert reader.query_untrusted("SELECT count(*) FROM spans").rows == [(8,)]


@pytest.mark.parametrize("parts", ["journal", "sealed", "both"])
def test_an_archive_beside_the_session_counts_once(base: Path, paths: SessionPaths, parts: str) -> None:
    """Also after more was recorded, sealed and merged, and when parts of the session are gone."""
    if parts != "journal":
        write_sealed(base, "s", [span(1), span(2)])
    if parts != "sealed":
        write_journal(base, "s", [span(3), span(4)])
    archive_session(paths)
    with SessionReader(base, ["s"]) as reader:
        expected = {"journal": 2, "sealed": 2, "both": 4}[parts]
        assert count(reader) == expected
        assert len(stored_names(paths)) == 1
        write_journal(base, "s", [span(5)])
        assert count(reader) == expected + 1
        seal_and_merge(paths)
        assert count(reader) == expected + 1
        with SessionReader(base, ["s"]) as another:
            assert count(another) == expected + 1
        with pytest.raises(ArchiveError, match="exists already"):
            archive_session(paths)


def test_what_was_dropped_outlives_the_journal(base: Path, paths: SessionPaths) -> None:
    """The counts of an archived session are in its archive; what is dropped later adds to them."""
    with Journal.open(paths.journal) as journal:
        journal.append([codec.encode(batch_from_records([span(1)]), 1)], {"queue_full": 3})

    def dropped() -> list[int]:
        with SessionReader(base, ["s"]) as reader:
            reader.refresh()
            return sorted(drop.count for drop in reader.drops()["s"])

    archive_session(paths)
    assert dropped() == [3]
    shutil.rmtree(paths.archive)
    archive_session(paths, remove=True)
    assert dropped() == [3]
    assert any("3 spans were dropped" in finding.what for finding in examine(base))
    with Journal.open(paths.journal) as journal:
        journal.append([codec.encode(batch_from_records([span(2)]), 1)], {"queue_full": 4})
    assert dropped() == [3, 4]


def test_recording_goes_on_after_archiving(base: Path, paths: SessionPaths) -> None:
    """An archived session that is recorded into again shows both; a reader that was open follows."""
    write_journal(base, "s", [span(1), span(2)])
    with SessionReader(base, ["s"]) as reader:
        assert count(reader) == 2
        archive_session(paths, remove=True)
        assert count(reader) == 2
        write_journal(base, "s", [span(3)])
        assert count(reader) == 3
        seal_and_merge(paths)
        assert count(reader) == 3
        with SessionReader(base, ["s"]) as another:
            assert count(another) == 3


def test_what_is_recorded_is_not_archived_away(base: Path, paths: SessionPaths, workers: Workers) -> None:
    """Removing is refused while a program records, and never removes what came after the archive was written."""
    writer = workers.start("write", paths, writer=1).wait_for()
    with pytest.raises(ArchiveError, match="being recorded"):
        archive_session(paths, remove=True)
    assert not paths.archive.exists()
    archive_session(paths)
    writer.wait_for(len(writer.said()) + 5)
    writer.kill()
    assert {name.rpartition("-")[0] for name in stored_names(paths)} >= writer.acknowledged()


def test_what_appears_while_archiving_stays(base: Path, paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that is imported, and spans that are recorded, after the archive was written."""
    write_sealed(base, "s", [span(1)])
    write_journal(base, "s", [span(2)])
    real = Path.rename

    def rename_and_others_write(self: Path, target: Path) -> Path:
        found = real(self, target)
        write_sealed(base, "s", [span(3)])
        write_journal(base, "s", [span(4)])
        return found

    monkeypatch.setattr(Path, "rename", rename_and_others_write)
    with pytest.raises(ArchiveError, match="was recorded into"):
        archive_session(paths, remove=True)
    with SessionReader(base, ["s"]) as reader:
        assert reader.query("SELECT list(span_id ORDER BY span_id) FROM spans").rows == [
            (list(map(hex_id, range(1, 5))),)
        ]
    assert len(paths.segments()) == 1


def test_an_archive_that_can_not_be_read(base: Path, paths: SessionPaths) -> None:
    """It is an error that says what to do."""
    write_sealed(base, "s", [span(1)])
    archive_session(paths, remove=True)
    (paths.archive / "traces.parquet").write_bytes(b"PAR1")
    with SessionReader(base, ["s"]) as reader, pytest.raises(CorruptDataError, match="restore it"):
        count(reader)


def test_two_archivers_at_once(base: Path, paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is refused, and takes nothing away from the first."""
    write_sealed(base, "s", [span(1)])
    real = archive.export_parquet

    def write_and_another_tries(reader: SessionReader, folder: Path) -> None:
        real(reader, folder)
        with pytest.raises(ArchiveError, match="being archived already"):
            archive_session(paths, remove=True)

    monkeypatch.setattr(archive, "export_parquet", write_and_another_tries)
    archive_session(paths, remove=True)
    assert stored_names(paths) == {"work": 1}
    assert [path.name for path in base.iterdir()] == ["s.archive"]


# --- self times


@st.composite
def traces(draw: st.DrawFn) -> list[SpanRecord]:
    """Spans of two traces: overlapping, longer than their parents, sharing ids, without times, in rings."""
    spans = []
    for _ in range(draw(st.integers(1, 14))):
        start = draw(st.integers(0, 30))
        record = span(
            draw(st.integers(1, 6)),
            trace=draw(st.integers(1, 2)),
            parent=draw(st.none() | st.integers(1, 7)),
            start_ms=start,
            duration_ms=draw(st.integers(0, 20)),
        )
        if draw(st.integers(0, 9)) == 0:
            record = replace(record, start_ns=draw(st.sampled_from([None, record.start_ns])), end_ns=None)
        spans.append(record)
    return spans


def self_ns(record: SpanRecord, among: Sequence[SpanRecord]) -> int | None:
    """The duration less the milliseconds in which a child runs, counted one by one."""
    if record.start_ns is None or record.end_ns is None:
        return None
    ms = 1_000_000
    busy = {
        moment
        for child in among
        if child.trace_id == record.trace_id and child.parent_id == record.span_id
        if child.start_ns is not None and child.end_ns is not None
        for moment in range(max(child.start_ns, record.start_ns), min(child.end_ns, record.end_ns), ms)
    }
    return record.end_ns - record.start_ns - ms * len(busy)


def _shown(reader: SessionReader) -> list[tuple[object, ...]]:
    sql = "SELECT trace_id, span_id, parent_id, start_ns, duration_ns, self_ns FROM spans"
    return sorted(reader.query(sql).rows, key=repr)


def _expected(spans: Sequence[SpanRecord]) -> list[tuple[object, ...]]:
    rows = []
    for record in spans:
        own = self_ns(record, spans)
        duration = None if record.start_ns is None or record.end_ns is None else record.end_ns - record.start_ns
        parent = record.parent_id and record.parent_id.hex()
        rows.append((record.trace_id.hex(), record.span_id.hex(), parent, record.start_ns, duration, own))
    return sorted(rows, key=repr)


def _split(draw: st.DataObject, spans: Sequence[SpanRecord]) -> Iterator[list[SpanRecord]]:
    parts: list[list[SpanRecord]] = [[] for _ in range(3)]
    for record in spans:
        parts[draw.draw(st.integers(0, 2))].append(record)
    yield from parts


@given(spans=traces(), data=st.data())
@settings(
    deadline=None,
    max_examples=10,
    phases=[Phase.explicit, Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.too_slow],
)
def test_self_times(spans: list[SpanRecord], data: st.DataObject) -> None:
    """Self time is the duration less the union of the children's intervals, however a trace is spread over parts."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        first, second, tail = _split(data, spans)
        for part in (first, second):
            if part:
                write_sealed(base, "s", part)
        write_journal(base, "s", tail)
        expected = _expected(spans)
        with SessionReader(base, ["s"]) as reader:
            assert _shown(reader) == expected
            seal_and_merge(SessionPaths(base, "s"))
            assert _shown(reader) == expected


@given(spans=traces())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_self_times_in_sql(spans: list[SpanRecord]) -> None:
    """The same, of the SQL alone, where the times of all spans are known."""
    known = [record for record in spans if record.start_ns is not None and record.end_ns is not None]
    rows = [
        (key, r.trace_id.hex(), r.span_id.hex(), r.parent_id and r.parent_id.hex(), r.start_ns, r.end_ns - r.start_ns)
        for key, r in enumerate(known)
        if r.start_ns is not None and r.end_ns is not None
    ]
    _CONNECTION.execute(
        "CREATE OR REPLACE TABLE edge (key BIGINT, trace_id VARCHAR, span_id VARCHAR, parent_id VARCHAR, "
        "start_ns BIGINT, duration_ns BIGINT)"
    )
    for row in rows:
        _CONNECTION.execute("INSERT INTO edge VALUES (?, ?, ?, ?, ?, ?)", row)
    found = dict(_CONNECTION.execute(schema.self_times("edge")).fetchall())
    for key, record in enumerate(known):
        own = self_ns(record, known)
        assert found.get(key, rows[key][-1]) == own


_CONNECTION = duckdb.connect()


# --- SQL of strangers

_ALLOWED = {
    "SELECT count(*) FROM spans": [(2,)],
    "FROM spans SELECT count(*);": [(2,)],
    "WITH x AS (SELECT 1 AS a) SELECT a FROM x -- done": [(1,)],
    "VALUES (1), (2)": [(1,), (2,)],
    "SELECT attributes['a']::INTEGER FROM spans ORDER BY 1": [(1,), (2,)],
    "SELECT 'it''s; DROP TABLE x'": [("it's; DROP TABLE x",)],
}


@pytest.fixture(scope="module")
def two_spans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("two spans")
    write_sealed(base, "s", [span(1, attributes={"a": 1})])
    write_journal(base, "s", [span(2, attributes={"a": 2})])
    return base


def test_untrusted_queries(two_spans: Path) -> None:
    """One reader answers any number of SELECTs, with the columns' names, and can't be refreshed any more."""
    with SessionReader(two_spans, ["s"]) as reader:
        for sql, rows in _ALLOWED.items():
            assert reader.query_untrusted(sql).rows == rows
        assert "PROJECTION" in str(reader.query_untrusted("EXPLAIN SELECT count(*) FROM spans").rows).upper()
        assert reader.query_untrusted("EXPLAIN ANALYZE SELECT count(*) FROM spans").rows
        limited = reader.query_untrusted("SELECT span_id AS id FROM spans", limit=1)
        assert (limited.columns, limited.types, len(limited.rows), limited.truncated) == (
            ("id",),
            ("VARCHAR",),
            1,
            True,
        )
        with pytest.raises(QueryError, match="open another one"):
            reader.query("SELECT 1")


_FORBIDDEN = [
    "",
    "-- nothing",
    ";",
    "SELECT 1; SELECT 2",
    "SELEC 1",
    "SELECT * FROM nothing",
    "SELECT 'a'::INTEGER",
    "SELECT '\ud800'",
    "DELETE FROM tail.spans",
    "UPDATE tail.spans SET name = 'x'",
    "INSERT INTO tail.code VALUES ('a', 'b', 'c', 1, 'd', 'e')",
    "CREATE TABLE memory.t AS SELECT 1",
    "DROP VIEW spans",
    "ALTER TABLE tail.spans DROP name",
    "TRUNCATE tail.spans",
    "EXPLAIN ANALYZE DELETE FROM tail.spans",
    "explain /* */ analyse DROP VIEW spans",
    "EXPLAIN (ANALYZE) DELETE FROM tail.spans",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
    "COPY (SELECT 1) TO '{out}'",
    "EXPORT DATABASE '{out}'",
    "ATTACH '{out}' AS other",
    "DETACH tail",
    "USE tail",
    "SET threads = 1",
    "SET enable_external_access = true",
    "RESET ALL",
    "PRAGMA database_list",
    "CALL enable_logging(storage = 'file', storage_path = '{out}')",
    "SELECT * FROM enable_logging(storage = 'file', storage_path = '{out}')",
    "SELECT * FROM enable_profiling(save_location = '{out}')",
    "INSTALL httpfs",
    "LOAD httpfs",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "CHECKPOINT",
    "VACUUM",
    "SELECT * FROM read_csv('{here}')",
    "SELECT * FROM read_text('{here}')",
    "SELECT * FROM read_blob('{here}')",
    "SELECT * FROM '{here}'",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM sniff_csv('{here}')",
    "SELECT * FROM read_parquet('https://127.0.0.1:9/x.parquet')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT getenv('HOME')",
    "SELECT * FROM query('DROP VIEW spans')",
    "WITH gone AS (DELETE FROM tail.spans RETURNING *) SELECT * FROM gone",
]


@pytest.mark.parametrize("sql", _FORBIDDEN)
def test_forbidden_queries(two_spans: Path, tmp_path: Path, sql: str) -> None:
    """SQL that is wrong, writes, or reaches for files or the network: one line says so, and nothing has changed."""
    out, here = tmp_path / "out", Path(__file__)
    before = {path: path.read_bytes() for path in two_spans.rglob("*.duckdb")}
    with SessionReader(two_spans, ["s"]) as reader:
        with pytest.raises(QueryError) as raised:
            reader.query_untrusted(sql.format(out=out, here=here))
        assert "\n" not in str(raised.value)
        assert reader.query_untrusted("SELECT count(*), count(DISTINCT name) FROM spans").rows == [(2, 1)]
    assert not out.exists()
    assert {path: path.read_bytes() for path in two_spans.rglob("*.duckdb")} == before


def test_a_query_that_takes_too_long(two_spans: Path) -> None:
    """It is stopped, and the reader answers the next one."""
    with SessionReader(two_spans, ["s"]) as reader:
        began = time.monotonic()
        with pytest.raises(QueryError, match="narrow it down"):
            reader.query_untrusted("SELECT count(*) FROM range(1000000) a, range(1000000) b", timeout_seconds=0.3)
        assert time.monotonic() - began < 60
        assert reader.query_untrusted("SELECT 1").rows == [(1,)]


def test_wrong_queries_of_our_own(two_spans: Path) -> None:
    """Also these are errors of ours, and the reader goes on."""
    with SessionReader(two_spans, ["s"]) as reader:
        for sql in ("SELEC", "SELECT * FROM nothing", "SELECT '\ud800'", "SELECT ?"):
            with pytest.raises(QueryError):
                reader.query(sql)
        assert reader.query("SELECT count(*) FROM spans WHERE span_id = ?", [hex_id(1)]).rows == [(1,)]
        assert reader.query("SELECT count(*) FROM spans WHERE span_id = $id", {"id": hex_id(1)}).rows == [(1,)]


_KEYS = [
    "plain",
    "a.b",
    "a.b.c",
    'quo"te',
    "it's",
    "nul\0in",
    "[0]",
    "a[0].b",
    "$.x",
    "ü✓",
    "new\nline",
    "back\\slash",
    "%s",
    "{x}",
    " ",
    "a'] AS x, s.attributes['plain",
    "--",
    ";",
    "x" * 300,
]


_OTEL_TRACES = {
    "Timestamp": "TIMESTAMP_NS",
    "TraceId": "VARCHAR",
    "SpanId": "VARCHAR",
    "ParentSpanId": "VARCHAR",
    "TraceState": "VARCHAR",
    "SpanName": "VARCHAR",
    "SpanKind": "VARCHAR",
    "ServiceName": "VARCHAR",
    "ResourceAttributes": "MAP(VARCHAR, VARCHAR)",
    "ScopeName": "VARCHAR",
    "ScopeVersion": "VARCHAR",
    "SpanAttributes": "MAP(VARCHAR, VARCHAR)",
    "Duration": "UBIGINT",
    "StatusCode": "VARCHAR",
    "StatusMessage": "VARCHAR",
    "Events.Timestamp": "TIMESTAMP_NS[]",
    "Events.Name": "VARCHAR[]",
    "Events.Attributes": "MAP(VARCHAR, VARCHAR)[]",
    "Links.TraceId": "VARCHAR[]",
    "Links.SpanId": "VARCHAR[]",
    "Links.TraceState": "VARCHAR[]",
    "Links.Attributes": "MAP(VARCHAR, VARCHAR)[]",
}
"""What the Collector's ClickHouse exporter creates, in the types that DuckDB has for it, in order."""


def test_the_collectors_columns(base: Path) -> None:
    """Names and types in the order of its table, and attributes of any name as text; null is no text, as there."""
    attributes: dict[str, Any] = {
        key: f"v{number}" for number, key in enumerate([*_KEYS, "", "*", "~1", "/", "\\", '\\"'])
    }
    attributes |= {"whole": 1, "list": [1, "a"], "map": {"k": True}, "null": None}
    expected = attributes | {"whole": "1", "list": '[1,"a"]', "map": '{"k":true}', "null": ""}
    record = span(1, attributes=attributes)
    record = replace(
        record,
        events=(Event(5, "e", attributes),),
        links=(Link(b"\1" * 16, b"\2" * 8, attributes=attributes),),
        resource=Resource(attributes),
    )
    write_sealed(base, "s", [record])
    write_journal(base, "s", [record])
    with SessionReader(base, ["s"]) as reader:
        result = reader.query("SELECT * FROM otel_traces")
        assert dict(zip(result.columns, result.types, strict=True)) == _OTEL_TRACES
        assert list(result.columns) == list(_OTEL_TRACES)
        for row in (dict(zip(result.columns, values, strict=True)) for values in result.rows):
            assert row["SpanAttributes"] == row["ResourceAttributes"] == expected
            assert row["Events.Attributes"] == row["Links.Attributes"] == [expected]


def test_more_sessions_than_files_may_be_open(base: Path, workers: Workers, paths: SessionPaths) -> None:
    """The reader raises the limit of its process as far as it takes."""
    for number in range(20):
        write_sealed(base, f"s{number}", [span(1)])
        write_journal(base, f"s{number}", [span(2)])
    assert workers.run("count_with_few_files", paths, files=30) == ["40"]


def test_attributes_of_any_name(base: Path) -> None:
    """An attribute is found by exactly its name, and nothing in a name is SQL."""
    attributes = {key: number for number, key in enumerate(_KEYS)} | {"a": {"b": 99, "c": [1]}}
    write_sealed(base, "s", [span(1, attributes=attributes)])
    write_journal(base, "s", [span(2, attributes=attributes)])
    with SessionReader(base, ["s"]) as reader:
        reader.refresh()
        for number, key in enumerate(_KEYS):
            sql = reader.spans_sql(("span_id",), {key: (key, "BIGINT")})
            result = reader.query(f"{sql} ORDER BY span_id")
            assert result.columns == ("span_id", key)
            assert result.rows == [(hex_id(1), number), (hex_id(2), number)]
        missing = reader.spans_sql(
            ("name",), {"x": ("not there", "BIGINT"), "y": ("plain", "BOOLEAN"), "z": ("a", "BIGINT")}
        )
        assert set(reader.query(missing).rows) == {("work", None, False, None)}
