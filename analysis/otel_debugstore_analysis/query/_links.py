"""Spans of many traces linked to their parents, and their self times: numpy over whole columns.

Rows are sorted by trace, and in it by start. What was recorded need not be a tree; `_tree` says what is made of it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FAR_NS: Final = 4_000_000_000_000_000_000
"""Times beyond this count for no self time, as in a segment; sums of them could overflow."""
_MAX_EDGES: Final = 20_000_000
"""Of spans that share ids: parents and children that are looked at for self times."""


class Spans(NamedTuple):
    """What links spans: columns of equal length."""

    trace: npt.NDArray[np.int32]
    span_id: npt.NDArray[np.uint64]
    parent_id: npt.NDArray[np.uint64]
    has_parent: Bools
    pid: Ints
    start_ns: Ints
    duration_ns: Ints
    """Not negative."""


class Links(NamedTuple):
    """How spans hang together.

    Attributes:
        parent: The row of the parent, -1 at the top; no row is its own ancestor.
        is_orphan: The parent was not recorded.
        self_ns: The duration less what children cover of it.
        circles: How many circles of spans that are each other's parents were cut.
        is_bounded: So many spans share ids that self times take one parent of each.
    """

    parent: npt.NDArray[np.int32]
    is_orphan: Bools
    self_ns: Ints
    circles: int
    is_bounded: bool


def link(spans: Spans) -> Links:
    """Return the parents and self times of spans."""
    index = _Index.of(spans)
    first, count = index.find(spans)
    parent = index.order[first].astype(np.int64) if len(index.order) else first
    parent[count == 0] = -1
    several = np.flatnonzero(count > 1)
    if len(several):
        parent[several] = _same_process(spans, index, several, first[several])
    is_orphan = spans.has_parent & (count == 0)
    child, above = _edges(index, first, count)
    is_bounded = child is None
    if child is None or above is None:
        child = np.flatnonzero(parent >= 0)
        above = parent[child]
    self_ns = _self_times(spans, child, above)
    circles = _cut_circles(parent)
    return Links(parent.astype(np.int32), is_orphan, self_ns, circles, is_bounded)


class _Index(NamedTuple):
    """Rows by trace and span id."""

    keys: npt.NDArray[np.uint64]
    order: Ints
    shift: int
    codes: npt.NDArray[np.uint64]
    parent_codes: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, spans: Spans) -> _Index:
        """Return the index of all rows; keys are the trace's number and as many bits of the id as there is room for."""
        shift = 64 - max(int(spans.trace[-1]) if len(spans.trace) else 0, 1).bit_length()
        codes, parent_codes = spans.span_id, spans.parent_id
        mask = np.uint64((1 << shift) - 1)
        found = cls._sorted(spans, codes & mask, shift)
        if found is not None:
            return cls(*found, shift, codes, parent_codes)
        # Two ids of a trace differ in the bits only that there is no room for: number the ids.
        both = np.concatenate([codes, parent_codes])
        numbers = np.unique(both, return_inverse=True)[1].astype(np.uint64)
        codes, parent_codes = numbers[: len(codes)], numbers[len(codes) :]
        found = cls._sorted(spans, codes, shift)
        assert found is not None
        return cls(*found, shift, codes, parent_codes)

    @staticmethod
    def _sorted(spans: Spans, low: npt.NDArray[np.uint64], shift: int) -> tuple[npt.NDArray[np.uint64], Ints] | None:
        """Return keys in order and the rows they are of, None where two ids have one key."""
        keys = (spans.trace.astype(np.uint64) << np.uint64(shift)) | low
        order = np.argsort(keys)
        keys = keys[order]
        same = np.flatnonzero(keys[1:] == keys[:-1])
        if len(same):
            if np.any(spans.span_id[order[same]] != spans.span_id[order[same + 1]]):
                return None
            order = np.argsort((spans.trace.astype(np.uint64) << np.uint64(shift)) | low, kind="stable")
        return keys, order

    def find(self, spans: Spans) -> tuple[Ints, Ints]:
        """Return by row where in `order` the rows with its parent's id begin, and how many they are."""
        rows = len(self.keys)
        mask = np.uint64((1 << self.shift) - 1)
        wanted = (spans.trace.astype(np.uint64) << np.uint64(self.shift)) | (self.parent_codes & mask)
        first = np.searchsorted(self.keys, wanted)
        first[first == rows] = 0
        count = np.zeros(rows, np.int64)
        if rows:
            found = self.order[first]
            hit = spans.has_parent & (self.keys[first] == wanted) & (self.codes[found] == self.parent_codes)
            count[hit] = 1
            if np.any(self.keys[1:] == self.keys[:-1]):
                count[hit] = np.searchsorted(self.keys, wanted[hit], side="right") - first[hit]
        return first, count


