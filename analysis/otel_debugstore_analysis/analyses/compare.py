"""Whether one set of spans is faster or slower than another, and what else is different.

The unit is the session, or the process where there are fewer than five sessions, and never the call: calls of one
process are not independent of each other (on public histories, tests over calls find a difference between equal sets
in 30 to 80 % of cases). Of each unit the median duration is taken; `ratio` is the median of the units' medians after
over that before, with the bootstrap's 95 % interval. The verdict is

- `slower` or `faster` where the interval excludes 1, the ratio is at least `min_effect` away from it, and Welch's
  t-test on the logarithms of the medians still finds a difference when it is corrected for the number of components
  (`q_value`, Benjamini and Hochberg: at most 0.05). Of equal sets less than 5 % are called different (`make eval`);
- `equal` where the whole interval is within `min_effect` of 1;
- `undecided` otherwise. With fewer than three units on a side nothing can be decided.

`children` and `critical_path` compare the structure of a sample of traces of each set, with the same unit: see
`_differences`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses._differences import children_compared, critical_paths_compared
from otel_debugstore_analysis.analyses._points import PROCESS, SESSION, Point, points
from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses._wanted import Key, Wanted
from otel_debugstore_analysis.analyses.statistics import MIN_UNITS as MIN_UNITS
from otel_debugstore_analysis.analyses.statistics import Ratio, benjamini_hochberg, ratio_of_medians, welch
from otel_debugstore_analysis.query import Engine, Selection, Table, frame, tables
from otel_debugstore_analysis.query._groups import Grouped, Shape, columns_of, grouped, titles
from otel_debugstore_analysis.query._selection import Filter, attributes_among

if TYPE_CHECKING:
    import ibis.expr.types as ir

Side = Selection | Sequence[str]
"""Spans: a selection, or those of sessions."""

MIN_EFFECT: Final = 0.03
FEW_UNITS: Final = 5
"""With fewer on a side it is said that they are few."""
MAX_UNITS: Final = 1_000
MAX_GROUPS: Final = 100
MAX_TRACES: Final = 200
MAX_SPANS: Final = 50_000
SIGNIFICANT: Final = 0.05
VERDICTS: Final = ("slower", "faster", "undecided", "equal")
COLUMNS: Final = (
    "verdict",
    "ratio",
    "ratio_low",
    "ratio_high",
    "q_value",
    "before_ns",
    "after_ns",
    "before_units",
    "after_units",
    "before_count",
    "after_count",
    "before_error_rate",
    "after_error_rate",
)
_SIDE_COLUMNS: Final = ("side", "sessions", "processes", "first_ns", "last_ns")


class Comparison(NamedTuple):
    """What is different between two sets of spans.

    Attributes:
        components: A row a component (or whatever spans are grouped by): the verdict and what it rests on. Slower ones
            first, then faster, undecided and equal ones; in these by the time that the difference makes.
        children: A row a pair of components of which the one calls the other more often, or less, a call of it.
        critical_path: A row a component: its share of the time of all runs, before and after.
        sides: What was compared, a row each.
    """

    components: Table
    children: Table
    critical_path: Table
    sides: Table


class Verdict(NamedTuple):
    """What units say of a component."""

    verdict: str
    ratio: Ratio
    q_value: float | None


class _Side(NamedTuple):
    selection: Selection
    units: list[Key]
    """The process (`PROCESS`: its session comes first), and when its first and its last span began."""
    groups: Grouped


def compare(
    engine: Engine,
    before: Side,
    after: Side,
    by: str | Sequence[str] = "component",
    *,
    min_effect: float = MIN_EFFECT,
    limit: int = 20,
    max_groups: int = MAX_GROUPS,
    max_traces: int = MAX_TRACES,
) -> Comparison:
    """Return what is different between two sets of spans.

    Args:
        engine: Where the spans lie.
        before: One set: a selection (sessions, variants, a time range, values of attributes), or ids of sessions.
            `of_commit` returns the selection of a commit.
        after: The other one.
        by: The field or fields to group by: columns, or keys of attributes.
        min_effect: The least difference that counts, as a share of the duration.
        limit: How many rows of each table at most.
        max_groups: How many groups of each set are looked at: those with the largest total time.
        max_traces: Of how many traces of each set the structure is looked at; 0 for none.

    Raises:
        QueryError: A field can't be used, or no span has the attribute to group by.
    """
    if not 0 <= min_effect < 1:
        raise QueryError(f"The least difference that counts can't be {min_effect}; take a share such as 0.03.")
    columns = columns_of(by)
    sides = [_side(engine, columns, side, max_groups) for side in (before, after)]
    of_sides = _sides(sides)
    missing = [name for name, side in zip(("before", "after"), sides, strict=True) if not side.units]
    if missing:
        notes = (f"No span is selected {' or '.join(missing)}: there is nothing to compare.",)
        return Comparison(Table(titles((*columns, *COLUMNS)), [], 0, notes), *_nothing(), of_sides)
    unit = _unit(sides)
    components = _components(engine, columns, sides, unit, min_effect, limit)
    if not max_traces:
        return Comparison(components, *_nothing(), of_sides)
    before_frame, after_frame = (
        frame(engine, selection=one.selection, max_traces=max_traces, max_spans=MAX_SPANS, columns=PROCESS)
        for one in sides
    )
    children = children_compared(before_frame, after_frame, unit, limit)
    path = critical_paths_compared(before_frame, after_frame, unit, limit)
    return Comparison(components, children, path, of_sides)


def of_commit(engine: Engine, commit: str) -> Selection:
    """Return the spans of code that was at a commit.

    Args:
        engine: Where the spans lie.
        commit: Its hexadecimal digits; the first ones will do.

    Raises:
        QueryError: No code that was recorded was at that commit.
    """
    rows = tables.run(engine, _variants_of, commit=commit)
    if not commit or not rows:
        raise QueryError(
            f"No code that was recorded was at commit {commit[:64]!r}; `debugstore variants` lists what was."
        )
    return Selection(where={"variant": tuple(row[0] for row in rows)})


def decide(pairs: Sequence[tuple[Floats, Floats]], min_effect: float = MIN_EFFECT) -> list[Verdict]:
    """Return the verdicts on components of which there are such medians by unit, before and after."""
    ratios = [ratio_of_medians(before, after) for before, after in pairs]
    decidable = [
        number
        for number, (before, after) in enumerate(pairs)
        if min(len(before), len(after)) >= MIN_UNITS and ratios[number].value > 0
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        p_values = [welch(np.log(pairs[number][0]), np.log(pairs[number][1])) for number in decidable]
    q_values: dict[int, float] = dict(zip(decidable, benjamini_hochberg(p_values), strict=True))
    return [
        Verdict(_verdict(ratio, q_values.get(number), min_effect), ratio, q_values.get(number))
        for number, ratio in enumerate(ratios)
    ]


def _verdict(ratio: Ratio, q_value: float | None, min_effect: float) -> str:
    if q_value is None or math.isnan(ratio.low):
        return "undecided"
    highest, lowest = 1 + min_effect, 1 / (1 + min_effect)
    if q_value <= SIGNIFICANT:
        if ratio.low > 1 and ratio.value >= highest:
            return "slower"
        if ratio.high < 1 and ratio.value <= lowest:
            return "faster"
    return "equal" if lowest <= ratio.low and ratio.high <= highest else "undecided"


def _side(engine: Engine, columns: tuple[str, ...], side: Side, max_groups: int) -> _Side:
    if not isinstance(side, Selection):
        sessions = (side,) if isinstance(side, str) else tuple(dict.fromkeys(side))
        side = Selection(where={"session": sessions})
    units = tables.run(engine, _units, side.filter, MAX_UNITS, **side.parameters)
    return _Side(side, units, grouped(engine, Shape(columns, side.filter, "total_ns", max_groups, ()), side))


def _units(shape: Filter, limit: int) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among((*shape.fields, *PROCESS))))
    units = spans.group_by(*PROCESS).aggregate(first_ns=spans.start_ns.min(), last_ns=spans.start_ns.max())
    return units.order_by(*PROCESS).limit(limit)


def _variants_of() -> ir.Table:
    code = tables.code()
    return (
        code.filter(code.git_commit.startswith(tables.parameter("commit")))
        .select("variant")
        .distinct()
        .order_by("variant")
    )


def _components(
    engine: Engine,
    columns: tuple[str, ...],
    sides: Sequence[_Side],
    unit: tuple[str, ...],
    min_effect: float,
    limit: int,
) -> Table:
    keys = list(dict.fromkeys(key for side in sides for key in side.groups.keys))
    series = [points(engine, Wanted.of(columns, side.selection, keys), unit, side.groups.is_weighted) for side in sides]
    pairs = [(_medians(series[0][key]), _medians(series[1][key])) for key in keys]
    measured = [dict(zip(side.groups.keys, side.groups.table.dicts(), strict=True)) for side in sides]
    rows = []
    for key, pair, verdict in zip(keys, pairs, decide(pairs, min_effect), strict=True):
        medians = [float(np.median(values)) if len(values) else None for values in pair]
        beside = [[side.get(key, {}).get(name) for side in measured] for name in ("count", "error_rate")]
        rows.append(
            (
                *key,
                verdict.verdict,
                *(_number(value) for value in verdict.ratio),
                verdict.q_value,
                *medians,
                *(len(values) for values in pair),
                *(0 if value is None else value for value in beside[0]),
                *beside[1],
            )
        )
    rows.sort(key=lambda row: _order(row, len(columns)))
    return Table(
        titles((*columns, *COLUMNS)), rows[:limit], max(len(rows) - limit, 0), tuple(_notes(sides, unit, pairs))
    )


def _medians(series: Sequence[Point]) -> Floats:
    return np.array([point.p50_ns for point in series if point.p50_ns is not None], dtype=np.float64)


def _unit(sides: Sequence[_Side]) -> tuple[str, ...]:
    sessions = [len({session for session, *_ in side.units}) for side in sides]
    return SESSION if min(sessions) >= FEW_UNITS else PROCESS


def _order(row: tuple[Any, ...], width: int) -> tuple[Any, ...]:
    found = dict(zip(COLUMNS, row[width:], strict=True))
    more_ns = ((found["after_ns"] or 0) - (found["before_ns"] or 0)) * found["after_count"]
    return VERDICTS.index(found["verdict"]), -abs(more_ns), tuple(str(value or "") for value in row[:width])


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _notes(sides: Sequence[_Side], unit: tuple[str, ...], pairs: Sequence[tuple[Floats, Floats]]) -> list[str]:
    name = "sessions" if unit == SESSION else "processes"
    notes = list(dict.fromkeys(note for side in sides for note in side.groups.table.notes))
    if sides[0].selection == sides[1].selection:
        notes.append("Both sets are the same spans, so that nothing can be different: compare two sets.")
    counts = [max(len(pair[number]) for pair in pairs) for number in range(2)]
    found = f"{counts[0]:,} {name} before and {counts[1]:,} after"
    if min(counts) < MIN_UNITS:
        notes.append(
            f"Too few to decide anything: {found}. How much runs of the same program differ from each other is not "
            f"known from these; record at least {FEW_UNITS} of each."
        )
    elif min(counts) < FEW_UNITS:
        notes.append(
            f"Few to compare: {found}. Only large differences can be found; record at least {FEW_UNITS} of each."
        )
    if unit == PROCESS and max(counts) > 1 and any(len({u[0] for u in s.units}) < len(s.units) for s in sides):
        notes.append("Processes of the same session are taken to be independent of each other.")
    if any(len(side.units) >= MAX_UNITS for side in sides):
        notes.append(f"More than {MAX_UNITS:,} processes: of the sides only these are listed.")
    left_out = sum(side.groups.table.left_out or 0 for side in sides)
    if left_out:
        notes.append(f"{left_out:,} more groups, with less total time, are not looked at.")
    return notes


def _sides(sides: Sequence[_Side]) -> Table:
    rows: list[tuple[Any, ...]] = []
    for name, side in zip(("before", "after"), sides, strict=True):
        first = min((unit[-2] for unit in side.units if unit[-2] is not None), default=None)
        last = max((unit[-1] for unit in side.units if unit[-1] is not None), default=None)
        rows.append((name, len({unit[0] for unit in side.units}), len(side.units), first, last))
    return Table(_SIDE_COLUMNS, rows)


def _nothing() -> tuple[Table, Table]:
    from otel_debugstore_analysis.analyses._differences import CHILDREN, CRITICAL_PATH

    return Table(CHILDREN, []), Table(CRITICAL_PATH, [])
