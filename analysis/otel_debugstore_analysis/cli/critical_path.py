"""`debugstore critical-path`: which component a workflow's time is answerable to."""

from __future__ import annotations

import click

from otel_debugstore_analysis.cli._analysis import Ask, View, analysis_options, limit_option

_COMPONENTS = ("workflow", "component", "layer", "service", "critical_ns", "critical_share", "runs", "p50_ns", "p95_ns")


@click.command()
@click.option("--workflow", metavar="NAME", help="The component whose calls are the runs; by default roots are.")
@click.option("--layer", metavar="LAYER", help="The layer whose calls are the runs, such as workflow.")
@click.option(
    "--by",
    type=click.Choice(("component", "layer", "service")),
    default="component",
    show_default=True,
    help="What time is added up by.",
)
@click.option("--trace", "trace_id", metavar="ID", help="Show the path of this trace, or of the one that begins so.")
@limit_option(20, "Rows")
@analysis_options
def command(ask: Ask, workflow: str | None, layer: str | None, by: str, trace_id: str | None, limit: int) -> None:
    """Show who is answerable for the time of workflows: at every instant one call, so that all add up.

    What ran beside a slower call is not on the path, however long it took. --component takes the traces in which
    that component was called.

    \b
    Examples:
      debugstore critical-path
      debugstore critical-path --by service --since 10m
      debugstore critical-path --workflow checkout
      debugstore critical-path --trace 4bf92f3577b34da6a3ce929d0e0e4736
    """
    from otel_debugstore_analysis.analyses.critical_path import MAX_SEGMENTS, critical_path

    answer = {
        "components": View("Time on the critical path", _COMPONENTS),
        "workflows": View("Workflows", ("workflow", "runs", "total_ns", "p50_ns", "p95_ns", "trace_ids")),
    }
    path = {"segments": View(columns=("from_ns", "to_ns", "duration_ns", "component", "service"))}
    ask.show(
        "critical_path",
        lambda engine: critical_path(
            engine,
            selection=ask.selection(),
            workflow=workflow,
            layer=layer,
            by=by,
            trace_id=trace_id,
            limit=limit,
            max_segments=max(limit, MAX_SEGMENTS),
        ),
        path if trace_id is not None else answer,
    )
