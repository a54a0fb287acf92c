"""OTLP JSON Lines: what comes in, what goes out, and what is refused."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import strategies
from otel_debugstore.errors import MalformedInputError
from otel_debugstore_exporters.batch import (
    Event,
    Link,
    Resource,
    Scope,
    SpanBatch,
    SpanRecord,
    batch_from_records,
)
from otel_debugstore_exporters.export import write_otlp_json_lines
from otel_debugstore_exporters.formats import decode, open_input, otlp_json

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"

SPAN: dict[str, Any] = {
    "traceId": "5B8EFFF798038103D269B633813FC60C",
    "spanId": "eee19b7ec3c1b174",
    "name": "s",
    "startTimeUnixNano": "1544712660000000000",
    "endTimeUnixNano": 1544712661000000000,
}


def document(*spans: dict[str, Any], **scope_spans: Any) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans, **scope_spans}]}]}).encode()


def read(content: bytes) -> list[tuple[int, SpanBatch | MalformedInputError]]:
    opened = open_input(io.BytesIO(content))
    return [(unit.number, unit.result) for unit in decode(opened.stream, opened.format)]


def good(content: bytes) -> list[SpanRecord]:
    batches = [result for _, result in read(content)]
    assert not any(isinstance(batch, MalformedInputError) for batch in batches), batches
    return [record for batch in batches if isinstance(batch, SpanBatch) for record in batch.records()]


def exported(*batches: SpanBatch) -> bytes:
    out = io.BytesIO()
    assert write_otlp_json_lines(batches, out) == sum(map(len, batches))
    return out.getvalue()


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"shared/data/{name} is not beside the project")
    return SHARED / name


@given(strategies.span_batches(strategies.OTLP_JSON))
def test_any_span_goes_out_and_comes_back_equal(batch: SpanBatch) -> None:
    """Every field of every span survives the way through OTLP JSON."""
    (line,) = exported(batch).splitlines()
    assert strategies.same_spans(otlp_json.decode(line), batch)


@given(strategies.span_batches(strategies.ANYTHING))
def test_what_otlp_can_not_say_is_written_as_valid_otlp_all_the_same(batch: SpanBatch) -> None:
    """Lone surrogates, integers beyond 64 bits and times before 1970 never make an export fail."""
    (line,) = exported(batch).splitlines()
    again = otlp_json.decode(line)
    assert sorted(again.span_ids) == sorted(batch.span_ids)
    assert exported(again) == exported(otlp_json.decode(exported(again)))


def test_what_otlp_can_not_say_is_written_as_its_nearest_relative() -> None:
    """A big integer becomes digits, a surrogate its escape, another type its name, an early time nothing."""
    span = SpanRecord(
        b"t" * 16,
        b"s" * 8,
        "\ud800",
        -5,
        7,
        attributes={
            "big": 2**64,
            "huge": 10**5000,
            "object": object(),
            "bytes": bytearray(b"x"),
            "tuple": (1, None),
        },
    )
    (again,) = good(exported(batch_from_records([span])))
    assert again.name == "\\ud800"
    assert (again.start_ns, again.end_ns) == (None, 7)
    assert again.attributes == {
        "big": "18446744073709551616",
        "huge": hex(10**5000),
        "object": "(builtins.object)",
        "bytes": b"x",
        "tuple": [1, None],
    }


def test_specification_example() -> None:
    """The specification's own pretty-printed example is one span of one document."""
    (span,) = good(shared("otlp/trace.json").read_bytes())
    assert span == SpanRecord(
        trace_id=bytes.fromhex("5b8efff798038103d269b633813fc60c"),
        span_id=bytes.fromhex("eee19b7ec3c1b174"),
        parent_id=bytes.fromhex("eee19b7ec3c1b173"),
        name="I'm a server span",
        start_ns=1544712660000000000,
        end_ns=1544712661000000000,
        kind=2,
        attributes={"my.span.attr": "some value"},
        resource=Resource({"service.name": "my.service"}),
        scope=Scope("my.library", "1.0.0", "", {"my.scope.attribute": "some scope attribute"}),
    )


@pytest.mark.parametrize(
    ("name", "spans"),
    [
        ("boutique-2022-08-22-a", 148_168),
        ("boutique-2022-08-22-b", 135_824),
        ("boutique-baseline-2022-08-23", 22_969),
    ],
)
def test_real_traces_come_in_whole(name: str, spans: int) -> None:
    """All spans of the real files come in, those that repeat an id too."""
    assert len(good(shared(f"nezha/{name}.otlp.jsonl.gz").read_bytes())) == spans


