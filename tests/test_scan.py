"""`debugstore scan`: what older data holds is found and masked, everywhere, and nothing else changes."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zstandard

from commands import refused, run, run_well
from faults import Worker, Workers, problems
from otel_debugstore.errors import SessionNotFoundError
from otel_debugstore.masking import Masker
from otel_debugstore.outbox import CallCount, Code, Payload
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.archive import archive_session
from otel_debugstore_exporters.batch import Event, Link, Resource, SpanBatch, SpanRecord, batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.merging import merge
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.scan import ScanError, fix, scan
from otel_debugstore_exporters.seal import seal, seal_if_idle
from otel_debugstore_exporters.session import SessionPaths
from sessions import START_NS, span
from strategies import comparable

SECRET = "ghp_" + "a1B2" * 9
PASSWORD = "hunter2-the-second"
FORMS = ("journal", "segment", "merged", "archive", "archive and segment")
MASKER = Masker()


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "s")


def clean_spans() -> list[SpanRecord]:
    """Spans of several kinds that hold no secret, some of which the columns can't hold exactly."""
    return [
        span(1, "a", attributes={"url": "http://localhost:80/x", "n": 2**70, "tokens": 5}, service="shop"),
        span(2, "b", parent=1, attributes={"f": float("nan"), "b": b"\xff"}, error="ValueError"),
        span(3, "c", attributes={"layers": ["x"]}, trace_state="ot=th:8"),
    ]


def leaky_spans() -> list[SpanRecord]:
    """Spans that hold a secret in every place there is."""
    shared = Resource({"service.name": "shop", "deploy.password": PASSWORD})
    return [
        span(11, f"get {SECRET}"),
        span(12, attributes={"url": f"https://x/?t={SECRET}", "password": PASSWORD, "n": 2**70}),
        span(13, attributes={"many": ["x", SECRET], "nested": {"authorization": f"Bearer {PASSWORD}123"}}),
        _changed(span(14, error="E"), events=(Event(START_NS, "exception", {"exception.message": f"no {SECRET}"}),)),
        _changed(span(15), status_message=f"token={SECRET}"),
        _changed(span(16), links=(Link(b"\1" * 16, b"\2" * 8, attributes={"api_key": PASSWORD}),)),
        _changed(span(17), resource=shared),
    ]


def _changed(record: SpanRecord, **fields: Any) -> SpanRecord:
    known = {name: getattr(record, name) for name in SpanRecord.__dataclass_fields__}
    return SpanRecord(**known | fields)


def leaky_batch() -> SpanBatch:
    batch = batch_from_records([*clean_spans(), *leaky_spans()], 7)
    batch.layers = {0: "tool", 4: "step"}
    pairs = [["user", "u"], [1, 2], ["password", "pw"]]
    batch.payloads = [
        Payload("d1", "application/msgpack", True, msgpack.packb({"query": f"x {SECRET}", "limit": 3})),
        Payload("d2", "application/msgpack", True, msgpack.packb({"$map": pairs})),
        Payload("d3", "application/msgpack", True, msgpack.packb([1, {"limit": 3}])),
    ]
    batch.code = [Code("v1", "m.f", source=f"KEY = '{SECRET}'"), Code("v2", "m.g", source="pass")]
    batch.counts = [CallCount(START_NS, START_NS + 1, "function", f"f {SECRET}", 3, 0, 5, 1, 1)]
    return batch


def store(paths: SessionPaths, form: str) -> None:
    """Write the batch twice, as a session of that form, unmasked as an import or an older version does."""
    second = batch_from_records([span(21, f"also {SECRET}"), span(22)], 8)
    with Journal.open(paths.journal) as journal:
        journal.append([codec.encode(leaky_batch(), START_NS)], {"queue_full": 5})
        journal.append([codec.encode(second, START_NS)])
        if form != "journal":
            seal(paths, journal, segment_spans=1)
    if form == "merged":
        merge(paths)
    if form.startswith("archive"):
        archive_session(paths, remove=form == "archive")


def bytes_on_disk(base_path: Path) -> bytes:
    """Everything in all files, and what is in their zstd frames."""
    data = b"".join(path.read_bytes() for path in sorted(base_path.rglob("*")) if path.is_file())
    found, place = [data], data.find(zstandard.FRAME_HEADER)
    while place >= 0:
        with contextlib.suppress(zstandard.ZstdError):
            found.append(zstandard.ZstdDecompressor().decompressobj().decompress(data[place:]))
        place = data.find(zstandard.FRAME_HEADER, place + 1)
    return b"\0".join(found)


