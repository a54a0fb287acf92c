"""`debugstore benchmark`: two functions against each other."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from otel_debugstore_analysis.cli._errors import Findings
from otel_debugstore_analysis.cli._options import OF_BENCHMARKS, base_path, data_dir_option
from otel_debugstore_analysis.cli._output import format_option, remark, show, show_json
from otel_debugstore_analysis.cli._progress import progress_bar

if TYPE_CHECKING:
    from otel_debugstore_analysis.benchmark import BenchmarkOptions, Check, Comparison

_HISTORY: Final = (
    *(
        "start_ns",
        "name",
        "candidate",
        "baseline",
        "verdict",
        "ratio",
        "ratio_low",
        "ratio_high",
        "candidate_time",
        "host",
    ),
)


class _Percent(click.ParamType[float]):
    """A share, written as "5%" or "5"; less than 1 has to have its sign, since elsewhere 0.05 is 5%."""

    name = "percent"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            share = float(str(value).removesuffix("%")) / 100
        except ValueError:
            self.fail(f"{value!r} is no percentage; write 5%.", param, ctx)
        if 0 < share < 0.01 and not str(value).endswith("%"):
            self.fail(f"{value!r} might be a percentage or a share; write {value}% for the one.", param, ctx)
        if not 0 < share < 10:
            self.fail(f"{value!r} is no difference to be found; write one such as 5%.", param, ctx)
        return share


@click.command()
@click.argument("baseline", required=False)
@click.argument("candidate", required=False)
@click.option(
    "--inputs", metavar="WHAT", help="A JSON file, a function that returns inputs, or a category of scenarios."
)
@click.option("--name", help="What it is recorded as; by default the name of the candidate.")
@click.option(
    "--gate", type=_Percent(), metavar="PERCENT", help="Exit code 1 unless it is shown to be no slower than this."
)
@click.option("--exact", is_flag=True, help="Count instructions by valgrind instead of timing.")
@click.option("--stop-early", is_flag=True, help="Stop as soon as the pairs say something, which is valid at any time.")
@click.option(
    "--min-effect", type=_Percent(), default="3%", show_default=True, help="The least difference that counts."
)
@click.option(
    "--tolerance", type=click.FloatRange(0), metavar="SHARE", help="By how much numbers in outputs may differ."
)
@click.option(
    "--check", metavar="FUNCTION", help="pkg.mod:function(baseline_output, candidate_output): whether it is right."
)
@click.option("--processes", type=click.IntRange(1), default=10, show_default=True, help="How many measure.")
@click.option("--pairs", type=click.IntRange(1), default=20, show_default=True, help="Of each input in each process.")
@click.option(
    "--timeout", type=click.FloatRange(0.01), default=10.0, show_default=True, help="Seconds a call may take."
)
@click.option(
    "--gc", type=click.Choice(["enabled", "disabled"]), default="enabled", show_default=True, help="While timing."
)
@click.option("--session", "-s", metavar="ID", help="The session to record into; by default a new one.")
@click.option("--no-record", is_flag=True, help="Record nothing.")
@click.option("--history", is_flag=True, help="Show what was recorded before instead, the newest first.")
@click.option(
    "--limit", "-n", type=click.IntRange(1), default=50, show_default=True, help="Rows of the history at most."
)
@format_option
@data_dir_option
def command(
    baseline: str | None,
    candidate: str | None,
    inputs: str | None,
    name: str | None,
    history: bool,
    limit: int,
    output_format: str,
    session: str | None,
    **options: Any,
) -> None:
    """Measure CANDIDATE against BASELINE, functions as package.module:name, and say which is faster.

    Outputs are compared before any time counts. Without CANDIDATE the baseline is measured against itself, which shows
    what this machine can tell apart. With --gate a machine that can't is refused.

    \b
    Inputs (called once without arguments if there are none):
      --inputs inputs.json            [[1, 2], {"label": "large", "args": [3], "kwargs": {}, "weight": 10}]
      --inputs pkg.mod:function       whatever it returns: tuples of arguments, or Cases
      --inputs numeric_computation    standard scenarios (a list of numbers is the argument)

    \b
    Examples:
      debugstore benchmark app.parse:old app.parse:new --inputs app.samples:texts
      debugstore benchmark app.parse:old app.parse:new --inputs texts.json --gate 5%
      debugstore benchmark --history --name parse
    """
    if history:
        _show_history(name, session, limit, output_format)
        return
    if baseline is None:
        raise click.UsageError("Name the functions: package.module:name of the baseline, and of the candidate.")
    sys.path.insert(0, os.getcwd())  # noqa: PTH109  # as `python -m` does: the console script's path lacks it
    from otel_debugstore_analysis.benchmark import Check
    from otel_debugstore_analysis.benchmark.inputs import cases_of

    gate, no_record = options.pop("gate"), options.pop("no_record")
    check = _check(Check, options.pop("check"), options.pop("tolerance"))
    wanted = _options(options, gate)
    cases = cases_of(inputs)
    with progress_bar("Measuring"):
        if gate is not None and not wanted.exact:
            _require_resolution(baseline, cases, wanted, check, gate)
        from otel_debugstore_analysis.benchmark import compare_functions

        found = compare_functions(baseline, candidate or baseline, cases, options=wanted, check=check)
    if not no_record:
        _record(found, name or candidate or baseline, (baseline, candidate or baseline), session)
    _show(found, candidate or baseline, output_format)
    if candidate is None and found.is_ranked:
        _remark_resolution(found, wanted)
    if not found.is_ranked or (gate is not None and not _keeps(found, gate)):
        raise Findings


def _options(given: dict[str, Any], gate: float | None) -> BenchmarkOptions:
    from otel_debugstore_analysis.benchmark import BenchmarkOptions

    timeout, min_effect = given.pop("timeout"), given.pop("min_effect")
    return BenchmarkOptions(timeout_s=timeout, min_effect=gate or min_effect, **given)


def _check(kind: type[Check], function: str | None, tolerance: float | None) -> Check:
    if function is not None and tolerance is not None:
        raise click.UsageError("--check and --tolerance exclude each other.")
    if function is not None:
        return kind("function", function=function)
    return kind("tolerance", relative=tolerance, absolute=tolerance) if tolerance is not None else kind()


def _require_resolution(baseline: str, cases: Any, options: BenchmarkOptions, check: Check, gate: float) -> None:
    from otel_debugstore_analysis.benchmark import require_resolution, resolution

    found = resolution(baseline, cases, options=options, check=check)
    require_resolution(found, gate)
    remark(f"This machine resolves {found.effect:.1%} now.")


def _remark_resolution(found: Comparison, options: BenchmarkOptions) -> None:
    from otel_debugstore_analysis.benchmark.resolving import effect_of

    remark(f"It was measured against itself: this machine resolves {effect_of(found, options.confidence):.1%} now.")


def _keeps(found: Comparison, gate: float) -> bool:
    """Return whether it is shown that the candidate is no slower than the gate allows."""
    return found.high <= 1 + gate


def _record(found: Comparison, name: str, sides: tuple[str, str], session: str | None) -> None:
    from otel_debugstore.session_id import default_session_id
    from otel_debugstore_analysis.benchmark import record_comparison

    session_id = session or default_session_id(OF_BENCHMARKS)
    trace_id = record_comparison(base_path(), session_id, name, found, baseline=sides[0], candidate=sides[1])
    remark(f"Recorded in session {session_id}, trace {trace_id}.")


def _show(found: Comparison, candidate: str, output_format: str) -> None:
    from otel_debugstore_analysis.query import Table

    if output_format == "json":
        show_json(found.to_dict())
        return
    unit = "ns" if found.unit == "ns" else "count"
    columns = ("input", "verdict", "ratio", "low", "high", f"baseline_{unit}", f"candidate_{unit}", "pairs")
    whole = (found.verdict, found.ratio, found.low, found.high, found.baseline_ns, found.candidate_ns, found.pairs)
    rows: list[tuple[Any, ...]] = [
        (each.label, each.verdict, each.ratio, each.low, each.high, each.baseline_ns, each.candidate_ns, each.pairs)
        for each in found.per_class
    ]
    if len(rows) != 1:
        rows.append(("all", *whole))
    show(Table(columns, rows), output_format)
    remark(f"{candidate}: {found.verdict}. {found.cause}")
    if found.memory is not None:
        from otel_debugstore_analysis.text import size

        remark(
            f"Peak memory of a call: {size(found.memory.baseline_peak_bytes)} before, "
            f"{size(found.memory.candidate_peak_bytes)} after."
        )
    for note in found.notes:
        remark(note)


def _show_history(name: str | None, session: str | None, limit: int, output_format: str) -> None:
    from otel_debugstore_analysis.benchmark import history
    from otel_debugstore_analysis.query import Table

    found = history(base_path(), name, sessions=[session] if session else None, limit=limit)
    if output_format in ("json", "csv"):
        show(found, output_format)
        return
    rows = [tuple(row[column] for column in _HISTORY) for row in found.dicts()]
    show(Table(_HISTORY, rows), output_format)
    if not rows:
        remark("No benchmark was recorded here.")
    elif found.left_out is None:
        remark("There are more; --limit shows them.")
