"""The optimization queue: one item a component, whoever audits; claimed, proposed, and closed by a proof only."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from faults import Workers
from otel_debugstore.errors import CorruptDataError, DebugStoreError
from otel_debugstore_analysis.queue import (
    STATES,
    ClaimedError,
    Code,
    OptimizationQueue,
    QueueError,
    QueueItem,
    Violation,
    package,
)
from otel_debugstore_exporters.retention import apply_retention
from otel_debugstore_exporters.session import SessionPaths, list_sessions
from otel_debugstore_exporters.state import State
from queues import FASTER, SECOND, SLOW, Clock, found, said
from sessions import START_NS, hex_id, span, write_sealed


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> OptimizationQueue:
    return OptimizationQueue(tmp_path, clock=clock)


def test_an_item_has_what_the_audit_found(queue: OptimizationQueue, clock: Clock) -> None:
    """And is there for everybody who opens the queue."""
    finding = found(
        measured={"p95_ns": 8e8},
        target={"p95_ns": 5e8},
        trace_ids=[hex_id(1, 32), "nonsense", hex_id(1, 32)],
        code=Code("def parse(): ...", "app.parse", "app.py", 7),
        tests=["pytest", "-q", "tests/a b.py"],
        expected_saving_ns_per_s=2e6,
        confidence=0.5,
        seen_ns=5,
    )
    item = queue.put(finding)
    assert OptimizationQueue(queue.base_path, clock=clock).items() == [item]
    assert (item.component, item.layer, item.variant, item.state) == ("parse", "tool", "v1", "open")
    assert (item.violations, item.code, item.tests) == ((SLOW,), finding.code, ("pytest", "-q", "tests/a b.py"))
    assert (item.measured, item.target, item.trace_ids) == ({"p95_ns": 8e8}, {"p95_ns": 5e8}, (hex_id(1, 32),))
    assert (item.created_ns, item.updated_ns, item.seen_ns) == (START_NS, START_NS, 5)
    assert item.priority == pytest.approx((1 + 1.0) * 1.6)
    assert item.priority_terms == {"saved_ns_per_s": 1e6, "excess": pytest.approx(1.6), "rejections": 0}


def test_the_most_urgent_comes_first(queue: OptimizationQueue) -> None:
    """What saves most, is furthest over its limit, and was not tried in vain. A limit of 0 is one."""
    queue.put_all(
        [
            found("a", violations=[Violation("p95_ns", 2e8, 1e8)]),
            found("saves", violations=[Violation("p95_ns", 2e8, 1e8)], expected_saving_ns_per_s=50e6),
            found("zero", violations=[Violation("error_rate", 0.001, 0.0)]),
            found("half missing", violations=[Violation("success_rate", 0.80, 0.95)]),
        ]
    )
    assert [item.component for item in queue.items()] == ["saves", "zero", "half missing", "a"]
    assert [item.priority_terms["excess"] for item in queue.items()] == [2, 10, pytest.approx(4), 2]
    for _ in range(20):
        queue.reject("saves", "no use")
    assert queue.items()[-1].component == "a"
    assert [item.component for item in queue.items(min_priority=5)] == ["zero"]
    assert [item.component for item in queue.items(["rejected"])] == ["saves"]
    with pytest.raises(QueueError, match="is no state; there are open, claimed"):
        queue.items(["done"])  # type: ignore[list-item]


def test_auditing_again_updates(queue: OptimizationQueue, clock: Clock) -> None:
    """It never doubles: the item has the newest values, and its history says when it was found."""
    first = queue.put(found(measured={"p95_ns": 8e8}))
    for minute in range(1, 200):
        clock.now_ns = START_NS + 60 * SECOND * minute
        queue.put(found(measured={"p95_ns": 8e8 + minute}))
    (item,) = queue.items()
    assert (item.id, item.created_ns, item.updated_ns) == (first.id, START_NS, clock.now_ns)
    assert item.measured == {"p95_ns": 8e8 + 199}
    assert [event.at_ns for event in item.history] == [START_NS, clock.now_ns]
    queue.put(found(layer="function"))
    assert len(queue.items()) == 2


def test_processes_audit_at_once(tmp_path: Path, workers: Workers) -> None:
    """Each component has one item, whoever audits, and every audit is in it."""
    paths = SessionPaths(tmp_path, "s")
    others = [workers.start("audit_again", paths, components=8, times=10) for _ in range(3)]
    assert [other.wait() for other in others] == [0, 0, 0]
    items = OptimizationQueue(tmp_path).items()
    assert sorted(item.component for item in items) == [f"component {number}" for number in range(8)]


def test_an_auditor_that_is_killed(tmp_path: Path, workers: Workers) -> None:
    """What it put is there as a whole, all items of an audit or none."""
    for times in range(1, 5):
        worker = workers.start("audit_again", SessionPaths(tmp_path, "s"), components=20, times=1 << 30)
        worker.wait_for(times).kill()
        assert len(OptimizationQueue(tmp_path).items()) == 20


def test_processes_claim_at_once(tmp_path: Path, workers: Workers) -> None:
    """Each item goes to one of them."""
    OptimizationQueue(tmp_path).put_all(found(f"c{number}") for number in range(20))
    others = [workers.start("claim_all", SessionPaths(tmp_path, "s"), by=f"agent {number}") for number in range(3)]
    assert [other.wait() for other in others] == [0, 0, 0]
    claimed = [item for other in others for item in other.said()]
    assert sorted(claimed) == sorted(item.id for item in OptimizationQueue(tmp_path).items(["claimed"]))
    assert len(claimed) == 20


def test_a_claim_lasts_as_long_as_its_lease(queue: OptimizationQueue, clock: Clock) -> None:
    """While it lasts nobody else takes the item; after that it is open, and the history says so."""
    queue.put(found())
    assert queue.claim("parse", "ann", lease_s=60).lease == ("ann", START_NS + 60 * SECOND)
    with pytest.raises(ClaimedError, match="'ann' until"):
        queue.claim("parse", "bob")
    assert queue.claim_next("bob") is None
    clock.now_ns += 50 * SECOND
    assert queue.claim("parse", "ann", lease_s=60).state == "claimed"
    clock.now_ns += 59 * SECOND
    assert queue.get("parse").state == "claimed"
    clock.now_ns += SECOND
    assert (queue.get("parse").state, queue.get("parse").lease) == ("open", None)
    item = queue.claim("parse", "bob")
    assert said(item) == ["open", "claimed", "claimed", "open", "claimed"]
    assert "lease of ann is over" in item.history[3].what
    with pytest.raises(ClaimedError):
        queue.propose("parse", "fast:parse", "ann")


@pytest.mark.parametrize("lease_s", [0, -1, math.inf, math.nan])
def test_a_lease_that_is_none(queue: OptimizationQueue, lease_s: float) -> None:
    """It is refused, as is a claim of nobody; the item stays open."""
    queue.put(found())
    with pytest.raises(QueueError, match="number of seconds"):
        queue.claim("parse", "ann", lease_s)
    with pytest.raises(QueueError, match="who does it"):
        queue.claim("parse", "  ")
    assert queue.get("parse").state == "open"


def test_a_claim_is_given_up(queue: OptimizationQueue) -> None:
    """By who has it, and nobody else."""
    queue.put(found())
    with pytest.raises(QueueError, match="no claim"):
        queue.release("parse", "ann")
    queue.claim("parse", "ann")
    with pytest.raises(ClaimedError):
        queue.release("parse", "bob")
    assert queue.release("parse", "ann").state == "open"
    assert queue.claim("parse", "bob").lease is not None


def test_a_rejected_candidate_leaves_the_item(queue: OptimizationQueue) -> None:
    """It can be claimed again, later than before, and whoever does reads why the last one failed."""
    before = queue.put(found())
    queue.claim("parse", "ann")
    with pytest.raises(ClaimedError):
        queue.reject("parse", "I don't like it", by="bob")
    with pytest.raises(QueueError, match="reason"):
        queue.reject("parse", " ", by="ann")
    item = queue.reject("parse", "other result for ''", {"verdict": "wrong", "cause": "differs"}, "ann")
    assert (item.state, item.rejections, item.lease) == ("rejected", 1, None)
    assert item.priority == before.priority / 2
    assert "other result for ''" in package(item, 2_000)
    assert queue.claim_next("bob") is not None
    assert queue.prove("parse", FASTER, "bob").is_closed


def test_other_code_begins_again(queue: OptimizationQueue, clock: Clock) -> None:
    """An audit of a new version opens the item, whatever was; of the same version it changes no state."""
    queue.put(found(seen_ns=START_NS))
    changes: dict[str, Callable[[], QueueItem]] = {
        "claimed": lambda: queue.claim("parse", "ann"),
        "proposed": lambda: queue.propose("parse", "fast:parse", "ann"),
        "rejected": lambda: queue.reject("parse", "no", by="ann"),
        "proven": lambda: queue.prove("parse", FASTER),
    }
    for state, change in changes.items():
        change()
        number = STATES.index(queue.get("parse").state)
        assert queue.put(found(variant=queue.get("parse").variant)).state == state
        clock.now_ns += SECOND
        item = queue.put(found(variant=f"after {state} {number}"))
        assert (item.state, item.lease, item.proposal, item.evidence, item.rejections) == ("open", None, None, None, 0)
        assert "the code changed" in item.history[-1].what


def test_an_audit_of_older_code_changes_nothing(queue: OptimizationQueue) -> None:
    """What ran before the newest audit's calls says nothing of the code as it is."""
    item = queue.put(found(variant="v2", seen_ns=200))
    assert queue.put(found(variant="v1", seen_ns=100)) == item
    assert queue.get("parse") == item


