"""Spans by groups: what `top` shows, and with more columns the analysis `performance`.

Counts, totals and rates are those of all calls: the spans, and the calls that were counted and not recorded (see
`_counted`). Only spans whose siblings are counted nowhere, because another sampler dropped them, stand for
`sample_weight` spans. Of counted calls the self time is not known: it is their time, less the share that the
sampled ones spent in spans below them. CPU time and bytes of calls that were not recorded are estimated, by weights.
Percentiles are weighted. Where every weight is 1 they are exact (linear interpolation between the two
nearest spans); else they are the least duration that at least that share of the weight does not exceed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._counted import (
    COUNTED_FIELDS,
    SUMS,
    counted,
    has_counted,
    is_counted_by,
    with_unit_weights,
)
from otel_debugstore_analysis.query._engine import Engine
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import ATTRIBUTE, Filter, Selection, attributes_among, column_of
from otel_debugstore_analysis.query._table import Table
from otel_debugstore_analysis.query._whole import FLAGS, Whole

if TYPE_CHECKING:
    import ibis.expr.types as ir

Shares = tuple[tuple[str, float], ...]
"""Percentiles: the names of their columns, and the shares of spans that do not exceed them."""

FAR_NS: Final = 4_000_000_000_000_000_000
"""Times beyond this (the year 2096) count as this, and those before 1970 as 1970, where sums could overflow."""
_USED: Final = ("cpu_ns", "io_read_bytes", "io_write_bytes")
_FURTHER: Final = ("first_ns", "last_ns", "max_ns", "memory_peak_bytes", *_USED)
_RATE: Final = "rate_per_s"
_SHARE: Final = "self_share"
_FETCHED: Final = 500
"""So many groups are fetched, if there are as many, also where fewer are shown."""


class Shape(NamedTuple):
    """What is asked for, without the values.

    Attributes:
        columns: What spans are grouped by.
        filter: The shape of the selection.
        order: The column that the rows are sorted by, descending.
        limit: How many rows at most; None for all.
        percentiles: Which ones.
        further: Whether rate, maximum, CPU time, memory and bytes read and written are wanted too.
    """

    columns: tuple[str, ...]
    filter: Filter
    order: str
    limit: int | None
    percentiles: Shares
    further: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether counted calls can be told apart by the fields."""
        return is_counted_by((*self.columns, *self.filter.fields))

    @property
    def measures(self) -> tuple[str, ...]:
        """The columns of the answer beside those that it is grouped by."""
        shares = tuple(name for name, _ in self.percentiles)
        used = ("max_ns", "memory_peak_bytes", *_USED) if self.further else ()
        rate = (_RATE,) if self.further else ()
        errors = ("error_count",) if self.further else ()
        cost = ("recording_ns",) if self.is_exact else ()
        return ("count", *rate, "total_ns", "self_ns", _SHARE, *shares, *used, *errors, "error_rate", *cost)


class Grouped(NamedTuple):
    """The groups, and what is so of all that is selected.

    Attributes:
        table: A row a group.
        keys: By row the values that it is grouped by.
        is_weighted: Whether a span stands for more than itself.
        first_ns, last_ns: When the first span began and the last one ended; None if that is not known or not asked for.
    """

    table: Table
    keys: list[tuple[Any, ...]]
    is_weighted: bool
    first_ns: int | None
    last_ns: int | None


def columns_of(by: str | Sequence[str]) -> tuple[str, ...]:
    """Return the columns of the span table that hold the fields to group by.

    Raises:
        QueryError: There can't be such a field.
    """
    return tuple(dict.fromkeys(map(column_of, (by,) if isinstance(by, str) else by)))


def grouped(engine: Engine, shape: Shape, selection: Selection) -> Grouped:
    """Return the groups of the selected spans.

    Raises:
        QueryError: No span has the attribute to group by.
    """
    rows, whole = _asked(engine, shape, False, selection)
    if whole.is_weighted:
        rows, whole = _asked(engine, shape, True, selection)
    found = [whole.completed(row, len(shape.columns), has_rate=shape.further) for row in rows]
    _check_attributes(shape.columns, found)
    notes = _notes(whole.cut_count, not shape.is_exact and has_counted(engine))
    names = titles((*shape.columns, *shape.measures))
    keys = [row[: len(shape.columns)] for row in found]
    table = Table(names, found, whole.groups - len(found), notes)
    return Grouped(table, keys, whole.is_weighted, whole.first_ns, whole.last_ns)


