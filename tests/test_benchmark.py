"""`compare_functions`: verdicts on functions that are slower, wrong, or fail in one way or another."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import benchmarked
from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.benchmark import (
    BenchmarkOptions,
    Case,
    Check,
    FunctionRef,
    Outcome,
    compare_functions,
)

NUMBERS = [Case("numbers", (list(range(2_000)),))]
QUICK = BenchmarkOptions(processes=6, pairs=4, timeout_s=5)
ONE = BenchmarkOptions(processes=1, pairs=2, timeout_s=1)


def test_a_slower_function_is_called_slower() -> None:
    """The ratio, its interval, the time of a call, processes and checked outputs are given."""
    found = compare_functions(benchmarked.total, benchmarked.slow_total, NUMBERS, options=QUICK)
    assert found.verdict == "slower", found.cause
    assert 1.5 < found.low <= found.ratio <= found.high
    assert found.candidate_ns > found.baseline_ns > 0
    assert (found.processes, len(found.units)) == (6, 6)
    assert len({unit.pid for unit in found.units} | {os.getpid()}) == 7
    assert found.pairs == sum(len(unit.log_ratios) for unit in found.units) > 0
    assert found.checked == 12  # before and after the timing
    assert found.baseline_variant != found.candidate_variant
    assert found.baseline_variant is not None


def test_a_faster_function_is_called_faster_in_forks_as_well() -> None:
    """A closure can't be imported by name, so its processes are forked, and that is said."""
    offset = 0
    found = compare_functions(
        lambda numbers: benchmarked.slow_total(numbers) + offset, benchmarked.total, NUMBERS, options=QUICK
    )
    assert found.verdict == "faster", found.cause
    assert any("forks of this one" in note for note in found.notes)


def test_classes_of_inputs_have_verdicts_of_their_own() -> None:
    """A candidate that is slower with one class only is called so there; weights make the ratio of the whole."""
    cases = [Case("short", ([1],)), Case("long", (list(range(3_000)),), weight=100.0)]
    options = BenchmarkOptions(processes=8, pairs=4)  # so many that a p-value may be corrected for two classes
    found = compare_functions("benchmarked:total", "benchmarked:slow_total", cases, options=options)
    assert [each.label for each in found.per_class] == ["short", "long"]
    long = found.per_class[1]
    assert long.verdict == "slower"
    assert found.ratio == pytest.approx(long.ratio, rel=0.05)


def test_few_processes_decide_nothing() -> None:
    """With five processes no difference is certain, and it is said how many it takes."""
    found = compare_functions(benchmarked.total, benchmarked.slow_total, NUMBERS, options=BenchmarkOptions(5, 2))
    assert found.verdict == "undecided"
    assert "at least 6" in found.cause


def test_stopping_early() -> None:
    """A large difference is found after few pairs, by an interval that is valid at any time."""
    options = BenchmarkOptions(processes=5, pairs=40, stop_early=True)
    found = compare_functions(benchmarked.total, benchmarked.slow_total, NUMBERS, options=options)
    assert found.verdict == "slower"
    assert found.pairs < 40
    assert "confidence sequence" in found.cause


@pytest.mark.parametrize(
    ("candidate", "verdict", "cause"),
    [
        ("wrong_total", "wrong", "1997001 where 1999000 is right"),
        ("wrong_later", "wrong", "after it was timed"),
        ("float_total", "wrong", "1999000.0 where 1999000 is right"),
        ("raises", "failed", "raised ValueError: can't add 2000 numbers"),
        ("exits", "failed", "ended the program (SystemExit: 3)"),
        ("ends_its_process", "failed", "ended its process (exit code 5)"),
        ("hangs", "failed", "did not come to an end within 1 s"),
        ("forks", "failed", "the forked process returns from the call as well"),
        ("items", "failed", "a generator, whose items are made when it is read"),
        ("opaque", "wrong", "where 1999000 is right"),
        ("random_number", "wrong", "where 1999000 is right"),
        ("missing", "failed", "benchmarked has no missing"),
    ],
)
def test_candidates_that_are_not_to_be_ranked(candidate: str, verdict: str, cause: str) -> None:
    """Each has a verdict with its cause, and no time; nothing of it is left running."""
    found = compare_functions("benchmarked:total", f"benchmarked:{candidate}", NUMBERS, options=ONE)
    assert (found.verdict, found.failed_side) == (verdict, "candidate")
    assert cause in found.cause
    assert not found.is_ranked
    assert found.to_dict()["ratio"] is None
    assert not psutil.Process().children(recursive=True)