def test_a_proven_item_of_unknown_code_opens_again(queue: OptimizationQueue) -> None:
    """Nothing says that it is not the new code that is too slow."""
    queue.put(found(variant=None))
    assert queue.put(found(variant=None)).state == "open"
    queue.prove("parse", FASTER)
    assert queue.put(found(variant=None)).state == "open"


def _ran(base_path: Path, session: str, component: str, variant: str, start_ms: float) -> None:
    attributes = {"debugstore.layer": "tool", "debugstore.component": component, "debugstore.variant": variant}
    write_sealed(base_path, session, [span(1, component, start_ms=start_ms, attributes=attributes)])


def test_items_whose_code_changed_go_stale(queue: OptimizationQueue, clock: Clock) -> None:
    """Once other code ran than the item is about, as sessions say; an audit opens it again."""
    for component in ("same", "changed", "proven", "held", "tried", "never ran"):
        queue.put(found(component, seen_ns=START_NS))
    queue.prove("proven", FASTER | {"component": "proven"})
    queue.claim("held", "ann", 60)
    queue.propose("tried", "fast:tried", "ann", variant="v2")
    assert queue.refresh() == []
    _ran(queue.base_path, "before", "same", "v0", -1000)
    _ran(queue.base_path, "again", "same", "v1", 1000)
    for component in ("changed", "proven", "held", "tried"):
        _ran(queue.base_path, f"s-{component}", component, "v2", 2000)
    assert [item.component for item in queue.refresh()] == ["changed"]
    assert "from v1 to v2" in queue.get("changed").history[-1].what
    assert queue.refresh() == []
    changes: list[Callable[[], QueueItem]] = [
        lambda: queue.claim("changed", "ann"),
        lambda: queue.propose("changed", "x:y", "ann"),
    ]
    for change in changes:
        with pytest.raises(QueueError, match=r"stale.*debugstore audit"):
            change()
    clock.now_ns += 61 * SECOND
    assert [item.component for item in queue.refresh()] == ["held"]
    assert queue.put(found("changed", "v2", seen_ns=START_NS + 3 * SECOND)).state == "open"
    assert [item.component for item in queue.refresh({("same", "tool"): "v3"})] == ["same"]


