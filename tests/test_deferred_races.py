"""Spans that are made later, when threads meet; what is left behind, what it costs, and what fails."""

# ruff: noqa: F811  # the names of fixtures are those of arguments

from __future__ import annotations

import contextvars
import gc
import logging
import random
import sys
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import (
    TracerProvider,
)

from deferring import (
    CPU,
    INPUT,
    OUTPUT,
    SDK_LOGGER,
    WAYS,
    Recorded,
    Told,
    begins,
    current,
    kept,  # noqa: F401  # a fixture of all tests here
    memory,  # noqa: F401  # a fixture
    prepared,
    provided,
    recording,
)
from otel_debugstore import tool
from otel_debugstore.calls import content, quick
from otel_debugstore.calls.call import Call
from otel_debugstore.calls.component import Component
from otel_debugstore.calls.recorded import RecordedFunction
from otel_debugstore.outbox import OUTBOX
from otel_debugstore.payload.capture import capture
from otel_debugstore.span_fields import calls_of, fields_of
from otel_debugstore_exporters import call_attributes
from recording import Memory

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


def end_it(span: Any) -> None:
    """Do what shows that a span has begun: only then may it be ended."""
    assert span.start_time > 10**18
    span.end()


LOOKS: Final[dict[str, Callable[[Any], object]]] = {
    "end": end_it,
    "to_json": lambda span: span.to_json(),
    "export": lambda span: calls_of((span,)),
}


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("way", WAYS)
def test_another_look_at_any_line(memory: Recorded, way: str, look: str, logged: list[str]) -> None:
    """Wherever somebody ends the current span, or exports it: it is recorded once, with its times."""
    errors: list[BaseException] = []
    looked_at: list[Any] = []

    def act() -> None:
        try:
            if (span := current()) is not trace.INVALID_SPAN:
                looked_at.append(span)
                LOOKS[look](span)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    def work(number: int) -> int:
        return number

    component = Component("tool", "work", work)
    call: Callable[[int], int] = RecordedFunction(work, component)
    call(5)
    memory.new()
    for number in range(1, 2000):
        begins(way, component)
        at = AtEvent(number, act)
        assert at.trace(lambda: call(5)) == 5
        if at.left > 0:
            break
        span = memory.one()
        assert not errors, number
        assert 10**18 < (span.start_time or 0) <= (span.end_time or 0), number
    assert len(looked_at) > 10
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

    def keep(is_content_kept: bool, arguments: Any, attributes: dict[str, Any]) -> None:
        kept_by.append(threading.get_ident())
        if arguments[1] == (-2,):
            raise error("wrong")
        content.keep_waited_arguments(is_content_kept, arguments, attributes)

    def fail(*_: object) -> None:
        raise error("wrong")

    monkeypatch.setattr(call_attributes, "call_values", lambda *_: None)  # as if something needed a closer look
    monkeypatch.setattr(call_attributes, "keep_waited", fail)
    monkeypatch.setattr(call_attributes, "keep_waited_arguments", keep)
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
    monkeypatch.setattr(call_attributes, "call_values", lambda *_: None)  # as above
    monkeypatch.setattr(call_attributes, "keep_waited", fail)
    monkeypatch.setattr(call_attributes, "keep_waited_arguments", fail)
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


def test_an_interrupted_end_of_a_span_that_was_looked_at_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C when all is done, while that returns: the call is not ended again."""
    provider, sink = provided()
    call = prepared("quick", lambda: current().set_attribute("key", 1))
    cells = call._self_wrapper.__closure__  # type: ignore[attr-defined]
    (component,) = [cell.cell_contents for cell in cells if isinstance(cell.cell_contents, Component)]
    before, ends = component.meter.recorded_count, Call.end

    def end_and_interrupt(self: Call, result: Any) -> None:
        ends(self, result)
        raise KeyboardInterrupt

    monkeypatch.setattr(Call, "end", end_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        call()
    provider.force_flush()
    assert component.meter.recorded_count - before == 1
    assert len(sink.spans) == 2
    assert current() is trace.INVALID_SPAN


def test_spans_that_are_open_can_be_exported() -> None:
    """By the program itself, among others: as the SDK's can, with what is known of them by then."""
    provided()
    found: list[Any] = []
    done: list[Any] = []

    def work(number: int) -> None:
        if number == 2:
            current().set_attribute("key", 1)
        if number > 1:
            found.append(fields_of(calls_of([*done, current()])[1]))
        elif number == 1:
            done.append(current())

    component = Component("tool", "work", work)
    call: Callable[[int], None] = RecordedFunction(work, component)
    for number in range(4):
        call(number)
        begins("quick", component)
    end_time = 13
    for number, (of_ended, of_open) in zip((2, 3), found, strict=True):
        assert of_ended[end_time] is not None
        assert of_open[end_time] is None
        assert of_ended[3][INPUT] == capture({"number": 1}).digest
        assert of_open[3][INPUT] == capture({"number": number}).digest


@pytest.mark.parametrize("reading", [1, 2, 3, 4])
def test_a_call_that_is_interrupted_at_a_clock_counts_once(reading: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that raises wherever a clock is read: as many calls are counted as there are spans."""
    provider, sink = provided()
    call = prepared("quick", lambda: 1)
    cells = call._self_wrapper.__closure__  # type: ignore[attr-defined]
    (component,) = [cell.cell_contents for cell in cells if isinstance(cell.cell_contents, Component)]
    before = component.meter.recorded_count
    real, readings = time.perf_counter_ns, 0

    def interrupted() -> int:
        nonlocal readings
        readings += 1
        if readings == reading:
            raise KeyboardInterrupt
        return real()

    monkeypatch.setattr(quick, "perf_counter_ns", interrupted)
    assert component.deferral is not None
    variable = component.deferral.current
    with pytest.raises(KeyboardInterrupt):
        call()
    assert variable not in contextvars.copy_context()  # or what is the parent of all would be none any more
    provider.force_flush()
    assert component.meter.recorded_count - before == len(sink.spans) - 1
