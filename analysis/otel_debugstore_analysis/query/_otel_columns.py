"""The columns of a span as SQL over a row of ClickHouse's `otel_traces`.

What they are made of is what `otel_debugstore_exporters.arrow` makes them of. `otel_traces` knows no NULL: a start of 0
is an unknown one, and so is an end of 0 (the Collector's duration is then the negative start). What `debugstore push`
adds to a span's attributes is in `_pushed`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from otel_debugstore import attributes as names
from otel_debugstore.layers import LAYERS
from otel_debugstore_analysis.query import _pushed
from otel_debugstore_analysis.query._selection import ALL_ATTRIBUTES, INSTANCE, INSTANCE_KEYS
from otel_debugstore_exporters.layer_mapping import KNOWN

READ: Final = (
    "Timestamp",
    "TraceId",
    "SpanId",
    "ParentSpanId",
    "TraceState",
    "SpanName",
    "SpanKind",
    "ServiceName",
    "ResourceAttributes",
    "ScopeName",
    "ScopeVersion",
    "SpanAttributes",
    "Duration",
    "StatusCode",
    "StatusMessage",
    "Events.Name",
    "Events.Attributes",
)
"""The columns of `otel_traces` that are read."""


def _text(text: str) -> str:
    """Return a literal; only for constants of ours."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _span(key: str) -> str:
    return f"SpanAttributes[{_text(key)}]"


def _resource(key: str) -> str:
    return f"ResourceAttributes[{_text(key)}]"


def _or_null(expression: str) -> str:
    return f"nullIf({expression}, '')"


def _number(expression: str) -> str:
    return f"toInt64OrNull({expression})"


def _json(attributes: str, added: Collection[str]) -> str:
    """Attributes as a JSON object, without those that `debugstore push` added."""
    keys = ", ".join(map(_text, added))
    return f"toJSONString(mapFilter((k, v) -> k NOT IN ({keys}), {attributes}))"


def _layer() -> str:
    """The layer a span names; of those that name none the one of the conventions they follow, see docs/layers.md."""
    rules = []
    for key, layers in KNOWN.items():
        found, given = (f"[{', '.join(map(_text, values))}]" for values in (layers.keys(), layers.values()))
        rules.append(_or_null(f"transform({_span(key)}, {found}, {given}, '')"))
    own, known = _text(names.LAYER), ", ".join(map(_text, ("", *LAYERS)))  # `debugstore push` writes '' for none
    is_named = f"mapContains(SpanAttributes, {own}) AND {_span(names.LAYER)} IN ({known})"
    return f"if({is_named}, {_or_null(_span(names.LAYER))}, coalesce({', '.join(rules)}))"


def _exception(key: str) -> str:
    """The attributes of the exception events of which the last one with that attribute counts."""
    events = f"arrayFilter((a, n) -> n = {_text(names.EXCEPTION_EVENT)}, Events.Attributes, Events.Name)"
    return f"arrayLast(a -> a[{_text(key)}] != '', {events})[{_text(key)}]"


_LAST_EXCEPTION: Final = (
    f"arrayLast((a, n) -> n = {_text(names.EXCEPTION_EVENT)}, Events.Attributes, Events.Name)"
    f"[{_text(names.EXCEPTION_MESSAGE)}]"
)

_THRESHOLD: Final = (
    "arrayFirst(p -> match(p, '^th:[0-9a-f]{1,14}$'), arrayFlatten(arrayMap(m -> splitByChar(';', substring(m, 4)), "
    "arrayFilter(m -> startsWith(m, 'ot='), arrayMap(m -> trimBoth(m), splitByChar(',', TraceState))))))"
)
_REJECTED: Final = f"reinterpretAsUInt64(reverse(unhex(rightPad(substring({_THRESHOLD}, 4), 14, '0'))))"
"""The threshold as a number; 0 where there is none."""

