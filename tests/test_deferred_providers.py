"""Whom the SDK tells of spans that are made later, where they are not deferred, and what they hang below."""

# ruff: noqa: F811  # the names of fixtures are those of arguments

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    SpanLimits,
    SpanProcessor,
    TracerProvider,
    _disable_tracer_configurator,
    _Span,
)
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBased,
    StaticSampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from deferring import (
    WAYS,
    Recorded,
    Told,
    context_of,
    current,
    in_both,
    kept,  # noqa: F401  # a fixture of all tests here
    memory,  # noqa: F401  # a fixture
    prepared,
    provided,
    said,
)
from otel_debugstore import step, tool
from otel_debugstore.calls.deferral import deferral_of
from otel_debugstore.calls.deferred import DeferredSpan
from otel_debugstore.processor import BoundedSpanProcessor
from recording import Sink

# Others who are told of spans.


@pytest.mark.parametrize("when", ["before", "outside", "inside", "after"])
@pytest.mark.parametrize("way", WAYS)
def test_others_who_are_told(way: str, when: str) -> None:
    """A processor hears of a call what the SDK says of it, wherever it was added; ours gets each span once."""

    def run(memory: Recorded) -> Any:
        told = Told()

        def add(now: str) -> None:
            if now == when:
                memory.provider.add_span_processor(told)

        def work(number: int) -> int:
            add("inside")
            assert (current() in told.begun) is (when in ("before", "outside"))
            with step("within"):
                pass
            return number

        call = prepared(way, work)
        memory.new()
        add("before")
        with tool("outer"):
            begun_by = current()
            add("outside")
            told_before = list(told.begun)
            call(5)
            assert begun_by is current()
        add("after")
        spans = memory.new()
        assert len({span.context.span_id for span in spans}) == len(spans) == 3
        own = {span.context.span_id: span for span in spans}
        for span in told.ended:
            stored = own[span.context.span_id]
            assert json.loads(span.to_json()) == json.loads(stored.to_json())
        return told.heard, len(told_before), said(told.ended, memory.provider)

    later, at_once = in_both(run)
    assert later == at_once
    heard = later[0][0]
    starts = {"before": 3, "outside": 2, "inside": 1, "after": 0}[when]
    ends = 0 if when == "after" else 3
    assert Counter(kind for kind, _ in heard) == +Counter(start=starts, ending=ends, end=ends)


# Where spans are not deferred.


class OwnIds(RandomIdGenerator):
    def generate_span_id(self) -> int:
        return super().generate_span_id() | 1


class OwnSampler(ParentBased):
    def should_sample(self, *args: Any, **kwargs: Any) -> Any:
        return super().should_sample(*args, **kwargs)


class Blind(SpanProcessor):
    sees_spans = False


NOT_DEFERRED: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "ratio": lambda: {"sampler": TraceIdRatioBased(1.0)},
    "ratio of roots": lambda: {"sampler": ParentBased(TraceIdRatioBased(1.0))},
    "remote parents dropped": lambda: {"sampler": ParentBased(ALWAYS_ON, remote_parent_sampled=ALWAYS_OFF)},
    "local parents dropped": lambda: {"sampler": ParentBased(ALWAYS_ON, local_parent_sampled=ALWAYS_OFF)},
    "own sampler": lambda: {"sampler": OwnSampler(ALWAYS_ON)},
    "static": lambda: {"sampler": StaticSampler(Decision.RECORD_AND_SAMPLE)},
    "few attributes": lambda: {"span_limits": SpanLimits(max_span_attributes=5)},
    "short attributes": lambda: {"span_limits": SpanLimits(max_span_attribute_length=7)},
    "short values of all": lambda: {"span_limits": SpanLimits(max_attribute_length=7)},
    "own ids": lambda: {"id_generator": OwnIds()},
    "concurrent": lambda: {"active_span_processor": ConcurrentMultiSpanProcessor()},
}
DEFERRED: Final[dict[str, Callable[[], dict[str, Any]]]] = {
    "default": dict,
    "always on": lambda: {"sampler": ALWAYS_ON},
    "default on": lambda: {"sampler": DEFAULT_ON},
    "parent based": lambda: {"sampler": ParentBased(ALWAYS_ON)},
    "enough attributes": lambda: {"span_limits": SpanLimits(max_span_attributes=64, max_events=1)},
    "any attributes": lambda: {"span_limits": SpanLimits(max_span_attributes=SpanLimits.UNSET)},
}