def test_a_function_that_writes_into_descriptors_of_others() -> None:
    """What it writes is not taken for an answer: the verdict is that it does."""
    found = compare_functions("benchmarked:total", "benchmarked:writes_to_what_is_open", NUMBERS, options=ONE)
    assert (found.verdict, found.is_ranked) == ("failed", False)
    assert "wrote into descriptors that are not its own" in found.cause
    assert not psutil.Process().children(recursive=True)


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        ("items", "a generator, whose items are made when it is read"),
        ("coroutine", "a coroutine, of which nothing has run"),
        ("opaque", "neither an equality nor parts: give a check"),
        ("random_number", "something else each time"),
    ],
)
def test_outputs_that_cannot_be_compared(function: str, cause: str) -> None:
    """It is said what they are, and what to do; a function is not called wrong for them."""
    found = compare_functions(f"benchmarked:{function}", f"benchmarked:{function}", NUMBERS, options=ONE)
    assert found.verdict == "failed"
    assert cause in found.cause


def test_a_function_may_change_its_input_if_both_do() -> None:
    """Each timed call has then an input of its own; and one of the two alone may not."""
    numbers = [Case("numbers", ([3, 1, 2] * 50,))]
    both = compare_functions("benchmarked:sorts", "benchmarked:sorts_too", numbers, options=QUICK)
    assert both.is_ranked, both.cause
    assert any("a copy of its own" in note for note in both.notes)
    one = compare_functions("benchmarked:sorted_copy", "benchmarked:sorts", numbers, options=ONE)
    assert (one.verdict, one.failed_side) == ("wrong", "candidate")
    assert "changes its input" in one.cause


def test_what_is_printed_is_thrown_away(capfd: pytest.CaptureFixture[str]) -> None:
    """The user sees none of it, but a note."""
    for function in (benchmarked.prints, lambda numbers: benchmarked.prints(numbers)):
        found = compare_functions(benchmarked.total, function, NUMBERS, options=ONE)
        assert found.is_ranked, found.cause
        assert any("prints" in note for note in found.notes)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody adopts it")
@pytest.mark.parametrize(
    "candidate",
    ["benchmarked:leaves_running", "benchmarked:leaves_running_and_ends", lambda n: benchmarked.leaves_running(n)],
)
def test_nothing_is_left_running(tmp_path: Path, candidate: Any) -> None:
    """A program that the candidate starts is ended with the process that measured, whatever it left and forgot."""
    left = tmp_path / "left"
    left.touch()
    options = BenchmarkOptions(processes=1, pairs=1, timeout_s=5, environment={"LEFT": str(left)}, memory=False)
    compare_functions("benchmarked:total", candidate, NUMBERS, options=options)
    pids = [int(line) for line in left.read_text().split()]
    assert pids
    assert not any(map(_is_running, pids))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody adopts it")
