"""`debugstore ab`: what is known of A/B experiments, and stopping and resuming their arms by hand."""

from __future__ import annotations

from typing import Final

import click

from otel_debugstore_analysis.cli._options import base_path, data_dir_option
from otel_debugstore_analysis.cli._output import format_option, remark, show

_SHOWN: Final = (
    *("experiment", "arm", "share", "call_count", "error_rate", "ratio", "ratio_low", "ratio_high", "pair_count"),
    *("verdict", "stopped_by"),
)


@click.command()
@click.argument("name", required=False)
@click.option("--stop", metavar="ARM", help="Send no calls to this arm any more, in every process within a second.")
@click.option("--resume", metavar="ARM", help="Send calls to it again; what was seen of it before is put aside.")
@data_dir_option
@format_option
def command(name: str | None, stop: str | None, resume: str | None, output_format: str) -> None:
    """Show the arms of A/B experiments: calls, errors, and times against the control, with a verdict.

    NAME is an experiment; all by default. The verdict may be looked at at any time: `faster`, `slower` or `failed`
    (fails more often) is said of at most one in twenty experiments whose arms are equal.

    \b
    Examples:
      debugstore ab
      debugstore ab search --stop v2
      debugstore ab search --format json
    """
    from otel_debugstore_analysis.experiments import experiments
    from otel_debugstore_analysis.query import Table

    if stop is not None or resume is not None:
        _change(name, stop, resume)
    table = experiments(base_path(), name)
    if output_format in ("json", "csv"):
        show(table, output_format)
        return
    places = [table.columns.index(column) for column in _SHOWN]
    rows = [tuple(row[place] for place in places) for row in table.rows]
    if rows:
        show(Table(_SHOWN, rows), output_format)
    for note in table.notes:
        remark(note)


def _change(name: str | None, stop: str | None, resume: str | None) -> None:
    from otel_debugstore_exporters.experiments import ExperimentStore

    if name is None or (stop is not None and resume is not None):
        raise click.UsageError("Name the experiment, and one of --stop and --resume.")
    store = ExperimentStore(base_path())
    if stop is not None:
        store.stop(name, stop)
    if resume is not None:
        store.resume(name, resume)
