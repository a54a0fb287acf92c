"""Which services, or components, are to blame for what a set of spans has and another hasn't: slowness or failure.

One ranking that doesn't ask what kind of fault it is; `_suspects` has the formula. A fault of the processor shows in
the time calls take themselves, a slow network in the gaps between client and server, and others in calls that fail.

Sources: the signals are those that were found to name injected faults in Nezha's data (Yu et al., "Nezha: Interpretable
Fine-Grained Root Causes Analysis for Microservices", ESEC/FSE 2023).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses._calls import Part
from otel_debugstore_analysis.analyses._suspects import Suspect, suspects
from otel_debugstore_analysis.query import Engine, Selection, SpanFrame, Table, frame

UNITS: Final = ("service", "component")
MAX_TRACES: Final = 2_000
MAX_SPANS: Final = 100_000
COLUMNS: Final = ("score", "own_ns", "gap_ns", "failing_share", "signal", "component", "traces", "trace_ids")


def root_cause(
    engine: Engine,
    *,
    selection: Selection,
    baseline: Selection,
    by: str | None = None,
    limit: int = 20,
    max_traces: int = MAX_TRACES,
    max_spans: int = MAX_SPANS,
    baseline_engine: Engine | None = None,
) -> Table:
    """Return a row a service, or component: the most suspect first.

    Args:
        engine: Where the spans lie.
        selection: The spans to explain: those of the time of a fault, say. Of the traces that it takes spans of, those
            that start in its time range count.
        baseline: What they are compared with.
        by: What is suspected: service or component; without it services, if there are several.
        limit: How many rows at most.
        max_traces: How many traces of each set at most.
        max_spans: How many spans of each set at most.
        baseline_engine: Where the spans of the baseline lie, if elsewhere.

    Raises:
        QueryError: There is nothing like `by`, or the engine refused the query.
    """
    if by is not None and by not in UNITS:
        raise QueryError(f"Root causes can't be ranked by {by!r}; take service or component.")
    faulty = frame(engine, selection=selection, max_traces=max_traces, max_spans=max_spans)
    before = frame(baseline_engine or engine, selection=baseline, max_traces=max_traces, max_spans=max_spans)
    return ranking(_part(faulty, selection), _part(before, baseline), by, limit)


def ranking(faulty: Part, base: Part, by: str | None, limit: int) -> Table:
    """Return the suspects of two parts as a table."""
    by = by or ("service" if _services(faulty) > 1 else "component")
    columns = tuple("most_component" if by == name == "component" else name for name in COLUMNS)
    found = suspects(faulty, base, by)
    notes = [*dict.fromkeys((*faulty.frame.notes, *base.frame.notes))]
    if not found:
        notes.append("There are no spans to explain.")
    elif not len(base.rows):
        notes.append("There is nothing to compare with: no span is in the baseline.")
        found = []
    rows = [_row(one) for one in found[:limit]]
    return Table((by, *columns), rows, len(found) - len(rows), tuple(notes))


def _row(one: Suspect) -> tuple[object, ...]:
    measures = (one.score, one.own_ns, one.gap_ns, one.failing_share)
    return (one.unit, *measures, one.signal, one.component, one.groups, one.trace_ids)


def _services(part: Part) -> int:
    return len(np.unique(part.frame.service[part.rows]))


def _part(spans: SpanFrame, selection: Selection) -> Part:
    """Return the rows that start in the selection's time; their groups are traces."""
    is_chosen = np.ones(len(spans), np.bool_)
    if selection.since_ns is not None:
        is_chosen &= spans.start_ns >= selection.since_ns
    if selection.until_ns is not None:
        is_chosen &= spans.start_ns < selection.until_ns
    rows = np.flatnonzero(is_chosen)
    group = np.unique(spans.trace[rows], return_inverse=True)[1].astype(np.int64)
    return Part(spans, rows, group)
