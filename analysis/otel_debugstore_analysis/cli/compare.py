"""`debugstore compare`: two sets of spans side by side."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option
from otel_debugstore_analysis.cli._times import TIME

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Engine, Selection

_COMPONENTS: Final = (
    *("verdict", "ratio", "ratio_low", "ratio_high", "before_ns", "after_ns", "before_units", "after_units"),
    *("before_error_rate", "after_error_rate"),
)
_RANGE: Final = ".."


@click.command()
@click.argument("before")
@click.argument("after")
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
    named = [*_sessions(before), *_sessions(after)]
    if named and not ask.scope.all_sessions:
        scope = dataclasses.replace(ask.scope, given=tuple(dict.fromkeys((*ask.scope.given, *named))))
        ask = dataclasses.replace(ask, scope=scope)
    ask.show(
        "compare",
        lambda engine: compare(
            engine,
            _side(engine, before, ask.selection()),
            _side(engine, after, ask.selection()),
            fields,
            min_effect=min_effect / 100,
            limit=limit,
        ),
        {
            "components": View("Durations", (*fields, *_COMPONENTS)),
            "children": View("Calls below a call"),
            "critical_path": View("Shares of the critical path"),
        },
    )


def _sessions(side: str) -> Sequence[str]:
    """Return the sessions that a set names, none if it is another kind of set."""
    return () if "=" in side or _RANGE in side else [part for part in side.split(",") if part]


def _side(engine: Engine, side: str, selection: Selection) -> Selection:
    """Return what of the selected spans is in a set."""
    from otel_debugstore_analysis.analyses.compare import of_commit

    field, equals, value = side.partition("=")
    if field == "commit" and equals:
        return dataclasses.replace(selection, where={**selection.where, **of_commit(engine, value).where})
    if equals:
        return dataclasses.replace(selection, where={**selection.where, field: value})
    if _RANGE in side:
        since, _, until = side.partition(_RANGE)
        times = [TIME.convert(text, None, None) if text else None for text in (since, until)]
        return dataclasses.replace(selection, since_ns=times[0], until_ns=times[1])
    sessions = tuple(_sessions(side))
    if not sessions:
        raise click.UsageError("BEFORE and AFTER are sessions (a,b), FIELD=VALUE, commit=DIGITS, or TIME..TIME.")
    return dataclasses.replace(selection, where={**selection.where, "session": sessions})
