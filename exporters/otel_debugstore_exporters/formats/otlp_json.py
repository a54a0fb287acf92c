"""OTLP in its JSON encoding: one `TracesData` object <-> one `SpanBatch`.

Read as the specification says: lowerCamelCase names, unknown ones ignored, ids hexadecimal in either
case, 64-bit integers as text or as numbers, enumerations as integers (names are taken too), null the
same as missing. A missing start or end time is not known; a start of "0" is the beginning of 1970.

Written the same way, fields that are empty left out. Text with lone surrogates, which JSON in UTF-8
can't hold, is written with them as `\\udXXX`; times before 1970, which OTLP can't hold, are left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, BinaryIO, Final

import msgspec

from otel_debugstore.errors import MalformedInputError
from otel_debugstore_exporters.batch import MAX_TIME, ROOT, Event, Link, Resource, Scope, SpanBatch
from otel_debugstore_exporters.formats.anyvalue import KeyValue, attributes_from_json, attributes_to_json
from otel_debugstore_exporters.formats.otlp_columns import Encoding, batch_from_otlp

MAX_SPANS_A_LINE: Final = 512

_TraceId = Annotated[str, msgspec.Meta(max_length=32)]
_SpanId = Annotated[str, msgspec.Meta(max_length=16)]
_Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME)]
_UInt32 = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class _Message(msgspec.Struct, rename="camel", gc=False):
    """Names as in the protocol; None is what is missing or null."""


class _Resource(_Message):
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: _UInt32 | None = None


class _Scope(_Message):
    name: str | None = None
    version: str | None = None
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: _UInt32 | None = None


class _Event(_Message):
    time_unix_nano: _Time | None = None
    name: str | None = None
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: _UInt32 | None = None


class _Link(_Message):
    trace_id: _TraceId = ""
    span_id: _SpanId = ""
    trace_state: str | None = None
    flags: _UInt32 | None = None
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: _UInt32 | None = None


class _Status(_Message):
    message: str | None = None
    code: int | str | None = None


class _Span(_Message):
    trace_id: _TraceId = ""
    span_id: _SpanId = ""
    parent_span_id: _SpanId | None = None
    name: str | None = None
    kind: int | str | None = 0
    start_time_unix_nano: _Time | None = None
    end_time_unix_nano: _Time | None = None
    attributes: list[KeyValue] | None = None
    status: _Status | None = None
    events: list[_Event] | None = None
    links: list[_Link] | None = None
    flags: _UInt32 | None = None
    trace_state: str | None = None
    dropped_attributes_count: _UInt32 | None = None
    dropped_events_count: _UInt32 | None = None
    dropped_links_count: _UInt32 | None = None


class _ScopeSpans(_Message):
    scope: _Scope | None = None
    spans: list[_Span] | None = None
    schema_url: str | None = None


class _ResourceSpans(_Message):
    resource: _Resource | None = None
    scope_spans: list[_ScopeSpans] | None = None
    schema_url: str | None = None


class _TracesData(_Message):
    resource_spans: list[_ResourceSpans] | None = None


# Not strict: that is what lets the C decoder take "123" for 123 and "NaN" for a float.
_DECODER: Final = msgspec.json.Decoder(_TracesData, strict=False)
_ENCODER: Final = msgspec.json.Encoder()


def decode(document: bytes) -> SpanBatch:
    """Return the spans of one `TracesData` (or `ExportTraceServiceRequest`) object.

    Raises:
        MalformedInputError: It is not JSON, or not OTLP; the message says where.
    """
    return build(parse(document))


def parse(document: bytes) -> Sequence[Any]:
    """Return the `ResourceSpans` of one object, for `build`; raises as `decode` does."""
    try:
        return _DECODER.decode(document).resource_spans or ()
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedInputError(f"not OTLP JSON: {error}") from error
    except RecursionError as error:
        raise MalformedInputError("not OTLP JSON: it is nested too deep") from error


def build(resource_spans: Iterable[Any]) -> SpanBatch:
    """Return the spans of what `parse` returned, for one object or several; raises as `decode` does."""
    return batch_from_otlp(resource_spans, _JSON)


def _ids(texts: Sequence[str], width: int, what: str) -> bytes:
    """Hexadecimal ids as bytes. No text is longer than it may be, so that the total tells if one is short."""
    joined = "".join(texts)
    try:
        raw = bytes.fromhex(joined)
    except ValueError:
        raw = b""
    if 2 * len(raw) == len(joined) == 2 * width * len(texts):  # fromhex skips spaces
        return raw
    row, wrong = next((r, t) for r, t in enumerate(texts) if not re.fullmatch(f"[0-9a-fA-F]{{{2 * width}}}", t))
    raise MalformedInputError(
        f"not OTLP JSON: the {what} {wrong!r} of span {row + 1} is not {2 * width} hexadecimal digits"
    )


_JSON: Final = Encoding(ids=_ids, no_parent=ROOT.hex(), attributes=attributes_from_json, zero_is_unknown=False)


def write_lines(batches: Iterable[SpanBatch], out: BinaryIO) -> int:
    """Write the batches as OTLP JSON Lines of at most 512 spans; return how many spans there were."""
    count = 0
    for batch in batches:
        for line in encode_lines(batch):
            out.write(line)
        count += len(batch)
    return count


def encode_lines(batch: SpanBatch) -> Iterator[bytes]:
    """Yield the batch as lines (with their newline), each a `TracesData` of at most 512 spans."""
    for first in range(0, len(batch), MAX_SPANS_A_LINE):
        message = _traces_data(batch, range(first, min(first + MAX_SPANS_A_LINE, len(batch))))
        try:
            yield _ENCODER.encode(message) + b"\n"
        except UnicodeEncodeError:
            yield _ENCODER.encode(_without_surrogates(message)) + b"\n"


def _traces_data(batch: SpanBatch, rows: range) -> dict[str, Any]:
    """The rows, grouped by resource and scope in the order in which these appear."""
    groups: dict[int, dict[int, list[dict[str, Any]]]] = {}
    for row in rows:
        scopes = groups.setdefault(batch.resource_index[row], {})
        scopes.setdefault(batch.scope_index[row], []).append(_span(batch, row))
    return {
        "resourceSpans": [
            _resource_spans(
                batch.resources[resource],
                [_scope_spans(batch.scopes[scope], spans) for scope, spans in scopes.items()],
            )
            for resource, scopes in groups.items()
        ]
    }


def _resource_spans(resource: Resource, scope_spans: list[dict[str, Any]]) -> dict[str, Any]:
    message = _filled(
        attributes=attributes_to_json(resource.attributes), droppedAttributesCount=resource.dropped_attributes
    )
    return _filled(resource=message, scopeSpans=scope_spans, schemaUrl=resource.schema_url)


def _scope_spans(scope: Scope, spans: list[dict[str, Any]]) -> dict[str, Any]:
    message = _filled(
        name=scope.name,
        version=scope.version,
        attributes=attributes_to_json(scope.attributes),
        droppedAttributesCount=scope.dropped_attributes,
    )
    return _filled(scope=message, spans=spans, schemaUrl=scope.schema_url)


def _span(batch: SpanBatch, row: int) -> dict[str, Any]:
    parent = batch.parent_ids[8 * row : 8 * row + 8]
    span: dict[str, Any] = {
        "traceId": batch.trace_ids[16 * row : 16 * row + 16].hex(),
        "spanId": batch.span_ids[8 * row : 8 * row + 8].hex(),
        "parentSpanId": "" if parent == ROOT else parent.hex(),
        "name": batch.names[batch.name_index[row]],
        "kind": batch.kinds[row],
    }
    if (start := batch.start_ns[row]) >= 0:
        span["startTimeUnixNano"] = str(start)
    if (end := batch.end_ns[row]) >= 0:
        span["endTimeUnixNano"] = str(end)
    if attributes := batch.attributes[row]:
        span["attributes"] = attributes_to_json(attributes)
    if flags := batch.flags[row]:
        span["flags"] = flags
    span.update(_rare_fields(batch, row))
    return span


def _rare_fields(batch: SpanBatch, row: int) -> dict[str, Any]:
    attributes, events, links = batch.dropped.get(row, (0, 0, 0))
    return _filled(
        status=_filled(message=batch.status_messages.get(row, ""), code=batch.status_codes[row]),
        traceState=batch.trace_states.get(row, ""),
        events=[_event(event) for event in batch.events.get(row, ())],
        links=[_link(link) for link in batch.links.get(row, ())],
        droppedAttributesCount=attributes,
        droppedEventsCount=events,
        droppedLinksCount=links,
    )


def _event(event: Event) -> dict[str, Any]:
    return _filled(
        timeUnixNano=str(event.time_ns) if event.time_ns > 0 else "",
        name=event.name,
        attributes=attributes_to_json(event.attributes),
        droppedAttributesCount=event.dropped_attributes,
    )


def _link(link: Link) -> dict[str, Any]:
    return _filled(
        traceId=link.trace_id.hex(),
        spanId=link.span_id.hex(),
        traceState=link.trace_state,
        flags=link.flags,
        attributes=attributes_to_json(link.attributes),
        droppedAttributesCount=link.dropped_attributes,
    )


def _filled(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value}


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_surrogates(item) for item in value]
    return value
