"""`BoundedSpanProcessor`: ended spans on their way to a sink, bounded by memory, never blocking for long.

Capacity: what `SpanQueue` says; 64 MiB, then `on_end` waits at most 100 ms, then the span is dropped and
counted as "queue_full".
Latency: a commit every `schedule_delay_millis`. When spans come in faster, the worker hands them to the
sink as soon as they take 1 MiB, in batches of at most 512: so they are few, and the memory they took is
used again while it is in the processor's cache. Commits run in a second thread: a disk that takes its
time does not keep the queue from being emptied.
Flush: `force_flush` returns within its timeout, and True only if all that had ended was committed.
`shutdown` takes at most 10 s. A span that ends later is counted as "after_shutdown".
Fork: the child starts with an empty queue and new threads; what was queued belongs to the parent.
Threads: every method may be called from any thread, and from a signal handler or a finalizer at any
point of another method: no caller waits for a lock that the frame it interrupted may hold.
"""

from __future__ import annotations

import sys
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor

from otel_debugstore.background import BackgroundThread
from otel_debugstore.clock import Clock
from otel_debugstore.fork import reset_after_fork
from otel_debugstore.guard import is_meant_for_the_program
from otel_debugstore.lifecycle import check_signals, has_saved, has_unsaved, is_anything_open
from otel_debugstore.log import warn_once
from otel_debugstore.outbox import OUTBOX
from otel_debugstore.sigterm import PATIENCE_SECONDS
from otel_debugstore.span_queue import SpanQueue
from otel_debugstore.suppressed import suppressed

SHUTDOWN_SECONDS: Final = 10.0

QUEUE_FULL: Final = "queue_full"
AFTER_SHUTDOWN: Final = "after_shutdown"
FAILED: Final = "failed"

_TRACE_FLAGS: Final = 3  # of a SpanContext, which is a tuple: a tenth of a microsecond less than its property
_COMMIT_SPANS: Final = 16_384
_CHECK_SECONDS: Final = 0.5
_LATE_SECONDS: Final = 0.1
_GIVE_UP_SECONDS: Final = 0.1
_MAX_LOCK_SECONDS: Final = 86400.0


class BatchSink(Protocol):
    """Where spans go. `add` and `drop` are called by one thread at a time, `commit` by another one at the
    same time. Nothing it does may raise.
    """

    def add(self, spans: Sequence[ReadableSpan]) -> None:
        """Take over at most 512 ended spans, to be made durable by the next commit.

        They may be deferred: by `span_fields` what is known of them can be had without making them.
        """

    def drop(self, reason: str, count: int) -> None:
        """Count spans that were lost for `reason`; the next commit makes the count durable."""

    def commit(self, *, is_asked: bool) -> bool:
        """Make all that was added or counted durable at once; return whether that was done.

        Args:
            is_asked: Whether somebody wants everything to be durable, or nothing comes any more; else it is as often as
                once a second, and what is of no use alone may wait.
        """

    def shutdown(self) -> None:
        """Commit, or else count what can't be, and let go of files. A later commit may open them again."""


class _Signal:
    """Wakes one thread. Setting it never waits, and is safe inside itself."""

    def __init__(self) -> None:
        self._lock = allocate_lock()  # held while there is nothing to wake up for
        self._lock.acquire()

    def set(self) -> None:
        if self._lock.locked():
            try:
                self._lock.release()
            except RuntimeError:  # another thread was faster
                return

    def wait(self, seconds: float) -> bool:
        return self._lock.acquire(timeout=max(0.0, min(seconds, _MAX_LOCK_SECONDS)))


class _Ticket:
    """Somebody who waits for a commit of all that had ended before."""

    def __init__(self) -> None:
        self._signal = _Signal()
        self._committed = False

    def wait(self, seconds: float) -> bool:
        return self._signal.wait(seconds) and self._committed

    def finish(self, committed: bool) -> None:
        self._committed = committed
        self._signal.set()


