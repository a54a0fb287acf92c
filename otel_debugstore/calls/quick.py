"""`begin_quickly` and `end_quickly`: what `begin` and `Call.end` do, in as few steps as can be, for most calls.

Most are of a function that runs in one go, are not sampled, are measured for nothing but CPU time this time, and their
span can be deferred (see `deferred`). What recording one costs after the program has done something else for some
milliseconds is what it touches: a function of ours is some 15 cache lines, at up to 100 ns each (docs/decisions/0010).
`begin` and `end` go through 32 functions, this through 6. Where it can't be so, or turns out otherwise at the
end, it becomes a `Call` and goes on the long way (`as_call`).
"""

from __future__ import annotations

from _thread import get_ident
from contextvars import Token
from random import getrandbits
from time import perf_counter_ns, thread_time_ns, time_ns
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation import _SPAN_KEY

from otel_debugstore.calls.call import Call
from otel_debugstore.calls.component import LONG_FUNCTION_NS, Component, Parameters
from otel_debugstore.calls.content import content_bytes, keep_arguments, keep_result
from otel_debugstore.calls.deferral import Deferral
from otel_debugstore.calls.deferred import NO_RESULT, NO_STATE, SAMPLED_RANDOM, DeferredSpan, origin_below
from otel_debugstore.calls.trouble import trouble
from otel_debugstore.measures.thrift import SHORT_NS
from otel_debugstore.outbox import OUTBOX
from otel_debugstore.payload.capture import waiting_bytes
from otel_debugstore.span_size import SPAN_BYTES

QuickCall = tuple[DeferredSpan, Deferral, list[Any], int, Token[Context], int, int, int]
"""A call that was begun quickly: its span, and of that `deferral` and `fate` (see `DeferredSpan`); how many bytes it
takes while it waits, but for its result; what detaches it; and `began`, `cpu_began` and `recording_ns` as `Call`
has them. (No named tuple: it takes longer to make, and to take apart.)
"""

_NOTHING_BY_NAME: Final[dict[str, Any]] = {}
_new_tuple: Final = tuple.__new__
_new: Final = object.__new__


