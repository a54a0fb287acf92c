"""`PerformanceAuditor`: used as the guide of the system it replaces uses its own, and what went wrong there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from audited import calls, project, sealed
from otel_debugstore import PerformanceAuditor, PerformanceThreshold
from otel_debugstore.errors import ConfigurationError, SessionNotFoundError
from recording import modules

FETCH = """
    import time
    def fetch(url):
        time.sleep(0.02)
        return url
"""


def test_the_second_usage_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a tracking version, call it, audit the component with its tests, look at the queue."""
    monkeypatch.chdir(tmp_path)
    project(
        tmp_path,
        "import time\ndef fetch(url):\n    time.sleep(0.55)\n    return {'url': url}\n",
        "from http_fetcher import fetch\ndef test_fetch():\n    assert fetch('x') == {'url': 'x'}\n",
        name="http_fetcher",
    )
    with modules(tmp_path):
        from http_fetcher import fetch  # type: ignore[import-not-found]

        auditor = PerformanceAuditor(
            session_id="my_audit", thresholds={"tool": PerformanceThreshold(max_duration_ms=500.0)}
        )
        tracked = auditor.create_tracking_version(fetch, "tool")
        for number in range(3):
            assert tracked(f"https://example.org/{number}") == {"url": f"https://example.org/{number}"}
        result = auditor.audit_component(
            fetch,
            layer="tool",
            component_name="http_fetcher",
            run_tests=True,
            test_command="pytest tests/test_http_fetcher.py",
        )
    assert not result.passed
    assert "p95 of the duration" in result.violations[0]
    assert result.metrics["p95_ms"] == pytest.approx(555, abs=50)
    assert result.threshold == PerformanceThreshold(max_duration_ms=500.0)
    assert "Bring the p95 of the duration" in result.recommendation
    assert result.tests is not None
    assert (result.tests.verdict, result.tests.recorded_calls) == ("pass", 1)
    (candidate,) = auditor.get_optimization_queue()
    assert (candidate.component_name, candidate.layer) == ("http_fetcher", "tool")
    assert candidate.current_metrics["p95_ms"] > candidate.target_metrics["p95_ms"] == 500
    assert "def fetch(url)" in (candidate.code_snapshot or "")
    assert candidate.test_file == "pytest tests/test_http_fetcher.py"
    assert auditor.get_optimization_queue(min_priority=candidate.priority * 2) == []
    report = auditor.generate_audit_report(tmp_path / "audit.md")
    assert (tmp_path / "audit.md").read_text() == report
    assert "`http_fetcher`: fail" in report


def test_it_reads_the_durations(tmp_path: Path) -> None:
    """The figures are those of the calls: not of another column, and not of the context."""
    sealed(tmp_path, calls([100] * 10, memory_mb=7, cpu_ms=50))
    result = PerformanceAuditor("s", base_path=tmp_path).audit_component("work")
    assert result.metrics["p95_ms"] == pytest.approx(100)
    assert result.metrics["memory_mb"] == pytest.approx(7)


def test_auditing_again_updates(tmp_path: Path) -> None:
    """One component is one item of the queue, however often it is audited; the newest figures stand there."""
    sealed(tmp_path, calls([2_000] * 5))
    auditor = PerformanceAuditor("s", base_path=tmp_path)
    auditor.audit_component("work")
    sealed(tmp_path, calls([4_000] * 50))
    auditor.audit_component("work")
    PerformanceAuditor("s", base_path=tmp_path).audit()
    (candidate,) = auditor.get_optimization_queue()
    assert candidate.current_metrics["p95_ms"] == pytest.approx(4_000)


def test_what_is_undecided_is_not_queued(tmp_path: Path) -> None:
    """Neither what is undecided nor what passes comes into the queue."""
    sealed(tmp_path, calls([2_000], "few") + calls([1] * 100, "good"))
    auditor = PerformanceAuditor("s", base_path=tmp_path)
    assert {one.verdict for one in auditor.audit()} == {"undecided", "pass"}
    assert auditor.get_optimization_queue() == []


