"""What to optimise next: what it would save, as far as the recording proves it.

Candidates are of two kinds. `faster`: a component that takes half of its own time away, in all workflows together (see
`whatif`; `faster` sets another share). And the habits of `patterns`, with what leaving them out would save. Both are
in nanoseconds saved for each second of observation, so that they can be compared.

    expected_ns_per_s = saved_ns_per_s * confidence,    confidence = n / (n + 1.96^2)

where n is the number of recorded runs that would have been shorter (or of recorded occurrences that prove the habit:
see `patterns`), each counted once, however many calls it stands for. That is the lower end of Wilson's 95 % interval of
a share that was n of n: how often, at least, it can be expected to save something where it did so n times. So what was
seen twice comes after what was seen two hundred times, if they save the same. A habit that nothing proves is no
candidate.

Savings overlap: making a component faster and calling it less often save the same time once. They must not be added up.

Sources: those of `whatif` and `patterns`; Wilson (1927).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses._points import PROCESS
from otel_debugstore_analysis.analyses.patterns import patterns_of, spans_of
from otel_debugstore_analysis.analyses.statistics import wilson
from otel_debugstore_analysis.analyses.whatif import whatif_of
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, Table, tables
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import Filter, attributes_among

if TYPE_CHECKING:
    import ibis.expr.types as ir

FASTER: Final = 0.5
MIN_EXECUTIONS: Final = 10
LOOKED_AT: Final = 50
MAX_TRACES: Final = 3_000
MAX_SPANS: Final = 100_000
MAX_COMPONENTS: Final = 10_000
EVIDENCE: Final = 3
COLUMNS: Final = (
    "kind",
    "component",
    "where",
    "expected_ns_per_s",
    "saved_ns_per_s",
    "confidence",
    "observations",
    "executions",
    "mean_ns",
    "processes",
    "p95_saved_ns",
    "detail",
    "trace_ids",
)


class _Use(NamedTuple):
    """How a component was used: calls, their mean duration, and the processes they were in."""

    executions: float
    mean_ns: float
    processes: int


_Uses = Mapping[str | None, _Use]


class _Candidate(NamedTuple):
    kind: str
    component: str | None
    where: str | None
    saved_ns_per_s: float
    observations: int
    p95_saved_ns: float | None
    detail: str
    trace_ids: tuple[str, ...]
    use: _Use | None

    @property
    def confidence(self) -> float:
        """How often, at least, such a thing can be expected to save time."""
        return wilson(self.observations, self.observations).low

    @property
    def expected_ns_per_s(self) -> float:
        """What it saves, times the confidence."""
        return self.saved_ns_per_s * self.confidence

    @property
    def order(self) -> tuple[Any, ...]:
        """What candidates are sorted by: those that save most first, then by name."""
        return -round(self.expected_ns_per_s, 3), self.kind, self.component or "", self.where or ""


def candidates(
    engine: Engine,
    *,
    selection: Selection = EVERYTHING,
    min_executions: int = MIN_EXECUTIONS,
    min_duration_ns: int = 0,
    faster: float = FASTER,
    limit: int = 20,
    max_traces: int = MAX_TRACES,
    max_spans: int = MAX_SPANS,
) -> Table:
    """Return what to optimise, the largest expected saving first.

    Args:
        engine: Where the spans lie.
        selection: Which traces: those that have a selected span.
        min_executions: Components with fewer calls are left out.
        min_duration_ns: And those whose calls take less on average.
        faster: By how much of its own time a component is taken to get faster.
        limit: How many rows at most.
        max_traces: How many traces are looked at, at most.
        max_spans: How many spans are looked at, at most.

    Raises:
        QueryError: A bound is negative, `faster` is no share, or the engine refused the query.
    """
    if min_executions < 0 or min_duration_ns < 0:
        raise QueryError("Calls and durations can't be fewer or less than 0.")
    spans = spans_of(engine, selection, max_traces, max_spans)
    faster_table = whatif_of(spans, faster=(faster,), limit=LOOKED_AT)
    habits = patterns_of(engine, spans, selection, limit=LOOKED_AT)
    uses = _uses(engine, selection)
    found = [*_faster(faster_table, faster, uses), *_habits(habits, uses)]
    kept = [
        one
        for one in found
        if one.expected_ns_per_s > 0
        and one.use is not None
        and one.use.executions >= min_executions
        and one.use.mean_ns >= min_duration_ns
    ]
    kept.sort(key=lambda one: one.order)
    notes = tuple(dict.fromkeys((*faster_table.notes, *habits.notes)))
    if faster_table.left_out or habits.left_out:
        notes += (f"Only the {LOOKED_AT} best of `whatif` and of `patterns` are looked at: there may be more.",)
    left_out = max(len(kept) - limit, 0)
    return Table(COLUMNS, [_row(one) for one in kept[:limit]], left_out, (*notes, *_notes(found, kept)))


def _faster(table: Table, share: float, uses: _Uses) -> list[_Candidate]:
    """Return a candidate a component: what it saves in all workflows."""
    by_component: dict[str | None, list[dict[str, Any]]] = {}
    for row in table.dicts():
        by_component.setdefault(row["component"], []).append(row)
    found = []
    for component, rows in by_component.items():
        saving = [row for row in rows if row["saved_ns"] > 0]
        if not saving:
            continue
        first = saving[0]
        evidence = dict.fromkeys(trace_id for row in saving for trace_id in row["trace_ids"])
        found.append(
            _Candidate(
                kind="faster",
                component=component,
                where=first["workflow"],
                saved_ns_per_s=float(sum(row["saved_ns_per_s"] or 0.0 for row in saving)),
                observations=sum(row["observations"] for row in saving),
                p95_saved_ns=max(row["p95_saved_ns"] for row in saving),
                detail=f"{share:.0%} less time of its own saves {first['saved_share']:.1%} of {first['workflow']}",
                trace_ids=tuple(evidence)[:EVIDENCE],
                use=uses.get(component),
            )
        )
    return found


def _habits(table: Table, uses: _Uses) -> list[_Candidate]:
    return [
        _Candidate(
            kind=row["pattern"],
            component=row["component"],
            where=row["parent"],
            saved_ns_per_s=float(row["saved_ns_per_s"] or 0.0),
            observations=row["observations"],
            p95_saved_ns=None,
            detail=row["detail"],
            trace_ids=row["trace_ids"],
            use=uses.get(row["component"]) or _use_of_several(row, uses),
        )
        for row in table.dicts()
    ]


def _use_of_several(row: Mapping[str, Any], uses: _Uses) -> _Use | None:
    """Return the use of calls of several components, if their parent is selected: as often as they come together."""
    if row["pattern"] != "serial_calls" or row["parent"] not in uses:
        return None
    return _Use(row["occurrences"], row["total_ns"] / max(row["calls"], 1), uses[row["parent"]].processes)


def _uses(engine: Engine, selection: Selection) -> _Uses:
    rows = tables.run(engine, _by_component, selection.filter, MAX_COMPONENTS, **selection.parameters)
    return {row[0]: _Use(row[1], row[2] / row[1] if row[1] else 0.0, row[3]) for row in rows}


def _by_component(shape: Filter, limit: int) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among((*shape.fields, *PROCESS))))
    processes = spans.group_by("component", *PROCESS).aggregate(
        calls=spans.sample_weight.sum(),
        total_ns=(spans.duration_ns.cast("float64") * spans.sample_weight).sum().fill_null(0.0),
    )
    groups = processes.group_by("component").aggregate(
        calls=processes.calls.sum(), total_ns=processes.total_ns.sum(), processes=processes.count()
    )
    return groups.order_by(ibis.desc("total_ns"), "component").limit(limit)


def _row(one: _Candidate) -> tuple[Any, ...]:
    assert one.use is not None
    return (
        one.kind,
        one.component,
        one.where,
        one.expected_ns_per_s,
        one.saved_ns_per_s,
        one.confidence,
        one.observations,
        round(one.use.executions),
        one.use.mean_ns,
        one.use.processes,
        one.p95_saved_ns,
        one.detail,
        one.trace_ids,
    )


def _notes(found: list[_Candidate], kept: list[_Candidate]) -> Iterator[str]:
    unproven = sum(not one.observations for one in found)
    if unproven:
        yield (
            f"{unproven:,} of the habits are left out: nothing shows that these calls could be made side by side. "
            "`debugstore patterns` lists them."
        )
    if kept:
        yield "Savings overlap: what several candidates save must not be added up."
    elif len(found) > unproven:
        yield "No candidate has so many calls of that duration."
    else:
        yield "Nothing was found that would save time."
