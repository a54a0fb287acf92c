"""Which traces a frame has: a sample of those that are wanted, and how their spans are found."""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._engine import GIVEN, Engine
from otel_debugstore_analysis.query._links import FAR_NS
from otel_debugstore_analysis.query._selection import Filter, Selection, attributes_among, column_of

if TYPE_CHECKING:
    import ibis.expr.types as ir

KEY_LENGTH: Final = 16
"""Of a trace's id so many last digits are what the sample is by."""


class Traces(NamedTuple):
    """Which traces are wanted: those with a selected span, or those of some ids."""

    selection: Selection
    ids: tuple[str, ...] | None

    @property
    def filter(self) -> Filter:
        """The shape of the selection."""
        return self.selection.filter if self.ids is None else Filter()

    @property
    def is_given(self) -> bool:
        """Whether ids are given."""
        return self.ids is not None

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of the selection, or the ids."""
        return self.selection.parameters if self.ids is None else {GIVEN: list(self.ids)}

    @property
    def key(self) -> Hashable:
        """What tells these traces from others."""
        return self.selection.key, self.ids


class Chosen(NamedTuple):
    """Which traces come: the first ones in the order of the sample."""

    ids: tuple[str, ...]
    left_out_traces: int
    left_out_spans: int
    max_traces: int
    max_spans: int


def choose(engine: Engine, traces: Traces, max_traces: int, max_spans: int) -> Chosen:
    """Return which of the traces come, of so many with so many spans at most."""
    is_unique = engine.has_unique_traces
    rows = tables.run(engine, sample, traces.filter, traces.is_given, is_unique, max_traces, **traces.parameters)
    rows.sort(key=lambda row: (row[0][-KEY_LENGTH:], row[0]))
    all_traces, all_spans = (rows[0][2], int(rows[0][3])) if rows else (0, 0)
    count, spans = 0, 0
    for _, span_count, *_ in rows:
        if spans + span_count > max_spans:
            break
        count, spans = count + 1, spans + int(span_count)
    ids = tuple(row[0] for row in rows[:count])
    return Chosen(ids, all_traces - count, all_spans - spans, max_traces, max_spans)


def sample(selected: Filter, is_given: bool, is_unique: bool, limit: int) -> ir.Table:
    """Return the first traces in the order of the sample, with their spans and with the numbers of all of both.

    Args:
        selected: The shape of the selection.
        is_given: Whether ids are given instead.
        is_unique: Whether no trace has several rows; see `Engine.has_unique_traces`.
        limit: How many.
    """
    if is_unique:
        found = _by_times(selected) if selected.is_of_times else _of_traces(tables.traces(), selected, is_given)
        traces = found.select("trace_id", "span_count")
    else:
        found = _of_traces(tables.traces(), selected, is_given)
        traces = found.group_by("trace_id").aggregate(span_count=found.span_count.sum())
    whole = traces.aggregate(all_traces=traces.count(), all_spans=traces.span_count.sum())
    rows = traces.mutate(sample_key=traces.trace_id.right(KEY_LENGTH)).order_by("sample_key", "trace_id").limit(limit)
    return rows.cross_join(whole).select("trace_id", "span_count", "all_traces", "all_spans")


def _of_traces(rows: ir.Table, selected: Filter, is_given: bool) -> ir.Table:
    """Return the rows of traces that have a selected span, or of those whose ids are given."""
    if is_given:
        return rows.filter(rows.trace_id.isin(tables.given().value))
    return rows.filter(rows.trace_id.isin(_selected(selected).trace_id)) if selected != Filter() else rows


def _by_times(selected: Filter) -> ir.Table:
    """Return the traces that have a span in a range of time.

    Those that begin in it have one. Of those that begin before, only the spans say so, or the trace's end if it is
    before, too; that end is none of a span that ends before it begins, or beyond all times.
    """
    traces, spans = tables.traces(), tables.spans()
    within = selected.apply(traces)
    if not selected.since:
        return within
    since = tables.parameter("since_ns", "int64")
    odd = spans.duration_ns.min() < 0, spans.duration_ns.max() > FAR_NS, spans.start_ns.max() > FAR_NS
    is_odd = spans.aggregate(is_odd=odd[0] | odd[1] | odd[2]).is_odd.as_scalar()
    earlier = traces.filter(
        traces.start_ns < since,
        (traces.end_ns >= since) | is_odd,
        traces.trace_id.isin(_selected(selected).trace_id),
    )
    return within.union(earlier)


def _selected(selected: Filter) -> ir.Table:
    return selected.apply(tables.spans(attributes_among(selected.fields)))


def whole_traces(selected: Filter, is_given: bool, is_cut: bool, columns: tuple[str, ...]) -> ir.Table:
    """Return the spans of such traces; if it is cut, of those up to the parameters `last_key` and `last_id`."""
    found = _of_traces(tables.spans(attributes_among((*columns, *selected.fields))), selected, is_given)
    if is_cut:
        key, last_key = found.trace_id.right(KEY_LENGTH), tables.parameter("last_key")
        is_before = (key == last_key) & (found.trace_id <= tables.parameter("last_id"))
        found = found.filter((key < last_key) | is_before)
    return found.select(*dict.fromkeys(map(column_of, columns)))
