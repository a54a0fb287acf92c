"""`OF_THREAD.reads`: how much our own probes read in this thread, which is not the program's I/O."""

from __future__ import annotations

import threading
import weakref
from typing import Final

from otel_debugstore.fork import reset_after_fork
from otel_debugstore.measures.proc_file import ProcFile

MAX_KEPT: Final = 64
"""Threads that may keep a descriptor each. For the others it is opened for each read, at four times the cost."""

_threads: Final[weakref.WeakSet[ThreadReads]] = weakref.WeakSet()


class ThreadReads:
    """Through what this thread reads its own I/O, and how much our probes have read in it."""

    __slots__ = ("__weakref__", "io", "own_bytes", "own_written_bytes", "token")

    def __init__(self) -> None:
        self.io: Final = ProcFile("/proc/thread-self/io", b"rchar: ", is_kept=len(_threads) < MAX_KEPT)
        self.own_bytes = 0
        self.own_written_bytes = 0
        _threads.add(self)
        reset_after_fork(self)
        self.after_fork_in_child()

    def after_fork_in_child(self) -> None:
        """Begin anew: what was read in the parent does not count in the child."""
        self.token = object()
        """The same while figures of this thread can be compared."""


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.reads: Final = ThreadReads()


OF_THREAD: Final = _OfThread()
