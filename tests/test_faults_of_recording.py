"""Whatever fails inside of recording, the program's results stay the same."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib
import inspect
import signal
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from types import FunctionType, ModuleType
from typing import Any

import pytest
from opentelemetry import trace

import otel_debugstore
from otel_debugstore import function, tool, workflow

_MODULES = (
    "otel_debugstore.calls.call",
    "otel_debugstore.calls.component",
    "otel_debugstore.calls.meter",
    "otel_debugstore.calls.outcome",
    "otel_debugstore.code_identity",
    "otel_debugstore.masking",
    "otel_debugstore.measures.io",
    "otel_debugstore.measures.memory",
    "otel_debugstore.outbox",
    "otel_debugstore.payload.capture",
    "otel_debugstore.span_queue",
    "otel_debugstore.span_size",
    "otel_debugstore_exporters.batch",
    "otel_debugstore_exporters.codec",
    "otel_debugstore_exporters.readable",
)
_OUTSIDE = {
    # Run when something is decorated or configured, not when it is called; or are the guards themselves.
    "Component.__init__",
    "Component._static_attributes",
    "LmdbSpanExporter.__init__",
    "LmdbSpanExporter.activate",
    "Call._detach",
    "Call.resume",
    "Call.set_attribute",
    "Call.set_outcome",
    "Call.without_cpu",
    "Call.suspend",
    "Call.end",
    "Call.fail",
    "begin",
    "write_late",
    "_trouble",
    "Call._let_go",
}


def _functions() -> Iterator[tuple[Any, str]]:
    """Yield the functions of ours that run when calls are recorded, each with the module or class that holds it."""
    for name in _MODULES:
        module = importlib.import_module(name)
        for holder in (module, *(v for v in vars(module).values() if isinstance(v, type) and v.__module__ == name)):
            for key, value in vars(holder).items():
                is_ours = isinstance(value, FunctionType) and value.__module__ == name
                if is_ours and not _is_outside(holder, key):
                    yield holder, key


def _is_outside(holder: Any, key: str) -> bool:
    qualified = key if isinstance(holder, ModuleType) else f"{holder.__name__}.{key}"
    return qualified in _OUTSIDE or (key.startswith("__") and key != "__init__")


class InjectedError(RuntimeError):
    """What is raised in place of what a function of ours does."""


@tool
def parse(text: str, *, base: int = 10) -> int:
    return int(text, base)


@function
def fails(text: str) -> None:
    raise LookupError(text)


@tool
async def later(value: int) -> int:
    await asyncio.sleep(0)
    return value


@tool
def numbers(count: int) -> Generator[int]:
    yield from range(count)


@tool
async def numbers_later(count: int) -> AsyncGenerator[int]:
    for number in range(count):
        yield number


def results() -> list[object]:
    """What a program that is recorded does, and gets."""
    found: list[object] = [parse("12"), parse("ff", base=16), list(numbers(3)), asyncio.run(later(5))]

    async def main() -> list[int]:
        return [number async for number in numbers_later(3)]

    found.append(asyncio.run(main()))
    for wrong in (lambda: parse("x"), lambda: fails("here")):
        try:
            wrong()
        except (ValueError, LookupError) as error:
            found.append(repr(error))
    with workflow("block") as block:
        block.set_result(found).set_attribute("a", 1)
        found.append(trace.get_current_span() is not None)
    found.append(trace.get_current_span() is trace.INVALID_SPAN)
    return found


FUNCTIONS = list(_functions())


@pytest.mark.parametrize(("holder", "name"), FUNCTIONS, ids=[f"{h.__name__}.{n}" for h, n in FUNCTIONS])
def test_every_internal_call_fails_in_turn(
    holder: Any, name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are those of a run in which nothing fails."""
    monkeypatch.chdir(tmp_path_factory.mktemp("run"))
    otel_debugstore.configure(session_id="s")
    expected = results()

    def fail(*args: object, **kwargs: object) -> object:
        raise InjectedError(name)

    with monkeypatch.context() as patch:
        patch.setattr(holder, name, fail)
        for _ in range(2):
            assert results() == expected
    assert results() == expected


def test_there_is_something_to_fail() -> None:
    """The list above is not empty by a mistake."""
    assert len(FUNCTIONS) > 100
    assert all(inspect.isfunction(vars(holder)[name]) for holder, name in FUNCTIONS)


def test_a_time_limit_of_the_program(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that strikes in the middle of recording is not swallowed."""

    class TimeIsUpError(Exception):
        pass

    def handle(*_: object) -> None:
        raise TimeIsUpError

    monkeypatch.chdir(tmp_path)
    otel_debugstore.configure(session_id="s")
    previous = signal.signal(signal.SIGALRM, handle)
    gc.disable()  # what strikes in a finalizer Python itself swallows
    try:
        # In a context of its own: between two instructions of ours it may strike where nothing can be put back.
        assert contextvars.copy_context().run(_strike, TimeIsUpError) >= 198
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _strike(kind: type[Exception]) -> int:
    """Return in how many of 200 runs what the handler raised came through."""
    call: Callable[[str], int] = parse
    call("1")  # what Python swallows while it imports is not ours
    struck = 0
    for number in range(200):
        end = time.monotonic() + 1
        signal.setitimer(signal.ITIMER_REAL, 0.0002 + number * 1e-6)
        try:
            while time.monotonic() < end:
                call("1")
        except kind:
            struck += 1
    return struck