def _asked(
    engine: Engine, shape: Shape, weighted: bool, selection: Selection
) -> tuple[Sequence[tuple[Any, ...]], Whole]:
    """Return the first groups, and what is so of all: in most cases these are few enough to be fetched."""
    fetched = None if shape.limit is None else max(shape.limit, _FETCHED)
    rows = tables.run(engine, _groups, shape._replace(limit=fetched), weighted, **selection.parameters)
    if fetched is None or len(rows) < fetched:
        return rows[: shape.limit], Whole.of(rows, len(shape.columns))
    totals = tables.run(
        engine, _totals, shape._replace(percentiles=(), order="count"), weighted, **selection.parameters
    )
    return rows[: shape.limit], Whole._make(totals[0])


def ended_ns(spans: ir.Table) -> ir.Value:
    """Return when a span that began ended: where it began, if that is not known, or before that."""
    duration_ns = ibis.greatest(spans.duration_ns.fill_null(0), 0)
    return ibis.least(_bounded(spans.start_ns) + ibis.least(duration_ns, FAR_NS), FAR_NS)


def _bounded(time_ns: ir.Value) -> ir.Value:
    # The greatest of NULL and 0 would be 0.
    return ibis.ifelse(time_ns.isnull(), ibis.null("int64"), ibis.greatest(ibis.least(time_ns, FAR_NS), 0))


def _groups(shape: Shape, weighted: bool) -> ir.Table:
    spans = shape.filter.apply(tables.spans(attributes_among((*shape.columns, *shape.filter.fields))))
    groups = _weighted(spans, shape) if weighted else _unweighted(spans, shape)
    if shape.is_exact:
        groups = _with_counted(groups, counted(shape.columns, shape.filter), shape)
    else:
        groups = groups.mutate(cut_count=ibis.literal(0, "int64"))
    return _ordered(groups, shape)


def _unweighted(spans: ir.Table, shape: Shape) -> ir.Table:
    """Return the groups of spans that are taken to weigh 1, and whether they do."""
    measures: dict[str, Any] = {
        "count": spans.count(),
        "total_ns": spans.duration_ns.sum(),
        "self_ns": spans.self_ns.sum(),
        "errors": spans.count(where=spans.status == "ERROR"),
        "weighted": (spans.sample_weight != 1.0).any(),
        **(_further(spans) | {name: spans[name].sum() for name in _USED} if shape.further else {}),
    }
    if shape.percentiles:
        measures["percentiles"] = spans.duration_ns.quantile([share for _, share in shape.percentiles])
    groups = spans.group_by(*shape.columns).aggregate(**measures).mutate(self_of_counted=1.0)
    if not shape.percentiles:
        return groups
    named = {name: groups.percentiles[place] for place, (name, _) in enumerate(shape.percentiles)}
    return groups.mutate(**named).drop("percentiles")


def _weighted(spans: ir.Table, shape: Shape) -> ir.Table:
    """Return the groups of spans of which each stands for others that are counted, or else for so many."""
    read = ("session", "component", "layer", "status", "duration_ns", "self_ns", "sample_weight")
    used = ("start_ns", "memory_peak_bytes", *_USED) if shape.further else ()
    spans = spans.select(*dict.fromkeys((*shape.columns, *read, *used)))
    spans = with_unit_weights(spans) if shape.is_exact else spans.mutate(stands_for=spans.sample_weight - 1.0)
    spans = reached(spans, shape.columns) if shape.percentiles else spans
    others, is_error = spans.stands_for, spans.status == "ERROR"
    unrecorded = spans.sample_weight - 1.0
    measures: dict[str, Any] = {
        "count": spans.count() + _whole(others.sum()),
        "total_ns": spans.duration_ns.sum() + _whole((spans.duration_ns * others).sum()),
        "self_ns": spans.self_ns.sum() + _whole((spans.self_ns * others).sum()),
        "errors": spans.count(where=is_error) + others.sum(where=is_error).fill_null(0.0),
        "self_of_counted": (spans.self_ns * unrecorded).sum() / (spans.duration_ns * unrecorded).sum().nullif(0),
        "weighted": (spans.sample_weight != 1.0).any(),
        **percentiles(spans, shape.percentiles),
    }
    if shape.further:
        measures |= _further(spans) | {name: _whole((spans[name] * spans.sample_weight).sum()) for name in _USED}
    return spans.group_by(*shape.columns).aggregate(**measures)


def reached(spans: ir.Table, columns: Sequence[str]) -> ir.Table:
    """Return spans with `whole`, the weight of their group, and `reached`, that of those that took no longer."""
    timed = ibis.ifelse(spans.duration_ns.notnull(), spans.sample_weight, 0.0)
    spans = spans.mutate(timed_weight=timed)
    group = ibis.window(group_by=columns)
    running = ibis.cumulative_window(group_by=columns, order_by="duration_ns")
    return spans.mutate(reached=spans.timed_weight.sum().over(running), whole=spans.timed_weight.sum().over(group))


def percentiles(spans: ir.Table, shares: Shares) -> dict[str, ir.Value]:
    """Return weighted percentiles of the groups of spans that `reached` returned."""
    return {name: spans.duration_ns.min(where=spans.reached >= share * spans.whole) for name, share in shares}


