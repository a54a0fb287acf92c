"""`debugstore audit`, and the tests of a component that an audit runs with its calls recorded and without."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from audited import calls, project, sealed
from commands import refused, run, run_well
from otel_debugstore_analysis.auditor import TestRuns, run_tests
from otel_debugstore_analysis.auditor._named import Named, named
from otel_debugstore_analysis.processes import MARK
from otel_debugstore_analysis.queue import OptimizationQueue
from recording import modules

PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
DOUBLE = "def double(value):\n    return 2 * value\n"
TEST_DOUBLE = "from maths import double\ndef test_double():\n    assert double(2) == 4\n"


@contextmanager
def checked_out(folder: Path, module: str = DOUBLE, tests: str = TEST_DOUBLE) -> Iterator[Named]:
    """Make a project, be in its folder, and give its function `double` as tests find it."""
    project(folder, module, tests, name="maths")
    before = Path.cwd()
    os.chdir(folder)
    try:
        with modules(folder):
            from maths import double  # type: ignore[import-not-found]

            found = named(double, "tool", _variant(double))
            assert isinstance(found, Named)
            yield found
    finally:
        os.chdir(before)


def _variant(function: Any) -> str | None:
    from otel_debugstore.code_identity import variant_of

    return variant_of(function)


def ended(runs: TestRuns) -> tuple[list[str], list[str]]:
    """Return how the runs with and without recording ended."""
    return [one.outcome.status for one in runs.tracked], [one.outcome.status for one in runs.plain]


class TestTests:
    def test_they_meet_the_recorded_function(self, tmp_path: Path) -> None:
        """The function that the tests call is the recorded one, in its process and in those that this starts."""
        tests = """
            import subprocess, sys
            from maths import double
            def test_double():
                assert double(2) == 4
                assert type(double).__name__ in ("TargetFunction", "function")
            def test_in_another_process():
                line = [sys.executable, "-c", "import maths; print(maths.double(3))"]
                said = subprocess.run(line, capture_output=True)
                assert (said.stdout, said.stderr) == (b"6\\n", b"")
        """
        with checked_out(tmp_path, tests=tests) as double:
            runs = run_tests(PYTEST, double)
        assert (runs.verdict, runs.recorded_calls) == ("pass", 2)
        assert ended(runs) == (["ok"], ["ok"])
        assert set(runs.tracked[0].tests.values()) == {"passed"}

    def test_it_is_not_recorded_without(self, tmp_path: Path) -> None:
        """The second run meets the plain function: tests that notice the difference are told from those that don't."""
        tests = """
            from maths import double
            def test_type():
                assert type(double).__name__ == "function"
            def test_value():
                assert double(2) == 4
        """
        with checked_out(tmp_path, tests=tests) as double:
            runs = run_tests(PYTEST, double)
        assert (runs.verdict, ended(runs)) == ("rejected", (["failed"], ["ok"]))
        assert any("test_type failed with it, passed without" in one for one in runs.differences)
        assert not any("test_value" in one for one in runs.differences)
        assert "which is rejected" in runs.cause

    def test_other_outcomes_with_one_exit_code(self, tmp_path: Path) -> None:
        """Another test that fails is a different outcome, though the exit code is the same."""
        tests = """
            from maths import double
            def test_one():
                assert type(double).__name__ == "function"
            def test_other():
                assert type(double).__name__ != "function"
        """
        with checked_out(tmp_path, tests=tests) as double:
            runs = run_tests(PYTEST, double)
        assert (runs.verdict, ended(runs), len(runs.differences)) == ("rejected", (["failed"], ["failed"]), 2)

    def test_tests_that_fail_anyway(self, tmp_path: Path) -> None:
        """Tests that fail with and without recording say nothing against it, and the component has not passed."""
        with checked_out(tmp_path, tests="def test_it():\n    assert 1 == 2\n") as double:
            runs = run_tests(PYTEST, double)
        assert (runs.verdict, ended(runs)) == ("fail", (["failed"], ["failed"]))
        assert "test_maths::test_it" in runs.cause

    def test_tests_that_never_call_it(self, tmp_path: Path) -> None:
        """Tests that pass without meeting the recorded function decide nothing, and it is said so."""
        with checked_out(tmp_path, tests="import maths\ndef test_it():\n    pass\n") as double:
            runs = run_tests(PYTEST, double)
        assert (runs.verdict, runs.recorded_calls) == ("undecided", 0)
        assert "never called maths.double" in runs.cause

    def test_tests_of_other_code(self, tmp_path: Path) -> None:
        """Tests that call another version of the function than the one audited decide nothing."""
        with checked_out(tmp_path) as double:
            runs = run_tests(PYTEST, double._replace(variant="0" * 16))
        assert runs.verdict == "undecided"
        assert "another version" in runs.cause

    @pytest.mark.slow
    def test_tests_that_end_now_so_now_so(self, tmp_path: Path) -> None:
        """With several iterations, a test that also fails without recording is not held against it."""
        tests = """
            import pathlib
            from maths import double
            def test_sometimes():
                assert double(2) == 4
                path = pathlib.Path("count")
                count = int(path.read_text()) if path.exists() else 0
                path.write_text(str(count + 1))
                assert count not in (0, 3)
        """
        with checked_out(tmp_path, tests=tests) as double:
            runs = run_tests(PYTEST, double, iterations=2)
        assert ended(runs) == (["failed", "ok"], ["ok", "failed"])
        assert runs.verdict == "fail"

    def test_any_command_of_python(self, tmp_path: Path) -> None:
        """It need not be pytest: unittest, or a script that ends with 0."""
        script = "import maths\nassert maths.double(1) == 2\n"
        with checked_out(tmp_path) as double:
            Path("check.py").write_text(script)
            runs = run_tests([sys.executable, "check.py"], double)
        assert (runs.verdict, runs.recorded_calls, runs.tracked[0].tests) == ("pass", 1, {})

    def test_no_such_command(self, tmp_path: Path) -> None:
        """A command that does not exist is run once, and the cause names it."""
        with checked_out(tmp_path) as double:
            runs = run_tests("no-such-program-anywhere tests", double)
        assert (runs.verdict, ended(runs)[0]) == ("fail", ["not_found"])
        assert "there is no program no-such-program-anywhere" in runs.cause

    def test_hanging_and_killed(self, tmp_path: Path) -> None:
        """Tests that hang are ended, with what they started; tests that are killed are told by the signal."""
        hangs = "import subprocess, sys, time\nsubprocess.Popen(['sleep', '600'])\ntime.sleep(600)\n"
        with checked_out(tmp_path) as double:
            Path("hang.py").write_text(hangs)
            Path("kill.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
            hung = run_tests([sys.executable, "hang.py"], double, timeout_s=1.5)
            killed = run_tests([sys.executable, "kill.py"], double)
        assert (hung.verdict, ended(hung)) == ("fail", (["timeout"], ["timeout"]))
        assert "longer than 1.5 s" in hung.cause
        assert hung.tracked[0].outcome.left_running == 1
        assert (killed.verdict, ended(killed)) == ("fail", (["killed"], ["killed"]))
        assert "SIGKILL" in killed.cause

    def test_hanging_with_recording_only(self, tmp_path: Path) -> None:
        """Tests that hang only where the component is recorded reject the recording."""
        script = "import maths, time\ntime.sleep(600 if type(maths.double).__name__ != 'function' else 0)\n"
        with checked_out(tmp_path) as double:
            Path("hang.py").write_text(script)
            runs = run_tests([sys.executable, "hang.py"], double, timeout_s=3)
        assert (runs.verdict, ended(runs)) == ("rejected", (["timeout"], ["ok"]))

    def test_output_is_kept(self, tmp_path: Path) -> None:
        """What the tests wrote is there, beginning and end of it where it is very much."""
        with checked_out(tmp_path) as double:
            Path("talk.py").write_text("print('first' + 'x' * 1_000_000 + 'last')\n")
            output = run_tests([sys.executable, "talk.py"], double).tracked[0].outcome.stdout
        assert output.head.startswith(b"first")
        assert output.tail.endswith(b"last\n")
        assert len(output.head) + len(output.tail) <= 100_000

    def test_their_environment(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """They see their own environment: their `sitecustomize`, their PYTHONPATH, and no session of ours."""
        monkeypatch.setenv("OTEL_DEBUGSTORE_SESSION", "ours")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "theirs"))
        (tmp_path / "theirs").mkdir()
        (tmp_path / "theirs" / "sitecustomize.py").write_text("import builtins\nbuiltins.theirs = True\n")
        script = """
import os, sys, maths
assert maths.double(1) == 2
assert theirs
assert not any("auditor" in entry for entry in sys.path), sys.path
assert os.environ["OTEL_DEBUGSTORE_SESSION"] != "ours"
"""
        with checked_out(tmp_path) as double:
            Path("check.py").write_text(script)
            runs = run_tests([sys.executable, "check.py"], double)
        assert (runs.verdict, runs.recorded_calls) == ("pass", 1), runs.tracked[0].outcome.stderr.text
        assert MARK not in os.environ

    def test_nothing_of_it_stays(self, tmp_path: Path) -> None:
        """The folder of the project has no file that the tests did not write, and no session was made."""
        with checked_out(tmp_path) as double:
            before = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
            run_tests(PYTEST, double)
            after = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
        assert after == before

    def test_what_tests_can_not_find(self) -> None:
        """A function that was made in another one has no name that tests could find it by: it is said so."""

        def inner() -> None: ...

        for function in (inner, lambda: None, object()):
            why = named(function, "tool", None)
            assert isinstance(why, str)
            assert "The tests were not run" in why
        assert run_tests(["true"], "why").verdict == "undecided"


