"""The spans of a context: those of its records, and all that lies below them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._structure import Ints, along
from otel_debugstore_analysis.query import Engine, Selection, SpanFrame, frame


class Spans(NamedTuple):
    """Spans by their ids.

    Attributes:
        span_ids: Of each span, sorted.
        record_ids: What the `records` view calls them: the trace's id, a dash, and the span's.
        notes: What has to be said of them, a sentence each.
    """

    span_ids: tuple[str, ...]
    record_ids: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def selection(self) -> Selection:
        """These spans, as a selection."""
        return Selection(where={"span_id": self.span_ids or ("",)})


def with_all_below(engine: Engine, record_ids: Sequence[str]) -> Spans:
    """Return spans, and all that lies below them in their traces.

    Args:
        engine: Where they lie.
        record_ids: What the `records` view calls them.
    """
    found = set(record_ids)
    traces = tuple(sorted({_split(one)[0] for one in found}))
    notes: tuple[str, ...] = ()
    if traces:
        spans = frame(engine, trace_ids=traces)
        found |= _below(spans, found)
        notes = spans.notes
    return Spans(tuple(sorted({_split(one)[1] for one in found})), tuple(sorted(found)), notes)


def _below(spans: SpanFrame, record_ids: set[str]) -> set[str]:
    """Return what the `records` view calls those spans of a frame that are such records, or lie below one."""
    traces = spans.trace.tolist()
    ids = [f"{spans.trace_ids[trace]}-{span_id}" for trace, span_id in zip(traces, spans.span_ids, strict=True)]
    is_in = np.array([one in record_ids for one in ids], np.bool_)
    parent = spans.parent.astype(np.int64)

    def below(ancestor: Ints) -> None:
        is_in[:] |= is_in[ancestor]

    along(np.where(parent >= 0, parent, np.arange(len(parent))), below)
    return set(itertools.compress(ids, is_in))


def _split(record_id: str) -> tuple[str, str]:
    trace_id, _, span_id = record_id.partition("-")
    return trace_id, span_id
