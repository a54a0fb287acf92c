"""`DeferredSpan`: a span of the SDK that is made when somebody looks at it, or else by the thread that writes.

To make a span, to fill it and to end it takes the SDK and us 30 us in a loop, and 300 us where the program has emptied
the processor's caches before (docs/decisions/0013). Between the begin and the end of most calls nobody looks at
their span: only its context is asked for, by spans below it. So a call keeps what its span will be made of: ids,
times, and arguments and result where they are values that can't change. All else is done in batches, later.

For the program it is a span of the SDK in every way: whatever it asks of it, the span is made at once, with the same
ids, and is an ordinary one from then on. Spans are deferred only where that can't be told: the sampler takes all,
nothing but our processors is told of spans, and nothing limits attributes (`deferral`).
Threads: any, and signal handlers; no locks. Whether a span was made before it ended is settled by who comes first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import compress
from operator import attrgetter
from random import getrandbits
from time import thread_time_ns, time_ns
from typing import Any, Final

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, _Span
from opentelemetry.trace import Span, SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation import _SPAN_KEY

from otel_debugstore import attributes as names
from otel_debugstore.call_columns import CallKind, Calls
from otel_debugstore.calls.component import Component, Parameters
from otel_debugstore.calls.content import (
    Arguments,
    content_bytes,
    keep_waited_arguments,
    keep_waited_result,
)
from otel_debugstore.calls.deferral import Deferral
from otel_debugstore.calls.sdk_span import with_sampling
from otel_debugstore.guard import swallow
from otel_debugstore.payload.capture import waiting_bytes
from otel_debugstore.span_size import SPAN_BYTES

NO_RESULT: Final = object()
"""Says that a call has no result to keep."""

SAMPLED_RANDOM: Final = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)
NO_STATE: Final = TraceState()

_TRACE_ID, _FLAGS, _STATE, _IS_VALID = 0, 3, 4, 5  # of a SpanContext, which is a tuple
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_new_tuple: Final = tuple.__new__
_new: Final = object.__new__

Begun = tuple[
    Component,
    Deferral,
    SpanContext | None,
    int,
    str | None,
    Parameters | None,
    tuple[Any, ...],
    dict[str, Any],
    dict[str, Any] | None,
]
"""What a span begins with: its component, its deferral, its parent, the thread, the variant of the code; arguments that
are still to be kept, with the parameters they are for, by place, and by name (parameters are None where there are
none to be kept); and attributes that are known already.
"""

_SLOTS: Final = attrgetter(  # in one go: to read a slot of a class that has `__getattr__` takes five times as long
    "_fate", "_context", "_begun", "_start_time", "_cpu_ns", "_result", "_more"
)


class DeferredSpan(_Span):
    """See the module's first lines. What has the name of a field of the SDK's span is that field.

    It has few fields, since to set one costs up to half a microsecond where nothing is in the cache.
    """

    __slots__ = ("_begun", "_context", "_cpu_ns", "_fate", "_more", "_result", "_start_time")

    _begun: Begun
    _context: SpanContext
    _fate: list[Any]
    """Empty while it is open and not made. Then first whatever came first: the span that was made, or its end time."""

    # Not set before its end.
    _cpu_ns: int
    """Negative if it is not known, or among the attributes."""
    _result: Any
    """What is still to be kept, or `NO_RESULT`."""
    _more: tuple[dict[str, Any], str] | None
    """Further attributes, and what its trace state says of sampling."""

    is_deferred: Final = True
    """See `span_fields.Deferred`."""

    def __getattr__(self, name: str) -> Any:
        """Make the span: somebody asks for a field that it has only then."""
        if name in DeferredSpan.__slots__ or name.startswith("__"):
            raise AttributeError(name)
        fate = self._fate
        if not fate:
            fate.append(self._made(end_time=None))
        made = fate[0]
        if type(made) is int:  # it has ended, maybe meanwhile
            made = self._made(end_time=made)
        made.__dict__.update(self.__dict__)  # what others keep there
        self.__dict__ = made.__dict__
        return getattr(made, name)

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Copy the span that is made: what one of the two is told would reach the other one."""
        _ = self._lock
        return super().__reduce_ex__(protocol)

    def is_recording(self) -> bool:
        """Return whether it is open."""
        fate = self._fate
        return not fate or (type(fate[0]) is not int and super().is_recording())

    def describe(
        self, thread: int, variant: str | None, arguments: Arguments | None, known: dict[str, Any] | None
    ) -> None:
        """Say what is known at the begin: see `Begun`."""
        component, deferral, parent, *_ = self._begun
        parameters, args, by_name = (None, (), {}) if arguments is None else arguments
        self._begun = component, deferral, parent, thread, variant, parameters, args, by_name, known

    def finish(self, end_time: int, result: Any, attributes: dict[str, Any], sampling: str) -> bool:
        """End the span, if nobody has looked at it, and nobody else is to be told of it.

        Args:
            end_time: Nanoseconds since 1970.
            result: What is to be kept of its result, a value that could wait, or `NO_RESULT`.
            attributes: Those that became known.
            sampling: What its trace state says of how it was sampled.

        Returns:
            Whether it was ended. If not, it is an ordinary span, and lacks what `add_rest` adds.
        """
        self._cpu_ns, self._result, self._more = -1, result, (attributes, sampling)
        _, deferral, _, _, _, parameters, args, by_name, known = self._begun
        size = SPAN_BYTES + content_bytes(attributes)
        if parameters is not None:
            size += waiting_bytes(args) + waiting_bytes(by_name.values())
        if result is not NO_RESULT:
            size += waiting_bytes((result,))
        if known:
            size += content_bytes(known)
        fate = self._fate
        if fate or deferral.told._span_processors is not deferral.processors:
            return False
        fate.append(end_time)
        if fate[0] is not end_time:  # another thread was faster
            return False
        deferral.processor.on_end_deferred(self, size)
        return True

    def add_rest(self, attributes: dict[str, Any]) -> None:
        """Add the attributes that a span that was made before its end lacks; keep arguments and result."""
        self._add_known(attributes)
        if self._more is not None:
            attributes |= self._more[0]
        if self._cpu_ns >= 0:
            attributes[names.CPU_TIME_NS] = self._cpu_ns
        if self._result is not NO_RESULT:
            self._add_result(attributes)

    @classmethod
    def calls(cls, spans: Sequence[DeferredSpan]) -> tuple[Calls | None, list[ReadableSpan]]:
        """Return what is known of spans that were deferred until they ended; others as the SDK's."""
        began = thread_time_ns()
        calls, others = _calls(spans)
        made = [span._readable_span() for span in others]
        each_ns = (thread_time_ns() - began) // max(1, len(spans))
        for component, count in Counter([span._begun[0] for span in spans]).items():
            component.meter.recorded_later(count, each_ns)
        return calls, made

    def _made(self, *, end_time: int | None) -> _Span:
        """Return the span that the SDK would have made; None is one that is open."""
        component, deferral, parent, thread, variant, *_ = self._begun
        tracer, attributes = deferral.tracer, component.attributes.copy()
        attributes[names.THREAD_ID] = thread
        if variant is not None:
            attributes[names.VARIANT] = variant
            component.send_code(variant)
        if end_time is None:
            self._add_known(attributes)
        else:
            self.add_rest(attributes)
        made = _Span(
            component.name,
            self._context,
            parent,
            tracer.sampler,
            resource=tracer.resource,
            attributes=attributes,
            span_processor=tracer.span_processor,
            instrumentation_info=tracer.instrumentation_info,
            limits=tracer._span_limits,
            instrumentation_scope=tracer._instrumentation_scope,
        )
        if end_time is not None:
            made._end_time = end_time
            made._attributes._immutable = True  # type: ignore[union-attr]
        return made

    def _add_known(self, attributes: dict[str, Any]) -> None:
        """Add what was known at the begin; keep the arguments."""
        component, _, _, _, _, parameters, args, by_name, known = self._begun
        if parameters is not None:
            try:
                keep_waited_arguments(component.capture == "full", (parameters, args, by_name), attributes)
            except Exception as error:  # noqa: BLE001  # a span without them is better than none
                swallow(error)
        if known:
            attributes |= known

    def _add_result(self, attributes: dict[str, Any]) -> None:
        try:
            keep_waited_result(self._begun[0].capture == "full", self._result, attributes)
        except Exception as error:  # noqa: BLE001  # a span without it is better than none
            swallow(error)


