"""`debugstore regressions`: since when something is slower."""

from __future__ import annotations

from typing import Final

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option
from otel_debugstore_analysis.cli._shapes import COMMIT_AFTER, RATIO, VARIANT, Joined, joining
from otel_debugstore_analysis.text import sparkline

_HISTORY: Final = Joined("p50 ▁▃█", ("history_ns",), sparkline)
_JOINED: Final = (RATIO, _HISTORY, VARIANT, COMMIT_AFTER)


@click.command()
@click.option("--by", multiple=True, metavar="FIELD", help="Group by another column, or an attribute; may be repeated.")
@click.option(
    "--min-effect",
    type=click.FloatRange(0),
    default=3.0,
    show_default=True,
    metavar="PERCENT",
    help="The least change of the median that counts.",
)
@limit_option(20, "Changes")
@analysis_options
def command(ask: Ask, by: tuple[str, ...], min_effect: float, limit: int) -> None:
    """Find since when components are slower or faster: change points over sessions and over time.

    Each change has the medians before and after, the 95 % interval of their ratio, and the variant and commit.

    \b
    Examples:
      debugstore regressions --all-sessions
      debugstore regressions --since 1d --component parse
      debugstore regressions --all-sessions --min-effect 10 --format json
    """
    from otel_debugstore_analysis.analyses.regressions import regressions

    columns = ("over", "verdict", "at_ns", "at_session", "before_ns", "after_ns", *(one.name for one in _JOINED))
    ask.show(
        "regressions",
        lambda engine: regressions(
            engine, by or "component", selection=ask.selection(), limit=limit, min_effect=min_effect / 100
        ),
        {"regressions": View(columns=(*(by or ("component",)), *columns), shape=joining(*_JOINED))},
    )
