"""Thresholds for each component, proposed from its history.

`duration_ns` is max(p99.9, median + 6 MAD) of the last 1,000 calls, where MAD is the median of the distances from the
median: the least value that these calls hardly ever exceed, and that is not within what is usual for them. Proposed
anew as calls come in, that is a rolling threshold (of 83 labelled windows of public series it finds 54, with 1.9 false
alarms in 1,000 points; mean + 3 sigma finds 67, with 31). `memory_bytes` is the same of the calls' peak memory.
`error_rate` is the upper end of Wilson's 95 % interval of their error rate. Evidence are the traces of the longest of
them.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._quantiles import Floats, quantiles
from otel_debugstore_analysis.analyses._wanted import Key, Wanted, WantedValues, wanted_spans
from otel_debugstore_analysis.analyses.statistics import median_and_mad, wilson
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, Table, tables
from otel_debugstore_analysis.query._groups import Shape, columns_of, grouped, titles
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import Filter

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

CALLS: Final = 1_000
FEW_CALLS: Final = 100
"""Of fewer calls a threshold is proposed, but said to be provisional."""
_PARTS: Final = (64, 16, 4)
"""Parts of the time, the last of which is looked at where it has calls enough."""
_SHARE: Final = 0.999
_EVIDENCE: Final = 3
_DISTANCES: Final = 6.0
_TRACE: Final = "example"
_ROOM: Final = 10**12
"""Durations up to this, in nanoseconds, tell spans apart that began at the same time."""
COLUMNS: Final = (
    "duration_ns",
    "median_ns",
    "mad_ns",
    "p999_ns",
    "memory_bytes",
    "error_rate",
    "calls",
    "is_provisional",
    "trace_ids",
)


def thresholds(
    engine: Engine,
    by: str | Sequence[str] = "component",
    *,
    selection: Selection = EVERYTHING,
    limit: int = 100,
    calls: int = CALLS,
) -> Table:
    """Return a row a component, in the order of their total time: what a call of it should not exceed.

    Args:
        engine: Where the spans lie.
        by: The field or fields to group by: columns, or keys of attributes.
        selection: Which spans count.
        limit: How many rows at most.
        calls: How many calls are looked at of each: the last ones.

    Raises:
        QueryError: A field can't be used, or no span has the attribute to group by.
    """
    columns = columns_of(by)
    found = grouped(engine, Shape(columns, selection.filter, "total_ns", limit, ()), selection)
    names = titles((*columns, *COLUMNS))
    if not found.keys:
        return Table(names, [], 0, (*found.table.notes, "No span is selected."))
    last = _last_calls(engine, columns, selection, found.keys, calls)
    rows = [(*key, *_proposed(last[key])) for key in found.keys if key in last]
    provisional = sum(row[-2] for row in rows)
    notes = list(found.table.notes)
    if not rows:
        notes.append("No call that is selected has a start and a duration.")
    if provisional:
        notes.append(f"{provisional:,} of {len(rows):,} rows are provisional: of fewer than {FEW_CALLS} calls.")
    return Table(names, rows, found.table.left_out, tuple(notes))


class _Calls(NamedTuple):
    """The last calls of a group, an entry a call; NaN is what is not known."""

    duration_ns: Floats
    memory_bytes: Floats
    is_error: Floats
    weight: Floats
    trace_ids: pa.StringArray


def _proposed(last: _Calls) -> tuple[Any, ...]:
    """Return the values of `COLUMNS`."""
    duration_ns, median_ns, mad_ns, p999_ns = _threshold(last.duration_ns, last.weight)
    memory_bytes, *_ = _threshold(last.memory_bytes, last.weight)
    count = len(last.weight)
    error_rate = wilson(count * float(np.average(last.is_error, weights=last.weight)), count).high
    evidence = _slowest(last.duration_ns, last.trace_ids)
    return duration_ns, median_ns, mad_ns, p999_ns, memory_bytes, error_rate, count, count < FEW_CALLS, evidence


def _slowest(duration_ns: Floats, trace_ids: pa.StringArray) -> tuple[str, ...]:
    """Return the traces of the longest calls, the longest first."""
    least = np.partition(duration_ns, -_EVIDENCE)[-_EVIDENCE] if len(duration_ns) > _EVIDENCE else -np.inf
    place = np.flatnonzero(duration_ns >= least)
    found = sorted(zip((-duration_ns[place]).tolist(), trace_ids.take(place).to_pylist(), strict=True))
    return tuple(dict.fromkeys(trace_id for _, trace_id in found))[:_EVIDENCE]


def _threshold(values: Floats, weights: Floats) -> tuple[float | None, ...]:
    """Return the threshold, and the median, MAD and p99.9 that it is made of; None if there is no value."""
    is_known = ~np.isnan(values)
    if not is_known.any():
        return None, None, None, None
    values, weights = values[is_known], weights[is_known]
    median, mad = median_and_mad(values, weights)
    far = float(quantiles(values, weights, (_SHARE,))[0])
    return max(far, median + _DISTANCES * mad), median, mad, far


def _last_calls(
    engine: Engine, columns: tuple[str, ...], selection: Selection, keys: Sequence[Key], calls: int
) -> dict[Key, _Calls]:
    """Return the last calls by group; of groups with many only the last part of the time is read."""
    found: dict[Key, _Calls] = {}
    for since_ns, of_part in _by_since(engine, Wanted.of(columns, selection, keys), calls).items():
        part = selection if since_ns is None else Selection(since_ns, selection.until_ns, selection.where)
        found |= _last_of(engine, Wanted.of(columns, part, of_part), calls)
    return found


def _by_since(engine: Engine, wanted: Wanted, calls: int) -> dict[int | None, list[Key]]:
    """Return groups by a time since when they have so many calls; None: of all time."""
    ((first_ns, last_ns),) = tables.run(engine, _time, *wanted.shape, **wanted.parameters)
    if first_ns is None:
        return {None: list(wanted.rank)}
    times = [last_ns - (last_ns - first_ns) // part for part in _PARTS]
    named = {f"part_{place}_ns": time for place, time in enumerate(times)}
    rows = tables.run(engine, _calls_since, *wanted.shape, len(times), **named, **wanted.parameters)
    since: dict[int | None, list[Key]] = {}
    for key, counts in wanted.in_order(rows):
        enough = next((time for time, count in zip(times, counts, strict=True) if count >= calls), None)
        since.setdefault(enough, []).append(key)
    return since


def _time(columns: tuple[str, ...], shape: Filter, values: WantedValues) -> ir.Table:
    spans = _timed(columns, shape, values)
    return spans.aggregate(first_ns=spans.start_ns.min(), last_ns=spans.start_ns.max())


def _calls_since(columns: tuple[str, ...], shape: Filter, values: WantedValues, parts: int) -> ir.Table:
    spans = _timed(columns, shape, values)
    times = [tables.parameter(f"part_{place}_ns", "int64") for place in range(parts)]
    counts = {f"calls_{place}": spans.count(where=spans.start_ns >= time) for place, time in enumerate(times)}
    return spans.group_by(*columns).aggregate(**counts)


def _timed(columns: tuple[str, ...], shape: Filter, values: WantedValues) -> ir.Table:
    spans = wanted_spans(columns, shape, values)
    return spans.filter(spans.start_ns.notnull(), spans.duration_ns.notnull())


def _last_of(engine: Engine, wanted: Wanted, calls: int) -> dict[Key, _Calls]:
    query = tables.compiled(engine.dialect, _last, *wanted.shape, calls)
    rows = engine.fetch_arrow(query, wanted.parameters, further=True)
    if not rows.num_rows:
        return {}
    width = len(wanted.columns)
    keys, values = rows.column_names[:width], rows.column_names[width:-1]
    groups = rows.group_by(keys, use_threads=False).aggregate([(name, "list") for name in (*values, _TRACE)])
    found = zip(*(groups[name].to_pylist() for name in keys), strict=True)
    traces = [some.values for some in groups[f"{_TRACE}_list"]]
    lists = zip(*(_arrays(groups[f"{name}_list"]) for name in values), traces, strict=True)
    return {key: _Calls(*some) for key, some in zip(found, lists, strict=True) if key in wanted.rank}


def _arrays(lists: pa.ChunkedArray) -> list[Floats]:
    whole = lists.combine_chunks()
    values = np.asarray(whole.values.to_numpy(zero_copy_only=False), dtype=np.float64)
    return np.split(values, whole.offsets.to_numpy()[1:-1])


@functools.cache
def _row_number() -> Any:
    """Return the number of a row from 1 on, as a function: Ibis's own is one less, and then DuckDB sorts all rows."""

    def row_number() -> int:
        raise NotImplementedError("it is computed by the database")

    return ibis.udf.agg.builtin(row_number, name="row_number")


def _last(columns: tuple[str, ...], shape: Filter, values: WantedValues, calls: int) -> ir.Table:
    """Return the spans of the last calls of each group.

    They are sorted by one number, of start and duration, so that spans that began at the same time have an order; by
    two columns it takes three times as long.
    """
    spans = _timed(columns, shape, values)
    duration_ns = ibis.least(ibis.greatest(spans.duration_ns, 0), _ROOM - 1)
    time = spans.start_ns.cast("decimal(38, 0)") * _ROOM + duration_ns
    window = ibis.cumulative_window(group_by=columns, order_by=ibis.desc(time))
    spans = spans.mutate(number=_row_number()().over(window))
    last = spans.filter(spans.number <= calls)
    is_error = ibis.ifelse(last.status == "ERROR", 1.0, 0.0)
    numbers = ("duration_ns", "memory_peak_bytes", is_error.name("is_error"), "sample_weight")
    return last.select(*columns, *numbers, last.trace_id.name(_TRACE))
