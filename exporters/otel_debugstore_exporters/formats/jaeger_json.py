"""Jaeger's JSON, as its user interface downloads it and its query API answers: traces -> one `SpanBatch`.

A document is `{"data": [trace, ...]}`, a bare trace, or a list of traces. What OpenTelemetry has a
field for is taken out of the tags, as the OpenTelemetry Collector does: kind, status, scope, trace
state; the rest stay attributes. Times are microseconds, so their nanoseconds end in 000.

Ids shorter than OTLP's are padded with zeros on the left. One that is not hexadecimal, as in
hand-made traces, is replaced by its BLAKE2b hash and kept in `debugstore.original.*`.
Of the references, the first CHILD_OF within the trace is the parent, the others become links with
`opentracing.ref_type`. Warnings are kept in `jaeger.warnings`, and a trace's in `jaeger.trace.warnings`
of its first span. Of tags with one key the last counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final

import msgspec

from otel_debugstore import attributes as names
from otel_debugstore.errors import MalformedInputError
from otel_debugstore_exporters.batch import (
    KIND_NAMES,
    MAX_TIME,
    ROOT,
    STATUS_NAMES,
    Attributes,
    Event,
    Link,
    Resource,
    Scope,
    SpanBatch,
    SpanRecord,
    batch_from_records,
)
from otel_debugstore_exporters.formats.anyvalue import Int64, bytes_from_base64

WARNINGS: Final = "jaeger.warnings"
TRACE_WARNINGS: Final = "jaeger.trace.warnings"
FLAGS: Final = "jaeger.flags"
REF_TYPE: Final = "opentracing.ref_type"

_ERROR: Final = 2
_SAMPLED: Final = 1
_HEXADECIMAL: Final = re.compile("[0-9a-fA-F]+")
_KINDS: Final = {name.lower(): number for number, name in enumerate(KIND_NAMES)}
_STATUSES: Final = {name: number for number, name in enumerate(STATUS_NAMES)}
_TAG_TYPES: Final[dict[str, Any]] = {"string": str, "bool": bool, "int64": Int64, "float64": float}


class _Tag(msgspec.Struct, gc=False):
    key: str
    value: Any = None
    type: str | None = None


class _Reference(msgspec.Struct, rename={"ref_type": "refType", "trace_id": "traceID", "span_id": "spanID"}, gc=False):
    ref_type: str
    trace_id: str
    span_id: str


class _Log(msgspec.Struct, gc=False):
    timestamp: int | float
    fields: list[_Tag] | None = None


class _Process(msgspec.Struct, rename={"service_name": "serviceName"}, gc=False):
    service_name: str | None = None
    tags: list[_Tag] | None = None


class _Span(
    msgspec.Struct,
    rename={
        "trace_id": "traceID",
        "span_id": "spanID",
        "parent_span_id": "parentSpanID",
        "name": "operationName",
        "start": "startTime",
        "process_id": "processID",
    },
    gc=False,
):
    trace_id: str
    span_id: str
    start: int | float
    duration: int | float
    name: str | None = None
    parent_span_id: str | None = None
    flags: int | None = None
    references: list[_Reference] | None = None
    tags: list[_Tag] | None = None
    logs: list[_Log] | None = None
    process_id: str | None = None
    process: _Process | None = None
    warnings: list[str] | None = None


class _Document(msgspec.Struct, gc=False):
    """A trace, or an answer of the query API with traces in `data`."""

    data: list[_Document] | msgspec.UnsetType | None = msgspec.UNSET
    spans: list[_Span] | msgspec.UnsetType | None = msgspec.UNSET
    processes: dict[str, _Process] | None = None
    warnings: list[str] | None = None


_DECODER: Final = msgspec.json.Decoder(_Document, strict=False)
_LIST_DECODER: Final = msgspec.json.Decoder(list[_Document], strict=False)


def decode(document: bytes) -> SpanBatch:
    """Return the spans of all traces of one document.

    Raises:
        MalformedInputError: It is not JSON, or not Jaeger's; the message says where.
    """
    return batch_from_records(parse(document))


def parse(document: bytes) -> Sequence[SpanRecord]:
    """Return the spans of one document one by one; raises as `decode` does."""
    try:
        return [record for trace in _traces(document) for record in _records(trace)]
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedInputError(f"not Jaeger JSON: {error}") from error
    except RecursionError as error:
        raise MalformedInputError("not Jaeger JSON: it is nested too deep") from error


def _traces(content: bytes) -> Sequence[_Document]:
    if content.startswith(b"["):
        return _LIST_DECODER.decode(content)
    document = _DECODER.decode(content)
    if document.data is not msgspec.UNSET:
        return document.data or ()
    if document.spans is msgspec.UNSET:
        raise MalformedInputError("not Jaeger JSON: it has neither `data` nor `spans`")
    return [document]


@dataclass(slots=True)
class _Trace:
    """What the spans of one trace share."""

    processes: Mapping[str, Resource]
    scopes: dict[tuple[str, str], Scope] = field(default_factory=dict)

    def scope(self, attributes: dict[str, Any]) -> Scope:
        name, version = (
            _taken_text(attributes, f"otel.scope.{part}") or _taken_text(attributes, f"otel.library.{part}")
            for part in ("name", "version")
        )
        return self.scopes.setdefault((name, version), Scope(name, version))


def _records(document: _Document) -> Iterator[SpanRecord]:
    processes = {key: _resource(process) for key, process in (document.processes or {}).items()}
    trace = _Trace(processes)
    extra: dict[str, Any] = {TRACE_WARNINGS: document.warnings} if document.warnings else {}
    for span in document.spans or ():
        yield _record(span, trace, extra)
        extra = {}


def _record(span: _Span, trace: _Trace, extra: dict[str, Any]) -> SpanRecord:
    attributes = _attributes(span.tags)
    start = _nanoseconds(span.start, "startTime")
    status, message = _status(attributes)
    parent, links = _references(span)
    return SpanRecord(
        trace_id=_id(span.trace_id, 16, attributes, names.ORIGINAL_TRACE_ID),
        span_id=_id(span.span_id, 8, attributes, names.ORIGINAL_SPAN_ID),
        parent_id=_parent_id(parent, attributes),
        name=span.name or "",
        start_ns=start,
        end_ns=_end(start, _nanoseconds(span.duration, "duration")),
        kind=_kind(attributes),
        status_code=status,
        status_message=message,
        trace_state=_taken_text(attributes, "w3c.tracestate"),
        flags=_flags(span.flags or 0, attributes),
        scope=trace.scope(attributes),
        events=[_event(log) for log in span.logs or ()],
        links=links,
        resource=_resource_of(span, trace),
        attributes=attributes | ({WARNINGS: span.warnings} if span.warnings else {}) | extra,
    )


def _attributes(tags: Sequence[_Tag] | None) -> dict[str, Any]:
    return {tag.key: _value(tag) for tag in tags or ()}


def _value(tag: _Tag) -> Any:
    """The tag's value as its type says; without one, as JSON says."""
    if tag.value is None:
        return None
    try:
        if tag.type == "binary":
            return bytes_from_base64(msgspec.convert(tag.value, str))
        return msgspec.convert(
            tag.value, _TAG_TYPES.get(tag.type or "", bool | Int64 | float | str), strict=not tag.type
        )
    except (msgspec.ValidationError, MalformedInputError) as error:
        raise MalformedInputError(f"not Jaeger JSON: tag {tag.key!r} of type {tag.type}: {error}") from error