@pytest.mark.parametrize("options", NOT_DEFERRED)
@pytest.mark.parametrize("way", WAYS)
def test_where_the_sdk_makes_spans(way: str, options: str) -> None:
    """Where samplers, limits, ids or processors could tell, spans are the SDK's own, and are recorded once."""
    provider, sink = provided(**NOT_DEFERRED[options]())
    assert deferral_of(provider, provider.get_tracer("otel_debugstore")) is None
    assert prepared(way, lambda: type(current()))() is _Span
    provider.force_flush()
    assert [span.name for span in sink.spans] == ["work", "work"]


@pytest.mark.parametrize("options", DEFERRED)
@pytest.mark.parametrize("way", WAYS)
def test_where_spans_are_deferred(way: str, options: str) -> None:
    """Where nobody could tell, they are deferred."""
    provider, sink = provided(**DEFERRED[options]())
    assert deferral_of(provider, provider.get_tracer("otel_debugstore")) is not None
    assert prepared(way, lambda: type(current()))() is DeferredSpan
    provider.force_flush()
    assert [span.name for span in sink.spans] == ["work", "work"]


@pytest.mark.parametrize("options", ["few attributes", "short attributes", "short values of all"])
def test_limits_hold(options: str) -> None:
    """What the limits are for is kept to, as ever: long values that the program sets are cut."""
    provider, sink = provided(**NOT_DEFERRED[options]())
    prepared("quick", lambda: current().set_attribute("key", "0123456789"))()
    provider.force_flush()
    assert (sink.spans[-1].attributes or {})["key"] == ("0123456789" if options == "few attributes" else "0123456")


def test_limits_of_events_hold() -> None:
    """A limit of events does not keep spans from being deferred, and holds for them."""
    provider, sink = provided(span_limits=SpanLimits(max_events=1))

    def work() -> None:
        current().add_event("first")
        current().add_event("second")

    prepared("quick", work)()
    provider.force_flush()
    assert ([event.name for event in sink.spans[-1].events], sink.spans[-1].dropped_events) == (["second"], 1)


@pytest.mark.parametrize("way", WAYS)
def test_two_processors_of_ours(way: str) -> None:
    """Each of them gets each span, once; spans are the SDK's own then."""
    provider, sink = provided()
    other = Sink()
    provider.add_span_processor(BoundedSpanProcessor(other))
    assert deferral_of(provider, provider.get_tracer("otel_debugstore")) is None
    assert prepared(way, lambda: type(current()))() is _Span
    provider.force_flush()
    assert len(sink.spans) == len(other.spans) == 2


@pytest.mark.parametrize("way", WAYS)
def test_no_processor_of_ours(way: str) -> None:
    """With somebody else's only, or one that looks at no span, the SDK makes them."""
    told = Told()
    provider = TracerProvider()
    provider.add_span_processor(Blind())
    trace.set_tracer_provider(provider)
    assert deferral_of(provider, provider.get_tracer("otel_debugstore")) is None
    provider.add_span_processor(told)
    assert prepared(way, lambda: type(current()))() is _Span
    assert [span.name for span in told.ended] == ["work", "work"]


@pytest.mark.parametrize("way", WAYS)
def test_a_processor_that_looks_at_no_span(way: str) -> None:
    """Beside it spans are deferred."""
    trace.set_tracer_provider(provider := TracerProvider())
    sink = Sink()
    provider.add_span_processor(Blind())
    provider.add_span_processor(BoundedSpanProcessor(sink))
    assert prepared(way, lambda: type(current()))() is DeferredSpan
    provider.force_flush()
    assert len(sink.spans) == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_tracer_that_is_switched_off(way: str) -> None:
    """Nothing is recorded from then on, and what is called works."""
    provider, sink = provided()
    call = prepared(way, lambda: current().get_span_context().is_valid)
    provider._set_tracer_configurator(tracer_configurator=_disable_tracer_configurator)
    assert call() is False
    provider.force_flush()
    assert len(sink.spans) == 1


# Parents.

REMOTE_STATE: Final = TraceState([("vendor", "value"), ("ot", "rv:0123456789abcd")])


def remote(flags: int) -> SpanContext:
    return SpanContext(0xABC, 0xDEF, is_remote=True, trace_flags=TraceFlags(flags), trace_state=REMOTE_STATE)


@contextlib.contextmanager
def below(span: trace.Span) -> Iterator[None]:
    token = otel_context.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        otel_context.detach(token)


