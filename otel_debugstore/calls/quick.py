"""`plain_wrapper`: what is called in place of a function that runs in one go, and records it: most calls in few steps.

Most calls are not sampled, are measured for nothing but CPU time this time, and their span can be deferred (see
`deferred`). What recording one costs after the program has done something else for some milliseconds is what it
touches: a function of ours is some 15 cache lines, at up to 100 ns each, and each object, and each of its fields, is
more of them (docs/decisions/0010). `begin` and `Call.end` go through 32 functions and make a dozen objects. So what
they do for such a call is written out in one function, and kept in as few objects as can be. Where it can't be so, or
turns out otherwise at the end, it becomes a `Call` and goes on the long way (`_as_call`).
"""

from __future__ import annotations

from _thread import get_ident
from collections.abc import Callable
from contextvars import Token
from random import getrandbits
from time import perf_counter_ns, thread_time_ns, time_ns
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY, Context
from opentelemetry.trace import SpanContext
from opentelemetry.trace.propagation import _SPAN_KEY

from otel_debugstore.calls.call import Call, begin
from otel_debugstore.calls.component import LONG_FUNCTION_NS, Component, Parameters
from otel_debugstore.calls.content import content_bytes, keep_arguments, keep_result
from otel_debugstore.calls.deferral import Deferral
from otel_debugstore.calls.deferred import NO_RESULT, NO_STATE, SAMPLED_RANDOM, DeferredSpan, origin_below
from otel_debugstore.calls.steps import continued
from otel_debugstore.calls.trouble import trouble
from otel_debugstore.calls.unsampled import count_unsampled
from otel_debugstore.measures.thrift import SHORT_NS
from otel_debugstore.outbox import OUTBOX
from otel_debugstore.payload.capture import waiting_bytes
from otel_debugstore.span_size import SPAN_BYTES

Wrapper = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]
"""What wrapt calls: the function (bound), what it is bound to, and the arguments."""

UNBOUND: Final = object()
"""What wrapt says a plain function is bound to (see `recorded.RecordedFunction._self_wrap`)."""

_RUN_LATER: Final = frozenset((CoroutineType, GeneratorType, AsyncGeneratorType))
_NOTHING_BY_NAME: Final[dict[str, Any]] = {}
_NO_ORIGIN: Final = (None, 0, SAMPLED_RANDOM, NO_STATE)
_new_tuple: Final = tuple.__new__
_new: Final = object.__new__


