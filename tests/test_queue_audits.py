"""What audits make of the queue: one item a component, whatever it is called, and none that is not so any more."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from audited import calls, sealed
from commands import run, run_well
from otel_debugstore import PerformanceAuditor, PerformanceThreshold
from otel_debugstore_analysis.queue import Finding, OptimizationQueue, QueueItem, Violation, package
from otel_debugstore_exporters.state import State
from queues import FASTER, SECOND, SLOW, Clock, found
from recording import modules
from sessions import START_NS, hex_id

FETCH: Final = """
    import time
    def fetch(url):
        time.sleep(0.002)
        return url
"""
SLOW_TOOLS: Final = {"tool": PerformanceThreshold(max_duration_ms=1.0)}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> OptimizationQueue:
    return OptimizationQueue(tmp_path, clock=clock)


def proof(item: QueueItem) -> dict[str, Any]:
    return FASTER | {"component": item.component}


@pytest.mark.parametrize("own_name_first", [True, False])
@pytest.mark.parametrize("by", ["name", "code"])
def test_a_component_under_a_name_of_the_users_own(queue: OptimizationQueue, own_name_first: bool, by: str) -> None:
    """It is one item with what its calls are recorded as, and has the user's name, whichever was audited first."""
    own = found("http_fetcher", recorded_as="parse" if by == "name" else "another name")
    plain = found(variant="v2" if by == "name" else "v1")
    findings = [own, plain] if own_name_first else [plain, own]
    ids = {queue.put(finding).id for finding in (*findings, *findings)}
    (item,) = queue.items()
    assert ids == {item.id}
    assert (item.component, item.recorded_name) == ("http_fetcher", own.recorded_as)
    assert queue.recorded_name("http_fetcher") == item.recorded_name == queue.recorded_name(item.recorded_name)
    assert queue.get(item.recorded_name) == item
    assert f"recorded as `{item.recorded_name}`" in package(item)


def test_equal_code_of_two_components(queue: OptimizationQueue) -> None:
    """Each is an item, as are two that the user names, and those of two layers."""
    queue.put_all([found("a"), found("b"), found("own a", "v5", recorded_as="x")])
    queue.put(found("own b", "v5", recorded_as="x"))
    queue.put(Finding("x", "function", "v7", [SLOW]))
    assert len(queue.items()) == 5


def test_equal_code_of_a_component_with_a_name_of_its_own(queue: OptimizationQueue) -> None:
    """It is that of the calls, where the audit found these; by the code alone one other is, not several."""
    own = queue.put(found("own", recorded_as="a"))
    queue.put_all([found("b"), found("a", seen_ns=START_NS), found("c")])
    assert {(item.component, item.recorded_name) for item in queue.items()} == {("own", "a"), ("b", "b"), ("c", "c")}
    assert queue.get(own.id).seen_ns == START_NS
    queue.put(found("own 2", "v2", recorded_as="x"))
    queue.put_all([found("y", "v2"), found("z", "v2")])
    assert sorted(item.component for item in queue.items()) == ["b", "c", "own", "own 2", "z"]


def test_own_names_go_stale(queue: OptimizationQueue) -> None:
    """Once other code is called under the name that their calls are recorded as."""
    queue.put(found("http_fetcher", recorded_as="parse", seen_ns=START_NS))
    sealed(queue.base_path, calls([1], "http_fetcher", variant="v8", start_ms=1_000))
    assert queue.refresh() == []
    sealed(queue.base_path, calls([1], "parse", variant="v2", start_ms=2_000), session="t")
    assert [item.component for item in queue.refresh()] == ["http_fetcher"]


def test_items_that_were_stored_before(queue: OptimizationQueue) -> None:
    """An item without the fields that came later is read, audited, and proven."""
    item = queue.put(found(trace_ids=[hex_id(1, 32)]))
    stored = item.to_json()
    for name in ("recorded_as", "is_unapplied"):
        del stored[name]
    State(queue.base_path).put("queue", item.id, stored)
    assert queue.items() == [item]
    assert queue.put(found()).id == item.id
    assert queue.prove(item.id, proof(item)).is_closed


def test_what_keeps_its_limits_by_now(queue: OptimizationQueue, clock: Clock) -> None:
    """The item has the newest figures, comes last, and is not handed out; but only a proof closes it."""
    queue.put_all([found(trace_ids=[hex_id(1, 32)], seen_ns=START_NS), found("other")])
    good = found(violations=[], measured={"p95_ns": 1e8}, target={"p95_ns": 5e8}, seen_ns=START_NS + SECOND)
    for _ in range(3):
        clock.now_ns += SECOND
        assert queue.put_all([], [good, found("never in the queue", violations=[])]) == []
    assert [item.component for item in queue.items()] == ["other", "parse"]
    item = queue.get("parse")
    assert (item.state, item.violations, item.measured, item.priority) == ("open", (), {"p95_ns": 1e8}, 0.0)
    assert [event.what for event in item.history[1:]] == ["audited: it keeps its limits"]
    assert State(queue.base_path).pinned() == frozenset()
    assert "keeps its limits" in run_well("queue", "list", "--data-dir", queue.base_path)
    assert "keeps its limits" in package(item)
    first = queue.claim_next("ann")
    assert first is not None
    assert (first.component, queue.claim_next("bob")) == ("other", None)
    assert queue.put(found()).violations == (SLOW,)
    assert queue.claim_next("bob") is not None


