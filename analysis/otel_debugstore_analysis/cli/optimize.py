"""`debugstore optimize`: an optimizer's changes for an item of the queue, proven or rejected."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from otel_debugstore_analysis.cli._errors import Findings
from otel_debugstore_analysis.cli._options import base_path, data_dir_option
from otel_debugstore_analysis.cli._output import remark, show_json
from otel_debugstore_analysis.cli._progress import progress_bar
from otel_debugstore_analysis.cli._values import FunctionName
from otel_debugstore_analysis.cli.replay import show_replay
from otel_debugstore_analysis.text import printable

if TYPE_CHECKING:
    from otel_debugstore_analysis.optimizer import Attempt, Optimization, Optimizer


@click.command()
@click.argument("item")
@click.option(
    "--with",
    "optimizer",
    default="mechanical",
    show_default=True,
    metavar="CMD|NAME",
    help="mechanical, an optimizer that is installed, or a command: it reads the item's package on standard input and "
    "writes a patch or Python code, or edits the files of its working directory.",
)
@click.option(
    "--path",
    "project",
    default=".",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The project's directory; by default the current one.",
)
@click.option("--tests", metavar="CMD", help="The command that runs the tests; by default that of the item.")
@click.option(
    "--setup",
    type=FunctionName(),
    metavar="PKG.MOD:FUNC",
    help="Called before recorded calls, in every process that makes some.",
)
@click.option("--teardown", type=FunctionName(), metavar="PKG.MOD:FUNC", help="Called after them.")
@click.option("--tolerance", type=click.FloatRange(0), metavar="SHARE", help="How far numbers in results may differ.")
@click.option(
    "--seconds",
    type=click.FloatRange(0, min_open=True),
    default=60.0,
    show_default=True,
    help="What timing may take, about.",
)
@click.option("--max-tokens", type=click.IntRange(200), default=8_000, show_default=True, help="The package's budget.")
@click.option("--apply", is_flag=True, help="Apply what was proven to the project.")
@click.option("--format", "output_format", type=click.Choice(("table", "json")), default="table", show_default=True)
@data_dir_option
def command(
    item: str,
    optimizer: str,
    project: Path,
    tests: str | None,
    setup: str | None,
    teardown: str | None,
    tolerance: float | None,
    seconds: float,
    max_tokens: int,
    apply: bool,
    output_format: str,
) -> None:
    """Have an optimizer change what ITEM of the queue names, and prove or reject it.

    The item is claimed, the candidate applied in a scratch copy, its tests run there, recorded calls replayed and
    timed. What is proven lies as a patch beside the sessions; the project is not touched without --apply. Tests and
    their settings stay as they are, whatever a candidate changes of them. Calls of what is not declared as replayable
    or pure run only if ITEM is the component's name.

    \b
    Examples:
      debugstore optimize shop.tools.parse
      debugstore optimize 3f2a --with "python my_agent.py" --tests "pytest -q tests/test_tools.py"
      debugstore optimize shop.tools.parse --apply
    """
    from otel_debugstore_analysis.optimizer import OptimizeOptions, optimize
    from otel_debugstore_analysis.processes import split_command
    from otel_debugstore_analysis.replay import ReplayOptions

    options = OptimizeOptions(
        project,
        tuple(split_command(tests)) if tests is not None else None,
        replay=ReplayOptions(setup=setup, teardown=teardown, relative=tolerance, max_seconds=seconds),
        max_tokens=max_tokens,
        apply=apply,
    )
    with progress_bar("optimize"):
        found = optimize(base_path(), item, _optimizer(optimizer), options=options)
    _show(found, output_format)
    if found.proven is None:
        raise Findings


def _optimizer(text: str) -> Optimizer:
    from otel_debugstore_analysis.optimizer import CommandOptimizer, find_optimizer
    from otel_debugstore_analysis.processes import split_command

    return find_optimizer(text) or CommandOptimizer(split_command(text))


def _show(found: Optimization, output_format: str) -> None:
    if output_format == "json":
        show_json(
            {
                "item": found.item.id,
                "component": found.item.component,
                "state": found.item.state,
                "patch": str(found.patch) if found.patch else None,
                "is_applied": found.is_applied,
                "attempts": [_plain(attempt) for attempt in found.attempts],
            }
        )
        return
    if not found.attempts:
        remark(
            "The optimizer proposed nothing; the item is open again. The included one rewrites only what is declared "
            "pure=True, where recorded calls repeat; another one is named by --with."
        )
    for attempt in found.attempts:
        click.echo(printable(f"{'proven' if attempt.is_proven else 'rejected'}: {attempt.candidate.title}"))
        click.echo(printable(f"  {attempt.why}"))
        if attempt.tests is not None:
            click.echo(printable(f"  tests: {attempt.tests.cause}"))
        if attempt.replay is not None and attempt.replay.comparison.per_class:
            show_replay(attempt.replay, "table")
    if found.patch is not None:
        done = "It is applied" if found.is_applied else f"Apply it: git apply {found.patch}"
        click.echo(printable(f"The change is in {found.patch}. {done}."))


def _plain(attempt: Attempt) -> dict[str, Any]:
    tests = attempt.tests
    return {
        "title": attempt.candidate.title,
        "files": sorted(attempt.candidate.files),
        "is_proven": attempt.is_proven,
        "why": attempt.why,
        "tests": None if tests is None else {"status": tests.status, "cause": tests.cause, "seconds": tests.seconds},
        "replay": None if attempt.replay is None else attempt.replay.to_dict(),
    }
