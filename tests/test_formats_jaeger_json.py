"""Jaeger JSON: real traces, and each rule by which a Jaeger span becomes an OpenTelemetry one."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

import strategies
from otel_debugstore.errors import MalformedInputError
from otel_debugstore_exporters.batch import Event, Link, Resource, Scope, SpanBatch, SpanRecord
from otel_debugstore_exporters.formats import decode, jaeger_json, open_input, otlp_json

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"

SPAN: dict[str, Any] = {
    "traceID": "006c3cf93508f205",
    "spanID": "2dc4b796e2127e32",
    "operationName": "op",
    "startTime": 1679437737490189,
    "duration": 36,
    "processID": "p1",
}
TRACE: dict[str, Any] = {
    "traceID": "006c3cf93508f205",
    "processes": {"p1": {"serviceName": "shop", "tags": [{"key": "host", "type": "string", "value": "h"}]}},
}
PARENT = {"refType": "CHILD_OF", "traceID": "006c3cf93508f205", "spanID": "006c3cf93508f205"}
TRACE_ID = bytes.fromhex("0000000000000000006c3cf93508f205")


def trace(*spans: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return TRACE | {"spans": list(spans)} | changes


def tag(key: str, value: Any, type: str | None = "string") -> dict[str, Any]:
    return {"key": key, "value": value} | ({"type": type} if type else {})


def one(**changes: Any) -> SpanRecord:
    (record,) = jaeger_json.decode(json.dumps(trace(SPAN | changes)).encode()).records()
    return record


def read(content: bytes) -> list[tuple[int, SpanBatch | MalformedInputError]]:
    opened = open_input(io.BytesIO(content))
    assert opened.format == "jaeger-json"
    return [(unit.number, unit.result) for unit in decode(opened.stream, opened.format)]


def shared(name: str) -> bytes:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"shared/data/{name} is not beside the project")
    return path.read_bytes()


@pytest.mark.parametrize(
    ("name", "spans"),
    [
        *[(f"crisp/{number}.json", spans) for number, spans in enumerate([1, 2, 2, 3, 4, 4, 3, 3, 4, 4, 2, 4], 1)],
        ("jaeger-ui/genaiTestTrace.json", 57),
        ("jaeger-ui/traceWithOverlappingChildren.json", 3),
        ("jaeger-ui/traceWithSingleChildLongerThanParentAndStartsAfterParent.json", 2),
        ("jaeger-ui/traceWithThreeShortOverlappingChildren.json", 4),
        ("jaeger-ui/traceWithTwoNonOverlappingChildren.json", 3),
    ],
)
def test_real_traces_come_in_whole(name: str, spans: int) -> None:
    """Every span of the file is there, once, below its parent, and goes out and in again as OTLP JSON."""
    content = shared(name)
    ((number, batch),) = read(content)
    assert number == 1
    assert isinstance(batch, SpanBatch)
    assert len(batch) == spans
    found = {record.span_id: record for record in batch.records()}
    assert len(found) == spans
    roots = [record for record in found.values() if record.parent_id is None]
    assert len(roots) == 1
    assert all(record.parent_id in found for record in found.values() if record not in roots)
    (line,) = otlp_json.encode_lines(batch)
    assert strategies.same_spans(otlp_json.decode(line), batch)


def test_a_span_of_the_user_interface() -> None:
    """The fields of a real downloaded span."""
    batch = jaeger_json.decode(shared("jaeger-ui/traceWithTwoNonOverlappingChildren.json"))
    assert list(batch.records())[1] == SpanRecord(
        trace_id=TRACE_ID,
        span_id=bytes.fromhex("2dc4b796e2127e32"),
        parent_id=bytes.fromhex("006c3cf93508f205"),
        name="non-overlapping child",
        start_ns=110_000,
        end_ns=120_000,
        kind=3,
        flags=1,
        attributes={"http.method": "POST"},
        resource=Resource({"service.name": "service-two"}),
    )


def test_typed_values_of_a_real_trace() -> None:
    """Numbers of the gen_ai trace are numbers, and its errors are errors."""
    records = list(jaeger_json.decode(shared("jaeger-ui/genaiTestTrace.json")).records())
    assert records[4].attributes["gen_ai.usage.input_tokens"] == 1840
    assert records[0].resource.attributes == {"service.name": "api-edge"}
    assert any(record.status_code == 2 for record in records)


def test_times_are_microseconds() -> None:
    """The start and the duration become nanoseconds, to the last digit; fractions of a microsecond count."""
    record = one(startTime=1679437737490189, duration=36)
    assert (record.start_ns, record.end_ns) == (1679437737490189000, 1679437737490225000)
    record = one(startTime=100.5, duration=0.25)
    assert (record.start_ns, record.end_ns) == (100500, 100750)
    record = one(startTime="1679437737490189", duration="36")
    assert (record.start_ns, record.end_ns) == (1679437737490189000, 1679437737490225000)


@pytest.mark.parametrize(
    ("tags", "value"),
    [
        (tag("k", "text"), "text"),
        (tag("k", True, "bool"), True),
        (tag("k", "false", "bool"), False),
        (tag("k", 5, "int64"), 5),
        (tag("k", "9223372036854775807", "int64"), 2**63 - 1),
        (tag("k", 1, "float64"), 1.0),
        (tag("k", "1.5", "float64"), 1.5),
        (tag("k", "NaN", "float64"), float("nan")),
        (tag("k", "AAH/", "binary"), b"\x00\x01\xff"),
        (tag("k", None), None),
        (tag("k", 5, None), 5),
        (tag("k", 5.0, None), 5.0),
        (tag("k", True, None), True),
        (tag("k", "5", None), "5"),
    ],
)
def test_tags_are_attributes_of_their_type(tags: dict[str, Any], value: Any) -> None:
    """The tag's type decides; a tag without one is what JSON says."""
    assert strategies.comparable(one(tags=[tags]).attributes) == strategies.comparable({"k": value})


