"""How the structure of two samples of traces differs: who calls whom how often, and who is on the critical path.

Calls a call: of each trace, how many calls of the child there are below the calls of the parent, divided by these.
Means over traces are compared by Welch's t-test, corrected for the number of pairs (Benjamini and Hochberg); of one
trace on a side no test can be made, and every difference is shown. A pair that only one of the samples has is `new` or
`gone`.

Shares of the critical path: see `critical_path`; of all runs (what lies below roots) together. They are compared by a
z-test, with the run as unit and the variance of a ratio of sums by its linear terms (the delta method), corrected for
the number of components.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses._structure import structure
from otel_debugstore_analysis.analyses.critical_path import path
from otel_debugstore_analysis.analyses.statistics import benjamini_hochberg
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


class _Calls(NamedTuple):
    """Calls of a child a call of its parent, over traces: how many traces have the parent, mean and variance."""

    traces: int
    mean: float
    variance: float
    evidence: tuple[str, ...]


def children_compared(before: SpanFrame, after: SpanFrame, limit: int) -> Table:
    """Return the pairs of components of which the one calls the other more or less often, surest differences first."""
    sides = [_calls(before), _calls(after)]
    pairs = sorted(sides[0].calls.keys() | sides[1].calls.keys(), key=lambda pair: tuple(map(str, pair)))
    compared = [tuple(side.of(pair) for side in sides) for pair in pairs]
    q_values = benjamini_hochberg([_p_value(one, other) for one, other in compared])
    rows: list[tuple[Any, ...]] = []
    for pair, (one, other), q in zip(pairs, compared, q_values, strict=True):
        is_tested = min(one.traces, other.traces) > 1
        if abs(one.mean - other.mean) <= _NEAR or (is_tested and q > _SIGNIFICANT):
            continue
        verdict = "new" if not one.mean else "gone" if not other.mean else "more" if other.mean > one.mean else "fewer"
        evidence = (one if verdict == "gone" else other).evidence
        q_value = q if is_tested else None
        rows.append((*pair, verdict, one.mean, other.mean, q_value, one.traces, other.traces, evidence))
    rows.sort(key=lambda row: (row[5] is not None, row[5] or 0.0, -abs(row[4] - row[3]), str(row[0]), str(row[1])))
    return Table(CHILDREN, rows[:limit], max(len(rows) - limit, 0), _notes(before, after))


def critical_paths_compared(before: SpanFrame, after: SpanFrame, limit: int) -> Table:
    """Return the components' shares of the critical paths: those that differ first, the largest difference first."""
    sides = [_shares(before), _shares(after)]
    names = sorted(sides[0].shares.keys() | sides[1].shares.keys(), key=lambda name: name or "")
    compared = [tuple(side.shares.get(name, _Share(0.0, 0.0)) for side in sides) for name in names]
    q_values = benjamini_hochberg([_p_value_of_shares(one, other) for one, other in compared])
    is_tested = min(side.runs for side in sides) > 1
    rows: list[tuple[Any, ...]] = []
    for name, (one, other), q in zip(names, compared, q_values, strict=True):
        difference = other.share - one.share
        q_value = q if is_tested else None
        rows.append((name, one.share, other.share, difference, q_value, sides[0].runs, sides[1].runs))
    rows.sort(key=lambda row: (is_tested and row[4] > _SIGNIFICANT, -abs(row[3]), row[0] or ""))
    return Table(CRITICAL_PATH, rows[:limit], max(len(rows) - limit, 0), _notes(before, after))


class _Side(NamedTuple):
    calls: dict[Pair, _Calls]
    traces_of: dict[Name, int]

    def of(self, pair: Pair) -> _Calls:
        return self.calls.get(pair) or _Calls(self.traces_of.get(pair[0], 0), 0.0, 0.0, ())


