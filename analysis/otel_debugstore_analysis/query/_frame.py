"""Spans of whole traces as numpy columns: what graph and statistical analyses work on.

One bounded Arrow result is fetched; strings become codes in it, and the rest is numpy, so that every engine gives
the same rows. Of more traces than there is room for a sample is taken that does not depend on the engine or on what
else is stored: the least by the last 16 digits of their ids, which are random in ids made by OpenTelemetry.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._columns import MAX_NS, Codes, coded, extra, ids, integers, numpy_of, order
from otel_debugstore_analysis.query._columns import Coded as Coded
from otel_debugstore_analysis.query._engine import Engine
from otel_debugstore_analysis.query._links import Bools, Ints, Spans, link
from otel_debugstore_analysis.query._selection import EVERYTHING, Filter, Selection, attributes_among, column_of
from otel_debugstore_analysis.query._snapshot import Snapshot

MAX_TRACES: Final = 10_000
MAX_SPANS: Final = 1_000_000
_KEY_LENGTH: Final = 16
_CODED: Final = ("component", "layer", "service", "session", "kind")
_READ: Final = (
    "trace_id",
    "span_id",
    "parent_id",
    "pid",
    "start_ns",
    "duration_ns",
    "status",
    "sample_weight",
    *_CODED,
)


@dataclass(frozen=True)
class SpanFrame:
    """Spans of whole traces, a row a span: by trace, in it by start and then by span id.

    Attributes:
        trace: The number of the trace, from 0 on in the order of `trace_ids`.
        trace_ids: The traces' ids, sorted.
        bounds: Where each trace begins, and where the last one ends: trace `t` has the rows `bounds[t]:bounds[t + 1]`.
        parent: The row of the parent; -1 where there is none, or none was recorded. No row is its own ancestor:
            of spans that are each other's parents the earliest is put at the top.
        is_orphan: Whether the span names a parent that was not recorded.
        start_ns: Nanoseconds since 1970-01-01 UTC.
        end_ns: Not before the start: a span without a duration, or with a negative one, ends where it starts.
        self_ns: The duration less what the span's children cover of it.
        component, layer, service, session, kind: Codes; `components[code]` and so on are the texts, or None.
        is_error: Whether the status is ERROR.
        weight: How many spans each stands for, 1/p of its sampling probability.
        extra: Further columns that were asked for: texts as `Coded`, numbers as float64 with NaN for NULL.
        left_out_traces: Traces that were selected, and for which there was no room.
        left_out_spans: Spans of selected traces that are not here; those of traces left out are among them.
        notes: What has to be said of the answer that is made of this, a sentence each.
    """

    trace: Codes
    trace_ids: tuple[str, ...]
    bounds: Ints
    parent: Codes
    is_orphan: Bools
    start_ns: Ints
    end_ns: Ints
    self_ns: Ints
    component: Codes
    components: tuple[str | None, ...]
    layer: Codes
    layers: tuple[str | None, ...]
    service: Codes
    services: tuple[str | None, ...]
    session: Codes
    sessions: tuple[str | None, ...]
    kind: Codes
    kinds: tuple[str | None, ...]
    is_error: Bools
    weight: npt.NDArray[np.float64]
    extra: Mapping[str, Coded | npt.NDArray[np.float64]]
    left_out_traces: int
    left_out_spans: int
    notes: tuple[str, ...]
    _span_ids: pa.ChunkedArray
    _rows: Ints

    def __len__(self) -> int:
        return len(self.trace)

    @functools.cached_property
    def span_ids(self) -> npt.NDArray[np.object_]:
        """The spans' ids, as an array of strings."""
        return np.array(self._span_ids.take(pa.array(self._rows)).to_pylist(), dtype=object)

    @property
    def duration_ns(self) -> Ints:
        """The spans' durations."""
        return self.end_ns - self.start_ns


def frame(
    engine: Engine,
    *,
    selection: Selection = EVERYTHING,
    max_traces: int = MAX_TRACES,
    max_spans: int = MAX_SPANS,
    columns: Sequence[str] = (),
) -> SpanFrame:
    """Return the spans of the traces in which the selection takes at least one span.

    Args:
        engine: Where the spans lie.
        selection: Which traces: those that have a selected span. All their spans come, selected or not.
        max_traces: How many traces at most.
        max_spans: How many spans at most; a trace comes as a whole or not at all.
        columns: Further fields of spans for `extra`: columns, or keys of attributes.

    Raises:
        QueryError: A field can't be used, or the engine refused the query.
    """
    if isinstance(engine, Snapshot):
        values = tuple(sorted(selection.parameters.items()))
        key = ("frame", selection.filter, values, max_traces, max_spans, tuple(columns))
        return engine.once(key, lambda: _frame(engine, selection, max_traces, max_spans, columns))
    return _frame(engine, selection, max_traces, max_spans, columns)


def _frame(engine: Engine, selection: Selection, max_traces: int, max_spans: int, columns: Sequence[str]) -> SpanFrame:
    further = tuple(dict.fromkeys(columns))
    chosen = _choose(engine, selection, max_traces, max_spans)
    if chosen.trace_count:
        query = tables.compiled(engine.dialect, _whole_traces, selection.filter, chosen.is_cut, further)
        last = {"last_key": chosen.last_id[-_KEY_LENGTH:], "last_id": chosen.last_id} if chosen.is_cut else {}
        found = engine.fetch_arrow(query, {**selection.parameters, **last}, further=True)
    else:
        found = _no_spans(engine, further)
    return _framed(found, further, chosen)


class _Chosen(NamedTuple):
    """Which traces come: those up to `last_id` in the order of the sample."""

    trace_count: int
    span_count: int
    last_id: str
    left_out_traces: int
    left_out_spans: int
    max_traces: int
    max_spans: int
    is_cut: bool


