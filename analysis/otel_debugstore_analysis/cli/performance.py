"""`debugstore performance`: how often, how long, at what cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option
from otel_debugstore_analysis.cli._options import grouping_options
from otel_debugstore_analysis.text import sparkline

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Table

_ORDERS: Final = (
    *("total", "self", "count", "errors", "p50", "p90", "p95", "p99", "max"),
    *("rate", "cpu", "memory", "read", "written"),
)
_MEASURES: Final = {
    "time": ("count", "rate_per_s", "total_ns", "self_share", "p50_ns", "p95_ns", "p99_ns", "error_rate", "p95 ▁▃█"),
    "use": ("count", "max_ns", "cpu_ns", "memory_peak_bytes", "io_read_bytes", "io_write_bytes"),
}
_HISTORY: Final = "p95 ▁▃█"


@click.command()
@grouping_options(_ORDERS)
@click.option("--use", is_flag=True, help="Show what was used: CPU, memory, bytes read and written.")
@limit_option(20, "Groups")
@analysis_options
def command(ask: Ask, by: tuple[str, ...], order: str, use: bool, limit: int) -> None:
    """Show how often, how long and at what cost: a row a component, with its history.

    The line of bars is the 95th percentile over time. JSON has histograms and the history in full.

    \b
    Examples:
      debugstore performance
      debugstore performance --by service --order p99 --since 1h
      debugstore performance --component parse --by variant --use
      debugstore performance --format json --max-tokens 2000
    """
    from otel_debugstore_analysis.analyses.performance import performance

    fields = by or ("component",)
    keys = tuple(field.removeprefix("attributes.") for field in fields)
    columns = (*fields, *keys, *_MEASURES["use" if use else "time"])
    ask.show(
        "performance",
        lambda engine: performance(engine, fields, selection=ask.selection(), order=order, limit=limit),
        {"groups": View(columns=tuple(dict.fromkeys(columns)), shape=_with_history, keeps_empty=use)},
    )


def _with_history(groups: Table, tables: Mapping[str, Table]) -> Table:
    """Return the groups with a line of bars each: the 95th percentile over time."""
    from otel_debugstore_analysis.query import Table

    history = tables["over_time"]
    width = len(history.columns) - len(("start_ns", "end_ns", "count", "p50_ns", "p95_ns", "error_rate"))
    points: dict[tuple[Any, ...], dict[int, float]] = defaultdict(dict)
    for row in history.rows:
        start_ns, _, _, _, p95_ns, _ = row[width:]
        points[row[:width]][start_ns] = p95_ns
    starts = sorted({start_ns for values in points.values() for start_ns in values})
    if len(starts) < 2:
        return groups
    rows = [(*row, sparkline(map(points[row[:width]].get, starts))) for row in groups.rows]
    return Table((*groups.columns, _HISTORY), rows, groups.left_out, groups.notes)
