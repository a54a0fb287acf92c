"""How the structure of two samples of traces differs: who calls whom how often, and who is on the critical path.

The unit is that of `compare`, the session or the process: traces of one process are not independent of each other.

Calls a call: of each unit, how many calls of the child there are below the calls of the parent, divided by these. Means
over units are compared by Welch's t-test, corrected for the number of pairs (Benjamini and Hochberg). With fewer than
three units on a side there is no q-value: shown is then what differs between traces, tested in the same way with the
trace as unit. Of a parent that is in one unit on a side every difference is shown. A pair that only one of the samples
has is `new` or `gone`.

Shares of the critical path: see `critical_path`; of all runs (what lies below roots) together. Compared are the means
of the units' own shares, by the same test, corrected for the number of components (Benjamini and Yekutieli: where one
share rises others fall); a run is of the unit that its first span is of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._points import units
from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses._structure import Ints, structure
from otel_debugstore_analysis.analyses.critical_path import path
from otel_debugstore_analysis.analyses.statistics import (
    MIN_UNITS,
    Sample,
    benjamini_hochberg,
    benjamini_yekutieli,
    welch_of,
)
from otel_debugstore_analysis.query import SpanFrame, Table

CHILDREN: Final = (
    "parent",
    "child",
    "verdict",
    "before_calls",
    "after_calls",
    "q_value",
    "before_traces",
    "after_traces",
    "trace_ids",
)
CRITICAL_PATH: Final = (
    "component",
    "before_share",
    "after_share",
    "share_difference",
    "q_value",
    "before_runs",
    "after_runs",
)
EVIDENCE: Final = 3
_SIGNIFICANT: Final = 0.05
_NEAR: Final = 1e-9

Name = str | None
Pair = tuple[Name, Name]


def children_compared(before: SpanFrame, after: SpanFrame, unit: tuple[str, ...], limit: int) -> Table:
    """Return the pairs of components of which the one calls the other more or less often, surest differences first.

    Args:
        before, after: The samples, with `PROCESS` among their columns.
        unit: `SESSION` or `PROCESS`.
        limit: How many rows at most.
    """
    frames = before, after
    groups = [units(frame, unit).astype(np.int64) for frame in frames]
    is_tested = _are_enough(groups)
    sides = [
        _calls(frame, group if is_tested else frame.trace.astype(np.int64))
        for frame, group in zip(frames, groups, strict=True)
    ]
    pairs = sorted(sides[0].calls.keys() | sides[1].calls.keys(), key=lambda pair: tuple(map(str, pair)))
    compared = [tuple(side.of(pair) for side in sides) for pair in pairs]
    q_values = benjamini_hochberg([_p_value(one, other) for one, other in compared])
    found: list[tuple[Any, ...]] = []
    for pair, (one, other), q in zip(pairs, compared, q_values, strict=True):
        is_known = min(one.size, other.size) > 1
        if abs(one.mean - other.mean) <= _NEAR or (is_known and q > _SIGNIFICANT):
            continue
        verdict = "new" if not one.mean else "gone" if not other.mean else "more" if other.mean > one.mean else "fewer"
        q_value = q if is_tested and min(one.size, other.size) >= MIN_UNITS else None
        found.append((*pair, verdict, one.mean, other.mean, q_value))
    found.sort(key=lambda row: (row[5] is not None, row[5] or 0.0, -abs(row[4] - row[3]), str(row[0]), str(row[1])))
    rows = []
    for row in found[:limit]:
        evidence = _evidence(frames[0 if row[2] == "gone" else 1], row[:2])
        rows.append((*row, *(_traces_with(frame, row[0]) for frame in frames), evidence))
    return Table(CHILDREN, rows, len(found) - len(rows), _notes(before, after, unit, is_tested))


def critical_paths_compared(before: SpanFrame, after: SpanFrame, unit: tuple[str, ...], limit: int) -> Table:
    """Return the components' shares of the critical paths: those that differ first, the largest difference first.

    Args:
        before, after: The samples, with `PROCESS` among their columns.
        unit: `SESSION` or `PROCESS`.
        limit: How many rows at most.
    """
    groups = [units(frame, unit).astype(np.int64) for frame in (before, after)]
    sides = [_shares(frame, group) for frame, group in zip((before, after), groups, strict=True)]
    names = sorted(sides[0].shares.keys() | sides[1].shares.keys(), key=lambda name: name or "")
    compared = [tuple(side.of_units.get(name, Sample(side.units, 0.0, 0.0)) for side in sides) for name in names]
    q_values = benjamini_yekutieli([_p_value(one, other) for one, other in compared])
    is_tested = min(side.units for side in sides) >= MIN_UNITS
    rows: list[tuple[Any, ...]] = []
    for name, q in zip(names, q_values, strict=True):
        one, other = (side.shares.get(name, 0.0) for side in sides)
        rows.append((name, one, other, other - one, q if is_tested else None, sides[0].runs, sides[1].runs))
    rows.sort(key=lambda row: (is_tested and row[4] > _SIGNIFICANT, -abs(row[3]), row[0] or ""))
    return Table(CRITICAL_PATH, rows[:limit], max(len(rows) - limit, 0), _notes(before, after, unit, is_tested))


def _are_enough(groups: Sequence[Ints]) -> bool:
    return min(int(group.max(initial=-1)) + 1 for group in groups) >= MIN_UNITS


class _Side(NamedTuple):
    """By pair the calls of the child a call of the parent, over groups; and in how many groups components are."""

    calls: dict[Pair, Sample]
    groups_of: dict[Name, int]

    def of(self, pair: Pair) -> Sample:
        return self.calls.get(pair) or Sample(self.groups_of.get(pair[0], 0), 0.0, 0.0)


def _calls(frame: SpanFrame, group: Ints) -> _Side:
    """Return by pair of components how often the parent calls the child, and in how many groups each component is."""
    width, groups = max(len(frame.components), 1), int(group.max(initial=0)) + 1
    component = frame.component.astype(np.int64)
    cell, count = _summed(component * groups + group, frame.weight)
    groups_of = np.bincount(cell // groups, minlength=width)
    child = np.flatnonzero(frame.parent >= 0)
    parent = frame.parent[child]
    edge, calls = _summed((component[parent] * width + component[child]) * groups + group[parent], frame.weight[child])
    pairs, pair = np.unique(edge // groups, return_inverse=True)
    a_call = calls / count[np.searchsorted(cell, pairs[pair] // width * groups + edge % groups)]
    samples = _samples(pair, a_call, groups_of[pairs // width])
    names = [(frame.components[code // width], frame.components[code % width]) for code in pairs.tolist()]
    return _Side(dict(zip(names, samples, strict=True)), dict(zip(frame.components, groups_of.tolist(), strict=False)))


def _summed(keys: Ints, weights: Floats) -> tuple[Ints, Floats]:
    found, place = np.unique(keys, return_inverse=True)
    return found, np.bincount(place, weights, len(found)).astype(np.float64)


def _samples(code: Ints, values: Floats, count: Ints) -> list[Sample]:
    """Return a sample a code, of its values and of as many zeros as are missing from the count of it."""
    mean = np.bincount(code, values, len(count)) / count
    missing = count - np.bincount(code, minlength=len(count))
    squares = np.bincount(code, (values - mean[code]) ** 2, len(count)) + missing * mean**2
    variance = squares / np.maximum(count - 1, 1)
    return [Sample(*found) for found in zip(count.tolist(), mean.tolist(), variance.tolist(), strict=True)]


def _p_value(one: Sample, other: Sample) -> float:
    return 1.0 if abs(one.mean - other.mean) <= _NEAR else welch_of(one, other)


def _evidence(frame: SpanFrame, pair: Pair) -> tuple[str, ...]:
    """Return the traces in which the parent calls the child most often."""
    parent, child = (frame.components.index(name) for name in pair)
    is_pair = (frame.parent >= 0) & (frame.component == child) & (frame.component[frame.parent] == parent)
    trace, count = np.unique(frame.trace[is_pair], return_counts=True)
    most = np.argsort(-count, kind="stable")[:EVIDENCE]
    return tuple(frame.trace_ids[number] for number in trace[most].tolist())


def _traces_with(frame: SpanFrame, component: Name) -> int:
    if component not in frame.components:
        return 0
    return len(np.unique(frame.trace[frame.component == frame.components.index(component)]))


class _Shares(NamedTuple):
    """Components' shares of the critical path.

    Attributes:
        shares: Of the time of all runs.
        of_units: Over the units.
        runs: How many.
        units: How many have runs that took time.
    """

    shares: dict[Name, float]
    of_units: dict[Name, Sample]
    runs: int
    units: int


def _shares(frame: SpanFrame, group: Ints) -> _Shares:
    found = structure(frame)
    way = path(found)
    top, groups = found.tops[found.run], int(group.max(initial=0)) + 1
    cell, own_ns = _summed(
        frame.component[found.rows].astype(np.int64) * groups + group[top], way.own_ns * frame.weight[top]
    )
    unit_ns = np.bincount(cell % groups, own_ns, groups)
    kept = np.flatnonzero((own_ns > 0) & (unit_ns[cell % groups] > 0))
    codes, code = np.unique(cell[kept] // groups, return_inverse=True)
    names = [frame.components[number] for number in codes.tolist()]
    count = int(np.count_nonzero(unit_ns))
    samples = _samples(code, own_ns[kept] / unit_ns[cell[kept] % groups], np.full(len(codes), count))
    shares = np.bincount(code, own_ns[kept], len(codes)) / max(float(unit_ns.sum()), 1.0)
    return _Shares(
        dict(zip(names, shares.tolist(), strict=True)), dict(zip(names, samples, strict=True)), len(found.tops), count
    )


def _notes(before: SpanFrame, after: SpanFrame, unit: tuple[str, ...], is_tested: bool) -> tuple[str, ...]:
    sides: Sequence[tuple[str, SpanFrame]] = (("Before", before), ("After", after))
    notes = tuple(f"{name}: {note[0].lower()}{note[1:]}" for name, frame in sides for note in frame.notes)
    if is_tested or not (len(before) and len(after)):
        return notes
    what = "sessions or processes" if len(unit) > 1 else "sessions"
    return (
        *notes,
        f"In fewer than {MIN_UNITS} {what} on a side: how much runs of the same program differ in this is not known.",
    )