def test_real_lines_go_out_as_they_came_in() -> None:
    """A line of a real file is exported with exactly the fields it had."""
    lines = gzip.decompress(shared("nezha/boutique-baseline-2022-08-23.otlp.jsonl.gz").read_bytes()).splitlines()
    for line in lines:
        (batch,) = [result for _, result in read(line)]
        assert isinstance(batch, SpanBatch)
        out = exported(batch).splitlines()
        if len(batch) <= 512:
            assert [json.loads(one) for one in out] == [json.loads(line)]
        assert sum(len(otlp_json.decode(one)) for one in out) == len(batch)


def test_long_batches_go_out_in_lines_of_at_most_512_spans() -> None:
    """A line is what another reader has to hold in memory, so it is bounded."""
    batch = batch_from_records([SpanRecord(b"t" * 16, bytes(8), str(i), i, i + 1) for i in range(1100)])
    lines = exported(batch).splitlines()
    assert [len(otlp_json.decode(line)) for line in lines] == [512, 512, 76]
    assert [record.name for line in lines for record in otlp_json.decode(line).records()] == [
        str(i) for i in range(1100)
    ]


def test_every_field_of_the_protocol_is_read() -> None:
    """Each JSON name of OTLP lands in its field."""
    attribute = [{"key": "k", "value": {"stringValue": "v"}}]
    content = {
        "resourceSpans": [
            {
                "resource": {"attributes": attribute, "droppedAttributesCount": 1},
                "schemaUrl": "resource-schema",
                "scopeSpans": [
                    {
                        "scope": {
                            "name": "n",
                            "version": "1",
                            "attributes": attribute,
                            "droppedAttributesCount": 2,
                        },
                        "schemaUrl": "scope-schema",
                        "spans": [
                            {
                                **SPAN,
                                "parentSpanId": "EEE19B7EC3C1B173",
                                "traceState": "a=b",
                                "flags": 257,
                                "kind": "SPAN_KIND_CLIENT",
                                "attributes": attribute,
                                "droppedAttributesCount": 3,
                                "events": [
                                    {
                                        "timeUnixNano": "5",
                                        "name": "e",
                                        "attributes": attribute,
                                        "droppedAttributesCount": 4,
                                    }
                                ],
                                "droppedEventsCount": 5,
                                "links": [
                                    {
                                        "traceId": "00000000000000000000000000000001",
                                        "spanId": "0000000000000002",
                                        "traceState": "c=d",
                                        "flags": 1,
                                        "attributes": attribute,
                                        "droppedAttributesCount": 6,
                                    }
                                ],
                                "droppedLinksCount": 7,
                                "status": {"message": "m", "code": "STATUS_CODE_ERROR"},
                                "unknownField": [{}],
                            }
                        ],
                    }
                ],
            }
        ]
    }
    (span,) = good(json.dumps(content).encode())
    assert span == SpanRecord(
        trace_id=bytes.fromhex("5b8efff798038103d269b633813fc60c"),
        span_id=bytes.fromhex("eee19b7ec3c1b174"),
        parent_id=bytes.fromhex("eee19b7ec3c1b173"),
        name="s",
        start_ns=1544712660000000000,
        end_ns=1544712661000000000,
        kind=3,
        status_code=2,
        status_message="m",
        trace_state="a=b",
        flags=257,
        attributes={"k": "v"},
        events=(Event(5, "e", {"k": "v"}, 4),),
        links=(Link(bytes(15) + b"\1", bytes(7) + b"\2", "c=d", 1, {"k": "v"}, 6),),
        dropped_attributes=3,
        dropped_events=5,
        dropped_links=7,
        resource=Resource({"k": "v"}, "resource-schema", 1),
        scope=Scope("n", "1", "scope-schema", {"k": "v"}, 2),
    )


@pytest.mark.parametrize(
    ("spelled", "value"),
    [
        ({"stringValue": ""}, ""),
        ({"boolValue": False}, False),
        ({"intValue": "-9223372036854775808"}, -(2**63)),
        ({"intValue": 9223372036854775807}, 2**63 - 1),
        ({"doubleValue": 1}, 1.0),
        ({"doubleValue": "NaN"}, float("nan")),
        ({"doubleValue": "-Infinity"}, float("-inf")),
        ({"doubleValue": "Infinity"}, float("inf")),
        ({"bytesValue": "+/8="}, b"\xfb\xff"),
        ({"bytesValue": "-_8"}, b"\xfb\xff"),
        ({"arrayValue": {}}, []),
        ({"arrayValue": {"values": [{"intValue": 1}, {}, None]}}, [1, None, None]),
        ({"kvlistValue": {"values": [{"key": "a", "value": {"kvlistValue": {}}}]}}, {"a": {}}),
        ({}, None),
        (None, None),
        ({"stringValue": None}, None),
    ],
)
def test_attribute_values(spelled: Any, value: Any) -> None:
    """Each spelling of a value that OTLP allows becomes the Python value of its kind."""
    (span,) = good(document(SPAN | {"attributes": [{"key": "k", "value": spelled}]}))
    assert strategies.comparable(span.attributes) == strategies.comparable({"k": value})


