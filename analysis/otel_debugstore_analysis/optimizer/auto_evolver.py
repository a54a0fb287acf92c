"""`ProvenEvolver`: a host's `AutoEvolver` as an optimizer, whose evolutions count only if they are proven.

It has the methods of the host's object, so a host may use it in its place. `should_evolve` asks the queue;
`evolve_node` lets the host's object write its new code, puts the old code back, runs recorded inputs through both, and
puts the new code in its place only if that is faster and prints what the old one did.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Protocol

from otel_debugstore.errors import DebugStoreError, NotReplayableError
from otel_debugstore_analysis.benchmark.results import Comparison
from otel_debugstore_analysis.optimizer.held import given_back, own_name
from otel_debugstore_analysis.optimizer.loop import evidence_of
from otel_debugstore_analysis.optimizer.protocol import Candidate, Task
from otel_debugstore_analysis.query import DuckDBEngine
from otel_debugstore_analysis.queue import OptimizationQueue, QueueItem
from otel_debugstore_analysis.queue._queue import LEASE_S
from otel_debugstore_analysis.replay import Replay, ReplayOptions, recorded_calls, replay
from otel_debugstore_analysis.replay.nodes import NodeHost, node_calls
from otel_debugstore_exporters.reader import SessionReader

NODE: Final = "node"
_NAME: Final = "AutoEvolver"
_WANTED: Final = ("open", "rejected")
_NOBODYS: Final = ("proven", "stale")
"""Items in these states can't be claimed, and nobody works on them."""
_OURS: Final = ("otel_debugstore", "otel_debugstore_exporters", "otel_debugstore_analysis")


class Evolver(Protocol):
    """What a host's object has."""

    def should_evolve(self, node_id: str) -> bool: ...

    def record_performance(self, node_id: str, metrics: dict[str, Any], score: float) -> Any: ...

    def evolve_node(self, node_id: str) -> Any: ...


class Runner(Protocol):
    """What runs a host's nodes."""

    nodes_dir: Path


