"""Who is to blame for calls that are slow or fail: one ranking of services, or components, by three signals.

`_slowdown` says where groups spend more time than others: within a unit, or in the gap between two; `_failing` says
which operations fail more. A gap is shared by the two units at its ends, by how well each explains it: a unit whose
network or processor is slow is slow towards all its neighbours, so each end is given the share of its other gaps that
rose as much, with half a gap for a start,

    c = (1/2 + sum of min(1, rise of other / rise of this)) / (1 + number of others), share of a = c(a) / (c(a) + c(b)).

What a unit is answerable for is put into one measure, of the groups that pass it:

    score = sqrt(more / whole * more / usual)  +  share of an operation's calls that now fail,

where `more` is the time that a group spends more on account of it, at least, `whole` how long such a group usually
takes and `usual` how long the unit itself does: the geometric mean of what it costs and of how unusual it is. By cost
alone a busy service that is a bit slower than on another day comes before a small one that hangs; by what is unusual
alone a small neighbour comes before the cause. A call that fails counts as one that takes twice as long throughout.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._calls import Bools, Calls, Floats, Ints, Names, Part, added, side_by_side
from otel_debugstore_analysis.analyses._failing import Failing, failing
from otel_debugstore_analysis.analyses._slowdown import Slowdown, Where, slowdown, where

SIGNALS: Final = ("self time", "client-server gap", "errors", "calls that stop early")


class Suspect(NamedTuple):
    """A unit and what it is answerable for.

    Attributes:
        unit: Its name.
        score: See above; by it they are ranked.
        own_ns: What a group that passes it spends more in it, on average; less than 0 if it is faster.
        gap_ns: Its share of what is spent more between it and others.
        failing_share: See `_failing`.
        signal: Which of `SIGNALS` weighs most; None if there is none.
        component: The operation that signal comes from.
        groups: How many groups pass it.
        trace_ids: Traces to look at.
    """

    unit: str | None
    score: float
    own_ns: float
    gap_ns: float
    failing_share: float
    signal: str | None
    component: str | None
    groups: int
    trace_ids: tuple[str, ...]


def suspects(faulty: Part, base: Part, by: str) -> list[Suspect]:
    """Return all units that the faulty groups pass, the most suspect first."""
    now, before, names = side_by_side(faulty, base, by)
    if not len(now.group):
        return []
    units = len(names.units)
    places = where(now, before, units)
    slow = slowdown(now, before, places, units)
    blames = _Blames.of(slow, units)
    fails = _failing(now, failing(now, before), places[0], units)
    passing = _passing(now, before, units)
    return _ranked(now, names, slow, blames, fails, passing)


class _Blames(NamedTuple):
    """Who is to blame for a place, a row a place and unit: one row within a unit, two for a gap."""

    entry: Ints
    """Which place."""
    unit: Ints
    share: Floats
    is_gap: Bools

    @classmethod
    def of(cls, slow: Slowdown, units: int) -> _Blames:
        caller, callee = slow.place // units, slow.place % units
        gaps, own = np.flatnonzero(caller != callee), np.flatnonzero(caller == callee)
        share = _caller_share(caller[gaps], callee[gaps], np.maximum(slow.call_ns[gaps], 0.0))
        return cls(
            np.concatenate([own, gaps, gaps]),
            np.concatenate([caller[own], caller[gaps], callee[gaps]]),
            np.concatenate([np.ones(len(own)), share, 1 - share]),
            np.arange(len(own) + 2 * len(gaps)) >= len(own),
        )


def _caller_share(caller: Ints, callee: Ints, rise: Floats) -> Floats:
    """Return what share of each gap the caller explains."""
    count = len(caller)
    unit, rises = np.concatenate([caller, callee]), np.concatenate([rise, rise])
    order = np.lexsort((rises, unit))
    unit, rises = unit[order], rises[order]
    is_first = np.diff(unit, prepend=-1) != 0
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(unit)), 0))
    number = np.cumsum(is_first) - 1
    neighbours = np.bincount(number)[number] if count else np.empty(0)
    sums = np.cumsum(rises) - rises
    smaller = sums - sums[first]
    larger = neighbours - 1 - (np.arange(len(unit)) - first)
    likely = np.where(rises > 0, smaller / np.where(rises > 0, rises, 1.0) + larger, 0.0)
    explained = np.empty(2 * count)
    explained[order] = (0.5 + likely) / np.maximum(neighbours, 1)
    return explained[:count] / (explained[:count] + explained[count:])


class _Fails(NamedTuple):
    """By unit the largest share of calls that fail, whether by stopping, the operation and a group."""

    share: Floats
    is_stop: Ints
    operation: Ints
    group: Ints


def _failing(calls: Calls, fails: Failing, places: Where, units: int) -> _Fails:
    count = int(calls.operation.max(initial=0)) + 1
    place = np.zeros(count, np.int64)
    place[calls.operation] = places.place
    of_rows = place[fails.operation]
    caller, callee = of_rows // units, of_rows % units
    gaps = np.flatnonzero(caller != callee)
    share = np.ones(len(of_rows))
    share[gaps] = _caller_share(caller[gaps], callee[gaps], fails.share[gaps])
    unit = np.concatenate([caller, callee[gaps]])
    row = np.concatenate([np.arange(len(of_rows)), gaps])
    value = np.concatenate([fails.share * share, fails.share[gaps] * (1 - share[gaps])])
    best = np.full(units, -1, np.int64)
    for number in np.lexsort((-row, value)).tolist():
        best[unit[number]] = number
    has, at = best >= 0, row[best] if len(row) else best
    if not len(row):
        return _Fails(np.zeros(units), best, best, best)
    return _Fails(
        np.where(has, value[best], 0.0),
        np.where(has, fails.is_stop[at], 0),
        np.where(has, fails.operation[at], -1),
        np.where(has, fails.group[at], -1),
    )


class _Passing(NamedTuple):
    """By unit: the groups that pass it, how many they stand for, and how long such groups usually take."""

    groups: Ints
    weight: Floats
    usual_ns: Floats


def _passing(now: Calls, before: Calls, units: int) -> _Passing:
    groups, weight, extent_ns = _units_of_groups(now, units)
    _, weight_before, usual_ns = _units_of_groups(before, units)
    usual_ns = np.where(weight_before > 0, usual_ns, extent_ns)
    return _Passing(groups, weight, np.maximum(usual_ns, 1.0))


def _units_of_groups(calls: Calls, units: int) -> tuple[Ints, Floats, Floats]:
    keys = np.unique(calls.group * units + calls.unit)
    unit, group = keys % units, keys // units
    weight = added(unit, calls.weight[group], units)
    extent_ns = added(unit, calls.weight[group] * calls.extent_ns[group], units) / np.maximum(weight, 1e-300)
    return np.bincount(unit, minlength=units).astype(np.int64), weight, extent_ns


class _Sums(NamedTuple):
    """What groups that pass a unit spend more on its account, by unit."""

    own_ns: Floats
    gap_ns: Floats

    @classmethod
    def of(cls, blames: _Blames, more_ns: Floats, units: int) -> _Sums:
        own, gap = (added(blames.unit[rows], more_ns[rows], units) for rows in (~blames.is_gap, blames.is_gap))
        return cls(own, gap)


def _ranked(
    now: Calls, names: Names, slow: Slowdown, blames: _Blames, fails: _Fails, passing: _Passing
) -> list[Suspect]:
    units = len(names.units)
    part = blames.share * slow.weight[blames.entry] / np.maximum(passing.weight[blames.unit], 1e-300)
    least_ns = part * slow.at_least_ns[blames.entry]
    least, mean = _Sums.of(blames, least_ns, units), _Sums.of(blames, part * slow.mean_ns[blames.entry], units)
    more_ns = least.own_ns + least.gap_ns
    usual_ns = added(blames.unit, part * slow.usual_ns[blames.entry], units)
    slower = np.sqrt(more_ns / passing.usual_ns * more_ns / np.maximum(usual_ns, 1.0))
    score = slower + fails.share
    estimate = mean.own_ns + mean.gap_ns
    evidence = _Evidence.of(least, slower, fails, slow, _worst_entry(blames, least_ns, units))
    present = np.flatnonzero(passing.groups).tolist()
    return [
        Suspect(
            unit=names.units[unit],
            score=float(score[unit]),
            own_ns=float(mean.own_ns[unit]),
            gap_ns=float(mean.gap_ns[unit]),
            failing_share=float(fails.share[unit]),
            groups=int(passing.groups[unit]),
            **evidence.named(unit, now, names),
        )
        for unit in sorted(present, key=lambda u: (-score[u], -estimate[u], names.units[u] or ""))
    ]


class _Evidence(NamedTuple):
    """By unit the signal that weighs most (-1 if there is none), its operation, and a group that has it."""

    signal: Ints
    operation: Ints
    group: Ints

    @classmethod
    def of(cls, least: _Sums, slower: Floats, fails: _Fails, slow: Slowdown, worst: tuple[Ints, Ints]) -> _Evidence:
        more_ns = np.maximum(least.own_ns + least.gap_ns, 1e-300)
        strength = np.stack([slower * least.own_ns / more_ns, slower * least.gap_ns / more_ns, fails.share])
        signal = np.argmax(strength, axis=0)
        is_failing = signal == len(strength) - 1
        entry = np.where(signal == 1, worst[1], worst[0])
        operation = np.where(is_failing, fails.operation, slow.operation[entry])
        group = np.where(is_failing, fails.group, slow.group[entry])
        signal = np.where(is_failing, signal + np.maximum(fails.is_stop, 0), signal)
        return cls(np.where(strength.max(axis=0) > 0, signal, -1), operation, group)

    def named(self, unit: int, now: Calls, names: Names) -> dict[str, Any]:
        """Return them as fields of a suspect."""
        if self.signal[unit] < 0:
            return {"signal": None, "component": None, "trace_ids": ()}
        return {
            "signal": SIGNALS[self.signal[unit]],
            "component": names.operations[self.operation[unit]],
            "trace_ids": (now.trace_ids[now.trace[self.group[unit]]],),
        }


def _worst_entry(blames: _Blames, measure: Floats, units: int) -> tuple[Ints, Ints]:
    """Return by unit the place of its own, and the gap, that it is most answerable for; -1 if there is none."""
    found = []
    for is_gap in (False, True):
        best = np.full(units, -1, np.int64)
        rows = np.flatnonzero(blames.is_gap == is_gap)
        for number in rows[np.lexsort((-rows, measure[rows]))].tolist():
            best[blames.unit[number]] = blames.entry[number]
        found.append(best)
    return found[0], found[1]
