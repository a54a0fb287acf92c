"""The loop: what optimizers propose is tried in a scratch copy, and only what is proven closes an item."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from commands import run
from optimized import FAST, LOOP, Proposes, changed, make_project, worked_on
from otel_debugstore.errors import NotReplayableError
from otel_debugstore_analysis.optimizer import (
    Candidate,
    CommandOptimizer,
    MechanicalOptimizer,
    OptimizeOptions,
    OptimizerError,
    Task,
    find_optimizer,
    optimize,
)
from otel_debugstore_analysis.optimizer.mechanical import cache_that_pays
from otel_debugstore_analysis.optimizer.scratch import Scratch
from otel_debugstore_analysis.queue import OptimizationQueue, QueueError
from replayed import QUICK, contents, queued, recorded


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with tests and a recorded session."""
    return make_project(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def project(recording: Path, tmp_path: Path) -> Path:
    """The same elsewhere, as on another machine, with a queue of its own."""
    return Path(shutil.copytree(recording, tmp_path / "shop"))


@pytest.mark.slow
def test_what_is_wrong_is_rejected(project: Path) -> None:
    """Another output, code that is none, and failing tests: each is rejected with its reason, and the project stays."""
    before = contents(project)
    wrong = changed(project, "total += item * rate(country)", "total += item * rate(country) + (item > 9)")
    no_code = changed(project, LOOP, "    return (\n")
    breaking = changed(project, "def rate(country):", 'def rate(country):\n    """New."""')
    found = worked_on(project, Proposes(wrong, no_code, breaking))
    assert [attempt.is_proven for attempt in found.attempts] == [False] * 3
    wrong_, no_code_, breaking_ = found.attempts
    assert wrong_.replay
    assert wrong_.replay.verdict == "wrong"
    assert wrong_.tests
    assert wrong_.tests.is_ok
    assert "can't be applied" in no_code_.why
    assert "The tests fail with it" in breaking_.why
    assert breaking_.tests
    assert (breaking_.tests.status, breaking_.replay) == ("failed", None)
    assert found.item.state == "rejected"
    assert found.patch is None
    assert contents(project) == before
    assert [why for why in (str(change) for change in found.item.history) if "The tests fail with it" in why]


@pytest.mark.slow
def test_what_is_faster_is_proven(project: Path) -> None:
    """A slower candidate is rejected, the faster one after it proven; its patch is written, the project left alone."""
    before = contents(project)
    slow = changed(project, LOOP, LOOP.replace("rate(country)", "(rate(country), rate(country))[0]"))
    fast = changed(project, LOOP, f"    return {FAST}\n")
    optimizer = Proposes(slow, fast)
    found = worked_on(project, optimizer)
    slower, faster = found.attempts
    assert (slower.is_proven, faster.is_proven, found.item.state) == (False, True, "proven")
    assert slower.replay
    assert slower.replay.verdict == "slower"
    assert faster.replay
    assert faster.replay.comparison.ratio < 0.5
    assert found.item.evidence
    assert found.item.evidence.checked == faster.replay.right > 0
    assert found.patch
    assert f"+    return {FAST}" in found.patch.read_text()
    assert contents(project) == before
    assert "prices.invoice" in optimizer.tasks[0].package
    with pytest.raises(QueueError):
        optimize(project / "debug_data", found.item.id, optimizer)


@pytest.mark.slow
def test_a_command_as_an_optimizer(project: Path) -> None:
    """It reads the package and writes code, or edits its directory; what it proves is applied when that is asked."""
    writes = f"""
        import sys
        assert "prices.invoice" in sys.stdin.read()
        print("Here you are:\\n```python\\ndef invoice(country, items):\\n    return {FAST}\\n```\\nDone.")
    """
    (project.parent / "agent.py").write_text(textwrap.dedent(writes))
    optimizer = CommandOptimizer([sys.executable, str(project.parent / "agent.py")])
    found = worked_on(project, optimizer, apply=True)
    assert found.proven, found.attempts
    assert found.is_applied
    applied = (project / "prices.py").read_text()
    assert f"@tool(pure=True)\ndef invoice(country, items):\n    return {FAST}\n" in applied
    assert "def rate" in applied


def test_commands_that_do_not_help(project: Path) -> None:
    """One that fails, hangs, is not there or writes nonsense: an error that says so; the item is open again."""
    before = contents(project)
    for argv, timeout_s, said in (
        (["no-such-command-at-all"], 5, "could not do its work"),
        ([sys.executable, "-c", "import time; time.sleep(60)"], 1, "ran longer than 1 s"),
        ([sys.executable, "-c", "raise SystemExit('no idea')"], 5, "no idea"),
        ([sys.executable, "-c", "print('I would cache it.')"], 5, "neither a patch nor a Python module, .* line 1"),
        ([sys.executable, "-c", "print('--- a/x\\n+++ b/x\\n@@ -1 +1 @@\\n-a\\n+b')"], 5, "x, which is not there"),
    ):
        with pytest.raises(OptimizerError, match=said):
            worked_on(project, CommandOptimizer(argv, timeout_s))
        assert OptimizationQueue(project / "debug_data").get("prices.invoice").state == "open"
    found = worked_on(project, CommandOptimizer([sys.executable, "-c", ""]))
    assert (found.attempts, found.item.state) == ((), "open")
    assert contents(project) == before


def test_a_command_that_edits(project: Path) -> None:
    """What it changed in its working directory, a scratch copy, is its candidate."""
    program = "from pathlib import Path; p = Path('prices.py'); p.write_text(p.read_text() + 'broken(')"
    found = worked_on(project, CommandOptimizer([sys.executable, "-c", program]))
    assert "can't be applied" in found.attempts[0].why
    assert list(found.attempts[0].candidate.files) == ["prices.py"]


def test_tests_that_fail_anyway(project: Path) -> None:
    """They prove nothing: nothing is tried, and the item is open again."""
    (project / "tests" / "test_more.py").write_text("def test_more():\n    assert False\n")
    with pytest.raises(OptimizerError, match="The tests fail without any change"):
        worked_on(project, Proposes("x"))
    assert OptimizationQueue(project / "debug_data").get("prices.invoice").state == "open"


def test_nothing_runs_that_may_not(project: Path) -> None:
    """A component of which nothing is declared is worked on only by its own name."""
    base_path = project / "debug_data"
    item = queued(base_path, "prices.undeclared")
    options = OptimizeOptions(project=project, replay=QUICK)
    with pytest.raises(NotReplayableError, match="Nothing says"):
        optimize(base_path, item.id, Proposes(), options=options)
    assert optimize(base_path, "prices.undeclared", Proposes(), options=options).item.state == "open"


def test_code_elsewhere(project: Path, tmp_path: Path) -> None:
    """Code that is not below the project's directory is refused, with what to do."""
    (tmp_path / "other").mkdir()
    with pytest.raises(OptimizerError, match="is not below"):
        optimize(
            project / "debug_data",
            queued(project / "debug_data", "prices.invoice").id,
            Proposes("x"),
            options=OptimizeOptions(project=tmp_path / "other", replay=QUICK),
        )


def test_when_a_cache_pays(project: Path) -> None:
    """Inputs that came again, at a cost; equal results each time, which nobody can change."""
    base_path = project / "debug_data"
    cache = cache_that_pays(recorded(base_path, "prices.impure").calls)
    assert cache is not None
    assert cache.share > 0.1
    assert cache.max_size == 128
    assert cache_that_pays(recorded(base_path, "prices.fickle").calls) is None
    assert cache_that_pays(recorded(base_path, "prices.listed").calls) is None
    assert cache_that_pays(recorded(base_path, "prices.invoice").calls[:5]) is None


def test_a_cache_on_a_busy_machine(project: Path) -> None:
    """A call that waited for the processor for a second hides nothing of what the others would have saved."""
    first, *others = recorded(project / "debug_data", "prices.impure").calls
    assert cache_that_pays([first._replace(duration_ns=10**9), *others])


def test_a_cache_of_what_keeps_its_results(project: Path) -> None:
    """It saves nothing of what first calls take, where for most inputs the others take next to nothing."""
    calls = recorded(project / "debug_data", "prices.impure").calls
    seen: set[str] = set()
    kept = []
    for call in calls:
        kept.append(call._replace(duration_ns=5_000 if call.input.digest in seen else 10**9))
        seen.add(call.input.digest)
    assert 1 < len(seen) < len(calls) / 2
    assert cache_that_pays(kept) is None


def test_mechanical_proposals(project: Path) -> None:
    """Only of what is declared pure, and only where it pays, however long calls waited for the processor.

    CPU time is no measure where it is not known of all.
    """

    class Noted(MechanicalOptimizer):
        found: Sequence[Candidate] = ()
        unknown: Sequence[Candidate] = ()

        def propose(self, task: Task) -> Sequence[Candidate]:
            first, *others = [call._replace(duration_ns=call.duration_ns + 10**9) for call in task.recorded.calls]
            self.found = super().propose(replace(task, recorded=replace(task.recorded, calls=(first, *others))))
            calls = (first._replace(cpu_ns=None), *others)
            self.unknown = super().propose(replace(task, recorded=replace(task.recorded, calls=calls)))
            return []

    titles = {}
    for component in ("invoice", "impure", "fickle", "listed"):
        optimizer = Noted()
        worked_on(project, optimizer, f"prices.{component}")
        titles[component] = [re.sub(r"\d+%", "N%", candidate.title) for candidate in optimizer.found]
        assert not optimizer.unknown
    said = "call rate once in invoice: N% of its CPU time went to the same calls"
    assert titles == {"invoice": [said], "impure": [], "fickle": [], "listed": []}


@pytest.mark.slow
def test_files_with_other_ends_of_lines(project: Path) -> None:
    """The patch of a file whose lines end as those of Windows is one that git applies, and changes those lines only."""
    path = project / "prices.py"
    fast = changed(project, LOOP, f"    return {FAST}\n")
    path.write_text(path.read_text(), newline="\r\n")
    found = worked_on(project, Proposes(fast))
    assert found.patch, found.attempts
    done = subprocess.run(["git", "apply", "--stat", "--apply", str(found.patch)], cwd=project, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert b"1 insertion(+), 4 deletions(-)" in done.stdout
    assert path.read_bytes() == fast.replace("\n", "\r\n").encode()


@pytest.mark.slow
def test_the_mechanical_optimizer(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A call in a loop is made once, proven with the tests and recorded calls, by the command as well."""
    found = worked_on(project, find_optimizer("mechanical"))
    assert found.proven, found.attempts
    assert found.proven.replay
    assert found.proven.replay.comparison.ratio < 0.5
    monkeypatch.chdir(project)
    done = run("optimize", "prices.impure", "--format", "json")
    assert done.exit_code == 2  # it is not in the queue


def test_optimizers_by_name() -> None:
    """The included one is found; a name that nobody installed is none."""
    assert isinstance(find_optimizer("mechanical"), MechanicalOptimizer)
    assert find_optimizer("nobody") is None


def test_the_command_line(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON says what became of each candidate; exit code 1 where none is proven.

    The tests are run by what lies beside this Python, and are those of the copy, though the command says otherwise.
    """
    monkeypatch.chdir(project)
    (project / "tests" / "__init__.py").touch()  # pytest has the folder around it come first on the path
    other = tmp_path / "bin" / "pytest"
    other.parent.mkdir()
    other.write_text("#!/bin/sh\necho of another Python\n")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{other.parent}:{os.environ['PATH']}")
    queued(project / "debug_data", "prices.invoice", ("pytest", "-q", "-p", "no:cacheprovider", str(project / "tests")))
    command = f"{sys.executable} -c \"print('def invoice(country, items): return 0')\""
    done = run("optimize", "prices.invoice", "--with", command, "--seconds", "2", "--format", "json")
    assert done.exit_code == 1, done.output
    (attempt,) = json.loads(done.stdout)["attempts"]
    assert "The tests fail with it" in attempt["why"]
    assert run("optimize", "prices.invoice", "--with", f"{sys.executable} -c pass").exit_code == 1


def test_a_scratch_copy(tmp_path: Path) -> None:
    """It has the project's files, without caches, environments and what is left out; its changes are told."""
    project = tmp_path / "project"
    for name in ("a.py", "pkg/b.py", "debug_data/x", ".venv/y", "pkg/__pycache__/b.pyc", "env/pyvenv.cfg", "env/z"):
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name)
    with Scratch(project, (project / "debug_data",)) as scratch:
        (scratch.folder / "windows.py").write_bytes(b"a\r\n")
        scratch.apply({"windows.py": "a\nb\n"})
        assert (scratch.folder / "windows.py").read_bytes() == b"a\r\nb\r\n"
        scratch.apply({"windows.py": None})
        names = {path.relative_to(scratch.folder).as_posix() for path in scratch.folder.rglob("*") if path.is_file()}
        assert names == {"a.py", "pkg/b.py"}
        scratch.apply({"a.py": "changed", "new/c.py": "new", "pkg/b.py": None})
        assert scratch.changes() == {"a.py": "changed", "new/c.py": "new", "pkg/b.py": None}
        for outside in ("../x", "/tmp/x"):
            with pytest.raises(OptimizerError, match="leads out"):
                scratch.apply({outside: ""})
        folder = scratch.folder
    assert not folder.exists()
    assert (project / "a.py").read_text() == "a.py"
