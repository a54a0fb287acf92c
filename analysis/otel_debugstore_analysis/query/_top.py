"""Where the time goes: spans grouped by component, or by whatever fields, and the slowest spans.

A span that was sampled stands for `sample_weight` spans: counts, totals and rates are weighted, and so are
percentiles. Where every weight is 1 percentiles are exact (linear interpolation between the two
nearest spans); else they are the least duration that at least that share of the weight does not exceed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import ibis
import ibis.expr.types as ir

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._engine import Engine
from otel_debugstore_analysis.query._selection import (
    ATTRIBUTE,
    EVERYTHING,
    Filter,
    Selection,
    attributes_among,
    column_of,
)
from otel_debugstore_analysis.query._table import Table

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
    fields = (by,) if isinstance(by, str) else tuple(by)
    columns = tuple(dict.fromkeys(map(column_of, fields)))
    if order not in ORDERS:
        raise QueryError(f"Rows can't be ordered by {order!r}; take one of {', '.join(ORDERS)}.")
    if not percentiles and ORDERS[order] in PERCENTILES:
        raise QueryError(f"Without percentiles rows can't be ordered by {order!r}; take 'total'.")
    shape = (columns, selection.filter, ORDERS[order], limit, percentiles)
    rows = tables.run(engine, _top, *shape, **selection.parameters)
    if rows and rows[0][-1]:
        rows = tables.run(engine, _weighted_top, *shape, **selection.parameters)
    _check_attributes(columns, rows)
    groups = rows[0][-2] if rows else 0
    names = (*columns, *_measures(percentiles))
    return Table(_titles(names), [row[:-2] for row in rows], groups - len(rows))


def slowest(engine: Engine, *, selection: Selection = EVERYTHING, limit: int = 20) -> Table:
    """Return the spans that took longest, longest first."""
    rows = tables.run(engine, _slowest, selection.filter, limit, **selection.parameters)
    duration = _SLOWEST_COLUMNS.index("duration_ns")
    return Table(_SLOWEST_COLUMNS, [row for row in rows if row[duration] is not None], left_out=None)


def slowest_traces(engine: Engine, *, limit: int = 20) -> Table:
    """Return the traces whose root took longest, longest first."""
    return Table(_TRACE_COLUMNS, tables.run(engine, _slowest_traces, limit), left_out=None)


def _top(columns: tuple[str, ...], shape: Filter, order: str, limit: int | None, percentiles: bool) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among((*columns, *shape.fields))))
    measures: dict[str, Any] = {
        "count": spans.count(),
        "total_ns": spans.duration_ns.sum(),
        "self_ns": spans.self_ns.sum(),
        "error_rate": spans.count(where=spans.status == "ERROR") / spans.count(),
        "weighted": (spans.sample_weight != 1.0).any(),
    }
    if percentiles:
        measures["percentiles"] = spans.duration_ns.quantile(list(PERCENTILES.values()))
    groups = spans.group_by(*columns).aggregate(**measures)
    if percentiles:
        unpacked = {name: groups.percentiles[i] for i, name in enumerate(PERCENTILES)}
        groups = groups.mutate(**unpacked)
    return _ordered(groups, columns, order, limit, percentiles)


def _weighted_top(
    columns: tuple[str, ...], shape: Filter, order: str, limit: int | None, percentiles: bool
) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among((*columns, *shape.fields))))
    timed = ibis.ifelse(spans.duration_ns.notnull(), spans.sample_weight, 0.0)
    spans = spans.mutate(timed_weight=timed)
    if percentiles:
        group = ibis.window(group_by=columns)
        spans = spans.mutate(
            reached=spans.timed_weight.sum().over(ibis.cumulative_window(group_by=columns, order_by="duration_ns")),
            whole=spans.timed_weight.sum().over(group),
        )
    weight = spans.sample_weight
    measures: dict[str, Any] = {
        "count": weight.sum(),
        "total_ns": (spans.duration_ns * weight).sum(),
        "self_ns": (spans.self_ns * weight).sum(),
        "error_rate": weight.sum(where=spans.status == "ERROR") / weight.sum(),
        "weighted": (weight != 1.0).any(),
    }
    if percentiles:
        for name, share in PERCENTILES.items():
            measures[name] = spans.duration_ns.min(where=spans.reached >= share * spans.whole)
    groups = spans.group_by(*columns).aggregate(**measures)
    return _ordered(groups, columns, order, limit, percentiles)


def _ordered(groups: ir.Table, columns: tuple[str, ...], order: str, limit: int | None, percentiles: bool) -> ir.Table:
    """Add the share of all self time, and of the whole the number of groups and whether a weight is not 1."""
    groups = groups.mutate(
        self_share=groups.self_ns / groups.self_ns.sum().over(ibis.window()).nullif(0),
        groups=groups.count().over(ibis.window()),
        weighted=groups.weighted.any().over(ibis.window()),
    )
    rows = groups.order_by(ibis.desc(order, nulls_first=False), *columns)
    if limit is not None:
        rows = rows.limit(limit)
    return rows.select(*columns, *_measures(percentiles), "groups", "weighted")


def _measures(percentiles: bool) -> tuple[str, ...]:
    return ("count", "total_ns", "self_ns", "self_share", *(PERCENTILES if percentiles else ()), "error_rate")


def _slowest(shape: Filter, limit: int) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among(shape.fields)))
    # One key and no condition: else DuckDB reads every column of every row.
    return spans.select(*_SLOWEST_COLUMNS).order_by(ibis.desc("duration_ns", nulls_first=False)).limit(limit)


def _slowest_traces(limit: int) -> ir.Table:
    traces = tables.traces()
    traces = traces.filter(traces.root_duration_ns.notnull()).select(*_TRACE_COLUMNS)
    return traces.order_by(ibis.desc("root_duration_ns"), "start_ns", "trace_id").limit(limit)


def _check_attributes(columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    """Raise if no span has the attribute: more likely a slip of the pen than a question."""
    if len(rows) == 1:
        for column, value in zip(columns, rows[0], strict=False):
            if value is None and column.startswith(ATTRIBUTE):
                key = column.removeprefix(ATTRIBUTE)
                raise QueryError(
                    f"No span there has an attribute {key!r}, and no column is called that; "
                    f"columns are {', '.join(tables.SPAN_TYPES)}."
                )


def _titles(names: Sequence[str]) -> tuple[str, ...]:
    """Return column names with the attribute's bare key where no column has that name."""
    bare = [name.removeprefix(ATTRIBUTE) for name in names]
    return tuple(b if bare.count(b) == 1 else n for n, b in zip(names, bare, strict=True))
