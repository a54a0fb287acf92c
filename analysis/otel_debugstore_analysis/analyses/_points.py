"""Groups of spans by sessions, by processes, or by intervals of time: a median and a count for each of these.

Calls of one process are not independent of each other (the same machine, the same memory layout, the same
neighbours), so that a statistic over calls finds differences where there are none. Over one median a process, or
a session, it doesn't.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._wanted import Key, Wanted, WantedValues, wanted_spans
from otel_debugstore_analysis.query import Engine, Selection, SpanFrame, tables
from otel_debugstore_analysis.query._columns import Coded, Codes
from otel_debugstore_analysis.query._groups import FAR_NS, Grouped, Shape, grouped, percentiles, reached
from otel_debugstore_analysis.query._selection import INSTANCE, Filter

if TYPE_CHECKING:
    import ibis.expr.types as ir

SESSION: Final = ("session",)
PROCESS: Final = ("session", INSTANCE, "pid")
"""What tells processes apart, here and in all analyses; see `INSTANCE`."""
INTERVAL: Final = ("interval",)
_SHARES: Final = (("p50_ns", 0.5), ("p95_ns", 0.95))
_SECOND: Final = 1_000_000_000
_LENGTHS: Final = (
    *(number * 10**digits for digits in range(9) for number in (1, 2, 5)),
    *(number * _SECOND for number in (1, 2, 5, 10, 15, 30)),
    *(number * 60 * _SECOND for number in (1, 2, 5, 10, 15, 30)),
    *(number * 3600 * _SECOND for number in (1, 2, 6, 12)),
)
"""Lengths of intervals, in nanoseconds; beyond these come whole days."""
_DAY: Final = 86_400 * _SECOND


class Point(NamedTuple):
    """What one session, process or interval says of a group.

    Attributes:
        unit: The session; the values of `PROCESS`; or the interval's number.
        first_ns: When its first span of the group began.
        calls, errors: How many, by weights.
        p50_ns, p95_ns: None where no duration is known.
    """

    unit: Key
    first_ns: int
    calls: float
    errors: float
    p50_ns: float | None
    p95_ns: float | None


class Grid(NamedTuple):
    """Intervals of time: from `origin_ns` on, each `length_ns` long."""

    origin_ns: int
    length_ns: int

    @staticmethod
    def over(first_ns: int, last_ns: int, intervals: int) -> Grid:
        """Return intervals of a length that people use, at most so many of which cover that time."""
        room, range_ns = max(intervals - 1, 1), last_ns - first_ns
        fits = [length_ns for length_ns in _LENGTHS if length_ns * room >= range_ns]
        length_ns = fits[0] if fits else -(-range_ns // (room * _DAY)) * _DAY
        return Grid(first_ns // length_ns * length_ns, length_ns)

    def parameters(self, unit: tuple[str, ...]) -> dict[str, int]:
        """Return what `on_grid` takes for spans by this unit."""
        return {"origin_ns": self.origin_ns, "length_ns": self.length_ns} if unit == INTERVAL else {}

    def bounds(self, point: Point) -> tuple[int, int]:
        """Return when an interval begins and ends."""
        start_ns = self.origin_ns + point.unit[0] * self.length_ns
        return start_ns, start_ns + self.length_ns


def largest(engine: Engine, columns: tuple[str, ...], selection: Selection, limit: int) -> Grouped:
    """Return the groups with the largest total time, with when they began and ended."""
    return grouped(engine, Shape(columns, selection.filter, "total_ns", limit, (), True), selection)


def points(
    engine: Engine, wanted: Wanted, unit: tuple[str, ...], is_weighted: bool, grid: Grid | None = None
) -> dict[Key, list[Point]]:
    """Return by group its points, in the order of time.

    Args:
        engine: Where the spans lie.
        wanted: The groups.
        unit: `SESSION`, `PROCESS`, or `INTERVAL`, which needs the grid.
        is_weighted: Whether any span stands for more than itself.
        grid: The intervals.
    """
    of_grid = grid.parameters(unit) if grid else {}
    rows = tables.run(engine, _points, *wanted.shape, unit, is_weighted, **of_grid, **wanted.parameters)
    found: dict[Key, list[Point]] = {key: [] for key in wanted.rank}
    began: dict[Any, int] = {}
    for key, values in wanted.in_order(rows):
        point = Point(values[: len(unit)], *values[len(unit) :])
        found[key].append(point)
        began[point.unit] = min(began.get(point.unit, point.first_ns), point.first_ns)
    for series in found.values():
        series.sort(key=lambda point: (began[point.unit], tuple(map(str, point.unit))))
    return found


def units(frame: SpanFrame, unit: tuple[str, ...]) -> Codes:
    """Return by span the number of the session or process that it is of, from 0 on.

    Args:
        frame: Spans with `PROCESS` among their columns.
        unit: `SESSION` or `PROCESS`.
    """
    found = np.unique(frame.session, return_inverse=True)[1]
    for name in unit[1:]:
        values = frame.extra[name]
        numbers = values.codes if isinstance(values, Coded) else np.unique(values, return_inverse=True)[1]
        found = np.unique(found * (int(numbers.max(initial=0)) + 1) + numbers, return_inverse=True)[1]
    return found.astype(np.int32)


def _points(
    columns: tuple[str, ...], shape: Filter, values: WantedValues, unit: tuple[str, ...], is_weighted: bool
) -> ir.Table:
    spans = on_grid(wanted_spans(columns, shape, values, () if unit == INTERVAL else unit), unit)
    groups = tuple(dict.fromkeys((*columns, *unit)))
    spans = reached(spans, groups) if is_weighted else spans
    measures = {
        "first_ns": spans.start_ns.min(),
        "calls": spans.sample_weight.sum(),
        "errors": spans.sample_weight.sum(where=spans.status == "ERROR").fill_null(0.0),
    }
    if is_weighted:
        measures |= percentiles(spans, _SHARES)
    else:
        measures["both"] = spans.duration_ns.quantile([share for _, share in _SHARES])
    rows = spans.group_by(*groups).aggregate(**measures)
    if not is_weighted:
        rows = rows.mutate(**{name: rows.both[place] for place, (name, _) in enumerate(_SHARES)})
    # A field that is the unit as well comes twice.
    chosen = [rows[name].name(f"{place}") for place, name in enumerate((*columns, *unit))]
    return rows.select(*chosen, *(rows[name] for name in Point._fields[1:]))


def on_grid(spans: ir.Table, unit: Sequence[str]) -> ir.Table:
    """Return the spans that have a time, with the number of their interval if that is the unit."""
    spans = spans.filter(spans.start_ns >= 0, spans.start_ns <= FAR_NS)
    if tuple(unit) != INTERVAL:
        return spans
    origin, length = tables.parameter("origin_ns", "int64"), tables.parameter("length_ns", "int64")
    return spans.mutate(interval=(spans.start_ns - origin) // length)
