"""`debugstore explain`: what tells slow or failing calls from the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Table

_SUMMARY: Final = ("component", "what", "bound_ns", "calls", "hits", "p50_ns", "hits_p50_ns", "trace_ids")
_FEATURES: Final = ("kind", "key", "value", "share", "other_share", "lift", "calls", "q_value", "trace_ids")


@click.command()
@click.argument("what", type=click.Choice(("slow", "failing")), default="slow")
@click.option("--slower-than", type=click.FloatRange(0), metavar="MS", help="Calls of so many milliseconds are slow.")
@limit_option(20, "Rows of each table")
@analysis_options
def command(ask: Ask, what: str, slower_than: float | None, limit: int) -> None:
    """Show what tells slow calls of a component, or failing ones, from its others: attributes, inputs, callers.

    Slow is the slowest tenth. Without --component it is the one with most time of its own, or most errors. `share` is
    how many of the slow calls have a value, `other_share` how many of the others; whether it is the cause, no recording
    can tell.

    \b
    Examples:
      debugstore explain slow --component checkout
      debugstore explain failing --since 1h
      debugstore explain slow --component parse --slower-than 200
    """
    from otel_debugstore_analysis.analyses.explain import explain

    ask.show(
        "explain",
        lambda engine: explain(
            engine,
            selection=ask.selection(of_component=False),
            what=what,
            component=ask.component,
            slow_ns=None if slower_than is None else round(slower_than * 1e6),
            limit=limit,
        ),
        {
            "features": View("What tells them apart", _FEATURES),
            "suspects": View("Where they spend more time", shape=_suspected),
            "summary": View("What was compared", _SUMMARY),
        },
    )


def _suspected(table: Table, _: Mapping[str, Table]) -> Table:
    """Return those that are suspect at all."""
    from otel_debugstore_analysis.query import Table

    rows = [row for row in table.dicts() if row.get("score")]
    return Table(table.columns, [tuple(row.values()) for row in rows], table.left_out, table.notes)