def _choose(engine: Engine, selection: Selection, max_traces: int, max_spans: int) -> _Chosen:
    rows = tables.run(engine, sample, selection.filter, max_traces, **selection.parameters)
    all_traces, all_spans = (rows[0][2], int(rows[0][3])) if rows else (0, 0)
    count, spans = 0, 0
    for _, span_count, *_ in rows:
        if spans + span_count > max_spans:
            break
        count, spans = count + 1, spans + int(span_count)
    last_id = rows[count - 1][0] if count else ""
    left = all_traces - count
    return _Chosen(count, spans, last_id, left, all_spans - spans, max_traces, max_spans, left > 0)


def sample(selected: Filter, limit: int) -> ir.Table:
    """Return the first traces in the order of the sample, with their spans and with the numbers of all of both."""
    traces = _traces_of(selected)
    groups = traces.group_by("trace_id").aggregate(span_count=traces.span_count.sum())
    groups = groups.mutate(
        sample_key=groups.trace_id.right(_KEY_LENGTH),
        all_traces=groups.count().over(ibis.window()),
        all_spans=groups.span_count.sum().over(ibis.window()),
    )
    rows = groups.order_by("sample_key", "trace_id").limit(limit)
    return rows.select("trace_id", "span_count", "all_traces", "all_spans")


def _traces_of(selected: Filter) -> ir.Table:
    traces = tables.traces()
    return traces.filter(traces.trace_id.isin(_selected(selected).trace_id)) if selected != Filter() else traces


def _selected(selected: Filter) -> ir.Table:
    return selected.apply(tables.spans(attributes_among(selected.fields)))


def _whole_traces(selected: Filter, is_cut: bool, columns: tuple[str, ...]) -> ir.Table:
    spans = tables.spans(attributes_among((*columns, *selected.fields)))
    conditions = []
    if selected != Filter():
        conditions.append(spans.trace_id.isin(_selected(selected).trace_id))
    if is_cut:
        key, last_key = spans.trace_id.right(_KEY_LENGTH), tables.parameter("last_key")
        is_before = (key == last_key) & (spans.trace_id <= tables.parameter("last_id"))
        conditions.append((key < last_key) | is_before)
    found = spans.filter(*conditions) if conditions else spans
    return found.select(*dict.fromkeys((*_READ, *map(column_of, columns))))


def _no_spans(engine: Engine, columns: tuple[str, ...]) -> pa.Table:
    types = {"string": pa.string(), "float64": pa.float64()}
    schema = _whole_traces(Filter(), False, columns).schema()
    return pa.table({name: pa.array([], types.get(str(kind), pa.int64())) for name, kind in schema.items()})


def _framed(found: pa.Table, columns: tuple[str, ...], chosen: _Chosen) -> SpanFrame:
    without_start = found["start_ns"].null_count
    if without_start:
        found = found.filter(pc.is_valid(found["start_ns"]))
    trace = coded(found["trace_id"])
    start_ns = integers(found["start_ns"])
    duration_ns = np.maximum(integers(found["duration_ns"]), 0)
    span_id, parent_id = ids(found["span_id"], found["parent_id"])
    pid = integers(found["pid"], -1)
    texts = {name: coded(found[name]) for name in _CODED}
    rows = order(trace.codes, start_ns, (span_id, pid, duration_ns, texts["component"].codes))
    start_ns, duration_ns = start_ns[rows], duration_ns[rows]
    has_parent = numpy_of(found["parent_id"].is_valid())[rows]
    links = link(Spans(trace.codes[rows], span_id[rows], parent_id[rows], has_parent, pid[rows], start_ns, duration_ns))
    return SpanFrame(
        trace=trace.codes[rows],
        trace_ids=tuple(text or "" for text in trace.values),
        bounds=np.searchsorted(trace.codes[rows], np.arange(len(trace.values) + 1)).astype(np.int64),
        parent=links.parent,
        is_orphan=links.is_orphan,
        start_ns=start_ns,
        end_ns=start_ns + np.minimum(duration_ns, MAX_NS - np.maximum(start_ns, 0)),
        self_ns=links.self_ns,
        component=texts["component"].codes[rows],
        components=texts["component"].values,
        layer=texts["layer"].codes[rows],
        layers=texts["layer"].values,
        service=texts["service"].codes[rows],
        services=texts["service"].values,
        session=texts["session"].codes[rows],
        sessions=texts["session"].values,
        kind=texts["kind"].codes[rows],
        kinds=texts["kind"].values,
        is_error=numpy_of(pc.equal(found["status"], "ERROR").fill_null(False))[rows],
        weight=numpy_of(found["sample_weight"].fill_null(1.0))[rows],
        extra={name: extra(found[column_of(name)], rows) for name in columns},
        left_out_traces=chosen.left_out_traces,
        left_out_spans=chosen.left_out_spans + without_start,
        notes=_notes(chosen, without_start, links.circles, links.is_bounded),
        _span_ids=found["span_id"],
        _rows=rows,
    )


def _notes(chosen: _Chosen, without_start: int, circles: int, is_bounded: bool) -> tuple[str, ...]:
    notes = []
    if chosen.left_out_traces:
        notes.append(
            f"{chosen.trace_count:,} of {chosen.trace_count + chosen.left_out_traces:,} traces are looked at, a sample "
            f"by their ids: at most {chosen.max_traces:,} traces with {chosen.max_spans:,} spans."
        )
    if without_start:
        notes.append(f"{without_start:,} spans without a start are left out.")
    if circles:
        notes.append(f"{circles:,} circles of spans that are each other's parents were cut at the earliest span.")
    if is_bounded:
        notes.append("Very many spans share ids: for self times each child counts for one parent only.")
    return tuple(notes)
