"""`debugstore whatif`: what a workflow would gain if a component were faster."""

from __future__ import annotations

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option

_COLUMNS = (
    "workflow",
    "component",
    "faster_share",
    "runs",
    "p50_ns",
    "p50_saved_ns",
    "p95_ns",
    "p95_saved_ns",
    "saved_share",
)


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
        {"whatif": View(columns=_COLUMNS)},
    )
