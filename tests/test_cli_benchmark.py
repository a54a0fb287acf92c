"""`debugstore benchmark`: functions by name, inputs, gates, and the history."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from commands import refused, run, run_well
from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.benchmark import (
    BenchmarkOptions,
    Case,
    Comparison,
    Resolution,
    ResolutionError,
    Unit,
    require_resolution,
    resolution,
)
from otel_debugstore_analysis.benchmark._decision import decided, signed_rank, warm_up
from otel_debugstore_analysis.benchmark.inputs import cases_of

FEW = ("--processes", "6", "--pairs", "3")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    (tmp_path / "inputs.json").write_text(json.dumps([[list(range(2_000))], {"label": "few", "args": [[1, 2]]}]))


def test_a_comparison_is_shown_and_recorded() -> None:
    """A row a class and one of all; it is in the history afterwards."""
    result = run("benchmark", "benchmarked:total", "benchmarked:slow_total", "--inputs", "inputs.json", *FEW)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["input", "input", "few", "all"]
    assert "benchmarked:slow_total: slower." in result.stderr
    [row] = json.loads(run_well("benchmark", "--history", "--format", "json"))
    assert (row["name"], row["verdict"]) == ("benchmarked:slow_total", "slower")
    assert "slower" in run_well("benchmark", "--history")
    assert json.loads(run_well("benchmark", "--history", "--name", "other", "--format", "json")) == []


def test_json_has_all_of_it() -> None:
    """Units, notes and memory as well."""
    arguments = (
        "benchmark",
        "benchmarked:total",
        "--no-record",
        "--format",
        "json",
        "--inputs",
        "benchmarked:inputs",
        *FEW,
    )
    found = json.loads(run_well(*arguments))
    assert len(found["units"]) == 6
    assert found["memory"]["baseline_peak_bytes"] >= 0
    assert run("benchmark", "--history").stdout.count("\n") == 1  # the heading


def test_what_is_wrong_or_fails_is_a_finding() -> None:
    """The exit code is 1, and the cause is said."""
    for function, cause in (("wrong_total", "is right"), ("raises", "ValueError"), ("nothing", "has no nothing")):
        result = run(
            "benchmark", "benchmarked:total", f"benchmarked:{function}", "--inputs", "benchmarked:inputs", *FEW
        )
        assert result.exit_code == 1, result.output
        assert cause in result.stderr


@pytest.mark.slow
def test_a_gate() -> None:
    """A slower candidate does not pass, a faster one does; one that can't be kept here is refused with the figure."""
    inputs = ("--inputs", "inputs.json", "--no-record", "--processes", "8")
    slower = run("benchmark", "benchmarked:total", "benchmarked:slow_total", "--gate", "60%", *inputs)
    assert slower.exit_code == 1, slower.output
    assert "This machine resolves" in slower.stderr
    faster = run("benchmark", "benchmarked:slow_total", "benchmarked:total", "--gate", "60%", *inputs)
    assert faster.exit_code == 0, faster.output
    message = refused("benchmark", "benchmarked:total", "benchmarked:total", "--gate", "0.0001%", *inputs)
    assert "this machine resolves" in message


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["benchmarked:total", "--inputs", "nothing.json"], "can't be read"),
        (["benchmarked:total", "--inputs", "bad.json"], "no JSON"),
        (["benchmarked:total", "--inputs", "object.json"], "a list of inputs"),
        (["benchmarked:total", "--inputs", "numbers.json"], "Input 1 of numbers.json"),
        (["benchmarked:total", "--inputs", "empty.json"], "has no inputs"),
        (["benchmarked:total", "--inputs", "benchmarked:nothing"], "has no nothing"),
        (["benchmarked:total", "--inputs", "benchmarked:fail_setup"], "no database"),
        (["benchmarked.total"], "names no function"),
        (["benchmarked:total", "--gate", "0%"], "no difference to be found"),
        (["benchmarked:total", "--min-effect", "0.03"], "write 0.03% for the one"),
        (["benchmarked:total", "--check", "a:b", "--tolerance", "1"], "exclude each other"),
        ([], "Name the functions"),
    ],
)
def test_what_cannot_be_is_refused(arguments: Sequence[str], cause: str, tmp_path: Path) -> None:
    """In one line that says why; nothing is recorded."""
    for name, text in (("bad", "["), ("object", "{}"), ("numbers", "[3]"), ("empty", "[]")):
        (tmp_path / f"{name}.json").write_text(text)
    assert cause in refused("benchmark", *arguments)
    assert not (tmp_path / "debug_data").exists()


