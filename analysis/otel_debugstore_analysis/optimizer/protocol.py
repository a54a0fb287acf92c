"""`Optimizer`: what proposes changed code for an item of the queue.

It is a Python object of the entry-point group `otel_debugstore_optimizer` (a class or a function that makes one,
without arguments), or any command: see `by_command`. What it proposes is never believed: the loop applies it in a
scratch copy, runs the tests there, replays recorded calls and measures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from otel_debugstore.errors import DebugStoreError

if TYPE_CHECKING:
    from otel_debugstore_analysis.optimizer.scratch import Scratch
    from otel_debugstore_analysis.query import DuckDBEngine
    from otel_debugstore_analysis.queue import QueueItem
    from otel_debugstore_analysis.replay import Recorded

GROUP: Final = "otel_debugstore_optimizer"
MECHANICAL: Final = "mechanical"


class OptimizerError(DebugStoreError):
    """An optimizer can't be found, or what it proposes is no change of code."""


@dataclass(frozen=True)
class Candidate:
    """A change of code: the new text of files, by their paths within the project; None where a file is to go.

    Attributes:
        title: What it does, in one line.
        files: The changed files.
    """

    title: str
    files: Mapping[str, str | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What an optimizer is given.

    Attributes:
        item: The item of the queue; the path of its code is that within the copy.
        package: All that is known of it, as Markdown within a budget of tokens.
        recorded: Its recorded calls.
        engine: The sessions that hold them.
        scratch: A copy of the project that it may look into, and change.
        file: The component's file within the copy; None where it is none of the project's.
    """

    item: QueueItem
    package: str
    recorded: Recorded
    engine: DuckDBEngine
    scratch: Scratch
    file: Path | None

    @property
    def file_name(self) -> str | None:
        """The component's file by its path within the project."""
        return None if self.file is None else self.file.relative_to(self.scratch.folder).as_posix()


@runtime_checkable
class Optimizer(Protocol):
    """Proposes changes."""

    @property
    def name(self) -> str:
        """What it is called in the queue."""

    def propose(self, task: Task) -> Sequence[Candidate]:
        """Return candidates, the best first; none if it has no idea.

        Raises:
            OptimizerError: It could not do its work.
        """


def find_optimizer(name: str) -> Optimizer | None:
    """Return the optimizer of a name: the included one, or one that is installed; None if there is none.

    Raises:
        OptimizerError: It can't be loaded, or is none.
    """
    if name == MECHANICAL:
        from otel_debugstore_analysis.optimizer.mechanical import MechanicalOptimizer

        return MechanicalOptimizer()
    for point in entry_points(group=GROUP, name=name):
        try:
            made = point.load()()
        except Exception as error:
            raise OptimizerError(f"Optimizer {name} can't be loaded ({type(error).__name__}: {error}).") from error
        if not isinstance(made, Optimizer):
            raise OptimizerError(f"{point.value} makes no optimizer: it lacks `name` or `propose`.")
        return made
    return None
