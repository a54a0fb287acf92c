"""Replay: recorded calls run again with changed code, what is wrong is found, and nothing runs that may not."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from commands import refused, run
from otel_debugstore.errors import NotReplayableError, QueryError
from otel_debugstore_analysis.benchmark import history
from otel_debugstore_analysis.replay import ReplayOptions, replay, sampled
from otel_debugstore_analysis.replay.replaying import require_permission
from replayed import CHANGED, NO_TIME, PROGRAM, QUICK, SHOP, contents, record, recorded, write


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a recorded session."""
    folder = tmp_path_factory.mktemp("project")
    write(folder, shop=SHOP, changed=CHANGED)
    record(folder, PROGRAM)
    return folder


def checked(project: Path, component: str, candidate: str, options: ReplayOptions = NO_TIME) -> tuple[str, str]:
    """Return the verdict on a candidate, and why."""
    found = replay(recorded(project / "debug_data", component), candidate, options=options)
    return found.verdict, found.cause


@pytest.mark.slow
def test_right_results_count(project: Path) -> None:
    """Inputs of dataclasses, pydantic, numpy and paths come back as what they were; equal results are right."""
    for component, candidate in (
        ("shop.unique", "changed:unique"),
        ("shop.work", "changed:work"),
        ("shop.ordered", "changed:ordered"),
        ("shop.later", "changed:later"),
        ("shop.Client.parse", "changed:parse"),
        ("shop.append", "shop:append"),
    ):
        calls = recorded(project / "debug_data", component)
        found = replay(calls, candidate, options=NO_TIME)
        assert found.inputs == found.right == len({call.input.digest for call in calls.calls}) > 0, found.cause


@pytest.mark.parametrize(
    ("component", "candidate", "said"),
    [
        ("shop.unique", "changed:sorted_unique", "where .* is right"),
        ("shop.unique", "changed:raising_unique", "KeyError: 'long' instead of a result"),
        ("shop.work", "changed:quiet_work", "no error instead of ValueError|where .* right"),
        ("shop.ordered", "changed:rounded", "other numbers"),
        ("shop.append", "changed:copied_append", "its arguments are left otherwise"),
        ("shop.unique", "changed:leaves", "SystemExit"),
    ],
)
def test_a_wrong_candidate(project: Path, component: str, candidate: str, said: str) -> None:
    """Another result, another error, an error that is gone, arguments that are changed: wrong, whatever the time."""
    verdict, cause = checked(project, component, candidate, QUICK)
    assert verdict == "wrong"
    assert re.search(said, cause), cause


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        ("changed:exits", "exit code 3"),
        ("changed:hangs", "did not end within 1 s"),
        ("changed:nothing", "changed .* has no nothing"),
        ("no_such_module:unique", "no_such_module can't be imported"),
    ],
)
def test_a_candidate_that_fails(project: Path, candidate: str, said: str) -> None:
    """One that ends its process, hangs, or can't be found has failed, and the cause says how."""
    verdict, cause = checked(project, "shop.unique", candidate, replace(QUICK, timeout_s=1.0, inputs=3))
    assert verdict == "failed"
    assert re.search(said, cause), cause


@pytest.mark.parametrize("candidate", ["changed:forks", "changed:reads"])
def test_a_candidate_that_does_other_things(project: Path, candidate: str, capfd: pytest.CaptureFixture[str]) -> None:
    """One that forks, reads standard input and prints is judged by its results; nothing of it is seen here."""
    assert checked(project, "shop.unique", candidate)[1].endswith("nothing was timed.")
    assert capfd.readouterr() == ("", "")


def test_a_tolerance(project: Path) -> None:
    """Numbers may differ as far as the user says."""
    _, cause = checked(project, "shop.ordered", "changed:rounded", replace(NO_TIME, relative=1e-3))
    assert cause.endswith("nothing was timed.")


def test_texts_of_errors_are_no_results(project: Path) -> None:
    """An error of the same type with another text is right, and a note says that there are such."""
    calls = recorded(project / "debug_data", "shop.work")
    assert replay(calls, "shop:work", options=NO_TIME).notes == ()
    (note,) = replay(calls, "changed:work", options=NO_TIME).notes
    assert re.fullmatch(r"With \d inputs it raises an error of the right type with another text than .*", note)


def test_setup_and_teardown(project: Path) -> None:
    """The hooks run in the process of the calls, before and after them."""
    assert checked(project, "shop.unique", "changed:needs_setup")[0] == "wrong"
    hooks = replace(NO_TIME, setup="shop:setup", teardown="shop:teardown")
    assert checked(project, "shop.unique", "changed:needs_setup", hooks)[0] == "undecided"
    verdict, cause = checked(project, "shop.unique", "changed:unique", replace(NO_TIME, setup="shop:nothing"))
    assert (verdict, "has no nothing" in cause) == ("failed", True)