def test_process_is_the_resource() -> None:
    """The service's name and the process's tags, by reference or within the span."""
    assert one().resource == Resource({"service.name": "shop", "host": "h"})
    assert one(process={"serviceName": "own", "tags": None}).resource == Resource({"service.name": "own"})
    assert one(processID="p9").resource == Resource()


@pytest.mark.parametrize(
    ("text", "kind"), [("internal", 1), ("server", 2), ("CLIENT", 3), ("producer", 4), ("consumer", 5)]
)
def test_kind(text: str, kind: int) -> None:
    """The tag `span.kind` is the kind; one that is not known stays a tag."""
    assert (one(tags=[tag("span.kind", text)]).kind, one(tags=[tag("span.kind", text)]).attributes) == (
        kind,
        {},
    )
    assert one().kind == 0
    assert one(tags=[tag("span.kind", "local")]).attributes == {"span.kind": "local"}


@pytest.mark.parametrize(
    ("tags", "status", "message", "left"),
    [
        ([], 0, "", {}),
        ([tag("error", True, "bool")], 2, "", {}),
        ([tag("error", "true")], 2, "", {}),
        ([tag("error", False, "bool")], 0, "", {"error": False}),
        ([tag("error", "timeout")], 0, "", {"error": "timeout"}),
        ([tag("otel.status_code", "OK")], 1, "", {}),
        ([tag("otel.status_code", "error"), tag("otel.status_description", "why")], 2, "why", {}),
        ([tag("error", True, "bool"), tag("otel.status_code", "OK")], 2, "", {}),
        ([tag("otel.status_code", "odd")], 0, "", {"otel.status_code": "odd"}),
        ([tag("otel.status_code", 2, "int64")], 0, "", {"otel.status_code": 2}),
    ],
)
def test_status(tags: list[Any], status: int, message: str, left: dict[str, Any]) -> None:
    """OpenTelemetry's tags and OpenTracing's `error` make the status; what they do not explain stays."""
    record = one(tags=tags)
    assert (record.status_code, record.status_message, record.attributes) == (status, message, left)


@pytest.mark.parametrize("prefix", ["otel.scope", "otel.library"])
def test_scope_and_trace_state(prefix: str) -> None:
    """The scope under its new and its old name, and the trace state, leave the tags."""
    record = one(tags=[tag(f"{prefix}.name", "n"), tag(f"{prefix}.version", "1"), tag("w3c.tracestate", "a=b")])
    assert (record.scope, record.trace_state, record.attributes) == (Scope("n", "1"), "a=b", {})


