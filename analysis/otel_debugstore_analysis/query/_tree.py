"""Spans of one trace put into an order that is read as a tree.

What was recorded need not be a tree: parents that were not recorded, two spans with one id (a span open at a
fork ends in both processes), spans that are each other's parents. Every span has one place all the
same: a span whose parent is missing, and one of each circle, stand at the top and are marked.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Mark = Literal["", "orphan", "cycle"]


class Row(NamedTuple):
    """A span as it was recorded."""

    span_id: str
    parent_id: str | None
    name: str
    component: str | None
    layer: str | None
    service: str | None
    session: str
    pid: int | None
    start_ns: int | None
    duration_ns: int | None
    self_ns: int | None
    status: str
    status_message: str | None
    exception_type: str | None
    exception_message: str | None


@dataclass(frozen=True, slots=True)
class TraceSpan:
    """A span at its place in the tree.

    Attributes:
        depth: 0 at the top.
        offset_ns: From the start of the trace; None where the start is not known.
        mark: "orphan": its parent was not recorded, or left out; "cycle": it is its own ancestor.
        hidden: How many spans below it are not shown.
    """

    depth: int
    span_id: str
    parent_id: str | None
    name: str
    component: str | None
    layer: str | None
    service: str | None
    session: str
    pid: int | None
    offset_ns: int | None
    duration_ns: int | None
    self_ns: int | None
    status: str
    error: str | None
    mark: Mark = ""
    hidden: int = 0


def arrange(rows: Sequence[Row], start_ns: int | None, limit: int) -> Iterator[TraceSpan]:
    """Yield the spans, parents before children, siblings in the order of the rows.

    Args:
        rows: The spans by start time.
        start_ns: What offsets count from.
        limit: How many spans at most: the longest, each with all spans above it.
    """
    parents = _parents(rows)
    marks = _marks(rows, parents)
    kept = _kept(rows, parents, limit)
    children: dict[int | None, list[int]] = defaultdict(list)
    for number, parent in enumerate(parents):
        children[parent].append(number)
    below = _hidden_below(parents, children, kept)
    stack = [(number, 0) for number in reversed(children[None])]
    while stack:
        number, depth = stack.pop()
        if number not in kept:
            continue
        yield _span(rows[number], depth, start_ns, marks.get(number, ""), below[number])
        stack.extend((child, depth + 1) for child in reversed(children[number]))


def _parents(rows: Sequence[Row]) -> list[int | None]:
    """Return by row the row of its parent, None at the top; no row is its own ancestor."""
    by_id: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_id[row.span_id].append(number)
    parents = [_parent(rows, row, by_id.get(row.parent_id or "", ())) for row in rows]
    settled = [False] * len(rows)
    for number in range(len(rows)):
        _cut_circles(number, parents, settled)
    return parents


def _parent(rows: Sequence[Row], row: Row, candidates: Iterable[int]) -> int | None:
    """Return the first candidate, if possible one of the same process: a forked span has several."""
    first = None
    for candidate in candidates:
        if rows[candidate].pid == row.pid:
            return candidate
        first = candidate if first is None else first
    return first


def _cut_circles(number: int, parents: list[int | None], settled: list[bool]) -> None:
    """Follow the parents upwards; if the way comes back, put the earliest span of the circle on top."""
    way: dict[int, None] = {}
    at: int | None = number
    while at is not None and not settled[at] and at not in way:
        way[at] = None
        at = parents[at]
    if at is not None and at in way:
        passed = list(way)
        parents[min(passed[passed.index(at) :])] = None
    for passed_row in way:
        settled[passed_row] = True


def _marks(rows: Sequence[Row], parents: Sequence[int | None]) -> dict[int, Mark]:
    known = {row.span_id for row in rows}
    return {
        number: "cycle" if row.parent_id in known else "orphan"
        for number, (row, parent) in enumerate(zip(rows, parents, strict=True))
        if parent is None and row.parent_id is not None
    }


def _kept(rows: Sequence[Row], parents: Sequence[int | None], limit: int) -> set[int]:
    """Return up to `limit` rows: the longest, each with all rows above it."""
    if len(rows) <= limit:
        return set(range(len(rows)))
    kept: set[int] = set()
    for number in sorted(range(len(rows)), key=lambda n: (-(rows[n].duration_ns or 0), n)):
        way: list[int] = []
        at: int | None = number
        while at is not None and at not in kept and len(kept) + len(way) < limit:
            way.append(at)
            at = parents[at]
        if at is None or at in kept:
            kept.update(way)
        if len(kept) >= limit:
            break
    return kept


def _hidden_below(parents: Sequence[int | None], children: dict[int | None, list[int]], kept: set[int]) -> list[int]:
    """Return by row how many rows below it are not kept."""
    hidden = [0] * len(parents)
    if len(kept) == len(parents):
        return hidden
    order = list(children[None])
    for number in order:
        order.extend(children.get(number, ()))
    for number in reversed(order):
        parent = parents[number]
        if parent is not None:
            hidden[parent] += hidden[number] + (number not in kept)
    return hidden


def _span(row: Row, depth: int, start_ns: int | None, mark: Mark, hidden: int) -> TraceSpan:
    known = row.start_ns is not None and start_ns is not None
    error = ": ".join(filter(None, (row.exception_type, row.exception_message or row.status_message)))
    return TraceSpan(
        depth=depth,
        span_id=row.span_id,
        parent_id=row.parent_id,
        name=row.name,
        component=row.component,
        layer=row.layer,
        service=row.service,
        session=row.session,
        pid=row.pid,
        offset_ns=(row.start_ns or 0) - (start_ns or 0) if known else None,
        duration_ns=row.duration_ns,
        self_ns=row.self_ns,
        status=row.status,
        error=error or None,
        mark=mark,
        hidden=hidden,
    )
