"""What optimizers can't do: change the tests that judge them, reach the project, share an item, or leave it stuck."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from commands import DEBUGSTORE, environment, run
from optimized import FAST, LOOP, PYTEST, Proposes, changed, make_project, worked_on
from otel_debugstore_analysis.optimizer import (
    Candidate,
    CommandOptimizer,
    OptimizeOptions,
    OptimizerError,
    Task,
    optimize,
)
from otel_debugstore_analysis.optimizer.scratch import Scratch
from otel_debugstore_analysis.optimizer.testing import command_in_copy, decides, said
from otel_debugstore_analysis.processes import Outcome
from otel_debugstore_analysis.processes.outcome import Output
from otel_debugstore_analysis.queue import ClaimedError, Code, Finding, OptimizationQueue, QueueError, Violation
from replayed import QUICK, contents, queued


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with tests and a recorded session."""
    return make_project(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def project(recording: Path, tmp_path: Path) -> Path:
    """A copy of it, with a queue of its own."""
    return Path(shutil.copytree(recording, tmp_path / "shop"))


class Changes:
    """An optimizer that changes these files."""

    name = "planted"

    def __init__(self, **files: str | None) -> None:
        self._files = {name.replace("__", "/") + ".py": text for name, text in files.items()}

    def propose(self, task: Task) -> Sequence[Candidate]:
        return [Candidate("planted", self._files)]


BREAKING = ("def rate(country):", 'def rate(country):\n    """New."""')


@pytest.mark.slow
def test_tests_are_judges(project: Path) -> None:
    """What a candidate changes of the tests or their settings is left out: it fails the tests that it took away."""
    nothing = "def test_nothing():\n    pass\n"
    breaking = changed(project, *BREAKING)
    for others in (
        {"tests__test_prices": nothing},
        {"tests__test_prices": None},
        {"conftest": "collect_ignore = ['tests']"},
    ):
        found = worked_on(project, Changes(prices=breaking, **others))
        (attempt,) = found.attempts
        assert "The tests fail with it" in attempt.why
        assert "was left out: tests and their settings stay as they are" in attempt.why
        assert list(attempt.candidate.files) == ["prices.py"]
        assert found.item.history[-1].what == f"rejected: {attempt.why}"
    (attempt,) = worked_on(project, Changes(tests__test_prices=nothing)).attempts
    assert attempt.why.startswith("It changes no code.")


def test_tests_behind_a_link(project: Path) -> None:
    """A link to a test is that test."""
    (project / "other.py").symlink_to("tests/test_prices.py")
    (attempt,) = worked_on(project, Changes(prices=changed(project, *BREAKING), other="")).attempts
    assert "The tests fail with it" in attempt.why
    assert "other.py was left out" in attempt.why


@pytest.mark.parametrize(
    ("name", "component", "command", "is_one"),
    [
        ("tests/data/prices.json", "prices.py", "pytest", True),
        ("shop/test_prices.py", "shop/prices.py", "pytest", True),
        ("shop/prices_test.py", "shop/prices.py", "pytest", True),
        ("shop/conftest.py", "shop/prices.py", "pytest", True),
        ("pyproject.toml", "prices.py", "pytest", True),
        ("pytest.py", "prices.py", "python -m pytest -q", True),
        ("checks/all.py", "prices.py", "python -m checks.all", True),
        ("checks/all.py", "prices.py", "python -m unittest checks", True),
        ("check.sh", "prices.py", "bash ./check.sh", True),
        ("check.py", "prices.py", "pytest check.py::test_one", True),
        ("check.py", "prices.py", "bash -c 'python /shop/check.py'", True),
        ("check.py", "prices.py", "python /other/check.py", False),
        ("cfg/t.ini", "prices.py", "pytest --config-file=cfg/t.ini", True),
        ("testtools.py", "prices.py", "python -m unittest", True),
        ("check_it.py", "prices.py", "bash -c 'python check_it.py'", True),
        ("shop/rates.py", "prices.py", "pytest --cov=shop tests", False),
        ("python/rates.py", "src/prices.py", "python -m pytest", False),
        ("shop/rates.py", None, "pytest --tb=", False),
        ("src/prices.py", "src/prices.py", "pytest src", False),
        ("src/rates.py", "src/prices.py", "pytest src .", False),
        ("tests/shop/rates.py", "tests/shop/prices.py", "pytest", False),
        ("test_prices.py", "test_prices.py", "pytest", False),
        ("contest.py", "prices.py", "pytest", False),
        ("latest/prices.py", "prices.py", "pytest", False),
        ("shop/rates.py", None, "", False),
    ],
)
def test_what_decides(name: str, component: str | None, command: str, is_one: bool) -> None:
    """Tests by name, by folder and by the command, and settings; not the component, nor what lies beside it."""
    assert decides(name, component, shlex.split(command), Path("/shop")) is is_one


def test_commands_stay_in_the_copy(tmp_path: Path) -> None:
    """What a command names of the project is named in the copy, wherever it goes; what is not there stays."""
    project = tmp_path.resolve() / "my shop"
    (project / "env" / "bin").mkdir(parents=True)
    (project / "env" / "pyvenv.cfg").touch()
    (project / "tests").mkdir()
    (project / "tests" / "test_a.py").touch()
    (project / "ignored").mkdir()
    (project / "ignored" / "model.txt").touch()
    (tmp_path / "link").symlink_to(project)
    link = tmp_path.resolve() / "link"
    with Scratch(project, (project / "ignored",)) as scratch:
        copy = scratch.folder
        in_copy = {
            f"{project}/tests/test_a.py::t": f"{copy}/tests/test_a.py::t",
            f"--rootdir={project}": f"--rootdir={copy}",
            f"-c{project}/x.ini": f"-c{copy}/x.ini",
            f"cd tests && pytest '{project}/tests'": f"cd tests && pytest '{copy}/tests'",
            f"A=/x:{project}/src:/y": f"A=/x:{copy}/src:/y",
            f"{link}/tests": f"{copy}/tests",
            f"@{project}/words": f"@{copy}/words",
            f"sqlite:///{project}/new.db": f"sqlite:///{copy}/new.db",
            f"file://{project}/tests": f"file://{copy}/tests",
        }
        elsewhere = (
            *(f"{project}2/tests", f"/mnt{project}/tests", f"http://host{project}/tests", "tests", "a//b", "/"),
            *(f"{project}/env/bin/python", f"{project}/.venv/bin/pytest", f"{project}/ignored/model.txt"),
        )
        for word, named in (*in_copy.items(), *zip(elsewhere, elsewhere, strict=True)):
            assert command_in_copy(["bash", "-c", word], scratch)[-1] == named


def test_what_failed_tests_say() -> None:
    """The last one that failed, and the exception: in full, though pytest cuts it or leaves it out."""
    for printed, why in (
        (
            "E   ModuleNotFoundError: No module named 'x'\nERROR tests/a.py\n",
            "ERROR tests/a.py - ModuleNotFoundError: No module named 'x'",
        ),
        ("E     File 'a'\nE       (\nE   SyntaxError: no\n\nERROR a.py", "ERROR a.py - SyntaxError: no"),
        (
            "E   first\n\nE       assert 1 == 2\nE        +  where 1\n\nFAILED a.py::t - ass...\n1 failed",
            "FAILED a.py::t - assert 1 == 2",
        ),
        ("E   another\n\nFAILED a.py::t - assert 1 == 2\n", "FAILED a.py::t - assert 1 == 2"),
        ("E   RuntimeError: no\n", "RuntimeError: no"),
        ("FAILED (failures=1)\n", "FAILED (failures=1)"),
        ("no\nwell\n", "well"),
        ("", ""),
    ):
        assert said(Outcome((), "failed", "Why.", stdout=Output(printed.encode()))) == f"Why. {why}".strip()


def test_the_package_names_the_copy(project: Path) -> None:
    """An optimizer that edits the file that the package names edits its copy, wherever the program was recorded."""
    before = contents(project)
    code = Code("def invoice(): ...", "prices.invoice", str(project / "prices.py"), 16)
    item = OptimizationQueue(project / "debug_data").put(
        Finding("prices.invoice", "tool", violations=[Violation("p95_ns", 2e6, 1e6)], code=code)
    )
    agent = """
        import re, sys
        path = re.search(r"`([^`]*prices[.]py):16`", sys.stdin.read())[1]
        with open(path, "a") as file:
            file.write("broken(")
    """
    optimizer = CommandOptimizer([sys.executable, "-c", textwrap.dedent(agent)])
    options = OptimizeOptions(project, replay=QUICK)
    found = optimize(project / "debug_data", item.id, optimizer, options=options)
    assert list(found.attempts[0].candidate.files) == ["prices.py"]
    assert contents(project) == before


def test_a_project_that_changes_meanwhile(project: Path) -> None:
    """What somebody saves in the project while an optimizer works is none of its changes."""

    class Works:
        name = "works"

        def propose(self, task: Task) -> Sequence[Candidate]:
            (project / "prices.py").write_text("saved = True\n")
            (project / "new.py").write_text("saved = True\n")
            assert task.scratch.changes() == {}
            with task.scratch.another() as other:
                assert not (other.folder / "new.py").exists()
            return []

    assert worked_on(project, Works()).item.state == "open"


@pytest.mark.parametrize("with_git", [False, True])
def test_links(tmp_path: Path, with_git: bool) -> None:
    """What lies in the project is linked within the copy; what leads out is copied, and writing to it stays inside."""
    project, outside = tmp_path / "project", tmp_path / "outside"
    for path in (project / "a.py", project / "pkg" / "b.py", outside / "c.py", outside / "sub" / "d.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    links: dict[str, str | Path] = {
        "absolute.py": project / "a.py",
        "relative.py": "a.py",
        "folder": "pkg",
        "out.py": outside / "c.py",
        "pkg/up.py": "../../outside/c.py",
        "chain.py": "pkg/up.py",
        "far": outside,
        "all": tmp_path,
        "dangling": "nothing",
        "loop": "loop",
    }
    for name, target in links.items():
        (project / name).symlink_to(target)
    if with_git:
        subprocess.run(["git", "init", "-q", str(project)], check=True)
    with Scratch(project) as scratch:
        assert scratch.changes() == {}
        copy = scratch.folder
        linked = {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_symlink()}
        assert linked == {"absolute.py", "relative.py", "folder"}
        assert all(path.resolve().is_relative_to(copy) for path in copy.rglob("*"))
        assert (copy / "far" / "sub" / "d.py").read_text() == "d.py"
        assert not any((copy / name).exists() for name in ("all", "dangling", "loop"))
        for name in ("absolute.py", "folder/b.py", "out.py", "pkg/up.py", "chain.py", "far/c.py"):
            (copy / name).write_text("changed")
        names = {"a.py", "pkg/b.py", "out.py", "pkg/up.py", "chain.py", "far/c.py"}
        assert scratch.changes() == dict.fromkeys(names, "changed")
    assert (project / "a.py").read_text() == "a.py"
    assert (outside / "c.py").read_text() == "c.py"


def test_two_runs_exclude_each_other(project: Path) -> None:
    """Also of the same optimizer: the second is refused, and takes nothing from the first."""

    class Twice(Proposes):
        def propose(self, task: Task) -> Sequence[Candidate]:
            with pytest.raises(ClaimedError, match="is claimed by 'planted "):
                worked_on(project, Proposes("x"))
            assert OptimizationQueue(project / "debug_data").get(task.item.id).state == "claimed"
            return []

    found = worked_on(project, Twice())
    assert [event.state for event in found.item.history if event.by] == ["claimed", "open"]


STOPS = f"""
    import os, signal, sys, time
    if {FAST!r} in open("prices.py").read():
        os.kill(int(open(sys.argv[2]).read()), int(sys.argv[1]))
        time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_is_stopped(project: Path, tmp_path: Path, number: int) -> None:
    """Ctrl-C and the like while a candidate is tested: the item is open again, and no copy is left."""
    (project / "stops.py").write_text(textwrap.dedent(STOPS))
    item = queued(project / "debug_data", "prices.invoice")
    (tmp_path / "fast.py").write_text(changed(project, LOOP, f"    return {FAST}\n"))
    (tmp_path / "temporary").mkdir()
    pid = str(tmp_path / "pid")
    tests = f"{sys.executable} stops.py {int(number)} {pid}"
    command = [str(DEBUGSTORE), "optimize", item.id, "--tests", tests, "--with", f"cat {tmp_path / 'fast.py'}"]
    done = subprocess.run(
        ["sh", "-c", 'echo $$ > "$0" && exec "$@"', pid, *command],
        cwd=project,
        env=environment(TMPDIR=str(tmp_path / "temporary")),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    found = OptimizationQueue(project / "debug_data").get(item.id)
    assert [event.state for event in found.history] == ["open", "claimed", "proposed", "open"]
    assert found.lease is None
    assert list((tmp_path / "temporary").iterdir()) == []


def test_an_error_after_a_proposal(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The item is open again, and somebody else may work on it."""

    def fails(*_: object, **__: object) -> None:
        raise OptimizerError("no room for another copy")

    class Fails(Proposes):
        def propose(self, task: Task) -> Sequence[Candidate]:
            monkeypatch.setattr(Scratch, "another", fails)
            return super().propose(task)

    item = queued(project / "debug_data", "prices.invoice")
    with pytest.raises(OptimizerError, match="no room"):
        optimize(project / "debug_data", item.id, Fails("x"), options=OptimizeOptions(project, replay=QUICK))
    found = OptimizationQueue(project / "debug_data").claim(item.id, "somebody else")
    assert [event.state for event in found.history] == ["open", "claimed", "proposed", "open", "claimed"]


@pytest.mark.slow
def test_a_component_under_another_name(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item whose calls are recorded under another name is optimized and replayed by its own."""
    base_path = project / "debug_data"
    violation = Violation("p95_ns", 2e6, 1e6)
    OptimizationQueue(base_path).put(
        Finding("billing", "tool", violations=[violation], tests=PYTEST, recorded_as="prices.undeclared")
    )
    wrong = changed(
        project, "def undeclared(country):\n    return rate(country)", "def undeclared(country):\n    return 1"
    )
    for which in ("billing", "prices.undeclared"):
        (attempt,) = optimize(
            base_path, which, Proposes(wrong), options=OptimizeOptions(project, replay=QUICK)
        ).attempts
        assert attempt.replay
        assert attempt.replay.verdict == "wrong"
    monkeypatch.chdir(project)
    done = run("replay", "billing", "--candidate", "prices:undeclared", "--check-only", "--format", "json")
    assert done.exit_code == 0, done.output
    assert '"candidate": "prices:undeclared"' in done.stdout
    with pytest.raises(QueueError):
        OptimizationQueue(base_path).get("nothing")