def test_logs_are_events() -> None:
    """The field `event` is the event's name, the others are its attributes."""
    fields = [tag("event", "exception"), tag("exception.type", "ValueError"), tag("n", 1, "int64")]
    record = one(logs=[{"timestamp": 5, "fields": fields}, {"timestamp": 6, "fields": [tag("message", "m")]}])
    assert record.events == (
        Event(5000, "exception", {"exception.type": "ValueError", "n": 1}),
        Event(6000, "", {"message": "m"}),
    )


def test_references() -> None:
    """The first CHILD_OF within the trace is the parent; all others are links that say what they were."""
    other = {"refType": "CHILD_OF", "traceID": "ab" * 16, "spanID": "01"}
    follows = {"refType": "FOLLOWS_FROM", "traceID": TRACE["traceID"], "spanID": "02"}
    second = PARENT | {"spanID": "03"}
    record = one(references=[other, follows, PARENT, second])
    assert record.parent_id == bytes.fromhex("006c3cf93508f205")
    assert record.links == (
        Link(b"\xab" * 16, bytes(7) + b"\1", attributes={"opentracing.ref_type": "child_of"}),
        Link(TRACE_ID, bytes(7) + b"\2", attributes={"opentracing.ref_type": "follows_from"}),
        Link(TRACE_ID, bytes(7) + b"\3", attributes={"opentracing.ref_type": "child_of"}),
    )
    assert one(references=[follows]).parent_id is None
    assert one(references=None).parent_id is None


def test_the_parent_of_old_files() -> None:
    """`parentSpanID` is the parent too, once."""
    record = one(parentSpanID="006c3cf93508f205", references=[PARENT])
    assert (record.parent_id, record.links) == (bytes.fromhex("006c3cf93508f205"), ())
    assert one(parentSpanID="0").parent_id is None
    assert one(parentSpanID="").parent_id is None


def test_short_ids_are_padded() -> None:
    """Jaeger drops leading zeros and knows 64-bit trace ids."""
    record = one(traceID="6C3CF93508F205", spanID="a")
    assert (record.trace_id, record.span_id) == (TRACE_ID, bytes(7) + b"\x0a")
    assert one(traceID="ab" * 16).trace_id == b"\xab" * 16


def test_ids_that_are_not_hexadecimal_are_hashed_and_kept() -> None:
    """Equal ids stay equal, different ones different, and the originals can be read."""
    root = SPAN | {"traceID": "T-1", "spanID": "root"}
    reference = {"refType": "CHILD_OF", "traceID": "T-1", "spanID": "root"}
    child = SPAN | {"traceID": "T-1", "spanID": "child", "references": [reference]}
    follower = SPAN | {
        "traceID": "T-2",
        "spanID": "1",
        "references": [reference | {"refType": "FOLLOWS_FROM"}],
    }
    content = json.dumps(trace(root, child, follower)).encode()
    first, second, third = jaeger_json.decode(content).records()
    assert first.trace_id == second.trace_id != third.trace_id
    assert second.parent_id == first.span_id != second.span_id
    assert first.attributes == {"debugstore.original.trace_id": "T-1", "debugstore.original.span_id": "root"}
    assert second.attributes == {
        "debugstore.original.trace_id": "T-1",
        "debugstore.original.span_id": "child",
        "debugstore.original.parent_id": "root",
    }
    (link,) = third.links
    assert (link.trace_id, link.span_id) == (first.trace_id, first.span_id)
    assert link.attributes["debugstore.original.span_id"] == "root"
    assert next(iter(jaeger_json.decode(content).records())) == first


def test_flags_and_warnings() -> None:
    """Jaeger's sampled bit is the trace flag; other bits and the warnings stay readable."""
    assert (one(flags=1).flags, one(flags=1).attributes) == (1, {})
    assert (one(flags=3).flags, one(flags=3).attributes) == (1, {"jaeger.flags": 3})
    assert one(warnings=["clock skew"]).attributes == {"jaeger.warnings": ["clock skew"]}
    content = json.dumps(trace(SPAN, SPAN, warnings=["cut"])).encode()
    attributes = [record.attributes for record in jaeger_json.decode(content).records()]
    assert attributes == [{"jaeger.trace.warnings": ["cut"]}, {}]


