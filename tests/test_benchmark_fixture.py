"""`BenchmarkFixture`: scenarios, results in a session, and the report, as the users of the former system know them."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarked
from otel_debugstore import BenchmarkFixture, BenchmarkOptions, BenchmarkScenario, DebugStore
from otel_debugstore.errors import ConfigurationError, InvalidSessionIdError
from otel_debugstore_analysis.analyses.compare import compare
from otel_debugstore_analysis.benchmark import create_standard_scenarios, history
from otel_debugstore_analysis.benchmark.scenarios import CATEGORIES
from otel_debugstore_analysis.query import DuckDBEngine
from otel_debugstore_exporters.reader import SessionReader

QUICK = BenchmarkOptions(processes=6, pairs=3)
ONE = BenchmarkOptions(processes=1, pairs=2)


def test_the_pattern_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs as written there: the implementations take the scenario's numbers."""
    monkeypatch.chdir(tmp_path)

    def implementation_v1(numbers: list[float]) -> float:
        return sum(numbers)

    def implementation_v2(numbers: list[float]) -> float:
        result = 0
        for number in numbers:
            result += number  # type: ignore[assignment]
        return result

    fixture = BenchmarkFixture(session_id="bench_001", options=ONE)
    scenarios = fixture.create_standard_scenarios("numeric_computation")
    results = fixture.benchmark(
        implementations={"v1": implementation_v1, "v2": implementation_v2}, scenarios=scenarios, layer="function"
    )
    report = fixture.generate_comparison_report(results)
    assert len(results) == 2 * len(scenarios)
    assert all(result.is_ranked for result in results if result.scenario == "integers")
    assert "## integers" in report
    assert (tmp_path / "debug_data" / "bench_001.lmdb").is_dir()


@pytest.fixture
def fixture(tmp_path: Path) -> BenchmarkFixture:
    return BenchmarkFixture("bench", tmp_path, QUICK)


NUMBERS = BenchmarkScenario("numbers", (list(range(2_000)),))


def test_what_fails_or_is_wrong_is_never_ranked(fixture: BenchmarkFixture) -> None:
    """It has no time and its cause stands in the report, apart; where the first fails, the next is the baseline."""
    results = fixture.benchmark(
        {
            "raises": benchmarked.raises,
            "total": benchmarked.total,
            "slow": benchmarked.slow_total,
            "wrong": benchmarked.wrong_total,
        },
        [NUMBERS],
    )
    found = {result.implementation: result for result in results}
    assert {name: result.verdict for name, result in found.items()} == {
        "raises": "failed",
        "total": "baseline",
        "slow": "slower",
        "wrong": "wrong",
    }
    assert found["raises"].median_ns is None
    assert found["wrong"].median_ns is None
    assert found["wrong"].duration_ms is None
    assert found["slow"].baseline == "total"
    assert found["slow"].ratio is not None
    assert found["slow"].ratio > 1.5
    report = fixture.generate_comparison_report(results)
    table, rest = report.split("Not ranked:")
    assert table.index("| total |") < table.index("| slow |")
    assert "| raises |" not in table
    assert "**raises** failed: " in rest
    assert "**wrong** wrong: " in rest


def test_one_implementation_is_measured_against_itself(fixture: BenchmarkFixture) -> None:
    """There is a time, and no ratio; one that fails says why."""
    [result] = fixture.benchmark({"total": benchmarked.total}, [NUMBERS])
    assert result.verdict == "baseline"
    assert result.median_ns is not None
    assert result.ratio is None
    [result] = fixture.benchmark({"raises": benchmarked.raises}, [NUMBERS])
    assert (result.verdict, result.is_ranked) == ("failed", False)
    assert "ValueError" in result.cause


def test_the_baseline_is_measured_though_all_others_are_wrong(fixture: BenchmarkFixture) -> None:
    """What is right has a time."""
    first, second = fixture.benchmark({"total": benchmarked.total, "wrong": benchmarked.wrong_total}, [NUMBERS])
    assert (first.verdict, first.is_ranked) == ("baseline", True)
    assert (second.verdict, second.is_ranked) == ("wrong", False)


