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
    waits = _Waits.of(found)
    saved = np.zeros((len(found.tops), width, len(shares)))
    for first, last in _parts(found, max(_MAX_NUMBERS // (width * len(shares)), 1)):
        heads = first + np.flatnonzero(waits.counts[first:last] & (waits.head[first:last] == np.arange(first, last)))
        by_head = _replay(found, waits, heads, (first, last), column, shares, width)
        is_top = found.parent[heads] < 0
        saved[found.run[heads[is_top]]] = by_head[is_top]
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
    """Yield ranges of places that hold whole runs, of about so many places each."""
    since_top = np.maximum.accumulate(_last_of_run(found))
    whole = np.flatnonzero(since_top == np.arange(len(found.rows))) + 1
    first = 0
    while first < len(found.rows):
        last = int(
            whole[max(np.searchsorted(whole, first + room, "right") - 1, np.searchsorted(whole, first, "right"))]
        )
        yield first, last
        first = last


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
        child, is_end = found.events
        top_or_awaited = found.is_awaited | (found.parent < 0)
        counts = top_or_awaited.copy()

        def and_above(ancestor: Ints) -> None:
            counts[:] &= counts[ancestor]

        along(np.where(found.parent >= 0, found.parent, np.arange(len(found.rows))), and_above)
        is_joined = np.zeros(len(found.rows), np.bool_)
        running = np.cumsum(np.where(is_end, -1, 1))
        is_joined[found.parent[child[running > 1]]] = True
        is_joined[found.parent[np.flatnonzero(~top_or_awaited)]] = True
        is_joined &= counts
        above = np.where(found.parent >= 0, found.parent, np.arange(len(found.rows)))
        depth = ((found.parent >= 0) & is_joined[above]).astype(np.int64)
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
        child, is_end = _events_below(found, waits, first, last)
        of = number[found.parent[child] - first]
        never_ns = np.full(len(parent), _NEVER)
        left = first + np.flatnonzero(~found.is_awaited[first:last] & (found.parent[first:last] >= 0))
        left = left[number[found.parent[left] - first] >= 0]
        np.minimum.at(never_ns, number[found.parent[left] - first], found.start_ns[left])
        kept = found.is_awaited[child]
        child, is_end, of = child[kept], is_end[kept], of[kept]
        begins_join = is_end & ~np.concatenate([[False], is_end[:-1]]) if len(of) else is_end
        joins = np.bincount(of[begins_join], minlength=len(parent))
        first_state = np.cumsum(joins + 1) - joins - 1
        # The first event of a parent is a begin: joins counted through all parents, plus a first state for each.
        state = np.cumsum(begins_join) + of
        times = np.where(is_end, found.end_ns[child], found.start_ns[child])
        state_ns = np.full(len(parent) + int(joins.sum()), -_NEVER)
        state_ns[first_state] = found.start_ns[parent]
        np.maximum.at(state_ns, state[is_end], times[is_end])
        running = np.cumsum(np.where(is_end, -1, 1))
        starts_stretch = ~is_end & (running == 1)
        stretch = np.maximum.accumulate(np.where(starts_stretch, np.arange(len(child)), 0))
        quiet_until = np.minimum(times[stretch], never_ns[of]) if len(of) else times
        begins = np.flatnonzero(~is_end)
        ends = np.flatnonzero(is_end)
        began_in, own_ns = np.zeros(last - first, np.int64), np.zeros(last - first, np.int64)
        began_in[child[begins] - first] = state[begins]
        own_ns[child[begins] - first] = np.maximum(quiet_until[begins] - state_ns[state[begins]], 0)
        last_state = first_state + joins
        pause_ns = np.diff(state_ns, prepend=0)
        pause_ns[first_state] = 0
        ended = child[ends]
        return _Joins(
            parent=parent,
            first_state=first_state,
            last_state=last_state,
            tail_ns=np.maximum(np.minimum(found.end_ns[parent], never_ns) - state_ns[last_state], 0),
            child=ended,
            state=began_in[ended - first],
            own_ns=own_ns[ended - first],
            join=state[ends],
            wait_ns=state_ns[state[ends]] - found.end_ns[ended],
            pause_ns=pause_ns,
        )


def _events_below(found: Structure, waits: _Waits, first: int, last: int) -> tuple[Ints, Bools]:
    """Return the events below the parents in a part whose children have to be joined."""
    child, is_end = found.events
    since, until = np.searchsorted(found.parent[child], (first, last))
    child, is_end = child[since:until], is_end[since:until]
    kept = waits.is_joined[found.parent[child]]
    return child[kept], is_end[kept]


def _replay(
    found: Structure, waits: _Waits, heads: Ints, part: tuple[int, int], column: Ints, shares: Floats, width: int
) -> Floats:
    """Return the savings of the heads of a part, by column and share."""
    number = np.full(part[1] - part[0], -1, np.int64)
    number[heads - part[0]] = np.arange(len(heads))
    saved = _of_regions(waits, number, len(heads), part, plain_ns, column, width)[..., None] * shares
    joins = _Joins.of(found, waits, *part)
    child = number[joins.child - part[0]]
    state_saved = np.zeros((len(joins.pause_ns), width, len(shares)))
    for of_depth, steps in _by_depth(joins, waits.depth[joins.parent]):
        for rows in steps:
            _join(found, joins, rows, column, shares, saved[child[rows]], state_saved)
        parent = joins.parent[of_depth]
        total = state_saved[joins.last_state[of_depth]]
        _add_own(total, column[parent], joins.tail_ns[of_depth], shares)
        np.add.at(saved, number[waits.head[parent] - part[0]], total)
    return saved


def _of_regions(
    waits: _Waits, number: Ints, count: int, part: tuple[int, int], plain_ns: Ints, column: Ints, width: int
) -> Floats:
    """Return by head and column the self time of the spans of its region whose children ran one after the other."""
    place = part[0] + np.flatnonzero((plain_ns > 0)[slice(*part)] & (column >= 0)[slice(*part)])
    cell = number[waits.head[place] - part[0]] * width + column[place]
    return np.bincount(cell, plain_ns[place], count * width).reshape(count, width)


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


def _join(
    found: Structure, joins: _Joins, rows: Ints, column: Ints, shares: Floats, saved: Floats, state_saved: Floats
) -> None:
    """Fill the savings of one join of each of some parents; `rows` are their children, `saved` what these save."""
    saved += state_saved[joins.state[rows]]
    _add_own(saved, column[found.parent[joins.child[rows]]], joins.own_ns[rows], shares)
    saved += joins.wait_ns[rows, None, None]
    join = joins.join[rows]
    first = np.flatnonzero(np.concatenate([[True], join[1:] != join[:-1]]))
    join = join[first]
    least = np.minimum.reduceat(saved, first, axis=0) if len(first) < len(rows) else saved
    state_saved[join] = np.minimum(least, state_saved[join - 1] + joins.pause_ns[join, None, None])


def _add_own(saved: Floats, column: Ints, own_ns: Ints, shares: Floats) -> None:
    """Add to savings what the parents themselves save."""
    rows = np.flatnonzero((column >= 0) & (own_ns > 0))
    saved[rows, column[rows]] += own_ns[rows, None] * shares
