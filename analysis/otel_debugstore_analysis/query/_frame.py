"""Spans of whole traces as numpy columns: what graph and statistical analyses work on.

One bounded Arrow result is fetched; strings become codes in it, and the rest is numpy, so that every engine gives
the same rows. Of more traces than there is room for a sample is taken that does not depend on the engine or on what
else is stored: the least by the last 16 digits of their ids, which are random in ids made by OpenTelemetry.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import ibis
import ibis.expr.types as ir
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._engine import Engine
from otel_debugstore_analysis.query._links import Bools, Ints, Spans, link
from otel_debugstore_analysis.query._selection import EVERYTHING, Filter, Selection, attributes_among, column_of

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
_MAX_NS: Final = 2**63 - 1

Codes = npt.NDArray[np.int32]


class Coded(NamedTuple):
    """A column of texts: by row the place of its text in `values`, which are sorted; None, where it is, comes first."""

    codes: Codes
    values: tuple[str | None, ...]


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
        return np.asarray(self._span_ids.take(pa.array(self._rows)).to_numpy(zero_copy_only=False), dtype=object)

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
    rows = tables.run(engine, _sample, selection.filter, max_traces, **selection.parameters)
    all_traces, all_spans = (rows[0][2], int(rows[0][3])) if rows else (0, 0)
    count, spans = 0, 0
    for _, span_count, *_ in rows:
        if spans + span_count > max_spans:
            break
        count, spans = count + 1, spans + int(span_count)
    last_id = rows[count - 1][0] if count else ""
    left = all_traces - count
    return _Chosen(count, spans, last_id, left, all_spans - spans, max_traces, max_spans, left > 0)


def _sample(selected: Filter, limit: int) -> ir.Table:
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
    trace = _coded(found["trace_id"])
    start_ns = _integers(found["start_ns"])
    duration_ns = np.maximum(_integers(found["duration_ns"]), 0)
    span_id, parent_id = _ids(found["span_id"], found["parent_id"])
    pid = _integers(found["pid"], -1)
    rows = _order(trace.codes, start_ns, (span_id, pid, duration_ns, _coded(found["component"]).codes))
    trace_number, start_ns, duration_ns = trace.codes[rows], start_ns[rows], duration_ns[rows]
    has_parent = found["parent_id"].is_valid().to_numpy()[rows]
    links = link(Spans(trace_number, span_id[rows], parent_id[rows], has_parent, pid[rows], start_ns, duration_ns))
    coded = {name: _coded(found[name]) for name in _CODED}
    texts = {name: column.codes[rows] for name, column in coded.items()}
    values = {f"{name}s": column.values for name, column in coded.items()}
    return SpanFrame(
        trace=trace_number,
        trace_ids=tuple(text or "" for text in trace.values),
        bounds=np.searchsorted(trace_number, np.arange(len(trace.values) + 1)).astype(np.int64),
        parent=links.parent,
        is_orphan=links.is_orphan,
        start_ns=start_ns,
        end_ns=start_ns + np.minimum(duration_ns, _MAX_NS - np.maximum(start_ns, 0)),
        self_ns=links.self_ns,
        **texts,
        **values,
        is_error=pc.equal(found["status"], "ERROR").fill_null(False).to_numpy()[rows],
        weight=found["sample_weight"].fill_null(1.0).to_numpy()[rows],
        extra={name: _extra(found[column_of(name)], rows) for name in columns},
        left_out_traces=chosen.left_out_traces,
        left_out_spans=chosen.left_out_spans + without_start,
        notes=_notes(chosen, without_start, links.circles, links.is_bounded),
        _span_ids=found["span_id"],
        _rows=rows,
    )


def _coded(column: pa.ChunkedArray) -> Coded:
    """Return a column of texts as codes into its sorted values."""
    encoded = pc.dictionary_encode(column.combine_chunks(), null_encoding="encode")
    texts: list[str | None] = encoded.dictionary.to_pylist()
    places = sorted(range(len(texts)), key=lambda place: (texts[place] is not None, texts[place] or ""))
    rank = np.empty(len(texts), np.int32)
    rank[places] = np.arange(len(texts), dtype=np.int32)
    return Coded(rank[encoded.indices.to_numpy()], tuple(texts[place] for place in places))


def _extra(column: pa.ChunkedArray, rows: Ints) -> Coded | npt.NDArray[np.float64]:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        coded = _coded(column)
        return Coded(coded.codes[rows], coded.values)
    numbers: npt.NDArray[np.float64] = column.cast(pa.float64(), safe=False).fill_null(float("nan")).to_numpy()[rows]
    return numbers


def _integers(column: pa.ChunkedArray, missing: int = 0) -> Ints:
    return np.asarray(column.cast(pa.int64()).fill_null(missing).to_numpy(), dtype=np.int64)


def _order(trace: Codes, start_ns: Ints, ties: Sequence[npt.NDArray[Any]]) -> Ints:
    """Return the rows by trace, then by start, then by the others."""
    if not len(trace):
        return np.empty(0, np.int64)
    least, most = int(start_ns.min()), int(start_ns.max())
    if (int(trace.max()) + 1) * (most - least + 1) > _MAX_NS:
        return np.lexsort((*ties[::-1], start_ns, trace))
    key = trace.astype(np.int64) * (most - least + 1) + (start_ns - least)
    rows = np.argsort(key)
    same = np.diff(key[rows]) == 0
    if np.any(same):
        tied = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
        within = rows[tied]
        rows[tied] = within[np.lexsort((*(tie[within] for tie in ties[::-1]), key[within]))]
    return rows


def _ids(span_id: pa.ChunkedArray, parent_id: pa.ChunkedArray) -> tuple[npt.NDArray[np.uint64], ...]:
    """Return ids as numbers, in the order of their texts and equal where they are."""
    numbers = [_hexadecimal(column) for column in (span_id, parent_id)]
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0], numbers[1]
    both = _coded(pa.chunked_array([*span_id.chunks, *parent_id.chunks], pa.string())).codes.astype(np.uint64)
    return both[: len(span_id)], both[len(span_id) :]


_DIGITS: Final = np.full(256, 255, np.uint8)
_DIGITS[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)


def _hexadecimal(column: pa.ChunkedArray) -> npt.NDArray[np.uint64] | None:
    """Return the numbers that texts of 16 hexadecimal digits say, 0 for NULL; None where others are among them."""
    texts = column.fill_null("0" * _KEY_LENGTH).cast(pa.large_binary()).combine_chunks()
    if not pc.all(pc.equal(pc.binary_length(texts), _KEY_LENGTH), min_count=0).as_py():
        return None
    _, offsets, data = texts.buffers()
    begin = int(np.frombuffer(offsets, np.int64)[texts.offset]) if len(texts) else 0
    characters = np.frombuffer(data or b"", np.uint8)[begin : begin + _KEY_LENGTH * len(texts)]
    digits = _DIGITS[characters]
    if np.any(digits == 255):
        return None
    packed = (digits[0::2] << 4) | digits[1::2]
    return packed.view(">u8").astype(np.uint64)


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