def test_evidence_outlives_retention_until_the_item_is_closed(queue: OptimizationQueue) -> None:
    """Then the traces of the proof do; and of a stale item nothing."""
    for number, session in enumerate(("shows", "proves", "other")):
        write_sealed(queue.base_path, session, [span(1, trace=number + 1)])
    queue.put(found(trace_ids=[hex_id(1, 32)]))
    apply_retention(queue.base_path, size_bytes=0)
    assert list_sessions(queue.base_path) == ["shows"]
    write_sealed(queue.base_path, "proves", [span(1, trace=2)])
    queue.prove("parse", FASTER | {"trace_ids": [hex_id(2, 32), "nonsense"]})
    apply_retention(queue.base_path, size_bytes=0)
    assert list_sessions(queue.base_path) == ["proves"]
    queue.put(found(variant="v2", trace_ids=[hex_id(2, 32)]))
    queue.refresh({("parse", "tool"): "v3"})
    assert State(queue.base_path).pinned() == frozenset()


def test_which_item_is_meant(queue: OptimizationQueue) -> None:
    """An id, its beginning, or the component's name where only one item has it."""
    item, other = queue.put(found()), queue.put(found("load"))
    assert [queue.get(which).id for which in (item.id, item.id[:4], "parse", "load")] == [*[item.id] * 3, other.id]
    for which in ("", item.id[:3], "nothing", "PARSE"):
        with pytest.raises(QueueError, match="queue list"):
            queue.get(which)
    queue.put(found(layer="function"))
    with pytest.raises(QueueError, match=f"2 items.*{item.id} \\(tool\\)"):
        queue.get("parse")


def test_history_is_bounded(queue: OptimizationQueue) -> None:
    """The first event and the newest stay; it is counted how many between them are gone."""
    queue.put(found())
    for number in range(100):
        queue.reject("parse", f"reason {number}")
    item = queue.get("parse")
    assert len(item.history) + item.history_left_out == 101
    assert len(item.history) == 50
    assert item.history[0].state == "open"
    assert "reason 99" in item.history[-1].what


def test_the_export_is_there_as_a_whole(queue: OptimizationQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can't be written the old one stays, and nothing is left beside it."""
    queue.put(found(code=Code("é = '\ud800\x1b'"), measured={"p95_ns": math.nan, "p50_ns": 1}))
    path = queue.export_json()
    assert path == queue.base_path / "optimization_queue.json"
    content = json.loads(path.read_text())
    assert [item["component"] for item in content["items"]] == ["parse"]
    assert QueueItem.from_json(content["items"][0]) == queue.get("parse")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    queue.put(found("load"))
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DebugStoreError, match="free space"):
        queue.export_json()
    assert json.loads(path.read_text()) == content
    assert {file.name for file in queue.base_path.iterdir()} == {"optimization_queue.json", "state.lmdb"}


def test_an_item_that_is_none(queue: OptimizationQueue) -> None:
    """What something else put into the table is an error that says so; fields of later versions are ignored."""
    item = queue.put(found())
    state = State(queue.base_path)
    state.update("queue", item.id, lambda value: value | {"later": 1, "code": {"source": "x", "later": 2}})
    assert queue.get("parse") == replace(item, code=Code("x"))
    state.put("queue", "x", {"nonsense": 1})
    with pytest.raises(CorruptDataError, match="doctor"):
        queue.items()
