"""`DebugAnalyzer`: used on a store as the users of the system that it replaces use theirs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_debugstore import AnalysisPackage, DebugAnalyzer, DebugIntegration, DebugStore
from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.report import tokens

BEGAN = 1_700_000_000.0


def fill(store: DebugStore, parse_ms: float = 80.0) -> None:
    """Write the records of ten runs of a workflow: each fetches, and parses what it got."""
    for run in range(10):
        began = BEGAN + run
        store.write_record("workflow", f"run-{run}", "nightly", duration_ms=100.0, timestamp=began + 0.1)
        store.write_record(
            "tool",
            f"fetch-{run}",
            "fetch",
            parent_context=f"run-{run}",
            request_data={"url": f"https://example.org/{run}"},
            response_data="ok",
            duration_ms=10.0,
            timestamp=began + 0.011,
        )
        store.write_record(
            "tool",
            f"parse-{run}",
            "parse",
            parent_context=f"run-{run}",
            request_data={"text": "<html>"},
            duration_ms=parse_ms,
            timestamp=began + 0.1,
            status="error" if run < 2 else "success",
            error="no such field 17" if run < 2 else None,
            code_snapshot="def parse(text):\n    return text.split()\n",
        )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DebugStore]:
    """A store with ten runs of a workflow."""
    with DebugStore("nightly", tmp_path, auto_sync=False) as opened:
        fill(opened)
        yield opened


@pytest.fixture
def analyzer(store: DebugStore) -> Iterator[DebugAnalyzer]:
    """An analyzer of that store."""
    with DebugAnalyzer(store) as opened:
        yield opened


def test_a_package_says_what_is_slow_and_what_failed(analyzer: DebugAnalyzer) -> None:
    """The component that takes the workflow's time first, then failures, records with what went in, and traces."""
    package = analyzer.analyze_context()
    assert isinstance(package, AnalysisPackage)
    report = package.to_markdown(max_tokens=8_000)
    assert report.index("`parse` takes 80.0 % of the time of `nightly`") < report.index("## Recommendations")
    assert "2 calls failed (6.7 %)" in report
    assert '"request_data": "{\\"text\\":\\"<html>\\"}"' in report
    assert "no such field 17" in report
    assert "```python\ndef parse(text):\n    return text.split()\n```" in report


def test_a_context(analyzer: DebugAnalyzer) -> None:
    """By its type, its id, or its name; each selects the records of it."""

    def count(**context: str) -> int:
        return analyzer.analyze_context(**context).findings.overview.span_count  # type: ignore[arg-type]

    assert count() == 30
    assert count(context_type="tool") == 20
    assert count(context_name="parse") == 10
    assert count(context_type="tool", context_id="parse-3") == 1
    assert count(context_name="pars") == 0


def test_what_lies_below_a_context(store: DebugStore, analyzer: DebugAnalyzer) -> None:
    """It belongs to the context: a run of the workflow has its tools' calls, and no others."""
    findings = analyzer.analyze_context(context_id="run-3").findings
    assert {row["component"]: row["count"] for row in findings.rows("performance.groups")} == {
        "nightly": 1,
        "fetch": 1,
        "parse": 1,
    }
    assert {row["context_id"] for row in findings.records["slow_records"].dicts()} == {
        "run-3",
        "fetch-3",
        "parse-3",
    }
    assert analyzer.analyze_context(context_type="tool", context_id="run-3").findings.overview.span_count == 0


def test_a_context_of_very_many_spans(tmp_path: Path) -> None:
    """All that lies below it counts, however much."""
    with DebugStore("s", tmp_path, auto_sync=False) as store, DebugAnalyzer(store) as analyzer:
        for run in range(2):
            store.write_record("workflow", f"run-{run}", "nightly", duration_ms=1_000.0, timestamp=BEGAN + 1)
            for n in range(300):
                store.write_record(
                    "tool",
                    f"{run}-{n}",
                    "fetch",
                    parent_context=f"run-{run}",
                    duration_ms=1.0,
                    timestamp=BEGAN + n / 1_000,
                )
        findings = analyzer.analyze_context(context_id="run-1").findings
        assert findings.overview.span_count == 301
        workflows = findings.rows("critical_path.workflows")
        assert [(row["workflow"], row["runs"]) for row in workflows] == [("nightly", 1)]