def test_inputs() -> None:
    """A file, a function, a category, or none at all."""
    assert [case.label for case in cases_of("inputs.json")] == ["input 1", "few"]
    assert cases_of("benchmarked:inputs")[1].args == ([4],)
    assert "paragraph" in [case.label for case in cases_of("text_processing")]
    assert cases_of(None) == [Case("call")]
    with pytest.raises(ConfigurationError):
        cases_of("cooking")


def _result(low: float, high: float) -> Resolution:
    return Resolution(
        0.05, Comparison("equal", "", 1.0, low, high, units=(Unit(1, "host", 1.0, 1.0, ()),), processes=10)
    )


def test_a_gate_below_the_resolution_is_refused() -> None:
    """With the figure; a wider one is not."""
    require_resolution(_result(0.99, 1.01), 0.05)
    with pytest.raises(ResolutionError, match=r"resolves 5\.0% with 10 processes"):
        require_resolution(_result(0.99, 1.01), 0.04)
    failed = resolution("benchmarked:raises", [Case("a", ([1],))], options=BenchmarkOptions(processes=1))
    with pytest.raises(ResolutionError, match="ValueError"):
        require_resolution(failed, 0.5)


@pytest.mark.parametrize(
    ("log_ratios", "verdict"),
    [
        ([0.10, 0.11, 0.09, 0.10, 0.12, 0.10], "slower"),
        ([-0.10, -0.11, -0.09, -0.10, -0.12, -0.10], "faster"),
        ([0.001, -0.001, 0.002, -0.002, 0.0, 0.001], "equal"),
        ([0.02, 0.021, 0.019, 0.02, 0.022, 0.02], "equal"),  # surely there, and less than counts
        ([0.10, -0.11, 0.09, -0.10, 0.12, 0.10], "undecided"),
        ([0.10, 0.11, 0.09, 0.10, 0.12], "undecided"),  # too few
    ],
)
def test_verdicts_of_processes(log_ratios: Sequence[float], verdict: str) -> None:
    """What follows from the log-ratios of processes, at a least effect of 3 %."""
    found = decided(log_ratios, 0.03, 0.95)
    assert found.verdict == verdict
    assert found.low <= found.ratio <= found.high


def test_signed_ranks_are_those_of_scipy() -> None:
    """The exact p-value, and the approximate one of many values."""
    import numpy as np
    from scipy.stats import wilcoxon

    chance = np.random.default_rng(5)
    for count in (6, 11, 25, 90):
        values = chance.normal(0.2, 1.0, count)
        expected = wilcoxon(values, method="exact" if count <= 60 else "approx", correction=False).pvalue
        assert signed_rank(values.tolist()) == pytest.approx(expected, rel=1e-6)
    assert signed_rank([0.0, 0.0]) == 1.0


def test_warm_up_is_a_beginning_that_is_far_above_the_rest() -> None:
    """At most half of the values; a single one later is none."""
    assert warm_up([9.0, 5.0, 1.1, 1.0, 1.0, 1.01, 1.0, 0.99, 1.0, 1.0]) == 3
    assert warm_up([1.0, 9.0, 1.0, 1.0, 1.0, 1.0]) == 0
    assert warm_up([8.0, 7.0, 6.0, 5.0, 1.0, 1.0, 1.0, 1.0]) == 4
    assert warm_up([2.0, 1.0]) == 0
