"""Percentiles over very many spans, from the histogram that each segment carries.

A bucket is 2 % wide, so a percentile is off by at most 1 % of its value beside the spans between
the bucket's. The histogram counts recorded spans: sample weights are not in it.
"""

from __future__ import annotations

from typing import Final

import ibis
import ibis.expr.types as ir

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._engine import Engine
from otel_debugstore_analysis.query._table import Table
from otel_debugstore_analysis.query._top import PERCENTILES
from otel_debugstore_exporters.schema import ROLLUP_GROWTH, ROLLUP_SECONDS

GROUPS: Final = ("component", "layer", "service")
COLUMNS: Final = ("count", "total_ns", *PERCENTILES, "error_rate")
_NS: Final = 1_000_000_000


def percentiles_from_rollup(
    engine: Engine,
    by: str = "component",
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
    limit: int | None = 20,
) -> Table:
    """Return count, total time, percentiles and error rate a group, the largest total first.

    Args:
        engine: Where the spans lie.
        by: One of `GROUPS`.
        since_ns: From the ten seconds on in which this falls; nanoseconds since 1970-01-01 UTC.
        until_ns: Up to the ten seconds in which this falls, inclusive.
        limit: How many rows at most; None for all.

    Raises:
        QueryError: The histogram is not kept by that field.
    """
    if by not in GROUPS:
        raise QueryError(f"The histogram is not kept by {by!r}; take one of {', '.join(GROUPS)}, or `top`.")
    parameters = {}
    if since_ns is not None:
        parameters["since_s"] = since_ns // _NS // ROLLUP_SECONDS * ROLLUP_SECONDS
    if until_ns is not None:
        parameters["until_s"] = until_ns // _NS
    rows = tables.run(engine, _percentiles, by, tuple(parameters), limit, **parameters)
    groups = rows[0][-1] if rows else 0
    return Table((by, *COLUMNS), [row[:-1] for row in rows], groups - len(rows))


def _percentiles(by: str, bounds: tuple[str, ...], limit: int | None) -> ir.Table:
    rollup = tables.rollup()
    conditions = []
    if "since_s" in bounds:
        conditions.append(rollup.start_s >= tables.parameter("since_s", "int64"))
    if "until_s" in bounds:
        conditions.append(rollup.start_s <= tables.parameter("until_s", "int64"))
    if conditions:
        rollup = rollup.filter(*conditions)
    buckets = rollup.group_by(by, "bucket").aggregate(
        count=rollup.span_count.sum(), errors=rollup.error_count.sum(), total_ns=rollup.duration_ns.sum()
    )
    buckets = buckets.mutate(
        reached=buckets["count"].sum().over(ibis.cumulative_window(group_by=by, order_by="bucket")),
        whole=buckets["count"].sum().over(ibis.window(group_by=by)),
    )
    quantiles = {
        name: _duration(buckets.bucket.min(where=buckets.reached >= share * buckets.whole))
        for name, share in PERCENTILES.items()
    }
    groups = buckets.group_by(by).aggregate(
        count=buckets["count"].sum(),
        total_ns=buckets.total_ns.sum(),
        error_rate=buckets.errors.sum() / buckets["count"].sum(),
        **quantiles,
    )
    rows = groups.mutate(groups=groups.count().over(ibis.window()))
    rows = rows.order_by(ibis.desc("total_ns"), by)
    if limit is not None:
        rows = rows.limit(limit)
    return rows.select(by, *COLUMNS, "groups")


def _duration(bucket: ir.Value) -> ir.Value:
    """Return the middle of a bucket."""
    return ((bucket - 0.5) * ROLLUP_GROWTH).exp().round().cast("int64")
