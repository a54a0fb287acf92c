"""Spans that are made later: nobody can tell them from those that the SDK makes when a call begins."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import json
import logging
import pickle
import random
import sys
import threading
import time
import warnings
import weakref
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from types import FrameType
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import (
    ConcurrentMultiSpanProcessor,
    ReadableSpan,
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
from opentelemetry.trace import NonRecordingSpan, SpanContext, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util._once import Once

from otel_debugstore import instrument, step, tool
from otel_debugstore.calls import content, deferred
from otel_debugstore.calls.call import _CALL_KEY, Call
from otel_debugstore.calls.component import Component
from otel_debugstore.calls.deferral import deferral_of
from otel_debugstore.calls.deferred import DeferredSpan
from otel_debugstore.calls.recorded import RecordedFunction
from otel_debugstore.outbox import OUTBOX
from otel_debugstore.payload.capture import capture
from otel_debugstore.processor import BoundedSpanProcessor
from otel_debugstore.recording_settings import recording_settings
from recording import Memory, Sink
from strategies import ANYTHING, values

INPUT, OUTPUT, CPU = "debugstore.input.digest", "debugstore.output.digest", "debugstore.cpu.time_ns"
MEASURED: Final = ("debugstore.cpu.", "debugstore.memory.", "debugstore.io.")
WAYS: Final = ["long", "quick"]
"""How a call begins: as a `Call`, or by `begin_quickly`."""
SDK_LOGGER: Final = "opentelemetry.sdk.trace"


class Recorded(Memory):
    """Spans, those that are new among them, and a processor's loss."""

    def __init__(self, *, at_once: bool = False) -> None:
        super().__init__(at_once=at_once)
        self._known = 0

    def new(self) -> list[ReadableSpan]:
        """Return the spans that ended since the last time."""
        spans = self.spans()
        known, self._known = self._known, len(spans)
        return spans[known:]

    def one(self) -> ReadableSpan:
        """Return the only new span."""
        (span,) = self.new()
        return span


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep arguments and results, and record every call."""
    monkeypatch.setenv("OTEL_DEBUGSTORE_OVERHEAD_BUDGET", "off")
    monkeypatch.setattr(OUTBOX, "is_open", True)
    recording_settings.cache_clear()
    OUTBOX.after_fork_in_child()
    yield
    OUTBOX.after_fork_in_child()


@pytest.fixture
def memory() -> Recorded:
    return Recorded()


@contextlib.contextmanager
def recording(*, at_once: bool) -> Iterator[Recorded]:
    """Record into memory from here on, whatever was recorded before."""
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = None, Once()
    OUTBOX.after_fork_in_child()
    memory = Recorded(at_once=at_once)
    try:
        yield memory
    finally:
        memory.provider.shutdown()


def provided(**options: Any) -> tuple[TracerProvider, Sink]:
    """Return a provider and where our processor of it writes to; it flushes when it is asked to, and not before."""
    sink = Sink()
    provider = TracerProvider(**options)
    provider.add_span_processor(BoundedSpanProcessor(sink, schedule_delay_millis=1e9))
    trace.set_tracer_provider(provider)
    return provider, sink


def begins(way: str, component: Component) -> None:
    """Have the next call of a component begin in that way."""
    _ = component.tracer
    component.thrift.looks_now = way == "long"
    component.meter.mean_ns = 1e12 if way == "long" else 0.0


def prepared(way: str, work: Callable[..., Any], *, layer: str = "tool", **options: Any) -> Callable[..., Any]:
    """Return a recorded function whose next call begins in that way; it was called once before, and did nothing."""
    is_ready = False

    def body(*args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs) if is_ready else None

    component = Component(layer, "work", body, **options)
    made: Callable[..., Any] = RecordedFunction(body, component)
    made()
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.force_flush()
    is_ready = True
    begins(way, component)
    return made


def said(spans: Sequence[ReadableSpan], provider: TracerProvider) -> list[dict[str, Any]]:
    """Return what spans say that is the same in every run: no ids, times or sizes."""
    numbers: dict[int, Any] = {span.context.span_id: number for number, span in enumerate(spans)}
    traces = list(dict.fromkeys(span.context.trace_id for span in spans))
    found = []
    for span in spans:
        attributes = dict(span.attributes or {})
        assert span.start_time is not None
        assert span.end_time is not None
        assert 0 < span.start_time <= span.end_time
        assert span.resource.attributes == provider.resource.attributes
        scope = span.instrumentation_scope
        parent = span.parent
        found.append(
            {
                "kind": (span.name, span.kind),
                "status": (span.status.status_code, span.status.description),
                "parent": parent and numbers.get(parent.span_id, (parent.span_id, parent.is_remote)),
                "trace": traces.index(span.context.trace_id),
                "context": context_of(span.context),
                "attributes": {key: value for key, value in attributes.items() if not key.startswith(MEASURED)},
                "has_cpu_time": CPU in attributes,
                "events": [(event.name, without_stack(event.attributes)) for event in span.events],
                "links": [(link.context, dict(link.attributes or {})) for link in span.links],
                "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
                "scope": scope and (scope.name, scope.version, scope.schema_url, dict(scope.attributes or {})),
            }
        )
    return found


def without_stack(attributes: Any) -> dict[str, Any]:
    return {key: value for key, value in dict(attributes or {}).items() if key != "exception.stacktrace"}


def context_of(context: SpanContext | None) -> Any:
    """Return what a context says but for its ids."""
    assert context is not None
    return int(context.trace_flags), dict(context.trace_state), context.is_remote, context.is_valid


def in_both(run: Callable[[Recorded], Any]) -> tuple[Any, Any]:
    """Return what is said of what `run` does, what it returns, and what was kept: deferred, and made at once."""
    found = []
    for at_once in (False, True):
        with recording(at_once=at_once) as memory:
            returned = run(memory)
            spans = memory.spans()
            payloads = {payload.digest: payload for payload in OUTBOX.take().payloads}
            found.append((returned, said(spans, memory.provider), payloads))
    return found[0], found[1]


def current() -> Any:
    return trace.get_current_span()


def is_quick() -> bool:
    """Return whether the call that goes on was begun by `begin_quickly`: there is no `Call` of it."""
    call = otel_context.get_value(_CALL_KEY)
    return not isinstance(call, Call) or call.span is not current()


@pytest.mark.parametrize("layer", ["tool", "function"])
def test_most_calls_are_deferred_and_begun_quickly(memory: Recorded, layer: Any) -> None:
    """What the other tests are about is what happens: only the first calls of a component go the long way."""
    kinds: list[tuple[type, bool]] = []

    @instrument(layer, f"most-{layer}")
    def work() -> None:
        kinds.append((type(current()), is_quick()))

    for _ in range(400):
        work()
    assert {kind for kind, _ in kinds} == {DeferredSpan}
    assert [quickly for _, quickly in kinds].count(True) > 200
    assert len(memory.spans()) == 400


@pytest.mark.parametrize("way", WAYS)
def test_ways(memory: Recorded, way: str) -> None:
    """A call of `prepared` is deferred, and begins in the way that was asked for."""
    assert prepared(way, lambda: (type(current()), is_quick()))() == (DeferredSpan, way == "quick")
    assert len(memory.spans()) == 2


# Whatever is called: the same is recorded.


class PlannedError(Exception):
    pass


class UnspeakableError(PlannedError):
    def __str__(self) -> str:
        raise ValueError("no text")


ERRORS: Final[list[Callable[[], BaseException]]] = [
    lambda: PlannedError("wrong"),
    lambda: PlannedError("\ud800", 5),
    lambda: PlannedError("long " * 20_000),
    lambda: TimeoutError("late"),
    lambda: asyncio.CancelledError("stopped"),
    lambda: KeyboardInterrupt(),
    lambda: SystemExit(3),
    UnspeakableError,
]
PLANNED_ERRORS: Final = PlannedError, TimeoutError, asyncio.CancelledError, KeyboardInterrupt, SystemExit


@dataclass(frozen=True)
class Planned:
    """A call, what it does, and how it ends."""

    kind: str
    layer: Any
    way: str
    captured: tuple[bool, bool]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    result: Any
    error: int | None
    look: str
    children: tuple[Planned, ...] = ()


TEXTS = st.text(st.characters(), max_size=20)
VALUES = (
    values(ANYTHING)
    | st.integers(1000, 70_000).map(lambda length: "x" * length)
    | st.integers(60, 2000).map(lambda bits: -(1 << bits))
    | st.sampled_from(["$tuple", "password=secret", {"password": "secret"}, ("a", 1), {3}, bytearray(b"a"), object])
)
LOOKS_OF_PLANNED = ["no", "attribute", "event", "status", "name", "end"]
ALONE = st.builds(
    Planned,
    kind=st.sampled_from(["function", "function", "coroutine", "generator", "closed generator", "block"]),
    layer=st.sampled_from(["tool", "step", "function"]),
    way=st.sampled_from(WAYS),
    captured=st.sampled_from([(True, True)] * 3 + [(False, True), (True, False), (False, False)]),
    args=st.lists(VALUES, max_size=3).map(tuple),
    kwargs=st.dictionaries(st.sampled_from(["third", "fourth", "\ud800"]), VALUES, max_size=2),
    result=VALUES,
    error=st.none() | st.none() | st.integers(0, len(ERRORS) - 1),
    look=st.sampled_from(["no", "no", "no", *LOOKS_OF_PLANNED]),
)
PLANS = st.recursive(
    ALONE,
    lambda inner: st.builds(
        lambda one, children: replace(one, children=children), ALONE, st.lists(inner, max_size=3).map(tuple)
    ),
    max_leaves=5,
)


def look_as(planned: Planned) -> None:
    span = current()
    match planned.look:
        case "attribute":
            span.set_attribute("looked", [1, 2])
        case "event":
            span.add_event("looked", {"at": 1})
        case "status":
            span.set_status(StatusCode.ERROR, "said")
        case "name":
            span.update_name("renamed")
        case "end":
            span.end()


def inside(planned: Planned) -> Generator[None, None, Any]:
    """Do what is planned within a call, with a pause between its children, and return or raise what is planned."""
    look_as(planned)
    for child in planned.children:
        with contextlib.suppress(*PLANNED_ERRORS):
            perform(child)
        yield None
    if planned.error is not None:
        raise ERRORS[planned.error]()
    return planned.result


class Pause:
    def __await__(self) -> Generator[None]:
        yield


def driven(coroutine: Coroutine[Any, Any, Any]) -> None:
    with contextlib.suppress(StopIteration):
        while True:
            coroutine.send(None)


def perform(planned: Planned) -> None:
    """Call what is planned; functions were called once before, and did nothing."""
    is_ready = False

    def work(first: Any = None, /, second: Any = 2, *rest: Any, third: Any = None, **more: Any) -> Any:
        steps = inside(planned) if is_ready else iter(())
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return stop.value

    async def later(first: Any = None, /, second: Any = 2, *rest: Any, third: Any = None, **more: Any) -> Any:
        steps = inside(planned)
        while True:
            try:
                next(steps)
            except StopIteration as stop:
                return stop.value
            await Pause()

    def items(first: Any = None, /, second: Any = 2, *rest: Any, third: Any = None, **more: Any) -> Any:
        yield "begun"
        return (yield from inside(planned))

    name = f"planned {planned.kind}"
    if planned.kind == "block":
        with instrument(planned.layer, name, inputs={"args": planned.args} | planned.kwargs) as block:
            look_as(planned)
            block.set_result(planned.result).set_attribute("of the program", 1.5)
            if planned.error is not None:
                block.set_outcome("timeout", "said")
            for _ in inside(replace(planned, look="no")):
                pass
        return
    function = {"function": work, "coroutine": later}.get(planned.kind, items)
    capture_args, capture_result = planned.captured
    component = Component(planned.layer, name, function, capture_args=capture_args, capture_result=capture_result)
    recorded: Any = RecordedFunction(function, component)
    if planned.kind == "function":
        recorded()
        is_ready = True
    begins(planned.way, component)
    made = recorded(*planned.args, **planned.kwargs)
    if planned.kind == "coroutine":
        driven(made)
    elif planned.kind == "generator":
        list(made)
    elif planned.kind == "closed generator":
        next(made)
        made.close()


@settings(max_examples=100, deadline=None)
@given(PLANS)
def test_what_is_recorded_is_the_same(planned: Planned) -> None:
    """Whatever is called in whatever, and however it ends, is recorded as if the SDK had made the spans at once."""

    def run(memory: Recorded) -> None:
        with contextlib.suppress(*PLANNED_ERRORS):
            perform(planned)

    later, at_once = in_both(run)
    assert later == at_once


@pytest.mark.parametrize("way", WAYS)
def test_capture_by_the_settings(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Nothing, a digest, or also the content is kept, as the settings say."""
    found = []
    for setting in ("none", "digest", "full"):
        monkeypatch.setenv("OTEL_DEBUGSTORE_CAPTURE", setting)
        recording_settings.cache_clear()
        with recording(at_once=False) as memory:
            prepared(way, lambda value: value + 1)(1)
            attributes = memory.spans()[-1].attributes or {}
            found.append((INPUT in attributes, OUTPUT in attributes, len(OUTBOX.take().payloads) > 2))
    assert found == [(False, False, False), (True, True, False), (True, True, True)]


