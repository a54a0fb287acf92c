"""One trace, found by its id and arranged as a tree (see `_tree`)."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._engine import Engine
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._tree import Row, TraceSpan, arrange

if TYPE_CHECKING:
    import ibis.expr.types as ir

MAX_FETCHED: Final = 200_000
"""Of a larger trace the longest spans are looked at, so that memory stays bounded."""
_ID_LENGTH: Final = 32
_MAX_SESSIONS: Final = 1000


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
    found = _find(engine, _checked(trace_id))
    rows = _spans(engine, found)
    starts = [row.start_ns for row in rows if row.start_ns is not None]
    start = min(starts, default=None)
    ends = [row.start_ns + row.duration_ns for row in rows if row.start_ns is not None and row.duration_ns]
    spans = tuple(arrange(rows, start, limit))
    span_count = max(found.span_count, len(rows))
    return Trace(
        found.trace_id,
        start,
        max([*starts, *ends]) - start if start is not None else None,
        span_count,
        found.error_count,
        spans,
        span_count - len(spans),
    )


def whole_id(engine: Engine, trace_id: str) -> str:
    """Return the id of the one trace that begins like that.

    Raises:
        QueryError: No trace, or more than one, begins like that.
    """
    return _find(engine, _checked(trace_id)).trace_id


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
    rows = [_Found._make(row) for row in tables.run(engine, _candidates, len(prefix) == _ID_LENGTH, prefix=prefix)]
    ids = list(dict.fromkeys(row.trace_id for row in rows))
    if not ids:
        raise QueryError(f"No trace begins with {prefix!r} there; look in other sessions (--all-sessions).")
    if len(ids) > 1:
        raise QueryError(f"Several traces begin with {prefix!r}: {', '.join(ids[:3])}, ...; give more digits.")
    return _Found(
        ids[0],
        min((row.start_ns for row in rows if row.start_ns is not None), default=None),
        max((row.end_ns for row in rows if row.end_ns is not None), default=None),
        sum(row.span_count for row in rows),
        sum(row.error_count for row in rows),
    )


def _candidates(whole: bool) -> ir.Table:
    """Return the rows of the trace, one a session; if there are several traces, of the first ones."""
    traces = tables.traces()
    prefix = tables.parameter("prefix")
    match = traces.trace_id == prefix if whole else traces.trace_id.startswith(prefix)
    rows = traces.filter(match).select(*_Found._fields)
    return rows if whole else rows.order_by("trace_id").limit(_MAX_SESSIONS)


def _spans(engine: Engine, found: _Found) -> list[Row]:
    """Return the trace's spans, by start time; of very many the longest."""
    rows: list[tuple[Any, ...]] = []
    if found.start_ns is not None and found.end_ns is not None:
        rows = _fetch(engine, found, start_ns=found.start_ns, end_ns=found.end_ns)
    if len(rows) < min(found.span_count, MAX_FETCHED):  # spans without a start, or that end before it
        rows = _fetch(engine, found)
    return sorted(map(Row._make, rows), key=_by_start)


def _by_start(row: Row) -> tuple[Any, ...]:
    """Sort key: by start; of spans that start together the longest first: one order on every engine, and in `frame`."""
    return (
        row.start_ns is None,
        row.start_ns or 0,
        -max(row.duration_ns or 0, 0),
        row.span_id,
        -1 if row.pid is None else row.pid,
        row.parent_id or "",
        row.name,
    )


def _fetch(engine: Engine, found: _Found, **window: int) -> list[tuple[Any, ...]]:
    query = tables.compiled(engine.dialect, _trace_spans, bool(window), found.span_count > MAX_FETCHED)
    return engine.fetch(query, {"trace_id": found.trace_id, **window}, further=True)


def _trace_spans(windowed: bool, is_large: bool) -> ir.Table:
    """Return the spans of the trace; the longest if it is large (a limit alone takes a fifth of the time)."""
    spans = tables.spans()
    conditions = [spans.trace_id == tables.parameter("trace_id")]
    if windowed:
        conditions.append(spans.start_ns >= tables.parameter("start_ns", "int64"))
        conditions.append(spans.start_ns <= tables.parameter("end_ns", "int64"))
    found = spans.filter(*conditions).select(*Row._fields)
    longest_first = ibis.desc("duration_ns", nulls_first=False)
    return found.order_by(longest_first).limit(MAX_FETCHED) if is_large else found