DeferredSpan.__name__ = _Span.__name__  # as the SDK's says of itself


def _calls(spans: Sequence[DeferredSpan]) -> tuple[Calls | None, list[DeferredSpan]]:
    try:
        all_slots = list(map(_SLOTS, spans))
    except AttributeError:  # one is open, and somebody else exports it
        return None, list(spans)
    others: list[DeferredSpan] = []
    is_deferred = [bool(slots[0]) and type(slots[0][0]) is int for slots in all_slots]
    if not all(is_deferred):
        others = [span for span, is_one in zip(spans, is_deferred, strict=True) if not is_one]
        all_slots = list(compress(all_slots, is_deferred))
        if not all_slots:
            return None, others
    fates, contexts, all_begun, starts, cpu_ns, results, rest = zip(*all_slots, strict=True)
    components, deferrals, parents, threads, variants, parameters, args, by_names, known = zip(*all_begun, strict=True)
    has_result = [result is not NO_RESULT for result in results]
    numbers: dict[tuple[Any, ...], int] = {}
    rows = zip(components, deferrals, threads, variants, parameters, has_result, strict=True)
    kind_index = [numbers.setdefault(key, len(numbers)) for key in rows]
    more: dict[int, dict[str, Any]] = {}
    sampled: dict[int, SpanContext] = {}
    if any(known) or any(rest):
        for row, (before, after) in enumerate(zip(known, rest, strict=True)):
            if before or after is not None:
                more[row] = {**(before or {}), **(after[0] if after is not None else {})}
                if after is not None and after[1]:
                    sampled[row] = with_sampling(contexts[row], after[1])
    calls = Calls(
        [sampled.get(row, context) for row, context in enumerate(contexts)] if sampled else contexts,
        parents,
        starts,
        [fate[0] for fate in fates],
        cpu_ns,
        [_kind(*key) for key in numbers],
        kind_index,
        args,
        {row: by_name for row, by_name in enumerate(by_names) if by_name} if any(by_names) else {},
        results if all(has_result) else [None if result is NO_RESULT else result for result in results],
        more,
    )
    return calls, others


