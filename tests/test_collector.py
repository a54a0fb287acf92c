"""`PerformanceCollector`, `DebugIntegration`, `debug_track`: used as the guide of the system they replace uses them."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from otel_debugstore import DebugIntegration, PerformanceCollector, debug_track, init_debug_integration
from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.report import tokens
from stored import stored_spans


def test_the_first_usage_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Decorate two functions, call them, have a report, close."""
    monkeypatch.chdir(tmp_path)
    collector = PerformanceCollector(session_id="my_session")

    @collector.instrument(layer="tool", tool_name="http_fetcher")
    def fetch(url: str) -> dict[str, Any]:
        time.sleep(0.01)
        return {"url": url, "status": 200}

    @collector.instrument(layer="tool", tool_name="json_parser")
    def parse(text: str) -> dict[str, Any]:
        raise ValueError(text)

    for number in range(3):
        assert fetch(f"https://example.org/{number}")["status"] == 200
    with pytest.raises(ValueError, match="nonsense"):
        parse("nonsense")
    with collector.track_execution(layer="step", tool_name="cleanup"):
        pass
    report = collector.generate_optimization_report(output_path=tmp_path / "report.md")
    collector.close()
    assert (tmp_path / "report.md").read_text() == report
    assert report.startswith("# Report")
    components = report.split("## Components")[1]
    fetched, parsed = (
        re.search(rf"^\| `{name}` \|.*", components, re.MULTILINE) for name in ("http_fetcher", "json_parser")
    )
    assert fetched
    assert parsed
    assert "| 3 |" in fetched[0]
    assert "100.0 %" in parsed[0]
    assert fetched.start() < parsed.start()  # the largest total first
    assert "1 calls failed" in report
    found = Counter(span.name for span in stored_spans(tmp_path / "debug_data"))
    assert found == {"http_fetcher": 3, "json_parser": 1, "cleanup": 1}


def test_a_report_within_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`max_tokens` is a hard limit; what is left out is counted, and components called too rarely are left out."""
    monkeypatch.chdir(tmp_path)
    with PerformanceCollector(session_id="s") as collector:
        for number in range(40):
            for _ in range(1 + number % 2):
                with collector.track_execution("tool", f"tool {number} \x1b[31m | *"):
                    pass
        for budget in (0, 10, 300, 1000):
            report = collector.generate_optimization_report(max_tokens=budget)
            assert tokens.count(report) <= budget
        assert "Left out" in report
        often = collector.generate_optimization_report(min_executions=2, max_tokens=100_000)
    calls = re.findall(r"^\| `tool \d+ [^`]*` \| (\d+) \|", often, re.MULTILINE)
    assert calls == ["2"] * 20
    assert "\x1b" not in often


def test_one_session_a_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second collector for another session is refused, also after `close`; one for the same session joins it."""
    monkeypatch.chdir(tmp_path)
    with PerformanceCollector(session_id="first") as first:
        assert PerformanceCollector(session_id="first").session_id == first.session_id == "first"
        with pytest.raises(ConfigurationError, match="first"):
            PerformanceCollector(session_id="second")
    with pytest.raises(ConfigurationError, match="'first' or no session_id here, or run this part in a process"):
        PerformanceCollector(session_id="second")
    assert PerformanceCollector().session_id == "first"


class Tracker:
    """A workflow tracker of a host."""

    def __init__(self, workflow_id: str) -> None:
        self.workflow_id = workflow_id

    def add_step(self, step_id: str, tool_name: str = "") -> None: ...

    def start_step(self, step_id: str) -> None: ...

    def complete_step(self, step_id: str, output: object = None) -> None: ...

    def fail_step(self, step_id: str, error: str) -> None: ...

    def finish(self) -> None: ...


def test_integration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trackers, steps and functions are recorded; after `close` the tracker is as it was."""
    monkeypatch.chdir(tmp_path)
    plain = Tracker.start_step

    @debug_track
    def plus(left: int, right: int) -> int:
        return left + right

    @debug_track("tool", "named")
    def named() -> None: ...

    with init_debug_integration(session_id="s") as integration:
        assert isinstance(integration, DebugIntegration)
        tracker = integration.track_workflow(Tracker("flow"))
        tracker.start_step("one")
        tracker.complete_step("one", 5)
        tracker.start_step("two")
        tracker.fail_step("two", "broken")
        tracker.finish()
        with integration.track_step("three", tool_name="fetch", inputs={"a": 1}):
            assert plus(1, 2) == 3
            named()

        @integration.track_function("counted")
        def counted() -> None: ...

        counted()
        assert "three" in integration.analyze()
    assert Tracker.start_step is plain
    spans = {span.name: span for span in stored_spans(tmp_path / "debug_data")}
    layers = {name: span.attributes["debugstore.layer"] for name, span in spans.items()}
    assert layers == {
        "flow": "workflow",
        "one": "step",
        "two": "step",
        "three": "step",
        f"{__name__}.test_integration.<locals>.plus": "function",
        "named": "tool",
        "counted": "function",
    }
    assert spans["named"].parent_id == spans["three"].span_id
    assert (spans["one"].status_code, spans["two"].status_code) == (0, 2)
