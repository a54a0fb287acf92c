"""Spans of whole traces as numpy columns: what graph and statistical analyses work on.

One bounded Arrow result is fetched; strings become codes in it, and the rest is numpy, so that every engine gives
the same rows. Of more traces than there is room for a sample is taken that does not depend on the engine or on what
else is stored: the least by the last 16 digits of their ids, which are random in ids made by OpenTelemetry.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._columns import MAX_NS, Codes, coded, extra, ids, integers, numpy_of, order
from otel_debugstore_analysis.query._columns import Coded as Coded
from otel_debugstore_analysis.query._engine import Engine
from otel_debugstore_analysis.query._links import Bools, Ints, Spans, link
from otel_debugstore_analysis.query._sample import KEY_LENGTH, Chosen, Traces, choose, whole_traces
from otel_debugstore_analysis.query._selection import EVERYTHING, Filter, Selection, column_of
from otel_debugstore_analysis.query._snapshot import Snapshot

if TYPE_CHECKING:
    pass

MAX_TRACES: Final = 10_000
MAX_SPANS: Final = 1_000_000
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
    """Spans of whole traces, a row a span: by trace, start, the longest first, and span id.

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
    trace_ids: Sequence[str] | None = None,
    max_traces: int = MAX_TRACES,
    max_spans: int = MAX_SPANS,
    columns: Sequence[str] = (),
) -> SpanFrame:
    """Return the spans of the traces in which the selection takes at least one span.

    Args:
        engine: Where the spans lie.
        selection: Which traces: those that have a selected span. All their spans come, selected or not.
        trace_ids: Which traces, in place of a selection.
        max_traces: How many traces at most.
        max_spans: How many spans at most; a trace comes as a whole or not at all.
        columns: Further fields of spans for `extra`: columns, or keys of attributes.

    Raises:
        QueryError: A field can't be used, or the engine refused the query.
    """
    traces = Traces(selection, tuple(trace_ids) if trace_ids is not None else None)
    further = tuple(dict.fromkeys(columns))
    if isinstance(engine, Snapshot):
        known: list[SpanFrame] = engine.once(("frame", traces.key, max_traces, max_spans), list)
        if not any(set(further) <= one.extra.keys() for one in known):
            known.append(_frame(engine, traces, max_traces, max_spans, further))
        return next(one for one in known if set(further) <= one.extra.keys())
    return _frame(engine, traces, max_traces, max_spans, further)


def _frame(engine: Engine, traces: Traces, max_traces: int, max_spans: int, columns: tuple[str, ...]) -> SpanFrame:
    chosen = choose(engine, traces, max_traces, max_spans)
    if not chosen.ids:
        return _framed(_no_spans(columns), columns, chosen)
    parameters: dict[str, Any] = {}
    if engine.dialect != tables.CLICKHOUSE and (chosen.left_out_traces or traces.filter != Filter()):
        # A fifth of the time that the condition takes; it is ClickHouse that finds spans by their time.
        traces, parameters = Traces(EVERYTHING, chosen.ids), {}
    elif chosen.left_out_traces:
        parameters = {"last_key": chosen.ids[-1][-KEY_LENGTH:], "last_id": chosen.ids[-1]}
    query = tables.compiled(
        engine.dialect, whole_traces, traces.filter, traces.is_given, bool(parameters), (*_READ, *columns)
    )
    found = engine.fetch_arrow(query, traces.parameters | parameters, further=True)
    return _framed(found, columns, chosen)


def _no_spans(columns: tuple[str, ...]) -> pa.Table:
    types = {"string": pa.string(), "float64": pa.float64()}
    names = dict.fromkeys((*_READ, *map(column_of, columns)))
    return pa.table(
        {name: pa.array([], types.get(tables.SPAN_TYPES.get(name, "string"), pa.int64())) for name in names}
    )


def _framed(found: pa.Table, columns: tuple[str, ...], chosen: Chosen) -> SpanFrame:
    without_start = found["start_ns"].null_count
    if without_start:
        found = found.filter(pc.is_valid(found["start_ns"]))
    trace = coded(found["trace_id"])
    start_ns = integers(found["start_ns"])
    duration_ns = np.maximum(integers(found["duration_ns"]), 0)
    span_id, parent_id = ids(found["span_id"], found["parent_id"])
    pid = integers(found["pid"], -1)
    texts = {name: coded(found[name]) for name in _CODED}
    has_parent = numpy_of(found["parent_id"].is_valid())
    ties = (-duration_ns, span_id, pid, has_parent, parent_id, texts["component"].codes)  # as `_trace` has them
    rows = order(trace.codes, start_ns, ties)
    start_ns, duration_ns, has_parent = start_ns[rows], duration_ns[rows], has_parent[rows]
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


def _notes(chosen: Chosen, without_start: int, circles: int, is_bounded: bool) -> tuple[str, ...]:
    notes = []
    if chosen.left_out_traces:
        notes.append(
            f"{len(chosen.ids):,} of {len(chosen.ids) + chosen.left_out_traces:,} traces are looked at, a sample "
            f"by their ids: at most {chosen.max_traces:,} traces with {chosen.max_spans:,} spans."
        )
    if without_start:
        notes.append(f"{without_start:,} spans without a start are left out.")
    if circles:
        notes.append(f"{circles:,} circles of spans that are each other's parents were cut at the earliest span.")
    if is_bounded:
        notes.append("Very many spans share ids: for self times each child counts for one parent only.")
    return tuple(notes)