def _kind(
    component: Component,
    deferral: Deferral,
    thread: int,
    variant: str | None,
    parameters: Parameters | None,
    has_result: bool,
) -> CallKind:
    """Return what calls that agree in all of this have in common; have their code written."""
    attributes = component.attributes.copy()
    attributes[names.THREAD_ID] = thread
    if variant is not None:
        attributes[names.VARIANT] = variant
        component.send_code(variant)
    of_parameters, positional = (None, 0) if parameters is None else parameters
    tracer = deferral.tracer
    return CallKind(
        component.name,
        attributes,
        of_parameters,
        positional,
        has_result,
        component.capture == "full",
        tracer.resource,
        tracer._instrumentation_scope,
    )


def deferred_span(component: Component, outer: Context) -> DeferredSpan | None:
    """Return a span that begins now, None if the SDK has to make it: it is switched off, or its parent not sampled.

    Args:
        component: What is called.
        outer: The context below which it hangs.
    """
    _ = component.tracer  # then it is known
    deferral = component.deferral
    if deferral is None or deferral.told._span_processors is not deferral.processors:
        return None
    tracer = deferral.tracer
    if tracer.sampler is not deferral.sampler or not tracer._tracer_config.is_enabled:
        return None
    origin = origin_below(outer.get(_SPAN_KEY))
    if origin is None:
        return None
    parent, trace_id, flags, state = origin
    span_id = getrandbits(64)
    if not trace_id or not span_id:
        return None
    span: DeferredSpan = _new(DeferredSpan)
    span._context = _new_tuple(SpanContext, (trace_id, span_id, False, flags, state, True))
    span._begun, span._fate = (component, deferral, parent, 0, None, None, (), {}, None), []
    span._start_time = time_ns()  # of those that look at it before it really starts; see `start_now`
    return span


def origin_below(parent_span: Any) -> tuple[SpanContext | None, int, TraceFlags, TraceState] | None:
    """Return the parent, and its own trace id, flags and trace state, of a span below another one; None of one that
    is not sampled.

    Args:
        parent_span: The span of the outer context, None where there is none.
    """
    parent: Any = parent_span.get_span_context() if isinstance(parent_span, Span) else None
    if parent is None or not parent[_IS_VALID]:
        return None, getrandbits(128), SAMPLED_RANDOM, NO_STATE
    if not parent[_FLAGS] & TraceFlags.SAMPLED:
        return None
    flags = SAMPLED_RANDOM if parent[_FLAGS] & TraceFlags.RANDOM_TRACE_ID else _SAMPLED
    return parent, parent[_TRACE_ID], flags, parent[_STATE]
