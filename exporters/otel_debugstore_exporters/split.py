"""Parts of a batch."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from typing import Any

from otel_debugstore_exporters.batch import SpanBatch


def split_batch(batch: SpanBatch, max_spans: int = 512) -> Iterator[SpanBatch]:
    """Yield the batch's spans in order, in batches of at most `max_spans`, with the names they use."""
    if len(batch) <= max_spans:
        yield batch
        return
    for first in range(0, len(batch), max_spans):
        yield slice_batch(batch, first, min(first + max_spans, len(batch)))


def slice_batch(batch: SpanBatch, first: int, end: int) -> SpanBatch:
    """Return the spans at rows `first` up to, but without, `end`; what belongs to no row goes with row 0."""
    names, name_index = _used(batch.names, batch.name_index[first:end])
    resources, resource_index = _used(batch.resources, batch.resource_index[first:end])
    scopes, scope_index = _used(batch.scopes, batch.scope_index[first:end])
    return SpanBatch(
        trace_ids=batch.trace_ids[16 * first : 16 * end],
        span_ids=batch.span_ids[8 * first : 8 * end],
        parent_ids=batch.parent_ids[8 * first : 8 * end],
        start_ns=batch.start_ns[first:end],
        end_ns=batch.end_ns[first:end],
        kinds=batch.kinds[first:end],
        status_codes=batch.status_codes[first:end],
        flags=batch.flags[first:end],
        names=names,
        name_index=name_index,
        resources=resources,
        resource_index=resource_index,
        scopes=scopes,
        scope_index=scope_index,
        attributes=batch.attributes[first:end],
        status_messages=_rows(batch.status_messages, first, end),
        trace_states=_rows(batch.trace_states, first, end),
        events=_rows(batch.events, first, end),
        links=_rows(batch.links, first, end),
        dropped=_rows(batch.dropped, first, end),
        layers=_rows(batch.layers, first, end),
        payloads=[] if first else batch.payloads,
        code=[] if first else batch.code,
        counts=[] if first else batch.counts,
        pid=batch.pid,
    )


def _used(values: list[Any], index: array[int]) -> tuple[list[Any], array[int]]:
    numbers: dict[int, int] = {}
    renumbered = array("I", [numbers.setdefault(old, len(numbers)) for old in index])
    return [values[old] for old in numbers], renumbered


def _rows(sparse: Mapping[int, Any], first: int, end: int) -> dict[int, Any]:
    return {row - first: value for row, value in sparse.items() if first <= row < end}
