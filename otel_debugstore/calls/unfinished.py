"""`UNFINISHED`: coroutines and generators that were begun and not ended. They are ended with the process.

Nobody else would: the interpreter drops them when nothing can be recorded any more, or never. Their
outcome is "exit", or "terminated" where that was SIGTERM.
Threads: any; no lock is taken, the garbage collector may drop a generator anywhere. Fork: a child forgets its parent's.
"""

from __future__ import annotations

from typing import Final, Protocol

from otel_debugstore.fork import reset_after_fork
from otel_debugstore.guard import swallow
from otel_debugstore.lifecycle import has_open


class Steps(Protocol):
    """What is behind a coroutine or generator."""

    def close(self, outcome: str) -> None:
        """End it, if it is open. Never raises."""


class Unfinished:
    """See the module's first lines."""

    def __init__(self) -> None:
        self._steps: set[Steps] = set()
        self.discard: Final = self._steps.discard
        """Takes what has ended."""
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Forget the parent's."""
        self._steps.clear()

    @property
    def is_open(self) -> bool:
        """Whether there is one."""
        return bool(self._steps)

    def add(self, steps: Steps) -> None:
        """Have it ended with the process, unless it ends before. Never raises."""
        is_first = not self._steps
        self._steps.add(steps)
        if is_first:
            try:
                has_open(self)
            except Exception as error:  # noqa: BLE001  # it would reach the program
                swallow(error)

    def close_all(self, outcome: str) -> None:
        """End all of them."""
        for steps in list(self._steps):
            steps.close(outcome)


UNFINISHED: Final = Unfinished()
