"""What closes an item of the queue: a proof, of what was proposed, for the code that it is about, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from otel_debugstore_analysis.queue import (
    ClaimedError,
    Evidence,
    NotProvenError,
    OptimizationQueue,
    QueueError,
    QueueItem,
)
from queues import FASTER, SECOND, Clock, found, said
from sessions import START_NS, hex_id


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queue(tmp_path: Path, clock: Clock) -> OptimizationQueue:
    return OptimizationQueue(tmp_path, clock=clock)


def test_the_way_to_a_proof(queue: OptimizationQueue) -> None:
    """Claimed, proposed, and proven: then it is closed, and stays so."""
    queue.put(found())
    queue.claim("parse", "ann")
    item = queue.propose("parse", "fast:parse", "ann", variant="v2")
    assert (item.state, item.proposal, item.lease) == ("proposed", ("fast:parse", "ann", "v2"), None)
    with pytest.raises(QueueError, match="waits for a proof"):
        queue.claim("parse", "bob")
    with pytest.raises(ClaimedError, match="has a candidate"):
        queue.propose("parse", "other:parse", "bob")
    item = queue.prove("parse", FASTER, "ann")
    assert item.is_closed
    assert item.evidence == Evidence("faster", 0.5, 0.45, 0.55, 40, 12, component="parse")
    assert said(item) == ["open", "claimed", "proposed", "proven"]
    changes: list[Callable[[], QueueItem]] = [
        lambda: queue.claim("parse", "bob"),
        lambda: queue.propose("parse", "x:y", "bob"),
        lambda: queue.reject("parse", "no"),
        lambda: queue.prove("parse", FASTER),
    ]
    for change in changes:
        with pytest.raises(QueueError, match="proven"):
            change()
    assert queue.get("parse") == item


class _Comparison(NamedTuple):
    """As a benchmark makes one."""

    verdict: str
    ratio: float
    interval: tuple[float, float]
    checked: int
    cause: str = "it is"
    baseline_variant: str = "v1"


_NO_PROOFS: Final[dict[str, dict[str, Any]]] = {
    "slower": {"verdict": "slower", "ratio": 1.5, "low": 1.4, "high": 1.6},
    "equal": {"verdict": "equal"},
    "undecided": {"verdict": "undecided", "cause": "40 more pairs"},
    "wrong": {"verdict": "wrong", "ratio": 0.1, "low": 0.1, "high": 0.1},
    "not checked": {"checked": 0},
    "no interval": {"low": None},
    "not a number": {"high": math.nan},
    "interval above 1": {"high": 1.01},
    "ratio above 1": {"ratio": 1.2, "high": 1.3},
    "nothing": {"ratio": 0.0, "low": 0.0, "high": 0.0},
    "interval beside the ratio": {"low": 0.6, "high": 0.7},
    "other code": {"variant": "v0"},
    "other component": {"component": "load"},
    "no component": {"component": None},
    "other candidate": {"candidate": "other.mod:thing"},
    "other version of the candidate": {"candidate": "fast:parse", "candidate_variant": "v3"},
}


@pytest.mark.parametrize("which", _NO_PROOFS)
def test_what_is_no_proof(queue: OptimizationQueue, which: str) -> None:
    """Only a comparison with this code, whose verdict is faster and whose outputs were compared, closes an item."""
    queue.put(found())
    queue.propose("parse", "fast:parse", "ann", variant="v2")
    with pytest.raises(NotProvenError, match="stays proposed"):
        queue.prove("parse", FASTER | _NO_PROOFS[which])
    assert queue.get("parse").state == "proposed"


@pytest.mark.parametrize(
    "evidence",
    [{}, None, "faster", 5, {"verdict": 1}, FASTER | {"ratio": "0.5"}, FASTER | {"interval": 3}, {"verdict": ""}],
)
def test_evidence_that_can_not_be_read(queue: OptimizationQueue, evidence: object) -> None:
    """It is refused by what it lacks, whatever it is."""
    queue.put(found())
    with pytest.raises(QueueError, match="evidence"):
        queue.prove("parse", evidence)


def test_code_counts_and_not_its_name(queue: OptimizationQueue) -> None:
    """A component may be recorded under another name than it was audited by: its variant says that it is the same."""
    queue.put(found())
    assert queue.prove("parse", FASTER | {"component": "app.parse", "baseline_variant": "v1"}).is_closed


def test_a_comparison_is_evidence(queue: OptimizationQueue) -> None:
    """Any object with the fields of one."""
    queue.put(found())
    with pytest.raises(NotProvenError, match=r"'slower', not 'faster' \(it is\)"):
        queue.prove("parse", _Comparison("slower", 2.0, (1.9, 2.1), 3))
    nan = math.nan
    item = queue.reject("parse", "it raises", Evidence("failed", nan, nan, nan, trace_ids=(hex_id(1, 32),) * 50))
    assert item.evidence is not None
    assert (item.evidence.ratio, item.evidence.low, len(item.evidence.trace_ids)) == (None, None, 20)
    assert queue.prove("parse", _Comparison("faster", 0.5, (0.4, 0.6), 3)).is_closed


def test_a_proof_that_is_on_its_way(queue: OptimizationQueue, clock: Clock) -> None:
    """Whoever proposes with a lease proves at once: nobody else decides meanwhile, and it is open when that is over."""
    queue.put(found())
    queue.claim("parse", "ann")
    item = queue.propose("parse", "fast:parse", "ann", lease_s=60)
    assert (item.state, item.lease) == ("proposed", ("ann", START_NS + 60 * SECOND))
    others: list[Callable[[], QueueItem]] = [
        lambda: queue.claim("parse", "bob"),
        lambda: queue.propose("parse", "other:parse", "bob"),
        lambda: queue.prove("parse", FASTER, "bob"),
        lambda: queue.reject("parse", "no", by="bob"),
        lambda: queue.release("parse", "bob"),
    ]
    for other in others:
        with pytest.raises(ClaimedError, match="'ann' until"):
            other()
    assert queue.refresh({("parse", "tool"): "v9"}) == []
    assert (queue.release("parse", "ann").state, queue.get("parse").lease) == ("open", None)
    queue.propose("parse", "fast:parse", "ann", lease_s=60)
    clock.now_ns += 60 * SECOND
    assert queue.get("parse").state == "open"
    assert queue.claim("parse", "bob").state == "claimed"
    with pytest.raises(ClaimedError):
        queue.prove("parse", FASTER, "ann")


def test_a_stale_item_is_not_proven(queue: OptimizationQueue) -> None:
    """Its code is not what runs by now: it is audited again first."""
    queue.put(found())
    queue.refresh({("parse", "tool"): "v2"})
    with pytest.raises(QueueError, match=r"stale.*debugstore audit"):
        queue.prove("parse", FASTER)


def test_which_candidate_was_proven(queue: OptimizationQueue) -> None:
    """The one that was proposed, by the hash of its code or by its name, in both ways to write one."""
    for number, names in enumerate(
        ({"candidate": "fast.mod.parse"}, {"candidate": "x:y", "candidate_variant": "v2"}, {"candidate_variant": "v2"})
    ):
        queue.put(found(f"c{number}"))
        queue.propose(f"c{number}", "fast.mod:parse", "ann", variant="v2")
        assert queue.prove(f"c{number}", FASTER | {"component": f"c{number}"} | names).is_closed
    queue.put(found())
    queue.propose("parse", "fast:parse", "ann")
    queue.reject("parse", "too slow", by="ann")
    assert queue.prove("parse", FASTER | {"candidate": "other:parse"}).is_closed