def test_nothing_runs_that_may_not(project: Path) -> None:
    """What is declared as not replayable never is; what nothing was said of only when it is asked for by name."""
    for asked in (False, True):
        with pytest.raises(NotReplayableError, match="not to be run again"):
            replay(
                recorded(project / "debug_data", "shop.send"),
                "shop:send",
                options=replace(NO_TIME, asked_by_name=asked),
            )
    undeclared = recorded(project / "debug_data", "shop.undeclared")
    with pytest.raises(NotReplayableError, match="Nothing says"):
        replay(undeclared, "shop:undeclared", options=NO_TIME)
    assert replay(undeclared, "shop:undeclared", options=replace(NO_TIME, asked_by_name=True)).right == 1
    require_permission(recorded(project / "debug_data", "shop.unique"), asked_by_name=False)
    assert (project / "sent").read_text() == "x"


def test_what_cannot_be_replayed_is_counted(project: Path) -> None:
    """Arguments that were masked or summarised can't be made again: how many, and why, is said."""
    found = replay(recorded(project / "debug_data", "shop.given"), "shop:given", options=NO_TIME)
    assert (found.recorded, found.inputs) == (2, 1)
    assert found.skipped == {"among its arguments is one of the type shop:Client, which is only summarised": 1}
    with pytest.raises(NotReplayableError, match=r"1 calls: its arguments were masked"):
        replay(recorded(project / "debug_data", "shop.secret"), "shop:secret", options=NO_TIME)


@pytest.mark.parametrize(
    ("component", "said"),
    [
        ("shop.Client.get", "is a method"),
        ("shop.counted", "is a generator"),
        ("shop.outer.<locals>.inner", "inside of another function"),
        ("shop.clock", "The original itself no longer does what was recorded"),
    ],
)
def test_functions_that_cannot_be_replayed(project: Path, component: str, said: str) -> None:
    """Methods, generators, inner functions, and what depends on something else: failed, and the cause says so."""
    calls = recorded(project / "debug_data", component)
    found = replay(calls, "shop:undeclared", options=NO_TIME)
    assert found.verdict == "failed"
    assert said in found.cause


def test_a_component_that_was_not_recorded(project: Path) -> None:
    """It is an error that says where to look."""
    with pytest.raises(QueryError, match=r"No call of .shop.nothing. was recorded"):
        recorded(project / "debug_data", "shop.nothing")


def test_the_program_never_runs_here(project: Path) -> None:
    """Neither the program nor the candidate is imported in this process, and its files stay as they are."""
    before = contents(project)
    checked(project, "shop.work", "changed:work")
    assert not {"shop", "changed"} & set(sys.modules)
    assert contents(project) == before


def test_recorded_code_is_the_original(tmp_path: Path) -> None:
    """Where the file was edited since, the code that was recorded runs against it."""
    write(tmp_path, shop=SHOP, changed=CHANGED)
    record(tmp_path, "import shop\nfor number in range(5): shop.unique([number, 3, 1, 3])")
    edited = (tmp_path / "shop.py").read_text().replace("return found\n", "return sorted(found)\n", 1)
    (tmp_path / "shop.py").write_text(edited)
    found = replay(recorded(tmp_path / "debug_data", "shop.unique"), "shop:unique", options=NO_TIME)
    assert found.verdict == "wrong"
    found = replay(recorded(tmp_path / "debug_data", "shop.unique"), "changed:unique", options=NO_TIME)
    assert found.right == 5
    assert "recorded code is the original" in found.notes[0]


def test_a_function_of_a_script(tmp_path: Path) -> None:
    """Functions and classes of the program that was started are found in its file, which is not run as a program."""
    program = """
        from dataclasses import dataclass
        from otel_debugstore import tool
        @dataclass
        class Point:
            x: int
        @tool(replayable=True)
        def moved(x):
            return Point(x + 1)
        def moved_too(x):
            return Point(1 + x)
        def moved_back(x):
            return Point(x - 1)
        if __name__ == "__main__":
            for x in range(4):
                moved(x)
    """
    base_path = record(tmp_path, program)
    calls = recorded(base_path, "__main__.moved")
    found = replay(calls, "__main__:moved_too", options=NO_TIME)
    assert found.right == 4, found.cause
    assert replay(calls, "__main__:moved_back", options=NO_TIME).verdict == "wrong"


