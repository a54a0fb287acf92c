"""Where the time goes: spans grouped by component, or by whatever fields (see `_groups`), and the slowest spans."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._engine import Engine
from otel_debugstore_analysis.query._groups import Shape, columns_of, grouped
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import EVERYTHING, Filter, Selection, attributes_among
from otel_debugstore_analysis.query._table import Table

if TYPE_CHECKING:
    import ibis.expr.types as ir

PERCENTILES: Final = {"p50_ns": 0.5, "p95_ns": 0.95, "p99_ns": 0.99}
ORDERS: Final = {
    "total": "total_ns",
    "self": "self_ns",
    "count": "count",
    "errors": "error_rate",
    "p50": "p50_ns",
    "p95": "p95_ns",
    "p99": "p99_ns",
}
_TIES: Final = ("start_ns", "trace_id", "span_id")
_LATE_ROWS: Final = 50
"""Of so many rows DuckDB reads the other columns only once it has found them; ties among them are ordered here."""
_SLOWEST_COLUMNS: Final = (
    "trace_id",
    "span_id",
    "component",
    "name",
    "layer",
    "service",
    "session",
    "start_ns",
    "duration_ns",
    "self_ns",
    "status",
    "exception_type",
)

_TRACE_COLUMNS: Final = (
    "trace_id",
    "root_name",
    "root_duration_ns",
    "start_ns",
    "span_count",
    "error_count",
    "service",
    "session",
)


def top(
    engine: Engine,
    by: str | Sequence[str] = "component",
    *,
    selection: Selection = EVERYTHING,
    order: str = "total",
    limit: int | None = 20,
    percentiles: bool = True,
) -> Table:
    """Return a row a group: count, total and self time, share of all self time, percentiles, error rate.

    Where counted calls can be told apart by the fields, the last column is `recording_ns`: what recording cost.

    Args:
        engine: Where the spans lie.
        by: The field or fields to group by: columns, or keys of attributes.
        selection: Which spans count.
        order: What the rows are sorted by, descending: one of `ORDERS`.
        limit: How many rows at most; None for all.
        percentiles: Whether to compute them; without, the query takes a third of the time.

    Raises:
        QueryError: A field or the order can't be used, or no span has the attribute to group by.
    """
    columns = columns_of(by)
    if order not in ORDERS:
        raise QueryError(f"Rows can't be ordered by {order!r}; take one of {', '.join(ORDERS)}.")
    if not percentiles and ORDERS[order] in PERCENTILES:
        raise QueryError(f"Without percentiles rows can't be ordered by {order!r}; take 'total'.")
    shares = tuple(PERCENTILES.items()) if percentiles else ()
    return grouped(engine, Shape(columns, selection.filter, ORDERS[order], limit, shares), selection).table


def slowest(engine: Engine, *, selection: Selection = EVERYTHING, limit: int = 20) -> Table:
    """Return the spans that took longest, longest first; of equal ones the first, then by ids."""
    place = {name: _SLOWEST_COLUMNS.index(name) for name in ("duration_ns", *_TIES)}
    duration = place["duration_ns"]
    asked = max(limit + 1, _LATE_ROWS)
    rows = tables.run(engine, _slowest, selection.filter, asked, **selection.parameters)
    if len(rows) == asked and rows[-1][duration] == rows[limit - 1][duration]:
        rows = tables.run(engine, _slowest_of_equal, selection.filter, limit, **selection.parameters)
    rows = [row for row in rows if row[duration] is not None]
    rows.sort(key=lambda row: (-row[duration], *((row[place[name]] is None, row[place[name]]) for name in _TIES)))
    return Table(_SLOWEST_COLUMNS, rows[:limit], left_out=None)


def slowest_traces(engine: Engine, *, limit: int = 20) -> Table:
    """Return the traces whose root took longest, longest first."""
    return Table(_TRACE_COLUMNS, tables.run(engine, _slowest_traces, limit), left_out=None)


def _slowest(shape: Filter, limit: int) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among(shape.fields)))
    # One key and no condition: else DuckDB reads every column of every row.
    return spans.select(*_SLOWEST_COLUMNS).order_by(ibis.desc("duration_ns", nulls_first=False)).limit(limit)


def _slowest_of_equal(shape: Filter, limit: int) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among(shape.fields)))
    order = (ibis.desc("duration_ns", nulls_first=False), *(ibis.asc(name, nulls_first=False) for name in _TIES))
    return spans.select(*_SLOWEST_COLUMNS).order_by(*order).limit(limit)


def _slowest_traces(limit: int) -> ir.Table:
    traces = tables.traces()
    traces = traces.filter(traces.root_duration_ns.notnull()).select(*_TRACE_COLUMNS)
    return traces.order_by(ibis.desc("root_duration_ns"), "start_ns", "trace_id").limit(limit)
