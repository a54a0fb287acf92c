"""`Call`: one call of a component on its way from `begin` to its ended span, and what it cost.

Nothing here raises into the program, except what a signal handler of the program raises. Where recording can't be
done, `begin` returns None and the program goes on as if it were not there.
A call has figures of its own only while one thread runs it without a break; coroutines and generators, which
are resumed and suspended, have their CPU time added up step by step, and no I/O figures if there is more than one step.
What their steps cost is not measured, which would double it: it is estimated, from how many there were. Where a call
of very many takes more than its component's budget in this way, its CPU time is given up.
"""

from __future__ import annotations

import contextlib
import functools
from _thread import get_ident
from collections.abc import Mapping
from time import perf_counter_ns, thread_time_ns, time_ns
from typing import Any, Final
from weakref import ref

from opentelemetry import context as otel_context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context, create_key
from opentelemetry.trace import INVALID_SPAN
from opentelemetry.trace.propagation import _SPAN_KEY

from otel_debugstore import attributes as names
from otel_debugstore.calls.component import Component
from otel_debugstore.calls.content import Arguments, keep_arguments, keep_inputs, keep_result
from otel_debugstore.calls.deferred import NO_RESULT, DeferredSpan, deferred_span
from otel_debugstore.calls.outcome import BY_NAME, RETURNED, Outcome, outcome_of
from otel_debugstore.calls.sdk_span import end_with_trace_state, start_now, write_attributes
from otel_debugstore.calls.status import MAX_DESCRIPTION, set_error, set_outcome, text_of
from otel_debugstore.calls.trouble import trouble
from otel_debugstore.log import warn_once
from otel_debugstore.measures.io import IO
from otel_debugstore.measures.memory import MEMORY, MemoryMark
from otel_debugstore.measures.thrift import NOISE_BYTES
from otel_debugstore.outbox import OUTBOX
from otel_debugstore.payload.capture import waiting_bytes

_CALL_KEY: Final = create_key("otel-debugstore-call")
_TRACE_FLAGS: Final = 3  # of a SpanContext, which is a tuple
_BOOKED_STEPS: Final = 1024  # so many at once; a power of two