def test_results_are_read_back_from_the_session(fixture: BenchmarkFixture, tmp_path: Path) -> None:
    """By the view `benchmarks`, by `history`, and by analyses, which find the calls of each process."""
    [_, result] = fixture.benchmark({"total": benchmarked.total, "slow": benchmarked.slow_total}, [NUMBERS])
    with DebugStore("bench", tmp_path) as store:
        [row] = store.query_analytics("SELECT * FROM benchmarks")
    assert (row["name"], row["baseline"], row["candidate"], row["verdict"]) == ("numbers", "total", "slow", "slower")
    assert (row["ratio"], row["ratio_low"], row["ratio_high"]) == (result.ratio, result.ratio_low, result.ratio_high)
    assert (row["processes"], row["checked"], row["unit"]) == (6, 12, "ns")
    assert row["trace_id"] == result.trace_id
    assert row["baseline_variant"] != row["candidate_variant"]
    assert json.loads(row["classes"])[0]["label"] == "numbers"

    again = fixture.benchmark({"total": benchmarked.total, "wrong": benchmarked.wrong_total}, [NUMBERS])
    listed = history(tmp_path).dicts()
    assert [each["verdict"] for each in listed] == ["equal", "wrong", "slower"] or listed[0]["verdict"] == "undecided"
    assert listed[1]["trace_id"] == again[1].trace_id
    assert listed[1]["ratio"] is None
    assert history(tmp_path, "numbers", limit=1).left_out is None
    assert not history(tmp_path, "others").rows
    assert not history(tmp_path / "nothing").rows

    with SessionReader(tmp_path, ["bench"]) as reader:
        rows = reader.query("SELECT component, count(*), count(DISTINCT pid) FROM spans GROUP BY ALL ORDER BY 1").rows
        found = compare(DuckDBEngine(reader), ["bench"], ["bench"], max_traces=0).components.dicts()
    assert ("slow", 6, 6) in [tuple(each) for each in rows]
    assert {"slow", "total"} <= {each["component"] for each in found}


@pytest.mark.parametrize("category", sorted(CATEGORIES))
def test_standard_scenarios_are_the_same_everywhere(category: str) -> None:
    """Twice the same here, and in an interpreter with another hash seed; another seed is other data."""
    here = _digest(category)
    assert _digest(category) == here
    code = f"import test_benchmark_fixture as t; print(t._digest({category!r}))"
    there = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert there.stdout.strip() == here
    assert here == DIGESTS[category]


def _digest(category: str) -> str:
    found = [(each.name, repr(each.args)) for each in create_standard_scenarios(category)]
    return hashlib.sha256(repr(found).encode()).hexdigest()[:16]


DIGESTS = {
    "data_transformation": "7744aed9565eefe3",
    "edge_cases": "42aea12bc28d895f",
    "list_operations": "2d2b22b3bc1cf3f9",
    "mixed": "1ccb92185894be80",
    "numeric_computation": "bf254224b7a201cd",
    "text_processing": "428b4643285ee628",
}
"""Pinned: every machine and version of Python makes the same data."""


def test_edge_cases_may_raise(fixture: BenchmarkFixture) -> None:
    """Two implementations that raise the same are held to be equal there."""
    scenarios = [
        each for each in fixture.create_standard_scenarios("edge_cases") if each.name in ("none", "empty_text")
    ]
    results = fixture.benchmark({"one": benchmarked.doubled_length, "other": lambda text: 2 * len(text)}, scenarios)
    assert len(results) == 4
    assert all(result.is_ranked for result in results), [result.cause for result in results]


def test_expected_outputs(fixture: BenchmarkFixture) -> None:
    """A scenario may say what is right, so that the baseline can be wrong, too."""
    scenario = BenchmarkScenario("three", ([1, 2],), expected=3)
    first, second = fixture.benchmark({"wrong": benchmarked.wrong_total, "total": benchmarked.total}, [scenario])
    assert (first.is_ranked, second.verdict) == (False, "baseline")


def test_iterations_are_pairs(tmp_path: Path) -> None:
    """A scenario's own number of them goes before the options'."""
    fixture = BenchmarkFixture("bench", tmp_path, BenchmarkOptions(processes=1, pairs=20))
    [scenario] = fixture.create_standard_scenarios("numeric_computation", iterations=2)[:1]
    [result] = fixture.benchmark({"total": benchmarked.total}, [scenario])
    assert result.pairs == 2


def test_the_report_is_plain_markdown(fixture: BenchmarkFixture, tmp_path: Path) -> None:
    """Names can't break it, and it is written to a file where that is wanted."""
    scenario = BenchmarkScenario("a|b\n<script>", ([1],))
    results = fixture.benchmark({"x`y": benchmarked.total}, [scenario])
    report = fixture.generate_comparison_report(results, tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text() == report
    assert "<script>" not in report
    assert "a\\|b" in report
    assert fixture.generate_comparison_report([]).endswith("Nothing was measured.\n")


def test_what_cannot_be(tmp_path: Path) -> None:
    """It is refused."""
    fixture = BenchmarkFixture("bench", tmp_path)
    with pytest.raises(ConfigurationError, match="no scenarios of 'sorting'"):
        fixture.create_standard_scenarios("sorting")
    with pytest.raises(ConfigurationError, match="at least one"):
        fixture.benchmark({}, [NUMBERS])
    with pytest.raises(ConfigurationError, match="layer"):
        fixture.benchmark({"total": benchmarked.total}, [NUMBERS], layer="engine")  # type: ignore[arg-type]
    with pytest.raises(InvalidSessionIdError):
        BenchmarkFixture("../bench")


def test_edge_cases_hold_a_number_that_is_none() -> None:
    """NaN is among them, and equals itself when outputs are compared."""
    [scenario] = [each for each in create_standard_scenarios("edge_cases") if each.name == "not_a_number"]
    assert any(math.isnan(value) for value in scenario.args[0])
