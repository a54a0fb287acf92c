"""Modules of ours that are loaded late, in whatever thread needs them first, in a program that may fork meanwhile.

A child forked during an import in another thread would wait for ever for the end of that import. So a fork waits
until it is done, for at most two seconds. Such a fork calls nothing of what the loaded modules have registered for
forks (they had not when it began): so what was loaded is not used before that fork is over.

An import reads files, and gives the interpreter away with each read. Beside eight threads that compute it took 0.5 s,
in which forks wait, and 0.15 s where the interpreter switches threads more often; so it does meanwhile.
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
_SWITCH_SECONDS: Final = 0.0001

_lock = threading.RLock()  # held while something is loaded, and across a fork
_forks: Final[dict[int, object]] = {}  # by thread, the fork that it is in
_loaded: Final[set[str]] = set()


@contextlib.contextmanager
def loading(module: str) -> Iterator[None]:
    """Around an import inside a function: forks wait for its end, and it for the end of a fork that did.

    Args:
        module: What is imported. From the second time on this does nothing: it may stand where every batch passes.
    """
    if module in _loaded:
        yield
        return
    with _lock, _switching_often():
        yield
    _loaded.add(module)
    keep_exit_status()
    _wait_for([(thread, fork) for thread, fork in list(_forks.items()) if thread != threading.get_ident()])


@contextlib.contextmanager
def _switching_often() -> Iterator[None]:
    """Have threads that compute give way soon; what the program sets meanwhile stays."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, _SWITCH_SECONDS))
    ours = sys.getswitchinterval()
    try:
        yield
    finally:
        if sys.getswitchinterval() == ours:
            sys.setswitchinterval(before)


def _wait_for(forks: list[tuple[int, object]]) -> None:
    """Wait until these forks are over; not for further ones, where a program forks again and again.

    A fork that comes later calls what the loaded modules have registered.
    """
    deadline = Clock.monotonic() + _FORK_WAIT_SECONDS
    while any(_forks.get(thread) is fork for thread, fork in forks) and Clock.monotonic() < deadline:
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
    _forks[threading.get_ident()] = object()
    _lock.acquire(timeout=_FORK_WAIT_SECONDS)


def _after_fork_in_parent() -> None:
    with contextlib.suppress(RuntimeError):  # another thread kept it all the time
        _lock.release()
    _forks.pop(threading.get_ident(), None)


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()
    _forks.clear()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