class Call:
    """One call. `end` or `fail` has to be called once."""

    __slots__ = (
        "__weakref__",
        "_began",
        "_context",
        "_cpu_began",
        "_cpu_ns",
        "_has_moved",
        "_io",
        "_memory",
        "_nearest_memory",
        "_outcome",
        "_recording_ns",
        "_sampling",
        "_steps",
        "_thread",
        "_token",
        "component",
        "span",
    )

    def __init__(self, component: Component, span: Any, recording_began: int) -> None:
        self.component = component
        self.span = span
        """The OpenTelemetry span."""
        self._recording_ns = -recording_began  # from here on what recording takes; see `_measured`
        self._began = 0
        self._token: Any = None
        self._context: Context | None = None
        self._memory: MemoryMark | None = None
        self._nearest_memory: MemoryMark | None = None  # its own, or that of the nearest caller that has one
        self._io: Any = None
        self._has_moved = False  # as `Thrift.saw` has it
        self._thread = get_ident()
        self._cpu_began = -1  # running if not negative
        self._cpu_ns = 0
        self._steps = 0  # of what is resumed and suspended
        self._outcome: tuple[Outcome, str] | None = None
        self._sampling = ""  # `th` and `rv`, where this call was sampled

    def end(self, result: Any = NO_RESULT) -> None:
        """End the span of a call that returned."""
        recording_began = perf_counter_ns()
        try:
            self._end(RETURNED, None, result, recording_began)
        except Exception as error:  # noqa: BLE001  # see `trouble`
            self._let_go()
            trouble(error)

    def fail(self, error: BaseException) -> None:
        """End the span of a call that an exception left."""
        recording_began = perf_counter_ns()
        try:
            self._end(outcome_of(error), error, NO_RESULT, recording_began)
        except Exception as failure:  # noqa: BLE001  # see `trouble`
            self._let_go()
            trouble(failure)

    def set_outcome(self, outcome: str, message: str = "") -> None:
        """Say how the call ended, where its end does not show it.

        Args:
            outcome: "success", "error", "timeout", "cancelled", "interrupted", "terminated", "retry", "closed"
                or "exit". Another one changes nothing, and costs a log line.
            message: Why.
        """
        try:
            known = BY_NAME.get(outcome) if isinstance(outcome, str) else None
            if known is None:
                accepted = ", ".join(BY_NAME)
                warn_once("outcome", f"A call can't have the outcome {outcome!r:.100}; it may be {accepted}.")
            else:
                self._outcome = known, text_of(message)[:MAX_DESCRIPTION]
        except Exception as error:  # noqa: BLE001  # see `trouble`
            trouble(error)

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute of the span."""
        try:
            self.span.set_attribute(key, value)
        except Exception as error:  # noqa: BLE001  # see `trouble`
            trouble(error)

    def resume(self) -> None:
        """Make the call the current one: it runs from now on."""
        try:
            self._steps += 1
            if not self._steps % _BOOKED_STEPS:
                self._book_steps()
            if self._context is not None:
                self._token = otel_context._RUNTIME_CONTEXT.attach(self._context)
            if self._cpu_began != -2:
                self._thread = get_ident()
                self._cpu_began = thread_time_ns()
        except Exception as error:  # noqa: BLE001  # see `trouble`
            trouble(error)

    def suspend(self, item: Any = None) -> Any:
        """Stop being the current one, until it is resumed, and return the item."""
        try:
            self._stop_clock()
            self._io = None
            if self._token is not None:
                # What the call attached itself stays with it.
                self._context = otel_context._RUNTIME_CONTEXT.get_current()
                self._detach()
        except Exception as error:  # noqa: BLE001  # see `trouble`
            trouble(error)
        return item

    def end_memory(self) -> int | None:
        """Measure memory up to here, before the call ends, and return its peak in bytes; None where it is not known."""
        attributes: dict[str, Any] = {}
        try:
            if self._memory is not None:
                self._measure_memory(self._memory, attributes)
                write_attributes(self.span, attributes)
        except Exception as error:  # noqa: BLE001  # see `trouble`
            trouble(error)
        return attributes.get(names.MEMORY_PEAK_BYTES)

    def without_cpu(self) -> None:
        """Give up the figures of one thread: others run in it before this call ends."""
        self._cpu_began, self._io = -2, None

    def _book_steps(self) -> None:
        """Count what the last steps cost; where all of them take more than the budget, give up the CPU time."""
        meter, step_ns = self.component.meter, _step_ns(has_cpu=self._cpu_began != -2)
        meter.recorded_steps(_BOOKED_STEPS * step_ns)
        if not meter.affords(self._steps * step_ns, perf_counter_ns() - self._began):
            self.without_cpu()

    def _stop_clock(self) -> None:
        if self._cpu_began >= 0:
            if self._thread == get_ident():
                self._cpu_ns += thread_time_ns() - self._cpu_began
                self._cpu_began = -1
            else:
                self.without_cpu()

    def _detach(self) -> None:
        token, self._token = self._token, None
        try:
            otel_context._RUNTIME_CONTEXT.detach(token)
        except (ValueError, RuntimeError):  # in another context, such as by the garbage collector; or it was already
            return

    def _let_go(self) -> None:
        """Leave nothing behind of a call that could not be ended."""
        if self._token is not None:
            self._detach()
        if self._memory is not None:
            mark, self._memory = self._memory, None
            with contextlib.suppress(RuntimeError, OSError):
                MEMORY.end(mark)

    def _end(self, outcome: Outcome, error: BaseException | None, result: Any, recording_began: int) -> None:
        ended = time_ns()
        component, span = self.component, self.span
        attributes: dict[str, Any] = {}
        kept: Any = NO_RESULT
        try:
            self._stop_clock()
            if span.is_recording():  # the program may have ended it
                self._measure(attributes, recording_began - self._began)
                if result is not NO_RESULT and component.capture_result and OUTBOX.is_open:
                    if type(span) is DeferredSpan and waiting_bytes((result,)) >= 0:
                        kept = result
                    else:
                        keep_result(component, result, attributes)
                if self._outcome is not None:
                    outcome, message = self._outcome
                    set_outcome(span, outcome, message, attributes)
                elif outcome is not RETURNED and error is not None:
                    set_error(span, outcome, error, attributes)
            elif self._outcome is not None:
                outcome, _ = self._outcome
        finally:
            if self._token is not None:
                self._detach()
            self._context = None
            self._finish(attributes, outcome, kept, ended, recording_began)

    def _finish(
        self, attributes: dict[str, Any], outcome: Outcome, kept: Any, ended: int, recording_began: int
    ) -> None:
        """Write the attributes and the result that is still to be kept, end the span, and count the call."""
        meter, span = self.component.meter, self.span
        duration_ns = recording_began - self._began
        is_ended = False
        if span.is_recording():
            sampling = self._sampling
            if sampling and self._is_late(outcome, duration_ns):
                attributes[names.LATE] = True
                sampling = ""
            if type(span) is DeferredSpan:
                is_ended = span.finish(ended, kept, attributes, sampling)
                if not is_ended:
                    span.add_rest(attributes)
            if not is_ended:
                write_attributes(span, attributes)
                if sampling:
                    end_with_trace_state(span, sampling, ended)
                else:
                    span.end(ended)
        if self.component.thrift is not None:
            self.component.thrift.saw(duration_ns, self._has_moved)
        recording_ns = self._recording_ns
        if self._steps:
            recording_ns += self._steps % _BOOKED_STEPS * _step_ns(has_cpu=self._cpu_began != -2)
        recording_ns += perf_counter_ns() - recording_began
        if span.get_span_context()[_TRACE_FLAGS] & 1:
            meter.recorded(duration_ns, recording_ns, meter.later_ns if is_ended else 0)
        else:
            meter.not_recorded(duration_ns, outcome.is_error, recording_ns)

    def _is_late(self, outcome: Outcome, duration_ns: int) -> bool:
        """Return whether this call would have been written had it not been sampled, so that it stands for itself only.

        Where the budget has no room for late calls any more, it stands for those that are only counted, too.
        """
        meter = self.component.meter
        return (outcome.is_error or duration_ns > meter.late_ns) and meter.may_write_late()

    def _measure(self, attributes: dict[str, Any], duration_ns: int) -> None:
        if self._io is not None:
            if self._thread == get_ident() and (use := IO.end(self._io)) is not None:
                read_bytes, write_bytes = attributes[names.IO_READ_BYTES], attributes[names.IO_WRITE_BYTES] = use
                self._has_moved = read_bytes != 0 or write_bytes != 0
            self._io = None
        if self._cpu_began == -1:
            # One thread has no more CPU time than time goes by: what is beyond is that of asking for it, some 0.5 us.
            attributes[names.CPU_TIME_NS] = self._cpu_ns if self._cpu_ns < duration_ns else duration_ns
        if self._memory is not None:
            self._measure_memory(self._memory, attributes)

    def _measure_memory(self, mark: MemoryMark, attributes: dict[str, Any]) -> None:
        peak, net, overlapped = MEMORY.end(mark)
        self._memory = None
        if net is not None:
            attributes[names.MEMORY_NET_BYTES] = net
            self._has_moved = self._has_moved or not -NOISE_BYTES < net < NOISE_BYTES
        if peak is not None:
            attributes[names.MEMORY_PEAK_BYTES] = peak
            self._has_moved = self._has_moved or peak >= NOISE_BYTES
        if overlapped:
            attributes[names.MEMORY_OVERLAPPED] = True


def begin(
    component: Component,
    inputs: Mapping[str, Any] | None = None,
    *,
    arguments: Arguments | None = None,
    parent: Context | None = None,
    current: bool = True,
    steps: bool = False,
) -> Call | None:
    """Begin a call of a component now; None if it can't be, or is not to be, recorded.

    Args:
        component: What is called.
        inputs: Its inputs by name.
        arguments: Its arguments instead of `inputs`.
        parent: The context below which it hangs; by default the current one.
        current: Whether what is begun now hangs below this call. If not, it has no CPU and no I/O figures.
        steps: Whether it begins suspended, and `resume` and `suspend` are called around each of its steps.
    """
    recording_began = perf_counter_ns()
    call: Call | None = None
    try:
        outer = otel_context.get_current() if parent is None else parent
        if outer.get(_SUPPRESS_INSTRUMENTATION_KEY):
            return None
        sampling = component.meter.sampled() if component.meter.probability < 1.0 else ""
        span: Any = deferred_span(component, outer)
        if span is None:
            span = component.tracer.start_span(component.name, outer, attributes=component.attributes_at_start)
        call = Call(component, span, recording_began)
        is_recording = span.is_recording()
        if is_recording:
            call._sampling = sampling
            _describe(call, inputs, arguments)
            caller = outer.get(_CALL_KEY)
            if isinstance(caller, Call):
                call._nearest_memory = caller._nearest_memory
            if component.is_measured_now():
                is_short = component.thrift is not None and component.thrift.is_sure
                call._memory = call._nearest_memory = MEMORY.begin(call._nearest_memory, is_short=is_short)
                call._memory.owner = ref(call)
        elif not span.get_span_context().is_valid:
            return None  # nothing is recorded in this program
        context = Context({**outer, _SPAN_KEY: span, _CALL_KEY: call})
        if not current:
            call._cpu_began = -2
        else:
            if steps:
                call._context = context
            else:
                call._token = otel_context.attach(context)
            if call._memory is not None:
                call._io = IO.begin()
            if is_recording and not steps:
                call._cpu_began = thread_time_ns()
        start_now(span)
        call._began = perf_counter_ns()
        call._recording_ns += call._began
        return call
    except Exception as error:  # noqa: BLE001  # see `trouble`
        if call is not None:
            call._let_go()
        trouble(error)
        return None
    except BaseException:
        if call is not None:
            call._let_go()
        raise


@functools.cache
def _step_ns(*, has_cpu: bool) -> int:
    """Return what it costs to resume and suspend a call once, with its CPU time or without: the least of some tries."""
    nothing: Any = None
    call = Call(nothing, INVALID_SPAN, 0)
    call._context = otel_context.get_current()
    if not has_cpu:
        call.without_cpu()
    tries = []
    for _ in range(16):
        began = perf_counter_ns()
        call.resume()
        call.suspend()
        tries.append(perf_counter_ns() - began)
    return min(tries)


def _describe(call: Call, inputs: Mapping[str, Any] | None, arguments: Arguments | None) -> None:
    """Write down what is known at the begin: code, thread, inputs."""
    component, span = call.component, call.span
    variant = component.variant()
    keeps_inputs = component.capture_args and OUTBOX.is_open
    waits = False
    attributes: dict[str, Any] = {}
    if type(span) is DeferredSpan:
        waits = (
            keeps_inputs
            and arguments is not None
            and waiting_bytes(arguments[1]) >= 0
            and waiting_bytes(arguments[2].values()) >= 0
        )
    else:
        attributes = component.attributes.copy()
        attributes[names.THREAD_ID] = call._thread
        if variant is not None:
            attributes[names.VARIANT] = variant
            component.send_code(variant)
    if keeps_inputs and not waits:
        if arguments is not None:
            keep_arguments(component, arguments, attributes)
        elif inputs is not None:
            keep_inputs(component, inputs, attributes)
    if type(span) is DeferredSpan:
        span.describe(call._thread, variant, arguments if waits else None, attributes)
    else:
        write_attributes(span, attributes)
