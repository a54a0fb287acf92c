"""Which operations end otherwise than they usually do: in an error, or before they have done what they usually do.

Of an operation's calls, the share that ends in an error is compared with that of the other set, and so is the share
that stops early: for a set of children T, of the calls that got as far as T (have all children of T) those that have
no others, where calls with further children are known. An early return or a swallowed exception shows so, without
any error being recorded. Another mix of requests moves such shares too, though seldom from nothing: so what counts of
a rise from p to q is (q - p)^2 / q, Neyman's chi-square per call, with those bounds of the 95 % intervals (Wilson) of
both that lie nearest to each other. A call counts where it failed first: none of its children failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._calls import Bools, Calls, Floats, Ints, added

_Z: Final = 1.959963984540054
_MAX_SHAPES: Final = 64
"""Of an operation's shapes so many are looked at, the most frequent."""


class Failing(NamedTuple):
    """What fails more, a row an operation.

    Attributes:
        operation: The operations.
        share: What share of its calls, at least and as a chi-square.
        is_stop: It stops early; else it ends in errors.
        group: A group in which it does.
    """

    operation: Ints
    share: Floats
    is_stop: Bools
    group: Ints


def failing(faulty: Calls, base: Calls) -> Failing:
    """Return what fails in the faulty calls more than in the others."""
    rows = [_errors(faulty, base)]
    shapes = [_shapes(calls) for calls in (faulty, base)]
    first = _stops(shapes[0], shapes[1])
    failed = faulty.is_error | _among(shapes[0], first)
    below = _below(faulty, failed)
    stops = _stops(shapes[0].without(below), shapes[1])
    if stops:
        rows.append(_first_of(shapes[0].without(below), stops))
    return Failing(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def _errors(faulty: Calls, base: Calls) -> Failing:
    now, before = (calls.is_error & ~_below(calls, calls.is_error) for calls in (faulty, base))
    count = 1 + max(int(faulty.operation.max(initial=-1)), int(base.operation.max(initial=-1)))
    failed, failed_before = (
        added(calls.operation, is_failed, count) for calls, is_failed in ((faulty, now), (base, before))
    )
    all_now, all_before = (np.bincount(calls.operation, minlength=count) for calls in (faulty, base))
    share = risen(failed, all_now, failed_before, all_before)
    operation = np.flatnonzero(share > 0)
    group = np.full(count, -1, np.int64)
    np.maximum.at(group, faulty.operation[now], faulty.group[now])
    return Failing(operation, share[operation], np.zeros(len(operation), np.bool_), group[operation])


def risen(failed: Floats, count: Ints | Floats, failed_before: Floats, count_before: Ints | Floats) -> Floats:
    """Return (q - p)^2 / q of shares p before and q now, by their bounds; 0 where they overlap."""
    low, high = wilson(failed, count)[0], wilson(failed_before, count_before)[1]
    return np.where(low > high, (low - high) ** 2 / np.where(low > 0, low, 1.0), 0.0)


def wilson(part: Floats, count: Ints | Floats) -> tuple[Floats, Floats]:
    """Return the bounds of the 95 % intervals of shares (Wilson's score); 0 and 1 of nothing."""
    n = np.maximum(np.asarray(count, np.float64), 1e-9)
    share = np.asarray(part, np.float64) / n
    middle = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(np.maximum(share * (1 - share), 0.0) / n + _Z**2 / (4 * n * n))
    return np.maximum(middle - half, 0.0), np.minimum(middle + half, 1.0)


def _below(calls: Calls, failed: Bools) -> Bools:
    """Return which rows have a child that failed."""
    found = np.zeros(len(failed), np.bool_)
    child = np.flatnonzero(failed & (calls.parent >= 0))
    found[calls.parent[child]] = True
    return found


class _Shapes(NamedTuple):
    """What sets of operations calls have as children.

    Attributes:
        operation: By row.
        shape: By row the hash of the set.
        group: By row.
        sets: By hash the set.
    """

    operation: Ints
    shape: Ints
    group: Ints
    sets: Mapping[int, frozenset[int]]

    def without(self, rows: Bools) -> _Shapes:
        """Return the other rows."""
        return _Shapes(self.operation[~rows], self.shape[~rows], self.group[~rows], self.sets)

    def counts(self) -> dict[int, dict[int, int]]:
        """Return by operation and shape how many calls there are."""
        shapes, code = np.unique(self.shape, return_inverse=True)
        pairs, count = np.unique(self.operation * max(len(shapes), 1) + code, return_counts=True)
        found: dict[int, dict[int, int]] = {}
        operations, codes = np.divmod(pairs, max(len(shapes), 1))
        for operation, shape, number in zip(operations.tolist(), shapes[codes].tolist(), count.tolist(), strict=True):
            found.setdefault(operation, {})[shape] = number
        return found


def _shapes(calls: Calls) -> _Shapes:
    child = np.flatnonzero(calls.parent >= 0)
    width = int(calls.operation.max(initial=0)) + 1
    keys = np.unique(calls.parent[child] * width + calls.operation[child])
    parent, operation = keys // width, keys % width
    hashes = _mixed(operation)
    shape = np.zeros(len(calls.parent), np.uint64)
    first = np.flatnonzero(np.diff(parent, prepend=-1))
    if len(first):
        shape[parent[first]] = np.add.reduceat(hashes, first)
    as_integers = shape.view(np.int64)
    end = np.append(first[1:], len(parent))
    distinct, place = np.unique(as_integers[parent[first]], return_index=True)
    sets = {0: frozenset[int]()}
    for number, at in zip(distinct.tolist(), place.tolist(), strict=True):
        sets[number] = frozenset(operation[first[at] : end[at]].tolist())
    return _Shapes(calls.operation, as_integers, calls.group, sets)


def _mixed(numbers: Ints) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return hashes of numbers (the finaliser of splitmix64)."""
    mixed = (numbers.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def _stops(now: _Shapes, before: _Shapes) -> dict[tuple[int, int], float]:
    """Return the shapes of operations at which more calls stop than before, and how much."""
    counts, counts_before = now.counts(), before.counts()
    sets = {**before.sets, **now.sets}
    found = {}
    for operation, shapes in counts.items():
        known = counts_before.get(operation, {})
        if len(known) + len(shapes) <= 1 or not known or shapes.keys() == known.keys() == {0}:
            continue
        for shape, share in _stops_of(_frequent(shapes), _frequent(known), sets):
            found[operation, shape] = share
    return found


def _stops_of(
    now: Mapping[int, int], before: Mapping[int, int], sets: Mapping[int, frozenset[int]]
) -> list[tuple[int, float]]:
    """Return the shapes of an operation at which more calls stop than before, and how much, of its calls by shape."""
    shapes = [*now, *(shape for shape in before if shape not in now)]
    children = {child: place for place, child in enumerate(set[int]().union(*(sets[shape] for shape in shapes)))}
    has = np.zeros((len(shapes), len(children)), np.float64)
    for place, shape in enumerate(shapes):
        has[place, [children[child] for child in sets[shape]]] = 1
    is_within = has @ (1 - has).T == 0  # by two shapes whether the one's children are all among the other's
    is_below = is_within & ~np.eye(len(shapes), dtype=np.bool_)
    count = np.array([now.get(shape, 0) for shape in shapes], np.float64)
    count_before = np.array([before.get(shape, 0) for shape in shapes], np.float64)
    reached = is_within @ count
    reached_before = is_within @ count_before
    share = risen(count, reached, count_before, reached_before)
    stops = (count > 0) & (is_below @ (count_before > 0)) & (share > 0)
    return [(shapes[place], float(share[place])) for place in np.flatnonzero(stops).tolist()]


def _frequent(shapes: dict[int, int]) -> dict[int, int]:
    return dict(sorted(shapes.items(), key=lambda item: (-item[1], item[0]))[:_MAX_SHAPES])


def _among(shapes: _Shapes, stops: Mapping[tuple[int, int], float]) -> Bools:
    """Return which rows stop so."""
    found = np.zeros(len(shapes.operation), np.bool_)
    for operation, shape in stops:
        found |= (shapes.operation == operation) & (shapes.shape == shape)
    return found


def _first_of(shapes: _Shapes, stops: Mapping[tuple[int, int], float]) -> Failing:
    """Return by operation the stop that rose most."""
    best: dict[int, tuple[float, int]] = {}
    for (operation, shape), share in sorted(stops.items()):
        if share > best.get(operation, (0.0, 0))[0]:
            best[operation] = (share, shape)
    groups = []
    for operation, (_, shape) in best.items():
        rows = np.flatnonzero((shapes.operation == operation) & (shapes.shape == shape))
        groups.append(int(shapes.group[rows[0]]))
    return Failing(
        np.array(list(best), np.int64),
        np.array([share for share, _ in best.values()]),
        np.ones(len(best), np.bool_),
        np.array(groups, np.int64),
    )