class ProvenEvolver:
    """See the module's first lines.

    Args:
        evolver: The host's object.
        runner: The host's `NodeRunner`; another one of its class is made, for copies of the nodes.
        base_path: Where sessions and the queue lie.
        ignored: Keys of the JSON that nodes print that may differ from run to run, such as times.
        options: How recorded runs are replayed.
    """

    def __init__(
        self,
        evolver: Evolver,
        runner: Runner,
        base_path: str | os.PathLike[str] = "debug_data",
        *,
        ignored: Sequence[str] = (),
        options: ReplayOptions | None = None,
    ) -> None:
        self._evolver = evolver
        self._nodes = Path(runner.nodes_dir)
        self._base_path = Path(base_path)
        kind = type(runner)
        self._host = NodeHost(f"{kind.__module__}:{kind.__qualname__}", _own_paths(), tuple(ignored))
        self._options = replace(options or ReplayOptions(), asked_by_name=True)
        self.last: Replay | None = None
        """What the last evolution was found to be, or why there was none; None if the host's object wrote nothing."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._evolver, name)

    @property
    def name(self) -> str:
        """What it is called in the queue."""
        return _NAME

    def should_evolve(self, node_id: str) -> bool:
        """Return whether the queue has an item for the node that does not keep its limits, and nobody works on it."""
        item = self._item(node_id)
        return item is not None and item.state in _WANTED and not item.keeps_limits

    def record_performance(self, node_id: str, metrics: dict[str, Any], score: float) -> Any:
        """Pass it on: the sessions have it anyway."""
        return self._evolver.record_performance(node_id, metrics, score)

    def evolve_node(self, node_id: str) -> Any:
        """Have the node evolved, and keep that only if it is proven; return what the host's object does.

        A node that the queue does not have, or has as proven or stale, is evolved and proven all the same. Where
        nothing can be proven, because no run of it was recorded that could be run again, or somebody else works on it,
        nothing is evolved: None is returned, and `last` says why. What is raised is the host's own.
        """
        queue, by = OptimizationQueue(self._base_path), own_name(_NAME)
        self.last = None
        returned = None
        try:
            item = self._item(node_id)
            if item is None or item.state in _NOBODYS:
                returned, self.last = self._evolved_and_replayed(node_id)
            else:
                queue.claim(item.id, by)
                with given_back(queue, item.id, by):
                    returned, self.last = self._evolved_and_replayed(node_id)
                    self._settle(queue, item, by)
        except DebugStoreError as error:
            self.last = self.last or Replay(node_id, Comparison("failed", str(error)))
        return returned

    def propose(self, task: Task) -> Sequence[Candidate]:
        """Return what the host's object makes of a node, which is left as it is."""
        node_id = task.item.component
        with tempfile.TemporaryDirectory(prefix="debugstore-evolve-") as temporary:
            before, after = Path(temporary, "before"), Path(temporary, "after")
            self._evolve(node_id, before, after)
            files = {
                path.relative_to(after).as_posix(): path.read_text(encoding="utf-8")
                for path in sorted((after / node_id).rglob("*.py"))
                if not _is_same(path, before / path.relative_to(after))
            }
        return [Candidate(f"what {_NAME} made of {node_id}", files)] if files else []

    def _item(self, node_id: str) -> QueueItem | None:
        items = OptimizationQueue(self._base_path).items()
        return next((item for item in items if (item.component, item.layer) == (node_id, NODE)), None)

    def _evolved_and_replayed(self, node_id: str) -> tuple[Any, Replay | None]:
        with SessionReader(self._base_path) as reader:
            recorded = node_calls(recorded_calls(DuckDBEngine(reader), node_id), self._host.ignored)
        if not recorded.calls:
            raise NotReplayableError(f"No run of node {node_id!r} was recorded that could be run again.")
        with tempfile.TemporaryDirectory(prefix="debugstore-evolve-") as temporary:
            folder = Path(temporary)
            before, after = folder / "before", folder / "after"
            returned = self._evolve(node_id, before, after)
            if _same_files(before / node_id, after / node_id):
                return returned, None
            try:
                found = replay(
                    recorded,
                    self._host.side(folder / "candidate", after),
                    options=self._options,
                    baseline=self._host.side(folder / "original", before),
                )
            except NotReplayableError as error:
                found = Replay(node_id, Comparison("failed", str(error)))
            if found.verdict == "faster" and found.right:
                _put(after / node_id, self._nodes / node_id)
        return returned, found

    def _evolve(self, node_id: str, before: Path, after: Path) -> Any:
        """Let the host's object write its code; keep both versions, and put the old one back."""
        place = self._nodes / node_id
        shutil.copytree(place, before / node_id)
        try:
            returned = self._evolver.evolve_node(node_id)
            shutil.copytree(place, after / node_id)
        finally:
            _put(before / node_id, place)
        return returned

    def _settle(self, queue: OptimizationQueue, item: QueueItem, by: str) -> None:
        found = self.last
        if found is None:
            queue.release(item.id, by)
            return
        title = f"what {_NAME} made of {item.component}"
        evidence = evidence_of(found, title)
        queue.propose(item.id, title, by, lease_s=LEASE_S)
        if found.verdict == "faster" and found.right:
            queue.prove(item.id, evidence, by)
        else:
            queue.reject(item.id, found.cause, evidence, by)


def _own_paths() -> tuple[str, ...]:
    """Return where the host's modules are found: not what every interpreter finds by itself, nor what we are."""
    prefixes = {os.path.realpath(prefix) for prefix in (sys.prefix, sys.base_prefix)}
    found = [Path(os.path.realpath(path)) for path in sys.path if path and Path(path).is_dir()]
    return tuple(
        str(path)
        for path in found
        if not any(path.is_relative_to(prefix) for prefix in prefixes)
        and not any((path / package).is_dir() for package in _OURS)
    )


def _put(source: Path, place: Path) -> None:
    """Have in a folder the files of another, each replaced as a whole, and no others."""
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    for name in wanted:
        target = place / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not _is_same(source / name, target):
            temporary = target.with_name(f".{target.name}.new")
            shutil.copy2(source / name, temporary)
            temporary.replace(target)
    for path in sorted(place.rglob("*"), reverse=True):
        if path.is_file() and path.relative_to(place) not in wanted and "__pycache__" not in path.parts:
            path.unlink()


def _is_same(one: Path, other: Path) -> bool:
    return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()


def _same_files(one: Path, other: Path) -> bool:
    names = {path.relative_to(folder) for folder in (one, other) for path in folder.rglob("*") if path.is_file()}
    return all(_is_same(one / name, other / name) for name in names if "__pycache__" not in name.parts)
