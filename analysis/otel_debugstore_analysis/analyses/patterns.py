"""Habits that cost time: what calls do again and again that could be left out, done at once or side by side.

Within a trace, over the calls below one parent in the order of their begins (`_siblings`):

- `n_plus_one`: five calls or more of one component, one after the other, none of which is known to need another
  (`_needs`). One call for all is taken to take as long as the longest: saved is what the others took.
- `serial_calls`: calls one after the other, of several components or two to four of one, none of which is known to
  need what one before it returned. Side by side they would take as long as the longest: saved is what the others took.
- `retry`: a call that failed, followed by another of the same component, with the same input where that is known. Saved
  is the time from the begin of the first failure to the begin of the next attempt.
- `repeated_call`: the same component with the same input (`debugstore.input.digest`) and, where known, the same output,
  more than once in a trace and process, without an error. Saved is what all but the longest took.
- `lockstep_wait`: a span with two children or more that spent half of its self time, and a tenth of its duration, or
  more without using CPU: it waited between its children. CPU time counts what calls below it used in its thread, so
  that `self_ns - cpu_ns` is the least that it can have waited. Saved is that, at most.

Over the calls of a component (`_over_time`):

- `cold_start`: the first call of a component in a process took three times the median of all its calls there, and a
  millisecond more, or longer, with five calls at least. Saved is what it took beyond the median.
- `growing_input`: inputs get larger from call to call, and calls take longer with them: Spearman's rank correlation of
  size and begin is 0.5 or more, and of duration and size 0.7 or more, with eight calls at least. Saved is what the
  calls took beyond the median of the first quarter of them.

Savings are estimates of what could be gained at most, and they overlap: a repeated call may be one of N+1. That calls
do not depend on each other is never known for certain; what is known is said in `detail`.

Source: the habits are those that profilers of databases and of distributed traces look for (N+1 selects, chatty and
serial calls, retry storms, cold starts); Spearman (1904).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from otel_debugstore import attributes as names
from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses._found import Found
from otel_debugstore_analysis.analyses._over_time import SIZES, cold_starts, growing_inputs
from otel_debugstore_analysis.analyses._pattern_names import PATTERNS as PATTERNS
from otel_debugstore_analysis.analyses._points import PROCESS
from otel_debugstore_analysis.analyses._runs import observed_s
from otel_debugstore_analysis.analyses._serial import serial
from otel_debugstore_analysis.analyses._siblings import Calls, lockstep_waits, n_plus_one, repeated, retries
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, Table, tables
from otel_debugstore_analysis.query._frame import MAX_SPANS, SpanFrame, frame
from otel_debugstore_analysis.query._selection import ALL_ATTRIBUTES, Filter, attributes_among

if TYPE_CHECKING:
    import ibis.expr.types as ir

MAX_TRACES: Final = 5_000
SAMPLE_SPANS: Final = 30_000
_PROBED: Final = 1_024
_COLUMNS: Final = (
    "pattern",
    "parent",
    "component",
    "occurrences",
    "proofs",
    "observations",
    "calls",
    "total_ns",
    "saved_ns",
    "saved_ns_per_s",
    "detail",
    "trace_ids",
)


def patterns(
    engine: Engine,
    *,
    selection: Selection = EVERYTHING,
    only: Sequence[str] = PATTERNS,
    limit: int = 20,
    max_traces: int = MAX_TRACES,
    max_spans: int = SAMPLE_SPANS,
) -> Table:
    """Return a row a habit, parent and component: how often, the time of its calls, and what they could save at most.

    Counts and times are those of all traces: where a sample was looked at, they are estimated from it.

    Args:
        engine: Where the spans lie.
        selection: Which traces: those that have a selected span. Of cold starts, which spans.
        only: Which habits are looked for, among `PATTERNS`.
        limit: How many rows at most.
        max_traces: How many traces are looked at, at most.
        max_spans: How many spans are looked at, at most; of a first trace that is larger, all.

    Raises:
        QueryError: There is no such habit, or the engine refused the query.
    """
    for name in only:
        if name not in PATTERNS:
            raise QueryError(f"There is no pattern {name!r}; take one of {', '.join(PATTERNS)}.")
    return patterns_of(engine, spans_of(engine, selection, max_traces, max_spans), selection, only, limit)


def patterns_of(
    engine: Engine, spans: SpanFrame, selection: Selection, only: Sequence[str] = PATTERNS, limit: int = 20
) -> Table:
    """Return what `patterns` does, of spans that `spans_of` returned."""
    found = _found(engine, spans, selection, only, limit)
    stands_for = _stands_for(spans)
    seconds = observed_s(spans)
    ranked = sorted((one for part in found for one in part.findings), key=lambda one: one.order)
    rows: list[tuple[Any, ...]] = []
    for one in ranked[:limit]:
        factor = stands_for if one.is_sampled else 1.0
        saved_ns = one.saved_ns * factor
        proofs = one.occurrences if one.proofs is None else one.proofs
        occurrences, proofs, *sums = (round(n * factor) for n in (one.occurrences, proofs, one.calls, one.total_ns))
        rate = saved_ns / seconds if seconds else None
        counts = (occurrences, proofs, one.observations, *sums, saved_ns, rate)
        rows.append((one.pattern, one.parent, one.component, *counts, one.detail, one.trace_ids))
    left_out = sum(part.total for part in found) - len(rows)
    notes = spans.notes if len(spans) else ("There are no spans.", *spans.notes)
    if any(row[0] == "serial_calls" for row in rows):
        notes += (
            "Whether a call needs what an earlier one returned is known only where its input is that as a whole; "
            "look before calls are made side by side.",
        )
    return Table(_COLUMNS, rows, left_out, notes)


def _found(engine: Engine, spans: SpanFrame, selection: Selection, only: Sequence[str], limit: int) -> list[Found]:
    calls = Calls.of(spans)
    found = []
    for pattern, look in (
        ("n_plus_one", n_plus_one),
        ("serial_calls", serial),
        ("retry", retries),
        ("repeated_call", repeated),
        ("lockstep_wait", lockstep_waits),
    ):
        if pattern in only:
            found.append(look(calls, limit))
    if "growing_input" in only:
        found.append(growing_inputs(engine, spans, limit))
    if "cold_start" in only:
        found.append(cold_starts(engine, selection, limit))
    return found


def spans_of(engine: Engine, selection: Selection, max_traces: int, max_spans: int) -> SpanFrame:
    """Return the spans in which patterns are looked for; of a first trace that is larger, all."""
    attributes = (names.INPUT_DIGEST, names.OUTPUT_DIGEST, *SIZES)
    there = _attributes(engine, selection)
    known = [name for name in attributes if name in there]
    columns = ("cpu_ns", *PROCESS, *known)
    spans = frame(engine, selection=selection, max_traces=max_traces, max_spans=max_spans, columns=columns)
    if len(spans) or not spans.left_out_traces:
        return spans
    return frame(engine, selection=selection, max_traces=1, max_spans=MAX_SPANS, columns=columns)


def _attributes(engine: Engine, selection: Selection) -> set[str]:
    """Return the attributes of the first spans: reading one that no span has takes a second."""
    rows = tables.run(engine, _first_spans, selection.filter, _PROBED, **selection.parameters)
    found: set[str] = set()
    for text in {row[0] for row in rows if row[0]}:
        found.update(json.loads(text))
    return found


def _first_spans(selected: Filter, limit: int) -> ir.Table:
    spans = selected.apply(tables.spans((ALL_ATTRIBUTES, *attributes_among(selected.fields))))
    return spans.select(ALL_ATTRIBUTES).limit(limit)


def _stands_for(spans: SpanFrame) -> float:
    """Return how many traces each that was looked at stands for."""
    looked_at = len(spans.trace_ids)
    return (looked_at + spans.left_out_traces) / looked_at if looked_at else 1.0
