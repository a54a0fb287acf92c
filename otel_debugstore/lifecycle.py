"""What happens to ended spans when the process ends in a way that runs no `atexit` handler.

- `os._exit` and `os.exec*`: both flush first, for at most 2 s. So multiprocessing and Celery workers,
  which end by `os._exit`, lose nothing.
- SIGTERM where its action is the default one: flush for at most 2 s, then the signal again with the
  default action, so that the exit status stays. A handler that the program sets wins, whenever it does;
  a main thread that is inside a long C call sees the signal only when it returns, as with any handler.
- A normal end, an unhandled exception and SIGINT run `atexit`, where the provider shuts down.

What the program sees of itself stays as it was: for it, SIGTERM has its default action. Our handler is
an integer equal to `SIG_DFL` that can be called: `signal.getsignal` and the previous handler that
`signal.signal` returns turn it into `Handlers.SIG_DFL`, whoever imported these functions and when.
(Showing a function instead would break programs that call the previous handler if it is callable.)
And as programs put the default action back when they have handled a signal (uvicorn, asyncio and
multiprocessing do), `signal.signal(SIGTERM, SIG_DFL)` puts ours back.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the functions of `signal` turn handlers into enums
import functools
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, Protocol

FLUSH_SECONDS: Final = 2.0

_ENDINGS: Final = ("_exit", "execv", "execve")  # the other exec functions of `os` call the last two


class Flushable(Protocol):
    """Has spans to write before the process ends."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Write them within the timeout, waiting for no lock that an interrupted frame may hold."""


_flushables: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_originals: Final[dict[tuple[Any, str], Any]] = {}


def flush_at_end(flushable: Flushable) -> None:
    """Have `flushable` flushed, while it lives, however this process and its forked children end."""
    _flushables.add(flushable)
    if not _originals:
        for name in _ENDINGS:
            _replace(os, name, _flushing(getattr(os, name)))
        _replace(signal, "signal", _keeping_ours(signal.signal))
        if (
            threading.current_thread() is threading.main_thread()
            and _signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        ):
            _take_sigterm()


def restore() -> None:
    """Undo what `flush_at_end` did to the process; for tests."""
    _flushables.clear()
    for (module, name), original in _originals.items():
        setattr(module, name, original)
    _originals.clear()
    if isinstance(_signal.getsignal(signal.SIGTERM), _FlushThenDefault):
        _signal.signal(signal.SIGTERM, int(signal.SIG_DFL))


def flush(seconds: float = FLUSH_SECONDS) -> None:
    """Flush all that was given to `flush_at_end`, for at most `seconds` together. Never raises."""
    deadline = time.monotonic() + seconds
    for flushable in list(_flushables):
        try:
            flushable.force_flush(max(0, int((deadline - time.monotonic()) * 1000)))
        except Exception:  # noqa: BLE001  # the process is ending; it has to
            continue


class _FlushThenDefault(int):
    """The handler of SIGTERM: `SIG_DFL` to whoever looks at it, and callable."""

    is_running = False

    def __call__(self, signal_number: int, frame: FrameType | None) -> None:
        """Flush, then let the signal do what it does by default."""
        try:
            if not self.is_running:  # a second signal ends the process at once
                self.is_running = True
                flush()
        finally:
            self.is_running = False
            _signal.signal(signal_number, int(signal.SIG_DFL))
            os.kill(os.getpid(), signal_number)
            _take_sigterm()  # still here: the kernel spares the first process of a container


_handler: Final = _FlushThenDefault(int(signal.SIG_DFL))


def _take_sigterm() -> None:
    _signal.signal(signal.SIGTERM, _handler)
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:  # another Python would show it: better not
        _signal.signal(signal.SIGTERM, int(signal.SIG_DFL))


def _keeping_ours(real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def set_handler(signalnum: Any, handler: Any) -> Any:
        previous = real(signalnum, handler)
        if signalnum == signal.SIGTERM and handler == signal.SIG_DFL:
            _take_sigterm()
        return previous

    return set_handler


def _flushing(real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def end(*args: Any, **kwargs: Any) -> Any:
        flush()
        return real(*args, **kwargs)

    return end


def _replace(module: Any, name: str, replacement: Any) -> None:
    _originals[module, name] = getattr(module, name)
    setattr(module, name, replacement)
