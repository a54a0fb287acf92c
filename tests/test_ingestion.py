"""What is recorded: payloads, code and counts beside spans, secrets masked, layers of foreign spans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import Link, Span, Status, StatusCode

from commands import refused, run_well
from otel_debugstore import DebugStore, layers, outbox, recording_settings
from otel_debugstore.config import Settings
from otel_debugstore.outbox import CallCount, Code
from otel_debugstore.processor import BoundedSpanProcessor
from otel_debugstore_analysis import query
from otel_debugstore_exporters import beside, codec, doctor, exporter, layer_mapping, pending
from otel_debugstore_exporters.batch import batch_from_records
from otel_debugstore_exporters.exporter import LmdbSpanExporter
from otel_debugstore_exporters.importer import import_files
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.layer_mapping import KNOWN, LayerMapping
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.seal import seal_if_idle
from otel_debugstore_exporters.session import SessionPaths
from sessions import START_NS, span, write_journal

SECRET = "ghp_" + "a1B2" * 9


class Keep(SpanProcessor):
    """Keeps ended spans for a test to export."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def outbox_of_test(monkeypatch: pytest.MonkeyPatch) -> outbox.Outbox:
    """An outbox of its own: others may put into the one of the process."""
    own = outbox.Outbox()
    for module in (outbox, exporter, beside):
        monkeypatch.setattr(module, "OUTBOX", own)
    return own


@pytest.fixture
def recorder(base: Path, outbox_of_test: outbox.Outbox) -> Iterator[LmdbSpanExporter]:
    made = LmdbSpanExporter(base_path=base, session_id="s")
    yield made
    made.shutdown()


def ended(*names: str, attributes: dict[str, Any] | None = None) -> list[ReadableSpan]:
    """Ended SDK spans."""
    keep = Keep()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(keep)
    for name in names:
        provider.get_tracer("t").start_span(name, attributes=attributes).end()
    return keep.spans


def rows(base: Path, sql: str) -> list[tuple[Any, ...]]:
    with SessionReader(base) as reader:
        return reader.query(sql).rows


def counted(component: str, calls: int = 5, recording_ns: int = 30) -> CallCount:
    return CallCount(START_NS, START_NS + 10, "function", component, calls, 1, 1_000, 2, recording_ns)


# beside spans


def test_what_waits_in_the_outbox_goes_with_the_spans(
    recorder: LmdbSpanExporter, outbox_of_test: outbox.Outbox, base: Path
) -> None:
    """Payloads and code are in the journal with the spans that name them; counts come with the commit."""
    outbox_of_test.put_payload("d", "application/msgpack", True, b"\x01")
    outbox_of_test.put_code("v", lambda: Code("v", "m.f", "/m.py", 3, None, "def f(): ..."))
    waiting = [counted("f")]
    outbox_of_test.add_counter(lambda: [waiting.pop()] if waiting else [])
    recorder.export(ended("a"))
    with Journal.open(SessionPaths(base, "s").journal) as journal:
        blobs = [codec.decode(blob) for _, blob in journal.blobs()]
    assert [(len(batch.payloads), len(batch.code), len(batch), len(batch.counts)) for batch in blobs] == [
        (1, 1, 1, 0),
        (0, 0, 0, 1),
    ]
    assert rows(base, "SELECT digest, size_bytes FROM payloads") == [("d", 1)]
    assert rows(base, "SELECT variant, qualified_name, line_number, git_commit FROM code") == [("v", "m.f", 3, None)]
    assert rows(base, "SELECT component, call_count, recorded_count FROM counters") == [("f", 5, 2)]


def test_a_commit_without_spans(recorder: LmdbSpanExporter, outbox_of_test: outbox.Outbox, base: Path) -> None:
    """What waits is written though no span ends; nothing waits, nothing is written."""
    waiting = [[counted("f")], []]
    outbox_of_test.add_counter(lambda: waiting.pop(0) if waiting else [])
    assert recorder.commit()
    assert rows(base, "SELECT sum(call_count)::BIGINT FROM counters") == [(5,)]
    with Journal.open(SessionPaths(base, "s").journal) as journal:
        before = journal.stats().next_seq
        assert recorder.commit()
        assert journal.stats().next_seq == before
    outbox_of_test.put_payload("d", "", True, b"x")
    recorder.shutdown()
    assert rows(base, "SELECT digest FROM payloads") == [("d",)]