def everything(base_path: Path) -> dict[str, Any]:
    """All that a session shows."""
    tables = {
        "layers": "SELECT name, layer, pid, self_ns, sample_weight FROM spans ORDER BY span_id",
        "payloads": "SELECT digest, replayable FROM payloads ORDER BY ALL",
        "code": "SELECT variant, qualified_name FROM code ORDER BY ALL",
        "counters": "SELECT call_count, recorded_count, pid FROM counters ORDER BY ALL",
        "traces": "SELECT trace_id, span_count, error_count FROM traces ORDER BY ALL",
        "rollup": "SELECT sum(span_count)::BIGINT FROM rollup",
    }
    with SessionReader(base_path) as reader:
        found: dict[str, Any] = {name: reader.query(sql).rows for name, sql in tables.items()}
        found["records"] = {record.span_id: comparable(record) for record in reader.records()}
    return found


@pytest.mark.parametrize("form", FORMS)
def test_secrets_are_found_and_masked(paths: SessionPaths, form: str) -> None:
    """Every place is named with its kind; after `fix` no byte of a secret is left, and all else is as it was."""
    store(paths, form)
    before = everything(paths.base_path)
    if form == "journal":
        assert SECRET.encode() in bytes_on_disk(paths.base_path)
    found = scan(paths.base_path, None, MASKER)
    assert everything(paths.base_path) == before
    columns = {(one.column, one.kind) for one in found}
    assert {
        ("name", "github token"),
        ("attributes.url", "github token"),
        ("attributes.password", "password"),
        ("attributes.many", "github token"),
        ("events.exception.message", "github token"),
        ("links.api_key", "api_key"),
        ("resources.deploy.password", "password"),
        ("payloads.content", "github token"),
        ("payloads.content", "password"),
        ("code.source", "github token"),
        ("counters.component", "github token"),
    } <= columns
    assert {column for column, _ in columns} >= {"status_message", "attributes.nested"}
    assert SECRET not in repr(found)
    assert PASSWORD not in repr(found)
    names = {one.place: one.value_count for one in found if (one.column, one.kind) == ("name", "github token")}
    assert sum(names.values()) == (4 if form == "archive and segment" else 2)

    assert sorted(fix(paths.base_path, ["s"], MASKER)) == sorted(found)
    assert scan(paths.base_path, None, MASKER) == []
    on_disk = bytes_on_disk(paths.base_path)
    assert SECRET.encode() not in on_disk
    assert PASSWORD.encode() not in on_disk
    _same_but_masked(before, everything(paths.base_path))
    assert problems(paths) == []
    if form != "archive":
        with Journal.open(paths.journal) as journal:
            assert [(drop.reason, drop.count) for drop in journal.drops()] == [("queue_full", 5)]


def _same_but_masked(before: dict[str, Any], after: dict[str, Any]) -> None:
    clean = [one.span_id for one in [*clean_spans(), span(22)]]
    assert set(before["records"]) == set(after["records"])
    assert {key: before["records"][key] for key in clean} == {key: after["records"][key] for key in clean}
    assert before["counters"] == after["counters"]
    assert before["traces"] == after["traces"]
    assert before["rollup"] == after["rollup"]
    assert before["code"] == after["code"]
    assert [row[1:] for row in before["layers"]] == [row[1:] for row in after["layers"]]
    assert after["payloads"] == [("d1", False), ("d2", False), ("d3", True)]
    url = after["records"][(12).to_bytes(8, "big")]["attributes"]["url"]
    assert url == "https://x/?t=(masked: github token)"
    assert after["records"][(12).to_bytes(8, "big")]["attributes"]["n"] == comparable(2**70)


def test_masked_payloads(paths: SessionPaths) -> None:
    """What was found in a payload is masked where it is; the digest, which spans name, stays."""
    store(paths, "segment")
    fix(paths.base_path, None, MASKER)
    with SessionReader(paths.base_path) as reader:
        rows = reader.query("SELECT digest, content, size_bytes FROM payloads").rows
    contents = {digest: msgpack.unpackb(content) for digest, content, _ in rows}
    assert contents == {
        "d1": {"query": "x (masked: github token)", "limit": 3},
        "d2": {"$map": [["user", "u"], [1, 2], ["password", {"$masked": "password"}]]},
        "d3": [1, {"limit": 3}],
    }
    assert all(size == len(content) for _, content, size in rows)