def _calls(frame: SpanFrame) -> _Side:
    """Return by pair of components how often the parent calls the child, and in how many traces each component is."""
    width, traces = len(frame.components), len(frame.trace_ids)
    component, trace = frame.component.astype(np.int64), frame.trace.astype(np.int64)
    cell, count = _summed(component * max(traces, 1) + trace, frame.weight)
    traces_of = np.bincount(cell // max(traces, 1), minlength=width)
    child = np.flatnonzero(frame.parent >= 0)
    pair = component[frame.parent[child]] * max(width, 1) + component[child]
    edge, calls = _summed(pair * max(traces, 1) + trace[child], frame.weight[child])
    parent = edge // max(traces, 1) // max(width, 1)
    a_call = calls / count[np.searchsorted(cell, parent * max(traces, 1) + edge % max(traces, 1))]
    pairs, first = np.unique(edge // max(traces, 1), return_index=True)
    bounds = [*first.tolist(), len(edge)]
    found: dict[Pair, _Calls] = {}
    for number, code in enumerate(pairs.tolist()):
        mine = slice(bounds[number], bounds[number + 1])
        values, whole = a_call[mine], int(traces_of[code // width])
        mean = float(values.sum()) / whole
        squares = float(((values - mean) ** 2).sum()) + (whole - len(values)) * mean**2
        most = np.argsort(-values, kind="stable")[:EVIDENCE]
        evidence = tuple(frame.trace_ids[int(edge[mine][place]) % traces] for place in most)
        names = frame.components[code // width], frame.components[code % width]
        found[names] = _Calls(whole, mean, squares / max(whole - 1, 1), evidence)
    return _Side(found, {name: int(traces_of[code]) for code, name in enumerate(frame.components)})


def _summed(keys: np.ndarray[Any, np.dtype[np.int64]], weights: Floats) -> tuple[Any, Floats]:
    found, place = np.unique(keys, return_inverse=True)
    return found, np.bincount(place, weights, len(found)).astype(np.float64)


def _p_value(one: _Calls, other: _Calls) -> float:
    """Return Welch's p-value of two means."""
    from scipy.special import stdtr

    if min(one.traces, other.traces) < 2:
        return 1.0
    spread = one.variance / one.traces, other.variance / other.traces
    whole, difference = sum(spread), abs(one.mean - other.mean)
    if whole <= _NEAR**2:
        return 1.0 if difference <= _NEAR else 0.0
    freedom = whole**2 / (spread[0] ** 2 / (one.traces - 1) + spread[1] ** 2 / (other.traces - 1))
    return float(2 * stdtr(freedom, -difference / whole**0.5))


class _Share(NamedTuple):
    """A share of the time of runs, and its variance."""

    share: float
    variance: float


class _Shares(NamedTuple):
    shares: dict[Name, _Share]
    runs: int


def _shares(frame: SpanFrame) -> _Shares:
    found = structure(frame)
    way = path(found)
    runs, width = len(found.tops), len(frame.components)
    cell = frame.component[found.rows].astype(np.int64) * max(runs, 1) + found.run
    cells, own_ns = _summed(cell, way.own_ns * frame.weight[found.tops[found.run]])
    run_ns = np.bincount(cells % max(runs, 1), own_ns, runs)
    whole_ns, component = float(run_ns.sum()), cells // max(runs, 1)
    if whole_ns <= 0:
        return _Shares({}, runs)
    share = np.bincount(component, own_ns, width) / whole_ns
    # Of the distances of runs from their share: (own - share * run)^2, summed over all runs, also those without any.
    squares = np.bincount(component, own_ns**2, width)
    crossed = np.bincount(component, own_ns * run_ns[cells % max(runs, 1)], width)
    variance = np.maximum(squares - 2 * share * crossed + share**2 * float((run_ns**2).sum()), 0.0) / whole_ns**2
    shares = {
        name: _Share(float(share[code]), float(variance[code]))
        for code, name in enumerate(frame.components)
        if share[code] > 0
    }
    return _Shares(shares, runs)


def _p_value_of_shares(one: _Share, other: _Share) -> float:
    spread, difference = math.sqrt(one.variance + other.variance), abs(one.share - other.share)
    if spread <= _NEAR:
        return 1.0 if difference <= _NEAR else 0.0
    return math.erfc(difference / spread / math.sqrt(2))


def _notes(before: SpanFrame, after: SpanFrame) -> tuple[str, ...]:
    sides: Sequence[tuple[str, SpanFrame]] = (("Before", before), ("After", after))
    return tuple(f"{name}: {note[0].lower()}{note[1:]}" for name, frame in sides for note in frame.notes)