def test_counts_that_say_only_what_recording_cost_wait(
    recorder: LmdbSpanExporter, outbox_of_test: outbox.Outbox, base: Path
) -> None:
    """They are written with a commit that somebody asks for, and with each where calls are counted without a span."""
    outbox_of_test.add_counter(lambda: [counted("f")])

    def written(*, is_asked: bool) -> Any:
        recorder.add(ended("a"))
        assert recorder.commit(is_asked=is_asked)
        return rows(base, "SELECT sum(call_count)::BIGINT FROM counters")[0][0]

    assert written(is_asked=True) == 5
    assert written(is_asked=False) == 5
    assert rows(base, "SELECT count(*) FROM spans") == [(2,)]
    assert written(is_asked=True) == 10
    outbox_of_test.has_silent_counts = True
    assert written(is_asked=False) == 15


def test_counts_survive_a_disk_that_refuses(
    recorder: LmdbSpanExporter, outbox_of_test: outbox.Outbox, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it refuses, counts are added up in memory and written when it does not; payloads are counted."""
    monkeypatch.setattr(pending, "MAX_PENDING_BYTES", 5_000)
    monkeypatch.setattr(exporter, "_REOPEN_SECONDS", 0.0)
    base.write_text("")  # a file in the way
    outbox_of_test.add_counter(lambda: [counted("f")])
    for number in range(20):
        outbox_of_test.put_payload(f"d{number}", "", True, bytes([number]) + bytes(range(256)) * 4)
        recorder.export(ended("a"))
    base.unlink()
    taken = outbox_of_test.take
    monkeypatch.setattr(outbox_of_test, "take", lambda **_: taken()._replace(counts=[]))
    assert recorder.commit()
    assert rows(base, "SELECT sum(call_count)::BIGINT % 5, count(*) FROM counters") == [(0, 1)]
    assert rows(base, "SELECT sum(call_count)::BIGINT >= 100 FROM counters") == [(True,)]
    with Journal.open(SessionPaths(base, "s").journal) as journal:
        dropped = {drop.reason: drop.count for drop in journal.drops()}
    kept = rows(base, "SELECT count(*) FROM payloads")[0][0]
    assert 0 < kept < 20
    assert dropped["payload"] == 20 - kept
    findings = "\n".join(finding.what for finding in doctor.examine(base))
    assert f"{20 - kept} payloads were left out" in findings


def test_contents_of_many_calls_are_kept_as_each_is(
    recorder: LmdbSpanExporter, outbox_of_test: outbox.Outbox, base: Path
) -> None:
    """Once each, as far as there is room; nothing is kept that nobody takes."""
    contents = [outbox.Payload(str(number), "", True, bytes([number]) * (3 << 20)) for number in range(6)]
    outbox_of_test.put_payloads(contents[:1])
    outbox_of_test.put_payloads(contents[:4])
    outbox_of_test.put_payloads(contents)
    recorder.commit()
    assert rows(base, "SELECT digest FROM payloads ORDER BY digest") == [(str(number),) for number in range(5)]
    with Journal.open(SessionPaths(base, "s").journal) as journal:
        assert journal.stats().blob_count == 5
        assert {drop.reason: drop.count for drop in journal.drops()} == {"payload": 1}
    unread = outbox.Outbox()
    unread.put_payloads(contents)
    assert not unread.take()


def test_payloads_for_which_there_was_no_room(
    recorder: LmdbSpanExporter, outbox_of_test: outbox.Outbox, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the outbox leaves out is counted; what is large comes in blobs of a bounded size."""
    for number in range(6):
        outbox_of_test.put_payload(str(number), "", True, bytes([number]) * (3 << 20))
    recorder.commit()
    assert rows(base, "SELECT count(*) FROM payloads") == [(5,)]
    with Journal.open(SessionPaths(base, "s").journal) as journal:
        assert journal.stats().blob_count == 5
        assert {drop.reason: drop.count for drop in journal.drops()} == {"payload": 1}


def test_an_outbox_that_fails_loses_no_span(
    recorder: LmdbSpanExporter, outbox_of_test: outbox.Outbox, base: Path, logged: list[str]
) -> None:
    """Spans are written whatever is wrong with what goes beside them; one line says so."""

    def fail() -> list[CallCount]:
        raise RuntimeError("a defect")

    outbox_of_test.add_counter(fail)
    recorder.export(ended("a", "b"))
    recorder.export(ended("c"))
    assert rows(base, "SELECT count(*) FROM spans") == [(3,)]
    assert len(logged) == 1


def test_it_goes_through_the_processor(recorder: LmdbSpanExporter, outbox_of_test: outbox.Outbox, base: Path) -> None:
    """A flush of the processor makes counts durable, too."""
    waiting = [counted("f")]
    outbox_of_test.add_counter(lambda: [waiting.pop()] if waiting else [])
    provider = TracerProvider(shutdown_on_exit=False)
    processor = BoundedSpanProcessor(recorder)
    provider.add_span_processor(processor)
    provider.get_tracer("t").start_span("a").end()
    assert provider.force_flush()
    assert rows(base, "SELECT component FROM counters") == [("f",)]
    provider.shutdown()


# masking


def leak(span: Span) -> None:
    """Put secrets into everything a span has."""
    span.set_attribute("url", f"https://x/?token={SECRET}")
    span.set_attribute("many", ["a", SECRET])
    span.set_attribute("http.request.header.authorization", "whatever it is")
    span.add_event("exception", {"exception.message": f"refused {SECRET}", "exception.type": "E"})
    span.set_status(Status(StatusCode.ERROR, f"token={SECRET}"))
    span.add_link(Link(span.get_span_context(), {"api_key": "abcdef123"}).context, {"api_key": "abcdef123"})


def test_secrets_never_reach_the_disk(recorder: LmdbSpanExporter, base: Path) -> None:
    """Names, attributes, status, events, links, resource: masked in the store, and as they were for others."""
    keep = Keep()
    provider = TracerProvider(resource=Resource({"deploy.password": "hunter2"}), shutdown_on_exit=False)
    provider.add_span_processor(keep)
    with provider.get_tracer("t").start_as_current_span(f"get {SECRET}") as one:
        leak(one)
    provider.get_tracer("t").start_span("clean", attributes={"url": "http://localhost:1/x"}).end()
    recorder.export(keep.spans)
    with SessionReader(base) as reader:
        reader.refresh()
        clean, leaky = sorted(reader.records(), key=lambda record: record.name)
    assert SECRET not in repr(leaky)
    assert leaky.name == "get (masked: github token)"
    assert leaky.attributes["url"] == "https://x/?token=(masked: token)"
    assert leaky.attributes["many"] == ["a", "(masked: github token)"]
    assert leaky.attributes["http.request.header.authorization"] == "(masked: authorization)"
    assert leaky.events[0].attributes["exception.message"] == "refused (masked: github token)"
    assert leaky.links[0].attributes == {"api_key": "(masked: api_key)"}
    assert leaky.resource.attributes["deploy.password"] == "(masked: password)"
    assert clean.attributes == {"url": "http://localhost:1/x"}
    assert rows(base, "SELECT exception_message FROM spans WHERE status = 'ERROR'") == [
        ("refused (masked: github token)",)
    ]
    assert keep.spans[0].attributes is not None
    assert keep.spans[0].attributes["url"] == f"https://x/?token={SECRET}"


def test_source_code_is_masked(recorder: LmdbSpanExporter, outbox_of_test: outbox.Outbox, base: Path) -> None:
    """A secret in a program's source is none of the store's."""
    outbox_of_test.put_code("v", lambda: Code("v", "m.f", source=f"KEY = {SECRET!r}"))
    recorder.commit()
    assert rows(base, "SELECT source FROM code") == [("KEY = '(masked: github token)'",)]


def test_records_written_by_hand_are_masked(base: Path) -> None:
    """`write_record` masks what it is given, in text and by the names of fields."""
    with DebugStore("s", base, auto_sync=False) as store:
        store.write_record("tool", "1", "t", request_data={"password": "hunter2", "n": 1}, error=f"no {SECRET}")
        (row,) = store.query_analytics("SELECT request_data, error FROM records")
    assert json.loads(row["request_data"]) == {"password": "(masked: password)", "n": 1}
    assert row["error"] == "no (masked: github token)"


def test_imports_are_not_masked(base: Path, tmp_path: Path) -> None:
    """What was imported comes out equal."""
    fields = {"traceId": "1" * 32, "spanId": "2" * 16, "name": SECRET, "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    file = tmp_path / "x.jsonl"
    file.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}))
    import_files([file], SessionPaths(base, "s"))
    assert rows(base, "SELECT name FROM spans") == [(SECRET,)]


