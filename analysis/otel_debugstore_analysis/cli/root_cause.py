"""`debugstore root-cause`: which service is to blame for what became slow or fails."""

from __future__ import annotations

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option
from otel_debugstore_analysis.cli._sides import SIDE, side, with_sessions


@click.command()
@click.argument("before", type=SIDE)
@click.argument("after", type=SIDE)
@click.option(
    "--by", type=click.Choice(("service", "component")), help="What is suspected; services, if there are several."
)
@limit_option(10, "Suspects")
@analysis_options
def command(ask: Ask, before: str, after: str, by: str | None, limit: int) -> None:
    """Rank services, or components, by how much they are to blame for what AFTER has and BEFORE hasn't.

    AFTER is the time of an incident, say, and BEFORE one without: see `compare` for what a set may be. Slow calls, slow
    ways between services, and failures count in one ranking; a score of 0 is no suspicion.

    \b
    Examples:
      debugstore root-cause 2h..1h 1h..0s
      debugstore root-cause --all-sessions session=yesterday 2026-03-01T12:00..2026-03-01T12:04
      debugstore root-cause good bad --by component
    """
    from otel_debugstore_analysis.analyses.root_cause import root_cause

    ask = with_sessions(ask, before, after)
    ask.show(
        "root_cause",
        lambda engine: root_cause(
            engine,
            selection=side(engine, after, ask.selection()),
            baseline=side(engine, before, ask.selection()),
            by=by,
            limit=limit,
        ),
        {"root_cause": View()},
    )
