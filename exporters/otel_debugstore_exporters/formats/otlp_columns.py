"""OTLP messages as one `SpanBatch`: what the JSON and the protobuf decoder share.

Both hand over objects with the field names of the protocol (`trace_id`, `start_time_unix_nano`,
...); an `Encoding` says how ids and values are spelled. Columns are built by one comprehension a
field: nothing is made per span beyond what the decoder made.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from otel_debugstore.errors import MalformedInputError
from otel_debugstore_exporters.batch import (
    KIND_NAMES,
    STATUS_NAMES,
    UNKNOWN_TIME,
    Attributes,
    Event,
    Link,
    Resource,
    Scope,
    SpanBatch,
)

_KINDS: Final = {f"SPAN_KIND_{name}": number for number, name in enumerate(KIND_NAMES)}
_STATUSES: Final = {f"STATUS_CODE_{name}": number for number, name in enumerate(STATUS_NAMES)}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How an encoding of OTLP spells what JSON and protobuf spell differently.

    Attributes:
        ids: (ids, bytes an id, what to call it in an error) -> the ids as one byte string.
        no_parent: What stands for "no parent" among parent ids.
        attributes: Key-value pairs -> attributes.
        zero_is_unknown: A time of 0 can't be told from one that is missing.
    """

    ids: Callable[[Sequence[Any], int, str], bytes]
    no_parent: Any
    attributes: Callable[[Any], Attributes]
    zero_is_unknown: bool


def batch_from_otlp(resource_spans: Iterable[Any], encoding: Encoding) -> SpanBatch:
    """Return all spans of the messages as one batch, in their order.

    Raises:
        MalformedInputError: Some field is not what OTLP says; the message names the span.
    """
    batch, spans = _grouped(resource_spans, encoding)
    numbers: dict[str, int] = {}
    statuses = [span.status for span in spans]
    batch.trace_ids = encoding.ids([span.trace_id for span in spans], 16, "trace id")
    batch.span_ids = encoding.ids([span.span_id for span in spans], 8, "span id")
    batch.parent_ids = encoding.ids([span.parent_span_id or encoding.no_parent for span in spans], 8, "parent span id")
    batch.start_ns, batch.end_ns = _times(spans, encoding.zero_is_unknown)
    batch.kinds = _enumeration([span.kind for span in spans], _KINDS, "kind")
    batch.status_codes = _enumeration([s.code if s is not None else 0 for s in statuses], _STATUSES, "status code")
    batch.flags = array("I", [span.flags or 0 for span in spans])
    batch.name_index = array("I", [numbers.setdefault(span.name or "", len(numbers)) for span in spans])
    batch.names = list(numbers)
    batch.attributes = [encoding.attributes(span.attributes) for span in spans]
    batch.status_messages = {row: s.message for row, s in enumerate(statuses) if s is not None and s.message}
    batch.trace_states = {row: span.trace_state for row, span in enumerate(spans) if span.trace_state}
    batch.events = {row: _events(span.events, encoding) for row, span in enumerate(spans) if span.events}
    batch.links = {row: _links(span.links, encoding) for row, span in enumerate(spans) if span.links}
    dropped = [(s.dropped_attributes_count, s.dropped_events_count, s.dropped_links_count) for s in spans]
    batch.dropped = {row: (a or 0, e or 0, n or 0) for row, (a, e, n) in enumerate(dropped) if a or e or n}
    return batch


def _grouped(resource_spans: Iterable[Any], encoding: Encoding) -> tuple[SpanBatch, list[Any]]:
    """The spans in one list, and a batch that knows the resource and the scope of each."""
    batch, spans = SpanBatch(), list[Any]()
    for of_resource in resource_spans:
        resource_number = len(batch.resources)
        batch.resources.append(_resource(of_resource, encoding))
        for of_scope in of_resource.scope_spans or ():
            some = of_scope.spans or ()
            batch.scope_index.extend([len(batch.scopes)] * len(some))
            batch.resource_index.extend([resource_number] * len(some))
            batch.scopes.append(_scope(of_scope, encoding))
            spans.extend(some)
    return batch, spans


def _resource(message: Any, encoding: Encoding) -> Resource:
    resource = message.resource
    if resource is None:
        return Resource(schema_url=message.schema_url or "")
    return Resource(
        encoding.attributes(resource.attributes),
        message.schema_url or "",
        resource.dropped_attributes_count or 0,
    )


def _scope(message: Any, encoding: Encoding) -> Scope:
    scope = message.scope
    if scope is None:
        return Scope(schema_url=message.schema_url or "")
    return Scope(
        scope.name or "",
        scope.version or "",
        message.schema_url or "",
        encoding.attributes(scope.attributes),
        scope.dropped_attributes_count or 0,
    )


def _times(spans: Sequence[Any], zero_is_unknown: bool) -> tuple[array[int], array[int]]:
    """Start and end times; an end of 0 after a later start is one that is not known."""
    starts = [span.start_time_unix_nano for span in spans]
    ends = [span.end_time_unix_nano for span in spans]
    if None in starts or 0 in starts:
        starts = [UNKNOWN_TIME if s is None or (s == 0 and zero_is_unknown) else s for s in starts]
    if None in ends or 0 in ends:
        ends = [
            UNKNOWN_TIME if e is None or (e == 0 and (zero_is_unknown or s > 0)) else e
            for s, e in zip(starts, ends, strict=True)
        ]
    try:
        return array("q", starts), array("q", ends)
    except OverflowError as error:
        raise MalformedInputError("a start or end time is 2^63 nanoseconds or more") from error


def _enumeration(values: Sequence[Any], names: dict[str, int], what: str) -> bytes:
    try:
        numbers = bytes(values)
    except (TypeError, ValueError):
        numbers = bytes([_number(value, names, what) for value in values])
    if numbers and max(numbers) >= len(names):
        return bytes([number if number < len(names) else 0 for number in numbers])
    return numbers


def _number(value: Any, names: dict[str, int], what: str) -> int:
    """One value of an enumeration; a number from a later version of OTLP counts as unspecified."""
    if value is None:
        return 0
    if isinstance(value, str):
        if value not in names:
            raise MalformedInputError(f"{value!r} is not a span's {what}")
        return names[value]
    return int(value) if 0 <= value < len(names) else 0


def _events(events: Iterable[Any], encoding: Encoding) -> list[Event]:
    found = [
        Event(
            event.time_unix_nano or 0,
            event.name or "",
            encoding.attributes(event.attributes),
            event.dropped_attributes_count or 0,
        )
        for event in events
    ]
    if any(event.time_ns >= 2**63 for event in found):
        raise MalformedInputError("an event's time is 2^63 nanoseconds or more")
    return found


def _links(links: Iterable[Any], encoding: Encoding) -> list[Link]:
    return [
        Link(
            encoding.ids([link.trace_id], 16, "link's trace id"),
            encoding.ids([link.span_id], 8, "link's span id"),
            link.trace_state or "",
            link.flags or 0,
            encoding.attributes(link.attributes),
            link.dropped_attributes_count or 0,
        )
        for link in links
    ]
