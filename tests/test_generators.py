"""Recorded generators: for the program they are those they stand for, sampled or not; and what their steps cost."""

from __future__ import annotations

import contextlib
import gc
import inspect
import itertools
import random
import sys
import weakref
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import GeneratorType
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_debugstore import configure, function, instrument, tool
from otel_debugstore.calls.call import Call
from otel_debugstore_exporters.reader import SessionReader
from stored import stored_spans

Made = Generator[Any, Any, Any]
STEPS = 20_000


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    configure(session_id="s", base_path=tmp_path)
    return tmp_path


def shut_down() -> None:
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.shutdown()


def counted(base_path: Path, component: str) -> tuple[int, int, int]:
    """Return calls and errors that are not spans, and the calls that are."""
    with SessionReader(base_path, ["s"]) as reader:
        (row,) = reader.query(
            "SELECT sum(call_count), sum(error_count), sum(recorded_count) FROM counters WHERE component = ?",
            [component],
        ).rows
    calls, errors, recorded = map(int, row)
    return calls, errors, recorded


def counting(said: list[object], limit: int) -> Made:
    for number in range(limit):
        said.append((yield number))
    return limit


def catching(said: list[object], limit: int) -> Made:
    for number in range(limit):
        try:
            yield number
        except Exception as error:  # noqa: BLE001
            said.append((repr(error), repr(error.__context__)))
    said.append(sys.exc_info()[0])
    raise LookupError("the end")


def stubborn(said: list[object], limit: int) -> Made:
    for number in itertools.count():
        try:
            yield number
        except BaseException as error:  # noqa: BLE001
            said.append((repr(error), number))
            if number >= limit:
                return "swallowed"


def cleaning(said: list[object], limit: int) -> Made:
    try:
        yield from counting(said, limit)
    finally:
        said.append("clean")


def stopping(said: list[object], limit: int) -> Made:
    yield said
    raise StopIteration(limit)


def returning(body: Callable[[list[object], int], Made]) -> Callable[[list[object], int], Made]:
    return lambda said, limit: body(said, limit)


def played(make: Callable[[list[object], int], Made], seed: int, is_begun: bool) -> list[object]:
    """Return what a program sees that does something with a generator, and what the generator sees."""
    choose = random.Random(seed).choice
    said: list[object] = []
    made: Any = make(said, choose([1, 2, 3]))
    steps: dict[str, Callable[[], object]] = {
        "next": lambda: next(made),
        "send": lambda: made.send("sent"),
        "close": lambda: made.close(),
        "error": lambda: made.throw(KeyError("thrown")),
        "exit": lambda: made.throw(GeneratorExit("thrown")),
        "stop": lambda: made.throw(StopIteration("thrown")),
        "interrupt": lambda: made.throw(KeyboardInterrupt()),
    }
    seen: list[object] = [made.__name__, made.__qualname__, type(made), inspect.getgeneratorstate(made)]
    if is_begun:
        seen.append(next(made, "ended"))
    for _ in range(choose([0, 1, 3, 6])):
        try:
            seen.append(steps[choose([*steps, "next", "next", "send"])]())
        except BaseException as error:  # noqa: BLE001
            seen.append((repr(error), repr(error.__context__), repr(error.__cause__)))
    seen.append(inspect.getgeneratorstate(made))
    while made.gi_frame is not None:  # one may ignore that it is closed, a few times
        with contextlib.suppress(RuntimeError):
            made.close()
    return [*seen, *said]


BODIES = (counting, catching, stubborn, cleaning, stopping)


@pytest.mark.parametrize("is_plain", [False, True], ids=["generator function", "plain function"])
def test_it_is_the_generator(is_plain: bool, base_path: Path) -> None:
    """Whatever is sent, thrown, returned and raised is what it is without recording; every call is counted, once."""
    record = function(name=f"one of many {is_plain}")
    recorded = [record(returning(body) if is_plain else body) for body in BODIES]
    for seed in range(2_000):
        number = seed % len(BODIES)
        # A generator function has no call before its generator's first step.
        expected = played(BODIES[number], seed, is_begun=not is_plain)
        assert played(recorded[number], seed, is_begun=not is_plain) == expected, seed
    shut_down()
    assert 1_000 <= len(stored_spans(base_path)) < 2_000
    calls, _, recorded_count = counted(base_path, f"one of many {is_plain}")
    assert calls + recorded_count == 2_000


@pytest.mark.parametrize("is_plain", [False, True], ids=["generator function", "plain function"])
def test_how_it_ends_is_counted(is_plain: bool, base_path: Path) -> None:
    """Sampled or not: errors are errors, what is closed or forgotten is none, and a call is one if nobody iterates."""

    def body(number: int) -> Generator[int]:
        yield number
        if number % 2:
            raise LookupError(number)

    recorded = function(name=f"ends {is_plain}")((lambda number: body(number)) if is_plain else body)
    for number in range(600):
        with contextlib.suppress(LookupError):
            assert list(recorded(number)) == [number]
        closed = recorded(number)
        next(closed)
        closed.close()
        next(recorded(number))
        recorded(number)
    shut_down()
    spans = stored_spans(base_path)
    calls, errors, recorded_count = counted(base_path, f"ends {is_plain}")
    assert recorded_count == len(spans) < 1_500
    assert calls + recorded_count == (2_400 if is_plain else 1_800)
    assert errors + sum(span.status_code == 2 for span in spans) == 300


