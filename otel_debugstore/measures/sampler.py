"""`SAMPLER`: a thread that looks at what can't be known at the end of a call, while there is something to look at.

Who looks says when to do that again. While there is nothing it still looks every 160 ms, because to be woken up would
cost each caller more, and sleeps when there was nothing for 2 s. A look costs 20 to 150 us of CPU, most of it for the
change to a thread whose memory is in no cache any more. The thread is a raw one (see `processor`): the program
neither meets it nor waits for it at its end.
Loss: where no thread can be started, and where C code keeps the interpreter, nothing is seen meanwhile; who looks
has to notice by the clock.
Threads: any; `wake` takes no lock and is safe in signal handlers. Fork: the child's starts when it is needed.
"""

from __future__ import annotations

from _thread import LockType, allocate_lock, start_new_thread
from collections.abc import Callable
from typing import Final

from otel_debugstore.fork import reset_after_fork
from otel_debugstore.log import warn_once

LOOK_SECONDS: Final = 0.02
IDLE_LOOK_SECONDS: Final = 0.16

_IDLE_LOOKS: Final = 12  # before it sleeps
_SLEEP_SECONDS: Final = 86_400.0

Look = Callable[[], float | None]
"""Look, and return after how many seconds to look again; None if there is nothing now."""


class Sampler:
    """See the module's first lines."""

    def __init__(self) -> None:
        self._looks: tuple[Look, ...] = ()
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Start over without a thread."""
        self.is_asleep = True
        """Whether `wake` has to be called when there is something to look at."""
        self._has_thread = False
        self._signal: LockType = allocate_lock()  # held while there is nothing to wake up for
        self._signal.acquire()

    def add(self, look: Look) -> None:
        """Have `look` called while the thread is awake; it must not raise."""
        self._looks = (*self._looks, look)

    def wake(self) -> None:
        """Have everybody look soon, and then as often as they want."""
        self.is_asleep = False
        if not self._has_thread:
            self._has_thread = True
            try:
                start_new_thread(self._run, (self._signal,))
            except RuntimeError:  # no thread to be had; the next call tries again
                self._has_thread, self.is_asleep = False, True
            return
        try:
            self._signal.release()
        except RuntimeError:  # it is released already
            return

    def _run(self, signal: LockType) -> None:
        try:
            self._look_on(signal)
        except Exception as error:  # noqa: BLE001  # it would be printed
            warn_once("sampler", f"Looking at the memory failed ({error!r}); the next call begins with it again.")
            self._has_thread, self.is_asleep = False, True

    def _look_on(self, signal: LockType) -> None:
        idle_looks = 0
        while True:
            seconds = self._look()
            idle_looks = 0 if seconds is not None else idle_looks + 1
            if idle_looks > _IDLE_LOOKS:
                self.is_asleep = True
                if self._look() is None:  # else it came just before it could know that we have to be woken up
                    signal.acquire(timeout=_SLEEP_SECONDS)
                self.is_asleep = False
                idle_looks = 0
                seconds = LOOK_SECONDS
            signal.acquire(timeout=IDLE_LOOK_SECONDS if seconds is None else seconds)

    def _look(self) -> float | None:
        wanted = [seconds for look in self._looks if (seconds := look()) is not None]
        return min(wanted) if wanted else None


SAMPLER: Final = Sampler()
