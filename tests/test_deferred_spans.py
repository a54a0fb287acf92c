"""Spans that are made later: what is recorded is what the SDK would have recorded."""

# ruff: noqa: F811  # the names of fixtures are those of arguments

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.trace import StatusCode

from deferring import (
    INPUT,
    OUTPUT,
    WAYS,
    Recorded,
    begins,
    current,
    in_both,
    is_quick,
    kept,  # noqa: F401  # a fixture of all tests here
    memory,  # noqa: F401  # a fixture
    prepared,
    recording,
)
from otel_debugstore import instrument
from otel_debugstore.calls.component import Component
from otel_debugstore.calls.deferred import DeferredSpan
from otel_debugstore.calls.recorded import RecordedFunction
from otel_debugstore.payload.capture import capture
from otel_debugstore.recording_settings import recording_settings
from strategies import ANYTHING, values


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


def test_spans_of_both_kinds_in_one_batch(memory: Recorded) -> None:
    """Those that were deferred, one that was looked at, and the SDK's own come in the order in which they ended."""

    @instrument("tool", "looks")
    def looks() -> None:
        current().set_attribute("seen", True)

    @instrument("tool", "plain")
    def plain() -> int:
        return 5

    tracer = memory.provider.get_tracer("other")
    memory.new()
    for _ in range(3):
        plain()
        with tracer.start_as_current_span("sdk") as span:
            span.add_event("happened")
        looks()
    spans = memory.new()
    assert [span.name for span in spans] == ["plain", "sdk", "looks"] * 3
    assert [len(span.events) for span in spans] == [0, 1, 0] * 3
    assert [(span.attributes or {}).get("seen", False) for span in spans] == [False, False, True] * 3
    assert len({(span.attributes or {})[OUTPUT] for span in spans if span.name == "plain"}) == 1


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
@example(Planned("function", "tool", "quick", (True, True), (), {}, [], None, "end"))  # of what is over nothing is kept
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
            found.append((INPUT in attributes, OUTPUT in attributes, len(memory.payloads()) > 2))
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
