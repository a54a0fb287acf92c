"""SIGTERM, where its action is the default one: flush, then let the signal do what it does by default.

A Python handler alone would not do. Python runs handlers in the main thread when that comes back to
bytecode: a signal that arrives just before a blocking call is seen when the call returns, and a worker
of `multiprocessing` that is terminated while it goes to sleep would never end. So:

- The handler stands only while there are spans to flush. Otherwise the action is the default one.
- It is set to be used once (SA_RESETHAND). Having run, the kernel leaves the default action with the
  flags and the mask of signals that were ours: so it can be seen that the signal came. If the main
  thread has not begun to handle it a fifth of a second later, another thread flushes and sends it again.
- A second SIGTERM ends the process at once.

The program sees the default action. Our handler is an integer equal to `SIG_DFL` that can be called:
`signal.getsignal` and the previous handler that `signal.signal` returns turn it into `SIG_DFL`, whoever
imported these functions and when. (A function instead would break programs that call the previous
handler if it is callable.) A handler that the program sets wins, whenever it does.

Linux only: elsewhere, and where the program has a handler from the beginning, nothing is done.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the functions of `signal` turn handlers into enums
import ctypes
import os
import signal
import sys
import threading
from _thread import start_new_thread
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from otel_debugstore.clock import Clock

_SA_RESETHAND: Final = 0x80000000
_OUR_MASK: Final = sum(1 << (number - 1) for number in (signal.SIGWINCH, signal.SIGURG, signal.SIGIO))
PATIENCE_SECONDS: Final = 0.2
"""So long the main thread may take to begin with a signal."""


class _Action(ctypes.Structure):
    """`struct sigaction` of glibc and musl."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_uint64 * 16),
        ("flags", ctypes.c_uint),
        ("restorer", ctypes.c_void_p),
    )


class _Handler(int):
    """`SIG_DFL` to whoever looks at it, and callable."""

    call: Callable[[], None]

    def __call__(self, signal_number: int, frame: FrameType | None) -> None:
        """Flush, and die of the signal."""
        self.call()


class SigtermWatch:
    """Flushes before SIGTERM ends the process, while it is armed."""

    def __init__(self, flush: Callable[[], None]) -> None:
        """Make a watch that changes nothing before `install`.

        Args:
            flush: Writes what has to be written, in bounded time. Called in the main thread, which may
                be anywhere, or in a thread of its own.
        """
        self.lock = threading.RLock()  # held while the handler is changed, so that two changes don't mix
        self._flush = flush
        self._handler = _Handler(0)
        self._handler.call = self._flush_and_die
        self._ours: _Action | None = None  # the action while armed; None: not installed
        self._is_flushing = False
        self._seen_at: float | None = None  # when `check` first saw that the signal came

    def install(self) -> None:
        """Make SIGTERM ours if its action is the default one and this is the main thread of a Linux process."""
        is_main = threading.current_thread() is threading.main_thread()
        if sys.platform != "linux" or not is_main or _signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
            return
        default = _get_action()
        if default.handler:  # set by something that is not Python
            return
        _signal.signal(signal.SIGTERM, self._handler)
        ours = _get_action()
        _set_action(default)
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL or not ours.handler:
            _signal.signal(signal.SIGTERM, 0)  # another Python would show it
            return
        ours.flags |= _SA_RESETHAND
        ours.mask[0] = _OUR_MASK
        self._ours = ours

    def uninstall(self) -> None:
        """Give SIGTERM back its default action, unless the program has taken it."""
        with self.lock:
            if self._is_installed():
                _signal.signal(signal.SIGTERM, 0)
            self._ours = None

    def arm(self) -> None:
        """From now on flush before the signal ends the process. Takes 3 us."""
        if self._ours is not None and self.lock.acquire(blocking=False):
            try:
                action = _get_action()
                if self._is_installed() and not action.handler and not _is_used_up(action):
                    _set_action(self._ours)
            finally:
                self.lock.release()

    def disarm(self) -> None:
        """From now on let the default action be, which ends the process at once."""
        if self._ours is not None and self.lock.acquire(blocking=False):
            try:
                if self._is_installed() and _is_same(_get_action(), self._ours):
                    _set_action(_Action())
            finally:
                self.lock.release()

    def after_fork_in_child(self) -> None:
        """Forget a signal that was the parent's, and start unarmed."""
        self.lock = threading.RLock()
        self._is_flushing = False
        self._seen_at = None
        if self._is_installed():
            _set_action(_Action())

    def check(self) -> bool:
        """See to it that a signal has its effect. To be called twice a second while armed.

        Returns:
            Whether one has come and is not handled yet, so that this has to be called again after `PATIENCE_SECONDS`.
        """
        if self._is_flushing or self._ours is None or not self._is_installed():
            return False
        action, now = _get_action(), Clock.monotonic()
        if not _is_used_up(action):
            if not _is_same(action, self._ours):
                self.arm()  # it may not have been possible before
        elif self._seen_at is None:
            self._seen_at = now
            return True
        elif now - self._seen_at >= PATIENCE_SECONDS:
            self._is_flushing = True
            start_new_thread(self._flush_and_die, ())
        else:
            return True
        return False

    def _is_installed(self) -> bool:
        return _signal.getsignal(signal.SIGTERM) is self._handler

    def _flush_and_die(self) -> None:
        self._is_flushing = True
        try:
            self._flush()
        finally:
            _set_action(_Action())
            os.kill(os.getpid(), signal.SIGTERM)
            # Still here: the kernel spares the first process of a container.
            self._is_flushing = False
            self._seen_at = None
            self.arm()


_libc: Any = None


def _sigaction(new: Any, old: Any) -> None:
    global _libc
    if _libc is None:
        _libc = ctypes.PyDLL(None)  # keeps the GIL: nothing here waits
    if _libc.sigaction(int(signal.SIGTERM), new, old):
        raise OSError("sigaction failed")


def _get_action() -> _Action:
    action = _Action()
    _sigaction(None, ctypes.byref(action))
    return action


def _set_action(action: _Action) -> None:
    _sigaction(ctypes.byref(action), None)


def _is_same(one: _Action, other: _Action) -> bool:
    return (one.handler, one.flags, one.mask[0]) == (other.handler, other.flags, other.mask[0])


def _is_used_up(action: _Action) -> bool:
    """Return whether the kernel called our handler and put the default action back."""
    return not action.handler and bool(action.flags & _SA_RESETHAND) and action.mask[0] == _OUR_MASK
