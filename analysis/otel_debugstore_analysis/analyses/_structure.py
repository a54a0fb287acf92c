"""Who waited for whom: the spans of a frame as runs of workflows, on one clock, each child within its parent.

A run is what is asked about: a root and all that hangs below it, or a span of a chosen component or layer.

1.  Runs. Every root is one, so a trace with several roots has several runs. Spans whose parent was not recorded are
    runs in traces that have no root (a service's own part of a trace); in other traces they are left out, with all
    below them, since where they belong is not known.
2.  Clocks. A SERVER span that begins before its CLIENT span, or after that one ended without an error, can't have: its
    process has another clock. It is moved with all that lies below it to the middle of the CLIENT span, as Jaeger
    does, or to its begin if it is the longer one.
3.  Detached children take part in nothing: those that begin when their parent has ended, or ended before it began,
    and the CONSUMER of another service or below a PRODUCER, whom nobody waits for. What follows from a span, and is no
    child of it, is a root (Jaeger's FOLLOWS_FROM, OpenTelemetry's links).
4.  Clipping. A child that outlives its parent, or begins before it, is cut to it (CRISP, Jaeger).
5.  Overlap. Of two children one after the other the earlier may reach into the later by less than 1 % of their
    parent, if no other child begins or ends meanwhile: clocks are not exact (CRISP). It is cut there.

Sources: Zhang et al., "CRISP: Critical Path Analysis of Large-Scale Microservice Architectures" (USENIX ATC 2022);
Jaeger's user interface (`CriticalPath`) and its adjuster of clock skew.

All of it is arithmetic over columns. What goes along a way of unknown length (from a span to its root, from a child to
the one before) is done by doubling: in round k every span knows what the 2^k next on its way say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from otel_debugstore_analysis.query._frame import SpanFrame

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_FAR_NS: Final = 4_000_000_000_000_000_000
"""Spans beyond this time (the year 2096) are not moved to another clock: sums could overflow."""
_MAX_KEY: Final = 2.0**61
OVERLAP_PARTS: Final = 100
"""An overlap, or an overrun, below one in so many parts of the parent's duration is one of clocks."""


class Events(NamedTuple):
    """Begins and ends of all children, by parent and time; an end comes before a begin at the same time.

    Attributes:
        child: Whose event, as a place in `Structure.rows`.
        is_end: Whether it is its end.
    """

    child: Ints
    is_end: Bools


@dataclass(frozen=True)
class Structure:
    """Spans that take part in runs. "Place" is a place in `rows`.

    Attributes:
        tops: By run the row of its span in the frame.
        rows: Rows of the frame, ascending: spans that last, each within its parent.
        parent: The place of the parent; -1 for the span of a run.
        run: The number of the run.
        start_ns, end_ns: On the clock of the run, clipped; the end is after the start.
        is_awaited: Whether the parent can have waited for its end: it did not outlive its parent by 1 % of it or more,
            or is the SERVER of a CLIENT.
        events: Begins and ends of children.
        notes: What has to be said of it.
    """

    tops: Ints
    rows: Ints
    parent: Ints
    run: Ints
    start_ns: Ints
    end_ns: Ints
    is_awaited: Bools
    events: Events
    notes: tuple[str, ...]


