"""Tests of what is optimized."""

from functions.unique import unique  # type: ignore[import-not-found]
from src.local_model import generate

SOURCE = "def f(n):\n    return n if n < 2 else f(n - 1) + f(n - 2)\n"


def test_unique() -> None:
    """The first of equal values stays, whatever the values come from."""
    assert unique([3, 1, 3, 2, 1]) == [3, 1, 2]
    assert unique([]) == []
    assert unique(value % 3 for value in range(9)) == [0, 1, 2]


def test_generate() -> None:
    """A critic criticises, a coder writes code, and an unknown model says nothing."""
    assert "calls itself" in generate("critic", f"Look:\n{SOURCE}")
    assert "functools.cache" in generate("coder", f"Improve:\n{SOURCE}")
    assert generate("poet", f"Write:\n{SOURCE}") == ""