def plain_wrapper(component: Component) -> Wrapper:
    """Return what calls a function that runs in one go, and records that as `component`."""
    meter, thrift = component.meter, component.thrift
    runs_later: bool | None = None  # whether it has returned a coroutine or generator; at first nobody knows

    def call(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        nonlocal runs_later
        if meter.skip > 0:
            # Not sampled. This is the path of a million calls a second: nothing here that could be elsewhere.
            meter.skip -= 1
            began = perf_counter_ns()
            try:
                result = wrapped(*args, **kwargs)
            except BaseException as error:
                count_unsampled(component, perf_counter_ns() - began, error)
                raise
            if runs_later is not False and (later := continued(result, component, None, began)) is not None:
                return later
            duration_ns = perf_counter_ns() - began
            if duration_ns > meter.late_ns:
                count_unsampled(component, duration_ns, None)
            else:
                meter.call_count += 1
                meter.duration_ns += duration_ns
            return result

        recording_began = perf_counter_ns()
        is_bound = instance is not UNBOUND and instance is not None
        parameters = component.bound_parameters if is_bound else component.parameters
        deferral: Any = component.deferral
        outer: Any = None
        span: DeferredSpan | None = None
        token: Any = None
        recorded: Call | None = None
        try:
            if (
                deferral is not None
                and runs_later is False
                and deferral.provider is trace._TRACER_PROVIDER
                and deferral.told._span_processors is deferral.processors
                and meter.probability >= 1.0
                and (meter.mean_ns < LONG_FUNCTION_NS if thrift is None else thrift.skip > 0)
                and (tracer := deferral.tracer).sampler is deferral.sampler
                and tracer._tracer_config.is_enabled
                and not (outer := deferral.current.get()).get(_SUPPRESS_INSTRUMENTATION_KEY)
            ):
                outer_span = outer.get(_SPAN_KEY)
                parent: SpanContext | None = None
                if outer_span is None:
                    trace_id, flags, state = getrandbits(128), SAMPLED_RANDOM, NO_STATE
                elif type(outer_span) is DeferredSpan:
                    parent = outer_span._context
                    trace_id, _, _, flags, state, _ = parent
                else:
                    parent, trace_id, flags, state = origin_below(outer_span) or _NO_ORIGIN
                span_id = getrandbits(64)
                if trace_id and span_id:
                    code, defaults, keyword_defaults, variant = component.known_variant
                    function = component.function
                    if (
                        function is None
                        or code is not function.__code__
                        or defaults is not function.__defaults__
                        or keyword_defaults is not function.__kwdefaults__
                    ):
                        variant = component.variant()
                    size = SPAN_BYTES
                    waits_for: Parameters | None = None
                    known: dict[str, Any] | None = None
                    by_place: tuple[Any, ...] = ()
                    by_name = _NOTHING_BY_NAME
                    if component.capture_args and OUTBOX.is_open:
                        of_place = waiting_bytes(args)
                        of_name = waiting_bytes(kwargs.values()) if kwargs else 0
                        if of_place >= 0 and of_name >= 0:
                            waits_for, by_place = parameters, args
                            if kwargs:
                                by_name = kwargs
                            size += of_place + of_name
                        else:
                            known = {}
                            keep_arguments(component, (parameters, args, kwargs), known)
                            size += content_bytes(known)
                    fate: list[Any] = []
                    span = _new(DeferredSpan)
                    span._context = _new_tuple(SpanContext, (trace_id, span_id, False, flags, state, True))
                    thread = get_ident()
                    span._begun = component, deferral, parent, thread, variant, waits_for, by_place, by_name, known
                    span._fate = fate
                    context = Context({**outer, _SPAN_KEY: span})
                    cpu_began = thread_time_ns()
                    span._start_time = time_ns()  # before a signal handler can find the span, and end it
                    token = deferral.current.set(context)
                    began = perf_counter_ns()
        except Exception as error:  # noqa: BLE001  # see `trouble`
            _detach(deferral, span, outer, token)
            span = None
            trouble(error)
        except BaseException:
            _detach(deferral, span, outer, token)
            raise
        if span is None:
            recorded = begin(component, arguments=(parameters, args, kwargs))
        try:
            result = wrapped(*args, **kwargs)
            kind = type(result)
        except BaseException as error:
            if span is not None:
                recorded = _as_call(span, token, began, cpu_began, began - recording_began)
            if recorded is not None:
                recorded.fail(error)
            raise
        # Compared one by one: to look it up in a set is ten cache lines more.
        if span is None or kind is CoroutineType or kind is GeneratorType or kind is AsyncGeneratorType:
            if span is not None:
                recorded = _as_call(span, token, began, cpu_began, began - recording_began)
            if recorded is None:
                return result
            # A plain function that calls an asynchronous one or a generator function, such as a lambda.
            if kind in _RUN_LATER and (later := continued(result, component, recorded)) is not None:
                runs_later = True
                return later
            if runs_later is None:
                runs_later = False
            recorded.end(result)
            return result
        try:
            ended = perf_counter_ns()
            end_time = time_ns()
            cpu_ns = thread_time_ns() - cpu_began
            duration_ns = ended - began
            span._cpu_ns = cpu_ns if cpu_ns < duration_ns else duration_ns
            span._result, span._more = NO_RESULT, None
            if component.capture_result and OUTBOX.is_open:
                of_result = 0 if result is None or kind is bool else waiting_bytes((result,))
                if of_result >= 0:
                    span._result = result
                    size += of_result
                elif not fate:  # else `Call.end` keeps it, if the span is open
                    kept: dict[str, Any] = {}
                    span._more = kept, ""
                    keep_result(component, result, kept)
                    size += content_bytes(kept)
            # As `DeferredSpan.finish`: a signal handler, or another thread, may have looked at it meanwhile.
            if not fate and deferral.told._span_processors is deferral.processors:
                fate.append(end_time)
            if not fate or fate[0] is not end_time:
                if (recorded := _as_call(span, token, began, cpu_began, began - recording_began)) is not None:
                    recorded.end(result)
                return result
            deferral.processor.on_end_deferred(span, size)
            try:  # noqa: SIM105  # what that suggests takes 0.4 us
                deferral.current.reset(token)
            except ValueError:  # it ends in another context; see `Call._detach`
                pass
            if thrift is not None and meter.budget is None and duration_ns < SHORT_NS:
                # What `saw` and `recorded` do then; a call of each is as much as both.
                # Nothing is called between the two counts: a signal handler could raise there, and the call
                # count twice.
                recording_ns = began - recording_began + perf_counter_ns() - ended
                thrift.skip -= 1
                meter.recorded_count += 1
                meter.recording_ns += recording_ns
            else:
                if thrift is not None:
                    thrift.saw(duration_ns, False)
                recording_ns = began - recording_began + perf_counter_ns() - ended
                meter.recorded(duration_ns, recording_ns, meter.later_ns)
        except Exception as error:  # noqa: BLE001  # see `trouble`
            if recorded is None or span.is_recording():
                _end_torn(span, token, began, cpu_began, began - recording_began)
            trouble(error)
        except BaseException:
            if recorded is None or span.is_recording():  # else `Call.end` has ended it, and counted it
                _end_torn(span, token, began, cpu_began, began - recording_began)
            raise
        return result

    return call


def _as_call(
    span: DeferredSpan, token: Token[Context] | None, began: int, cpu_began: int, recording_ns: int
) -> Call | None:
    """Return the call that was begun quickly, to be ended as any other; None if it can't be.

    Args:
        span: Its span.
        token: What detaches it.
        began, cpu_began, recording_ns: As `Call` has them.
    """
    try:
        return _call_of(span, token, began, cpu_began, recording_ns)
    except Exception as error:  # noqa: BLE001  # see `trouble`
        _let_go(span, token)
        trouble(error)
        return None


def _call_of(span: DeferredSpan, token: Token[Context] | None, began: int, cpu_began: int, recording_ns: int) -> Call:
    component, _, _, thread, *_ = span._begun
    long = Call(component, span, 0)
    long._recording_ns, long._began, long._cpu_began = recording_ns, began, cpu_began
    long._thread, long._token = thread, token
    return long


def _end_torn(span: DeferredSpan, token: Token[Context] | None, began: int, cpu_began: int, recording_ns: int) -> None:
    """End a call whose end was interrupted with what is known of it, unless it was ended."""
    try:
        _call_of(span, token, began, cpu_began, recording_ns).end(NO_RESULT)
    finally:
        _let_go(span, token)


def _let_go(span: DeferredSpan, token: Token[Context] | None) -> None:
    """Leave no context attached of a call that could not be ended."""
    if token is not None:
        outer = token.old_value
        _detach(span._begun[1], span, Context() if outer is Token.MISSING else outer, token)


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
