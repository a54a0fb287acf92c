"""`debugstore top`: where the time goes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from otel_debugstore_analysis.cli._options import Scope, engine_options, grouping_options
from otel_debugstore_analysis.cli._output import format_option, remark, show
from otel_debugstore_analysis.cli._selection import Chosen, selection_options
from otel_debugstore_analysis.text import human

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Table

_COST = "recording_ns"
_ORDERS = ("total", "self", "count", "errors", "p50", "p95", "p99")


@click.command()
@grouping_options(_ORDERS)
@click.option("--limit", "-n", type=click.IntRange(0), default=20, show_default=True, help="Rows at most; 0 for all.")
@click.option("--slowest", is_flag=True, help="Show the slowest spans instead, with the ids of their traces.")
@selection_options
@format_option
@engine_options
def command(
    scope: Scope,
    by: tuple[str, ...],
    order: str,
    limit: int,
    slowest: bool,
    chosen: Chosen,
    output_format: str,
) -> None:
    """Show where the time goes: a row a component, largest total first.

    Self time is the time spent in the spans themselves and not in spans below them. Calls that were counted and
    not recorded are in counts and sums. For programs the last column is what recording the calls cost.

    \b
    Examples:
      debugstore top
      debugstore top --by service --by name --order p99
      debugstore top --by http.request.method --since 10m
      debugstore top --where component=parse --slowest
    """
    from otel_debugstore_analysis import query

    if slowest and (by or not limit):
        raise click.UsageError("--slowest shows single spans: it goes without --by, and with a --limit above 0.")
    with scope.engine() as engine:
        if slowest:
            table = query.slowest(engine, selection=chosen.selection(), limit=limit)
            show(table if output_format in ("json", "csv") else _for_people(table), output_format)
            return
        table = query.top(engine, by or "component", selection=chosen.selection(), order=order, limit=limit or None)
    cost = _cost(table)
    is_shown = output_format in ("json", "csv") or (output_format == "markdown" and cost is not None)
    show(table if is_shown else _without_cost(table), output_format)
    for note in table.notes:
        remark(note)
    if cost is not None and not is_shown:
        remark(cost)
    if not table.rows:
        remark("No span is selected.")
    if table.left_out:
        remark(f"{table.left_out:,} more rows are not shown; --limit 0 shows all.")


def _without_cost(table: Table) -> Table:
    """Return the columns that fit a terminal."""
    from otel_debugstore_analysis.query import Table

    if _COST not in table.columns:
        return table
    return Table(table.columns[:-1], [row[:-1] for row in table.rows], table.left_out, table.notes)


def _cost(table: Table) -> str | None:
    """Return what recording these calls cost, in a sentence; None where that was not measured."""
    rows = [row for row in table.dicts() if row.get(_COST) is not None]
    if not rows:
        return None
    cost, total = sum(row[_COST] for row in rows), sum(row["total_ns"] or 0 for row in rows)
    share = f", {human('recording_share', cost / total)} of the time they took" if total else ""
    return f"Recording these calls took {human(_COST, cost)}{share}; `debugstore doctor --ledger` has more."


def _for_people(slowest: Table) -> Table:
    """Return the columns that fit a terminal; the first digits of a trace's id are enough for `trace`."""
    from otel_debugstore_analysis.query import Table

    shown = ("start_ns", "duration_ns", "self_ns", "component", "service", "status")
    rows = [(row["trace_id"][:8], *(row[column] for column in shown)) for row in slowest.dicts()]
    return Table(("trace", *shown), rows)