def _nanoseconds(microseconds: int | float, what: str) -> int:
    if not 0 <= microseconds <= MAX_TIME // 1000:  # nor NaN
        raise MalformedInputError(f"not Jaeger JSON: a {what} is out of range (0 to 2^63 nanoseconds)")
    if isinstance(microseconds, float):
        whole, fraction = divmod(microseconds, 1)
        return int(whole) * 1000 + round(fraction * 1000)
    return microseconds * 1000


def _end(start_ns: int, duration_ns: int) -> int:
    if start_ns + duration_ns > MAX_TIME:
        raise MalformedInputError("not Jaeger JSON: a span ends after the last time there is (2^63 nanoseconds)")
    return start_ns + duration_ns


def _status(attributes: dict[str, Any]) -> tuple[int, str]:
    """Status code and message; the tag `error`, if true, outweighs the status the tags name."""
    failed = attributes.get("error") in (True, "true")
    if failed:
        del attributes["error"]
    code = attributes.get("otel.status_code")
    named = _STATUSES.get(code.upper()) if isinstance(code, str) else None
    if named is not None:
        del attributes["otel.status_code"]
    return (_ERROR if failed else named or 0), _taken_text(attributes, "otel.status_description")


def _kind(attributes: dict[str, Any]) -> int:
    kind = attributes.get("span.kind")
    if not isinstance(kind, str) or kind.lower() not in _KINDS:
        return 0
    return _KINDS[attributes.pop("span.kind").lower()]


