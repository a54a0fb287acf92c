"""What a replay found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from otel_debugstore_analysis.benchmark.results import ClassResult as ClassChange
from otel_debugstore_analysis.benchmark.results import Comparison, Verdict

__all__ = ["ClassChange", "Replay"]


@dataclass(frozen=True)
class Replay:
    """A candidate against recorded calls.

    Attributes:
        component: Whose calls.
        comparison: The verdict on the candidate, with its cause, the ratio of the times, and a row a class of inputs.
        inputs: How many different inputs were run.
        right: How many of them gave what was recorded and what the original gives.
        unknown: How many could not be compared: what came out was not recorded as a whole, and can't be compared here.
        unsteady: How many were left out, since the original itself no longer does what was recorded.
        skipped: Why other recorded calls could not be run again: the reason and how many.
        recorded: How many calls were recorded.
        remembers: Whether a version remembers earlier calls, so that only the recorded sequence in new processes
            counts.
        variant: The hash of the code that was recorded.
        trace_ids: Of the calls that were run again.
        notes: What else is to be known.
        candidate: The changed code, as it was named.
    """

    component: str
    comparison: Comparison
    inputs: int = 0
    right: int = 0
    unknown: int = 0
    unsteady: int = 0
    skipped: Mapping[str, int] = field(default_factory=dict)
    recorded: int = 0
    remembers: bool = False
    variant: str | None = None
    trace_ids: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    candidate: str | None = None

    @property
    def verdict(self) -> Verdict:
        """That of the comparison."""
        return self.comparison.verdict

    @property
    def cause(self) -> str:
        """One sentence that says why."""
        return self.comparison.cause

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values that JSON can hold, and that the queue takes for evidence."""
        plain = {name: value for name, value in vars(self).items() if name != "comparison"}
        plain |= {"skipped": dict(self.skipped), "trace_ids": list(self.trace_ids), "notes": list(self.notes)}
        return self.comparison.to_dict() | plain | {"kind": "replay"}