class BoundedSpanProcessor(SpanProcessor):
    """Queues ended spans up to a bound in bytes and hands them to a sink from threads of its own."""

    takes_deferred: Final = True
    """See `calls.deferral`."""

    def __init__(self, sink: BatchSink, *, max_bytes: int = 64 << 20, schedule_delay_millis: float = 1000) -> None:
        """Make a processor; its threads start with the first span, or when it has to stand by.

        Args:
            sink: Where the spans go.
            max_bytes: The memory that spans may take between their end and their being encoded.
            schedule_delay_millis: The longest time until a commit of a span begins.
        """
        self.sink: Final = sink
        self._max_bytes = max_bytes
        self._delay_seconds = schedule_delay_millis / 1000
        self.is_shut_down = False
        """Whether spans that end now are dropped and counted."""
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Start over with nothing queued and no threads; the next span starts them."""
        self._wake = _Signal()
        self._commit_wanted = _Signal()
        self._queue = SpanQueue(self._max_bytes, self._wake.set)
        self._dropped = {AFTER_SHUTDOWN: 0, FAILED: 0}  # changed by callers
        self._reported: dict[str, int] = {}  # changed under the hand-over lock
        self._late_seconds = self._late_next = 0.0
        self._tickets: deque[_Ticket] = deque()  # waiting for a hand-over
        self._tickets_to_commit: deque[_Ticket] = deque()
        self._has_threads = False
        self._is_ready = False  # the threads run, and signals are watched; set by callers
        self._handed_over = self._committed = 0  # spans; set by one thread each
        self._starting = allocate_lock()  # held while threads are being started; never waited for
        self._handing_over = allocate_lock()  # guards taking from the queue and adding to the sink
        self._committing = allocate_lock()  # guards the sink's commit and shutdown
        self._running: list[BackgroundThread] = []

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing."""

    def _on_ending(self, span: Span) -> None:
        """Do nothing."""

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a sampled span; wait at most 100 ms if there is no room, and then drop it."""
        try:
            context = span._context
            if context is None or not context[_TRACE_FLAGS] & 1:
                return
            if self._is_ready or self._become_ready():
                self._queue.put(span)
                if self.is_shut_down:  # the last hand-over may have passed before the put
                    self._write_down(0)
        except Exception as error:  # it would reach the program
            if is_meant_for_the_program(error):
                raise
            self._dropped[FAILED] += 1

    def on_end_deferred(self, span: Any, size: int) -> None:
        """Queue a deferred span (`calls.deferred`) that is sampled and takes so many bytes, as `on_end` does."""
        try:
            if self._is_ready or self._become_ready():
                self._queue.put_sized(span, size)
                if self.is_shut_down:  # as above
                    self._write_down(0)
        except Exception as error:  # it would reach the program
            if is_meant_for_the_program(error):
                raise
            self._dropped[FAILED] += 1

    def stand_by(self) -> None:
        """Watch signals, and write what the sink finds by itself, though no span has ended. Never waits."""
        if not self._is_ready and not self.is_shut_down:
            self._become_ready()

    def is_busy(self) -> bool:
        """Return whether spans come in faster than they are written right now."""
        return self._queue.is_busy()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Commit all spans that have ended.

        Returns:
            Whether they were committed; False also when `timeout_millis` did not suffice.
        """
        try:
            return self._flush(timeout_millis / 1000)
        except Exception as error:  # it would reach the program
            if is_meant_for_the_program(error):
                raise
            warn_once("worker", f"Writing spans failed ({error!r}); it is tried again.")
            return False

    def _flush(self, seconds: float) -> bool:
        if self._has_threads:
            ticket = _Ticket()
            self._tickets.append(ticket)
            self._wake.set()
            if self._has_threads:  # else the worker may have ended before it saw the ticket
                return ticket.wait(seconds)
        if self._queue or self.is_shut_down or OUTBOX.has_silent_counts:
            return self._write_down(seconds)
        return True

    def give_up(self) -> None:
        """Have the sink count what it can't commit: the process ends now."""
        self._commit(_GIVE_UP_SECONDS, and_shut_down=True)

    def shutdown(self) -> None:
        """Commit what has ended and stop the threads, within 10 s."""
        if self.is_shut_down:
            return
        deadline = Clock.monotonic() + SHUTDOWN_SECONDS
        self.is_shut_down = True
        self._has_threads = self._is_ready = False
        self._wake.set()
        self._commit_wanted.set()
        for thread in self._running:
            thread.join(deadline - Clock.monotonic())
        if not self._write_down(max(0.1, deadline - Clock.monotonic()), and_shut_down=True):
            warn_once("journal", "The last spans could not be written before the program ended.")
        has_saved(self)

    def _become_ready(self) -> bool:
        """Start the threads if they do not run, watch signals; count the span and return False once shut down."""
        if self.is_shut_down:
            self._count_late()
            return False
        if self._starting.acquire(blocking=False):
            try:
                has_unsaved(self)
                for work in (self._work, self._commit_when_wanted)[len(self._running) :]:
                    self._running.append(BackgroundThread(partial(self._keep_on, work)))
                self._has_threads = self._is_ready = not self.is_shut_down
            except RuntimeError:  # no thread to be had: flush and shutdown write in their caller's
                pass
            finally:
                self._starting.release()
        return True

    def _keep_on(self, work: Callable[[], None]) -> None:
        """Do the work of a thread until shutdown, whatever fails in it: spans would wait for it for ever."""
        while not self.is_shut_down:
            try:
                work()
            except Exception as error:  # noqa: BLE001
                warn_once("worker", f"Writing spans failed ({error!r}); it goes on with the next ones.")
                self._wake.wait(self._delay_seconds)

    def _work(self) -> None:
        """Hand spans over when there are many and when a commit is due."""
        next_commit = 0.0
        last_commit = 0  # what had been handed over when it was asked for
        while not self.is_shut_down:
            pause = PATIENCE_SECONDS if check_signals() else _CHECK_SECONDS
            pause = min(self._delay_seconds, pause) if self._is_ready else self._delay_seconds
            is_awake = self._wake.wait(min(next_commit - Clock.monotonic(), pause))
            tickets = _take_all(self._tickets)
            is_due = bool(tickets) or Clock.monotonic() >= next_commit
            if not is_due and not is_awake:
                continue  # there is no batch to take: only signals are looked at
            self._handed_over += self._hand_over(is_due)
            if is_due or self._handed_over - last_commit >= _COMMIT_SPANS:
                self._rest_if_idle(last_commit)
                last_commit = self._handed_over
                self._tickets_to_commit.extend(tickets)
                self._commit_wanted.set()
                next_commit = Clock.monotonic() + self._delay_seconds

    def _rest_if_idle(self, last_commit: int) -> None:
        """Watch signals no more when nothing came since the last commit and all before was committed."""
        if self._is_ready and not _may_come() and last_commit == self._handed_over == self._committed:
            has_saved(self)
            self._is_ready = False
            if self._queue or _may_come():  # it came just now
                self._become_ready()

    def _commit_when_wanted(self) -> None:
        while not self.is_shut_down:
            self._commit_wanted.wait(_MAX_LOCK_SECONDS)
            tickets = _take_all(self._tickets_to_commit)
            handed_over = self._handed_over
            is_asked = bool(tickets) or handed_over == self._committed
            committed = self._commit(_MAX_LOCK_SECONDS, is_asked=is_asked)
            if committed:
                self._committed = handed_over
            for ticket in tickets:
                ticket.finish(committed)

    def _write_down(self, seconds: float, and_shut_down: bool = False) -> bool:
        """Hand over and commit what is queued now; return whether that was done within `seconds`."""
        deadline = Clock.monotonic() + seconds
        with suppressed():
            self._hand_over(True, seconds)
            return self._commit(max(0.0, deadline - Clock.monotonic()), and_shut_down=and_shut_down) and not self._queue

    def _hand_over(self, everything: bool, seconds: float = _MAX_LOCK_SECONDS) -> int:
        """Hand over what is queued now, or of that only full batches; return how many spans that was."""
        if not self._handing_over.acquire(timeout=min(seconds, _MAX_LOCK_SECONDS)):
            return 0
        count = 0
        try:
            for spans in self._queue.batches(everything):
                count += len(spans)
                self._add(spans)
            self._report_drops()
        except BaseException as error:  # noqa: BLE001  # the worker must live on
            warn_once("worker", f"Writing spans failed ({error!r}); it goes on with the next ones.")
        finally:
            self._handing_over.release()
        return count

    def _add(self, spans: list[ReadableSpan]) -> None:
        try:
            self.sink.add(spans)
        except BaseException as error:  # noqa: BLE001  # against the sink's promise
            self._dropped[FAILED] += len(spans)
            warn_once("worker", f"{len(spans)} spans can't be kept ({error!r}); they are dropped and counted.")

    def _commit(self, seconds: float, *, is_asked: bool = True, and_shut_down: bool = False) -> bool:
        if not self._committing.acquire(timeout=min(seconds, _MAX_LOCK_SECONDS)):
            return False
        try:
            committed = self.sink.commit(is_asked=is_asked)
            if and_shut_down:
                self.sink.shutdown()
            return committed
        except BaseException as error:  # noqa: BLE001  # against the sink's promise
            warn_once("worker", f"Writing spans failed ({error!r}); it is tried again.")
            return False
        finally:
            self._committing.release()

    def _count_late(self) -> None:
        """Count a span that ended after shutdown, and write the count down if that costs little.

        Each is written at once until that has taken 0.1 s, then at most one a second. Does not wait:
        whoever holds a lock may be the frame that this one interrupted.
        """
        if sys.is_finalizing():  # modules are taken away: nothing can be written any more
            return
        self._dropped[AFTER_SHUTDOWN] += 1
        began = Clock.monotonic()
        if self._late_seconds < _LATE_SECONDS or began >= self._late_next:
            self._write_down(0)
            ended = Clock.monotonic()
            self._late_seconds += ended - began
            self._late_next = ended + 1

    def _report_drops(self) -> None:
        for reason, count in {QUEUE_FULL: self._queue.dropped, **self._dropped}.items():
            new = count - self._reported.get(reason, 0)
            if new:
                self.sink.drop(reason, new)
                self._reported[reason] = count


def _may_come() -> bool:
    """Return whether there may be something to lose though no span has ended."""
    return OUTBOX.has_silent_counts or is_anything_open()


def _take_all(tickets: deque[_Ticket]) -> list[_Ticket]:
    return [tickets.popleft() for _ in range(len(tickets))]
