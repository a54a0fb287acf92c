"""The demo program: useful without us, unchanged by being recorded, and recorded whole."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from instrumented import run_instrumented, run_python
from otel_debugstore_exporters.batch import SpanRecord
from stored import stored_spans

EXAMPLES = Path(__file__).parents[1] / "examples"
SURVEY = EXAMPLES / "stdlib_survey.py"
PACKAGES = ("json", "asyncio", "dataclasses", "statistics")
ERROR = 2


def test_examples_hold_no_code_of_ours() -> None:
    """An example imports the standard library and the OpenTelemetry API, nothing else."""
    for path in EXAMPLES.glob("*.py"):
        foreign = imported(path) - sys.stdlib_module_names
        assert foreign == {"opentelemetry"}
        assert "opentelemetry.sdk" not in path.read_text()


def imported(path: Path) -> set[str]:
    """Return the top-level packages that a source imports."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {name.partition(".")[0] for name in names}


def test_survey_without_instrumentation(tmp_path: Path) -> None:
    """On its own the program prints its survey, the same every time, and writes no file."""
    done = run_python(SURVEY, *PACKAGES, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.match(r"\d+ modules, [\d,]+ lines, [\d,]+ tokens, [\d,]+ functions\n", done.stdout)
    assert run_python(SURVEY, *PACKAGES, folder=tmp_path).stdout == done.stdout
    assert list(tmp_path.iterdir()) == []


def test_survey_of_nothing(tmp_path: Path) -> None:
    """A package that does not exist is an error of one line."""
    done = run_python(SURVEY, "no_such_package", folder=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(r"No sources of no_such_package in .*\n", done.stderr)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[SpanRecord]]:
    """What the survey of some packages printed under `opentelemetry-instrument`, and its spans."""
    folder = tmp_path_factory.mktemp("survey")
    done = run_instrumented(SURVEY, *PACKAGES, folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout, stored_spans(folder / "debug_data")


def named(spans: list[SpanRecord], name: str) -> list[SpanRecord]:
    return [span for span in spans if span.name == name]


def test_recording_does_not_change_the_survey(recorded: tuple[str, list[SpanRecord]], tmp_path: Path) -> None:
    """With and without instrumentation the program prints the same."""
    assert recorded[0] == run_python(SURVEY, *PACKAGES, folder=tmp_path).stdout


def test_every_tool_of_every_module_is_recorded(recorded: tuple[str, list[SpanRecord]]) -> None:
    """Each module has one span for every tool, below the workflow of its package, from threads too."""
    printed, spans = recorded
    modules = named(spans, "survey_module")
    assert len(modules) == int(printed.split()[0])
    packages = {span.span_id for span in named(spans, "invoke_workflow survey_package")}
    assert len(packages) == len(PACKAGES)
    assert {module.parent_id for module in modules} == packages
    for tool in (
        "read_source",
        "parse",
        "check_old_syntax",
        "count_tokens",
        "count_repeated_lines",
        "find_imports",
    ):
        calls = named(spans, f"execute_tool {tool}")
        assert {call.parent_id for call in calls} == {module.span_id for module in modules}
        assert len(calls) == len(modules)


def test_the_failing_tool_fails_in_the_record(recorded: tuple[str, list[SpanRecord]]) -> None:
    """As many spans have failed, with a SyntaxError, as the survey says modules have new syntax."""
    printed, spans = recorded
    failed = [span for span in spans if span.status_code == ERROR]
    (said,) = re.findall(r"(\d+) modules need a Python newer", printed)
    assert len(failed) == int(said) > 0
    assert {span.name for span in failed} == {"execute_tool check_old_syntax"}
    assert {span.attributes["error.type"] for span in failed} == {"SyntaxError"}


def test_the_child_process_continues_the_trace(recorded: tuple[str, list[SpanRecord]]) -> None:
    """What the child process did is below the workflow that started it, and said to be of another process."""
    _, spans = recorded
    (parent,) = named(spans, "invoke_workflow rank_packages")
    (child,) = named(spans, "rank_in_child")
    assert (child.trace_id, child.parent_id) == (parent.trace_id, parent.span_id)
    assert child.pid != parent.pid
    assert len(named(spans, "execute_tool reach")) == len(PACKAGES)


@pytest.mark.slow
def test_the_whole_survey_is_recorded(tmp_path: Path) -> None:
    """The whole library: thousands of spans, none lost, and the same result as without instrumentation."""
    done = run_instrumented(SURVEY, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == run_python(SURVEY, folder=tmp_path).stdout
    spans = stored_spans(tmp_path / "debug_data")
    modules = int(done.stdout.split()[0])
    assert len(named(spans, "survey_module")) == len(named(spans, "execute_tool parse")) == modules > 300
