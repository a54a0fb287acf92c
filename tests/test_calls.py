"""Recorded calls, by hand: every kind of callable, what it returns and raises, how it nests, and how it ends."""

from __future__ import annotations

import asyncio
import copy
import functools
import inspect
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from otel_debugstore import function, instrument, node, step, tool, workflow
from otel_debugstore.errors import ConfigurationError
from recording import Memory


class Recorded(Memory):
    """The spans that were recorded, by name."""

    def one(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans() if span.name == name]
        return span

    def parent(self, name: str) -> str | None:
        parent = self.one(name).parent
        return next((s.name for s in self.spans() if parent and s.context.span_id == parent.span_id), None)


@pytest.fixture(params=[True, False], ids=["made at once", "deferred"])
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(at_once=request.param)


@tool
def double(value: int, *, plus: int = 0) -> int:
    """Return twice the value."""
    return 2 * value + plus


@tool(name="slow-double")
async def double_later(value: int) -> int:
    await asyncio.sleep(0.02)
    return 2 * value


@step
def count_up(limit: int) -> Generator[int, str | None, str]:
    for number in range(limit):
        received = yield number
        assert received is None or received == "sent"
    return "counted"


@step
async def count_up_later(limit: int) -> AsyncGenerator[int]:
    for number in range(limit):
        await asyncio.sleep(0)
        yield number


class Adder:
    def __init__(self, addend: int) -> None:
        self.addend = addend

    @function
    def add(self, value: int) -> int:
        return self.addend + value

    @function
    @classmethod
    def of(cls, addend: int) -> Adder:
        return cls(addend)

    @staticmethod
    @function
    def zero() -> int:
        return 0

    def __call__(self, value: int) -> int:
        return self.addend + value


def test_a_function(recorded: Recorded) -> None:
    """The span says what was called, where its code is, and what it is for others."""
    assert double(3, plus=1) == 7
    span = recorded.one(f"{__name__}.double")
    attributes = dict(span.attributes or {})
    assert attributes["debugstore.layer"] == "tool"
    assert attributes["debugstore.component"] == attributes["gen_ai.tool.name"] == f"{__name__}.double"
    assert attributes["gen_ai.operation.name"] == "execute_tool"
    assert attributes["code.function.name"] == f"{__name__}.double"
    assert attributes["code.file.path"] == __file__
    assert attributes["thread.id"] == threading.get_ident()
    assert isinstance(attributes["debugstore.variant"], str)
    assert span.status.is_unset


def test_what_a_function_looks_like() -> None:
    """Name, signature, documentation, kind and pickle are those of the function."""
    assert (double.__name__, double.__doc__) == ("double", "Return twice the value.")
    assert list(inspect.signature(double).parameters) == ["value", "plus"]
    assert inspect.isfunction(double)
    assert inspect.iscoroutinefunction(double_later)
    assert inspect.isgeneratorfunction(count_up)
    assert inspect.isasyncgenfunction(count_up_later)
    assert pickle.loads(pickle.dumps(double)) is double
    assert copy.deepcopy(double) is double
    adder = Adder(1)
    assert pickle.loads(pickle.dumps(adder.add))(2) == 3
    assert list(inspect.signature(adder.add).parameters) == ["value"]


def test_methods(recorded: Recorded) -> None:
    """Methods, class and static methods, in either order of the decorators, and objects that can be called."""
    assert Adder.of(2).add(3) == Adder.add(Adder(2), 3) == 5
    assert Adder(1).zero() == Adder.zero() == 0
    assert tool(name="called")(Adder(4))(1) == 5
    assert tool(name="partial")(functools.partial(double, 4))() == 8
    names = [span.name for span in recorded.spans()]
    assert names.count(f"{__name__}.Adder.zero") == 2
    assert names.count(f"{__name__}.Adder.add") == 2
    for name in (f"{__name__}.Adder.of", f"{__name__}.Adder.add", "called", "partial"):
        assert name in names


def test_a_coroutine(recorded: Recorded) -> None:
    """It is recorded while it runs, not when it is made; awaiting takes no CPU time."""

    async def main() -> Any:
        made = double_later(4)
        await asyncio.sleep(0.05)
        assert inspect.iscoroutine(made)
        return await made

    assert asyncio.run(main()) == 8
    span = recorded.one("slow-double")
    assert 15e6 < (span.end_time or 0) - (span.start_time or 0) < 45e6
    assert 0 <= (span.attributes or {})["debugstore.cpu.time_ns"] < 10e6  # type: ignore[operator]


def test_a_coroutine_that_is_never_awaited(recorded: Recorded) -> None:
    """Python says so under the function's own name, and no span is made up."""
    with pytest.warns(RuntimeWarning, match="'double_later' was never awaited"):
        double_later(1)  # type: ignore[unused-coroutine]
    assert not recorded.spans()