# layers


@pytest.mark.parametrize(
    ("key", "value", "layer"), [(key, value, layer) for key, table in KNOWN.items() for value, layer in table.items()]
)
def test_known_conventions(key: str, value: str, layer: str) -> None:
    """Each row of the table gives one of our layers."""
    batch = batch_from_records([span(1, attributes={key: value}), span(2), span(3, attributes={key: "other"})])
    assert LayerMapping({}).layers(batch) == {0: layer}
    assert layer in layers.LAYERS


def test_what_goes_before_what() -> None:
    """The span's own layer, then the user's rules, then gen_ai, OpenInference, Traceloop."""
    gen_ai, kind = "gen_ai.operation.name", "openinference.span.kind"
    mapping = LayerMapping({f"{gen_ai}=chat": "step", "db.system.name=*": "node", "retry=true": "tool"})
    spans = [
        span(1, attributes={"debugstore.layer": "node", gen_ai: "chat"}),
        span(2, attributes={gen_ai: "chat"}),
        span(3, attributes={gen_ai: "execute_tool", kind: "CHAIN"}),
        span(4, attributes={"db.system.name": "sqlite"}),
        span(5, attributes={"retry": True}),
        span(6, attributes={gen_ai: "something new", kind: "CHAIN"}),
    ]
    assert mapping.layers(batch_from_records(spans)) == {1: "step", 2: "tool", 3: "node", 4: "tool", 5: "step"}


