"""What a report is made of: the answers of the analyses, all of one moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Any, Final

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses.candidates import MAX_SPANS, MAX_TRACES
from otel_debugstore_analysis.analyses.compare import SIGNIFICANT
from otel_debugstore_analysis.analyses.explain import Explanation
from otel_debugstore_analysis.analysis import Analysis
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, Table, Trace, frame, slowest, trace
from otel_debugstore_analysis.query._snapshot import Snapshot
from otel_debugstore_analysis.report import commands
from otel_debugstore_analysis.report.answer import tables_of
from otel_debugstore_analysis.report.flame import Box, flame
from otel_debugstore_analysis.report.overview import Overview, overview

ROWS: Final = 20
SAMPLES: Final = 2
_SAMPLE_SPANS: Final = 40
_DETAILED: Final = 6
_SAMPLE: Final[dict[str, Any]] = {"max_traces": MAX_TRACES, "max_spans": MAX_SPANS}
"""Of more traces a report looks at a sample, and says so: that of `candidates`, so that both recommend the same."""
_CALLS: Final = 1_000
_TRACES_OF_CALLS: Final = 100

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Findings:
    """What is known of the spans that are selected.

    Attributes:
        selection: Which ones.
        overview: How many, and when.
        tables: The answers' tables by `analysis` or, of an answer with several, by `analysis.table`.
        traces: The slowest traces.
        records: Records that were written by hand, with what went in and out.
        flame: The boxes of a flame graph.
        scope: Options of the command line that name the sessions, or the database.
    """

    selection: Selection
    overview: Overview
    tables: Mapping[str, Table]
    traces: tuple[Trace, ...]
    records: Mapping[str, Table] = field(default_factory=dict)
    flame: Sequence[Box] = ()
    scope: tuple[str, ...] = ()

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a table; none if it was not asked for."""
        return self.tables[name].dicts() if name in self.tables else []

    def command(self, *words: str, selects: bool = True) -> str:
        """Return the command line that asks something of the same spans; empty where there is none.

        Args:
            words: The subcommand and its own options.
            selects: Whether it has the options that select spans; if not, it is about the sessions.
        """
        options = commands.of_selection(self.selection) if selects else ()
        return "" if options is None else commands.line("debugstore", *words, *self.scope, *options)

    def called(self, least: int) -> Findings:
        """Return what was found of components that were called at least so often."""
        rare = {row["component"] for row in self.rows("performance.groups") if row["count"] < least}
        return replace(self, tables={name: _without(table, rare) for name, table in self.tables.items()})


def find(
    engine: Engine,
    *,
    selection: Selection = EVERYTHING,
    limit: int = ROWS,
    samples: int = SAMPLES,
    variants: bool = True,
    charts: bool = False,
    records: Mapping[str, Table] | None = None,
    scope: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Findings:
    """Return what the analyses find.

    Args:
        engine: Where the spans lie.
        selection: Which spans count.
        limit: How many rows of each answer at most.
        samples: How many of the slowest traces come as a whole.
        variants: Whether versions of code are compared, and their source is shown.
        charts: Whether there is what charts are drawn from: performance over time, and a flame graph.
        records: What goes into the findings as it is.
        scope: Options of the command line that name the sessions of the engine, or its database.
        progress: Called before each step with its name, its number, and how many there are.
    """
    snapshot = Snapshot(engine)
    analysis = Analysis(snapshot)
    steps = dict(_steps(analysis, selection, limit, _DETAILED if charts else 0))
    if not variants:
        del steps["variants"]
    tables: dict[str, Table] = {}
    for number, (name, step) in enumerate(steps.items()):
        if progress is not None:
            progress(name.replace("_", " "), number, len(steps) + 1)
        tables |= _answered(name, step)
    if progress is not None:
        progress("traces", len(steps), len(steps) + 1)
    seen, traces = overview(snapshot, selection=selection), tuple(_slowest(snapshot, selection, samples))
    boxes = flame(frame(snapshot, selection=selection, **_SAMPLE)) if charts else ()
    return Findings(selection, seen, tables, traces, records or {}, boxes, scope)


def _without(table: Table, components: Set[str | None]) -> Table:
    """Return the rows that are not of these components."""
    if not components or "component" not in table.columns:
        return table
    place = table.columns.index("component")
    return replace(table, rows=[row for row in table.rows if row[place] not in components])


def _steps(
    analysis: Analysis, selection: Selection, limit: int, detailed: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    both: dict[str, Any] = {"selection": selection, "limit": limit}
    yield "performance", lambda: analysis.performance(**both, detailed=detailed)
    yield "errors", lambda: analysis.errors(**both)
    yield "patterns", lambda: analysis.patterns(**both, **_SAMPLE)  # before those that need no more of the same spans
    yield "critical_path", lambda: analysis.critical_path(**both, **_SAMPLE)
    yield "whatif", lambda: analysis.whatif(selection=selection, limit=limit // 3, **_SAMPLE)
    yield "regressions", lambda: analysis.regressions(**both)
    yield "explain", lambda: _explained(analysis.explain(**both, max_calls=_CALLS, max_traces=_TRACES_OF_CALLS))
    yield "candidates", lambda: analysis.candidates(**both, min_executions=1)
    yield "variants", lambda: analysis.variants(**both)


def _explained(found: Explanation) -> Explanation:
    """Return an explanation without what may be chance."""
    table = found.features
    place = table.columns.index("q_value")
    rows = [row for row in table.rows if row[place] <= SIGNIFICANT]
    further = len(table.rows) - len(rows) + (table.left_out or 0)
    if len(rows) == len(table.rows):
        return found
    note = f"{further:,} more values that slow calls have more often are not shown: that may be chance (q-values)."
    return found._replace(features=Table(table.columns, rows, further, (*table.notes, note)))


def _answered(name: str, step: Callable[[], Any]) -> dict[str, Table]:
    """Return the tables of an answer; of one that failed an empty one that says why."""
    try:
        found = tables_of(name, step())
    except QueryError as error:
        found = {name: Table((), [], 0, (str(error),))}
    return found if list(found) == [name] else {f"{name}.{part}": table for part, table in found.items()}


def _slowest(engine: Engine, selection: Selection, samples: int) -> Iterator[Trace]:
    """Yield the traces of the slowest spans, each once."""
    ids = dict.fromkeys(row[0] for row in slowest(engine, selection=selection, limit=10 * samples).rows)
    for trace_id in list(ids)[:samples]:
        yield trace(engine, trace_id, _SAMPLE_SPANS)
