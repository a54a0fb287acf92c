"""`fields_of` and `calls_of`: what the exporter encodes of ended spans. This runs for every span: keep it lean.

Fields are taken from the SDK's private slots by one C-level getter a span (3.5 us a span less than
through the public properties, which copy); a span that lacks them goes through the properties. Spans that were
deferred (`calls.deferred`) and that nobody has looked at are never made: they give columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, Protocol

from opentelemetry.sdk.trace import ReadableSpan

from otel_debugstore.call_columns import Calls

Fields = tuple[Any, ...]
"""Name, context, parent, attributes and how many were dropped, events and dropped ones, links and dropped ones, kind
and status code as the SDK numbers them, status description, start and end in nanoseconds since 1970, resource, scope.
"""

_PRIVATE: Final = attrgetter(
    "_name",
    "_context",
    "_parent",
    "_attributes._dict",
    "_attributes.dropped",
    "_events._dq",
    "_events.dropped",
    "_links._dq",
    "_links.dropped",
    "_kind._value_",
    "_status._status_code._value_",
    "_status._description",
    "_start_time",
    "_end_time",
    "_resource",
    "_instrumentation_scope",
)


class Deferred(Protocol):
    """A span that is made when somebody looks at it."""

    is_deferred: bool

    @classmethod
    def calls(cls, spans: Sequence[Any]) -> tuple[Calls | None, list[ReadableSpan]]:
        """Return what is known of those that nobody has looked at, and the others as the SDK's."""


def calls_of(spans: Sequence[ReadableSpan]) -> tuple[Calls | None, Sequence[ReadableSpan]]:
    """Return what is known of ended spans that are deferred still, and the other spans, which are none of those."""
    kinds = set(map(type, spans))
    deferred = [kind for kind in kinds if getattr(kind, "is_deferred", False)]
    if not deferred:
        return None, spans
    maker: Any = deferred[0]  # there is one such class
    if len(kinds) == 1:
        return maker.calls(spans)  # type: ignore[no-any-return]
    calls, others = maker.calls([span for span in spans if type(span) is maker])
    return calls, [*(span for span in spans if type(span) is not maker), *others]


def fields_of(spans: Sequence[ReadableSpan]) -> list[Fields]:
    """Return the fields of ended spans, which are frozen: so their attributes are shared, not copied."""
    try:
        return list(map(_PRIVATE, spans))
    except AttributeError:
        return list(map(_public, spans))


def plain_attributes(attributes: Any) -> Mapping[str, Any]:
    """Return the attributes' own dict: a BoundedAttributes would be packed item by item."""
    found: Mapping[str, Any] | None = getattr(attributes, "_dict", None)
    return dict(attributes or {}) if found is None else found


def dropped_count(bounded: Any) -> int:
    """Return how many attributes, events or links were dropped."""
    return getattr(bounded, "dropped", 0)


def _public(span: ReadableSpan) -> Fields:
    """What `_PRIVATE` returns, from the properties."""
    return (
        span.name,
        span.context,
        span.parent,
        plain_attributes(span.attributes),
        dropped_count(span.attributes),
        span.events,
        dropped_count(span.events),
        span.links,
        dropped_count(span.links),
        span.kind.value,
        span.status.status_code.value,
        span.status.description,
        span.start_time,
        span.end_time,
        span.resource,
        span.instrumentation_scope,
    )