@pytest.mark.parametrize(
    ("change", "start", "end"),
    [
        ({"startTimeUnixNano": "0", "endTimeUnixNano": "100"}, 0, 100),
        ({"startTimeUnixNano": None}, None, 1544712661000000000),
        ({"endTimeUnixNano": "0"}, 1544712660000000000, None),
        ({"endTimeUnixNano": str(2**63 - 1)}, 1544712660000000000, 2**63 - 1),
    ],
)
def test_times_that_are_missing_are_not_known(change: dict[str, Any], start: int | None, end: int | None) -> None:
    """A missing time, and an end of 0 after a later start, are not known; a start of 0 is 1970."""
    (span,) = good(document(SPAN | change))
    assert (span.start_ns, span.end_ns) == (start, end)


@pytest.mark.parametrize("change", [{"kind": 77}, {"kind": -1}, {"kind": None}, {"kind": 300}, {"status": {"code": 9}}])
def test_enumeration_values_of_a_later_version_count_as_unspecified(change: dict[str, Any]) -> None:
    """A number that this version of OTLP does not know does not cost the span."""
    (span,) = good(document(SPAN | change))
    assert (span.kind, span.status_code) == (0, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"traceId": "5b8e"}, "trace id '5b8e' of span 2 is not 32"),
        ({"traceId": ""}, "trace id '' of span 2"),
        ({"traceId": "5b8efff798038103d269b633813fc60cff"}, "length <= 32"),
        ({"traceId": "zz8efff798038103d269b633813fc60c"}, "is not 32 hexadecimal"),
        ({"traceId": "5b8efff798038103d269b633813fc6  "}, "is not 32 hexadecimal"),
        ({"traceId": 5}, "Expected `str`"),
        ({"spanId": "eee19b7ec3c1b17"}, "span id 'eee19b7ec3c1b17' of span 2"),
        ({"spanId": "eee19b7ec3c1b17\u0664"}, "is not 16 hexadecimal"),
        ({"parentSpanId": "12"}, "parent span id '12' of span 2"),
        ({"name": 5}, "Expected `str"),
        ({"name": ["s"]}, "Expected `str"),
        ({"startTimeUnixNano": str(2**63)}, "startTimeUnixNano"),
        ({"startTimeUnixNano": 2**63}, "startTimeUnixNano"),
        ({"endTimeUnixNano": -1}, "endTimeUnixNano"),
        ({"endTimeUnixNano": "soon"}, "endTimeUnixNano"),
        ({"endTimeUnixNano": 10**400}, "endTimeUnixNano"),
        ({"endTimeUnixNano": 1.5}, "endTimeUnixNano"),
        ({"endTimeUnixNano": True}, "endTimeUnixNano"),
        ({"kind": "SPAN_KIND_WRONG"}, "'SPAN_KIND_WRONG' is not a span's kind"),
        ({"kind": 1.5}, "kind"),
        ({"status": "ERROR"}, "status"),
        ({"flags": 2**32}, "flags"),
        ({"droppedLinksCount": -1}, "droppedLinksCount"),
        ({"attributes": {"k": "v"}}, "attributes"),
        ({"attributes": [{"value": {"intValue": 1}}]}, "key"),
        ({"attributes": [{"key": "k", "value": "v"}]}, "value"),
        ({"attributes": [{"key": "k", "value": {"intValue": str(2**63)}}]}, "intValue"),
        ({"attributes": [{"key": "k", "value": {"doubleValue": "much"}}]}, "doubleValue"),
        ({"attributes": [{"key": "k", "value": {"bytesValue": "a"}}]}, "not base64"),
        ({"attributes": [{"key": "k", "value": {"bytesValue": "a*b="}}]}, "not base64"),
        ({"events": [{"timeUnixNano": str(2**63)}]}, "timeUnixNano"),
        ({"links": [{"traceId": "01", "spanId": "0000000000000001"}]}, "link's trace id"),
        ({"links": [{"traceId": "5b8efff798038103d269b633813fc60c"}]}, "link's span id"),
    ],
)
def test_a_malformed_span_takes_its_line_and_no_other(change: dict[str, Any], message: str) -> None:
    """The line is reported with its number and what is wrong; the lines around it go in."""
    lines = [document(SPAN), document(SPAN, SPAN | change), document(SPAN)]
    first, second, third = read(b"\n".join(lines))
    assert isinstance(first[1], SpanBatch)
    assert isinstance(third[1], SpanBatch)
    assert second[0] == 2
    assert isinstance(second[1], MalformedInputError)
    assert message in str(second[1])
    assert "\n" not in str(second[1])


