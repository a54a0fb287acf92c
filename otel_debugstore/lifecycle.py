"""What happens to ended spans when the process ends in a way that runs no `atexit` handler.

- `os._exit` and `os.exec*` flush first, for at most 2 s. So multiprocessing and Celery workers, which
  end by `os._exit`, lose nothing. A program goes on after an `os.exec*` that fails: nothing is given up for one, and
  what is open is ended only if there is a file that may be executed.
- SIGTERM, where its action is the default one: see `sigterm`. At most 2 s too, and the exit status stays.
- Before either flush what is open of its own accord (workflows of a tracker, coroutines, generators) is ended, in a
  thread of its own, since the main thread may have been interrupted anywhere; that is waited for at most 1 s.
- What can't be flushed because the disk refuses is counted, as far as it lets that be written; not at an `os.exec*`.
- A normal end, an unhandled exception and SIGINT run `atexit`: what is open is ended, then the provider shuts down.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import signal
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

from opentelemetry import trace

from otel_debugstore.background import BackgroundThread
from otel_debugstore.clock import Clock
from otel_debugstore.fork import reset_after_fork
from otel_debugstore.sigterm import SigtermWatch

FLUSH_SECONDS: Final = 2.0

_CLOSE_SECONDS: Final = 1.0
_EXECS: Final = ("execv", "execve")  # the other exec functions of `os` call these, once for each folder of PATH


class Flushable(Protocol):
    """Has spans to write before the process ends."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Write them within the timeout, waiting for no lock that an interrupted frame may hold."""

    def give_up(self) -> None:
        """Count what could not be flushed, as far as that can be written: the process ends now."""

    def stand_by(self) -> None:
        """Say `has_unsaved` now, though no span has ended, and write what waits. Must not wait."""


class Closable(Protocol):
    """Has spans open that nobody ends when the process ends."""

    @property
    def is_open(self) -> bool:
        """Whether it has one open now."""

    def close_all(self, outcome: str) -> None:
        """End them, so that they can be flushed. Never raises."""


def flush(outcome: str) -> None:
    """Close what is open, and flush all that was given to `flush_at_end`, for at most 2 s together. Never raises.

    Args:
        outcome: How what is open ended.
    """
    _flush(outcome, is_certain=True)


def _flush(outcome: str | None, is_certain: bool) -> None:
    """See `flush`.

    Args:
        outcome: None leaves open what is open.
        is_certain: Whether the process ends for sure, so that what can't be flushed may be given up.
    """
    deadline = Clock.monotonic() + FLUSH_SECONDS
    if outcome is not None:
        with contextlib.suppress(Exception):  # the process is ending; it has to
            _close(outcome)
    for flushable in list(_flushables):
        try:
            if not flushable.force_flush(max(0, int((deadline - Clock.monotonic()) * 1000))) and is_certain:
                # In a thread of its own: it takes locks that the interrupted frame may hold.
                BackgroundThread(flushable.give_up).join(deadline - Clock.monotonic())
        except Exception:  # noqa: BLE001  # the process is ending; it has to
            continue


def _close(outcome: str) -> None:
    if is_anything_open():
        with contextlib.suppress(RuntimeError):  # there is no thread to be had
            BackgroundThread(functools.partial(_close_all, outcome)).join(_CLOSE_SECONDS)


def _close_all(outcome: str) -> None:
    for closable in list(_unsaved.open):
        with contextlib.suppress(Exception):  # it would be printed
            closable.close_all(outcome)


class _Unsaved:
    """Those that have spans to lose, for which SIGTERM is watched."""

    def __init__(self) -> None:
        self.things: set[Any] = set()
        self.open: set[Closable] = set()
        self.provider: object = None
        self.sigterm = SigtermWatch(functools.partial(flush, "terminated"))
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        self.things.clear()
        self.open.clear()
        self.sigterm.after_fork_in_child()


_flushables: Final[weakref.WeakSet[Any]] = weakref.WeakSet()
_unsaved: Final = _Unsaved()
_originals: Final[dict[tuple[Any, str], Any]] = {}