def test_nothing_is_left_running_though_pipes_stay_open(tmp_path: Path) -> None:
    """A process that the program forks meanwhile has all that is open, and lives on."""
    left, forked = tmp_path / "left", tmp_path / "forked"
    left.touch()

    def candidate(numbers: list[int]) -> int:
        result = benchmarked.leaves_running(numbers)
        while not forked.exists():
            time.sleep(0.01)
        return result

    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))

    def fork() -> None:
        while not left.read_text():
            time.sleep(0.01)
        other.start()
        forked.touch()

    options = BenchmarkOptions(processes=1, pairs=1, timeout_s=20, environment={"LEFT": str(left)}, memory=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks with threads
        thread = threading.Thread(target=fork)
        thread.start()
        compare_functions(benchmarked.total, candidate, NUMBERS, options=options)
        thread.join()
    assert other.is_alive()
    other.kill()
    other.join()
    assert not any(_is_running(int(line)) for line in left.read_text().split())


def _is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_exceptions_are_outcomes_where_they_may_be() -> None:
    """Two functions that raise the same type are equal then, and timed; another type is wrong."""
    case = [Case("bad", ([1],), may_raise=True)]
    same = compare_functions("benchmarked:raises", "benchmarked:raises_too", case, options=ONE)
    assert same.is_ranked, same.cause
    other = compare_functions("benchmarked:raises", "benchmarked:total", case, options=ONE)
    assert (other.verdict, other.failed_side) == ("wrong", "candidate")


def test_recorded_outcomes_hold_for_both() -> None:
    """A baseline that no longer does what was recorded has failed; a candidate is wrong."""
    right, wrong = Outcome(6), Outcome(7)
    cases = {outcome: [Case("a", ([1, 2, 3],), expected=outcome)] for outcome in (right, wrong)}
    assert compare_functions("benchmarked:total", "benchmarked:slow_total", cases[right], options=ONE).is_ranked
    found = compare_functions("benchmarked:total", "benchmarked:slow_total", cases[wrong], options=ONE)
    assert (found.verdict, found.failed_side) == ("failed", "baseline")
    found = compare_functions("benchmarked:total", "benchmarked:wrong_total", cases[right], options=ONE)
    assert (found.verdict, found.failed_side) == ("wrong", "candidate")
    raised = [Case("a", ([1],), expected=Outcome(error="ValueError"))]
    assert compare_functions("benchmarked:raises", "benchmarked:raises_too", raised, options=ONE).is_ranked


@pytest.mark.parametrize("function", [benchmarked.same_parity, "benchmarked:same_parity", lambda a, b: a % 2 == b % 2])
def test_a_users_check(function: Callable[[Any, Any], bool] | str) -> None:
    """It says what is right, by name or itself."""
    cases = [Case("a", ([1, 2, 3, 2],))]
    check = Check("function", function=function)
    found = compare_functions("benchmarked:total", "benchmarked:wrong_total", cases, options=ONE, check=check)
    assert found.is_ranked, found.cause
    odd = [Case("a", ([1, 2, 3],))]
    found = compare_functions("benchmarked:total", "benchmarked:wrong_total", odd, options=ONE, check=check)
    assert found.verdict == "wrong"


def test_without_a_check_nothing_counts_as_checked() -> None:
    """What the user answers for is not called checked."""
    found = compare_functions("benchmarked:total", "benchmarked:wrong_total", NUMBERS, options=ONE, check=Check("none"))
    assert found.is_ranked
    assert found.checked == 0


def test_inputs_made_where_they_are_used() -> None:
    """A case may name the function that makes its arguments of bytes."""
    cases = [Case("bytes", make="benchmarked:made", data=b"abc")]
    assert compare_functions("benchmarked:total", "benchmarked:slow_total", cases, options=ONE).checked == 2
    bad = [Case("bytes", make="benchmarked:raises", data=b"abc")]
    found = compare_functions("benchmarked:total", "benchmarked:slow_total", bad, options=ONE)
    assert (found.verdict, found.failed_side, found.failed_class) == ("failed", None, "bytes")


def test_two_versions_of_a_project_do_not_meet(tmp_path: Path) -> None:
    """Each has its own modules, those it imports while it runs as well, in one process."""
    for name, result in (("old", 1), ("new", 2)):
        package = tmp_path / name / "project_of_two_versions"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "late.py").write_text(f"VALUE = {result}\n")
        (package / "main.py").write_text(
            textwrap.dedent("""
            def value():
                from project_of_two_versions import late
                return late.VALUE
            """)
        )
    old, new = (FunctionRef("project_of_two_versions.main:value", (str(tmp_path / name),)) for name in ("old", "new"))
    assert compare_functions(old, old, [Case("call")], options=ONE).is_ranked
    found = compare_functions(old, new, [Case("call")], options=ONE)
    assert (found.verdict, found.failed_side) == ("wrong", "candidate")
    assert "2 where 1 is right" in found.cause
    check = Check("none")
    assert compare_functions(old, new, [Case("call")], options=ONE, check=check).is_ranked


