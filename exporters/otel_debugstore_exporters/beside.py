"""What goes into the journal beside spans, as it is taken from the outbox; counts wait here until they are written."""

from __future__ import annotations

import os
import threading
from collections import deque
from itertools import chain

from otel_debugstore.log import warn_once
from otel_debugstore.outbox import OUTBOX, CallCount, Extras

_taking = threading.Lock()  # held while the outbox is emptied; never waited for


def take_beside(*, with_counts: bool) -> Extras | None:
    """Return what waits in the outbox; None if there is nothing, or somebody else is taking it right now."""
    if not _taking.acquire(blocking=False):
        return None
    try:
        taken = OUTBOX.take(with_counts=with_counts)
    except Exception as error:  # noqa: BLE001  # spans must be written all the same
        warn_once("outbox", f"Payloads, code or counts of calls can't be taken ({error!r}); please report this.")
        return None
    finally:
        _taking.release()
    return taken or None


class WaitingCounts:
    """Counts of calls that are not written yet. They are added up by component, so none is ever left out.

    Threads: `add` from any; `pending` and `forget` from one at a time.
    """

    def __init__(self) -> None:
        self._added: deque[list[CallCount]] = deque()
        self._by_component: dict[tuple[str, str], CallCount] = {}

    def __bool__(self) -> bool:
        return bool(self._added or self._by_component)

    def add(self, counts: list[CallCount]) -> None:
        """Have counts written."""
        self._added.append(counts)

    def pending(self) -> list[CallCount]:
        """Return what is to be written now; `forget` it when it is."""
        added = [self._added.popleft() for _ in range(len(self._added))]
        for count in chain.from_iterable(added):
            key = (count.layer, count.component)
            before = self._by_component.get(key)
            self._by_component[key] = count if before is None else add_counts(before, count)
        return list(self._by_component.values())

    def forget(self) -> None:
        """Say that what `pending` returned last was written."""
        self._by_component.clear()


def add_counts(one: CallCount, other: CallCount) -> CallCount:
    """Return two counts of one component as one."""
    return CallCount(
        start_ns=min(one.start_ns, other.start_ns),
        end_ns=max(one.end_ns, other.end_ns),
        layer=one.layer,
        component=one.component,
        call_count=one.call_count + other.call_count,
        error_count=one.error_count + other.error_count,
        duration_ns=one.duration_ns + other.duration_ns,
        recorded_count=one.recorded_count + other.recorded_count,
        recording_ns=one.recording_ns + other.recording_ns,
    )


def _reset() -> None:
    global _taking
    _taking = threading.Lock()


os.register_at_fork(after_in_child=_reset)