@pytest.mark.parametrize(
    "layout",
    [
        lambda one: json.dumps(one),
        lambda one: json.dumps(one, indent=4),
        lambda one: json.dumps({"data": [one], "total": 0, "errors": None}),
        lambda one: json.dumps({"data": [one]}, indent=2),
        lambda one: json.dumps([one], indent=2),
        lambda one: '{"data": [\n' + json.dumps(one) + "\n]}",
        lambda one: "[\n" + json.dumps(one) + "\n]",
        lambda one: "\n" + json.dumps(one) + "\n\n",
    ],
)
def test_layouts(layout: Any) -> None:
    """A bare trace, an answer of the query API, and a list of traces, however laid out."""
    ((_, batch),) = read(layout(trace(SPAN)).encode())
    assert isinstance(batch, SpanBatch)
    assert len(batch) == 1


def test_several_traces_in_a_document_and_documents_in_lines() -> None:
    """All traces of a document are one unit; a line is a document."""
    content = json.dumps({"data": [trace(SPAN), trace(SPAN, SPAN)]}).encode()
    ((number, batch),) = read(content + b"\n" + json.dumps(trace(SPAN)).encode())
    assert number == 1
    assert isinstance(batch, SpanBatch)
    assert len(batch) == 4
    assert jaeger_json.decode(b'{"data": null, "errors": ["none"]}') == SpanBatch()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"traceID": ""}, "an id is empty"),
        ({"traceID": "a" * 33}, "more than 32 digits"),
        ({"spanID": "a" * 17}, "more than 16 digits"),
        ({"spanID": 7}, "spanID"),
        ({"startTime": -1}, "out of range"),
        ({"startTime": 2**63 // 1000 + 1}, "out of range"),
        ({"startTime": "now"}, "startTime"),
        ({"startTime": None}, "startTime"),
        ({"startTime": 10**400}, "startTime"),
        ({"startTime": 10**4000}, "startTime"),
        ({"startTime": 1e300}, "startTime"),
        ({"startTime": "NaN"}, "startTime"),
        ({"startTime": 2**63 // 1000, "duration": 1}, "ends after the last time"),
        ({"duration": -1}, "duration"),
        ({"duration": -0.5}, "duration"),
        ({"duration": "Infinity"}, "duration"),
        ({"logs": [{"timestamp": -1}]}, "timestamp"),
        ({"operationName": 5}, "operationName"),
        ({"tags": {"k": "v"}}, "tags"),
        ({"tags": [tag("k", "x", "int64")]}, "tag 'k' of type int64"),
        ({"tags": [tag("k", 2**63, "int64")]}, "tag 'k' of type int64"),
        ({"tags": [tag("k", 2**63, None)]}, "tag 'k'"),
        ({"tags": [tag("k", 5)]}, "tag 'k' of type string"),
        ({"tags": [tag("k", "5", "bool")]}, "tag 'k' of type bool"),
        ({"tags": [tag("k", "*", "binary")]}, "not base64"),
        ({"tags": [tag("k", 5, "binary")]}, "tag 'k' of type binary"),
        ({"tags": [tag("k", [1], None)]}, "tag 'k'"),
        ({"references": [{"refType": "CHILD_OF"}]}, "traceID"),
        ({"logs": [{"fields": []}]}, "timestamp"),
    ],
)
def test_a_malformed_span_takes_its_document_and_no_other(change: dict[str, Any], message: str) -> None:
    """A document is all or nothing; the documents around it come in."""
    lines = [trace(SPAN), trace(SPAN, SPAN | change), trace(SPAN)]
    first, second, third = read("\n".join(map(json.dumps, lines)).encode())
    assert isinstance(first[1], SpanBatch)
    assert isinstance(third[1], SpanBatch)
    assert second[0] == 2
    assert isinstance(second[1], MalformedInputError)
    assert message in str(second[1])
    assert "\n" not in str(second[1])
    assert len(str(second[1])) < 200


@pytest.mark.parametrize(
    "content",
    [
        b'{"data":' + b"[" * 100_000,
        b'{"data":[]}x',
        b'{"spans": 5}',
        b'{"processes": {}}',
        b'{"data":["\xff"]}',
    ],
)
def test_broken_documents_are_errors(content: bytes) -> None:
    """Nothing that is no trace makes the decoder fail otherwise."""
    with pytest.raises(MalformedInputError, match="not Jaeger JSON"):
        jaeger_json.decode(content)
