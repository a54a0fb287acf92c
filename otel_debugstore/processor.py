"""`BoundedSpanProcessor`: ended spans on their way to a sink, bounded by memory, never blocking for long.

Capacity: ended spans wait in memory until they take `max_bytes` (see `span_size`). Then `on_end` waits
at most 100 ms for room and, if none comes, drops the span and counts it as "queue_full". A sink that
has made no progress for 2 s is not waited for until it does.
Latency: the worker commits every `schedule_delay_millis`. When spans come in faster, it hands them to
the sink as soon as they take 1 MiB, in batches of at most 512: so they are few, and what they took is
used again while it is in the processor's cache, which costs the caller a fifth less than larger lots.
Flush: `force_flush` returns within its timeout, and True only if all that had ended was committed.
`shutdown` takes at most 10 s. A span that ends later is counted as "after_shutdown".
Fork: the child starts with an empty queue and a new worker; what was queued belongs to the parent.
Threads: every method may be called from any thread, and from a signal handler or a finalizer at any
point of another method. That is why the caller's side takes no lock that it would wait for: a
`threading.Condition` or `queue.Queue` held by the interrupted frame would never be released. What it
shares are a deque, whose methods are atomic, and counters changed by `+=`, between whose load and store
CPython with a GIL does not switch threads. (Without a GIL a count may be lost: the bound would be less
exact, nothing else.)
"""

from __future__ import annotations

# Not `threading.Thread`: a program that lists, joins or counts its threads does not meet ours, starting
# one takes no lock of `threading`, and neither tracing nor a later patch by gevent reaches it.
from _thread import LockType, allocate_lock, start_new_thread
from collections import deque
from collections.abc import Sequence
from time import monotonic, sleep
from typing import Final, Protocol

from opentelemetry.context import (
    _SUPPRESS_INSTRUMENTATION_KEY,
    Context,
    attach,
    detach,
    set_value,
)
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from otel_debugstore.fork import reset_after_fork
from otel_debugstore.log import warn_once
from otel_debugstore.span_size import span_size

BATCH_SPANS: Final = 512
BATCH_BYTES: Final = 4 << 20
WAKE_BYTES: Final = 1 << 20
COMMIT_BYTES: Final = 32 << 20
MAX_WAIT_SECONDS: Final = 0.1
MAX_STALL_SECONDS: Final = 2.0
SHUTDOWN_SECONDS: Final = 10.0

QUEUE_FULL: Final = "queue_full"
AFTER_SHUTDOWN: Final = "after_shutdown"
FAILED: Final = "failed"

_POLL_SECONDS: Final = 0.002
_LATE_SECONDS: Final = 0.1
_MAX_LOCK_SECONDS: Final = 86400.0


class BatchSink(Protocol):
    """Where spans go. Called by one thread at a time; nothing it does may raise."""

    def add(self, spans: Sequence[ReadableSpan]) -> None:
        """Take over at most `BATCH_SPANS` ended spans, to be made durable by the next commit."""

    def commit(self) -> bool:
        """Make all that was added or counted durable at once; return whether that was done."""

    def drop(self, reason: str, count: int) -> None:
        """Count spans that were lost for `reason`; the next commit makes the count durable."""

    def shutdown(self) -> None:
        """Commit and let go of files. A later commit may open them again."""


class _Ticket:
    """Somebody who waits for a drain that begins after they asked."""

    __slots__ = ("_committed", "_done")

    def __init__(self) -> None:
        self._committed = False
        self._done = allocate_lock()
        self._done.acquire()

    def wait(self, seconds: float) -> bool:
        return self._done.acquire(timeout=max(0.0, min(seconds, _MAX_LOCK_SECONDS))) and self._committed

    def finish(self, committed: bool) -> None:
        self._committed = committed
        self._done.release()


