"""`debugstore patterns`: habits that cost time."""

from __future__ import annotations

from typing import Final

import click

from otel_debugstore_analysis.analyses._pattern_names import PATTERNS
from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option

_COLUMNS: Final = (
    *("pattern", "parent", "component", "occurrences", "calls", "total_ns", "saved_ns", "detail", "trace_ids"),
)


@click.command()
@click.option("--only", multiple=True, type=click.Choice(PATTERNS), help="Only this pattern; may be repeated.")
@limit_option(20, "Rows")
@analysis_options
def command(ask: Ask, only: tuple[str, ...], limit: int) -> None:
    """Find N+1, repeated, serial and retried calls, growing inputs, waits and cold starts, and what they cost.

    What saves most comes first, with traces that show it. Savings are what could be gained at most.

    \b
    Examples:
      debugstore patterns
      debugstore patterns --only n_plus_one --only repeated_call
      debugstore patterns --since 1h --format json
    """
    from otel_debugstore_analysis.analyses.patterns import patterns

    ask.show(
        "patterns",
        lambda engine: patterns(engine, selection=ask.selection(), only=only or PATTERNS, limit=limit),
        {"patterns": View(columns=_COLUMNS)},
    )
