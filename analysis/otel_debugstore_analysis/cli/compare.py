"""`debugstore compare`: two sets of spans side by side."""

from __future__ import annotations

from typing import Final

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option
from otel_debugstore_analysis.cli._shapes import ERRORS, RATIO, UNITS, joining
from otel_debugstore_analysis.cli._sides import SIDE, side, with_sessions

_COMPONENTS: Final = ("verdict", RATIO.name, "before_ns", "after_ns", UNITS.name, ERRORS.name)


@click.command()
@click.argument("before", type=SIDE)
@click.argument("after", type=SIDE)
@click.option("--by", multiple=True, metavar="FIELD", help="Group by another column, or an attribute; may be repeated.")
@click.option(
    "--min-effect",
    type=click.FloatRange(0, 99),
    default=3.0,
    show_default=True,
    metavar="PERCENT",
    help="The least difference that counts.",
)
@limit_option(20, "Rows of each table")
@analysis_options
def command(ask: Ask, before: str, after: str, by: tuple[str, ...], min_effect: float, limit: int) -> None:
    """Compare two sets of spans, BEFORE and AFTER: times with their uncertainty, and structure.

    A set is one or more sessions (a,b,c), commit=DIGITS, a value of a field (variant=..., host.name=...), or a time
    range (TIME..TIME). The unit is the session or process, never the call: with fewer than three nothing is decided.

    \b
    Examples:
      debugstore compare monday,tuesday,wednesday thursday,friday,saturday
      debugstore compare --all-sessions commit=1f3a9c commit=8b02de
      debugstore compare --component parse variant=93d5b1 variant=0c77aa
      debugstore compare 2h..1h 1h..0s
    """
    from otel_debugstore_analysis.analyses.compare import compare

    fields = by or ("component",)
    ask = with_sessions(ask, before, after)
    ask.show(
        "compare",
        lambda engine: compare(
            engine,
            side(engine, before, ask.selection()),
            side(engine, after, ask.selection()),
            fields,
            min_effect=min_effect / 100,
            limit=limit,
        ),
        {
            "components": View("Durations", (*fields, *_COMPONENTS), joining(RATIO, UNITS, ERRORS)),
            "children": View("Calls below a call"),
            "critical_path": View("Shares of the critical path"),
        },
    )