def _taken_text(attributes: dict[str, Any], key: str) -> str:
    """Take the text at `key` out of the attributes; anything else stays there."""
    return attributes.pop(key) if isinstance(attributes.get(key), str) else ""


def _flags(flags: int, attributes: dict[str, Any]) -> int:
    if flags & ~_SAMPLED:  # Jaeger's others (debug, firehose) mean something else in OpenTelemetry
        attributes[FLAGS] = flags
    return flags & _SAMPLED


def _references(span: _Span) -> tuple[str | None, list[Link]]:
    """The parent's id, and links to the spans that are referred to otherwise."""
    parent = span.parent_span_id or None
    links = []
    for reference in span.references or ():
        child = reference.ref_type.upper() == "CHILD_OF"
        if child and reference.trace_id == span.trace_id and parent in (None, reference.span_id):
            parent = reference.span_id
        else:
            links.append(_link(reference))
    return parent, links


def _link(reference: _Reference) -> Link:
    attributes: dict[str, Any] = {REF_TYPE: reference.ref_type.lower()}
    trace_id = _id(reference.trace_id, 16, attributes, names.ORIGINAL_TRACE_ID)
    return Link(trace_id, _id(reference.span_id, 8, attributes, names.ORIGINAL_SPAN_ID), attributes=attributes)


def _parent_id(parent: str | None, attributes: dict[str, Any]) -> bytes | None:
    if parent is None:
        return None
    found = _id(parent, 8, attributes, names.ORIGINAL_PARENT_ID)
    return None if found == ROOT else found


def _id(text: str, width: int, attributes: dict[str, Any], original: str) -> bytes:
    if not text:
        raise MalformedInputError("not Jaeger JSON: an id is empty")
    if not _HEXADECIMAL.fullmatch(text):
        attributes[original] = text
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=width).digest()
    if len(text) > 2 * width:
        raise MalformedInputError(f"not Jaeger JSON: the id {text!r} has more than {2 * width} digits")
    return bytes.fromhex(text.rjust(2 * width, "0"))


def _event(log: _Log) -> Event:
    attributes = _attributes(log.fields)
    return Event(_nanoseconds(log.timestamp, "timestamp"), _taken_text(attributes, "event"), attributes)


def _resource_of(span: _Span, trace: _Trace) -> Resource:
    if span.process is not None:
        return _resource(span.process)
    return trace.processes.get(span.process_id or "", _NO_PROCESS)


def _resource(process: _Process) -> Resource:
    service: Attributes = {names.SERVICE_NAME: process.service_name} if process.service_name else {}
    return Resource({**service, **_attributes(process.tags)})


_NO_PROCESS: Final = Resource()
