"""What has to be done around a fork: a child forgets what belongs to its parent before it records."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol


class ForkAware(Protocol):
    """Holds state that must not reach a forked child."""

    def after_fork_in_child(self) -> None:
        """Forget the parent's spans, threads and locks. Must take no lock: its holder may be gone."""


_aware: Final[weakref.WeakSet[Any]] = weakref.WeakSet()


def reset_after_fork(thing: ForkAware) -> None:
    """Have `thing.after_fork_in_child()` called in every child forked from now on, while it lives."""
    _aware.add(thing)


def _reset_all() -> None:
    for thing in list(_aware):
        _call(thing.after_fork_in_child)


def _call(method: Callable[[], None] | None) -> None:
    """Call what is to be called around a fork; an error would be printed, and what comes after it be left out."""
    try:
        if method is not None:
            method()
    except Exception as error:  # noqa: BLE001
        from otel_debugstore.log import warn_once

        warn_once("fork", f"What has to be done around a fork failed: {error!r}.")


os.register_at_fork(after_in_child=_reset_all)


_quiet: Any = None  # the filter of warnings that `_spare_a_warning` made


def _spare_a_warning() -> None:
    """Where the program has one thread, keep from it what Python says to who forks with several: they are ours.

    The filter stays until a fork finds others: some versions of Python warn only after all that is called at a fork.
    """
    global _quiet
    if threading.active_count() == 1:
        warnings.filterwarnings("ignore", r"This process \(pid=\d+\) is multi-threaded, use of", DeprecationWarning)
        _quiet = warnings.filters[0]
    else:
        with contextlib.suppress(ValueError):
            warnings.filters.remove(_quiet)  # type: ignore[attr-defined]


if sys.version_info >= (3, 12):
    os.register_at_fork(before=_spare_a_warning)


def call_at_fork(before: Callable[[], None], in_parent: Callable[[], None], in_child: Callable[[], None]) -> None:
    """Call bound methods before every fork, and after it in parent and child, while their object lives."""
    methods = [weakref.WeakMethod(method) for method in (before, in_parent, in_child)]
    calls = [lambda found=method: _call(found()) for method in methods]
    os.register_at_fork(before=calls[0], after_in_parent=calls[1], after_in_child=calls[2])


class Lock(Protocol):
    """One of `threading`'s, reentrant or not."""

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """Return whether it could be had in time."""

    def release(self) -> None:
        """Let others have it."""


class HeldAcrossForks:
    """Locks that a thread takes before it forks, so that its child finds what they guard in order.

    Several threads may fork at once: each releases what it took itself, which a flag for all of them can't tell.
    """

    def __init__(self) -> None:
        self._held: dict[int, list[Lock]] = {}  # by thread

    def take(self, lock: Lock, seconds: float) -> bool:
        """Before a fork: return whether the lock could be had in time."""
        taken = lock.acquire(timeout=seconds)
        if taken:
            self._held.setdefault(threading.get_ident(), []).append(lock)
        return taken

    def release(self) -> None:
        """After the fork, in the parent: release what this thread took."""
        for lock in reversed(self._held.pop(threading.get_ident(), [])):
            lock.release()

    def forget(self) -> list[Lock]:
        """After the fork, in the child: return what the thread that forked held; all need new locks there."""
        held = self._held.pop(threading.get_ident(), [])
        self._held.clear()
        return held


def keep_for_ever(thing: object) -> None:
    """Never let `thing` be destroyed, not even when the interpreter ends: in a child that would crash or hang."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
