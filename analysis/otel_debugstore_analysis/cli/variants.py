"""`debugstore variants`: the versions of a component's code that ran."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option
from otel_debugstore_analysis.cli._shapes import COMMIT, FILE, RATIO, joining
from otel_debugstore_analysis.text import printable

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Table

_COLUMNS: Final = (
    *("component", "variant", "previous", "first_ns", "last_ns", "count"),
    *("p50_ns", "verdict", RATIO.name, COMMIT.name, FILE.name),
)


@click.command()
@click.option("--diff", is_flag=True, help="Show below the table what changed in the code, too.")
@limit_option(20, "Versions")
@analysis_options
def command(ask: Ask, diff: bool, limit: int) -> None:
    """Show the versions of a component's code that ran, each with its times against the one before.

    JSON has the source, and what changed in it.

    \b
    Examples:
      debugstore variants --component parse --diff
      debugstore variants --all-sessions
      debugstore variants --component parse --format json
    """
    from otel_debugstore_analysis.analyses.variants import variants

    is_data = ask.output_format in ("json", "csv")
    if diff and (is_data or ask.max_tokens is not None):
        raise click.UsageError("--diff goes with table and markdown, without --max-tokens; JSON has it always.")
    tables = ask.show(
        "variants",
        lambda engine: variants(engine, selection=ask.selection(), limit=limit),
        {"variants": View(columns=_COLUMNS, shape=joining(RATIO, COMMIT, FILE))},
    )
    if diff:
        _show_diffs(tables["variants"])


def _show_diffs(versions: Table) -> None:
    for row in versions.dicts():
        if row["diff"]:
            lines = [printable(line) for line in row["diff"].splitlines()]
            click.echo("\n".join(["", f"{printable(row['component'] or '')} {row['variant']}:", *lines]))