def test_one_that_is_sampled_from_its_first_call(base_path: Path) -> None:
    """Of a function that is decorated again and again under the same name all errors are counted as well."""

    def body() -> Iterator[int]:
        yield 1
        raise LookupError

    for _ in range(2_000):
        with contextlib.suppress(LookupError):
            list(function(name="again")(lambda: body())())
    shut_down()
    calls, errors, recorded_count = counted(base_path, "again")
    assert calls == errors > 0
    assert calls + recorded_count == 2_000


def test_one_that_goes_on_after_it_was_told_to_exit(base_path: Path) -> None:
    """It is closed if it ends then; if it goes on to its end, it has a result like any other."""

    @tool(name="exits")
    def exits(goes_on: bool) -> Made:
        with contextlib.suppress(GeneratorExit):
            yield 1
        if goes_on:
            yield 2
        return "result"

    for goes_on in (False, True):
        made = exits(goes_on)
        next(made)
        if goes_on:
            assert made.throw(GeneratorExit()) == 2
        with pytest.raises(StopIteration, match="result"):
            made.throw(GeneratorExit()) if not goes_on else next(made)
    shut_down()
    closed, ended = (span.attributes for span in stored_spans(base_path))
    assert closed["debugstore.outcome"] == "closed"
    assert "debugstore.output.digest" not in closed
    assert "debugstore.outcome" not in ended
    assert "debugstore.output.digest" in ended


@pytest.mark.parametrize("failing", ["resume", "suspend"])
def test_recording_that_can_not_go_on(failing: str, base_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What recording can't catch, as at the limit of recursion, ends the generator as it would without: at once."""
    tries: list[str] = []
    unharmed = getattr(Call, failing)

    def at_the_limit(call: Call, *args: object) -> object:
        tries.append(failing)
        if len(tries) < 5:
            raise RecursionError
        return unharmed(call, *args)

    made = tool(name="deep")(catching)([], 9)
    with monkeypatch.context() as patches:
        patches.setattr(Call, failing, at_the_limit)
        with pytest.raises(RecursionError):
            next(made)
    assert tries == [failing]
    assert list(made) == []
    shut_down()
    (span,) = stored_spans(base_path)
    assert span.attributes["error.type"] == "RecursionError"


def test_nothing_that_passes_through_is_held(base_path: Path) -> None:
    """Items are the program's alone, and what is sent the generator's; one that caught an exception goes with its
    last user."""

    class Item:
        pass

    @function
    def items() -> Generator[Item, Item | None, None]:
        while True:
            try:
                yield Item()
            except LookupError:
                continue

    gc.disable()
    try:
        made = items()
        item = weakref.ref(next(made))
        assert item() is None
        sent = Item()
        item = weakref.ref(sent)
        made.send(sent)
        del sent
        assert item() is None
        made.throw(LookupError())
        forgotten = weakref.ref(made)
        del made
        assert forgotten() is None
    finally:
        gc.enable()


def test_the_cost_of_steps_is_known(base_path: Path) -> None:
    """The ledger has what each of very many steps cost, and not only what the call did."""

    @tool(name="many")
    def many() -> Iterator[int]:
        yield from range(STEPS)

    assert sum(many()) == sum(range(STEPS))
    for number in range(5):
        assert list(instrument("tool", f"few {number}")(lambda: iter_of(1))()) == [0]
    shut_down()
    with SessionReader(base_path, ["s"]) as reader:
        rows = dict(reader.query("SELECT component, sum(recording_ns) FROM counters GROUP BY component").rows)
    assert rows["many"] > 10 * min(rows[f"few {number}"] for number in range(5))


def iter_of(count: int) -> Iterator[int]:
    yield from range(count)


def test_very_many_steps_have_no_cpu_time(base_path: Path) -> None:
    """Where they take more than the budget it is unknown, not wrong; what they call hangs below them to the end."""

    def body() -> Iterator[int]:
        yield from range(STEPS)
        with tool("last"):
            yield STEPS

    for layer in (function, tool):
        assert sum(layer(name="body")(body)()) == sum(range(STEPS + 1))
    shut_down()
    recorded = stored_spans(base_path)
    spans = {(span.name, span.attributes["debugstore.layer"]): span for span in recorded}
    bounded, unbounded = spans["body", "function"], spans["body", "tool"]
    assert "debugstore.cpu.time_ns" not in bounded.attributes
    assert unbounded.attributes["debugstore.cpu.time_ns"] > 0
    parents = {span.parent_id for span in recorded if span.name == "last"}
    assert parents == {bounded.span_id, unbounded.span_id}


def test_it_is_a_generator() -> None:
    """Not something that looks like one: not for `type`, nor for what is written in C."""
    made: Any = function(iter_of)(2)
    assert type(made) is GeneratorType
    assert (made.gi_running, inspect.getgeneratorstate(made)) == (False, "GEN_CREATED")
