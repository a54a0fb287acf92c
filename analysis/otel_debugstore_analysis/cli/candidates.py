"""`debugstore candidates`: what to optimise next."""

from __future__ import annotations

from typing import Final

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option

_COLUMNS: Final = (
    *("kind", "component", "where", "expected_ns_per_s", "confidence", "executions", "mean_ns", "p95_saved_ns"),
    "detail",
)


@click.command()
@click.option(
    "--min-executions",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    metavar="N",
    help="Leave out components with fewer calls.",
)
@click.option(
    "--min-duration",
    type=click.FloatRange(0),
    default=0.0,
    metavar="MS",
    help="Leave out components whose calls take fewer milliseconds on average.",
)
@limit_option(20, "Candidates")
@analysis_options
def command(ask: Ask, min_executions: int, min_duration: float, limit: int) -> None:
    """Show what to optimise next: what it would save, how sure that is, and what shows it.

    \b
    Examples:
      debugstore candidates
      debugstore candidates --all-sessions --since 1d
      debugstore candidates --format json --max-tokens 1000
    """
    from otel_debugstore_analysis.analyses.candidates import candidates

    ask.show(
        "candidates",
        lambda engine: candidates(
            engine,
            selection=ask.selection(),
            min_executions=min_executions,
            min_duration_ns=round(min_duration * 1e6),
            limit=limit,
        ),
        {"candidates": View(columns=_COLUMNS)},
    )