def test_the_sample(project: Path) -> None:
    """The slowest and every error are in it, of each class some, and inputs that came again are there once."""
    calls = recorded(project / "debug_data", "shop.unique").calls
    sample = sampled(calls, inputs=6)
    taken = {one.call.input.digest for one in sample.inputs}
    slowest = max(calls, key=lambda call: call.duration_ns)
    assert slowest.input.digest in taken
    assert len(sample.sequence) == len(calls) == 16
    failing = recorded(project / "debug_data", "shop.work").calls
    few = sampled(failing, inputs=1, sequence=0)
    assert "ValueError" in {one.call.error for one in few.inputs}
    assert {one.label.partition(",")[0] for one in few.inputs if one.call.error} == {"ValueError"}


def test_the_command(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints the verdict, counts and classes; exit code 1 where the candidate is wrong, 2 where nothing can run."""
    monkeypatch.chdir(project)
    arguments = ("replay", "shop.unique", "--candidate")
    done = run(*arguments, "changed:sorted_unique", "--format", "json")
    assert done.exit_code == 1
    verdict = json.loads(done.stdout)
    assert verdict["verdict"] == "wrong"
    shows = re.search(r"debugstore (payload .*)", verdict["cause"])
    assert shows is not None
    assert "values" in run(*shows[1].split()).stdout
    done = run(*arguments, "changed:unique", "--check-only")
    assert done.exit_code == 0
    assert "16 inputs were run, 16 gave what was recorded" in done.stdout
    assert run("replay", "shop.undeclared", "--candidate", "shop:undeclared", "--check-only").exit_code == 0
    assert "not to be run again" in refused("replay", "shop.send", "--candidate", "shop:send")
    for name in ("changed", ":unique", "changed:", "a:b:c"):
        assert "write package.module:function" in refused(*arguments, name)
    assert "no share" in refused(*arguments, "changed:unique", "--min-effect", "300%")
    assert "perhaps you mean 'shop.unique'" in refused("replay", "unique", "--candidate", "changed:unique")
    assert run(*arguments, "changed:sorted_unique", "--record", "tried").exit_code == 1
    (row,) = history(project / "debug_data", sessions=["tried"]).dicts()
    assert (row["name"], row["baseline"], row["candidate"], row["verdict"]) == (
        "replay shop.unique",
        "shop.unique (recorded)",
        "changed:sorted_unique",
        "wrong",
    )


@pytest.mark.slow
def test_faster_slower_and_what_remembers(tmp_path: Path) -> None:
    """A faster candidate is found faster, a slower one slower; a cache counts by the recorded sequence alone."""
    shop = """
        import functools
        from otel_debugstore import tool

        @tool(pure=True)
        def price(n):
            return sum(i * i for i in range(n))

        def quick(n):
            return (n - 1) * n * (2 * n - 1) // 6

        def slow(n):
            return max(sum(i * i for i in range(n)), sum(i * i for i in range(n)))

        cached = functools.lru_cache(price.__wrapped__)
    """
    write(tmp_path, shop=shop)
    base_path = record(tmp_path, "import shop\nfor number in range(200): shop.price(2000 + number % 50)")
    calls = recorded(base_path, "shop.price")
    options = ReplayOptions(max_seconds=4)
    faster, slower = (replay(calls, f"shop:{name}", options=options) for name in ("quick", "slow"))
    assert (faster.verdict, slower.verdict) == ("faster", "slower")
    assert slower.comparison.low > 1.5
    assert faster.comparison.high < 0.1
    assert not faster.remembers
    cached = replay(calls, "shop:cached", options=options)
    assert (cached.verdict, cached.remembers) == ("faster", True)
    assert 0.15 < cached.comparison.ratio < 0.5  # of four calls one is computed
    assert {one.verdict for one in cached.comparison.per_class} == {"faster"}


def test_nothing_is_left_running(project: Path) -> None:
    """Processes that calls started are ended with the replay."""
    marker = project / "alive"
    source = f"""
        import subprocess, sys
        def unique(values):
            program = "import pathlib, time; time.sleep(3); pathlib.Path({str(marker)!r}).touch()"
            subprocess.Popen([sys.executable, "-c", program], start_new_session=True)
            return list(dict.fromkeys(values))
    """
    write(project, starting=source)
    verdict, cause = checked(project, "shop.unique", "starting:unique", replace(NO_TIME, inputs=1, sequence=0))
    (project / "starting.py").unlink()
    assert verdict == "undecided", cause
    time.sleep(3.5)
    assert not marker.exists()
