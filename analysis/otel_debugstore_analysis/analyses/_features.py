"""What calls are like, one text a call and feature: attributes, inputs, callers, places and children; and which of
that tells one set of calls from the others.

A share is tested by Fisher's exact test, or the z-test where there are many, on what is independent: traces, and
processes for what is the same for all calls of a process (host, session, process id): there a process counts as
slow if a larger share of its calls is slow than of all. All tests of an answer are corrected for their number
(Benjamini and Hochberg).
"""

from __future__ import annotations

import itertools
import json
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from otel_debugstore import attributes as names
from otel_debugstore_analysis.analyses._calls import Bools, Floats, Ints
from otel_debugstore_analysis.analyses.statistics import benjamini_hochberg, two_shares

MIN_CALLS: Final = 3
"""Values that fewer calls have are not looked at."""
MAX_VALUES: Final = 50
MAX_KEYS: Final = 100
MAX_TEXT: Final = 200
SAYS_THAT_IT_FAILED: Final = frozenset(
    {
        names.ERROR_TYPE,
        names.EXCEPTION_TYPE,
        names.EXCEPTION_MESSAGE,
        names.OUTCOME,
        names.RECORD_STATUS,
        "error",
        "exception.stacktrace",
        "otel.status_code",
        "otel.status_description",
    }
)
"""Attributes that say that a call failed, and not why."""
_MAX_BINS: Final = 4
_FEW_NUMBERS: Final = 8

Column = Sequence[str | None]


class Feature(NamedTuple):
    """A feature of every call: its kind (attribute, caller, child...), its key, and by call its value or None."""

    kind: str
    key: str
    values: Column


class Found(NamedTuple):
    """What a value has to do with the calls that are looked at ("hits"); shares are weighted.

    Attributes:
        share, other_share: Of the hits, and of the others, that have it.
        lift: How much likelier a call with it is a hit than any call.
        calls: How many calls have it.
        unit: What was counted: trace or process.
        example: A hit with it.
    """

    kind: str
    key: str
    value: str
    share: float
    other_share: float
    lift: float
    calls: int
    unit: str
    example: int


class Units(NamedTuple):
    """What calls are independent by: codes of traces and of processes."""

    trace: Ints
    process: Ints


def attribute_features(kind: str, texts: Sequence[str | None], first: int | None = None) -> list[Feature]:
    """Return a feature a key of JSON objects, one a call; lists and maps, nulls and empty texts are no values.

    Args:
        kind: That of the features.
        texts: By call.
        first: Only keys that these first calls have count, those first that most of them have.
    """
    parsed: dict[str, dict[str, str]] = {}
    rows: list[dict[str, str]] = []
    for text in texts:
        if text not in parsed:
            parsed[text or ""] = _scalars(text)
        rows.append(parsed[text or ""])
    counts = Counter(key for row in rows[:first] for key in row)
    keys = sorted(counts, key=lambda key: (-counts[key], key))[:MAX_KEYS]
    return [Feature(kind, key, [row.get(key) for row in rows]) for key in keys]


def _scalars(text: str | None) -> dict[str, str]:
    try:
        found = json.loads(text) if text else {}
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    scalars = {}
    for key, value in found.items():
        kind = type(value)
        if kind is str:
            if value and value[0] not in "[{":
                scalars[key] = value[:MAX_TEXT]
        elif kind is bool:
            scalars[key] = "true" if value else "false"
        elif kind is int or kind is float:
            scalars[key] = str(value)
    return scalars


def binned(feature: Feature) -> Feature:
    """Return numbers, if all values are numbers and they differ much, as the quarters they are in."""
    numbers: dict[str, float] = {}
    for value in feature.values:
        if value is not None and value not in numbers:
            number = _number(value)
            if number is None:
                return feature
            numbers[value] = number
    if len(set(numbers.values())) < _FEW_NUMBERS:
        return feature
    known = np.array([numbers[value] for value in feature.values if value is not None])
    edges = np.unique(np.quantile(known, np.arange(1, _MAX_BINS) / _MAX_BINS))
    names = _bin_names(edges)
    bins = np.searchsorted(edges, np.array(list(numbers.values())), side="right").tolist()
    named = {value: names[place] for value, place in zip(numbers, bins, strict=True)}
    return Feature(feature.kind, feature.key, [None if value is None else named[value] for value in feature.values])


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _bin_names(edges: Floats) -> list[str]:
    texts = [f"{edge:.6g}" for edge in edges.tolist()]
    between = [f"{low} to below {high}" for low, high in itertools.pairwise(texts)]
    return [f"below {texts[0]}", *between, f"{texts[-1]} or more"]


