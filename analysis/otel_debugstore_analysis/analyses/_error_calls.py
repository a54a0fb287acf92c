"""Spans that failed, and a sample of them beside one of others of the same components."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import pyarrow as pa

from otel_debugstore_analysis.analyses._masking import masked_array
from otel_debugstore_analysis.query import Engine, Selection, tables
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import ALL_ATTRIBUTES, Filter, attributes_among

if TYPE_CHECKING:
    import ibis.expr.types as ir

Group = tuple[str | None, str]
"""Exception type, and message after masking."""
FIELDS: Final = ("service", "session", "pid", "thread_id", "layer", "kind", "name", "variant")
_DIGITS: Final = 8
_ALL: Final = "\U0010ffff"
"""After every id."""
_MAX_AT: Final = 1_000
_READ: Final = ("exception_type", "message", "component", "trace_id", "start_ns", "sample_weight", "resource_id")


class Sample(NamedTuple):
    """Calls that failed, by call their groups, and others of the same components; `FIELDS` are `field_0` and so on."""

    failing: pa.Table
    groups: list[Group]
    others: pa.Table


class Seen(NamedTuple):
    """A call that failed."""

    group: Group
    start_ns: int | None
    trace_id: str


def failed(shape: Filter, fields: tuple[str, ...] = ()) -> ir.Table:
    """Return the spans that failed, with their messages and these further columns."""
    spans = shape.apply(tables.spans(attributes_among(shape.fields) + fields))
    spans = spans.filter(spans.status == "ERROR")
    return spans.mutate(message=ibis.coalesce(spans.exception_message, spans.status_message))


def sample(engine: Engine, selection: Selection, components: Sequence[str], span_count: int, limit: int) -> Sample:
    """Return about so many calls that failed, of so many, and as many of components that did not."""
    failing = _drawn(engine, selection, (), span_count, limit)
    others = failing.slice(0, 0)
    if components:
        values = selection.parameters | _named(components)
        ((count,),) = tables.run(engine, _count_others, selection.filter, len(components), **values)
        others = _drawn(engine, selection, components, count, limit).cast(failing.schema)
    return Sample(failing, _groups(failing), others)


def of_groups(engine: Engine, selection: Selection, times: Sequence[int]) -> list[Seen]:
    """Return the calls that failed and began at these times."""
    values = {f"time_{place}": time for place, time in enumerate(times)}
    query = tables.compiled(engine.dialect, _at, selection.filter, len(times))
    return seen(engine.fetch_arrow(query, selection.parameters | values, further=True))


def seen(failing: pa.Table) -> list[Seen]:
    """Return calls that failed, one by one."""
    columns = (failing["start_ns"].to_pylist(), failing["trace_id"].to_pylist())
    return [Seen(*call) for call in zip(_groups(failing), *columns, strict=True)]


def _groups(failing: pa.Table) -> list[Group]:
    return list(zip(failing["exception_type"].to_pylist(), masked_array(failing["message"]), strict=True))


def _drawn(engine: Engine, selection: Selection, components: Sequence[str], count: int, limit: int) -> pa.Table:
    """Return a sample of the calls that failed, or of those of components that did not: by their ids.

    Only the attributes of spans whose ids begin low are read; where these are too few, ids are no random numbers.
    """
    parameters = selection.parameters | _named(components)
    whole = 16**_DIGITS
    below = min(math.ceil(whole * limit / max(count, 1)), whole - 1)
    query = tables.compiled(engine.dialect, _sample, selection.filter, len(components), limit)
    found = engine.fetch_arrow(query, parameters | {"below": f"{below:0{_DIGITS}x}"}, further=True)
    if 2 * found.num_rows < min(count, limit):
        found = engine.fetch_arrow(query, parameters | {"below": _ALL}, further=True)
    return found


def _named(components: Sequence[str]) -> dict[str, str]:
    return {f"component_{place}": name for place, name in enumerate(components)}


def _count_others(shape: Filter, count: int) -> ir.Table:
    spans = _not_failed(shape, count)
    return spans.aggregate(count=spans.count())


def _not_failed(shape: Filter, count: int, fields: tuple[str, ...] = ()) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among(shape.fields) + fields))
    among = [tables.parameter(f"component_{place}") for place in range(count)]
    return spans.filter(spans.component.isin(among), spans.status != "ERROR")


def _sample(shape: Filter, components: int, limit: int) -> ir.Table:
    """Return the spans whose ids end in the least digits: random ones, and the same on every engine."""
    if components:
        spans = _not_failed(shape, components, (ALL_ATTRIBUTES,)).mutate(message=ibis.null("string"))
    else:
        spans = failed(shape, (ALL_ATTRIBUTES,))
    spans = spans.filter(spans.span_id <= tables.parameter("below"))
    spans = spans.mutate(order=spans.span_id.right(8)).order_by("order", "span_id", "trace_id", "start_ns", "pid")
    named = {f"field_{place}": spans[name].cast("string") for place, name in enumerate(FIELDS)}
    return spans.select(*_READ, ALL_ATTRIBUTES, **named).limit(limit)


def _at(shape: Filter, times: int) -> ir.Table:
    spans = failed(shape)
    at = [tables.parameter(f"time_{place}", "int64") for place in range(times)]
    spans = spans.filter(spans.start_ns.isin(at)).order_by("start_ns", "trace_id", "span_id")
    return spans.select("exception_type", "message", "start_ns", "trace_id").limit(_MAX_AT)