@pytest.mark.parametrize("flags", [TraceFlags.SAMPLED, TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID])
@pytest.mark.parametrize("way", WAYS)
def test_a_remote_parent(way: str, flags: int) -> None:
    """Its trace, its state and what its flags say go on in the call and in what is called within."""

    def run(memory: Recorded) -> Any:
        def work() -> Any:
            with tool("within"):
                return context_of(current().get_span_context())

        call = prepared(way, work)
        memory.new()
        with below(NonRecordingSpan(remote(flags))):
            returned = call()
        within, span = memory.new()
        assert span.parent == remote(flags)
        assert span.context.trace_id == within.context.trace_id == 0xABC
        assert within.parent == span.context
        assert dict(span.context.trace_state) == dict(within.context.trace_state) == dict(REMOTE_STATE)
        return returned

    later, at_once = in_both(run)
    assert later == at_once
    assert later[0][0] == flags


@pytest.mark.parametrize("flags", [TraceFlags.DEFAULT, TraceFlags.RANDOM_TRACE_ID])
@pytest.mark.parametrize("way", WAYS)
def test_a_parent_that_is_not_sampled(way: str, flags: int) -> None:
    """Nothing below it is recorded, and children inherit that."""

    def run(memory: Recorded) -> Any:
        contexts = []

        def work() -> None:
            contexts.append(context_of(current().get_span_context()))
            with tool("within"):
                contexts.append(context_of(current().get_span_context()))
                assert not current().is_recording()

        call = prepared(way, work)
        memory.new()
        with below(NonRecordingSpan(remote(flags))):
            call()
        assert not memory.new()
        return contexts

    later, at_once = in_both(run)
    assert later == at_once
    assert [found[0] for found in later[0]] == [flags, flags]


@pytest.mark.parametrize("way", WAYS)
def test_a_sampler_that_asks_no_parent(way: str) -> None:
    """It takes calls below a parent that is not sampled; the SDK makes their spans."""
    provider, sink = provided(sampler=ALWAYS_ON)
    call = prepared(way, lambda: type(current()))
    with below(NonRecordingSpan(remote(TraceFlags.DEFAULT))):
        assert call() is _Span
    provider.force_flush()
    assert sink.spans[-1].parent == remote(TraceFlags.DEFAULT)


@pytest.mark.parametrize("way", WAYS)
def test_a_parent_that_is_invalid(way: str) -> None:
    """The call begins a trace of its own."""

    def run(memory: Recorded) -> None:
        call = prepared(way, lambda: None)
        with below(NonRecordingSpan(SpanContext(0, 5, is_remote=True, trace_state=REMOTE_STATE))):
            call()
        assert memory.spans()[-1].parent is None

    later, at_once = in_both(run)
    assert later == at_once


@pytest.mark.parametrize("is_looked_at", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize("way", WAYS)
def test_spans_of_others_around_and_within(way: str, is_looked_at: bool) -> None:
    """Ids fit: a span of the SDK, below it a call, below that a span of the SDK, and one made by context alone."""

    def run(memory: Recorded) -> None:
        tracer = trace.get_tracer("of somebody else")

        def work() -> None:
            if is_looked_at:
                current().set_attribute("key", 1)
            tracer.start_span("by context", context=trace.set_span_in_context(current(), Context())).end()
            with tracer.start_as_current_span("within"), step("call within"):
                pass

        call = prepared(way, work)
        memory.new()
        with tracer.start_as_current_span("around"):
            call()
        spans = {span.name: span for span in memory.new()}
        parents = {name: span.parent.span_id if span.parent else None for name, span in spans.items()}
        ids = {name: span.context.span_id for name, span in spans.items()}
        assert parents == {
            "by context": ids["work"],
            "call within": ids["within"],
            "within": ids["work"],
            "work": ids["around"],
            "around": None,
        }
        assert len({span.context.trace_id for span in spans.values()}) == 1
        assert len(set(ids.values())) == 5

    later, at_once = in_both(run)
    assert later == at_once


@pytest.mark.parametrize("way", WAYS)
def test_a_context_that_is_left_behind(memory: Recorded, way: str) -> None:
    """What a function attaches and does not detach is gone when it returns, and other values stay."""
    key = otel_context.create_key("of-the-program")

    def work() -> Any:
        otel_context.attach(otel_context.set_value(key, "inside"))
        return current().get_span_context().is_valid

    token = otel_context.attach(otel_context.set_value(key, "outside"))
    try:
        assert prepared(way, work)() is True
        assert otel_context.get_value(key) == "outside"
        assert current() is trace.INVALID_SPAN
    finally:
        otel_context.detach(token)
