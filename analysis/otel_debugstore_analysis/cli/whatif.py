"""`debugstore whatif`: what a workflow would gain if a component were faster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option
from otel_debugstore_analysis.text import duration

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Table


@click.command()
@click.option("--workflow", metavar="NAME", help="The component whose calls are the runs; by default roots are.")
@click.option("--layer", metavar="LAYER", help="The layer whose calls are the runs, such as workflow.")
@click.option(
    "--faster",
    multiple=True,
    type=click.FloatRange(0, 100, min_open=True),
    metavar="PERCENT",
    help="By how much of its own time it gets faster; may be repeated. By default 25, 50 and 100.",
)
@limit_option(10, "Components")
@analysis_options
def command(ask: Ask, workflow: str | None, layer: str | None, faster: tuple[float, ...], limit: int) -> None:
    """Show what workflows would save if a component were faster: runs are replayed with its own times scaled.

    What saves most comes first. --component is the component that gets faster.

    \b
    Examples:
      debugstore whatif
      debugstore whatif --component parse --faster 20
      debugstore whatif --workflow checkout --format json
    """
    from otel_debugstore_analysis.analyses.whatif import FASTER, whatif

    ask.show(
        "whatif",
        lambda engine: whatif(
            engine,
            selection=ask.selection(of_component=False),
            workflow=workflow,
            layer=layer,
            component=ask.component,
            faster=[percent / 100 for percent in faster] or FASTER,
            limit=limit,
        ),
        {"whatif": View(shape=_side_by_side)},
    )


def _side_by_side(table: Table, _: Mapping[str, Table]) -> Table:
    """Return a row a workflow and component: p50 and p95 of the workflow now, and for each way of being faster."""
    from otel_debugstore_analysis.query import Table

    shares = sorted({row["faster_share"] for row in table.dicts()})
    now: dict[tuple[Any, ...], str] = {}
    then: dict[tuple[Any, ...], dict[float, str]] = {}
    for row in table.dicts():
        key = row["workflow"], row["component"], row["runs"]
        p50, p95 = row["p50_ns"], row["p95_ns"]
        now[key] = _both(p50, p95)
        then.setdefault(key, {})[row["faster_share"]] = _both(p50 - row["p50_saved_ns"], p95 - row["p95_saved_ns"])
    columns = ("workflow", "component", "runs", "p50, p95 now", *(f"{100 * share:g} % faster" for share in shares))
    rows = [(*key, now[key], *(then[key].get(share) for share in shares)) for key in now]
    left_out = table.left_out and -(-table.left_out // max(len(shares), 1))
    return Table(columns, rows, left_out, table.notes)


def _both(p50_ns: float, p95_ns: float) -> str:
    return f"{duration(p50_ns)}, {duration(p95_ns)}"
