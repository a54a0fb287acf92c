"""`PendingBlobs`: encoded batches that are not written yet.

Capacity: 16 MiB; beyond it the oldest are shed, except for those that are being written.
Threads: one adds, while another one takes, and says what became of what it took.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

DISK: Final = "disk"
PAYLOAD: Final = "payload"
MAX_PENDING_BYTES: Final = 16 << 20


class Blob(NamedTuple):
    """An encoded batch, and what is lost with it."""

    data: bytes
    span_count: int = 0
    payload_count: int = 0

    def losses(self) -> dict[str, int]:
        """Return how many are lost with it, by the reason for which they are counted."""
        return {DISK: self.span_count, PAYLOAD: self.payload_count}


class PendingBlobs:
    """See the module's first lines. The oldest come first."""

    def __init__(self) -> None:
        self._blobs: deque[Blob] = deque()
        self._added_bytes = 0  # changed by who adds: what was ever added, less what was shed
        self._settled_bytes = 0  # changed by who takes

    def __bool__(self) -> bool:
        return bool(self._blobs)

    def add(self, blob: Blob) -> list[Blob]:
        """Have a blob wait; return those that are shed for it."""
        size = len(blob.data)
        self._added_bytes += size  # no call between load and store, where threads may switch
        self._blobs.append(blob)
        shed = []
        while self._added_bytes - self._settled_bytes > MAX_PENDING_BYTES and len(self._blobs) > 1:
            try:
                oldest = self._blobs.popleft()
            except IndexError:  # just taken to be written
                break
            size = len(oldest.data)
            self._added_bytes -= size
            shed.append(oldest)
        return shed

    def take(self) -> list[Blob]:
        """Take what waits now; the oldest may be shed at the same time."""
        taken = []
        with contextlib.suppress(IndexError):
            for _ in range(len(self._blobs)):
                taken.append(self._blobs.popleft())
        return taken

    def put_back(self, taken: Sequence[Blob]) -> None:
        """Say that what was taken could not be written; it waits again."""
        self._blobs.extendleft(reversed(taken))

    def settle(self, taken: Sequence[Blob]) -> None:
        """Say that what was taken was written, or counted as lost."""
        self._settled_bytes += sum([len(blob.data) for blob in taken])
