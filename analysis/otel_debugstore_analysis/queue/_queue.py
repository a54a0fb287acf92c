"""`OptimizationQueue`: the items below a base path, for several people, agents and programs at once.

Each method is one write transaction of the store's state: what others change meanwhile comes before it or after it.
Loss: what a method returned is durable. The traces that show an item are pinned while it is not closed, those of its
proof afterwards: retention spares them. Leases go by the clocks of the machines that use the queue.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Final

from otel_debugstore.errors import DebugStoreError
from otel_debugstore_analysis.plain_json import json_text
from otel_debugstore_analysis.queue import _audits, _changes
from otel_debugstore_analysis.queue._errors import QueueError
from otel_debugstore_analysis.queue._evidence import Evidence
from otel_debugstore_analysis.queue._item import STATES, Finding, ItemState, Proposal, QueueItem
from otel_debugstore_analysis.queue._stored import TABLE, meant, read_items, urgency, write_item
from otel_debugstore_exporters.session import DEFAULT_BASE_PATH
from otel_debugstore_exporters.state import Changes, State
from otel_debugstore_exporters.whole_file import appearing

LEASE_S: Final = 3600.0
EXPORT_NAME: Final = "optimization_queue.json"
EXPORT_VERSION: Final = 1
_CLAIMABLE: Final = ("open", "rejected")


class OptimizationQueue:
    """What is to be made faster, who works on it, and what was proven; see the module's first lines.

    Where a method takes `which`, that is an item's id, its first digits (four at least), or the name of a component
    that has one item.

    Args:
        base_path: Where sessions lie.
        clock: The time in nanoseconds since 1970.
    """

    def __init__(
        self, base_path: str | os.PathLike[str] = DEFAULT_BASE_PATH, *, clock: Callable[[], int] = time.time_ns
    ) -> None:
        self.base_path = Path(base_path)
        self._state = State(base_path)
        self._clock = clock

    def put(self, finding: Finding) -> QueueItem:
        """Put what an audit found into the queue: a new item, or the one of that component and layer, updated.

        Raises:
            StateWriteError: The disk refused.
            CorruptDataError: The state is damaged.
        """
        return self.put_all([finding])[0]

    def put_all(self, findings: Iterable[Finding], kept: Iterable[Finding] = ()) -> list[QueueItem]:
        """Put several findings into the queue, all or none of them.

        Args:
            findings: What does not keep its limits.
            kept: What does, by the same audit: items of it are marked so. It makes none.

        Raises:
            StateWriteError, CorruptDataError: As `put`.
        """
        wanted, good, now_ns = list(findings), list(kept), self._clock()
        if not wanted:
            known = _audits.KnownItems(self._items(now_ns) if good else (), good)
            good = [finding for finding in good if known.of(finding) is not None]

        def work(changes: Changes) -> list[QueueItem]:
            known = _audits.KnownItems(read_items(changes.items(TABLE), now_ns), [*good, *wanted])
            for finding in good:
                if (before := known.of(finding)) is not None:
                    known.add(write_item(changes, _audits.kept(before, finding, now_ns)), before)
            items = []
            for finding in wanted:
                before = known.of(finding)
                items.append(write_item(changes, _audits.audited(before, finding, now_ns)))
                known.add(items[-1], before)
            return items

        return self._state.change(work) if wanted or good else []

    def items(
        self, states: Collection[ItemState] | None = None, *, min_priority: float | None = None
    ) -> list[QueueItem]:
        """Return the items, the most urgent first.

        Args:
            states: Only those in one of these states; all by default.
            min_priority: Only those of at least this priority.

        Raises:
            QueueError: A state is none.
            CorruptDataError: The state is damaged.
        """
        if unknown := set(states or ()) - set(STATES):
            raise QueueError(f"{sorted(unknown)[0]!r:.80} is no state; there are {', '.join(STATES)}.")
        found = [
            item
            for item in self._items(self._clock())
            if (states is None or item.state in states) and (min_priority is None or item.priority >= min_priority)
        ]
        return sorted(found, key=urgency)

    def get(self, which: str) -> QueueItem:
        """Return an item.

        Raises:
            QueueError: There is none, or several could be meant.
        """
        return meant(self._items(self._clock()), which)

    def recorded_name(self, component: str) -> str:
        """Return what calls of a component are recorded as: another name where it was audited under one of its own.

        Raises:
            CorruptDataError: The state is damaged.
        """
        items = self._items(self._clock())
        return next((item.recorded_name for item in items if item.component == component), component)

    def claim(self, which: str, by: str, lease_s: float = LEASE_S) -> QueueItem:
        """Take an item, so that nobody else does while the lease lasts; whoever has it gets a new lease.

        Args:
            which: The item.
            by: Who takes it: the same name for `propose`, `reject` and `release`.
            lease_s: For how long; afterwards the item is open again.

        Raises:
            ClaimedError: Somebody else has it.
            QueueError: There is none, or it is proven, stale, or waits for a proof.
        """
        return self._change(which, lambda item, now_ns: _changes.claimed(item, by, now_ns, lease_s))

    def claim_next(self, by: str, lease_s: float = LEASE_S) -> QueueItem | None:
        """Take the most urgent item that is open, or whose candidates were rejected; None if there is none.

        Items that keep their limits by now are not taken: there is nothing to do.

        Raises:
            QueueError: `by` or the lease is none.
        """
        now_ns = self._clock()

        def work(changes: Changes) -> QueueItem | None:
            items = read_items(changes.items(TABLE), now_ns)
            free = [item for item in items if item.state in _CLAIMABLE and not item.keeps_limits]
            if not free:
                return None
            return write_item(changes, _changes.claimed(min(free, key=urgency), by, now_ns, lease_s))

        return self._state.change(work)

    def release(self, which: str, by: str) -> QueueItem:
        """Give up a claim, and a candidate that was proposed with one.

        Raises:
            ClaimedError: Somebody else has it.
            QueueError: There is none.
        """
        return self._change(which, lambda item, now_ns: _changes.released(item, by, now_ns))

    def propose(
        self, which: str, candidate: str, by: str, *, variant: str | None = None, lease_s: float | None = None
    ) -> QueueItem:
        """Say what the candidate is; it waits for a proof then.

        Args:
            which: The item.
            candidate: A patch, a path, or `package.module:function`.
            by: Whose it is.
            variant: The hash of its code, where that is known: the item does not go stale when it runs.
            lease_s: For whoever proves it at once: nobody else decides for so long, then the item is open again. By
                default it waits for a proof by anybody, however long that takes.

        Raises:
            ClaimedError: Somebody else has it.
            QueueError: There is none, or it is proven or stale.
        """
        proposal = Proposal(candidate, by, variant)
        return self._change(which, lambda item, now_ns: _changes.proposed(item, proposal, now_ns, lease_s))

    def prove(self, which: str, evidence: object, by: str = "") -> QueueItem:
        """Close an item: its candidate is faster, and right.

        Args:
            which: The item.
            evidence: A comparison of the candidate with the code as it is: `Evidence`, a benchmark's `Comparison`, or
                a mapping with the fields of one.
            by: Who says so; the one who has the item, if somebody has.

        Raises:
            NotProvenError: The verdict is another than "faster", its interval does not lie below 1, no output was
                compared; or it is not about the item's code, or about another candidate than was proposed.
            ClaimedError: Somebody else has it.
            QueueError: There is no such item, it is proven already or stale, or the evidence can't be read.
        """
        found = Evidence.of(evidence)
        return self._change(which, lambda item, now_ns: _changes.proven(item, found, by, now_ns))

    def reject(self, which: str, why: str, evidence: object = None, by: str = "somebody") -> QueueItem:
        """Turn the candidate down; the item can be claimed again.

        Args:
            which: The item.
            why: What is wrong with it.
            evidence: As for `prove`, where there is some.
            by: Who says so; the one who has the item, if somebody has.

        Raises:
            ClaimedError: Somebody else has it.
            QueueError: There is no such item, it is proven or stale, or no reason was given.
        """
        found = None if evidence is None else Evidence.of(evidence)
        return self._change(which, lambda item, now_ns: _changes.rejected(item, why, found, by, now_ns))

    def refresh(self, newest: Mapping[tuple[str, str], str] | None = None) -> list[QueueItem]:
        """Look whether the code of components changed, and return the items that went stale by that.

        Args:
            newest: The variant that ran last, by the component that its calls are recorded as, and layer; by default
                the sessions are asked.

        Raises:
            DebugStoreError: The sessions can't be read.
        """
        now_ns = self._clock()
        items = self.items(("open", "proposed", "rejected"))
        if newest is None:
            from otel_debugstore_analysis.queue._newest import newest_variants

            known = newest_variants(self.base_path, items)
        else:
            ran = {item.id: newest.get((item.recorded_name, item.layer)) for item in items}
            known = {item_id: variant for item_id, variant in ran.items() if variant is not None}
        if not known:
            return []

        def work(changes: Changes) -> list[QueueItem]:
            found = []
            for item in read_items(changes.items(TABLE), now_ns):
                after = _changes.stale(item, known[item.id], now_ns) if item.id in known else item
                if after is not item:
                    found.append(write_item(changes, after))
            return found

        return self._state.change(work)

    def export_json(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write all items into a JSON file, which is there as a whole or as it was, and return its path.

        Args:
            path: The file; by default `optimization_queue.json` below the base path.

        Raises:
            DebugStoreError: It can't be written.
        """
        target = self.base_path / EXPORT_NAME if path is None else Path(path)
        content = {
            "version": EXPORT_VERSION,
            "exported_ns": self._clock(),
            "items": [item.to_json() for item in self.items()],
        }
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with appearing(target) as file:
                file.write(f"{json_text(content, indent=2)}\n".encode(errors="replace"))
        except OSError as error:
            raise DebugStoreError(
                f"{target} can't be written ({error.strerror or error}); free space or fix access."
            ) from error
        return target

    def _items(self, now_ns: int) -> list[QueueItem]:
        return read_items(self._state.items(TABLE), now_ns)

    def _change(self, which: str, change: Callable[[QueueItem, int], QueueItem]) -> QueueItem:
        """Replace an item by what a function makes of it, as one change."""
        now_ns = self._clock()

        def work(changes: Changes) -> QueueItem:
            item = meant(read_items(changes.items(TABLE), now_ns), which)
            return write_item(changes, change(item, now_ns))

        return self._state.change(work)
