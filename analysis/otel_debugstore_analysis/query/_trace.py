"""One trace as a tree.

What was recorded need not be a tree: parents that were not recorded, two spans with one id (a span open at a
fork ends in both processes), spans that are each other's parents. Every span has one place all the
same: a span whose parent is missing, and one of each circle, stand at the top and are marked.
"""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple

import ibis
import ibis.expr.types as ir

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._engine import Engine

Mark = Literal["", "orphan", "cycle"]

MAX_FETCHED: Final = 200_000
"""Of a larger trace the longest spans are looked at, so that memory stays bounded."""
_ID_LENGTH: Final = 32
_COLUMNS: Final = (
    "span_id",
    "parent_id",
    "name",
    "component",
    "layer",
    "service",
    "session",
    "pid",
    "start_ns",
    "duration_ns",
    "self_ns",
    "status",
    "status_message",
    "exception_type",
    "exception_message",
)


class _Row(NamedTuple):
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


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace: its spans in the order in which they are read, parents before children.

    Attributes:
        start_ns: Nanoseconds since 1970-01-01 UTC; None where no span has a start.
        duration_ns: From the first start to the last end.
        span_count: Spans recorded.
        error_count: Of these, those that failed.
        spans: Those shown.
        left_out: How many are not: the shortest.
    """

    trace_id: str
    start_ns: int | None
    duration_ns: int | None
    span_count: int
    error_count: int
    spans: tuple[TraceSpan, ...]
    left_out: int


def trace(engine: Engine, trace_id: str, limit: int = 1000) -> Trace:
    """Return a trace, over all sessions of the engine.

    Args:
        engine: Where the spans lie.
        trace_id: Its id, or as much of the id's beginning as no other trace has.
        limit: How many spans at most: the longest, and whatever lies above them.

    Raises:
        QueryError: No trace, or more than one, begins like that.
    """
    prefix = _checked(trace_id)
    found = None if len(prefix) == _ID_LENGTH else _find(engine, prefix)
    rows = _spans(engine, prefix, found)
    if len(rows) >= MAX_FETCHED:
        found = found or _find(engine, prefix)
    starts = [row.start_ns for row in rows if row.start_ns is not None]
    start = min(starts, default=None)
    ends = [row.start_ns + row.duration_ns for row in rows if row.start_ns is not None and row.duration_ns]
    spans = tuple(_shown(rows, start, limit))
    span_count = found.span_count if found else len(rows)
    return Trace(
        found.trace_id if found else prefix,
        start,
        max([*starts, *ends]) - start if start is not None else None,
        span_count,
        found.error_count if found else sum(row.status == "ERROR" for row in rows),
        spans,
        span_count - len(spans),
    )


class _Found(NamedTuple):
    trace_id: str
    start_ns: int | None
    end_ns: int | None
    span_count: int
    error_count: int


def _checked(prefix: str) -> str:
    clean = prefix.strip().lower()
    if not clean or len(clean) > _ID_LENGTH or not set(clean) <= set(string.hexdigits):
        raise QueryError(f"{prefix[:40]!r} is no trace id: that is 32 hexadecimal digits, or the first of them.")
    return clean


def _find(engine: Engine, prefix: str) -> _Found:
    rows = tables.run(engine, _candidates, prefix=prefix)
    if not rows:
        raise _unknown(prefix)
    if len(rows) > 1:
        listed = ", ".join(row[0] for row in rows[:3])
        raise QueryError(f"Several traces begin with {prefix!r}: {listed}, ...; give more digits.")
    return _Found(*rows[0])


def _unknown(prefix: str) -> QueryError:
    return QueryError(f"No trace begins with {prefix!r} there; look in other sessions (--all-sessions).")


def _candidates() -> ir.Table:
    traces = tables.traces()
    traces = traces.filter(traces.trace_id.startswith(tables.parameter("prefix")))
    return (
        traces.group_by("trace_id")
        .aggregate(
            start_ns=traces.start_ns.min(),
            end_ns=traces.end_ns.max(),
            span_count=traces.span_count.sum(),
            error_count=traces.error_count.sum(),
        )
        .order_by("trace_id")
        .limit(4)
    )


def _spans(engine: Engine, trace_id: str, found: _Found | None) -> list[_Row]:
    """Return the trace's spans, by start time; of very many the longest."""
    rows: list[tuple[Any, ...]] = []
    if found is None:
        rows = _fetch(engine, trace_id)
        if not rows:
            raise _unknown(trace_id)
    elif found.start_ns is not None and found.end_ns is not None:
        rows = _fetch(engine, found.trace_id, start_ns=found.start_ns, end_ns=found.end_ns)
    if found and len(rows) < min(found.span_count, MAX_FETCHED):  # spans without a start, or ending before it
        rows = _fetch(engine, found.trace_id)
    return sorted(map(_Row._make, rows), key=lambda row: (row.start_ns is None, row.start_ns or 0))


def _fetch(engine: Engine, trace_id: str, **window: int) -> list[tuple[Any, ...]]:
    return tables.run(engine, _trace_spans, bool(window), trace_id=trace_id, **window)


def _trace_spans(windowed: bool) -> ir.Table:
    spans = tables.spans()
    conditions = [spans.trace_id == tables.parameter("trace_id")]
    if windowed:
        conditions.append(spans.start_ns >= tables.parameter("start_ns", "int64"))
        conditions.append(spans.start_ns <= tables.parameter("end_ns", "int64"))
    found = spans.filter(*conditions).select(*_COLUMNS)
    return found.order_by(ibis.desc("duration_ns", nulls_first=False)).limit(MAX_FETCHED)


def _shown(rows: Sequence[_Row], start_ns: int | None, limit: int) -> Iterator[TraceSpan]:
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


def _parents(rows: Sequence[_Row]) -> list[int | None]:
    """Return by row the row of its parent, None at the top; no row is its own ancestor."""
    by_id: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        by_id[row.span_id].append(number)
    parents = [_parent(rows, row, by_id.get(row.parent_id or "", ())) for row in rows]
    settled = [False] * len(rows)
    for number in range(len(rows)):
        _cut_circles(number, parents, settled)
    return parents


def _parent(rows: Sequence[_Row], row: _Row, candidates: Iterable[int]) -> int | None:
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


def _marks(rows: Sequence[_Row], parents: Sequence[int | None]) -> dict[int, Mark]:
    known = {row.span_id for row in rows}
    return {
        number: "cycle" if row.parent_id in known else "orphan"
        for number, (row, parent) in enumerate(zip(rows, parents, strict=True))
        if parent is None and row.parent_id is not None
    }


def _kept(rows: Sequence[_Row], parents: Sequence[int | None], limit: int) -> set[int]:
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


def _span(row: _Row, depth: int, start_ns: int | None, mark: Mark, hidden: int) -> TraceSpan:
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