def test_tasks_side_by_side(recorded: Recorded) -> None:
    """Each has its own context: what a task calls hangs below it, whatever runs between."""

    @workflow(name="task")
    async def work(number: int) -> None:
        await asyncio.sleep(0.01)
        with tool(f"part {number}"):
            await asyncio.sleep(0.01)

    async def main() -> None:
        await asyncio.gather(*(work(number) for number in range(5)))

    asyncio.run(main())
    tasks = {span.context.span_id for span in recorded.spans() if span.name == "task"}
    parts = [span for span in recorded.spans() if span.name.startswith("part")]
    assert len({span.parent.span_id for span in parts if span.parent}) == 5
    assert {span.parent.span_id for span in parts if span.parent} == tasks


def test_a_generator(recorded: Recorded) -> None:
    """The span covers the iteration; it is current only while the generator itself runs."""
    numbers = count_up(3)
    assert inspect.isgenerator(numbers)
    assert next(numbers) == 0
    with tool("consumer"):
        pass
    assert numbers.send("sent") == 1  # type: ignore[arg-type]  # narrowed by `isgenerator`
    assert list(numbers) == [2]
    assert recorded.parent("consumer") is None
    assert recorded.one(f"{__name__}.count_up").status.is_unset


@pytest.mark.parametrize("ending", ["close", "forget"])
def test_a_generator_that_is_not_exhausted(recorded: Recorded, ending: str) -> None:
    """It ends when it is closed, or forgotten: neither an error nor a return."""
    numbers = count_up(3)
    next(numbers)
    if ending == "close":
        numbers.close()
    del numbers
    span = recorded.one(f"{__name__}.count_up")
    assert (span.attributes or {})["debugstore.outcome"] == "closed"
    assert span.status.is_unset


def test_a_generator_that_never_ran(recorded: Recorded) -> None:
    """Nothing was done, so there is nothing to record."""
    count_up(3)
    count_up(3).close()
    assert not recorded.spans()


def test_an_asynchronous_generator(recorded: Recorded) -> None:
    """The span covers the iteration, all of it."""

    async def main() -> list[int]:
        return [number async for number in count_up_later(3)]

    assert asyncio.run(main()) == [0, 1, 2]
    assert recorded.one(f"{__name__}.count_up_later").status.is_unset


def test_an_asynchronous_generator_that_is_closed(recorded: Recorded) -> None:
    """Leaving the loop and closing it ends the span."""

    async def main() -> None:
        numbers = count_up_later(3)
        async for _ in numbers:
            break
        await numbers.aclose()

    asyncio.run(main())
    assert (recorded.one(f"{__name__}.count_up_later").attributes or {})["debugstore.outcome"] == "closed"


class Retry(Exception):  # noqa: N818  # the name that task queues give it
    pass


@pytest.mark.parametrize(
    ("error", "outcome", "is_error"),
    [
        (ValueError("wrong"), None, True),
        (TimeoutError("late"), "timeout", True),
        (subprocess.TimeoutExpired("ls", 1), "timeout", True),
        (asyncio.CancelledError(), "cancelled", False),
        (KeyboardInterrupt(), "interrupted", True),
        (SystemExit(0), "exit", False),
        (SystemExit(3), "exit", True),
        (Retry(), "retry", False),
    ],
    ids=repr,
)
def test_exceptions(recorded: Recorded, error: BaseException, outcome: str | None, is_error: bool) -> None:
    """Each kind of end has its own status; the exception goes on as it is."""

    @tool(name="fails")
    def fails() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        fails()
    assert raised.value is error
    span = recorded.one("fails")
    attributes = span.attributes or {}
    assert attributes.get("debugstore.outcome") == outcome
    assert str(attributes["error.type"]).endswith(type(error).__name__)
    assert (span.status.status_code is trace.StatusCode.ERROR) is is_error
    assert bool(span.events) is is_error


def test_an_iterator_that_ends(recorded: Recorded) -> None:
    """`StopIteration` is how `__next__` returns."""

    class Numbers:
        @function
        def __next__(self) -> int:
            raise StopIteration

    with pytest.raises(StopIteration):
        Numbers().__next__()
    (span,) = recorded.spans()
    assert span.status.is_unset
    assert "error.type" not in (span.attributes or {})


def test_blocks(recorded: Recorded) -> None:
    """`with` gives the call: its span, its result, attributes, an outcome."""
    with workflow("outer") as outer, step("inner", inputs={"a": 1}) as inner:
        assert trace.get_current_span() is inner.span
        inner.set_result([1]).set_attribute("key", 5).set_outcome("timeout", "too late")
        assert outer.span is not inner.span
    assert recorded.parent("inner") == "outer"
    span = recorded.one("inner")
    assert (span.attributes or {})["key"] == 5
    assert (span.attributes or {})["debugstore.outcome"] == "timeout"
    assert span.status.description == "too late"


def test_one_block_used_by_many(recorded: Recorded) -> None:
    """One object may be entered again, within itself, and by tasks and threads at once."""
    shared = node("shared")
    with shared, shared:
        pass

    async def use(number: int) -> None:
        async with shared as block:
            await asyncio.sleep(0.01 * (3 - number))
            assert trace.get_current_span() is block.span

    async def main() -> None:
        await asyncio.gather(*(use(number) for number in range(3)))

    asyncio.run(main())

    def enter(_: int) -> None:
        with shared:
            pass

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(enter, range(4)))
    assert len(recorded.spans()) == 2 + 3 + 4
    assert trace.get_current_span() is trace.INVALID_SPAN


