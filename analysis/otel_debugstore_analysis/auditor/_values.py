"""The queries of an audit: a few for all that is audited, however much that is.

What is audited (a subject) is a number, and the groups of spans that it consists of; they come to the database with
their limits as texts, a text a group, which are joined with the spans.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_debugstore_analysis.analyses._points import PROCESS
from otel_debugstore_analysis.auditor._threshold import SUM
from otel_debugstore_analysis.query import Engine, Selection, tables
from otel_debugstore_analysis.query._counted import counted, is_counted_by
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import Filter, attributes_among, column_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

Key = tuple[str, ...]
"""The values of the columns that spans are grouped by; "" where there is none."""
Process = tuple[Any, ...]
"""The values of `PROCESS`."""

COMPONENT: Final = ("layer", "component", "variant")
OF_CALLS: Final = ("duration_ns", "cpu_ns", "cpu_percent", "memory_peak_bytes")
"""Measures that each call has; they are asked for together."""
SLOTS: Final = ("p50", "p95", "p99", "max")
SHARES: Final = (0.5, 0.95, 0.99)
_COUNTED_BY: Final = ("session", "pid")
"""What is known of the process of counted calls."""
_FIRST: Final = 1 + len(PROCESS)
_WIDTH: Final = 7 + len(SLOTS)
"""Columns of a measure in `_over`, after the first ones."""
_FIELD: Final = "\x1f"
_ESCAPES: Final = (("%", "%25"), (_FIELD, "%1F"))


class Calls(NamedTuple):
    """The calls of a group in one process: how many, their weights, and when the first and the last began."""

    process: Process
    spans: int
    weight: float
    squares: float
    errors: float
    error_spans: int
    total_ns: float
    first_ns: int | None
    last_ns: int | None
    error_trace: str | None


class Over(NamedTuple):
    """The values of a subject in one process.

    Attributes:
        spans, weight, squares, total, squared_total: How many, and sums of weights, values and squared values.
        over: By slot the weight of those above the limit of the slot.
        largest: The largest value, and the trace that it is in.
    """

    process: Process
    spans: int
    weight: float
    squares: float
    total: float
    squared_total: float
    over: tuple[float, ...]
    largest: float
    trace_id: str | None


class Row(NamedTuple):
    """A group of a subject, and the limits of the subject: by measure and slot; None is none."""

    key: Key
    subject: int
    limits: tuple[float | None, ...]


def calls(engine: Engine, columns: Sequence[str], selection: Selection) -> dict[Key, list[Calls]]:
    """Return by group what its processes called."""
    found: dict[Key, list[Calls]] = {}
    rows = tables.run(engine, _calls, tuple(columns), selection.filter, **selection.parameters)
    first = len(columns) + len(PROCESS)
    for row in rows:
        found.setdefault(row[: len(columns)], []).append(Calls(row[len(columns) : first], *row[first:]))
    return found


def counted_calls(engine: Engine, selection: Selection) -> dict[tuple[Any, ...], tuple[int, int]]:
    """Return calls that were counted and not recorded, and those that failed, by layer, component, session and pid."""
    if not is_counted_by(selection.filter.fields):
        return {}
    rows = tables.run(engine, _counted, selection.filter, **selection.parameters)
    return {
        (layer or "", component or "", *process): (many, failed) for layer, component, *process, many, failed in rows
    }


def over(
    engine: Engine, measures: Sequence[str], columns: Sequence[str], selection: Selection, rows: Sequence[Row]
) -> list[dict[int, list[Over]]]:
    """Return by measure and subject what its processes say.

    Args:
        engine: Where the spans lie.
        measures: Several of `OF_CALLS`, or one other.
        columns: What spans are grouped by.
        selection: Which spans count.
        rows: The groups of the subjects, with their limits of these measures.
    """
    parameters = {**selection.parameters, "given": _texts(rows)}
    found: list[dict[int, list[Over]]] = [{} for _ in measures]
    for row in tables.run(engine, _over, tuple(measures), tuple(columns), selection.filter, **parameters):
        subject, *process = row[:_FIRST]
        for place, of_measure in enumerate(found):
            first = _FIRST + place * _WIDTH
            if row[first]:
                spans, weight, squares, total, squared, *above, largest, trace_id = row[first : first + _WIDTH]
                values = Over(tuple(process), spans, weight, squares, total, squared, tuple(above), largest, trace_id)
                of_measure.setdefault(subject, []).append(values)
    return found


def quantiles(
    engine: Engine,
    measures: Sequence[str],
    columns: Sequence[str],
    selection: Selection,
    rows: Sequence[Row],
    is_weighted: bool,
) -> list[dict[int, tuple[float, ...]]]:
    """Return by measure and subject the quantiles, for `SHARES`; see `over`."""
    if is_weighted and len(measures) > 1:
        return [quantiles(engine, [one], columns, selection, rows, True)[0] for one in measures]
    parameters = {**selection.parameters, "given": _texts([row._replace(limits=()) for row in rows])}
    found = tables.run(engine, _quantiles, tuple(measures), tuple(columns), selection.filter, is_weighted, **parameters)
    width = len(SHARES)
    return [
        {row[0]: row[first : first + width] for row in found if row[first] is not None}
        for first in range(1, 1 + width * len(measures), width)
    ]


def _calls(columns: tuple[str, ...], shape: Filter) -> ir.Table:
    spans = _spans(columns, shape)
    is_error = spans.status == "ERROR"
    groups = spans.group_by(*columns, *PROCESS).aggregate(
        spans=spans.count(),
        weight=spans.sample_weight.sum(),
        squares=(spans.sample_weight * spans.sample_weight).sum(),
        errors=spans.sample_weight.sum(where=is_error).fill_null(0.0),
        error_spans=spans.count(where=is_error),
        total_ns=(spans.duration_ns.cast("float64") * spans.sample_weight).sum().fill_null(0.0),
        first_ns=spans.start_ns.min(),
        last_ns=spans.start_ns.max(),
        error_trace=spans.trace_id.max(where=is_error),
    )
    return groups.select(*columns, *PROCESS, *Calls._fields[1:])


def _counted(shape: Filter) -> ir.Table:
    groups = counted((*COMPONENT[:2], *_COUNTED_BY), shape)
    return groups.select(*COMPONENT[:2], *_COUNTED_BY, "call_count", "error_count")


def _over(measures: tuple[str, ...], columns: tuple[str, ...], shape: Filter) -> ir.Table:
    values = _wanted(measures, columns, shape, len(measures) * len(SLOTS))
    weight = values.weight
    found: dict[str, ir.Value] = {}
    for place in range(len(measures)):
        value = values[f"value_{place}"]
        is_known = value.notnull()
        found[f"spans_{place}"] = value.count()
        found[f"weight_{place}"] = weight.sum(where=is_known)
        found[f"squares_{place}"] = (weight * weight).sum(where=is_known)
        found[f"total_{place}"] = (value * weight).sum()
        found[f"squared_total_{place}"] = (value * value * weight).sum()
        for slot in range(len(SLOTS)):
            is_above = value > values[f"limit_{place * len(SLOTS) + slot}"]
            found[f"over_{place}_{slot}"] = weight.sum(where=is_above).fill_null(0.0)
        found[f"largest_{place}"] = value.max()
        found[f"trace_{place}"] = values.trace_id.argmax(value)
    return values.group_by("subject", *PROCESS).aggregate(**found).select("subject", *PROCESS, *found)


def _quantiles(measures: tuple[str, ...], columns: tuple[str, ...], shape: Filter, is_weighted: bool) -> ir.Table:
    values = _wanted(measures, columns, shape, 0)
    names = [f"value_{place}" for place in range(len(measures))]
    if not is_weighted:
        lists = {name: values[name].quantile(list(SHARES)) for name in names}
        groups = values.group_by("subject").aggregate(**lists)
        return groups.select(
            "subject", *(groups[name][place].name(f"{name}_{place}") for name in names for place in range(len(SHARES)))
        )
    (name,) = names
    values = values.filter(values[name].notnull())
    group = ibis.window(group_by="subject")
    running = ibis.cumulative_window(group_by="subject", order_by=name)
    values = values.mutate(reached=values.weight.sum().over(running), whole=values.weight.sum().over(group))
    return values.group_by("subject").aggregate(
        **{
            f"q{place}": values[name].min(where=values.reached >= share * values.whole)
            for place, share in enumerate(SHARES)
        }
    )


def _wanted(measures: tuple[str, ...], columns: tuple[str, ...], shape: Filter, limits: int) -> ir.Table:
    """Return the values of the subjects that are asked for, `value_N`, with so many limits."""
    values, rows = _values(measures, columns, shape), _rows(columns, limits)
    joined = values.inner_join(rows, [values[column] == rows[f"key_{n}"] for n, column in enumerate(columns)])
    names = (*(f"value_{place}" for place in range(len(measures))), *(f"limit_{place}" for place in range(limits)))
    return joined.select("subject", *PROCESS, "trace_id", "weight", *names)


def _values(measures: tuple[str, ...], columns: tuple[str, ...], shape: Filter) -> ir.Table:
    """Return the values of measures: one a call, one a caller, or one a trace."""
    kept = (*columns, *PROCESS, "trace_id")
    if set(measures) <= set(OF_CALLS):
        spans = _spans(columns, shape)
        found = {f"value_{place}": _value(measure, spans) for place, measure in enumerate(measures)}
        return spans.select(*kept, **found, weight=spans.sample_weight)
    (measure,) = measures
    if measure == "calls_per_parent":
        spans = _spans(columns, shape)
        callers = spans.filter(spans.parent_id.notnull()).group_by(*kept, "parent_id")
        sums = callers.aggregate(value_0=spans.sample_weight.sum())
    else:
        attribute = column_of(measure.removeprefix(SUM))
        spans = _spans(columns, shape, (attribute,))
        value = spans[attribute].try_cast("float64")
        traces = spans.filter(value.notnull()).group_by(*columns, "session", "trace_id")
        first = {column: spans[column].argmin(spans.start_ns) for column in PROCESS[1:]}
        sums = traces.aggregate(value_0=(value * spans.sample_weight).sum(), **first)
    return sums.select(*kept, "value_0", weight=sums.value_0 * 0.0 + 1.0)


def _value(measure: str, spans: ir.Table) -> ir.Value:
    if measure == "cpu_percent":
        return spans.cpu_ns.cast("float64") * 100.0 / spans.duration_ns.nullif(0)
    return spans[measure].cast("float64")


def _spans(columns: tuple[str, ...], shape: Filter, further: tuple[str, ...] = ()) -> ir.Table:
    """Return the selected spans, with "" where one of the columns has nothing."""
    attributes = attributes_among((*columns, *shape.fields, *further, *PROCESS))
    spans = shape.apply(tables.spans(attributes))
    return spans.mutate(**{column: spans[column].fill_null("") for column in columns})


def _rows(columns: Sequence[str], limits: int) -> ir.Table:
    """Return what `_texts` says as a table."""
    texts = tables.given()
    fields = texts.value.split(_FIELD)
    first = len(columns)
    found = {f"key_{number}": _plain(fields[number]) for number in range(first)}
    found |= {f"limit_{place}": fields[first + 1 + place].nullif("").cast("float64") for place in range(limits)}
    return texts.select(**found, subject=fields[first].cast("int64"))


def _texts(rows: Iterable[Row]) -> list[str]:
    lines = []
    for row in rows:
        limits = ("" if limit is None else repr(float(limit)) for limit in row.limits)
        lines.append(_FIELD.join((*map(_escaped, row.key), str(row.subject), *limits)))
    return lines


def _escaped(text: str) -> str:
    for plain, escaped in _ESCAPES:
        text = text.replace(plain, escaped)
    return text


def _plain(text: ir.Value) -> ir.Value:
    for plain, escaped in reversed(_ESCAPES):
        text = text.replace(escaped, plain)
    return text