def _further(spans: ir.Table) -> dict[str, ir.Value]:
    return {
        "first_ns": _bounded(spans.start_ns.min()),
        "last_ns": ended_ns(spans).max(where=spans.start_ns.notnull()),
        "max_ns": spans.duration_ns.max(),
        "memory_peak_bytes": spans.memory_peak_bytes.max(),
    }


def _with_counted(groups: ir.Table, beside: ir.Table, shape: Shape) -> ir.Table:
    """Return the groups of spans and of counted calls as one; there may be one without the other."""
    further = (*(name for name, _ in shape.percentiles), *(_FURTHER if shape.further else ()))
    of_spans = ("count", "total_ns", "self_ns", "errors", "self_of_counted", "weighted", *further)
    of_counters = (*SUMS, "began_ns", "ended_ns", "cut_count")
    one = groups.select(*shape.columns, *of_spans, **{name: ibis.null("int64") for name in of_counters})
    other = beside.select(
        *shape.columns, **{name: ibis.null(groups[name].type()) for name in of_spans}, **_same(beside, of_counters)
    )
    both = one.union(other)
    rows = both.group_by(*shape.columns).aggregate(
        **{name: both[name].max() for name in of_spans}, **{name: both[name].max() for name in of_counters}
    )
    more_ns = rows.duration_ns
    own_ns = _whole(more_ns * ibis.least(rows.self_of_counted.fill_null(1.0), 1.0))
    rows = rows.mutate(
        count=rows["count"].fill_null(0) + rows.call_count.fill_null(0),
        total_ns=ibis.coalesce(rows.total_ns + more_ns, rows.total_ns, more_ns),
        self_ns=ibis.coalesce(rows.self_ns + own_ns, rows.self_ns, own_ns),
        errors=rows.errors.fill_null(0) + rows.error_count.fill_null(0),
        cut_count=rows.cut_count.fill_null(0),
        weighted=rows.weighted.fill_null(False),
    ).filter(ibis._["count"] > 0)
    if not shape.further:
        return rows
    first_ns = ibis.least(ibis.coalesce(rows.first_ns, rows.began_ns), ibis.coalesce(rows.began_ns, rows.first_ns))
    last_ns = ibis.greatest(ibis.coalesce(rows.last_ns, rows.ended_ns), ibis.coalesce(rows.ended_ns, rows.last_ns))
    return rows.mutate(first_ns=first_ns, last_ns=last_ns)


def _same(table: ir.Table, names: Sequence[str]) -> dict[str, ir.Value]:
    return {name: table[name] for name in names}


def _whole(value: ir.Value) -> ir.Value:
    return value.round().cast("int64")


def _ordered(groups: ir.Table, shape: Shape) -> ir.Table:
    """Return the first groups, with their flags at the end. What takes the whole to be known is added by `Whole`."""
    groups = groups.mutate(error_rate=groups.errors / groups["count"], error_count=_whole(groups.errors))
    times = {name: groups[name] if shape.further else ibis.null("int64") for name in ("first_ns", "last_ns")}
    groups = groups.mutate(**times)
    order = "count" if shape.order == _RATE else shape.order  # one follows from the other
    rows = groups.order_by(ibis.desc(order, nulls_first=False), *shape.columns)
    if shape.limit is not None:
        rows = rows.limit(shape.limit)
    measures = [name for name in shape.measures if name not in (_RATE, _SHARE)]
    return rows.select(*shape.columns, *measures, *FLAGS)


def _totals(shape: Shape, weighted: bool) -> ir.Table:
    """Return the row of `Whole`."""
    groups = _groups(shape._replace(limit=None), weighted)
    return groups.aggregate(
        self_ns=groups.self_ns.sum(),
        first_ns=groups.first_ns.min(),
        last_ns=groups.last_ns.max(),
        cut_count=groups.cut_count.sum(),
        groups=groups.count(),
        is_weighted=groups.weighted.any(),
    )


def _notes(cut_count: int, is_estimated: bool) -> tuple[str, ...]:
    if is_estimated:
        fields = ", ".join(COUNTED_FIELDS)
        return (
            "Some calls were counted and not recorded: counts and sums are estimated from the spans that were sampled "
            f"(exact by and for {fields}).",
        )
    if cut_count:
        return (
            f"{cut_count:,} of the calls are the share of intervals that the time range cuts: "
            "when in these they were is not known.",
        )
    return ()


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


def titles(names: Sequence[str]) -> tuple[str, ...]:
    """Return column names with the attribute's bare key where no column has that name."""
    bare = [name.removeprefix(ATTRIBUTE) for name in names]
    return tuple(b if bare.count(b) == 1 else n for n, b in zip(names, bare, strict=True))
