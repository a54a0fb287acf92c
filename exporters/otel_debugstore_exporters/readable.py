"""Ended SDK spans as a batch. This runs for every span of the observed program: keep it lean."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.trace import SpanContext

from otel_debugstore.call_columns import Calls
from otel_debugstore.span_fields import Fields, dropped_count, plain_attributes
from otel_debugstore_exporters.batch import (
    MAX_TIME,
    ROOT,
    UNKNOWN_TIME,
    Event,
    Link,
    Resource,
    Scope,
    SpanBatch,
)

_REMOTE_KNOWN: Final = 0x100
_REMOTE: Final = 0x200
_INTERNAL: Final = b"\1"
_NO_CONTEXT: Final = SpanContext(0, 0, is_remote=False)


def batch_from_fields(fields: Sequence[Fields], pid: int) -> SpanBatch:
    """Return ended SDK spans as one batch.

    Args:
        fields: Of at least one ended span (`span_fields`).
        pid: The process that recorded them.
    """
    (
        names,
        contexts,
        parents,
        attributes,
        dropped_attributes,
        events,
        dropped_events,
        links,
        dropped_links,
        kinds,
        status_codes,
        descriptions,
        starts,
        ends,
        resources,
        scopes,
    ) = zip(*fields, strict=True)
    batch = _batch(names, contexts, parents, starts, ends, resources, scopes, pid)
    batch.kinds = bytes([kind + 1 for kind in kinds])
    batch.status_codes = bytes(status_codes)
    batch.attributes = list(attributes)
    if any(descriptions):
        batch.status_messages = {row: text for row, text in enumerate(descriptions) if text}
    if any(events):
        batch.events = {row: [_event(event) for event in some] for row, some in enumerate(events) if some}
    if any(links):
        batch.links = {row: [_link(link) for link in some] for row, some in enumerate(links) if some}
    if any(dropped_attributes) or any(dropped_events) or any(dropped_links):
        dropped = zip(dropped_attributes, dropped_events, dropped_links, strict=True)
        batch.dropped = {row: counts for row, counts in enumerate(dropped) if any(counts)}
    return batch


def batch_from_calls(calls: Calls, pid: int) -> SpanBatch:
    """Return the spans of ended calls as one batch, which lacks their attributes (see `call_attributes`).

    Args:
        calls: What is known of them.
        pid: The process that recorded them.
    """
    kinds, of_row = calls.kinds, calls.kind_index
    names = [kinds[number].name for number in of_row]
    resources = [kinds[number].resource for number in of_row]
    scopes = [kinds[number].scope for number in of_row]
    batch = _batch(names, calls.contexts, calls.parents, calls.start_ns, calls.end_ns, resources, scopes, pid)
    batch.kinds = _INTERNAL * len(names)
    batch.status_codes = bytes(len(names))
    return batch


def _batch(
    names: Sequence[str],
    contexts: Sequence[SpanContext | None],
    parents: Sequence[SpanContext | None],
    starts: Sequence[int | None],
    ends: Sequence[int | None],
    resources: Sequence[SdkResource | None],
    scopes: Sequence[Any],
    pid: int,
) -> SpanBatch:
    """Return what is the same for all spans; kinds, status codes and attributes are missing."""
    if None in contexts:
        contexts = tuple(context or _NO_CONTEXT for context in contexts)
    trace_ids, span_ids, _, trace_flags, trace_states, _ = zip(*contexts, strict=True)
    name_numbers: dict[str, int] = {}
    resource_numbers: dict[int, int] = {}
    scope_numbers: dict[int, int] = {}
    batch = SpanBatch(
        trace_ids=b"".join([i.to_bytes(16, "big") for i in trace_ids]),
        span_ids=b"".join([i.to_bytes(8, "big") for i in span_ids]),
        parent_ids=b"".join([ROOT if p is None else p[1].to_bytes(8, "big") for p in parents]),
        start_ns=_times(starts),
        end_ns=_times(ends),
        flags=array("I", [_flags(f, p) if p else f & 0xFF for f, p in zip(trace_flags, parents, strict=True)]),
        name_index=array("I", [name_numbers.setdefault(n, len(name_numbers)) for n in names]),
        resource_index=array("I", [resource_numbers.setdefault(id(r), len(resource_numbers)) for r in resources]),
        scope_index=array("I", [scope_numbers.setdefault(id(s), len(scope_numbers)) for s in scopes]),
        pid=pid,
    )
    batch.names = list(name_numbers)
    batch.resources = [_resource(r) for r in _distinct(resources, resource_numbers)]
    batch.scopes = [_scope(s) for s in _distinct(scopes, scope_numbers)]
    if any({id(state): state for state in trace_states}.values()):  # nearly all share one that is empty
        batch.trace_states = {row: state.to_header() for row, state in enumerate(trace_states) if state}
    return batch


def _flags(trace_flags: int, parent: SpanContext) -> int:
    return (trace_flags & 0xFF) | _REMOTE_KNOWN | (_REMOTE if parent.is_remote else 0)


def _times(times: Sequence[int | None]) -> array[int]:
    try:
        return array("q", times)  # type: ignore[arg-type]  # None takes the other road
    except (TypeError, OverflowError):
        return array("q", [UNKNOWN_TIME if t is None else max(UNKNOWN_TIME + 1, min(MAX_TIME, int(t))) for t in times])


def _distinct(values: Sequence[Any], numbers: dict[int, int]) -> list[Any]:
    found = {id(value): value for value in values}
    return [found[key] for key in numbers]


def _resource(resource: SdkResource | None) -> Resource:
    if resource is None:
        return Resource()
    return Resource(plain_attributes(resource.attributes), resource.schema_url or "")


def _scope(scope: Any) -> Scope:
    if scope is None:
        return Scope()
    return Scope(scope.name, scope.version or "", scope.schema_url or "", plain_attributes(scope.attributes))


def _event(event: Any) -> Event:
    return Event(event.timestamp, event.name, plain_attributes(event.attributes), dropped_count(event.attributes))


def _link(link: Any) -> Link:
    context = link.context
    return Link(
        context.trace_id.to_bytes(16, "big"),
        context.span_id.to_bytes(8, "big"),
        context.trace_state.to_header() if context.trace_state else "",
        (context.trace_flags & 0xFF) | _REMOTE_KNOWN | (_REMOTE if context.is_remote else 0),
        plain_attributes(link.attributes),
        dropped_count(link.attributes),
    )