def nested(depth: int) -> bytes:
    value = b'{"arrayValue":{"values":[' * depth + b"{}" + b"]}}" * depth
    span = json.dumps(SPAN | {"attributes": []}).encode()
    return document().replace(b"[]", b"[" + span.replace(b"[]", b'[{"key":"k","value":%b}]' % value) + b"]")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (document(SPAN)[:-20], "truncated"),
        (document(SPAN) + b"x", "trailing"),
        (document(SPAN).replace(b'"s"', b'"\xff"'), "utf-8"),
        (document(SPAN).replace(b'"s"', b'"\\ud800"'), "JSON"),
        (b"\x00\x01\x02\xff", "malformed"),
        (b"[]", "array"),
        (b"7", "int"),
        (b"[" * 100_000, "array"),
        (b'{"x":' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"}", "nested too deep"),
        (nested(65), "nested deeper than 64"),
        (nested(100_000), "nested too deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_line_takes_no_other(line: bytes, message: str) -> None:
    """Broken, binary or absurd lines are reported with their number; the lines around them go in."""
    first, second, third = read(b"\n".join([document(SPAN), line, document(SPAN)]))
    assert isinstance(first[1], SpanBatch)
    assert isinstance(third[1], SpanBatch)
    assert (second[0], type(second[1])) == (2, MalformedInputError)
    assert message in str(second[1])


def test_values_may_be_nested_64_levels() -> None:
    """The limit itself is allowed."""
    assert len(good(nested(64))) == 1


@pytest.mark.parametrize("first", [document(SPAN)[:-20], document(SPAN)[:17], document(SPAN)[:1], b"\x00\xff\x01"])
def test_a_broken_first_line_does_not_hide_the_others(first: bytes) -> None:
    """A file is still taken for JSON Lines when its first line is cut off or garbage."""
    (one, error), (two, batch) = read(b"\n".join([first, document(SPAN), b"", document(SPAN)]))
    assert (one, type(error)) == (1, MalformedInputError)
    assert two == 2
    assert isinstance(batch, SpanBatch)
    assert len(batch) == 2


@pytest.mark.parametrize(
    "layout",
    [
        lambda line: line,
        lambda line: line + b"\n",
        lambda line: b"\xef\xbb\xbf" + line + b"\r\n\r\n",
        lambda line: b"\n\n  " + line,
        lambda line: json.dumps(json.loads(line), indent=2).encode(),
        lambda line: json.dumps(json.loads(line), indent="\t").encode() + b"\n\n",
        lambda line: b'{"resourceSpans": [\n' + json.dumps(json.loads(line)["resourceSpans"])[1:-1].encode() + b"\n]}",
    ],
)
def test_layouts_of_one_document(layout: Any) -> None:
    """One object is read however it is laid out."""
    assert len(good(layout(document(SPAN, SPAN)))) == 2


def test_a_broken_document_is_one_error() -> None:
    """A pretty-printed file that is cut short is reported once, not line by line."""
    ((number, result),) = read(json.dumps(json.loads(document(SPAN)), indent=2).encode()[:-10])
    assert number == 1
    assert isinstance(result, MalformedInputError)


def test_lines_without_spans_are_no_error() -> None:
    """Empty objects, nulls, and the logs and metrics that a Collector writes between traces hold no spans."""
    lines = [
        b"{}",
        b'{"resourceMetrics":[{}]}',
        b'{"resourceSpans":null}',
        b'{"resourceSpans":[{}]}',
        document(),
    ]
    assert good(b"\n".join(lines)) == []


@given(st.lists(st.one_of(st.just(document(SPAN)), st.binary(max_size=30), st.text(max_size=30)), max_size=6))
def test_whatever_lies_between_good_lines_they_all_come_in(parts: list[bytes | str]) -> None:
    """Any mixture of good lines and garbage yields every good line."""
    lines = [document(SPAN)]
    for part in parts:
        lines += (part.encode() if isinstance(part, str) else part).replace(b"\n", b"").splitlines() or [b""]
    found = [result for _, result in read(b"\n".join(lines))]
    spans = sum(len(result) for result in found if isinstance(result, SpanBatch))
    assert spans == lines.count(document(SPAN))
