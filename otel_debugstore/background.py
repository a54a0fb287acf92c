"""Threads of ours in a program that lists, joins or counts its threads: it does not meet them.

Not `threading.Thread`: starting one takes no lock of `threading`, and neither tracing nor a later patch by
gevent reaches it.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections.abc import Callable

from otel_debugstore.log import warn_once
from otel_debugstore.suppressed import suppressed


class BackgroundThread:
    """Runs `work` in a thread, with instrumentation suppressed. A forked child does not have it."""

    def __init__(self, work: Callable[[], None]) -> None:
        """Start it.

        Raises:
            RuntimeError: There is no thread to be had.
        """
        self._running = allocate_lock()  # held while it runs
        self._running.acquire()
        self._work = work
        try:
            start_new_thread(self._run, ())
        except BaseException:
            self._running.release()
            raise

    def is_alive(self) -> bool:
        """Return whether it runs."""
        return self._running.locked()

    def join(self, seconds: float) -> bool:
        """Wait until it has ended, for at most so long; return whether it has."""
        if not self._running.acquire(timeout=max(0.0, seconds)):
            return False
        self._running.release()
        return True

    def _run(self) -> None:
        try:
            with suppressed():
                self._work()
        except Exception as error:  # noqa: BLE001  # it would be printed
            warn_once("thread", f"A thread of recording ended by an error: {error!r}.")
        finally:
            self._running.release()