def test_the_cpu_time_of_a_block_with_other_tasks(recorded: Recorded) -> None:
    """Of a block in an event loop it is not known: others run in the thread meanwhile."""

    async def main() -> None:
        with tool("waits"):
            await asyncio.sleep(0)

    asyncio.run(main())
    with tool("does not"):
        pass
    assert "debugstore.cpu.time_ns" not in (recorded.one("waits").attributes or {})
    assert "debugstore.cpu.time_ns" in (recorded.one("does not").attributes or {})


def test_cpu_time_of_one_thread(recorded: Recorded) -> None:
    """It is that of the call, not of other threads."""

    @tool(name="busy")
    def busy() -> None:
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass

    @tool(name="idle")
    def idle(until: threading.Thread) -> None:
        until.join()

    thread = threading.Thread(target=busy)
    thread.start()
    idle(thread)
    assert 190e6 <= (recorded.one("busy").attributes or {})["debugstore.cpu.time_ns"] <= 230e6  # type: ignore[operator]
    assert (recorded.one("idle").attributes or {})["debugstore.cpu.time_ns"] < 10e6  # type: ignore[operator]


def test_cpu_time_of_short_calls(recorded: Recorded) -> None:
    """It is never more than the time that went by, in one thread, of functions and of coroutines."""

    @function
    async def later(value: int) -> int:
        await asyncio.sleep(0)
        return value

    async def main() -> None:
        for number in range(50):
            await later(number)

    for number in range(50):
        double(number)
    asyncio.run(main())
    assert len(recorded.spans()) == 100
    for span in recorded.spans():
        cpu_ns = (span.attributes or {})["debugstore.cpu.time_ns"]
        assert isinstance(cpu_ns, int)
        assert cpu_ns <= (span.end_time or 0) - (span.start_time or 0)


def test_a_span_that_the_program_ends(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> None:
    """Ending the current span is the program's right; it is not ended twice."""
    with tool("ended"):
        trace.get_current_span().end()
    assert [span.name for span in recorded.spans()] == ["ended"]
    assert not caplog.records


def test_without_a_provider() -> None:
    """Decorated functions work as ever where nothing is recorded."""
    assert double(2) == 4
    with tool("block") as block:
        block.set_result(1).set_attribute("a", 1)
        assert block.span is None


def test_what_a_sampler_leaves_out() -> None:
    """Its decision holds for what is called below, too."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    with workflow("outer"):
        assert double(2) == 4
        assert trace.get_current_span().get_span_context().is_valid
    assert not exporter.get_finished_spans()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: instrument(layer="tol"),  # type: ignore[arg-type]
        lambda: tool(5),  # type: ignore[call-overload]
        lambda: tool(name="a")(None),  # type: ignore[type-var]
        lambda: tool(Adder),
        lambda: instrument("tool", name=""),
    ],
)
def test_wrong_use(wrong: Callable[[], Any]) -> None:
    """An error at once, which names the value and what would be right."""
    with pytest.raises(ConfigurationError):
        wrong()


def test_recursion(recorded: Recorded) -> None:
    """A call of itself hangs below the call."""

    @function(name="factorial")
    def factorial(number: int) -> int:
        return number * factorial(number - 1) if number else 1

    assert factorial(20) == 2432902008176640000
    assert len(recorded.spans()) == 21


def test_the_recursion_limit(recorded: Recorded) -> None:
    """A program that recurses without end gets its own error, and nothing stays current."""

    @function(name="endless")
    def endless() -> None:
        endless()

    with pytest.raises(RecursionError):
        endless()
    assert trace.get_current_span() is trace.INVALID_SPAN
    assert sys.getrecursionlimit() >= len(recorded.spans())


def test_calls_within_each_other_do_not_overlap(recorded: Recorded) -> None:
    """The memory of a call is not flagged for its caller's sake, also across calls that are not measured."""

    @tool(name="inner")
    def inner() -> None:
        pass

    @function(name="between")
    def between() -> None:
        inner()

    for _ in range(3):  # the first calls of a function are measured, too
        between()
    with workflow("outer"):
        between()
    attributes = [dict(span.attributes or {}) for span in recorded.spans() if span.name == "inner"]
    assert all("debugstore.memory.net_bytes" in some for some in attributes)
    assert not any("debugstore.memory.overlapped" in some for some in attributes)


def test_calls_beside_each_other_overlap(recorded: Recorded) -> None:
    """The memory of calls in two threads may be either's, and says so."""
    ready, done = threading.Event(), threading.Event()

    @tool(name="beside")
    def beside() -> None:
        ready.set()
        done.wait(10)

    thread = threading.Thread(target=beside)
    thread.start()
    ready.wait(10)
    with tool("here"):
        pass
    done.set()
    thread.join()
    for name in ("beside", "here"):
        assert (recorded.one(name).attributes or {})["debugstore.memory.overlapped"] is True
