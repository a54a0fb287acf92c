"""`SpanQueue`: ended spans waiting to be written, bounded by the memory they take.

Capacity: `max_bytes`, as estimated by `span_size`. Beyond it `put` waits at most 100 ms for room and,
if none comes, drops the span and counts it. Before that, beyond a sixteenth of it, `put` lets the taker
catch up for at most 20 ms: threads that end spans as fast as they can leave the taker too little of the
interpreter, and a long queue slows all of them down (eight threads: 22,000 spans/s without this pause,
35,000 with it, because the garbage collector visits what is queued again and again).
A taker that has made no progress for 2 s is not waited for until it does.
Threads: any number put, one takes. `put` may be called from a signal handler or a finalizer at any
point of another `put`. That is why it takes no lock that it would wait for: a `threading.Condition` or
`queue.Queue` held by the interrupted frame would never be released. What is shared are deques, whose
methods are atomic, and counters changed by `+=`, between whose load and store CPython with a GIL does
not switch threads. (Without a GIL an update may be lost; the bound is exact again after the next take.)
"""

from __future__ import annotations

from _thread import LockType, allocate_lock
from collections import deque
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Final

from opentelemetry.sdk.trace import ReadableSpan

from otel_debugstore.span_size import SPAN_BYTES, span_size

BATCH_SPANS: Final = 512
BATCH_BYTES: Final = 4 << 20
WAKE_BYTES: Final = 1 << 20
MAX_WAIT_SECONDS: Final = 0.1
MAX_PAUSE_SECONDS: Final = 0.02
MAX_STALL_SECONDS: Final = 2.0

_LARGE_BYTES: Final = SPAN_BYTES + 4096
_WATCHED_SPANS: Final = 1024


class SpanQueue:
    """Ended spans, oldest first."""

    def __init__(self, max_bytes: int, wake: Callable[[], None]) -> None:
        """Make an empty queue.

        Args:
            max_bytes: The memory that the spans in it may take.
            wake: Tells the taker that there is a batch to take. Called often, and must not wait.
        """
        self._wake_bytes = min(WAKE_BYTES, max_bytes // 64)
        self._check_bytes = self._wake_bytes  # what makes a put look further; raised by putters, lowered by the taker
        self._busy_bytes = max_bytes // 32
        self._pause_bytes = max_bytes // 16
        self._pause = _Gate(self._pause_bytes, MAX_PAUSE_SECONDS)
        self._bound = _Gate(max_bytes, MAX_WAIT_SECONDS)
        self._wake = wake
        self._spans: deque[ReadableSpan] = deque()
        self._unsure = _WATCHED_SPANS  # spans to look at one by one
        self._last_bytes = SPAN_BYTES  # the size of the last one that was looked at
        self._added_bytes = 0  # changed by putters, before they append
        self._removed_bytes = 0  # changed by the taker
        self._stall_at = -1  # removed bytes when a putter last had to wait ...
        self._stall_until = 0.0  # ... and until when others wait too unless they change
        self.dropped = 0  # spans there was no room for; changed by putters

    def __len__(self) -> int:
        return len(self._spans)

    def put(self, span: ReadableSpan) -> None:
        """Append a span, or count it as dropped if there is no room for it within 100 ms."""
        # Looking at every attribute is half of what this costs. Where spans are small, one in four is looked at, taken
        # at random by its id, and others count like the last one; after a large one, each of the next thousand is.
        size = self._measured(span) if self._unsure or not span._context[1] & 3 else self._last_bytes  # type: ignore[index]
        self.put_sized(span, size)

    def put_sized(self, span: ReadableSpan, size: int) -> None:
        """Append a span that takes so many bytes, or count it as dropped if there is no room for it within 100 ms."""
        queued = self._added_bytes - self._removed_bytes
        if queued >= self._check_bytes and not self._has_room(queued + size):
            self.dropped += 1
            return
        self._added_bytes += size
        self._spans.append(span)

    def is_busy(self) -> bool:
        """Return whether spans come in faster than they are taken."""
        return self._added_bytes - self._removed_bytes >= self._busy_bytes

    def batches(self, everything: bool) -> Iterator[list[ReadableSpan]]:
        """Take what is in the queue now, in batches; each counts as removed when the next is asked for.

        Sizes are not kept beside the spans: the bytes removed in one call are what had been added when it
        began, shared evenly among the spans. So no error outlives a call, and there is no tuple for each
        span that the garbage collector has to visit.

        Args:
            everything: Whether to take what does not fill a batch too.
        """
        total_bytes, remaining = self._added_bytes, len(self._spans)
        while remaining:
            waiting_bytes = total_bytes - self._removed_bytes
            count = max(1, min(remaining, BATCH_SPANS, BATCH_BYTES * remaining // max(1, waiting_bytes)))
            if not everything and count < BATCH_SPANS and waiting_bytes < self._wake_bytes:
                break
            yield [self._spans.popleft() for _ in range(count)]
            self._removed_bytes += waiting_bytes * count // remaining
            remaining -= count
            self._open_gates()
        self._open_gates()

    def _measured(self, span: ReadableSpan) -> int:
        size = self._last_bytes = span_size(span)
        if size > _LARGE_BYTES:
            self._unsure = _WATCHED_SPANS
        elif self._unsure:
            self._unsure -= 1
        return size

    def _has_room(self, queued_bytes: int) -> bool:
        # Once it is awake, the taker has to be told nothing more before there is so much that gates may be closed.
        self._check_bytes = _reopening_bytes(self._pause_bytes)
        self._wake()
        if not self._bound.is_open(queued_bytes):
            return self._is_moving() and self._bound.wait()
        if not self._pause.is_open(queued_bytes) and self._is_moving():
            self._pause.wait()
        return True

    def _is_moving(self) -> bool:
        """Return whether something was taken in the last 2 s, or this is the first to wait for it."""
        now = monotonic()
        if self._stall_at != self._removed_bytes:
            self._stall_at, self._stall_until = self._removed_bytes, now + MAX_STALL_SECONDS
        return now < self._stall_until

    def _open_gates(self) -> None:
        self._check_bytes = self._wake_bytes
        queued_bytes = self._added_bytes - self._removed_bytes
        self._bound.open(queued_bytes)
        self._pause.open(queued_bytes)


class _Gate:
    """Where putters wait when more than `limit_bytes` are queued, until an eighth of that is gone.

    Not until there is room for one: those who come by would take the room of those who wait.
    """

    def __init__(self, limit_bytes: int, max_seconds: float) -> None:
        self._limit_bytes = limit_bytes
        self._max_seconds = max_seconds
        self._is_closed = False  # set by putters, cleared by the taker
        self._waiting: deque[LockType] = deque()

    def is_open(self, queued_bytes: int) -> bool:
        if queued_bytes > self._limit_bytes:
            self._is_closed = True
        return not self._is_closed

    def wait(self) -> bool:
        # A lock of its own for each: polling would take the GIL from the taker all the time.
        turn = allocate_lock()
        turn.acquire()
        self._waiting.append(turn)
        return not self._is_closed or turn.acquire(timeout=self._max_seconds)

    def open(self, queued_bytes: int) -> None:
        if self._is_closed and queued_bytes <= _reopening_bytes(self._limit_bytes):
            self._is_closed = False
            for _ in range(len(self._waiting)):
                self._waiting.popleft().release()


def _reopening_bytes(limit_bytes: int) -> int:
    return limit_bytes * 7 // 8
