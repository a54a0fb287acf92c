"""Since when something is slower, or faster: change points over sessions, and over time.

The history of a component (or of whatever spans are grouped by) is the median duration of its calls by session, and
by equal intervals of time. `_change_points` finds where the level of it changes, each level over at least 4 points: of
10 to 17 points one change by an exact test, of more any number. Of shuffled histories less than 2 % have alarms (`make
eval`). In fewer than 10 none can be told from chance at that rate; a note says so.

`before_ns` and `after_ns` are the medians of the points from the change point before to this one, and from there to
the next one; `ratio` is the one over the other, with the bootstrap's 95 % interval. Changes below `min_effect` are
left out. The variant is the one that most calls of those parts had, and the commit is the one that its code was at.
Evidence is a trace of the last point before the change, and one of the first point after it.

A history over time is no sample of independent points: load that comes and goes is a change of level, too.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._change_points import MIN_POINTS, change_points
from otel_debugstore_analysis.analyses._points import INTERVAL, SESSION, Grid, Point, largest, on_grid, points
from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses._wanted import Key, Wanted, WantedValues, wanted_spans
from otel_debugstore_analysis.analyses.statistics import Ratio, ratio_of_medians
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, Table, tables
from otel_debugstore_analysis.query._groups import columns_of, titles
from otel_debugstore_analysis.query._selection import Filter, attributes_among

if TYPE_CHECKING:
    import ibis.expr.types as ir

MIN_EFFECT: Final = 0.03
INTERVALS: Final = 120
MAX_GROUPS: Final = 100
_VARIANT: Final = "variant"
COLUMNS: Final = (
    "over",
    "verdict",
    "at_ns",
    "at_session",
    "before_ns",
    "after_ns",
    "ratio",
    "ratio_low",
    "ratio_high",
    "points_before",
    "points_after",
    "variant_before",
    "variant_after",
    "commit_before",
    "commit_after",
    "history_ns",
    "trace_ids",
)


class _Change(NamedTuple):
    """A change of level in a history: the points of the part before, and those of the part after."""

    key: Key
    unit: tuple[str, ...]
    before: Sequence[Point]
    after: Sequence[Point]
    ratio: Ratio


def regressions(
    engine: Engine,
    by: str | Sequence[str] = "component",
    *,
    selection: Selection = EVERYTHING,
    limit: int = 20,
    min_effect: float = MIN_EFFECT,
    max_groups: int = MAX_GROUPS,
    intervals: int = INTERVALS,
) -> Table:
    """Return the changes of level in the histories of durations: a row a change, rises first, the largest first.

    Args:
        engine: Where the spans lie.
        by: The field or fields to group by: columns, or keys of attributes.
        selection: Which spans count.
        limit: How many changes at most.
        min_effect: The least change of the median that counts, as a share of it.
        max_groups: How many groups are looked at: those with the largest total time.
        intervals: How many intervals of time at most.

    Raises:
        QueryError: A field can't be used, or no span has the attribute to group by.
    """
    columns = columns_of(by)
    found = largest(engine, columns, selection, max_groups)
    names = titles((*columns, *COLUMNS))
    if found.first_ns is None or found.last_ns is None:
        return Table(names, [], 0, (*found.table.notes, "No span with a start is selected."))
    wanted = Wanted.of(columns, selection, found.keys)
    grid = Grid.over(found.first_ns, found.last_ns, intervals)
    ((sessions,),) = tables.run(engine, _sessions, selection.filter, **selection.parameters)
    by_session: dict[Key, list[Point]] = {key: [] for key in found.keys}
    if sessions >= MIN_POINTS:
        by_session = points(engine, wanted, SESSION, found.is_weighted)
    by_time = points(engine, wanted, INTERVAL, found.is_weighted, grid)
    changes = [
        change
        for unit, histories in ((SESSION, by_session), (INTERVAL, by_time))
        for key, history in histories.items()
        for change in _changes(key, unit, history, min_effect)
    ]
    changes.sort(key=lambda change: _order(change, wanted))
    rows = _rows(engine, selection, wanted, changes[:limit], grid)
    notes = (*found.table.notes, *_notes(found.table.left_out or 0, by_session, by_time))
    return Table(names, rows, len(changes) - len(rows), notes)


def _sessions(shape: Filter) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among(shape.fields)))
    return spans.aggregate(sessions=spans.session.nunique())


class Step(NamedTuple):
    """A change of level in a series: from `first` on there was one level, from `place` up to `last` another one."""

    first: int
    place: int
    last: int
    ratio: Ratio


def changes_of(values: Floats, min_effect: float = MIN_EFFECT) -> list[Step]:
    """Return where the level of a series of durations changes by at least that share of it."""
    places = [0, *change_points(values), len(values)]
    steps = []
    for first, place, last in zip(places, places[1:-1], places[2:], strict=False):
        ratio = ratio_of_medians(values[first:place], values[place:last])
        if ratio.value > 0 and abs(math.log(ratio.value)) >= math.log1p(min_effect):  # of durations of 0 there is none
            steps.append(Step(first, place, last, ratio))
    return steps


def _changes(key: Key, unit: tuple[str, ...], history: Sequence[Point], min_effect: float) -> Iterator[_Change]:
    """Yield where the level of a history changes."""
    timed = [point for point in history if point.p50_ns is not None]
    values = np.array([point.p50_ns for point in timed], dtype=np.float64)
    for step in changes_of(values, min_effect):
        yield _Change(key, unit, timed[step.first : step.place], timed[step.place : step.last], step.ratio)


def _order(change: _Change, wanted: Wanted) -> tuple[Any, ...]:
    calls = sum(point.calls for point in change.after)
    more_ns = (_median(change.after) - _median(change.before)) * calls / len(change.after)
    is_over_time = change.unit == INTERVAL
    return more_ns <= 0, is_over_time, -abs(more_ns), wanted.rank[change.key], change.after[0].first_ns


def _median(part: Sequence[Point]) -> float:
    return float(np.median([point.p50_ns for point in part if point.p50_ns is not None]))


def _rows(
    engine: Engine, selection: Selection, wanted: Wanted, changes: Sequence[_Change], grid: Grid
) -> list[tuple[Any, ...]]:
    calls: dict[tuple[str, ...], dict[tuple[Key, Key], _Calls]] = {}
    for unit in (SESSION, INTERVAL):
        keys = list(dict.fromkeys(change.key for change in changes if change.unit == unit))
        calls[unit] = _calls(engine, Wanted.of(wanted.columns, selection, keys), unit, grid) if keys else {}
    pairs = [
        [_most(change.key, part, calls[change.unit]) for part in (change.before, change.after)] for change in changes
    ]
    commits = _commits(engine, sorted({variant for pair in pairs for variant in pair if variant is not None}))
    rows = []
    for change, pair in zip(changes, pairs, strict=True):
        first = change.after[0]
        over_sessions = change.unit == SESSION
        nearest = (calls[change.unit][change.key, point.unit] for point in (change.before[-1], first))
        rows.append(
            (
                *change.key,
                "sessions" if over_sessions else "time",
                "slower" if change.ratio.value > 1 else "faster",
                first.first_ns if over_sessions else grid.bounds(first)[0],
                first.unit[0] if over_sessions else None,
                _median(change.before),
                _median(change.after),
                *(None if math.isnan(value) else value for value in change.ratio),
                len(change.before),
                len(change.after),
                *pair,
                *(commits.get(variant) if variant is not None else None for variant in pair),
                tuple(point.p50_ns for point in (*change.before, *change.after)),
                tuple(dict.fromkeys(min(near.trace_ids) for near in nearest)),
            )
        )
    return rows


class _Calls(NamedTuple):
    """The calls of a group in a point: how many each variant had, and a trace of each."""

    of_variant: Counter[str]
    trace_ids: list[str]


def _calls(engine: Engine, wanted: Wanted, unit: tuple[str, ...], grid: Grid) -> dict[tuple[Key, Key], _Calls]:
    """Return the calls by group and point."""
    rows = tables.run(engine, _calls_of_variants, *wanted.shape, unit, **grid.parameters(unit), **wanted.parameters)
    found: defaultdict[tuple[Key, Key], _Calls] = defaultdict(lambda: _Calls(Counter(), []))
    for key, (*point, variant, count, trace_id) in wanted.in_order(rows):
        calls = found[key, tuple(point)]
        calls.trace_ids.append(trace_id)
        if variant is not None:
            calls.of_variant[variant] += count
    return found


def _calls_of_variants(
    columns: tuple[str, ...], shape: Filter, values: WantedValues, unit: tuple[str, ...]
) -> ir.Table:
    spans = on_grid(wanted_spans(columns, shape, values), unit)
    spans = spans.filter(spans.duration_ns.notnull())
    rows = spans.group_by(*dict.fromkeys((*columns, *unit, _VARIANT))).aggregate(
        count=spans.sample_weight.sum(), example=spans.trace_id.min()
    )
    chosen = [rows[name].name(f"{place}") for place, name in enumerate((*columns, *unit, _VARIANT))]
    return rows.select(*chosen, "count", "example")


def _most(key: Key, part: Sequence[Point], calls: dict[tuple[Key, Key], _Calls]) -> str | None:
    """Return the variant that most calls of a part of a history had."""
    whole: Counter[str] = Counter()
    for point in part:
        whole += calls[key, point.unit].of_variant
    return min(whole, key=lambda variant: (-whole[variant], variant), default=None)


def _commits(engine: Engine, variants: Sequence[str]) -> dict[str, str | None]:
    """Return by variant the commit that its code was at."""
    if not variants:
        return {}
    parameters = {f"variant_{place}": variant for place, variant in enumerate(variants)}
    return dict(tables.run(engine, _commits_of, len(variants), **parameters))


def _commits_of(count: int) -> ir.Table:
    code = tables.code()
    code = code.filter(code.variant.isin([tables.parameter(f"variant_{place}") for place in range(count)]))
    return code.group_by("variant").aggregate(git_commit=code.git_commit.min())


def _notes(left_out: int, by_session: dict[Key, list[Point]], by_time: dict[Key, list[Point]]) -> Iterator[str]:
    if left_out:
        yield f"{left_out:,} more groups, with less total time, are not looked at."
    for histories, what in ((by_session, "sessions"), (by_time, "intervals of time")):
        short = sum(len(history) < MIN_POINTS for history in histories.values())
        if short:
            advice = "; `debugstore compare` needs three before and three after" if what == "sessions" else ""
            yield (
                f"{short:,} of {len(histories):,} groups are in fewer than {MIN_POINTS} {what}: no change of these "
                f"can be told from chance{advice}."
            )
