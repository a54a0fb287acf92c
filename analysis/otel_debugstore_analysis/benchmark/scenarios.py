"""Scenarios: named inputs for benchmarks, and the standard ones, the same on every machine and version of Python.

The standard data is drawn by `random.Random(seed).random()`, whose sequence Python keeps; what else `random` offers
has changed between versions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.benchmark.model import Case, Outcome

SEED: Final = 20_240_229
_WORDS: Final = (  # noqa: SIM905
    "the of and a to in is it you that he was for on are with as I his they be at one have this from or had by hot "
    "word but what some we can out other were all there when up use your how said an each she"
).split()
_MISSING: Final = object()


@dataclass(frozen=True)
class BenchmarkScenario:
    """An input with a name.

    Attributes:
        name: It.
        args, kwargs: What implementations are called with.
        description: What it is about.
        category: Of the standard scenarios; empty for others.
        iterations: How many pairs each process measures; None: as many as the options say.
        may_raise: Whether an exception is an outcome like any other.
        expected: What implementations have to return; left out, what the first of them returns.
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    description: str = ""
    category: str = ""
    iterations: int | None = None
    may_raise: bool = False
    expected: Any = _MISSING

    def case(self) -> Case:
        """Return it as an input of `compare_functions`."""
        expected = None if self.expected is _MISSING else Outcome(self.expected)
        return Case(self.name, self.args, self.kwargs, may_raise=self.may_raise, expected=expected)


def create_standard_scenarios(
    category: str = "mixed", iterations: int | None = None, seed: int = SEED
) -> list[BenchmarkScenario]:
    """Return the standard scenarios of a category; implementations take one argument.

    Args:
        category: One of `CATEGORIES`.
        iterations: How many pairs each process measures.
        seed: Of the data.

    Raises:
        ConfigurationError: There is no such category.
    """
    make = CATEGORIES.get(category)
    if make is None:
        raise ConfigurationError(f"There are no scenarios of {category!r}; there are: {', '.join(CATEGORIES)}.")
    return [
        BenchmarkScenario(name, (value,), {}, description, category, iterations, may_raise=category == "edge_cases")
        for name, value, description in make(random.Random(seed))
    ]


_Made = list[tuple[str, Any, str]]


def _below(chance: random.Random, limit: int) -> int:
    """Return an integer from 0 on below a limit, by what `random` promises to keep."""
    return int(chance.random() * limit)


def _words(chance: random.Random, count: int) -> str:
    return " ".join(_WORDS[_below(chance, len(_WORDS))] for _ in range(count))


def _text_processing(chance: random.Random) -> _Made:
    lines = "\n".join(f"{number:05d} {_words(chance, 8)}." for number in range(500))
    unicode_text = "".join("aä€😀ßñ字 "[_below(chance, 8)] for _ in range(5_000))
    return [
        ("short_text", _words(chance, 12), "12 words"),
        ("paragraph", _words(chance, 200), "200 words"),
        ("long_text", _words(chance, 20_000), "20,000 words"),
        ("many_lines", lines, "500 numbered lines"),
        ("unicode_text", unicode_text, "5,000 characters of one to four bytes"),
    ]


def _numeric_computation(chance: random.Random) -> _Made:
    return [
        ("small_integers", [_below(chance, 100) for _ in range(100)], "100 integers below 100"),
        ("integers", [_below(chance, 2_000_001) - 1_000_000 for _ in range(10_000)], "10,000 integers of six digits"),
        ("large_integers", [_below(chance, 1 << 53) << 100 for _ in range(1_000)], "1,000 integers of 150 bits"),
        ("floats", [chance.random() * 2 - 1 for _ in range(10_000)], "10,000 floats between -1 and 1"),
        (
            "magnitudes",
            [math.ldexp(chance.random() + 0.5, _below(chance, 80) - 40) for _ in range(1_000)],
            "1,000 floats from 1e-12 to 1e12",
        ),
    ]


def _list_operations(chance: random.Random) -> _Made:
    numbers = [_below(chance, 1_000_000) for _ in range(5_000)]
    return [
        ("random_list", numbers, "5,000 integers in random order"),
        ("sorted_list", sorted(numbers), "the same in order"),
        ("reversed_list", sorted(numbers, reverse=True), "the same in falling order"),
        ("duplicates", [_below(chance, 20) for _ in range(5_000)], "5,000 integers of 20 values"),
        ("words", _words(chance, 2_000).split(), "2,000 words"),
        ("nested_lists", [[_below(chance, 100) for _ in range(10)] for _ in range(300)], "300 lists of 10 integers"),
    ]


def _edge_cases(chance: random.Random) -> _Made:
    return [
        ("empty_list", [], "no items"),
        ("empty_text", "", "no characters"),
        ("none", None, "None"),
        ("zero", 0, "zero"),
        ("negative", -1, "a negative integer"),
        ("huge_integer", 1 << 4_000, "an integer of 4,001 bits"),
        ("one_item", [_below(chance, 100)], "a single item"),
        (
            "not_a_number",
            [1.0, math.nan, math.inf, -math.inf, -0.0],
            "floats that are none, infinite, or a negative zero",
        ),
        ("mixed_types", [1, "1", 1.0, None, True, [], {}], "a list of seven types"),
        ("long_item", "x" * 100_000, "100,000 times the same character"),
        ("deep_nesting", _nested(50), "lists in lists, 50 deep"),
        ("control_characters", "\0\t\r\n\x1b[31m\u202e\ufeff", "control characters, an escape sequence, an override"),
    ]


def _nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def _data_transformation(chance: random.Random) -> _Made:
    records = [
        {
            "id": number,
            "name": _words(chance, 2),
            "group": "abcdefgh"[_below(chance, 8)],
            "value": round(chance.random() * 1_000, 2),
            "is_active": chance.random() < 0.7,
            "tags": _words(chance, _below(chance, 4)).split(),
        }
        for number in range(1_000)
    ]
    rows = [",".join([str(each["id"]), str(each["name"]), str(each["group"]), str(each["value"])]) for each in records]
    tree = {group: {"records": [each for each in records[:200] if each["group"] == group]} for group in "abcdefgh"}
    return [
        ("records", records, "1,000 dictionaries of six fields"),
        ("few_records", records[:20], "20 of them"),
        ("csv_text", "\n".join(["id,name,group,value", *rows]), "the same as CSV"),
        ("nested_records", tree, "200 of them in a mapping by group"),
        (
            "sparse_records",
            [{k: v for k, v in r.items() if chance.random() < 0.5} for r in records],
            "with half of the fields",
        ),
        ("pairs", [(str(each["group"]), each["value"]) for each in records], "1,000 pairs of a key and a value"),
    ]


def _mixed(chance: random.Random) -> _Made:
    """One or two of every other category."""
    kinds: Sequence[tuple[Callable[[random.Random], _Made], int]] = (
        (_text_processing, 2),
        (_numeric_computation, 2),
        (_list_operations, 2),
        (_data_transformation, 1),
    )
    return [made for make, count in kinds for made in make(chance)[1 : count + 1]]


CATEGORIES: Final[dict[str, Callable[[random.Random], _Made]]] = {
    "text_processing": _text_processing,
    "numeric_computation": _numeric_computation,
    "list_operations": _list_operations,
    "edge_cases": _edge_cases,
    "mixed": _mixed,
    "data_transformation": _data_transformation,
}