@pytest.mark.parametrize("named", ["bogus", "", "Tool", 7, ["tool"]])
def test_only_our_layers_are_layers(base: Path, named: Any) -> None:
    """What else a foreign span has in `debugstore.layer` stays an attribute; its layer is that of its conventions."""
    spans = [
        span(1, attributes={"debugstore.layer": named}),
        span(2, attributes={"debugstore.layer": named, "gen_ai.operation.name": "chat"}),
        span(3, attributes={"debugstore.layer": "tool", "gen_ai.operation.name": "chat"}),
    ]
    write_journal(base, "s", [])
    with Journal.open(SessionPaths(base, "s").journal) as journal:
        journal.append([codec.encode(layer_mapping.assign_layers(batch_from_records(spans, 1)), START_NS)])
    layers_of = "SELECT layer FROM spans ORDER BY span_id"
    assert rows(base, layers_of) == [(None,), ("function",), ("tool",)]
    seal_if_idle(SessionPaths(base, "s"))
    assert rows(base, layers_of) == [(None,), ("function",), ("tool",)]
    attribute = "attributes['debugstore.layer']::JSON::VARCHAR"
    assert json.loads(rows(base, f"SELECT {attribute} FROM spans WHERE span_id LIKE '%1'")[0][0]) == named


def test_layers_of_recorded_and_imported_spans(
    recorder: LmdbSpanExporter, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Foreign spans have a layer in tail and segment; their attributes stay as they came."""
    monkeypatch.setenv("OTEL_DEBUGSTORE_LAYERS", "my.kind=big:workflow")
    recording_settings.recording_settings.cache_clear()
    layer_mapping.layer_mapping.cache_clear()
    try:
        recorder.export(ended("recorded", attributes={"gen_ai.operation.name": "execute_tool"}))
        recorder.export(ended("by rule", attributes={"my.kind": "big"}))
        recorder.shutdown()
        fields = {
            "traceId": "1" * 32,
            "spanId": "2" * 16,
            "name": "imported",
            "attributes": [{"key": "traceloop.span.kind", "value": {"stringValue": "task"}}],
        }
        file = tmp_path / "x.jsonl"
        file.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [fields]}]}]}))
        import_files([file], SessionPaths(base, "s"))
    finally:
        recording_settings.recording_settings.cache_clear()
        layer_mapping.layer_mapping.cache_clear()
    expected = [("by rule", "workflow"), ("imported", "step"), ("recorded", "tool")]
    assert rows(base, "SELECT name, layer FROM spans ORDER BY name") == expected
    monkeypatch.delenv("OTEL_DEBUGSTORE_LAYERS")
    assert seal_if_idle(SessionPaths(base, "s"))
    assert rows(base, "SELECT name, layer FROM spans ORDER BY name") == expected
    with SessionReader(base) as reader:
        reader.refresh()
        assert {tuple(record.attributes) for record in reader.records()} == {
            ("gen_ai.operation.name",),
            ("my.kind",),
            ("traceloop.span.kind",),
        }


# weights, outcomes, the ledger, payloads


def test_late_spans_stand_for_themselves(base: Path) -> None:
    """A span that was recorded because of how it ended weighs 1; the others 1/p."""
    write_journal(
        base,
        "s",
        [
            span(1, trace_state="ot=th:8"),
            span(2, trace_state="ot=th:8", attributes={"debugstore.late": True}),
            span(3, trace_state="ot=th:8", attributes={"debugstore.late": False}),
        ],
    )
    assert rows(base, "SELECT sample_weight FROM spans ORDER BY span_id") == [(2.0,), (1.0,), (2.0,)]


def test_outcomes_are_statuses_of_records(base: Path) -> None:
    """How a call ended is its status, as with records written by hand; an error is what the span's status says."""
    outcomes = ["timeout", "retry", "cancelled", "interrupted", "closed", "exit"]
    spans = [span(number, attributes={"debugstore.outcome": text}) for number, text in enumerate(outcomes, 1)]
    write_journal(base, "s", [*spans, span(8), span(9, error="E")])
    found = [status for (status,) in rows(base, "SELECT status FROM records ORDER BY id")]
    assert found == ["timeout", "retry", "cancelled", "error", "success", "success", "success", "error"]
    assert rows(base, "SELECT sum(success_count), sum(error_count) FROM performance_summary") == [(3, 1)]
    assert rows(base, "SELECT error_count FROM traces") == [(1,)]


def test_the_ledger(base: Path) -> None:
    """By component: calls, recorded or not, what recording took, and its share of what the calls took."""
    name = {"debugstore.component": "f", "debugstore.layer": "function"}
    spans = [span(number, attributes=name, duration_ms=0.002) for number in (1, 2)]
    batch = batch_from_records(spans, 1)
    batch.counts = [counted("f"), counted("g", calls=0, recording_ns=0)._replace(duration_ns=0)]
    with Journal.open(SessionPaths(base, "s").journal) as journal:
        journal.append([codec.encode(batch, START_NS)])
    with SessionReader(base) as reader:
        first, second = query.ledger(query.DuckDBEngine(reader)).rows
    assert first == ("f", "function", 7, 2, 5, 30, 5_000, 30 / 5_000)
    assert second == ("g", "function", 2, 2, 0, 0, 0, None)
    shown = run_well("doctor", "--data-dir", base)
    assert "What recording cost" in shown
    assert "0.6 %" in shown
    (row, _) = json.loads(run_well("doctor", "--ledger", "--data-dir", base, "--format", "json"))
    assert (row["component"], row["recording_ns"], row["not_recorded_count"]) == ("f", 30, 5)
    assert json.loads(run_well("doctor", "--data-dir", base, "--format", "json")) == []


def test_payloads_are_shown(base: Path) -> None:
    """A digest, or its beginning, shows what it stands for; nothing in it steers the terminal."""
    from otel_debugstore.payload import capture

    content = capture({"query": "\x1b[31mred", "limit": 3}).content
    batch = batch_from_records([], 1)
    batch.payloads = [
        outbox.Payload("abc1", "application/msgpack", True, content),
        outbox.Payload("abd2", "application/msgpack", True, msgpack.packb([1])),
    ]
    with Journal.open(SessionPaths(base, "s").journal) as journal:
        journal.append([codec.encode(batch, START_NS)])
    shown = run_well("payload", "abc", "--data-dir", base)
    assert "red" in shown
    assert "\x1b" not in shown
    found = json.loads(run_well("payload", "ABC1", "--data-dir", base, "--format", "json"))
    assert (found["digest"], found["replayable"], found["size_bytes"]) == ("abc1", True, len(content))
    assert "Several" in refused("payload", "ab", "--data-dir", base)
    assert "No payload" in refused("payload", "ff", "--data-dir", base)


def test_the_exporter_opens_the_outbox(base: Path, outbox_of_test: outbox.Outbox) -> None:
    """Nothing is kept in memory before there is somebody to write it."""
    outbox_of_test.put_payload("d", "", True, b"x")
    assert not outbox_of_test.take()
    LmdbSpanExporter(Settings(base_path=base, session_id="s"))
    outbox_of_test.put_payload("d", "", True, b"x")
    assert outbox_of_test.take().payloads
