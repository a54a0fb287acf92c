"""What a forked child has to do before it records: forget what belongs to its parent."""

from __future__ import annotations

import os
import weakref
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
        thing.after_fork_in_child()


os.register_at_fork(after_in_child=_reset_all)