def structure(frame: SpanFrame, workflow: str | None = None, layer: str | None = None) -> Structure:
    """Return the runs of a frame: of its roots, or else the outermost spans of a component or layer."""
    is_top = _tops(frame, workflow, layer)
    parent = np.where(is_top, -1, frame.parent).astype(np.int64)
    tops = np.flatnonzero(is_top)
    above = np.where(parent >= 0, parent, np.arange(len(parent)))
    start, end, moved = _on_one_clock(frame, parent, above)
    low, high = np.maximum(start, start[above]), np.minimum(end, end[above])
    takes_part = (high > low) & ((parent >= 0) & ~_is_asynchronous(frame, parent, above) | is_top)
    overrun, room = end - high, end[above] - start[above]
    is_served = _is_served(frame, above)
    is_awaited = is_served | (overrun < np.maximum(room // OVERLAP_PARTS, 1))
    child = np.flatnonzero(takes_part & ~is_top)
    events, high = _events(child, above, low, high, start, end)
    high = np.where(takes_part, high, low)
    low, high, top = _within_ancestors(above, low, high)
    is_live = high > low
    rows = np.flatnonzero(is_live)
    place = np.full(len(parent), -1, np.int64)
    place[rows] = np.arange(len(rows))
    number = np.zeros(len(parent), np.int64)
    number[tops] = np.arange(len(tops))
    kept = is_live[events.child]
    return Structure(
        tops=tops,
        rows=rows,
        parent=np.where(parent[rows] >= 0, place[above[rows]], -1),
        run=number[top[rows]],
        start_ns=low[rows],
        end_ns=high[rows],
        is_awaited=is_awaited[rows],
        events=Events(place[events.child[kept]], events.is_end[kept]),
        notes=_notes(frame, workflow is None and layer is None, moved),
    )


def along(parent: Ints, *steps: Callable[[Ints], bool | None]) -> Ints:
    """Call each step with where 1, 2, 4, ... parents up leads, and return where the way up ends.

    Args:
        parent: By place the next one; itself at the end of the way. There are no circles.
        steps: Combine what is at a place with what is at the place given for it; doing so again must not matter.
    """
    while True:
        for step in steps:
            step(parent)
        further = parent[parent]
        if np.array_equal(further, parent):
            return parent
        parent = further


def _tops(frame: SpanFrame, workflow: str | None, layer: str | None) -> Bools:
    if workflow is None and layer is None:
        is_root = (frame.parent < 0) & ~frame.is_orphan
        has_root = np.zeros(len(frame.trace_ids), np.bool_)
        has_root[frame.trace[is_root]] = True
        without_root: Bools = (frame.parent < 0) & ~has_root[frame.trace]
        return is_root | without_root
    chosen = np.ones(len(frame), np.bool_)
    if workflow is not None:
        chosen &= _has(frame.component, frame.components, workflow)
    if layer is not None:
        chosen &= _has(frame.layer, frame.layers, layer)
    parent = frame.parent.astype(np.int64)
    is_below = (parent >= 0) & chosen[parent]

    def below(ancestor: Ints) -> None:
        is_below[:] |= is_below[ancestor]

    along(np.where(parent >= 0, parent, np.arange(len(parent))), below)
    return chosen & ~is_below


def _has(codes: npt.NDArray[np.int32], values: tuple[str | None, ...], value: str) -> Bools:
    found: Bools = codes == (values.index(value) if value in values else -1)
    return found


def _is_kind(frame: SpanFrame, kind: str) -> Bools:
    return _has(frame.kind, frame.kinds, kind)


def _is_served(frame: SpanFrame, above: Ints) -> Bools:
    return _is_kind(frame, "SERVER") & _is_kind(frame, "CLIENT")[above]


def _is_asynchronous(frame: SpanFrame, parent: Ints, above: Ints) -> Bools:
    is_elsewhere: Bools = frame.service != frame.service[above]
    nobody_waits: Bools = is_elsewhere | _is_kind(frame, "PRODUCER")[above]
    return (parent >= 0) & _is_kind(frame, "CONSUMER") & nobody_waits


def _on_one_clock(frame: SpanFrame, parent: Ints, above: Ints) -> tuple[Ints, Ints, int]:
    """Return begins and ends on the clock of the run, and how many spans were moved for it."""
    start, end = frame.start_ns, frame.end_ns
    first, last = start[above], end[above]
    is_after = (start >= last) & (end > last) & ~frame.is_error[above]
    is_wrong = (parent >= 0) & _is_served(frame, above) & ((start < first) | is_after)
    is_near = (np.abs(start) < _FAR_NS) & (end < _FAR_NS)
    is_wrong &= is_near & is_near[above]
    if not is_wrong.any():
        return start, end, 0
    latency = np.maximum((last - first) - (end - start), 0) // 2
    shift = np.where(is_wrong, first + latency - start, 0)

    def add(ancestor: Ints) -> None:
        shift[:] += shift[ancestor]

    along(above, add)
    shift = np.where(is_near, shift, 0)
    return start + shift, end + shift, int(np.count_nonzero(shift))


def _events(child: Ints, above: Ints, low: Ints, high: Ints, start: Ints, end: Ints) -> tuple[Events, Ints]:
    """Return the children's events, and the ends of all spans where small overlaps are cut off."""
    backwards = child[::-1]
    whose = np.concatenate([backwards, child])
    is_end = np.arange(len(whose)) < len(child)
    time = np.concatenate([high[backwards], low[child]])
    order = _by_parent_and_time(above[whose], time, is_end, start, end)
    whose, is_end, time = whose[order], is_end[order], time[order]
    at = _small_overlaps(whose, above[whose], time, is_end, end - start)
    if len(at):
        high = high.copy()
        high[whose[at + 1]] = time[at]
        swapped = np.arange(len(whose))
        swapped[at], swapped[at + 1] = at + 1, at
        whose, is_end = whose[swapped], is_end[swapped]
    return Events(whose, is_end), high


def _by_parent_and_time(parent: Ints, time: Ints, is_end: Bools, start: Ints, end: Ints) -> Ints:
    """Return the order of events; those that are equal in all stay in theirs."""
    if (end - start).sum(dtype=np.float64) + len(start) > _MAX_KEY:
        return np.lexsort((~is_end, time, parent))
    room = end - start + 1
    base = np.cumsum(room) - room - start
    return np.argsort((base[parent] + time) * 2 + ~is_end, kind="stable")


def _small_overlaps(whose: Ints, parent: Ints, time: Ints, is_end: Bools, duration: Ints) -> Ints:
    """Return the places of begins that are soon followed by the end of another child, with nothing else near."""
    if len(parent) < 4:
        return np.empty(0, np.int64)
    same, later = parent[1:] == parent[:-1], time[1:] > time[:-1]
    another = whose[1:] != whose[:-1]
    at = np.flatnonzero(~is_end[1:-2] & is_end[2:-1] & same[1:-1] & another[1:-1]) + 1
    alone = (~same[at - 1] | later[at - 1]) & (~same[at + 1] | later[at + 1]) & later[at]
    overlap = time[at + 1] - time[at]
    is_small = overlap < duration[parent[at]] / OVERLAP_PARTS
    found: Ints = at[alone & is_small]
    return found


def _within_ancestors(above: Ints, low: Ints, high: Ints) -> tuple[Ints, Ints, Ints]:
    """Return begins and ends clipped to all ancestors, and the row of the topmost one."""
    low, high = low.copy(), high.copy()

    def clip(ancestor: Ints) -> None:
        np.maximum(low, low[ancestor], out=low)
        np.minimum(high, high[ancestor], out=high)

    return low, high, along(above, clip)


def _notes(frame: SpanFrame, of_roots: bool, moved: int) -> tuple[str, ...]:
    notes = []
    if of_roots:
        tops = (frame.parent < 0) & frame.is_orphan
        has_root = np.zeros(len(frame.trace_ids), np.bool_)
        has_root[frame.trace[(frame.parent < 0) & ~frame.is_orphan]] = True
        lost = int(np.count_nonzero(tops & has_root[frame.trace]))
        partial = int(np.count_nonzero(~has_root))
        if lost:
            notes.append(f"{lost:,} spans whose parent was not recorded are left out, with what lies below them.")
        if partial:
            notes.append(f"{partial:,} traces have no root: their topmost spans are taken for runs.")
    if moved:
        notes.append(f"{moved:,} spans were moved: the clock of their process differs from that of their caller.")
    return tuple(notes)
