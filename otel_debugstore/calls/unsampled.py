"""Calls that were not sampled: counted when they end, or then written down after all, "late"."""

from __future__ import annotations

from time import perf_counter_ns, time_ns
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY

from otel_debugstore import attributes as names
from otel_debugstore.calls.component import Component
from otel_debugstore.calls.outcome import outcome_of
from otel_debugstore.calls.sdk_span import write_attributes
from otel_debugstore.calls.status import set_error
from otel_debugstore.calls.trouble import trouble

_SAMPLED: Final = 1
_TRACE_FLAGS: Final = 3  # of a SpanContext, which is a tuple


def count_unsampled(component: Component, duration_ns: int, error: BaseException | None) -> None:
    """Count a call that was not sampled, or write it down late: it failed, or took long."""
    meter = component.meter
    is_error = False
    try:
        is_error = error is not None and outcome_of(error).is_error
        is_late = (is_error or duration_ns > meter.late_ns) and meter.may_write_late()
        if is_late and _write_late(component, time_ns() - duration_ns, duration_ns, error if is_error else None):
            return
    except Exception as failure:  # noqa: BLE001  # see `trouble`
        trouble(failure)
    meter.call_count += 1
    meter.error_count += is_error
    meter.duration_ns += duration_ns


def _write_late(component: Component, started_ns: int, duration_ns: int, error: BaseException | None) -> bool:
    """Write the span of a call that has ended: childless, and marked as late.

    Returns:
        Whether there is one now: the provider's sampler may be against it.
    """
    recording_began = perf_counter_ns()
    if otel_context.get_value(_SUPPRESS_INSTRUMENTATION_KEY):
        return False
    attributes = {**component.attributes, names.LATE: True}
    span = component.tracer.start_span(component.name, attributes=attributes, start_time=started_ns)
    if not span.get_span_context()[_TRACE_FLAGS] & _SAMPLED:
        return False
    try:
        if error is not None:
            late: dict[str, Any] = {}
            set_error(span, outcome_of(error), error, late)
            write_attributes(span, late)
    except Exception as failure:  # noqa: BLE001  # see `trouble`
        trouble(failure)
    span.end(started_ns + duration_ns)
    component.meter.recorded_late(perf_counter_ns() - recording_began)
    return True