# What changes after it was given.

CHANGES: Final[dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]]] = {
    "list": (lambda: [1], lambda value: value.append(2)),
    "dict": (lambda: {"a": 1}, lambda value: value.update(b=2)),
    "nested": (lambda: {"a": [{"b": 1}]}, lambda value: value["a"][0].update(b=2)),
    "in a tuple": (lambda: ([1], 2), lambda value: value[0].append(2)),
    "set": (lambda: {1}, lambda value: value.add(2)),
    "bytearray": (lambda: bytearray(b"a"), lambda value: value.extend(b"b")),
    "deque": (lambda: deque([1]), lambda value: value.append(2)),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", WAYS)
def test_what_the_function_changes(memory: Recorded, way: str, change: str) -> None:
    """Arguments are kept as they were when the call began."""
    make, alter = CHANGES[change]
    call = prepared(way, lambda first, *, second: (alter(first), alter(second)))
    memory.new()
    first, second = make(), make()
    call(first, second=second)
    assert capture(first).digest != capture(make()).digest
    expected = capture({"*": [make()], "**": {"second": make()}}).digest
    assert (memory.one().attributes or {})[INPUT] == expected


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("way", WAYS)
def test_what_the_caller_changes(memory: Recorded, way: str, change: str) -> None:
    """A result is kept as it was when the call returned."""
    make, alter = CHANGES[change]
    call = prepared(way, make)
    memory.new()
    result = call()
    alter(result)
    assert capture(result).digest != capture(make()).digest
    assert (memory.one().attributes or {})[OUTPUT] == capture(make()).digest


@pytest.mark.parametrize("way", WAYS)
def test_arguments_by_name_that_the_function_changes(memory: Recorded, way: str) -> None:
    """Scalars given by name are kept as they were, also where the caller's dict of them is changed."""
    names = {"a": 1, "b": "two"}

    def work(**given: Any) -> None:
        given["a"] = names["a"] = 5

    call = prepared(way, work)
    memory.new()
    call(**names)
    assert (memory.one().attributes or {})[INPUT] == capture({"**": {"a": 1, "b": "two"}}).digest


# Looking at the current span.


def seen_attributes(span: Any) -> dict[str, Any]:
    return {key: value for key, value in dict(span.attributes).items() if not key.startswith(MEASURED)}


def seen_json(span: Any) -> dict[str, Any]:
    """Return what JSON says but for ids and times."""
    found: dict[str, Any] = json.loads(span.to_json(indent=None))
    assert found.pop("start_time")
    assert found.pop("end_time") is None
    assert found.pop("context")["trace_id"] == f"0x{trace.format_trace_id(span.context.trace_id)}"
    return found


def seen_info(span: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        info = span.instrumentation_info
    return info.name, info.version, info.schema_url


def seen_start(span: Any) -> Any:
    assert span.start_time > 1e18
    return type(span.start_time)


OTHER = SpanContext(5, 6, is_remote=True, trace_state=TraceState([("a", "b")]))
LOOKS: Final[dict[str, Callable[[Any], Any]]] = {
    "set_attribute": lambda span: span.set_attribute("key", (1, 2)),
    "set_attributes": lambda span: span.set_attributes({"key": 1, "other": "text"}),
    "add_event": lambda span: span.add_event("event", {"a": 1}, timestamp=5),
    "add_link": lambda span: span.add_link(OTHER, {"a": 1}),
    "update_name": lambda span: span.update_name("renamed"),
    "set_status": lambda span: span.set_status(Status(StatusCode.ERROR, "said")),
    "record_exception": lambda span: span.record_exception(ValueError("said"), {"a": 1}),
    "is_recording": lambda span: span.is_recording(),
    "start": lambda span: span.start(),
    "end": lambda span: span.end(),
    "get_span_context": lambda span: context_of(span.get_span_context()),
    "context": lambda span: context_of(span.context),
    "name": lambda span: span.name,
    "kind": lambda span: span.kind,
    "parent": lambda span: span.parent,
    "start_time": seen_start,
    "end_time": lambda span: span.end_time,
    "status": lambda span: (span.status.status_code, span.status.description),
    "attributes": seen_attributes,
    "events": lambda span: span.events,
    "links": lambda span: span.links,
    "resource": lambda span: span.resource.attributes,
    "instrumentation_info": seen_info,
    "instrumentation_scope": lambda span: span.instrumentation_scope,
    "dropped_attributes": lambda span: span.dropped_attributes,
    "dropped_events": lambda span: span.dropped_events,
    "dropped_links": lambda span: span.dropped_links,
    "to_json": seen_json,
}
MORE_LOOKS: Final[dict[str, Callable[[Any], Any]]] = {
    "set_status ok": lambda span: span.set_status(StatusCode.OK),
    "end then": lambda span: span.end(end_time=1 << 62),
    "with": lambda span: span.__enter__() is span and span.__exit__(None, None, None),
    "with an error": lambda span: span.__exit__(ValueError, ValueError("said"), None),
    "unknown name": lambda span: hasattr(span, "no_such_name"),
    "isinstance": lambda span: (isinstance(span, ReadableSpan), isinstance(span, trace.Span), isinstance(span, _Span)),
    "equality": lambda span: (span == span, span == copy.copy(span), len({span, span})),
}


def test_all_that_a_span_has_is_looked_at() -> None:
    """The tests below know every public name of the SDK's span."""
    assert {name for name in dir(_Span) if not name.startswith("_")} == set(LOOKS)


@pytest.mark.parametrize("look", [*LOOKS, *MORE_LOOKS])
@pytest.mark.parametrize("way", WAYS)
def test_looking_at_the_current_span(way: str, look: str, caplog: pytest.LogCaptureFixture) -> None:
    """It answers as the SDK's does, and says as much in the log; what was set is recorded, with digests, once."""

    def run(memory: Recorded) -> Any:
        caplog.clear()
        returned = []

        def work(number: int, text: str) -> int:
            returned.append((LOOKS | MORE_LOOKS)[look](current()))
            return number

        prepared(way, work)(5, text="text")
        assert trace.get_current_span() is trace.INVALID_SPAN
        assert len(memory.spans()) == 2
        return returned, [record.getMessage() for record in caplog.records]

    later, at_once = in_both(run)
    assert later == at_once
    assert INPUT in later[1][1]["attributes"]


@pytest.mark.parametrize("look", [*LOOKS, *MORE_LOOKS])
@pytest.mark.parametrize("way", WAYS)
def test_looking_leaves_the_same_span(memory: Recorded, way: str, look: str) -> None:
    """Before, while and after somebody looks one object is the current span, with one context."""

    def work() -> None:
        before = current()
        contexts = before.get_span_context()
        (LOOKS | MORE_LOOKS)[look](before)
        assert current() is before
        assert isinstance(before, ReadableSpan)
        assert before.get_span_context() is before.context is contexts

    prepared(way, work)()
    assert [
        span.status.description for span in memory.spans() if "AssertionError" in str(span.status.description)
    ] == []


@pytest.mark.parametrize("way", WAYS)
def test_several_looks(way: str) -> None:
    """All that is set before and after the span was made is recorded, and seen at once."""

    def run(memory: Recorded) -> Any:
        def work(number: int) -> str:
            span = current()
            for name in ("set_attribute", "add_event", "add_link", "update_name", "set_status"):
                LOOKS[name](span)
            span.set_attribute("key", "later")
            assert (span.attributes["key"], span.name, len(span.events)) == ("later", "renamed", 1)
            return "done"

        prepared(way, work)(5)

    later, at_once = in_both(run)
    assert later == at_once


@pytest.mark.parametrize("at_once", [False, True], ids=["deferred", "made at once"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_looked_at", [False, True], ids=["unseen", "seen"])
def test_copies(way: str, at_once: bool, is_looked_at: bool) -> None:
    """A copy is what the original is; what can't be done with a span of the SDK can't be done with this one."""
    with recording(at_once=at_once) as memory:

        def work(number: int) -> int:
            span = current()
            if is_looked_at:
                span.set_attribute("before", 1)
            other = copy.copy(span)
            assert other.get_span_context() == span.get_span_context()
            assert other.name == span.name == "work"
            assert other.is_recording()
            other.set_attribute("key", 1)
            for fails in (copy.deepcopy, pickle.dumps):
                with pytest.raises(TypeError):
                    fails(span)
            assert span.attributes["key"] == 1
            return number

        assert prepared(way, work)(5) == 5
        attributes = memory.spans()[-1].attributes or {}
        assert len(memory.spans()) == 2
        assert attributes["key"] == 1
        assert attributes[OUTPUT] == capture(5).digest


@pytest.mark.parametrize("way", WAYS)
def test_what_others_keep_at_a_span(memory: Recorded, way: str) -> None:
    """A field that somebody gives to the object stays where it is when the span is made."""

    def work() -> Any:
        span = current()
        span.of_somebody = "kept"
        span.set_attribute("key", 1)
        return span.of_somebody

    assert prepared(way, work)() == "kept"


@pytest.mark.parametrize("way", WAYS)
def test_a_span_that_the_program_ends_and_sets_afterwards(way: str) -> None:
    """What comes after the program's own end is not recorded; inputs, which came before, are."""

    def run(memory: Recorded) -> Any:
        def work(number: int) -> int:
            current().set_attribute("key", 1)
            current().end()
            current().set_attribute("late", 1)
            assert not current().is_recording()
            with tool("child"):
                pass
            return number

        prepared(way, work)(5)

    later, at_once = in_both(run)
    assert later == at_once


# A span after its end.


def kept_span(way: str, *, is_looked_at: bool = False) -> Any:
    """Return the span of a call that has ended."""
    spans = []

    def work(number: int) -> list[int]:
        spans.append(current())
        if is_looked_at:
            current().set_attribute("key", 1)
        return [number]

    prepared(way, work)(5)
    return spans[0]


@pytest.mark.parametrize("is_flushed", [False, True], ids=["unwritten", "written"])
@pytest.mark.parametrize("is_looked_at", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize("way", WAYS)
def test_a_span_that_has_ended(way: str, is_looked_at: bool, is_flushed: bool) -> None:
    """It says all that is stored of it, whether that was written before or after somebody asked."""
    provider, sink = provided()
    span = kept_span(way, is_looked_at=is_looked_at)
    if is_flushed:
        provider.force_flush()
    assert not span.is_recording()
    attributes = dict(span.attributes)
    assert attributes[INPUT] == capture({"*": [5]}).digest
    assert attributes[OUTPUT] == capture([5]).digest
    assert CPU in attributes
    assert attributes.get("key") == (1 if is_looked_at else None)
    provider.force_flush()
    (stored,) = [one for one in sink.spans if one.context.span_id == span.context.span_id]
    assert attributes == dict(span.attributes) == dict(stored.attributes or {})
    assert json.loads(span.to_json()) == json.loads(stored.to_json())
    assert (span.start_time, span.end_time, span.name) == (stored.start_time, stored.end_time, stored.name)
    assert (span.parent, span.status.status_code, span.kind) == (stored.parent, stored.status.status_code, stored.kind)


CHANGING: Final = [name for name in LOOKS if name.startswith(("set_", "add_", "update", "record", "end", "start"))]


@pytest.mark.parametrize("look", sorted(set(CHANGING) - {"end_time", "start_time"}))
@pytest.mark.parametrize("is_flushed", [False, True], ids=["unwritten", "written"])
@pytest.mark.parametrize("way", WAYS)
def test_changing_a_span_that_has_ended(
    way: str, is_flushed: bool, look: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK's warning is in the log, nothing stored changes, and nothing is recorded twice."""

    def run(memory: Recorded) -> Any:
        span = kept_span(way)
        if is_flushed:
            memory.spans()
        caplog.clear()
        LOOKS[look](span)
        messages = [record.getMessage() for record in caplog.records]
        assert len(messages) == 1
        assert len(memory.spans()) == 2
        return messages, seen_attributes(span), span.name, span.status.status_code, len(span.events), len(span.links)

    later, at_once = in_both(run)
    assert later == at_once


# Others who are told of spans.


class Told(SpanProcessor):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.ended: list[ReadableSpan] = []
        self.begun: list[Any] = []

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        self.heard.append(("start", span.name))
        self.begun.append(span)

    def _on_ending(self, span: Any) -> None:
        self.heard.append(("ending", span.name))

    def on_end(self, span: ReadableSpan) -> None:
        self.heard.append(("end", span.name))
        self.ended.append(span)


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


# Threads.


def test_looks_of_another_thread(logged: list[str]) -> None:
    """While calls end, another thread sets attributes of their spans: each is recorded or warned of, none lost."""
    tries, chance = 2000, random.Random(0)
    provider, sink = provided()
    handed: deque[Any] = deque()
    looked: list[Any] = []
    failed: list[BaseException] = []
    warned = Counter[str]()

    class Count(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warned[record.getMessage()] += 1

    def look() -> None:
        while len(looked) < tries:
            try:
                if not handed:
                    time.sleep(0)
                else:
                    looked.append(handed.popleft())
                    looked[-1].set_attribute("looked", len(looked))
            except BaseException as error:  # noqa: BLE001
                failed.append(error)

    def work(number: int) -> int:
        handed.append(current())
        for _ in range(chance.randrange(30)):
            len(handed)
        return number

    calls = [prepared(way, work, layer=layer) for way, layer in (("quick", "function"), ("long", "tool"))]
    provider.force_flush()
    sink.spans.clear()
    looker = threading.Thread(target=look)
    handler, interval = Count(), sys.getswitchinterval()
    logging.getLogger(SDK_LOGGER).addHandler(handler)
    sys.setswitchinterval(1e-6)
    try:
        looker.start()
        for number in range(tries):
            assert calls[number % 2](number) == number
            while len(handed) > 2:
                time.sleep(0)
        looker.join()
    finally:
        sys.setswitchinterval(interval)
        logging.getLogger(SDK_LOGGER).removeHandler(handler)
    provider.force_flush()
    assert not failed
    assert not logged
    assert len({span.context.span_id for span in sink.spans}) == len(sink.spans) == tries
    assert {span.context.span_id for span in looked} == {span.context.span_id for span in sink.spans}
    without = [span for span in sink.spans if not {INPUT, OUTPUT} <= set(span.attributes or {})]
    assert not without
    recorded = sum("looked" in (span.attributes or {}) for span in sink.spans)
    assert set(warned) <= {"Setting attribute on ended span."}
    assert recorded + warned.total() == tries
    stored = {span.context.span_id: dict(span.attributes or {}) for span in sink.spans}
    differences = [set(stored[span.context.span_id]) ^ set(dict(span.attributes)) for span in looked]
    assert not [difference for difference in differences if difference]


class Slow(dict[str, Any]):
    """Attributes of a component of which the first one to make a span of them waits, until it is let go."""

    def __init__(self, attributes: dict[str, Any]) -> None:
        super().__init__(attributes)
        self.is_waiting, self.go_on = threading.Event(), threading.Event()

    def copy(self) -> dict[str, Any]:
        if not self.is_waiting.is_set():
            self.is_waiting.set()
            assert self.go_on.wait(10)
        return dict(self)

    def __or__(self, other: Any) -> Any:
        return self.copy() | other


def slow_call(way: str, work: Callable[[Slow], Any]) -> Callable[[int], Any]:
    """Return a recorded function; who looks at its span first waits."""

    def body(number: int) -> Any:
        return work(slow) if number else None

    component = Component("tool", "work", body)
    recorded: Callable[[int], Any] = RecordedFunction(body, component)
    recorded(0)
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.force_flush()  # nobody else makes a span of its attributes now
    begins(way, component)
    slow = Slow(component.attributes)
    component.attributes = slow
    return recorded


@pytest.mark.parametrize("way", WAYS)
def test_a_look_that_takes_until_the_end(way: str) -> None:
    """A span that was being made when its call ended is complete for who made it, and recorded once."""
    provider, sink = provided()
    found: list[Any] = []

    def look(span: Any) -> None:
        span.set_attribute("late", 1)
        found.append(dict(span.attributes))

    def work(slow: Slow) -> int:
        looker = threading.Thread(target=look, args=(current(),))
        looker.start()
        assert slow.is_waiting.wait(10)
        found.append((slow, looker))
        return 7

    call = slow_call(way, work)
    assert call(5) == 7
    slow, looker = found.pop(0)
    slow.go_on.set()
    looker.join()
    provider.force_flush()
    (_, span) = sink.spans
    stored = dict(span.attributes or {})
    assert {INPUT, OUTPUT, CPU} <= set(stored)
    assert stored == found[0]


@pytest.mark.parametrize("way", WAYS)
def test_two_looks_at_once(way: str) -> None:
    """Two threads that make the span at one time make one: what either sets is recorded."""
    provider, sink = provided()

    def work(slow: Slow) -> None:
        span = current()
        looker = threading.Thread(target=span.set_attribute, args=("of the slow one", 1))
        looker.start()
        assert slow.is_waiting.wait(10)
        span.set_attribute("of the fast one", 1)
        slow.go_on.set()
        looker.join()
        span.set_attribute("after", 1)

    slow_call(way, work)(5)
    provider.force_flush()
    assert len(sink.spans) == 2
    assert {"of the slow one", "of the fast one", "after", INPUT, OUTPUT, CPU} <= set(sink.spans[-1].attributes or {})


class AtEvent:
    """Does something when the interpreter comes to the n-th line of recording, as a signal handler might."""

    def __init__(self, number: int, do: Callable[[], None]) -> None:
        self.left, self._do = number, do

    def __call__(self, frame: FrameType, event: str, argument: Any) -> AtEvent | None:
        if str(frame.f_globals.get("__name__")).startswith("otel_debugstore."):
            self.left -= 1
            if not self.left:
                self._do()
            return self
        return None

    def trace(self, call: Callable[[], Any]) -> Any:
        """Return what a call returns, during which it is done."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            return call()
        finally:
            sys.settrace(before)


RESULTS: Final[dict[str, Any]] = {"scalar": 5, "list": [5], "long text": "x" * 5000}


@pytest.mark.parametrize("result", RESULTS)
@pytest.mark.parametrize("way", WAYS)
def test_a_look_at_any_line(
    memory: Recorded, way: str, result: str, caplog: pytest.LogCaptureFixture, logged: list[str]
) -> None:
    """Wherever in the begin or the end of a call somebody sets an attribute: it is recorded or warned of, all else is
    as ever, and later looks see what is stored.
    """
    wrong: list[str] = []
    errors: list[BaseException] = []
    spans: list[Any] = []
    component: Component

    def work(number: int) -> Any:
        spans.append(current())
        return RESULTS[result]

    def look() -> None:
        try:
            if (span := spans[0] if spans else current()) is not trace.INVALID_SPAN:
                looked_at.append(span)
                span.set_attribute("key", 1)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    component = Component("tool", "work", work)
    call: Callable[[int], Any] = RecordedFunction(work, component)
    call(5)
    memory.new()
    for number in range(1, 2000):
        looked_at: list[Any] = []
        for some in (spans, errors):
            some.clear()
        caplog.clear()
        begins(way, component)
        at = AtEvent(number, look)
        at.trace(lambda: call(5))
        if at.left > 0:
            break
        found = memory.new()
        attributes = dict(found[0].attributes or {})
        warned = [record.getMessage() for record in caplog.records]
        said_of_it = ["key"] * ("key" in attributes) + warned
        if (
            len(found) != 1
            or errors
            or said_of_it not in ((["key"], ["Setting attribute on ended span."]) if looked_at else ([],))
            or attributes.get(INPUT) != capture({"number": 5}).digest
            or attributes.get(OUTPUT) != capture(RESULTS[result]).digest
            or CPU not in attributes
            or dict(spans[0].attributes) != attributes
        ):
            seen = {key for key in dict(spans[0].attributes) if key in (INPUT, OUTPUT, CPU, "key")}
            stored = {key for key in attributes if key in (INPUT, OUTPUT, CPU, "key")}
            wrong.append(f"line {number}: {len(found)} spans, {errors!r}, {warned}, stored {stored}, seen {seen}")
    assert number > 40
    assert not wrong, "\n".join(wrong)
    assert not logged


@pytest.mark.parametrize("way", WAYS)
def test_a_processor_added_at_any_line(way: str, logged: list[str]) -> None:
    """Whenever it comes while a call goes on or ends, it is told of the span's end once and in full, or not at all."""
    number, told_counts = 0, Counter[int]()
    is_over = False
    while not is_over:
        number += 1
        with recording(at_once=False) as memory:
            told = Told()
            call = prepared(way, lambda given: given)
            memory.new()
            at = AtEvent(number, lambda: memory.provider.add_span_processor(told))  # noqa: B023
            at.trace(lambda: call(5))  # noqa: B023
            is_over = at.left > 0
            attributes = dict(memory.one().attributes or {})
            assert {INPUT, OUTPUT, CPU} <= set(attributes), number
            assert [dict(span.attributes or {}) for span in told.ended] in ([], [attributes]), number
            told_counts[len(told.ended)] += 1
    assert told_counts[0] > 1
    assert told_counts[1] > 20
    assert not logged


# What is left behind.


class Held:
    """Something of the program's."""


@pytest.mark.parametrize("is_looked_at", [False, True], ids=["unseen", "seen"])
@pytest.mark.parametrize("way", WAYS)
def test_nothing_is_kept(memory: Recorded, way: str, is_looked_at: bool) -> None:
    """Arguments, results and the span itself are freed when they are written, without the garbage collector."""
    alive: list[weakref.ref[Any]] = []

    def work(given: list[Held], *, text: str) -> list[Held]:
        alive.append(weakref.ref(current()))
        if is_looked_at:
            current().set_attribute("key", 1)
        made = [Held()]
        alive.append(weakref.ref(made[0]))
        return made

    call = prepared(way, work)
    held = Held()
    alive.append(weakref.ref(held))
    gc.collect()
    gc.disable()
    try:
        call([held], text="text")
        assert len(alive) == 3
        del held
        assert alive[0]() is None
        assert alive[2]() is None
        memory.spans()
        assert [reference() for reference in alive] == [None] * 3
    finally:
        gc.enable()


# What it costs.


@pytest.mark.parametrize("way", WAYS)
def test_what_the_writing_thread_does_is_counted(way: str) -> None:
    """The time it takes to make spans is part of what recording their components cost; no call counts twice."""
    provider, sink = provided()
    components = [Component("tool", f"work {number}", lambda: 5) for number in range(3)]
    calls: list[Callable[[], int]] = [RecordedFunction(component.function, component) for component in components]
    calls[0]()
    provider.force_flush()  # from now on nothing is written before the next one
    calls[1]()
    for _ in range(5):
        begins(way, components[0])
        calls[0]()
    assert len(sink.spans) == 1
    before = [(component.meter.recorded_count, component.meter.recording_ns) for component in components]
    provider.force_flush()
    after = [(component.meter.recorded_count, component.meter.recording_ns) for component in components]
    assert len(sink.spans) == 7
    assert [count for count, _ in after] == [count for count, _ in before] == [6, 1, 0]
    grown = [now_ns - then_ns for (_, now_ns), (_, then_ns) in zip(after, before, strict=True)]
    assert grown[0] == 5 * grown[1] > 0
    assert grown[2] == 0


# What fails.


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [RuntimeError, MemoryError, RecursionError, OwnError])
@pytest.mark.parametrize("way", WAYS)
def test_arguments_that_can_not_be_kept(way: str, error: type[Exception], monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in the thread that writes costs these arguments; their span and all others are written."""
    provider, sink = provided()
    component = Component("tool", "work", abs)
    recorded: Callable[[int], int] = RecordedFunction(abs, component)
    recorded(0)
    provider.force_flush()
    kept_by: list[int] = []

    def keep(component: Any, arguments: Any, attributes: dict[str, Any]) -> None:
        kept_by.append(threading.get_ident())
        if arguments[1] == (-2,):
            raise error("wrong")
        content.keep_arguments(component, arguments, attributes)

    monkeypatch.setattr(deferred, "keep_arguments", keep)
    for number in range(-4, 0):
        begins(way, component)
        assert recorded(number) == -number
    assert not kept_by
    assert provider.force_flush()
    assert len(kept_by) == 4
    assert threading.get_ident() not in kept_by
    assert not sink.dropped
    spans = [dict(span.attributes or {}) for span in sink.spans[1:]]
    assert [attributes["debugstore.component"] for attributes in spans] == ["work"] * 4
    assert [INPUT in attributes for attributes in spans] == [True, True, False, True]


@pytest.mark.parametrize("way", WAYS)
def test_what_is_known_of_a_call_whose_arguments_can_not_be_kept(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its CPU time, and a digest of what was kept before, are in its span all the same."""

    def fail(*args: Any) -> None:
        raise RuntimeError("wrong")

    provider, sink = provided()
    call = prepared(way, lambda number: [number])
    monkeypatch.setattr(deferred, "keep_arguments", fail)
    call(5)
    provider.force_flush()
    attributes = dict(sink.spans[-1].attributes or {})
    assert INPUT not in attributes
    assert (attributes.get(OUTPUT), CPU in attributes) == (capture([5]).digest, True)


def test_an_interrupted_end_keeps_the_span(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C while the result is captured reaches the program; the call is recorded once, and current no more."""
    memory = Memory()

    @tool(name="interrupted")
    def interrupted(number: int) -> list[int]:
        return [number]

    for number in range(41):  # until they are quick, the next one too
        interrupted(number)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("otel_debugstore.calls.quick.keep_result", interrupt)
    is_open, OUTBOX.is_open = OUTBOX.is_open, True
    try:
        with pytest.raises(KeyboardInterrupt):
            interrupted(41)
    finally:
        OUTBOX.is_open = is_open
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert len(memory.spans()) == 42
