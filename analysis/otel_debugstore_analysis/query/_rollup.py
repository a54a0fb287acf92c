"""Percentiles over very many spans, from the histogram that each segment carries.

A bucket is 2 % wide, so a percentile is off by at most 1 % of its value beside the spans between
the bucket's. The histogram counts recorded spans: sample weights are not in it. Counts, totals and error rates by
component or layer are those of all calls, with the ones that were counted and not recorded (see `_counted`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._counted import SUMS, has_counted, is_counted_by, within
from otel_debugstore_analysis.query._engine import Engine
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._table import Table
from otel_debugstore_analysis.query._top import PERCENTILES
from otel_debugstore_exporters.schema import ROLLUP_GROWTH, ROLLUP_SECONDS

if TYPE_CHECKING:
    import ibis.expr.types as ir

GROUPS: Final = ("component", "layer", "service")
COLUMNS: Final = ("count", "total_ns", *PERCENTILES, "error_rate")
_NS: Final = 1_000_000_000
_NOT_COUNTED: Final = (
    "Some calls were counted and not recorded: counts and sums are those of recorded spans (of all calls by component "
    "and layer)."
)


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
    notes = (_NOT_COUNTED,) if not is_counted_by((by,)) and has_counted(engine) else ()
    return Table((by, *COLUMNS), [row[:-1] for row in rows], groups - len(rows), notes)


def _percentiles(by: str, bounds: tuple[str, ...], limit: int | None) -> ir.Table:
    rollup = _histogram(by, bounds)
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
        count=buckets["count"].sum(), total_ns=buckets.total_ns.sum(), errors=buckets.errors.sum(), **quantiles
    )
    if is_counted_by((by,)):
        groups = _with_counted(groups, by, bounds)
    groups = groups.mutate(error_rate=groups.errors / groups["count"])
    rows = groups.mutate(groups=groups.count().over(ibis.window()))
    rows = rows.order_by(ibis.desc("total_ns"), by)
    if limit is not None:
        rows = rows.limit(limit)
    return rows.select(by, *COLUMNS, "groups")


def _with_counted(groups: ir.Table, by: str, bounds: tuple[str, ...]) -> ir.Table:
    """Add the calls that were counted in the same ten seconds."""
    since = tables.parameter("since_s", "int64") * _NS if "since_s" in bounds else None
    until = (tables.parameter("until_s", "int64") // ROLLUP_SECONDS + 1) * ROLLUP_SECONDS * _NS
    counters = tables.counters()
    beside = within(counters, since, until if "until_s" in bounds else None, {by: counters[by]})
    beside = beside.select(counted_by=beside[by], **{f"counted_{name}": beside[name] for name in SUMS})
    found = groups.outer_join(beside, groups[by] == beside.counted_by)
    sums = {
        "count": found["count"].fill_null(0) + found.counted_call_count.fill_null(0),
        "total_ns": ibis.coalesce(
            found.total_ns + found.counted_duration_ns, found.total_ns, found.counted_duration_ns
        ),
        "errors": found.errors.fill_null(0) + found.counted_error_count.fill_null(0),
    }
    whole = found.select(ibis.coalesce(found[by], found.counted_by).name(by), *PERCENTILES, **sums)
    return whole.filter(whole["count"] > 0)


def _histogram(by: str, bounds: tuple[str, ...]) -> ir.Table:
    """Return the rows in the window: of whole segments that lie in it, and by ten seconds of those that it cuts.

    Each condition is one that the database can tell from the least and the largest value of a block, so that of a
    segment only what counts is read.
    """
    whole, cut = tables.rollup_total(), tables.rollup()
    parts = [whole]
    if bounds:
        since, until = (tables.parameter(name, "int64") if name in bounds else None for name in ("since_s", "until_s"))
        parts = [whole.filter(*_between(whole.first_s, whole.last_s, since, until))]
        inside = _between(cut.start_s, cut.start_s, since, until)
        if since is not None:
            parts.append(cut.filter(*inside, cut.first_s < since))
        if until is not None:
            parts.append(cut.filter(*inside, *_between(cut.first_s, cut.last_s, since, None), cut.last_s > until))
    columns = (by, "bucket", "duration_ns")
    counts = ("span_count", "error_count")
    rows = [part.select(*columns, **{name: part[name].cast("int64") for name in counts}) for part in parts]
    return ibis.union(*rows) if len(rows) > 1 else rows[0]


def _between(first: ir.Value, last: ir.Value, since: ir.Value | None, until: ir.Value | None) -> list[ir.Value]:
    return [*([] if since is None else [first >= since]), *([] if until is None else [last <= until])]


def _duration(bucket: ir.Value) -> ir.Value:
    """Return the middle of a bucket."""
    return ((bucket - 0.5) * ROLLUP_GROWTH).exp().round().cast("int64")