@pytest.fixture
def audited(tmp_path: Path) -> Path:
    """A session with a component that fails, one that passes, and one that is undecided."""
    return sealed(tmp_path, calls([2_000] * 100, "slow", failed=50) + calls([1] * 100, "good") + calls([1], "few"))


def audit(base_path: Path, *arguments: str) -> Any:
    return run("--data-dir", base_path, "audit", *arguments)


class TestCommand:
    def test_exit_codes(self, audited: Path) -> None:
        """1 where a limit is not kept; 0 where all are, also if some are undecided, but for `--strict`."""
        assert audit(audited).exit_code == 1
        assert audit(audited, "good").exit_code == 0
        assert audit(audited, "good", "few").exit_code == 0
        assert audit(audited, "few", "--strict").exit_code == 1

    def test_for_people(self, audited: Path) -> None:
        """A row a component that does not pass, and one line that counts all of them."""
        result = audit(audited)
        slow, few = result.stdout.splitlines()[1:]
        assert slow.startswith("fail")
        assert "p95 of the duration is 2.00 s, the limit is 1.00 s" in slow
        assert few.startswith("undecided")
        assert "3 audited: 1 do not keep their limits, 1 are undecided, 1 keep them." in result.stderr

    def test_json(self, audited: Path) -> None:
        """All that is known, for programs."""
        found = json.loads(audit(audited, "--format", "json").stdout)
        assert found["counts"] == {"fail": 1, "undecided": 1, "pass": 1}
        slow = found["results"][0]
        assert (slow["component"], slow["verdict"], slow["passed"]) == ("slow", "fail", False)
        assert [check["name"] for check in slow["checks"]] == ["p95_ns", "success_rate"]
        assert slow["checks"][1]["measured"] == pytest.approx(0.5)

    def test_csv_and_markdown(self, audited: Path) -> None:
        """A row a limit as CSV, a table as Markdown."""
        lines = audit(audited, "--format", "csv").stdout.splitlines()
        assert lines[0].startswith("verdict,component,layer,figure,measured,limit")
        assert len(lines) == 7
        assert "| fail | slow | tool |" in audit(audited, "--format", "markdown").stdout

    def test_junit(self, audited: Path) -> None:
        """A test case a component: a failure, a skipped one, a good one."""
        suite = ElementTree.fromstring(audit(audited, "--format", "junit").stdout)
        assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
        failure = suite.find("testcase[@name='slow']/failure")
        assert failure is not None
        assert "p95 of the duration" in str(failure.get("message"))
        assert suite.find("testcase[@name='few']/skipped") is not None

    def test_github(self, audited: Path) -> None:
        """An error for what fails, a notice for what is undecided, and nothing for what is good."""
        lines = audit(audited, "--format", "github").stdout.splitlines()
        assert [line.split(" ")[0] for line in lines] == ["::error", "::notice"]
        assert lines[0].startswith("::error title=slow (tool)::p95 of the duration is 2.00 s")

    def test_names_that_would_be_commands(self, tmp_path: Path) -> None:
        """A recorded name can't end a line or a command of GitHub's, and steers no terminal."""
        name = "x\n::error::y,file=z\x1b[2J%0A"
        sealed(tmp_path, calls([2_000] * 10, name))
        for output_format in ("github", "junit", "table", "markdown"):
            said = audit(tmp_path, "--format", output_format).stdout
            assert "\x1b" not in said
            assert not any(line.startswith("::error::y") for line in said.splitlines())

    def test_the_queue(self, audited: Path) -> None:
        """What fails is in the queue once, and not with `--no-queue`."""
        audit(audited, "--no-queue")
        assert OptimizationQueue(audited).items() == []
        audit(audited)
        audit(audited, "--all-sessions")
        (item,) = OptimizationQueue(audited).items()
        assert (item.component, item.layer, item.state) == ("slow", "tool", "open")
        assert item.measured["p95_ns"] == pytest.approx(2e9)

    def test_limits_from_pyproject(self, audited: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The pyproject.toml of the working directory counts, or the one that is named."""
        monkeypatch.chdir(audited)
        text = '[tool.otel-debugstore.thresholds.component."*"]\nmax-duration-ms = 5000\nmin-success-rate = 0.1\n'
        Path("pyproject.toml").write_text(text)
        assert audit(audited, "--format", "json", "--no-queue").exit_code == 0
        Path("other.toml").write_text(text.replace("5000", "0"))
        found = json.loads(audit(audited, "--pyproject", "other.toml", "--format", "json", "--no-queue").stdout)
        assert found["counts"]["fail"] == 2

    def test_refusals(self, audited: Path) -> None:
        """A component that is not there, limits that are none, a command that needs a shell, tests of several."""
        (audited / "bad.toml").write_text("[tool.otel-debugstore.thresholds.layer.tool]\nmax-p95-ms = -1\n")
        assert "No call of a component nobody" in refused("--data-dir", audited, "audit", "nobody")
        assert "max_p95_ms can't be -1" in refused("--data-dir", audited, "audit", "--pyproject", audited / "bad.toml")
        assert "needs a shell" in refused("--data-dir", audited, "audit", "slow", "--test-command", "a | b")
        assert "about one component" in refused("--data-dir", audited, "audit", "--test-command", "true")

    def test_tests_of_a_component(self, tmp_path: Path) -> None:
        """`--test-command` runs the tests of a recorded function, found by its code; a command that is not there: 1."""
        program = "import maths, otel_debugstore as o\no.configure('s')\nf = o.tool('double')(maths.double)\n"
        with checked_out(tmp_path):
            Path("program.py").write_text(program + "for n in range(400): f(n)\n")
            import subprocess

            subprocess.run([sys.executable, "program.py"], check=True)
            line = " ".join(PYTEST)
            assert "pass" in run_well("audit", "double", "--test-command", line)
            result = run("audit", "double", "--test-command", "no-such-program-anywhere", "--format", "json")
            assert result.exit_code == 1
            assert "there is no program" in json.loads(result.stdout)["results"][0]["tests"]["cause"]
            assert OptimizationQueue("debug_data").items() == []

    def test_a_component_without_code(self, audited: Path) -> None:
        """Where no code was recorded the tests can't be run with its calls recorded: that is said, not passed over."""
        found = json.loads(audit(audited, "good", "--test-command", "true", "--format", "json").stdout)
        assert found["results"][0]["verdict"] == "undecided"
        assert "which function 'good' is was not recorded" in found["results"][0]["cause"]
