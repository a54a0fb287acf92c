"""`DuckDBSyncProcessor`: seals the journal into DuckDB while the program runs.

One process of a session is elected (it holds the session's `seal` lock until it ends); children and
forked workers never are, and never import duckdb. Loss: none, the journal keeps what is not sealed.
The thread wakes every two seconds, looks at one counter in the journal (every ten seconds while a segment's worth
is far away), and seals only when that has come together and recording leaves it room, or when another process asks
for it. Once a minute it merges small segments, if there are many: at most 122,880 spans at a time, in 32 MB, and
none when the program ends or forks.
"""

from __future__ import annotations

import atexit
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from opentelemetry.sdk.trace import SpanProcessor

from otel_debugstore.background import BackgroundThread
from otel_debugstore.config import Settings
from otel_debugstore.fork import HeldAcrossForks, call_at_fork
from otel_debugstore.log import warn_once
from otel_debugstore_exporters.sealer import Sealer
from otel_debugstore_exporters.session import HeldLock, SessionPaths

_POLL_SECONDS: Final = 2.0
_FAR_POLLS: Final = 5
_RETENTION_SECONDS: Final = 300.0
_MERGING_SECONDS: Final = 60.0
_EXIT_SECONDS: Final = 1.0
_INTERRUPT_SECONDS: Final = 5.0
_FORK_WAIT_SECONDS: Final = 1.0


class DuckDBSyncProcessor(SpanProcessor):
    """Seals a session's journal in the background; sees no spans itself.

    Args:
        paths: The session.
        settings: Segment size and retention.
        may_seal: False in children: they only mark the session as live.
        is_busy: Whether recording needs the processor and the memory now; sealing then waits.
    """

    sees_spans: Final = False

    def __init__(
        self,
        paths: SessionPaths,
        settings: Settings,
        may_seal: bool,
        is_busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._may_seal = may_seal
        self._is_busy = is_busy
        self._thread: BackgroundThread | None = None
        self._reset()
        call_at_fork(self._before_fork, self._after_fork_in_parent, self._after_fork_in_child)
        if may_seal:
            self._start()

    def shutdown(self) -> None:
        """Stop; seal what is left if that fits in a second. Sealing that is under way is given up at once."""
        is_sealing = self._sealer.is_writing
        self._stop.set()
        thread, self._thread = self._thread, None
        if thread is not None and thread.is_alive():
            if not is_sealing:
                thread.join(_EXIT_SECONDS)
            self._interrupt(thread)
        self._give_up_lock()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return True: what was flushed into the journal is durable and visible, sealed or not."""
        return True

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Give up the session's `seal` lock for a while, so that this process can seal by hand."""
        with self._working:
            self._give_up_lock()
            yield

    def _reset(self) -> None:
        self._working = threading.Lock()  # held while the thread works or is paused, and across a fork
        self._stop = threading.Event()
        self._sealer = Sealer(self._paths, self._settings, self._is_cancelled, self._end_before_duckdb)
        self._held = HeldAcrossForks()
        self._forking = set[int]()  # threads that are about to fork
        self._forks = 0
        self._interrupted = False
        self._lock: HeldLock | None = None  # the session's `seal`: this process is elected
        self._ends_before_duckdb = False

    def _before_fork(self) -> None:
        """Have sealing give way: a child that has a copy of its frames crashes, or writes to stderr, when it ends."""
        self._forking.add(threading.get_ident())
        self._forks += 1
        deadline = time.monotonic() + _FORK_WAIT_SECONDS
        while not self._held.take(self._working, 0.005) and time.monotonic() < deadline:
            self._sealer.interrupt()

    def _after_fork_in_parent(self) -> None:
        self._forking.discard(threading.get_ident())
        self._held.release()

    def _after_fork_in_child(self) -> None:
        """Let go of what the parent holds: the child's copies of its locks would outlive it."""
        lock = self._lock
        self._may_seal = False
        self._thread = None
        self._reset()
        if lock is not None:
            lock.release()

    def _start(self) -> None:
        try:
            self._thread = BackgroundThread(self._run)
        except RuntimeError as error:
            warn_once("journal", f"Nothing is sealed here ({error}); the journal keeps the spans, and readers seal.")

    def _run(self) -> None:
        try:
            self._work()
        except Exception as error:  # noqa: BLE001  a failing sealer must not be seen by the program
            warn_once("journal", f"sealing stopped ({error}); the journal keeps the spans, and readers seal later.")

    def _work(self) -> None:
        next_retention, next_merging = 0.0, time.monotonic() + _MERGING_SECONDS
        polls = 0
        while not self._stop.wait(_POLL_SECONDS):
            polls += 1
            if polls % _FAR_POLLS and self._sealer.is_far and not self._is_asked():
                continue
            with self._working:
                self._guarded(self._seal_what_is_ready)
                if time.monotonic() >= next_retention:
                    next_retention = time.monotonic() + _RETENTION_SECONDS
                    self._guarded(self._sealer.apply_retention)
                if time.monotonic() >= next_merging and not self._is_busy():
                    next_merging = time.monotonic() + _MERGING_SECONDS
                    self._guarded(self._sealer.merge_small_segments)
        with self._working:
            if not self._interrupted:
                self._guarded(self._seal_at_exit)

    def _is_asked(self) -> bool:
        try:
            return self._paths.seal_request.exists()
        except OSError:  # whoever looks at the journal says what is wrong, and tries again
            return True

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do some work if this process is the elected one; what goes wrong is said once."""
        forks = self._forks
        try:
            if self._elected():
                work()
        except Exception as error:  # noqa: BLE001  tried again with the next poll
            if self._stop.is_set() or self._forks != forks:
                return  # the program ends, and the next reader seals; or it forks, and the next poll does
            warn_once("journal", f"sealing {self._paths.session_id} failed ({error}); it is tried again.")

    def _elected(self) -> bool:
        if not self._may_seal or not self._paths.journal.is_dir():
            return False
        if self._lock is None or not self._lock.is_held():
            self._lock = self._paths.hold("seal")
        return self._lock is not None

    def _seal_what_is_ready(self) -> None:
        self._sealer.seal_what_is_ready(self._is_busy, lambda: self._stop.is_set() or bool(self._forking))

    def _seal_at_exit(self) -> None:
        # Importing duckdb runs `exec`, and CPython then forgets that the exit status has to be SIGINT's.
        if getattr(sys, "last_type", None) is not KeyboardInterrupt:
            self._sealer.seal_within(_EXIT_SECONDS)

    def _is_cancelled(self) -> bool:
        return self._interrupted or bool(self._forking)

    def _end_before_duckdb(self) -> None:
        """Have `shutdown` called before DuckDB's own exit handler, after which it reads no more Arrow.

        Exit handlers run last in, first out; the tracer provider's comes long after DuckDB's.
        """
        if not self._ends_before_duckdb:
            self._ends_before_duckdb = True
            atexit.register(self.shutdown)

    def _interrupt(self, thread: BackgroundThread) -> None:
        """Make sealing give up. DuckDB's binding writes to stderr if a connection outlives the interpreter."""
        deadline = time.monotonic() + _INTERRUPT_SECONDS
        self._interrupted = True
        while thread.is_alive() and time.monotonic() < deadline:
            self._sealer.interrupt()
            thread.join(0.02)

    def _give_up_lock(self) -> None:
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()