def flush_at_end(flushable: Flushable) -> None:
    """Have `flushable` flushed, while it lives, however this process and its forked children end.

    It has to say when it has something to lose (`has_unsaved`) and when it has not (`has_saved`), and
    to call `check_signals` twice a second between the two.
    """
    _flushables.add(flushable)
    if not _originals:
        _replace(os, "_exit", _flushing(os._exit))
        for name in _EXECS:
            _replace(os, name, _flushing_if_run(getattr(os, name)))
        _replace(signal, "signal", _keeping_ours(signal.signal))
        _unsaved.sigterm.install()


def has_unsaved(flushable: Flushable) -> None:
    """Watch for signals on behalf of `flushable`, if it was given to `flush_at_end`. Takes a few us."""
    if flushable in _flushables:
        _unsaved.things.add(flushable)
        _unsaved.sigterm.arm()


def has_saved(flushable: Flushable) -> None:
    """Do not watch on behalf of `flushable` any more."""
    _unsaved.things.discard(flushable)
    if not _unsaved.things:
        _unsaved.sigterm.disarm()


def has_open(closable: Closable) -> None:
    """Have `closable` closed before the process ends. To be called whenever it has one open and had none."""
    _unsaved.open.add(closable)
    if (provider := trace.get_tracer_provider()) is not _unsaved.provider:
        _unsaved.provider = provider
        # It has to run before the provider's own handler, so it is registered after that.
        atexit.unregister(_close_all)
        atexit.register(_close_all, "exit")
    if not _unsaved.things:  # else who watches sees that something is open before it rests
        stand_by()


def is_anything_open() -> bool:
    """Return whether something would be closed before the process ends."""
    return any(closable.is_open for closable in list(_unsaved.open))


def stand_by() -> None:
    """Tell those that were given to `flush_at_end` that there is something to lose, though no span has ended."""
    for flushable in list(_flushables):
        flushable.stand_by()


def check_signals() -> bool:
    """See to it that a signal that came has its effect; return whether to look again after `PATIENCE_SECONDS`."""
    return bool(_unsaved.things) and _unsaved.sigterm.check()


def restore() -> None:
    """Undo what `flush_at_end` did to the process; for tests."""
    _flushables.clear()
    _unsaved.things.clear()
    _unsaved.open.clear()
    _unsaved.provider = None
    atexit.unregister(_close_all)
    for (module, name), original in _originals.items():
        setattr(module, name, original)
    _originals.clear()
    _unsaved.sigterm.uninstall()


def _keeping_ours(real: Callable[..., Any]) -> Callable[..., Any]:
    """Programs put the default action back when they have handled a signal (uvicorn, asyncio and
    multiprocessing do): then it is watched again.
    """

    @functools.wraps(real)
    def set_handler(signalnum: Any, handler: Any) -> Any:
        with _unsaved.sigterm.lock:
            previous = real(signalnum, handler)
            if signalnum == signal.SIGTERM and handler == signal.SIG_DFL:
                _unsaved.sigterm.install()
                if _unsaved.things:
                    _unsaved.sigterm.arm()
            return previous

    return set_handler


def _flushing(real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def end(*args: Any, **kwargs: Any) -> Any:
        flush("exit")
        return real(*args, **kwargs)

    end.__module__ = "os"  # not "posix", where `pickle` would look for it and find another one
    return end


def _flushing_if_run(real: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(real)
    def run(*args: Any, **kwargs: Any) -> Any:
        _flush("exit" if _may_run(args[0] if args else kwargs.get("path")) else None, is_certain=False)
        return real(*args, **kwargs)

    run.__module__ = "os"  # as above
    return run


def _may_run(program: Any) -> bool:
    try:
        # A descriptor can't be asked whether it may be executed.
        return os.path.isfile(program) and (isinstance(program, int) or os.access(program, os.X_OK))  # noqa: PTH113
    except Exception:  # noqa: BLE001  # what is no path; the real function says so
        return False


def _replace(module: Any, name: str, replacement: Any) -> None:
    _originals[module, name] = getattr(module, name)
    setattr(module, name, replacement)
