"""How much was recorded, and when: what a report begins with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, tables
from otel_debugstore_analysis.query._selection import Filter, attributes_among

if TYPE_CHECKING:
    import ibis.expr.types as ir


class Overview(NamedTuple):
    """What is selected.

    Attributes:
        span_count: Spans that were recorded.
        trace_count: Traces they are of.
        session_count: Sessions they are in.
        error_count: How many of them failed.
        start_ns: When the first began, nanoseconds since 1970; None if none has a start.
        end_ns: When the last one began.
        is_weighted: Whether some stand for others that were not recorded.
    """

    span_count: int
    trace_count: int
    session_count: int
    error_count: int
    start_ns: int | None
    end_ns: int | None
    is_weighted: bool


def overview(engine: Engine, *, selection: Selection = EVERYTHING) -> Overview:
    """Return how many spans are selected, and from when to when."""
    row = tables.run(engine, _overview, selection.filter, **selection.parameters)[0]
    return Overview._make((*row[:-1], bool(row[-1])))


def _overview(shape: Filter) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among(shape.fields)))
    return spans.aggregate(
        span_count=spans.count(),
        trace_count=spans.trace_id.nunique(),
        session_count=spans.session.nunique(),
        error_count=spans.count(where=spans.status == "ERROR"),
        start_ns=spans.start_ns.min(),
        end_ns=spans.start_ns.max(),
        is_weighted=(spans.sample_weight != 1.0).any(),
    )