def test_the_queue_file_is_an_export(tmp_path: Path) -> None:
    """The file is written in one piece, after the queue: one that can't be written loses nothing."""
    sealed(tmp_path, calls([2_000] * 5))
    path = tmp_path / "out" / "queue.json"
    path.parent.mkdir()
    PerformanceAuditor("s", base_path=tmp_path, optimization_queue_path=path).audit()
    exported = json.loads(path.read_text())
    assert "work" in json.dumps(exported)
    assert [one.name for one in path.parent.iterdir()] == ["queue.json"]
    path.unlink()
    path.mkdir()
    sealed(tmp_path, calls([9_000] * 5, "other"))
    auditor = PerformanceAuditor("s", base_path=tmp_path, optimization_queue_path=path)
    with pytest.raises(Exception, match=r"queue\.json"):
        auditor.audit()
    assert {one.component_name for one in auditor.get_optimization_queue()} == {"work", "other"}


def test_by_code_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls are found by the code of the function: under other names, and not under its name with other code."""
    monkeypatch.chdir(tmp_path)
    with modules(tmp_path, fetcher=FETCH, other="def fetch(url): return 1"):
        from fetcher import fetch  # type: ignore[import-not-found]
        from other import fetch as another  # type: ignore[import-not-found]

        auditor = PerformanceAuditor("s", {"tool": PerformanceThreshold(max_duration_ms=10)})
        for _ in range(3):
            auditor.create_tracking_version(fetch, "tool", "old name")("x")
            auditor.create_tracking_version(fetch, "tool")("x")
            auditor.create_tracking_version(another, "tool", "new name")("x")
        result = auditor.audit_component(fetch, "tool", "new name")
        assert (result.metrics["calls"], result.verdict) == (6, "fail")
        assert "were of other code" in result.cause
        nothing = auditor.audit_component(another, "tool", "fetcher.fetch", threshold=PerformanceThreshold())
        assert nothing.metrics["calls"] == 3


def test_a_twin_is_a_twin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function stays as it is; its twin gives the same and raises the same; a twin's twin records once."""
    monkeypatch.chdir(tmp_path)

    def divide(by: int) -> float:
        return 1 / by

    with PerformanceAuditor("s") as auditor:
        twin = auditor.create_tracking_version(divide, "function", "divide")
        assert auditor.create_tracking_version(twin, "function", "divide")(2) == 0.5
        with pytest.raises(ZeroDivisionError):
            twin(0)
        divide(1)
        result = auditor.audit_component(divide, "function", "divide")
    assert (result.metrics["calls"], result.metrics["error_rate"]) == (2, 0.5)


def test_no_call_at_all(tmp_path: Path) -> None:
    """A component that nobody called has not passed."""
    sealed(tmp_path, calls([1]))
    result = PerformanceAuditor("s", base_path=tmp_path).audit_component("nobody")
    assert (result.passed, result.verdict, result.metrics["calls"]) == (False, "undecided", 0)
    assert result.cause == "No call of it was recorded. Looked at: s."


def test_no_limits(tmp_path: Path) -> None:
    """Where nothing is limited nothing was checked, which is not to pass."""
    sealed(tmp_path, calls([1] * 100))
    result = PerformanceAuditor("s", base_path=tmp_path).audit_component("work", threshold=PerformanceThreshold())
    assert (result.passed, result.verdict, result.checks) == (False, "undecided", ())
    assert (result.cause, result.recommendation) == ("It has no limits.", "Give it a limit: nothing was checked.")


def test_nothing_recorded_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An audit before the first call is undecided, also of what has no limits."""
    monkeypatch.chdir(tmp_path)
    auditor = PerformanceAuditor("s", {})
    auditor.create_tracking_version(sealed)
    for limits in (None, PerformanceThreshold()):
        result = auditor.audit_component(sealed, threshold=limits)
        assert (result.passed, result.verdict, result.metrics["calls"]) == (False, "undecided", 0)


def test_bad_arguments(tmp_path: Path) -> None:
    """No such layer, session, or threshold; a test command that needs a shell."""
    sealed(tmp_path, calls([1]))
    auditor = PerformanceAuditor("s", base_path=tmp_path)
    with pytest.raises(ConfigurationError, match="is no layer"):
        auditor.audit_component("work", "toll")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="needs a shell"):
        auditor.audit_component("work", test_command="cd x && pytest")
    with pytest.raises(ConfigurationError, match="takes a PerformanceThreshold"):
        PerformanceAuditor("s", {"tool": 5}, base_path=tmp_path)  # type: ignore[dict-item]
    with pytest.raises(SessionNotFoundError):
        PerformanceAuditor("none", base_path=tmp_path).audit()
