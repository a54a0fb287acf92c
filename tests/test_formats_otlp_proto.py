"""OTLP protobuf, checked against messages that `opentelemetry-proto` itself made."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import (
    AnyValue,
    ArrayValue,
    InstrumentationScope,
    KeyValue,
    KeyValueList,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ResourceMessage
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status, TracesData

import strategies
from otel_debugstore.errors import MalformedInputError
from otel_debugstore_exporters.batch import SpanBatch, SpanRecord
from otel_debugstore_exporters.formats import Format, decode, open_input, otlp_json, otlp_proto


def any_value(value: Any) -> AnyValue:
    if value is None:
        return AnyValue()
    if isinstance(value, Mapping):
        return AnyValue(kvlist_value=KeyValueList(values=key_values(value)))
    if isinstance(value, list):
        return AnyValue(array_value=ArrayValue(values=[any_value(item) for item in value]))
    for kind, name in ((bool, "bool"), (int, "int"), (float, "double"), (str, "string"), (bytes, "bytes")):
        if isinstance(value, kind):
            fields: dict[str, Any] = {f"{name}_value": value}
            return AnyValue(**fields)
    raise TypeError(value)


def key_values(attributes: Mapping[str, Any]) -> list[KeyValue]:
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def span_message(record: SpanRecord) -> Span:
    return Span(
        trace_id=record.trace_id,
        span_id=record.span_id,
        parent_span_id=record.parent_id or b"",
        trace_state=record.trace_state,
        flags=record.flags,
        name=record.name,
        kind=record.kind,  # type: ignore[arg-type]  # an int is what the enum is
        start_time_unix_nano=record.start_ns or 0,
        end_time_unix_nano=record.end_ns or 0,
        attributes=key_values(record.attributes),
        dropped_attributes_count=record.dropped_attributes,
        events=[
            Span.Event(
                time_unix_nano=event.time_ns,
                name=event.name,
                attributes=key_values(event.attributes),
                dropped_attributes_count=event.dropped_attributes,
            )
            for event in record.events
        ],
        dropped_events_count=record.dropped_events,
        links=[
            Span.Link(
                trace_id=link.trace_id,
                span_id=link.span_id,
                trace_state=link.trace_state,
                flags=link.flags,
                attributes=key_values(link.attributes),
                dropped_attributes_count=link.dropped_attributes,
            )
            for link in record.links
        ],
        dropped_links_count=record.dropped_links,
        status=Status(message=record.status_message, code=record.status_code),  # type: ignore[arg-type]
    )


def resource_spans(record: SpanRecord) -> ResourceSpans:
    resource, scope = record.resource, record.scope
    return ResourceSpans(
        resource=ResourceMessage(
            attributes=key_values(resource.attributes), dropped_attributes_count=resource.dropped_attributes
        ),
        schema_url=resource.schema_url,
        scope_spans=[
            ScopeSpans(
                scope=InstrumentationScope(
                    name=scope.name,
                    version=scope.version,
                    attributes=key_values(scope.attributes),
                    dropped_attributes_count=scope.dropped_attributes,
                ),
                schema_url=scope.schema_url,
                spans=[span_message(record)],
            )
        ],
    )


def traces_data(batch: SpanBatch) -> TracesData:
    return TracesData(resource_spans=[resource_spans(record) for record in batch.records()])


def simple(*names: str) -> TracesData:
    spans = [Span(trace_id=b"t" * 16, span_id=b"s" * 8, name=name) for name in names]
    resource = ResourceMessage(attributes=key_values({"service.name": "shop"}))
    return TracesData(resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans)])])


def read(content: bytes, format: Format | None = None) -> list[tuple[int, SpanBatch | MalformedInputError]]:
    opened = open_input(io.BytesIO(content), format)
    assert opened.format == "otlp-proto"
    return [(unit.number, unit.result) for unit in decode(opened.stream, opened.format)]


def names(content: bytes, format: Format | None = None) -> list[str]:
    """The names of the spans, and in their place what is wrong."""
    return [
        text
        for _, result in read(content, format)
        for text in ([record.name for record in result.records()] if isinstance(result, SpanBatch) else [str(result)])
    ]


def delimited(*messages: TracesData) -> bytes:
    content = b""
    for message in messages:
        data = message.SerializeToString()
        length = len(data)
        while length > 0x7F:
            content += bytes([length & 0x7F | 0x80])
            length >>= 7
        content += bytes([length]) + data
    return content


@given(strategies.span_batches(strategies.OTLP_PROTOBUF))
def test_any_span_comes_in_equal(batch: SpanBatch) -> None:
    """Every field of every span is read from what the official messages serialize to."""
    assert strategies.same_spans(otlp_proto.decode(traces_data(batch).SerializeToString()), batch)


@given(strategies.span_batches(strategies.OTLP_PROTOBUF, max_size=2))
def test_json_and_protobuf_of_one_span_are_the_same(batch: SpanBatch) -> None:
    """A span that comes in as protobuf and goes out as JSON comes in again as the same span."""
    once = otlp_proto.decode(traces_data(batch).SerializeToString())
    for line in otlp_json.encode_lines(once):
        assert strategies.same_spans(otlp_json.decode(line), once)


@given(strategies.span_batches(strategies.OTLP_PROTOBUF, max_size=3))
def test_any_file_is_told_from_a_delimited_one(batch: SpanBatch) -> None:
    """Whatever is in the messages, both layouts of a file are recognized, and hold the same spans."""
    message = traces_data(batch)
    spans = [record.name for record in batch.records()]
    assert names(message.SerializeToString()) == spans
    assert names(delimited(message)) == spans
    assert names(delimited(message, message)) == spans * 2


def test_a_file_is_one_message_or_several_after_another() -> None:
    """One message, messages put together, and an export request all are read resource by resource."""
    one, other = simple("a", "b").SerializeToString(), simple("c").SerializeToString()
    assert names(one) == ["a", "b"]
    assert names(one + other) == ["a", "b", "c"]
    assert names(ExportTraceServiceRequest.FromString(one).SerializeToString()) == ["a", "b"]


def test_a_delimited_file_is_read_message_by_message() -> None:
    """However many there are; empty ones hold nothing."""
    assert names(delimited(simple("a", "b"), TracesData(), simple("c"))) == ["a", "b", "c"]
    assert names(delimited(*[simple("x" * 1000)] * 1000)) == ["x" * 1000] * 1000


def test_times_of_zero_are_not_known() -> None:
    """Protobuf can't tell 0 from missing, and no span starts in 1970."""
    (span,) = otlp_proto.decode(simple("a").SerializeToString()).records()
    assert (span.start_ns, span.end_ns) == (None, None)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"trace_id": b"short"}, "trace id of span 1 has 5 bytes instead of 16"),
        ({"span_id": b""}, "span id of span 1 has 0 bytes instead of 8"),
        ({"parent_span_id": b"123456789"}, "parent span id of span 1 has 9 bytes"),
        ({"start_time_unix_nano": 2**63}, "2^63 nanoseconds or more"),
        ({"end_time_unix_nano": 2**64 - 1}, "2^63 nanoseconds or more"),
        ({"events": [Span.Event(time_unix_nano=2**63)]}, "event's time is 2^63"),
        ({"links": [Span.Link(trace_id=b"t" * 16)]}, "link's span id of span 1 has 0 bytes"),
    ],
)
def test_a_malformed_span_takes_its_unit_and_no_other(fields: dict[str, Any], message: str) -> None:
    """What is wrong is reported with the unit's number, the units around it come in."""
    span = Span(**({"trace_id": b"t" * 16, "span_id": b"s" * 8} | fields))
    wrong = TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])])
    first, second, third = names(delimited(simple("a"), wrong, simple("c")))
    assert (first, third) == ("a", "c")
    assert message in second
    merged = (simple("a").SerializeToString(), wrong.SerializeToString(), simple("c").SerializeToString())
    assert [isinstance(result, SpanBatch) for _, result in read(b"".join(merged))] == [True, False, True]


