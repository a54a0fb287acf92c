"""`debugstore thresholds`: limits proposed from what was recorded."""

from __future__ import annotations

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option


@click.command()
@click.option("--by", multiple=True, metavar="FIELD", help="Group by another column, or an attribute; may be repeated.")
@limit_option(100, "Rows")
@analysis_options
def command(ask: Ask, by: tuple[str, ...], limit: int) -> None:
    """Propose for each component what a call of it should not exceed: duration, memory, error rate.

    From its last 1,000 calls: the larger of their p99.9 and the median plus six times the median distance from it.

    \b
    Examples:
      debugstore thresholds
      debugstore thresholds --component parse --format json
    """
    from otel_debugstore_analysis.analyses.thresholds import thresholds

    columns = ("duration_ns", "memory_bytes", "error_rate", "median_ns", "p999_ns", "calls", "is_provisional")
    ask.show(
        "thresholds",
        lambda engine: thresholds(engine, by or "component", selection=ask.selection(), limit=limit),
        {"thresholds": View(columns=(*(by or ("component",)), *columns))},
    )