def test_other_limits_are_kept(queue: OptimizationQueue) -> None:
    """An audit says nothing of limits that it did not look at: what was violated stays, and is handed out."""
    before = queue.put(found(trace_ids=[hex_id(1, 32)], seen_ns=START_NS))
    other = found(violations=[], measured={"error_rate": 0.0}, target={"error_rate": 0.9}, seen_ns=START_NS + SECOND)
    queue.put_all([], [other])
    item = queue.get("parse")
    assert (item.violations, item.trace_ids, item.priority) == (before.violations, before.trace_ids, before.priority)
    assert item.target == {**before.target, "error_rate": 0.9}
    assert queue.claim_next("ann") is not None


def test_other_limits_are_violated_too(queue: OptimizationQueue) -> None:
    """The item has both, once, until an audit that looks at them says otherwise, or the code changes."""
    errors = Violation("error_rate", 0.5, 0.1)
    queue.put(
        found(
            measured={"p95_ns": 8e8},
            target={"p95_ns": 5e8},
            trace_ids=[hex_id(1, 32)],
            tests=["pytest"],
            expected_saving_ns_per_s=2e6,
        )
    )
    both = found(violations=[errors], measured={"error_rate": 0.5}, target={"error_rate": 0.1})
    for _ in range(2):
        item = queue.put(replace(both, trace_ids=[hex_id(2, 32)], expected_saving_ns_per_s=0.0))
    assert item.violations == (errors, SLOW)
    assert (item.measured, item.target) == ({"p95_ns": 8e8, "error_rate": 0.5}, {"p95_ns": 5e8, "error_rate": 0.1})
    assert (item.trace_ids, item.tests) == ((hex_id(2, 32), hex_id(1, 32)), ("pytest",))
    assert item.expected_saving_ns_per_s == 2e6
    assert "p95_ns" in item.history[-1].what
    same_limit, other_limit = ({"p95_ns": limit} for limit in (SLOW.limit, 50 * SLOW.limit))
    assert queue.put(replace(both, undecided=same_limit)).violations == (errors, SLOW)
    assert queue.put(replace(both, undecided=other_limit)).violations == (errors,)
    assert queue.put(found()).violations == (SLOW, errors)
    assert queue.put(replace(both, kept=["p95_ns"])).violations == (errors,)
    assert queue.put(found()).violations == (SLOW, errors)
    assert queue.put(found(variant="v2", seen_ns=2 * START_NS)).violations == (SLOW,)


def test_other_code_that_keeps_the_limits(queue: OptimizationQueue) -> None:
    """The item is about code that does not run any more: it is stale, unless somebody holds it or it is proven."""
    for component in ("free", "held", "proven"):
        queue.put(found(component, seen_ns=START_NS))
    queue.claim("held", "ann")
    closed = queue.prove("proven", proof(queue.get("proven")))
    names = ("free", "held", "proven")
    queue.put_all([], [found(name, "v2", violations=[], seen_ns=START_NS + SECOND) for name in names])
    assert [(queue.get(name).state, queue.get(name).variant) for name in names] == [
        ("stale", "v1"),
        ("claimed", "v1"),
        ("proven", "v1"),
    ]
    assert "v2 keeps its limits" in queue.get("free").history[-1].what
    assert queue.get("proven") == closed


def test_older_calls_that_keep_the_limits(queue: OptimizationQueue) -> None:
    """They say nothing of those that did not."""
    before = queue.put(found(seen_ns=START_NS))
    queue.put_all([], [found(violations=[], seen_ns=START_NS - 1)])
    assert queue.items() == [before]


def test_a_proof_that_was_not_applied(queue: OptimizationQueue, clock: Clock) -> None:
    """Where the old code was still called after the proof, the list and the package say so."""
    item = queue.put(found(seen_ns=START_NS))
    clock.now_ns += SECOND
    assert not queue.prove(item.id, proof(item)).is_unapplied
    assert not queue.put(found(seen_ns=START_NS + SECOND // 2)).is_unapplied
    item = queue.put(found(seen_ns=START_NS + 2 * SECOND))
    assert (item.state, item.is_unapplied) == ("proven", True)
    assert "proven, not applied" in run_well("queue", "list", "--no-refresh", "--data-dir", queue.base_path)
    (listed,) = json.loads(run_well("queue", "list", "--no-refresh", "--format", "json", "--data-dir", queue.base_path))
    assert (listed["state"], listed["is_unapplied"]) == ("proven", True)
    assert "not in use" in package(item)


def test_the_loop_from_the_second_usage_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An item of `component_name` is the one that `debugstore audit` finds, and goes stale when its code changes."""
    monkeypatch.chdir(tmp_path)
    settings = '[tool.otel-debugstore.thresholds.component."fetcher.*"]\nmax-duration-ms = 1\n'
    (tmp_path / "pyproject.toml").write_text(settings)
    with modules(tmp_path, fetcher=FETCH):
        from fetcher import fetch  # type: ignore[import-not-found]

        with PerformanceAuditor("s", SLOW_TOOLS) as auditor:
            tracked = auditor.create_tracking_version(fetch, "tool")
            for _ in range(100):
                tracked("x")
            auditor.audit_component(fetch, layer="tool", component_name="http_fetcher")
            assert run("audit", "--session", "s").exit_code == 1
            (candidate,) = auditor.get_optimization_queue()
            assert candidate.component_name == "http_fetcher"
            assert auditor.queue.get("fetcher.fetch").recorded_as == "fetcher.fetch"
            auditor.audit_component(fetch, "tool", "http_fetcher", threshold=PerformanceThreshold(max_duration_ms=9e4))
            assert auditor.get_optimization_queue() == []
    newest_ns = auditor.queue.get("http_fetcher").seen_ns
    sealed(
        tmp_path / "debug_data", calls([1], "fetcher.fetch", variant="v2", start_ms=(newest_ns - START_NS) / 1e6 + 9)
    )
    assert [item.component for item in auditor.queue.refresh()] == ["http_fetcher"]
