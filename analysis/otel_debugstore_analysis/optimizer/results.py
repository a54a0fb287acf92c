"""How an item is worked on, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from otel_debugstore_analysis.optimizer.protocol import Candidate
from otel_debugstore_analysis.processes import Outcome
from otel_debugstore_analysis.queue import QueueItem
from otel_debugstore_analysis.replay import Replay, ReplayOptions


@dataclass(frozen=True)
class OptimizeOptions:
    """How to optimize.

    Attributes:
        project: The project's directory; its files are copied, and not written to.
        tests: The command that runs its tests; by default that of the item; none runs none.
        test_timeout_s: How long it may take.
        replay: How recorded calls are replayed.
        max_tokens: The budget of the package that the optimizer gets.
        lease_s: For how long the item is claimed.
        apply: Whether a proven candidate is applied to the project.
    """

    project: Path = field(default_factory=Path)
    tests: tuple[str, ...] | None = None
    test_timeout_s: float = 600.0
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    max_tokens: int = 8_000
    lease_s: float = 3600.0
    apply: bool = False


@dataclass(frozen=True)
class Attempt:
    """A candidate and what became of it.

    Attributes:
        candidate: The change.
        is_proven: Whether it holds.
        why: One sentence that says why it does, or does not.
        tests: How the tests ended; None where none ran.
        replay: What the replay found; None where it did not come to that.
    """

    candidate: Candidate
    is_proven: bool
    why: str
    tests: Outcome | None = None
    replay: Replay | None = None


@dataclass(frozen=True)
class Optimization:
    """What became of an item.

    Attributes:
        item: The item as it is by now.
        attempts: The candidates; none where the optimizer had no idea.
        patch: The file with the change that was proven.
        is_applied: Whether the project has it: that was wanted, and its files were as they had been copied.
    """

    item: QueueItem
    attempts: tuple[Attempt, ...] = ()
    patch: Path | None = None
    is_applied: bool = False

    @property
    def proven(self) -> Attempt | None:
        """The candidate that holds."""
        return next((attempt for attempt in self.attempts if attempt.is_proven), None)
