"""Modules of ours that are loaded late, in whatever thread needs them first, in a program that may fork meanwhile.

A child forked during an import in another thread would wait for ever for the end of that import. So a fork waits
until it is done, for at most two seconds. Such a fork calls nothing of what the loaded modules have registered for
forks (they had not when it began): so what was loaded is not used before that fork is over.

Only modules of our own packages are to be loaded late. What they import from elsewhere has to be there before: late,
the program's folder comes first on `sys.path`, and its `resource.py` would be taken for the standard library's.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Final

from otel_debugstore.clock import Clock

_FORK_WAIT_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 0.001

_lock = threading.RLock()  # held while something is loaded, and across a fork
_held_for_fork = False
_forks: Final[list[int]] = []  # the threads that are forking


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Around an import inside a function: forks wait for its end, and it for the end of a fork that did."""
    with _lock:
        yield
    keep_exit_status()
    deadline = Clock.monotonic() + _FORK_WAIT_SECONDS
    while any(thread != threading.get_ident() for thread in _forks) and Clock.monotonic() < deadline:
        time.sleep(_LOOK_SECONDS)


def keep_exit_status() -> None:
    """See to it that a program that ended by an unhandled KeyboardInterrupt exits as if by SIGINT.

    CPython notes such an end, and forgets it when a text is evaluated afterwards, as every definition of a named
    tuple or a data class does. Evaluating one that ends in the same way makes it note that again.
    """
    if getattr(sys, "last_type", None) is KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):
            exec("raise KeyboardInterrupt")


def _before_fork() -> None:
    global _held_for_fork
    _forks.append(threading.get_ident())
    _held_for_fork = _lock.acquire(timeout=_FORK_WAIT_SECONDS)


def _after_fork_in_parent() -> None:
    if _held_for_fork:
        _lock.release()
    _forks.remove(threading.get_ident())


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _forks.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
