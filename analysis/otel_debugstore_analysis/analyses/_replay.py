"""Replays runs as if components were faster: what each run would save.

How a parent lets its children run is taken from what was recorded. A child begins some time after the last of those
that had ended by then (else after its parent's begin), and it is taken to have waited for all of them; the parent ends
some time after the last of its children. The part of these times in which no child ran is the parent's own: it
shrinks with the parent. The rest stays. So children that ran one after the other still do, those that ran
beside one another still do, and a faster child helps only until another one is the last to end.

A child that outlived its parent was not waited for: nothing below it saves anything, and neither does the time that it
covers. (Cut to its parent it lies on the critical path all the same, as CRISP and Jaeger have it.)

All is reckoned in savings, so that what is not faster is reproduced to the nanosecond. With s(e) the saving by event e,
f the share by which the parent is faster and own(e) its own time before e:

    s(begin of a child)  =  s(join before it) + f own(begin)
    s(end of a child)    =  s(its begin) + saving of the child
    s(join)              =  min over what was waited for of  s(end) + how long it waited for the others
    saving of a span     =  s(last join) + f own(end)

Where the children of a span ran one after the other, its saving is the sum of theirs and of f times its self time:
such spans are summed up over whole regions of a trace, and only the others are replayed, join by join for all traces
at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses._structure import Bools, Ints, Structure, along

_MAX_NUMBERS: Final = 8_000_000
"""Numbers that an array of savings holds at most: 64 MB."""
_NEVER: Final = 2**63 - 1


def savings(found: Structure, column: Ints, width: int, shares: Floats) -> Floats:
    """Return what each run would save: by run, column and share.

    Args:
        found: The runs.
        column: By place the column in which the span is faster; -1 if in none.
        width: The number of columns.
        shares: By how much of its own time it is: 0.25 is 25 % faster.
    """
    replay = _Replay(found, _Waits.of(found), column, width, shares)
    saved = np.zeros((len(found.tops), width, len(shares)))
    for first, last in _parts(found, max(_MAX_NUMBERS // (width * len(shares)), 1)):
        heads, of_heads = replay.part(first, last)
        is_top = found.parent[heads] < 0
        saved[found.run[heads[is_top]]] = of_heads[is_top]
    return saved


def own_times(found: Structure) -> Ints:
    """Return by place the time that shrinks with the span: no child ran, and its run waited for it."""
    waits = _Waits.of(found)
    own_ns = waits.plain_ns(found)
    joins = _Joins.of(found, waits, 0, len(found.rows))
    np.add.at(own_ns, found.parent[joins.child], joins.own_ns)
    own_ns[joins.parent] += joins.tail_ns
    return own_ns


def _parts(found: Structure, room: int) -> Iterator[tuple[int, int]]:
    """Yield ranges of places that hold whole runs, of so many places at most where a run has no more."""
    reach = np.maximum.accumulate(_last_of_run(found))
    ends = np.flatnonzero(reach == np.arange(len(found.rows))) + 1
    first, at = 0, 0
    while at < len(ends):
        at = max(int(np.searchsorted(ends, first + room, "right")), at + 1)
        yield first, int(ends[at - 1])
        first = int(ends[at - 1])


def _last_of_run(found: Structure) -> Ints:
    """Return by place the last place of its run."""
    last = np.zeros(len(found.tops), np.int64)
    last[found.run] = np.arange(len(found.rows))
    return last[found.run]


class _Waits(NamedTuple):
    """Who was waited for, by place.

    Attributes:
        counts: Whether the run waited for the span.
        is_joined: Whether it did, and the span's children have to be joined one by one.
        head: The topmost span up to which no parent's children have to be joined.
        depth: How many of the spans above have children that have to be.
    """

    counts: Bools
    is_joined: Bools
    head: Ints
    depth: Ints

    @staticmethod
    def of(found: Structure) -> _Waits:
        """Return who was waited for in a structure."""
        child, is_end = found.events
        is_top = found.parent < 0
        above = np.where(is_top, np.arange(len(found.rows)), found.parent)
        counts = found.is_awaited | is_top
        is_joined = np.zeros(len(found.rows), np.bool_)
        running = np.cumsum(np.where(is_end, -1, 1))
        is_joined[found.parent[child[running > 1]]] = True
        is_joined[above[~counts]] = True

        def and_above(ancestor: Ints) -> None:
            counts[:] &= counts[ancestor]

        along(above, and_above)
        is_joined &= counts
        depth = (~is_top & is_joined[above]).astype(np.int64)
        head = np.where(depth > 0, np.arange(len(found.rows)), above)

        def add(ancestor: Ints) -> None:
            depth[:] += depth[ancestor]

        along(above, add)
        return _Waits(counts, is_joined, along(head), depth)

    def plain_ns(self, found: Structure) -> Ints:
        """Return the self times of spans whose children ran one after the other; 0 of others."""
        is_plain = self.counts & ~self.is_joined
        duration_ns = found.end_ns - found.start_ns
        own_ns = np.where(is_plain, duration_ns, 0)
        child = np.flatnonzero(self.counts & (found.parent >= 0))
        child = child[is_plain[found.parent[child]]]
        np.subtract.at(own_ns, found.parent[child], duration_ns[child])
        return own_ns


@dataclass(frozen=True)
class _Joins:
    """The joins of the parents in a part of a structure whose children have to be joined.

    States are numbered through: a parent's first is its begin, each further one is a join.

    Attributes:
        parent: Places of these parents, ascending.
        first_state, last_state: By parent.
        tail_ns: By parent its own time after the last join.
        child: Places of the children that were waited for, by parent and end.
        state: By child the state in which it began.
        own_ns: By child its parent's own time from that state to its begin.
        join: By child the state to which its end belongs.
        wait_ns: By child how long the join waited for others after its end.
        pause_ns: By state how long it was from the one before.
    """

    parent: Ints
    first_state: Ints
    last_state: Ints
    tail_ns: Ints
    child: Ints
    state: Ints
    own_ns: Ints
    join: Ints
    wait_ns: Ints
    pause_ns: Ints

    @staticmethod
    def of(found: Structure, waits: _Waits, first: int, last: int) -> _Joins:
        """Return the joins of the parents among the places from `first` to before `last`."""
        parent = first + np.flatnonzero(waits.is_joined[first:last])
        number = np.full(last - first, -1, np.int64)
        number[parent - first] = np.arange(len(parent))
        never_ns = _since_not_awaited(found, number, len(parent), first, last)
        child, is_end = _events_below(found, waits, first, last)
        of = number[found.parent[child] - first]
        # The first event of a parent is a begin. States so far: joins of all parents, and of each its own begin.
        begins_join = is_end & ~np.concatenate([[False], is_end])[:-1]
        joins = np.bincount(of[begins_join], minlength=len(parent))
        state = np.cumsum(begins_join) + of
        first_state = np.cumsum(joins + 1) - joins - 1
        last_state = first_state + joins
        times = np.where(is_end, found.end_ns[child], found.start_ns[child])
        state_ns = np.full(len(parent) + int(joins.sum()), -_NEVER)
        state_ns[first_state] = found.start_ns[parent]
        np.maximum.at(state_ns, state[is_end], times[is_end])
        pause_ns = np.diff(state_ns, prepend=0)
        pause_ns[first_state] = 0
        quiet_until = np.minimum(times[_stretches(is_end)], never_ns[of])
        begins, ended = np.flatnonzero(~is_end), child[is_end]
        began_in, own_ns = np.zeros(last - first, np.int64), np.zeros(last - first, np.int64)
        began_in[child[begins] - first] = state[begins]
        own_ns[child[begins] - first] = np.maximum(quiet_until[begins] - state_ns[state[begins]], 0)
        return _Joins(
            parent=parent,
            first_state=first_state,
            last_state=last_state,
            tail_ns=np.maximum(np.minimum(found.end_ns[parent], never_ns) - state_ns[last_state], 0),
            child=ended,
            state=began_in[ended - first],
            own_ns=own_ns[ended - first],
            join=state[is_end],
            wait_ns=state_ns[state[is_end]] - found.end_ns[ended],
            pause_ns=pause_ns,
        )


def _since_not_awaited(found: Structure, number: Ints, count: int, first: int, last: int) -> Ints:
    """Return by parent the begin of its first child that nobody waited for: from then on it may not be alone."""
    since_ns = np.full(count, _NEVER)
    left = first + np.flatnonzero(~found.is_awaited[first:last] & (found.parent[first:last] >= 0))
    left = left[number[found.parent[left] - first] >= 0]
    np.minimum.at(since_ns, number[found.parent[left] - first], found.start_ns[left])
    return since_ns


def _stretches(is_end: Bools) -> Ints:
    """Return by event the place of the begin since which one child or another ran."""
    running = np.cumsum(np.where(is_end, -1, 1))
    return np.maximum.accumulate(np.where(~is_end & (running == 1), np.arange(len(is_end)), 0))


def _events_below(found: Structure, waits: _Waits, first: int, last: int) -> tuple[Ints, Bools]:
    """Return the events of awaited children below the parents in a part whose children have to be joined."""
    child, is_end = found.events
    since, until = np.searchsorted(found.parent[child], (first, last))
    child, is_end = child[since:until], is_end[since:until]
    kept = waits.is_joined[found.parent[child]] & found.is_awaited[child]
    return child[kept], is_end[kept]


class _Replay:
    """Replays parts of a structure; see `savings` for the arguments."""

    def __init__(self, found: Structure, waits: _Waits, column: Ints, width: int, shares: Floats) -> None:
        self._found, self._waits, self._column, self._width, self._shares = found, waits, column, width, shares
        self._plain_ns = waits.plain_ns(found)

    def part(self, first: int, last: int) -> tuple[Ints, Floats]:
        """Return the heads of regions among some places, and their savings by column and share."""
        waits, places = self._waits, np.arange(first, last)
        heads = first + np.flatnonzero(waits.counts[first:last] & (waits.head[first:last] == places))
        number = np.full(last - first, -1, np.int64)
        number[heads - first] = np.arange(len(heads))
        saved = self._of_regions(number, len(heads), first, last)[..., None] * self._shares
        joins = _Joins.of(self._found, waits, first, last)
        child = number[joins.child - first]
        state_saved = np.zeros((len(joins.pause_ns), self._width, len(self._shares)))
        for of_depth, steps in _by_depth(joins, waits.depth[joins.parent]):
            for rows in steps:
                self._join(joins, rows, saved[child[rows]], state_saved)
            parent = joins.parent[of_depth]
            total = state_saved[joins.last_state[of_depth]]
            self._add_own(total, parent, joins.tail_ns[of_depth])
            np.add.at(saved, number[waits.head[parent] - first], total)
        return heads, saved

    def _of_regions(self, number: Ints, count: int, first: int, last: int) -> Floats:
        """Return by head and column the self time of the spans of its region whose children ran in turn."""
        place = first + np.flatnonzero((self._plain_ns[first:last] > 0) & (self._column[first:last] >= 0))
        cell = number[self._waits.head[place] - first] * self._width + self._column[place]
        own_ns = np.bincount(cell, self._plain_ns[place].astype(np.float64), count * self._width)
        return own_ns.astype(np.float64, copy=False).reshape(count, self._width)

    def _join(self, joins: _Joins, rows: Ints, saved: Floats, state_saved: Floats) -> None:
        """Fill the savings of one join of each of some parents; `rows` are their children, `saved` what these save."""
        saved += state_saved[joins.state[rows]]
        self._add_own(saved, self._found.parent[joins.child[rows]], joins.own_ns[rows])
        saved += joins.wait_ns[rows, None, None]
        join = joins.join[rows]
        first = np.flatnonzero(np.concatenate([[True], join[1:] != join[:-1]]))
        join = join[first]
        least = np.minimum.reduceat(saved, first, axis=0) if len(first) < len(rows) else saved
        state_saved[join] = np.minimum(least, state_saved[join - 1] + joins.pause_ns[join, None, None])

    def _add_own(self, saved: Floats, place: Ints, own_ns: Ints) -> None:
        """Add to savings what the spans at these places save themselves."""
        column = self._column[place]
        rows = np.flatnonzero((column >= 0) & (own_ns > 0))
        saved[rows, column[rows]] += own_ns[rows, None] * self._shares


def _by_depth(joins: _Joins, depth: Ints) -> Iterator[tuple[Ints, list[Ints]]]:
    """Yield the parents of each depth, deepest first, and the children of their first joins, of their second, ..."""
    number = np.searchsorted(joins.first_state, joins.join, "right") - 1
    turn = joins.join - joins.first_state[number]
    order = np.lexsort((joins.join, turn, -depth[number]))
    is_new = np.concatenate([[True], (np.diff(turn[order]) != 0) | (np.diff(depth[number][order]) != 0)])
    steps = np.split(order, np.flatnonzero(is_new)[1:]) if len(order) else []
    step_depth = [int(depth[number[step[0]]]) for step in steps]
    parents = np.argsort(-depth, kind="stable")
    at = 0
    for of_depth in np.split(parents, np.flatnonzero(np.diff(depth[parents])) + 1) if len(parents) else ():
        until = at
        while until < len(steps) and step_depth[until] == depth[of_depth[0]]:
            until += 1
        yield of_depth, steps[at:until]
        at = until