def _same_process(spans: Spans, index: _Index, rows: Ints, first: Ints) -> Ints:
    """Return the parents of rows that have several to choose from: the first of the same process, or else the first.

    `first` is where in the index they begin.
    """
    repeated = np.zeros(len(index.keys), np.bool_)
    same = index.keys[1:] == index.keys[:-1]
    repeated[1:] |= same
    repeated[:-1] |= same
    places = np.flatnonzero(repeated)
    group = np.searchsorted(index.keys, index.keys[places]).astype(np.int64)  # a group is where it begins
    pids = np.unique(spans.pid, return_inverse=True)[1]
    pid_count = int(pids.max()) + 1
    group_number = np.unique(group, return_inverse=True)[1]
    pairs = group_number * pid_count + pids[index.order[places]]
    order = np.argsort(pairs, kind="stable")  # places are in the order of rows within a group
    pairs = pairs[order]
    starts = np.unique(group)
    wanted = np.searchsorted(starts, first) * pid_count + pids[rows]
    at = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    own = index.order[places[order[at]]]
    return np.where(pairs[at] == wanted, own, index.order[first]).astype(np.int64)


def _edges(index: _Index, first: Ints, count: Ints) -> tuple[Ints, Ints] | tuple[None, None]:
    """Return every pair of a child and a row with its parent's id; None if there are too many."""
    total = int(count.sum())
    if total > _MAX_EDGES:
        return None, None
    child = np.repeat(np.arange(len(count)), count)
    if total == np.count_nonzero(count):
        return child, index.order[first[child]]
    within = np.arange(total) - np.repeat(np.cumsum(count) - count, count)
    return child, index.order[first[child] + within]


def _self_times(spans: Spans, child: Ints, parent: Ints) -> Ints:
    """Return the durations less the union of the children's intervals, each clipped to its parent's.

    The definition is that of `schema.self_times`: spans that share an id each count all children of that id.
    """
    start, duration = spans.start_ns, spans.duration_ns
    usable = (np.abs(start) <= FAR_NS) & (duration >= 1) & (duration <= FAR_NS)
    keep = usable[child] & usable[parent]
    # By parent, and in the order of rows, which is that of starts: a number for both, since there's nothing to look up.
    packed = parent[keep] * len(start) + child[keep]
    packed.sort()
    parent, child = np.divmod(packed, max(len(start), 1))
    end = start + np.where(usable, duration, 0)
    from_ns = np.maximum(start[child], start[parent])
    to_ns = np.minimum(end[child], end[parent])
    overlaps = to_ns > from_ns
    parent, from_ns, to_ns = parent[overlaps], from_ns[overlaps], to_ns[overlaps]
    covered = np.zeros(len(start), np.int64)
    for part in _parts(parent, duration):
        _add_union(
            covered, parent[part], from_ns[part] - start[parent[part]], to_ns[part] - start[parent[part]], duration
        )
    return duration - covered


def _parts(parent: Ints, duration: Ints) -> list[slice]:
    """Return slices of rows by parent, of each of which the parents' durations can be added up."""
    if not len(parent):
        return []
    firsts = np.flatnonzero(np.diff(parent, prepend=-1))
    total = np.cumsum(duration[parent[firsts]].astype(np.float64))
    if total[-1] < FAR_NS:
        return [slice(0, len(parent))]
    bounds, begun = [0], 0.0
    for place, reached, length in zip(firsts.tolist(), total.tolist(), duration[parent[firsts]].tolist(), strict=True):
        if reached - begun > FAR_NS and place > bounds[-1]:
            bounds.append(place)
            begun = reached - length
    return [slice(low, high) for low, high in zip(bounds, [*bounds[1:], len(parent)], strict=True)]


def _add_union(covered: Ints, parent: Ints, from_ns: Ints, to_ns: Ints, duration: Ints) -> None:
    """Add to `covered` how much of each parent its children cover together; times count from the parent's start.

    The parents' intervals are laid end to end, so that one running maximum serves all of them.
    """
    is_first = np.diff(parent, prepend=-1) != 0
    firsts = np.flatnonzero(is_first)
    lengths = duration[parent[firsts]]
    offset = (np.cumsum(lengths) - lengths)[np.cumsum(is_first) - 1]
    reached = np.maximum.accumulate(to_ns + offset)
    before = np.concatenate([[0], reached[:-1]])
    new = np.maximum(to_ns + offset - np.maximum(from_ns + offset, before), 0)
    covered[parent[firsts]] = np.add.reduceat(new, firsts)


def _cut_circles(parent: Ints) -> int:
    """Put the earliest row of every circle at the top; return how many circles there were."""
    if not np.any(parent >= np.arange(len(parent))):
        return 0  # each parent is before its children
    above = parent.copy()
    for _ in range(len(parent).bit_length()):
        inside = np.flatnonzero(above >= 0)
        if not len(inside):
            return 0
        above[inside] = above[above[inside]]
    circles = 0
    left = np.unique(above[above >= 0])
    passed: set[int] = set()
    for row in left.tolist():
        if row in passed:
            continue
        circle = [row]
        while (following := int(parent[circle[-1]])) != row:
            circle.append(following)
        passed.update(circle)
        parent[min(circle)] = -1
        circles += 1
    return circles