def test_numbers_of_a_later_version_count_as_unspecified() -> None:
    """Enumerations of protobuf are open."""
    span = Span(trace_id=b"t" * 16, span_id=b"s" * 8, kind=9, status=Status(code=7))  # type: ignore[arg-type]
    data = TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=[span])])])
    (record,) = otlp_proto.decode(data.SerializeToString()).records()
    assert (record.kind, record.status_code) == (0, 0)


def test_a_file_that_is_cut_short_yields_what_is_whole() -> None:
    """The units before the cut come in, the rest is one error with its number."""
    for content in (
        delimited(simple("a"), simple("b")),
        simple("a").SerializeToString() + simple("b").SerializeToString(),
    ):
        for cut in range(1, len(content) // 2 - 2):
            units = names(content[:-cut], "otlp-proto")
            assert units[0] == "a"
            assert len(units) == 2
            assert "it ends" in units[1]


def test_fields_that_are_not_known_are_skipped() -> None:
    """A later version of OTLP may add fields of any wire type at the top."""
    unknown = bytes([0x7A, 3, 1, 2, 3, 0x78, 0x85, 1, 0x79, *range(8), 0x7D, *range(4)])
    content = simple("a").SerializeToString() + unknown + simple("b").SerializeToString()
    assert names(content) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x0a\x05hello", "not OTLP protobuf"),
        (b"\x0b", "wire type 3"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "the limit is"),
        (b"\x0a" + b"\xff" * 12, "more than ten bytes"),
        (b"\x0a", "ends within a field"),
        (b"\x0a\x80", "ends within a number"),
    ],
)
def test_garbage_is_an_error(content: bytes, message: str) -> None:
    """Neither a broken message nor an absurd length is more than an error."""
    (text,) = names(content, "otlp-proto")
    assert message in text


def test_invalid_text_is_an_error() -> None:
    """Protobuf text is UTF-8; the official parser refuses anything else."""
    content = simple("name").SerializeToString().replace(b"name", b"\xff\xfe\xfd\xfc", 2)
    (text,) = names(content, "otlp-proto")
    assert "not OTLP protobuf" in text