def begin_quickly(
    component: Component, parameters: Parameters, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> QuickCall | None:
    """Begin a call now, if that can be done quickly; what is returned has to be given to `end_quickly` or `as_call`."""
    recording_began = perf_counter_ns()
    deferral = component.deferral
    span: DeferredSpan | None = None
    outer: Context | None = None
    token: Token[Context] | None = None
    try:
        if (
            deferral is None
            or deferral.provider is not trace._TRACER_PROVIDER
            or deferral.told._span_processors is not deferral.processors
            or component.meter.probability < 1.0
            or (component.meter.mean_ns >= LONG_FUNCTION_NS if component.thrift is None else component.thrift.skip <= 0)
        ):
            return None
        outer = deferral.current.get()
        if outer.get(_SUPPRESS_INSTRUMENTATION_KEY):
            return None
        tracer = deferral.tracer
        if tracer.sampler is not deferral.sampler or not tracer._tracer_config.is_enabled:
            return None
        parent: SpanContext | None = None
        outer_span = outer.get(_SPAN_KEY)
        if outer_span is None:
            trace_id, flags, state = getrandbits(128), SAMPLED_RANDOM, NO_STATE
        elif type(outer_span) is DeferredSpan:
            parent = outer_span._context
            trace_id, _, _, flags, state, _ = parent
        else:
            origin = origin_below(outer_span)
            if origin is None:
                return None
            parent, trace_id, flags, state = origin
        span_id = getrandbits(64)
        if not trace_id or not span_id:
            return None
        fate: list[Any] = []
        span = _new(DeferredSpan)
        span._component, span._deferral, span._resource = component, deferral, tracer.resource
        span._context = _new_tuple(SpanContext, (trace_id, span_id, False, flags, state, True))
        span._parent, span._fate, span._known, span._arguments = parent, fate, None, None
        span._start_time, span._end_time, span._cpu_ns = 0, None, -1
        span._result, span._sampling = NO_RESULT, ""
        span._thread = get_ident()
        code, defaults, keyword_defaults, variant = component.known_variant
        function = component.function
        if (
            function is None
            or code is not function.__code__
            or defaults is not function.__defaults__
            or keyword_defaults is not function.__kwdefaults__
        ):
            variant = component.variant()
        span._variant = variant
        size = SPAN_BYTES
        if component.capture_args and OUTBOX.is_open:
            by_place = waiting_bytes(args)
            by_name = waiting_bytes(kwargs.values()) if kwargs else 0
            if by_place >= 0 and by_name >= 0:
                size += by_place + by_name
                span._arguments = parameters, args, kwargs or _NOTHING_BY_NAME
            else:
                known: dict[str, Any] = {}
                span._known = known
                keep_arguments(component, (parameters, args, kwargs), known)
                size += content_bytes(known)
        token = deferral.current.set(Context({**outer, _SPAN_KEY: span}))
        cpu_began = thread_time_ns()
        span._start_time = time_ns()
        began = perf_counter_ns()
        return span, deferral, fate, size, token, began, cpu_began, began - recording_began
    except Exception as error:  # noqa: BLE001  # see `trouble`
        _detach(deferral, span, outer, token)
        trouble(error)
        return None
    except BaseException:
        _detach(deferral, span, outer, token)
        raise


def end_quickly(component: Component, call: QuickCall, result: Any) -> None:
    """End a call of a component that returned."""
    try:
        recording_began = perf_counter_ns()
        span, deferral, fate, size, token, began, cpu_began, recording_ns = call
        end_time = time_ns()
        cpu_ns = thread_time_ns() - cpu_began
        if fate:
            _call_of(call).end(result)
            return
        duration_ns = recording_began - began
        span._cpu_ns = cpu_ns if cpu_ns < duration_ns else duration_ns
        if component.capture_result and OUTBOX.is_open:
            waiting = 0 if result is None or type(result) is bool else waiting_bytes((result,))
            if waiting >= 0:
                size += waiting
                span._result = result
            else:
                known = span._known or {}
                before = content_bytes(known)
                keep_result(component, result, known)
                span._known = known
                size += content_bytes(known) - before
        # As `DeferredSpan.finish`. A signal handler, or another thread, may have looked at the span meanwhile.
        if fate or deferral.told._span_processors is not deferral.processors:
            _call_of(call).end(NO_RESULT)
            return
        fate.append(end_time)
        if fate[0] is not end_time:
            _call_of(call).end(NO_RESULT)
            return
        span._end_time = end_time
        deferral.processor.on_end_deferred(span, size)
        try:  # noqa: SIM105  # what that suggests takes 0.4 us
            deferral.current.reset(token)
        except ValueError:  # it ends in another context; see `Call._detach`
            pass
        meter, thrift = component.meter, component.thrift
        if thrift is not None and meter.budget is None and duration_ns < SHORT_NS:
            # What `saw` and `recorded` do then; a call of each is as much as both.
            # Nothing is called between the two counts: a signal handler could raise there, and the call count twice.
            recording_ns += perf_counter_ns() - recording_began
            thrift.skip -= 1
            meter.recorded_count += 1
            meter.recording_ns += recording_ns
            return
        if thrift is not None:
            thrift.saw(duration_ns, False)
        meter.recorded(duration_ns, recording_ns + perf_counter_ns() - recording_began, meter.later_ns)
    except Exception as error:  # noqa: BLE001  # see `trouble`
        _end_torn(call)
        trouble(error)
    except BaseException:
        _end_torn(call)
        raise


def as_call(call: QuickCall) -> Call | None:
    """Return the call that was begun quickly, to be ended as any other; None if it can't be."""
    try:
        return _call_of(call)
    except Exception as error:  # noqa: BLE001  # see `trouble`
        _let_go(call)
        trouble(error)
        return None


def _call_of(call: QuickCall) -> Call:
    span, _, _, _, token, began, cpu_began, recording_ns = call
    long = Call(span._component, span, 0)
    long._recording_ns, long._began, long._cpu_began = recording_ns, began, cpu_began
    long._thread, long._token = span._thread, token
    return long


def _end_torn(call: QuickCall) -> None:
    """End a call whose end was interrupted with what is known of it, unless it was ended."""
    try:
        _call_of(call).end(NO_RESULT)
    finally:
        _let_go(call)


def _let_go(call: QuickCall) -> None:
    """Leave no context attached of a call that could not be ended."""
    span, deferral, _, _, token, *_ = call
    outer = token.old_value
    _detach(deferral, span, Context() if outer is Token.MISSING else outer, token)


def _detach(
    deferral: Deferral | None, span: DeferredSpan | None, outer: Context | None, token: Token[Context] | None
) -> None:
    """Make `outer` the current context, if the span is still in that; by the token, so that none is current again
    where none was.
    """
    if deferral is None or outer is None or deferral.current.get().get(_SPAN_KEY, outer) is not span:
        return
    try:
        if token is not None:
            deferral.current.reset(token)
            return
    except (ValueError, RuntimeError):  # it is of another context, or was used
        pass
    deferral.current.set(outer)