def test_nothing_to_find_changes_nothing(paths: SessionPaths) -> None:
    """A session without secrets keeps its files as they are."""
    with Journal.open(paths.journal) as journal:
        journal.append([codec.encode(batch_from_records(clean_spans(), 1), START_NS)])
    assert seal_if_idle(paths)
    before = {path: path.read_bytes() for path in paths.base_path.rglob("*") if path.suffix in (".duckdb",)}
    assert fix(paths.base_path, None, MASKER) == []
    assert {path: path.read_bytes() for path in before} == before


def test_rules_of_the_user_count(paths: SessionPaths) -> None:
    """Names and patterns that are added are found, too."""
    with Journal.open(paths.journal) as journal:
        spans = [span(1, attributes={"customer": "Ann", "x": "ID-12345"})]
        journal.append([codec.encode(batch_from_records(spans, 1), START_NS)])
    masker = Masker(keys=["customer"], patterns=[r"ID-\d+"])
    assert {(one.column, one.value_count) for one in scan(paths.base_path, None, masker)} == {
        ("attributes.customer", 1),
        ("attributes.x", 1),
    }
    fix(paths.base_path, None, masker)
    with SessionReader(paths.base_path) as reader:
        reader.refresh()
        (record,) = reader.records()
    assert record.attributes == {"customer": "(masked: customer)", "x": "(masked: custom)"}


def test_a_session_that_is_recorded_is_scanned_and_not_fixed(paths: SessionPaths, workers: Workers) -> None:
    """Fixing says that the program has to end first, and changes nothing."""
    workers.start("write", paths, writer=1).wait_for(2)
    assert scan(paths.base_path, None, MASKER) == []
    with pytest.raises(ScanError, match="being recorded"):
        fix(paths.base_path, None, MASKER)
    workers.kill_all()
    assert fix(paths.base_path, None, MASKER) == []


def test_sessions_that_are_not_there(tmp_path: Path) -> None:
    """An unknown session is an error; no session at all is nothing to find."""
    assert scan(tmp_path, None, MASKER) == []
    with pytest.raises(SessionNotFoundError):
        scan(tmp_path, ["unknown"], MASKER)


def test_progress_is_told(paths: SessionPaths) -> None:
    """Each place says how many of its spans are done."""
    store(paths, "merged")
    told: list[tuple[str, int, int]] = []
    scan(paths.base_path, None, MASKER, lambda *done: told.append(done))
    assert told[-1] == ("s s.duckdb", 12, 12)


def test_the_command(paths: SessionPaths) -> None:
    """Exit code 1 while something is found, 0 once it is masked; no output ever holds the secret."""
    store(paths, "merged")
    data = paths.base_path
    first = run("scan", "--data-dir", data)
    assert first.exit_code == 1, first.output
    shown = run("scan", "--data-dir", data, "--format", "json")
    assert {row["session"] for row in json.loads(shown.stdout)} == {"s"}
    fixed = run_well("scan", "--data-dir", data, "--fix", "--session", "s")
    last = run("scan", "--data-dir", data)
    assert last.exit_code == 0
    assert "No secrets were found" in last.stderr
    for text in (first.output, shown.output, fixed):
        assert SECRET not in text
    assert "attributes.password" in first.stdout
    assert "No session" in refused("scan", "--data-dir", data, "--session", "unknown")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["journal", "merged", "archive and segment"])
def test_fixing_is_killed_at_every_step(tmp_path: Path, workers: Workers, form: str) -> None:
    """Whatever step it is killed at: nothing is lost or doubled, and the next `fix` leaves no secret."""
    template = SessionPaths(tmp_path / "template", "s")
    store(template, form)
    before = everything(template.base_path)

    def attempt(die_at: int) -> tuple[SessionPaths, Worker]:
        paths = SessionPaths(tmp_path / f"copy-{die_at}", "s")
        shutil.copytree(template.base_path, paths.base_path)
        return paths, workers.start("fix_secrets", paths, die_at=die_at)

    _, whole = attempt(0)
    assert whole.wait() == 0, whole.said()
    events = int(whole.said()[-1].split()[1])
    assert events > 10
    for die_at in {*range(1, events + 1, max(1, events // 16)), *range(max(1, events - 12), events + 1)}:
        paths, worker = attempt(die_at)
        assert worker.wait() == 9, worker.said()
        now = everything(paths.base_path)
        assert set(now["records"]) == set(before["records"])
        assert now["counters"] == before["counters"]
        assert now["traces"] == before["traces"]
        fix(paths.base_path, None, MASKER)
        assert scan(paths.base_path, None, MASKER) == []
        assert SECRET.encode() not in bytes_on_disk(paths.base_path)
        _same_but_masked(before, everything(paths.base_path))
        shutil.rmtree(paths.base_path)
