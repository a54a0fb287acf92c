"""`debugstore replay`: recorded calls, run again with changed code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from otel_debugstore_analysis.cli._errors import Findings
from otel_debugstore_analysis.cli._options import Scope, reading_options
from otel_debugstore_analysis.cli._output import format_option, remark, show, show_json
from otel_debugstore_analysis.cli._progress import progress_bar
from otel_debugstore_analysis.cli._values import FunctionName, Share
from otel_debugstore_analysis.text import printable

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Table
    from otel_debugstore_analysis.replay import Replay

_COLUMNS: Final = ("inputs", "verdict", "ratio", "ratio_low", "ratio_high", "baseline_ns", "candidate_ns", "pairs")
_GOOD: Final = ("faster", "equal")


@click.command()
@click.argument("component")
@click.option("--candidate", required=True, type=FunctionName(), metavar="PKG.MOD:FUNC", help="The changed code.")
@click.option(
    "--path",
    "paths",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="Where modules are looked for first; then where they were when they were recorded. May be repeated.",
)
@click.option(
    "--setup",
    type=FunctionName(),
    metavar="PKG.MOD:FUNC",
    help="Called before the calls, in every process that makes some.",
)
@click.option("--teardown", type=FunctionName(), metavar="PKG.MOD:FUNC", help="Called after them.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0),
    metavar="SHARE",
    help="How far numbers in results may differ; by default not at all.",
)
@click.option(
    "--min-effect",
    type=Share(),
    default="3%",
    show_default=True,
    metavar="SHARE",
    help="The least difference that counts: 3% or 0.03.",
)
@click.option(
    "--inputs",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    metavar="N",
    help="How many inputs of all classes, about; those of the recorded sequence are added.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="S",
    help="What timing may take, about.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    default=10.0,
    show_default=True,
    metavar="S",
    help="How long a call may take.",
)
@click.option("--check-only", is_flag=True, help="Compare results only; time nothing.")
@click.option("--sequence", is_flag=True, help="Time the recorded sequence in new processes in any case.")
@click.option("--record", metavar="SESSION", help="Write the comparison into this session, as `benchmark` does.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of all that is left to chance.")
@format_option
@reading_options
def command(
    scope: Scope,
    component: str,
    candidate: str,
    paths: tuple[str, ...],
    setup: str | None,
    teardown: str | None,
    tolerance: float | None,
    min_effect: float,
    inputs: int,
    seconds: float,
    timeout: float,
    check_only: bool,
    sequence: bool,
    record: str | None,
    seed: int,
    output_format: str,
) -> None:
    """Run recorded calls again with changed code: is it right, and is it faster?

    Recorded inputs, some of every class and the slowest and the failing among them, go through recorded and changed
    code, in processes of their own. Results and errors are held against the record; only if none is wrong, times
    count. COMPONENT is run because you name it; what is declared replayable=False is not.

    \b
    Examples:
      debugstore replay shop.tools.parse --candidate shop.fast:parse
      debugstore replay parse --candidate shop.fast:parse --setup tests.fake:start --teardown tests.fake:stop
      debugstore replay parse --candidate shop.fast:parse --check-only --format json
      debugstore replay parse --candidate shop.fast:parse --record benchmarks
    """
    from otel_debugstore_analysis import query
    from otel_debugstore_analysis.queue import OptimizationQueue
    from otel_debugstore_analysis.replay import ReplayOptions, recorded_calls, replay

    with progress_bar("replay"):
        with scope.reader() as reader:
            name = OptimizationQueue(scope.base_path).recorded_name(component)
            recorded = recorded_calls(query.DuckDBEngine(reader), name)
        options = ReplayOptions(
            extra_paths=paths,
            setup=setup,
            teardown=teardown,
            relative=tolerance,
            min_effect=min_effect,
            inputs=inputs,
            timeout_s=timeout,
            max_seconds=seconds,
            seed=seed,
            asked_by_name=True,
            check_only=check_only,
            always_sequence=sequence,
        )
        found = replay(recorded, candidate, options=options)
    if record is not None:
        _record(found, scope, record)
    show_replay(found, output_format)
    if found.verdict not in _GOOD and not (check_only and found.right and found.verdict == "undecided"):
        raise Findings


def _record(found: Replay, scope: Scope, session_id: str) -> None:
    from otel_debugstore_analysis.benchmark import record_comparison

    trace_id = record_comparison(
        scope.base_path,
        session_id,
        f"replay {found.component}",
        found.comparison,
        baseline=f"{found.component} (recorded)",
        candidate=found.candidate or "candidate",
    )
    remark(f"Recorded in session {session_id}, trace {trace_id}.")


def show_replay(found: Replay, output_format: str) -> None:
    """Print what a replay found."""
    if output_format == "json":
        show_json(found.to_dict())
        return
    if output_format != "csv":
        click.echo(printable(f"{found.verdict}: {found.cause}"))
        click.echo(printable(_counts(found)))
    table = _table(found)
    if table.rows or output_format == "csv":
        if output_format != "csv":
            click.echo()
        show(table, output_format)
    for note in (*found.notes, *found.comparison.notes):
        remark(note)


def _counts(found: Replay) -> str:
    parts = [
        f"{found.recorded:,} calls were recorded",
        f"{found.inputs:,} inputs were run, {found.right:,} gave what was recorded",
    ]
    if found.unknown:
        parts.append(f"{found.unknown:,} could not be compared")
    if found.unsteady:
        parts.append(f"{found.unsteady:,} were left out, since the original no longer does what was recorded")
    parts += [f"{count:,} calls can't be run again: {reason}" for reason, count in found.skipped.items()]
    return "; ".join(parts) + "."


def _table(found: Replay) -> Table:
    from otel_debugstore_analysis.query import Table

    rows: list[tuple[Any, ...]] = [
        (one.label, one.verdict, one.ratio, one.low, one.high, one.baseline_ns, one.candidate_ns, one.pairs)
        for one in found.comparison.per_class
    ]
    return Table(_COLUMNS, rows)