def test_recording_is_outside_the_timed_region() -> None:
    """What `@function` records is taken off, so a recorded function reads as one that is not."""
    found = compare_functions("benchmarked:total", "benchmarked:recorded_total", [Case("a", ([1],))], options=QUICK)
    assert found.is_ranked, found.cause
    assert found.baseline_variant is not None
    assert found.ratio < 1.5  # recording a call takes fifty times as long as this one


def test_warm_up_is_found_and_dropped() -> None:
    """Pairs from before a function has become fast are not counted, and that is said."""
    options = BenchmarkOptions(processes=1, pairs=20, memory=False)
    found = compare_functions(
        "benchmarked:total", "benchmarked:warm", [Case("a", (list(range(100_000)),))], options=options
    )
    assert found.units[0].dropped > 0
    assert any("Warm-up was dropped" in note for note in found.notes)
    assert found.ratio < 2


def test_a_long_benchmark_is_shortened() -> None:
    """Where all pairs would take longer than they may there are fewer, and that is said."""
    options = BenchmarkOptions(processes=40, pairs=1_000, max_seconds=0.8, memory=False)
    found = compare_functions("benchmarked:millisecond", "benchmarked:millisecond", [Case("call")], options=options)
    assert found.processes < 40
    assert any("to stay near" in note for note in found.notes)


def test_memory_beside_time() -> None:
    """The most that a call allocates is given, by side."""
    found = compare_functions("benchmarked:sorted_copy", "benchmarked:total", NUMBERS, options=ONE, check=Check("none"))
    assert found.memory is not None
    assert found.memory.baseline_peak_bytes >= 16_000 > found.memory.candidate_peak_bytes


def test_setup_runs_first() -> None:
    """A setup that fails is a cause of its own, and nobody's fault."""
    options = BenchmarkOptions(processes=1, pairs=1, setup="benchmarked:fail_setup")
    found = compare_functions("benchmarked:total", "benchmarked:total", NUMBERS, options=options)
    assert (found.verdict, found.failed_side) == ("failed", None)
    assert "raised RuntimeError: no database" in found.cause


def test_a_script_can_be_measured(tmp_path: Path) -> None:
    """Functions of the file that was run are reached by a fork; nothing is printed twice, and it ends once."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        from otel_debugstore_analysis.benchmark import BenchmarkOptions, Case, compare_functions
        def one(): return sum(range(100))
        def other(): return 4950
        if __name__ == "__main__":
            found = compare_functions(one, other, [Case("a")], options=BenchmarkOptions(6, 3))
            print(found.verdict)
        """)
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("faster\n", "")


@pytest.mark.parametrize(
    "options",
    [
        BenchmarkOptions(processes=0),
        BenchmarkOptions(pairs=0),
        BenchmarkOptions(timeout_s=0),
        BenchmarkOptions(min_effect=-1),
        BenchmarkOptions(cwd="/no/such/directory"),
    ],
)
def test_options_that_cannot_be(options: BenchmarkOptions) -> None:
    """They are refused before anything runs."""
    with pytest.raises(ConfigurationError):
        compare_functions(benchmarked.total, benchmarked.total, NUMBERS, options=options)


def test_functions_and_inputs_that_cannot_be() -> None:
    """They are refused, too: no input, no name, and a fresh interpreter for what is only here."""
    with pytest.raises(ConfigurationError, match="no input"):
        compare_functions(benchmarked.total, benchmarked.total, [])
    with pytest.raises(ConfigurationError, match="names no function"):
        compare_functions("benchmarked.total", benchmarked.total, NUMBERS)
    with pytest.raises(ConfigurationError, match="can't be called"):
        compare_functions(3, benchmarked.total, NUMBERS)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="can't be imported by name"):
        compare_functions(lambda n: n, benchmarked.total, NUMBERS, options=BenchmarkOptions(start="fresh"))