class BoundedSpanProcessor(SpanProcessor):
    """Queues ended spans up to a bound in bytes and hands them to a sink from one thread of its own."""

    def __init__(self, sink: BatchSink, *, max_bytes: int = 64 << 20, schedule_delay_millis: float = 1000) -> None:
        """Make a processor; its thread starts with the first span.

        Args:
            sink: Where the spans go.
            max_bytes: The memory that spans may take between their end and their being encoded.
            schedule_delay_millis: The longest time a span waits before it is handed to the sink.
        """
        self.sink: Final = sink
        self._max_bytes = max_bytes
        self._high_water = min(WAKE_BYTES, max_bytes // 8)
        self._delay_seconds = schedule_delay_millis / 1000
        self._is_shut_down = False
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Start over with nothing queued and no worker; the next span starts one."""
        self._queue: deque[ReadableSpan] = deque()
        self._added_bytes = 0  # changed by callers, before they append
        self._removed_bytes = 0  # set under the drain lock
        self._committed_bytes = 0  # changed under the drain lock
        self._dropped = {QUEUE_FULL: 0, AFTER_SHUTDOWN: 0, FAILED: 0}  # changed by callers
        self._reported = dict(self._dropped)  # changed under the drain lock
        self._is_full = False  # set by callers, cleared under the drain lock once there is room for many
        self._stall: tuple[int, float] = (
            -1,
            0.0,
        )  # removed bytes when a wait was in vain; until when to wait
        self._late_seconds = self._late_next = 0.0
        self._tickets: deque[_Ticket] = deque()
        self._is_ready = False  # the worker runs and spans are welcome
        self._starting = allocate_lock()  # held while the worker is being started; never waited for
        self._draining = allocate_lock()  # guards the sink and the queue's left end
        self._wake = allocate_lock()  # held while nobody wants the worker to wake up
        self._wake.acquire()
        self._worker = allocate_lock()  # held while the worker runs

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing."""

    def _on_ending(self, span: Span) -> None:
        """Do nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a sampled span; wait at most 100 ms if there is no room, and then drop it."""
        try:
            context = span._context
            if context is None or not context.trace_flags & 1:
                return
            if not self._is_ready and not self._become_ready():
                return
            size = span_size(span)
            queued = self._added_bytes - self._removed_bytes
            if queued >= self._high_water and not self._has_room(queued, size):
                return
            self._added_bytes += size
            self._queue.append(span)
            if self._is_shut_down:
                self._drain_late()  # the last drain may have passed before the append
        except Exception:  # noqa: BLE001  # it would reach the program
            self._dropped[FAILED] += 1

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Commit all spans that have ended.

        Returns:
            Whether they were committed; False also when `timeout_millis` did not suffice.
        """
        seconds = timeout_millis / 1000
        if self._is_ready:
            ticket = _Ticket()
            self._tickets.append(ticket)
            self._wake_worker()
            if self._is_ready:  # else the worker may have ended before it saw the ticket
                return ticket.wait(seconds)
        if self._queue or self._dropped != self._reported or self._is_shut_down:
            return self._drain(seconds)
        return True

    def shutdown(self) -> None:
        """Commit what has ended and stop the worker, within 10 s."""
        if self._is_shut_down:
            return
        self._is_shut_down = True
        deadline = monotonic() + SHUTDOWN_SECONDS
        if self._is_ready:
            self._is_ready = False
            self._wake_worker()
            self._worker.acquire(timeout=SHUTDOWN_SECONDS)
        committed = self._drain(max(0.1, deadline - monotonic()), and_shut_down=True)
        if not committed:
            warn_once("journal", "The last spans could not be written before the program ended.")

    def is_busy(self) -> bool:
        """Return whether spans come in faster than they are written down right now."""
        return self._added_bytes - self._removed_bytes >= self._max_bytes // 8

    # The caller's side

    def _become_ready(self) -> bool:
        """Start the worker if there is none; count the span and return False once shut down."""
        if self._is_shut_down:
            self._count_late()
            return False
        if self._starting.acquire(blocking=False):
            try:
                if not self._is_ready:
                    self._worker = running = allocate_lock()
                    running.acquire()
                    start_new_thread(self._work, (running,))
                    self._is_ready = not self._is_shut_down
            except RuntimeError:  # no thread to be had: flush and shutdown drain in their caller's
                running.release()
            finally:
                self._starting.release()
        return True

    def _has_room(self, queued: int, size: int) -> bool:
        """Wake the worker, wait for room where there is none, count the span as dropped if none comes."""
        self._wake_worker()
        if queued + size > self._max_bytes:
            self._is_full = True
        if not self._is_full:
            return True
        now = monotonic()
        deadline = now + MAX_WAIT_SECONDS
        if self._stall[0] != self._removed_bytes:
            self._stall = (self._removed_bytes, now + MAX_STALL_SECONDS)
        while now < deadline and (self._stall[0] != self._removed_bytes or now < self._stall[1]):
            sleep(_POLL_SECONDS)
            if not self._is_full:
                return True
            now = monotonic()
        self._dropped[QUEUE_FULL] += 1
        return False

    def _wake_worker(self) -> None:
        if self._wake.locked():
            try:
                self._wake.release()
            except RuntimeError:  # another thread was faster
                return

    def _count_late(self) -> None:
        """Count a span that ended after shutdown, and write the count down if that costs little.

        Each is written at once until that has taken 0.1 s, then at most one a second.
        """
        self._dropped[AFTER_SHUTDOWN] += 1
        began = monotonic()
        if self._late_seconds < _LATE_SECONDS or began >= self._late_next:
            self._drain_late()
            ended = monotonic()
            self._late_seconds += ended - began
            self._late_next = ended + 1

    def _drain_late(self) -> None:
        # Does not wait: whoever holds the lock may be the frame that this one interrupted.
        self._drain(0)

    # The worker's side

    def _work(self, running: LockType) -> None:
        try:
            next_commit = 0.0
            while not self._is_shut_down:
                self._wake.acquire(timeout=max(0.0, min(next_commit - monotonic(), self._delay_seconds)))
                is_due = monotonic() >= next_commit or bool(self._tickets)
                if is_due:
                    next_commit = monotonic() + self._delay_seconds
                self._drain_and_tell(is_due)
        finally:
            running.release()

    def _drain_and_tell(self, and_commit: bool) -> None:
        """Drain; tell those who asked for it. Survives whatever is raised, so the worker does."""
        tickets = [self._tickets.popleft() for _ in range(len(self._tickets))]
        committed = False
        try:
            committed = self._drain(SHUTDOWN_SECONDS, and_commit or bool(tickets))
        except BaseException as error:  # noqa: BLE001  # a dead worker would lose every later span
            warn_once("worker", f"Writing spans failed ({error!r}); it goes on with the next ones.")
        for ticket in tickets:
            ticket.finish(committed)

    def _drain(self, seconds: float, and_commit: bool = True, and_shut_down: bool = False) -> bool:
        """Hand over what is queued now, or only full batches; return whether all of it was committed.

        Waits at most `seconds` for the lock.
        """
        if not self._draining.acquire(timeout=min(seconds, _MAX_LOCK_SECONDS)):
            return False
        token = attach(set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))
        try:
            self._hand_over(and_commit)
            committed = and_commit and self._commit()
            if and_shut_down:
                self.sink.shutdown()
            return committed
        finally:
            detach(token)
            self._draining.release()

    def _hand_over(self, everything: bool) -> None:
        """Hand over what is queued now, or of that only full batches.

        Sizes are not kept beside the spans (a tuple a span would cost the caller 0.3 us): the bytes
        removed are what had been added when this began, shared evenly among the spans; so no error
        outlives one call.
        """
        total_bytes, remaining = self._added_bytes, len(self._queue)
        while remaining:
            waiting_bytes = total_bytes - self._removed_bytes
            batch = max(1, min(remaining, BATCH_SPANS, BATCH_BYTES * remaining // max(1, waiting_bytes)))
            if not everything and batch < BATCH_SPANS and waiting_bytes < WAKE_BYTES:
                break
            self._hand_over_batch([self._queue.popleft() for _ in range(batch)])
            self._removed_bytes += waiting_bytes * batch // remaining
            remaining -= batch
            self._let_in()
            if self._removed_bytes - self._committed_bytes >= COMMIT_BYTES:
                self._commit()

        self._let_in()

    def _let_in(self) -> None:
        """End the waiting of callers when an eighth of the bound is free.

        Not sooner: those who come by would take the room of those who wait.
        """
        if self._is_full and self._added_bytes - self._removed_bytes <= self._max_bytes * 7 // 8:
            self._is_full = False

    def _hand_over_batch(self, spans: list[ReadableSpan]) -> None:
        try:
            self.sink.add(spans)
        except Exception as error:  # noqa: BLE001  # against the sink's promise
            self.sink.drop(FAILED, len(spans))
            warn_once("worker", f"{len(spans)} spans can't be kept ({error!r}); they are dropped and counted.")

    def _commit(self) -> bool:
        self._report_drops()
        self._committed_bytes = self._removed_bytes
        return self.sink.commit()

    def _report_drops(self) -> None:
        for reason, count in self._dropped.copy().items():
            if count > self._reported[reason]:
                self.sink.drop(reason, count - self._reported[reason])
                self._reported[reason] = count