def tests(
    features: Sequence[Feature], is_hit: Bools, weight: Floats, units: Units, hit_share: float
) -> list[tuple[Found, float]]:
    """Return all values that hits have, each with the probability of such shares by chance.

    Args:
        features: Of the calls.
        is_hit: By call.
        weight: By call how many it stands for.
        units: By call.
        hit_share: Which share of all calls are hits; of those that are given it may be another.
    """
    return [one for feature in features for one in _of_feature(binned(feature), is_hit, weight, units, hit_share)]


def telling(found: Sequence[tuple[Found, float]]) -> list[tuple[Found, float]]:
    """Return the values that hits have more often than the others, with q-values: the most telling first.

    These are by how many of the hits they could be answerable for, `(share - other_share) / (1 - other_share)`, those
    with a q-value of at most 0.05 before all others.
    """
    q_values = benjamini_hochberg([p_value for _, p_value in found])
    pairs = [(one, q) for (one, _), q in zip(found, q_values, strict=True) if one.share > one.other_share]
    return sorted(pairs, key=lambda pair: _order(*pair))


def _order(one: Found, q_value: float) -> tuple[Any, ...]:
    answerable = (one.share - one.other_share) / max(1 - one.other_share, 1e-9)
    return q_value > 0.05, -round(answerable, 9), q_value, one.kind, one.key, one.value


def _of_feature(
    feature: Feature, is_hit: Bools, weight: Floats, units: Units, hit_share: float
) -> list[tuple[Found, float]]:
    counts, hits = Counter(feature.values), Counter(itertools.compress(feature.values, is_hit.tolist()))
    for counted in (counts, hits):
        del counted[None]
    if len(counts) < 2 and sum(counts.values()) == len(feature.values):
        return []
    known = (v for v in counts if v is not None and counts[v] >= MIN_CALLS and hits[v])
    values = sorted(known, key=lambda v: (-hits[v], v))
    numbers = {value: number for number, value in enumerate(values[:MAX_VALUES])}
    codes = np.array([numbers.get(value, -1) if value is not None else -1 for value in feature.values], np.int64)
    unit, code = _unit(feature.values, units)
    whole, all_hits = weight.sum(), weight[is_hit].sum()
    found = []
    for value, number in numbers.items():
        has = codes == number
        of_hits = weight[has & is_hit].sum()
        share, other = of_hits / all_hits, (weight[has].sum() - of_hits) / max(whole - all_hits, 1e-300)
        lift = share / (hit_share * share + (1 - hit_share) * other)
        example, calls = int(np.flatnonzero(has & is_hit)[0]), int(has.sum())
        one = Found(feature.kind, feature.key, value, float(share), float(other), float(lift), calls, unit, example)
        found.append((one, _p_value(has, is_hit, code, unit == "process")))
    return found


def _unit(values: Column, units: Units) -> tuple[str, Ints]:
    """Return what is independent of each other: processes, where every process has one value only."""
    processes = set(units.process.tolist())
    pairs = set(zip(units.process.tolist(), values, strict=True))
    distinct = {value for _, value in pairs}
    if len(pairs) == len(processes) and len(distinct) > 1:
        return "process", units.process
    return "trace", units.trace


def _p_value(has: Bools, is_hit: Bools, unit: Ints, by_share: bool) -> float:
    """Return how likely shares of units that differ so much are by chance.

    A unit with both hits and others counts once as each; a process as one of both.
    """
    count = int(unit.max(initial=0)) + 1
    calls, hits = np.bincount(unit, minlength=count), np.bincount(unit, is_hit, count)
    if by_share:
        slow = (calls > 0) & (hits > calls * (is_hit.sum() / len(is_hit)))
        fast = (calls > 0) & ~slow
        with_hits = with_others = np.bincount(unit, has, count) > 0
    else:
        slow, fast = hits > 0, calls > hits
        with_hits = np.bincount(unit, has & is_hit, count) > 0
        with_others = np.bincount(unit, has & ~is_hit, count) > 0
    pair = int((with_hits & slow).sum()), int(slow.sum()), int((with_others & fast).sum()), int(fast.sum())
    return two_shares(*pair)
