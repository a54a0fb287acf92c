"""How often, how long, at what cost: of each component, or of whatever spans are grouped by.

`groups` is `query.top` with more columns (see `query._groups`, whose formulas these are): both count the same calls.
`rate_per_s` is the count by the seconds from the first span's start to the last one's end, of all that is selected.

`histogram` has ten buckets a decade, each 10^(1/10) = 1.26 times as wide as the one before, with bounds in whole
nanoseconds (Renard's R10 series): a call of `d` ns is in the bucket with `from_ns < d <= to_ns`.

`over_time` cuts that time into equal intervals of a length that people use. Rows of both are there for the first groups
only. What they count are recorded spans by their weights, so that where calls were counted and not recorded they are
estimates. Percentiles are as in `groups`. The evidence of a group is a trace of its longest call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses._points import INTERVAL, Grid, points
from otel_debugstore_analysis.analyses._wanted import Key, Wanted, WantedValues, wanted_spans
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, Table, tables
from otel_debugstore_analysis.query._counted import has_counted
from otel_debugstore_analysis.query._groups import Grouped, Shape, columns_of, grouped, titles
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import Filter
from otel_debugstore_analysis.query._top import ORDERS

if TYPE_CHECKING:
    import ibis.expr.types as ir

PERCENTILES: Final = {"p50_ns": 0.5, "p90_ns": 0.9, "p95_ns": 0.95, "p99_ns": 0.99}
PERFORMANCE_ORDERS: Final = ORDERS | {
    "p90": "p90_ns",
    "max": "max_ns",
    "rate": "rate_per_s",
    "cpu": "cpu_ns",
    "memory": "memory_peak_bytes",
    "read": "io_read_bytes",
    "written": "io_write_bytes",
}
INTERVALS: Final = 30
EVIDENCE_GROUPS: Final = 500
"""Of more groups, the further ones come without a trace."""
_DECADES: Final = range(2, 13)
EDGES: Final = (0, *(round(10 ** (place / 10 + decade)) for decade in _DECADES for place in range(10)))
"""Upper bounds of the histogram's buckets, in nanoseconds; the last bucket has none. The first is of spans that took
no time: 0 ns, or less where the clock was set back."""


class Performance(NamedTuple):
    """What spans did, by groups.

    Attributes:
        groups: A row a group.
        histogram: A row a group and bucket that holds spans: `from_ns`, `to_ns` (None: no bound), `count`.
        over_time: A row a group and interval that holds spans: `start_ns`, `end_ns`, `count`, `p50_ns`, `p95_ns`,
            `error_rate`.
    """

    groups: Table
    histogram: Table
    over_time: Table


def performance(
    engine: Engine,
    by: str | Sequence[str] = "component",
    *,
    selection: Selection = EVERYTHING,
    order: str = "total",
    limit: int | None = 20,
    detailed: int = 10,
    intervals: int = INTERVALS,
) -> Performance:
    """Return how often groups of spans ran, how long they took, and what they used.

    Args:
        engine: Where the spans lie.
        by: The field or fields to group by: columns, or keys of attributes.
        selection: Which spans count.
        order: What the rows are sorted by, descending: one of `PERFORMANCE_ORDERS`.
        limit: How many groups at most; None for all.
        detailed: Of how many of these, the first ones, there are histogram and history; 0 saves the time for them.
        intervals: How many intervals of time at most.

    Raises:
        QueryError: A field or the order can't be used, or no span has the attribute to group by.
    """
    columns = columns_of(by)
    if order not in PERFORMANCE_ORDERS:
        raise QueryError(f"Rows can't be ordered by {order!r}; take one of {', '.join(PERFORMANCE_ORDERS)}.")
    shape = Shape(columns, selection.filter, PERFORMANCE_ORDERS[order], limit, tuple(PERCENTILES.items()), True)
    found = grouped(engine, shape, selection)
    keys = found.keys[:detailed]
    groups = _with_evidence(engine, columns, selection, found)
    if not keys:
        return Performance(groups, _no_rows(columns, _HISTOGRAM), _no_rows(columns, _OVER_TIME))
    notes = (_ESTIMATED,) if found.is_weighted and has_counted(engine) else ()
    wanted = Wanted.of(columns, selection, keys)
    histogram = _histogram(engine, wanted, notes)
    if found.first_ns is None or found.last_ns is None:
        return Performance(groups, histogram, _no_rows(columns, _OVER_TIME))
    grid = Grid.over(found.first_ns, found.last_ns, intervals)
    over_time = _over_time(engine, wanted, found.is_weighted, grid, notes)
    return Performance(groups, histogram, over_time)


_HISTOGRAM: Final = ("from_ns", "to_ns", "count")
_OVER_TIME: Final = ("start_ns", "end_ns", "count", "p50_ns", "p95_ns", "error_rate")
_ESTIMATED: Final = (
    "Some calls were counted and not recorded: the counts are estimated from the spans that were sampled."
)


def _no_rows(columns: Sequence[str], measures: Sequence[str]) -> Table:
    return Table(titles((*columns, *measures)), [])


def _with_evidence(engine: Engine, columns: tuple[str, ...], selection: Selection, found: Grouped) -> Table:
    """Return the groups, each with a trace of its longest call."""
    table = found.table
    names = (*table.columns, "trace_ids")
    if not found.keys:
        return Table(names, [], table.left_out, (*table.notes, "No span is selected."))
    longest = table.columns.index("max_ns")
    max_ns = {key: row[longest] for key, row in zip(found.keys[:EVIDENCE_GROUPS], table.rows, strict=False)}
    wanted = Wanted.of(columns, selection, list(max_ns))
    durations = sorted({duration_ns for duration_ns in max_ns.values() if duration_ns is not None})
    values = {f"duration_{place}": duration_ns for place, duration_ns in enumerate(durations)}
    traces: dict[Key, str] = {}
    if durations:
        rows = tables.run(engine, _of_durations, *wanted.shape, len(durations), **values, **wanted.parameters)
        traces = {key: trace_id for key, (duration_ns, trace_id) in wanted.in_order(rows) if duration_ns == max_ns[key]}
    shown: list[tuple[Any, ...]] = [
        (*row, (traces[key],) if key in traces else ()) for key, row in zip(found.keys, table.rows, strict=True)
    ]
    return Table(names, shown, table.left_out, table.notes)


def _of_durations(columns: tuple[str, ...], shape: Filter, values: WantedValues, count: int) -> ir.Table:
    """Return a trace of each group and duration, of spans that took exactly so long."""
    spans = wanted_spans(columns, shape, values)
    spans = spans.filter(spans.duration_ns.isin([tables.parameter(f"duration_{n}", "int64") for n in range(count)]))
    groups = dict.fromkeys((*columns, "duration_ns"))
    rows = spans.group_by(*groups).aggregate(example=spans.trace_id.min())
    return rows.select(
        *(rows[name].name(f"{place}") for place, name in enumerate((*columns, "duration_ns"))), "example"
    )


def _histogram(engine: Engine, wanted: Wanted, notes: tuple[str, ...]) -> Table:
    found = wanted.in_order(tables.run(engine, _buckets, *wanted.shape, **wanted.parameters))
    rows = []
    for key, (bucket, count) in found:
        from_ns, to_ns = EDGES[bucket - 1] if bucket else None, EDGES[bucket] if bucket < len(EDGES) else None
        rows.append((*key, from_ns, to_ns, round(count)))
    return Table(titles((*wanted.columns, *_HISTOGRAM)), rows, 0, notes)


def _buckets(columns: tuple[str, ...], shape: Filter, values: WantedValues) -> ir.Table:
    spans = wanted_spans(columns, shape, values)
    spans = spans.filter(spans.duration_ns.notnull()).mutate(bucket=_bucket(spans.duration_ns, 0, len(EDGES)))
    return spans.group_by(*columns, "bucket").aggregate(count=spans.sample_weight.sum())


def _bucket(duration_ns: ir.Value, first: int, last: int) -> ir.Value:
    """Return the place among `EDGES[first:last]` of the first that is not less, `last` if there is none."""
    if first == last:
        return ibis.literal(first, "int64")
    middle = (first + last) // 2
    return ibis.ifelse(
        duration_ns <= EDGES[middle], _bucket(duration_ns, first, middle), _bucket(duration_ns, middle + 1, last)
    )


def _over_time(engine: Engine, wanted: Wanted, is_weighted: bool, grid: Grid, notes: tuple[str, ...]) -> Table:
    rows = [
        (*key, *grid.bounds(point), round(point.calls), point.p50_ns, point.p95_ns, point.errors / point.calls)
        for key, series in points(engine, wanted, INTERVAL, is_weighted, grid).items()
        for point in series
    ]
    return Table(titles((*wanted.columns, *_OVER_TIME)), rows, 0, notes)
