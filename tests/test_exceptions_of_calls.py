"""What is told of the exceptions that leave calls, whatever these are like; the program gets its own."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from otel_debugstore import tool
from recording import ERROR, Memory


class SilentError(Exception):
    """Has no text."""

    def __init__(self, trouble: BaseException) -> None:
        super().__init__()
        self.trouble = trouble

    def __str__(self) -> str:
        raise self.trouble


@pytest.mark.parametrize("trouble", [ValueError("no"), SystemExit(3), GeneratorExit()])
def test_an_exception_without_a_text(trouble: BaseException, logged: list[str]) -> None:
    """It is an error like others, and reaches the program though asking for its text raises something else."""
    memory, error = Memory(), SilentError(trouble)

    @tool
    def fail() -> None:
        raise error

    with pytest.raises(SilentError) as raised:
        fail()
    assert raised.value is error
    (said,) = memory.said()
    assert (said.outcome, said.message) == (ERROR, "SilentError: (its text can't be had)")
    assert said.attributes["error.type"].endswith(".SilentError")
    (event,) = memory.spans()[0].events
    attributes = dict(event.attributes or {})
    assert attributes["exception.message"] == "(its text can't be had)"
    assert "in fail" in str(attributes["exception.stacktrace"])
    assert not logged


def test_an_exception_with_a_huge_text() -> None:
    """Its head is kept, where a secret across the cut is masked."""
    memory = Memory()

    @tool
    def fail() -> None:
        raise ValueError("." * 990 + " ghp_" + "aB3d" * 9 + "." * 10_000_000)

    with pytest.raises(ValueError, match="ghp_"):
        fail()
    assert len(memory.said()[0].message) < 1100
    assert "ghp_" not in memory.said()[0].message
    (event,) = memory.spans()[0].events
    assert all(len(str(value)) < 40_000 for value in dict(event.attributes or {}).values())


class HostileError(Exception):
    """Raises whatever is asked of it."""

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(name)


def test_an_exception_whose_attributes_raise(logged: list[str]) -> None:
    """It is an error like others, known by its class; only its stack trace is missing."""
    memory, error = Memory(), HostileError("x")

    @tool
    def fail() -> None:
        raise error

    with contextlib.suppress(HostileError):
        fail()
    (said,) = memory.said()
    assert (said.outcome, said.message) == (ERROR, "HostileError: x")
    (event,) = memory.spans()[0].events
    assert dict(event.attributes or {})["exception.stacktrace"] == "(its stack trace can't be had)"
    assert not logged


@pytest.mark.parametrize("outcome", ["ok", "", None, ["error"]])
def test_an_outcome_that_is_none(outcome: Any, logged: list[str]) -> None:
    """It changes nothing, and one line names those that there are."""
    memory = Memory()
    with tool("block") as block:
        block.set_outcome(outcome, "why")
    (said,) = memory.said()
    assert (said.outcome, said.message) == ("ok", "")
    (line,) = logged
    assert repr(outcome) in line
    assert "success, error, timeout" in line
