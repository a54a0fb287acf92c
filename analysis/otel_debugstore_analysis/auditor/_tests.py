"""The tests of a component with its calls recorded, and again without: recording must not change how they end."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NamedTuple
from xml.etree import ElementTree

from otel_debugstore.errors import ConfigurationError, DebugStoreError
from otel_debugstore_analysis.auditor import _tracking
from otel_debugstore_analysis.auditor._named import Named
from otel_debugstore_analysis.processes import Outcome, command_of_tests, run_command

TIMEOUT_S: Final = 600.0
OUTPUT_BYTES: Final = 100_000
_MAX_REPORT_BYTES: Final = 50_000_000
_NAMED: Final = 5
"""Of how many tests that end differently the cause tells the names."""
_ADDOPTS: Final = "PYTEST_ADDOPTS"
TestsVerdict = Literal["pass", "fail", "rejected", "undecided"]


class Run(NamedTuple):
    """A run of the command, and by test how it ended, where it is pytest that runs them."""

    outcome: Outcome
    tests: Mapping[str, str]


@dataclass(frozen=True)
class TestRuns:
    """How the tests of a component ended.

    Attributes:
        command: The command, as words.
        verdict: "pass"; "fail": they fail without recording, too, or could not be run; "rejected": they end differently
            with the component's calls recorded, so that it can't be; "undecided": they never called it.
        cause: Why, a sentence.
        recorded_calls: How many calls of the component were recorded while they ran.
        differences: What ended differently, a sentence each.
        tracked, plain: The runs with and without recording; each with its output, of which beginning and end are kept.
    """

    __test__ = False  # for pytest, to which a class of this name is a test

    command: tuple[str, ...]
    verdict: TestsVerdict
    cause: str
    recorded_calls: int = 0
    differences: tuple[str, ...] = ()
    tracked: tuple[Run, ...] = ()
    plain: tuple[Run, ...] = ()


def run_tests(
    command: str | Sequence[str],
    function: Named | str,
    *,
    iterations: int = 1,
    timeout_s: float = TIMEOUT_S,
    cwd: str | os.PathLike[str] | None = None,
) -> TestRuns:
    """Run the tests of a function with its calls recorded, and without.

    Args:
        command: What runs them: words, or a line of them. No shell reads it.
        function: The function; or why it can't be recorded there, a sentence.
        iterations: How often each way, in turn. With several, tests that end now so, now so, don't count.
        timeout_s: When a run is ended.
        cwd: Where it runs.

    Raises:
        ConfigurationError: The command is empty, or needs a shell; or there are to be no iterations.
    """
    words = command_of_tests(command)
    if iterations < 1:
        raise ConfigurationError(f"Tests can't be run {iterations} times; take 1 or more.")
    if isinstance(function, str):
        return TestRuns(tuple(words), "undecided", function)
    with _folder() as folder:
        store = folder / "store"
        plain_environment = _tracking.environment(str(store))
        environment = _tracking.tracked(plain_environment, *function[:3])
        tracked: list[Run] = []
        plain: list[Run] = []
        for number in range(iterations):
            for runs, environ in ((tracked, environment), (plain, plain_environment)):
                report = folder / f"{number}-{len(tracked)}-{len(plain)}.xml"
                runs.append(_run(words, environ, report, timeout_s, cwd))
            if tracked[-1].outcome.status == "not_found":
                break
        verdict, cause, differences, calls = _judged(tracked, plain, function, store)
    return TestRuns(tuple(words), verdict, cause, calls, differences, tuple(tracked), tuple(plain))


def _run(
    words: Sequence[str],
    environ: Mapping[str, str],
    report: Path,
    timeout_s: float,
    cwd: str | os.PathLike[str] | None,
) -> Run:
    options = f"{environ.get(_ADDOPTS, '')} --junit-xml={shlex.quote(str(report))}".strip()
    outcome = run_command(
        words,
        cwd=cwd,
        environment={**environ, _ADDOPTS: options},
        timeout_s=timeout_s,
        max_output_bytes=OUTPUT_BYTES,
    )
    return Run(outcome, _outcomes(report))


def _judged(
    tracked: Sequence[Run], plain: Sequence[Run], function: Named, store: Path
) -> tuple[TestsVerdict, str, tuple[str, ...], int]:
    """Return verdict, cause, differences, and how many calls were recorded."""
    first = tracked[0].outcome
    if first.status == "not_found":
        return "fail", f"The tests can't be run. {first.cause}", (), 0
    calls, others = _recorded(store, function)
    differences = tuple(_differences(tracked, plain))
    if differences:
        more = f" (and {len(differences) - _NAMED:,} more)" if len(differences) > _NAMED else ""
        told = "; ".join(differences[:_NAMED]) + more
        return (
            "rejected",
            f"The tests end differently with its calls recorded, which is rejected: {told}.",
            differences,
            calls,
        )
    bad = next((run.outcome for run in plain if not run.outcome.is_ok), None)
    if bad is not None:
        failed = next((f" {_failed(run.tests)}" for run in plain if run.outcome is bad), "")
        return "fail", f"The tests fail, with its calls recorded as without.{failed} {bad.cause}", (), calls
    if not calls:
        return "undecided", _why_not_called(function, others), (), 0
    return "pass", f"The tests pass, with {calls:,} of its calls recorded, and without.", (), calls


def _failed(tests: Mapping[str, str]) -> str:
    """Return which tests failed, in a sentence."""
    failed = [name for name, end in tests.items() if end == "failed"]
    if not failed:
        return ""
    more = f" and {len(failed) - _NAMED:,} more" if len(failed) > _NAMED else ""
    return f"Of {len(tests):,} failed: {', '.join(failed[:_NAMED])}{more}."


def _why_not_called(function: Named, others: int) -> str:
    name = f"{function.module}.{function.qualified_name}"
    if others:
        return (
            f"The tests called another version of {name} than the one that is audited; what they say is not about it."
        )
    return (
        f"The tests pass, but never called {name} while it was recorded; what they say is not about it. "
        "(They have to run by a Python that has otel-debugstore installed, import its module, and call it.)"
    )


def _differences(tracked: Sequence[Run], plain: Sequence[Run]) -> Iterator[str]:
    """Yield what ended with recording as it never did without."""
    ends = {_end(run.outcome) for run in plain}
    for run in tracked:
        if _end(run.outcome) not in ends:
            yield f"with it: {_short(run.outcome)}, without: {_short(plain[0].outcome)}"
            break
    if not all(run.tests for run in (*tracked, *plain)):
        return
    for test in dict.fromkeys(name for run in (*tracked, *plain) for name in run.tests):
        without = {run.tests.get(test, "not run") for run in plain}
        found = [run.tests.get(test, "not run") for run in tracked]
        other = next((end for end in found if end not in without), None)
        if other is not None:
            yield f"{test} {other} with it, {' or '.join(sorted(without))} without"


def _end(outcome: Outcome) -> tuple[str, int | None, int | None]:
    return outcome.status, outcome.exit_code, outcome.signal


def _short(outcome: Outcome) -> str:
    return outcome.cause.removeprefix("It ").rstrip(".")


def _outcomes(report: Path) -> dict[str, str]:
    """Return by test how it ended, of what pytest wrote; empty if it was not pytest."""
    try:
        if report.stat().st_size > _MAX_REPORT_BYTES:
            return {}
        cases = ElementTree.parse(report).iter("testcase")
        found: dict[str, str] = {}
        for case in cases:
            name = f"{case.get('classname', '')}::{case.get('name', '')}"
            ends = [_ENDS[child.tag] for child in case if child.tag in _ENDS]
            found[name] = max([found.get(name, "passed"), *ends], key=_WORST.index)
    except (OSError, ElementTree.ParseError):
        return {}
    return found


_ENDS: Final = {"failure": "failed", "error": "failed", "skipped": "skipped"}
_WORST: Final = ("passed", "skipped", "failed")


def _recorded(store: Path, function: Named) -> tuple[int, int]:
    """Return how many calls of a function were recorded, and how many of other code under its name."""
    from otel_debugstore_analysis.analysis import Analysis
    from otel_debugstore_analysis.auditor._values import COMPONENT, calls
    from otel_debugstore_analysis.query import EVERYTHING

    try:
        with Analysis(base_path=store, sessions=[_tracking.SESSION]) as analysis:
            groups = calls(analysis.engine, COMPONENT, EVERYTHING)
    except DebugStoreError:  # nothing was recorded at all
        return 0, 0
    ours = others = 0
    for (_, component, variant), processes in groups.items():
        many = sum(one.spans for one in processes)
        is_named = component.endswith(f"{function.module}.{function.qualified_name}")
        if variant == function.variant or (function.variant is None and is_named):
            ours += many
        elif is_named:
            others += many
    return ours, others


@contextmanager
def _folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="debugstore-tests-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