RESOURCE_ATTRIBUTES: Final = _json("ResourceAttributes", _pushed.OF_RESOURCE)
"""The attributes of a resource as a JSON object, without those that a push adds."""
START: Final = "nullIf(toUnixTimestamp64Nano(Timestamp), 0)"
SIGNED_DURATION: Final = "reinterpretAsInt64(Duration)"
ENDS_AT_ZERO: Final = f"toUnixTimestamp64Nano(Timestamp) + {SIGNED_DURATION} = 0"
SESSION: Final = _or_null(
    f"if({_resource(_pushed.SESSION)} != '', {_resource(_pushed.SESSION)}, {_resource(names.SESSION_ID)})"
)
"""The session of a span in `otel_traces`."""

_PID: Final = f"coalesce({_number(_resource(_pushed.PID))}, {_number(_resource(names.PROCESS_PID))})"
_INSTANCE: Final = ", ".join((f"if(isNull({_PID}), toString(ServiceName), '')", *map(_resource, INSTANCE_KEYS)))

SPAN: Final[Mapping[str, str]] = {
    "trace_id": "TraceId",
    "span_id": "SpanId",
    "parent_id": "if(match(ParentSpanId, '^0*$'), NULL, ParentSpanId)",
    "name": "toString(SpanName)",
    "kind": "upper(replaceOne(SpanKind, 'SPAN_KIND_', ''))",
    "start_ns": START,
    "duration_ns": f"if(isNull({START}) OR {ENDS_AT_ZERO}, NULL, {SIGNED_DURATION})",
    "status": "upper(replaceOne(StatusCode, 'STATUS_CODE_', ''))",
    "status_message": _or_null("StatusMessage"),
    "exception_type": _or_null(
        f"if({_exception(names.EXCEPTION_TYPE)} != '', {_exception(names.EXCEPTION_TYPE)}, {_span(names.ERROR_TYPE)})"
    ),
    "exception_message": _or_null(_LAST_EXCEPTION),
    "service": _or_null("toString(ServiceName)"),
    "session": SESSION,
    "pid": _PID,
    "thread_id": _number(_span(names.THREAD_ID)),
    "layer": _layer(),
    "component": f"if({_span(names.COMPONENT)} != '', {_span(names.COMPONENT)}, toString(SpanName))",
    "variant": _or_null(_span(names.VARIANT)),
    "cpu_ns": _number(_span(names.CPU_TIME_NS)),
    "memory_peak_bytes": _number(_span(names.MEMORY_PEAK_BYTES)),
    "memory_net_bytes": _number(_span(names.MEMORY_NET_BYTES)),
    "io_read_bytes": _number(_span(names.IO_READ_BYTES)),
    "io_write_bytes": _number(_span(names.IO_WRITE_BYTES)),
    "sample_weight": f"if(position(TraceState, 'th:') = 0 OR {_span(names.LATE)} = 'true', 1., "
    f"72057594037927936. / toFloat64(72057594037927936 - {_REJECTED}))",
    "trace_state": _or_null("TraceState"),
    "flags": f"toUInt32OrZero({_span(_pushed.FLAGS)})",
    "dropped_attributes": f"toUInt32OrZero({_span(_pushed.DROPPED_ATTRIBUTES)})",
    "dropped_events": f"toUInt32OrZero({_span(_pushed.DROPPED_EVENTS)})",
    "dropped_links": f"toUInt32OrZero({_span(_pushed.DROPPED_LINKS)})",
    "resource_id": f"if({_resource(_pushed.RESOURCE_ID)} != '', {_resource(_pushed.RESOURCE_ID)}, "
    "lower(hex(sipHash64(ResourceAttributes))))",
    ALL_ATTRIBUTES: f"nullIf({_json('SpanAttributes', _pushed.OF_SPAN)}, '{{}}')",
    INSTANCE: f"arrayStringConcat(arrayFilter(x -> x != '', [{_INSTANCE}]), '/')",
    "scope_id": f"if({_resource(_pushed.SCOPE_ID)} != '', {_resource(_pushed.SCOPE_ID)}, "
    "lower(hex(sipHash64(ScopeName, ScopeVersion))))",
}
"""By column of `spans` what it is made of; `self_ns` is made of other spans."""
