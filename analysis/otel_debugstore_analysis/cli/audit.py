"""`debugstore audit`: components against their limits; exit code 1 where one is not kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.cli._analysis import limit_option
from otel_debugstore_analysis.cli._errors import Findings
from otel_debugstore_analysis.cli._options import Scope, engine_options
from otel_debugstore_analysis.cli._output import FORMATS, remark, show, show_json
from otel_debugstore_analysis.cli._progress import progress_bar
from otel_debugstore_analysis.cli._selection import Chosen, selection_options

if TYPE_CHECKING:
    from otel_debugstore_analysis.auditor import AuditResult, TestRuns

_FORMATS: Final = (*FORMATS, "junit", "github")


@click.command()
@click.argument("components", nargs=-1, metavar="[COMPONENT]...")
@click.option(
    "--pyproject",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Where the limits are; by default the pyproject.toml of the working directory.",
)
@click.option("--strict", is_flag=True, help="Exit code 1 also where there are too few calls to decide.")
@click.option("--no-queue", is_flag=True, help="Put nothing into the optimization queue.")
@click.option(
    "--test-command",
    metavar="LINE",
    help="Run the tests of the one component that is named, with its calls recorded and without; no shell reads it.",
)
@click.option(
    "--test-timeout",
    type=click.FloatRange(0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="S",
    help="End a run of the tests after so many seconds.",
)
@click.option(
    "--test-iterations", type=click.IntRange(1), default=1, show_default=True, metavar="N", help="Runs each way."
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(_FORMATS),
    default="table",
    show_default=True,
    help="How to print: junit for test reports, github for the checks of a pull request.",
)
@limit_option(50, "Components (for people)")
@selection_options
@engine_options
def command(
    scope: Scope,
    chosen: Chosen,
    components: tuple[str, ...],
    pyproject: Path | None,
    strict: bool,
    no_queue: bool,
    test_command: str | None,
    test_timeout: float,
    test_iterations: int,
    output_format: str,
    limit: int,
) -> None:
    """Hold components against their limits, and put those that don't keep them into the optimization queue.

    Components are names, or globs of them; by default all that have limits are audited. Limits are those of their
    layers, and of [tool.otel-debugstore.thresholds] in pyproject.toml. Exit code 1 where a limit is not kept.

    \b
    Examples:
      debugstore audit --all-sessions
      debugstore audit 'shop.*' --format github
      debugstore audit shop.buy --test-command "pytest -q tests/test_buy.py"
    """
    from otel_debugstore_analysis.auditor import audit, read_thresholds
    from otel_debugstore_analysis.auditor._findings import enqueue
    from otel_debugstore_analysis.auditor._history import proposals
    from otel_debugstore_analysis.processes import split_command
    from otel_debugstore_analysis.queue import OptimizationQueue

    thresholds = read_thresholds(pyproject)
    tests = split_command(test_command) if test_command is not None else []
    with progress_bar("audit"), scope.engine() as engine:
        audited = scope.given if scope.engine_url else scope.session_ids()
        results = audit(
            engine,
            thresholds,
            selection=chosen.selection(),
            components=components,
            proposals=partial(proposals, scope.base_path, audited),
        )
    if components and not results:
        raise QueryError(f"No call of a component {' or '.join(components)} was recorded there, or it has no limits.")
    if tests:
        results = [_tested(results, tests, test_iterations, test_timeout)]
    if not no_queue:
        enqueue(OptimizationQueue(scope.base_path), results, tests)
    _show(results, output_format, limit)
    if any(one.verdict == "fail" or (strict and one.verdict == "undecided") for one in results):
        raise Findings


def _tested(results: Sequence[AuditResult], words: Sequence[str], iterations: int, timeout_s: float) -> AuditResult:
    from otel_debugstore_analysis.auditor._auditor import with_tests

    if len(results) != 1:
        names = ", ".join(f"{one.component_name} ({one.layer})" for one in results[:5])
        raise click.UsageError(f"--test-command is about one component; {len(results):,} are meant here: {names}.")
    return with_tests(results[0], _runs(results[0], words, iterations, timeout_s))


def _runs(result: AuditResult, words: Sequence[str], iterations: int, timeout_s: float) -> TestRuns:
    from otel_debugstore_analysis.auditor import run_tests
    from otel_debugstore_analysis.auditor._named import find_by_code

    return run_tests(words, find_by_code(result), iterations=iterations, timeout_s=timeout_s)


def _show(results: Sequence[AuditResult], output_format: str, limit: int) -> None:
    from otel_debugstore_analysis.auditor import _report as report

    counts = {verdict: sum(one.verdict == verdict for one in results) for verdict in ("fail", "undecided", "pass")}
    if output_format == "json":
        show_json({"counts": counts, "results": [report.as_dict(one) for one in results]})
    elif output_format == "junit":
        click.echo(report.junit(results), nl=False)
    elif output_format == "github":
        click.echo(report.github(results), nl=False)
    elif output_format == "csv":
        show(report.checks_table(results), "csv")
    else:
        table = report.summary_table([one for one in results if one.verdict != "pass"] or results)
        show(replace(table, rows=table.rows[:limit]), output_format)
        if len(table.rows) > limit:
            remark(f"{len(table.rows) - limit:,} more rows are not shown; --limit 0 shows all.")
    if not results:
        remark("Nothing there has limits: what has no layer gets them by name, in [tool.otel-debugstore.thresholds].")
    remark(
        f"{len(results):,} audited: {counts['fail']:,} do not keep their limits, {counts['undecided']:,} are "
        f"undecided, {counts['pass']:,} keep them."
    )