def test_contexts_of_calls(tmp_path: Path) -> None:
    """A call that a decorator recorded is found by the id that `records` has for it, with the calls below it."""
    integration = DebugIntegration(session_id="calls", base_path=tmp_path)

    @integration.track_function()
    def inner(number: int) -> int:
        return number

    @integration.track_function()
    def outer(number: int) -> int:
        return inner(number) + inner(number + 1)

    for number in range(3):
        outer(number)
    integration.close()
    with DebugStore("calls", tmp_path, auto_sync=False) as store, DebugAnalyzer(store) as analyzer:
        rows = store.query_analytics("SELECT context_id FROM records WHERE context_name LIKE '%outer' ORDER BY id")
        assert len(rows) == 3
        for row in rows:
            package = analyzer.analyze_context(context_id=row["context_id"])
            assert package.findings.overview.span_count == 3
            assert len(package.findings.records["slow_records"].rows) == 3
            assert "takes" in package.to_markdown()


def test_samples_are_bounded(analyzer: DebugAnalyzer) -> None:
    """The slowest records and the newest failures, as many as were asked for."""
    records = analyzer.analyze_context(context_type="tool", max_samples=3, error_sample_limit=1).findings.records
    assert [row["context_name"] for row in records["slow_records"].dicts()] == ["parse"] * 3
    assert [row["context_id"] for row in records["failed_records"].dicts()] == ["parse-1"]
    none = analyzer.analyze_context(max_samples=0, error_sample_limit=0).findings.records
    assert not none["slow_records"].rows
    assert not none["failed_records"].rows


def test_records_written_later_are_taken_in(store: DebugStore, analyzer: DebugAnalyzer) -> None:
    """Each question is about what the store holds then."""
    before = analyzer.analyze_context().findings.overview.span_count
    store.write_record("tool", "late", "late", duration_ms=1.0)
    assert analyzer.analyze_context().findings.overview.span_count == before + 1


@pytest.mark.parametrize("budget", [100, 500, 4_000])
def test_a_package_within_its_budget(analyzer: DebugAnalyzer, budget: int) -> None:
    """In Markdown and in JSON."""
    package = analyzer.analyze_context()
    assert tokens.count(package.to_markdown(budget)) <= budget
    assert tokens.count(package.to_json(budget)) <= budget


def test_files(analyzer: DebugAnalyzer, tmp_path: Path) -> None:
    """The name of the file says the format; directories are made."""
    package = analyzer.analyze_context()
    markdown = analyzer.export_to_file(package, tmp_path / "new" / "report.md", max_tokens=1_000)
    assert markdown.read_text() == package.to_markdown(1_000)
    assert json.loads(analyzer.export_to_file(package, tmp_path / "report.json").read_text())["verdict"]
    assert analyzer.export_to_file(package, tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    assert analyzer.export_to_file(package, tmp_path / "x.txt", "json").read_text().startswith("{")
    with pytest.raises(ConfigurationError, match="markdown, json or html"):
        analyzer.export_to_file(package, tmp_path / "x", "xml")  # type: ignore[arg-type]


def test_sessions_are_compared(store: DebugStore, analyzer: DebugAnalyzer, tmp_path: Path) -> None:
    """What changed from sessions before; few of them decide nothing, and it is said."""
    with DebugStore("before", tmp_path, auto_sync=False) as other:
        fill(other, parse_ms=40.0)
    found = analyzer.compare_sessions("before")
    parse = next(row for row in found.components.dicts() if row["component"] == "parse")
    assert (parse["before_ns"], parse["after_ns"]) == (40e6, 80e6)
    assert parse["verdict"] == "undecided"
    assert any("Too few" in note for note in found.components.notes)
    assert analyzer.compare_sessions("nightly", "before").components.rows


def test_candidates(analyzer: DebugAnalyzer) -> None:
    """What to optimise next, without what is called too rarely or is too quick."""
    found = analyzer.get_optimization_candidates(min_executions=5)
    assert found[0]["component"] == "parse"
    assert {row["component"] for row in analyzer.get_optimization_candidates(5, min_duration_ms=50.0)} <= {
        "parse",
        "nightly",
    }
    assert analyzer.get_optimization_candidates(min_executions=11) == []


def test_an_empty_store(tmp_path: Path) -> None:
    """There is nothing to report, and it says so."""
    with DebugStore("empty", tmp_path, auto_sync=False) as store, DebugAnalyzer(store) as analyzer:
        assert "nothing to report" in analyzer.analyze_context().to_markdown()
        assert analyzer.get_optimization_candidates() == []
