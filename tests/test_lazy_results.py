"""Plain callables that return a coroutine or generator: their calls last until that ends."""

from __future__ import annotations

import asyncio
import types
from collections.abc import AsyncIterator, Generator, Iterator
from typing import Any

from otel_debugstore import function, step, tool
from recording import Memory


@function(name="inner")
def inner(number: int) -> int:
    return number


def numbers(count: int) -> Generator[int]:
    for number in range(count):
        yield inner(number)


class Numbers:
    def __call__(self, count: int) -> Iterator[int]:
        yield from numbers(count)


class NumbersLater:
    async def __call__(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield inner(number)


def test_generators() -> None:
    """What runs in the steps of one that an object, a lambda or a wrapper returns is below its call."""
    memory = Memory()
    calls: dict[str, Any] = {
        "object": step(name="object")(Numbers()),
        "lambda": step(name="lambda")(lambda count: numbers(count)),
    }
    for call in calls.values():
        made = call(2)
        inner(0)  # between the steps it is not the current one
        assert list(made) == [0, 1]
    later = step(name="later")(NumbersLater())

    async def main() -> list[int]:
        return [number async for number in later(2)]

    assert asyncio.run(main()) == [0, 1]
    assert memory.paths() == sorted(
        [*calls, "later", *[f"{name} > inner" for name in (*calls, "later") for _ in range(2)], "inner", "inner"]
    )


def test_generators_that_are_awaited() -> None:
    """Those of `types.coroutine` are, also recorded: decorated themselves, and returned by a plain function."""
    memory = Memory()

    @types.coroutine
    def slept(number: int) -> Generator[Any, Any, int]:
        yield from asyncio.sleep(0).__await__()
        return inner(number)

    async def main() -> list[int]:
        calls: list[Any] = [tool(name="itself")(slept), tool(name="returned")(lambda number: slept(number))]
        return [await call(5) for call in calls]

    assert asyncio.run(main()) == [5, 5]
    assert memory.paths() == ["itself", "itself > inner", "returned", "returned > inner"]


def test_how_they_end() -> None:
    """By an error, or closed before their end."""
    memory = Memory()

    def failing() -> Iterator[int]:
        yield 1
        raise LookupError

    made = tool(name="failing")(lambda: failing())()
    assert next(made) == 1
    try:
        next(made)
    except LookupError:
        inner(0)
    closed = tool(name="closed")(lambda: numbers(3))()
    next(closed)
    closed.close()
    assert memory.outcomes() == {"failing": "error", "closed": "closed", "inner": "ok"}


def test_what_others_began() -> None:
    """One that was begun before is returned as it is, and the call ends with its return."""
    memory = Memory()
    begun = numbers(3)
    next(begun)
    assert tool(name="skip")(lambda made: made)(begun) is begun
    assert memory.paths() == ["inner", "skip"]
