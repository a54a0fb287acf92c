"""Patterns among the calls below one parent, and in a trace: see `patterns`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from otel_debugstore import attributes as names
from otel_debugstore_analysis.analyses._found import (
    NOTHING,
    Finding,
    Found,
    Occurrences,
    component_of,
    evidence,
    groups,
)
from otel_debugstore_analysis.analyses._needs import broken, needed, of_own_component
from otel_debugstore_analysis.analyses._points import PROCESS, units
from otel_debugstore_analysis.analyses._structure import Bools, Ints
from otel_debugstore_analysis.query._columns import Coded, Codes
from otel_debugstore_analysis.query._frame import SpanFrame

MANY_CALLS: Final = 5
_LEAST_IDLE_SHARE: Final = 0.5
_LEAST_IDLE_PART: Final = 0.1


@dataclass(frozen=True)
class Calls:
    """The calls of a frame that have a parent, by parent and begin.

    Attributes:
        spans: The frame.
        row: Their rows.
        parent: The rows of their parents.
        is_after: Whether the call is below the same parent as the one before it here, and began when all calls
            before it below that parent had ended.
        needs: By row of the frame that of the call whose result it is known to need; -1 for none.
    """

    spans: SpanFrame
    row: Ints
    parent: Ints
    is_after: Bools
    needs: Ints

    @staticmethod
    def of(spans: SpanFrame) -> Calls:
        """Return the calls of a frame."""
        row = np.flatnonzero(spans.parent >= 0)
        row = row[np.lexsort((spans.start_ns[row], spans.parent[row]))]
        parent = spans.parent[row].astype(np.int64)
        is_first = np.diff(parent, prepend=-1) != 0
        is_after = ~is_first & _after_all(spans, row, is_first)
        return Calls(spans, row, parent, is_after, needed(spans, row, parent))

    def by_component(self, *further: Codes) -> tuple[Ints, Bools, Bools]:
        """Return the rows of calls by parent, component and begin; which begin a group; which are after all before.

        Args:
            further: By row of the frame what else the calls of a group have in common.
        """
        keys = [codes[self.row] for codes in (*further, self.spans.component)] + [self.parent]
        order = np.lexsort((np.arange(len(self.row)), *keys))
        row = self.row[order]
        is_first = np.zeros(len(row), np.bool_)
        for key in keys:
            is_first |= np.diff(key[order], prepend=-1) != 0
        return row, is_first, ~is_first & _after_all(self.spans, row, is_first)


def n_plus_one(calls: Calls, limit: int) -> Found:
    """Return calls of one component, many and one after the other below one parent, of which none needs another."""
    row, is_first, is_after = calls.by_component()
    first, count = runs(broken(is_first | ~is_after, row, of_own_component(calls.spans, calls.needs)))
    kept = count >= MANY_CALLS
    found = occurrences(calls, row, first[kept], count[kept])
    return _as_found(calls, found, "n_plus_one", limit, "{each:,.0f} calls below a parent, one after the other")


def retries(calls: Calls, limit: int) -> Found:
    """Return failed calls that were followed by another with the same input below the same parent."""
    spans = calls.spans
    row, _, is_after = calls.by_component(inputs(spans))
    failed = np.flatnonzero(is_after[1:] & spans.is_error[row[:-1]])
    before, after = row[failed], row[failed + 1]
    parent = spans.parent[before]
    found = Occurrences(
        parent=spans.component[parent].astype(np.int64),
        component=spans.component[before].astype(np.int64),
        calls=np.ones(len(before), np.int64),
        total_ns=spans.end_ns[before] - spans.start_ns[before],
        saved_ns=spans.start_ns[after] - spans.start_ns[before],
        trace=spans.trace[before].astype(np.int64),
        weight=spans.weight[before],
    )
    return _as_found(calls, found, "retry", limit, "failed, and called again below the same parent")


def repeated(calls: Calls, limit: int) -> Found:
    """Return calls that were made with the same input in a trace and process, outermost ones and without an error."""
    spans = calls.spans
    digest = spans.extra.get(names.INPUT_DIGEST)
    if not isinstance(digest, Coded):
        return NOTHING
    output = spans.extra.get(names.OUTPUT_DIGEST)
    has_input = np.array([text is not None for text in digest.values])[digest.codes]
    row = np.flatnonzero(has_input & ~spans.is_error)
    process = units(spans, PROCESS)[row]
    returned = output.codes[row] if isinstance(output, Coded) else np.zeros(len(row), np.int32)
    keys = (returned, digest.codes[row], spans.component[row], process, spans.trace[row])
    order = np.lexsort((np.arange(len(row)), *keys))
    row = row[order]
    is_new = np.zeros(len(row), np.bool_)
    is_new[:1] = True
    for key in keys:
        is_new[1:] |= np.diff(key[order]) != 0
    number = np.cumsum(is_new)
    of = np.zeros(len(spans), np.int64)
    of[row] = number
    parent = spans.parent[row]
    outermost = (parent < 0) | (of[parent] != number)
    row, number = row[outermost], number[outermost]
    first, count = runs(np.diff(number, prepend=0) != 0)
    kept = count > 1
    found = occurrences(calls, row, first[kept], count[kept])
    return _as_found(calls, found, "repeated_call", limit, "{each:,.1f} times with one input in a trace and process")


def lockstep_waits(calls: Calls, limit: int) -> Found:
    """Return spans that waited between their children without using CPU."""
    spans = calls.spans
    cpu_ns = np.asarray(spans.extra["cpu_ns"], dtype=np.float64)
    children = np.bincount(calls.parent, minlength=len(spans))
    idle_ns = np.where(np.isnan(cpu_ns), 0, spans.self_ns - np.nan_to_num(cpu_ns))
    duration_ns = spans.end_ns - spans.start_ns
    is_idle = (idle_ns >= _LEAST_IDLE_SHARE * spans.self_ns) & (idle_ns >= _LEAST_IDLE_PART * duration_ns)
    row = np.flatnonzero(is_idle & (children >= 2) & (idle_ns > 0))
    parent = spans.parent[row]
    found = Occurrences(
        parent=np.where(parent >= 0, spans.component[parent], -1).astype(np.int64),
        component=spans.component[row].astype(np.int64),
        calls=np.ones(len(row), np.int64),
        total_ns=duration_ns[row],
        saved_ns=idle_ns[row].astype(np.int64),
        trace=spans.trace[row].astype(np.int64),
        weight=spans.weight[row],
    )
    return _as_found(calls, found, "lockstep_wait", limit, "waited {saved_share:.0%} of its time between its children")


def _after_all(spans: SpanFrame, row: Ints, is_first: Bools) -> Bools:
    """Return which calls began when all before them in their group had ended."""
    if not len(row):
        return np.empty(0, np.bool_)
    first = np.maximum.accumulate(np.where(is_first, np.arange(len(row)), 0))
    order = np.argsort(spans.end_ns[row], kind="stable")
    rank = np.empty(len(row), np.int64)
    rank[order] = np.arange(len(row))
    group = np.cumsum(is_first)
    latest = np.maximum.accumulate(group * len(row) + rank) - group * len(row)
    ended_ns = spans.end_ns[row][order][latest]
    is_after: Bools = first != np.arange(len(row))
    is_after[1:] &= spans.start_ns[row[1:]] >= ended_ns[:-1]
    return is_after


def runs(is_first: Bools) -> tuple[Ints, Ints]:
    """Return where runs begin, and how long they are."""
    first = np.flatnonzero(is_first)
    return first, np.diff(first, append=len(is_first))


def occurrences(calls: Calls, row: Ints, first: Ints, count: Ints) -> Occurrences:
    """Return runs of calls of which all but the longest would be saved."""
    spans = calls.spans
    if not len(first):
        empty = np.empty(0, np.int64)
        return Occurrences(empty, empty, empty, empty, empty, empty, np.empty(0))
    places = np.repeat(first - np.cumsum(count) + count, count) + np.arange(int(count.sum()))
    begin = np.cumsum(count) - count
    duration_ns = (spans.end_ns - spans.start_ns)[row[places]]
    total_ns = np.add.reduceat(duration_ns, begin)
    longest_ns = np.maximum.reduceat(duration_ns, begin)
    one = row[first]
    parent = spans.parent[one]
    return Occurrences(
        parent=np.where(parent >= 0, spans.component[parent], -1).astype(np.int64),
        component=spans.component[one].astype(np.int64),
        calls=count.astype(np.int64),
        total_ns=total_ns,
        saved_ns=total_ns - longest_ns,
        trace=spans.trace[one].astype(np.int64),
        weight=spans.weight[one],
    )


def _as_found(calls: Calls, found: Occurrences, pattern: str, limit: int, detail: str) -> Found:
    made, total = groups(found, limit)
    findings = []
    for group in made:
        text = detail.format(
            each=group.calls / group.occurrences, saved_share=group.saved_ns / max(group.total_ns, 1.0)
        )
        parent, component = component_of(calls.spans, group.parent), component_of(calls.spans, group.component)
        sums = (group.occurrences, group.calls, group.total_ns, group.saved_ns)
        traces = evidence(calls.spans, found.trace[group.members])
        findings.append(Finding(pattern, parent, component, *sums, len(group.members), text, traces))
    return Found(findings, total)


def inputs(spans: SpanFrame) -> Codes:
    """Return a code for the input of each call; one for all where none is known."""
    digest = spans.extra.get(names.INPUT_DIGEST)
    return digest.codes if isinstance(digest, Coded) else np.zeros(len(spans), np.int32)
