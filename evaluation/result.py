"""What an evaluation found: k of n, with its interval."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from otel_debugstore_analysis.analyses.statistics import Interval, wilson

ROOT: Final = Path(__file__).parents[1]
DATA: Final = ROOT.parent / "shared" / "data"


class UnavailableError(Exception):
    """An evaluation can't run here; the text says why."""


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to evaluate."""

    quick: bool = False
    full: bool = False

    def draws(self, full: int) -> int:
        """Return how often to draw what a full run draws `full` times."""
        return max(10, full // 10) if self.quick else full


@dataclass(frozen=True, slots=True)
class Result:
    """Something that was so in `hits` of `count` cases.

    Attributes:
        what: What was counted, of what.
        hits: In how many cases it was so.
        count: How many cases there were.
        target: The share that is allowed, or required; None where it is only reported.
        goal: Which of both.
        detail: What stands behind it.
    """

    what: str
    hits: int
    count: int
    target: float | None = None
    goal: Literal["at most", "at least"] = "at most"
    detail: str = ""

    @property
    def interval(self) -> Interval:
        """The 95 % interval of the share."""
        return wilson(self.hits, self.count)

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None or not self.count:
            return None
        share = self.hits / self.count
        return share <= self.target if self.goal == "at most" else share >= self.target
