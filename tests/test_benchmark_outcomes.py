"""When two outputs are the same: what the verdict "wrong" rests on."""

from __future__ import annotations

import collections
import dataclasses
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_debugstore_analysis.benchmark import Check
from otel_debugstore_analysis.benchmark._outcome import NotComparableError, copy_of, values_differ

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=3), inner, max_size=4)
        | st.tuples(inner, inner)
        | st.frozensets(st.integers(), max_size=4)
    ),
    max_leaves=15,
)


@given(VALUES)
@settings(max_examples=200, deadline=None)
def test_a_copy_is_the_same(value: Any) -> None:
    """Whatever it holds: NaN, and values in values."""
    assert values_differ(value, copy_of(value)) is None


@given(VALUES, VALUES)
@settings(max_examples=200, deadline=None)
def test_what_python_calls_different_differs(one: Any, other: Any) -> None:
    """Unless it is NaN that makes it so; both ways round it is the same answer. Equal numbers of two types differ."""
    differs = values_differ(one, other)
    if one == other:
        assert differs is None or repr(one) != repr(other)
    elif "nan" not in repr((one, other)):
        assert differs is not None
    assert (values_differ(other, one) is None) == (differs is None)


@dataclasses.dataclass
class Point:
    """One that compares its parts."""

    x: float
    y: Any = None


class Plain:
    """One without an equality."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Slotted:
    """One without a dictionary."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


class Vague:
    """One that answers neither yes nor no."""

    def __eq__(self, other: object) -> Any:
        return "perhaps"

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (math.nan, math.nan),
        ([math.nan, {"a": math.nan}], [math.nan, {"a": math.nan}]),
        (Point(1.0, [math.nan]), Point(1.0, [math.nan])),
        (Plain([1, Plain(2)]), Plain([1, Plain(2)])),
        (Slotted(1), Slotted(1)),
        ({1, 2}, frozenset({2, 1})),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (collections.OrderedDict(a=1), {"a": 1}),
        (np.array([1.0, math.nan]), np.array([1.0, math.nan])),
        ([np.array([1, 2])], [np.array([1, 2])]),
        (np.float64(1.5), np.float64(1.5)),
        (pd.DataFrame({"a": [1.0, math.nan]}), pd.DataFrame({"a": [1.0, math.nan]})),
        (ValueError("a", 1), ValueError("a", 1)),
        (len, len),
    ],
)
def test_equal_outputs(one: Any, other: Any) -> None:
    """By their parts, whatever holds them."""
    assert values_differ(one, other) is None


@pytest.mark.parametrize(
    ("one", "other", "what"),
    [
        ([1, 2, 3], [1, 2, 4], "at [2] 4 where 3 is right"),
        ([1, 2], [1, 2, 3], "3 items where 2 are right"),
        ({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]}, "at ['a'][1]['b'] 3 where 2 is right"),
        ([1], (1,), "(1,) where [1] is right"),
        ("1", 1, "1 where '1' is right"),
        (b"a", "a", "'a' where b'a' is right"),
        (0.1 + 0.2, 0.3, "0.3 where 0.30000000000000004 is right"),
        (Plain(1), Plain(2), "at ['value'] 2 where 1 is right"),
        (Point(1.0), Point(2.0), "at ['x'] 2.0 where 1.0 is right"),
        (np.array([1, 2]), np.array([1.0, 2.0]), "an array of float64 (2,) where one of int64 (2,) is right"),
        (np.array([1, 2]), np.array([1, 3]), "an array of other numbers"),
        (pd.DataFrame({"a": [1]}), pd.DataFrame({"a": [2]}), "is right"),
        ([], None, "None where [] is right"),
        (1, 1.0, "1.0 where 1 is right"),
        (1.0, 1, "1 where 1.0 is right"),
        ([1, 0], [True, 0], "at [0] True where 1 is right"),
        (1.5, np.float64(1.5), "np.float64(1.5) where 1.5 is right"),
        ({9: "a"}, {9.0: "a"}, "9.0 where 9 is right"),
        ({(1, 2)}, {(1, 2.0)}, "2.0 where 2 is right"),
        ({"a": [{"b": (1, 2)}]}, {"a": [{"b": (1, 2.0)}]}, "at ['a'][0]['b'][1] 2.0 where 2 is right"),
    ],
)
def test_different_outputs(one: Any, other: Any, what: str) -> None:
    """It is said where they differ."""
    assert what in (values_differ(one, other) or "")


def test_tolerance() -> None:
    """Numbers may differ by it wherever they are; nothing else may."""
    check = Check("tolerance", relative=0.01, absolute=0.001)
    assert values_differ([1.0, {"a": 100.0}], [1.005, {"a": 100.9}], check) is None
    assert values_differ([0.0], [0.0005], check) is None
    assert values_differ([1, 2.0, True, np.float64(1.5)], [1.0, 2, 1, 1.5], check) is None
    assert values_differ(np.array([1.0, 2.0]), np.array([1.001, 2.0]), check) is None
    assert values_differ(1 + 1j, 1.001 + 1j, check) is None
    assert values_differ(1.0, 1.02, check) is not None
    assert values_differ(np.array([1.0]), np.array([1.1]), check) is not None
    assert values_differ("a", "b", check) is not None


def test_what_cannot_be_compared() -> None:
    """It is refused, with what to do; a value that holds itself, or is very deep, ends all the same."""
    for make in (lambda: (n for n in "ab"), lambda: iter([1]), lambda: map(str, [1]), lambda: [iter([1])]):
        with pytest.raises(NotComparableError, match="whose items are made when it is read"):
            values_differ(make(), make())
    with pytest.raises(NotComparableError, match="give a check"):
        values_differ(object(), object())
    with pytest.raises(NotComparableError, match="neither True nor False"):
        values_differ(Vague(), Vague())
    one: list[Any] = [1]
    one.append(one)
    assert values_differ(one, copy_of(one)) is None
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(NotComparableError, match="nested too deep"):
        values_differ(deep, [deep])


def test_processes_that_measure_import_next_to_nothing() -> None:
    """Nothing is in memory beside the functions that takes time or room of its own."""
    code = "import otel_debugstore_analysis.benchmark._worker, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "otel_debugstore_analysis" in loaded
    assert not loaded & {"numpy", "scipy", "duckdb", "ibis", "click", "rich", "psutil", "opentelemetry", "asyncio"}
