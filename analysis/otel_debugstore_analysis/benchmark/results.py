"""What a benchmark found."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["faster", "slower", "equal", "undecided", "wrong", "failed"]
"""Of the candidate, against the baseline."""
Side = Literal["baseline", "candidate"]


@dataclass(frozen=True)
class ClassResult:
    """What was found of one class of inputs: as `Comparison` has it of all."""

    label: str
    verdict: Verdict
    ratio: float
    low: float
    high: float
    baseline_ns: float
    candidate_ns: float
    pairs: int


@dataclass(frozen=True)
class Memory:
    """What a call takes, the largest of all inputs: by tracemalloc, in a call that was not timed.

    Attributes:
        baseline_peak_bytes, candidate_peak_bytes: The most that was allocated at once during a call.
        baseline_blocks, candidate_blocks: How many blocks of memory were allocated at its end that were not before: its
            result, and what it keeps.
    """

    baseline_peak_bytes: int
    candidate_peak_bytes: int
    baseline_blocks: int
    candidate_blocks: int


@dataclass(frozen=True)
class Unit:
    """What one process measured.

    Attributes:
        pid: The process.
        host: Its machine.
        baseline_ns, candidate_ns: The time of a call: medians of the inputs, weighted.
        log_ratios: Of its pairs, in their order, warm-up left out: the logarithm of the candidate's time over the
            baseline's.
        dropped: How many pairs before were warm-up.
    """

    pid: int
    host: str
    baseline_ns: float
    candidate_ns: float
    log_ratios: tuple[float, ...]
    dropped: int = 0


@dataclass(frozen=True)
class Comparison:
    """A candidate against a baseline.

    Attributes:
        verdict: "faster", "slower", "equal" (within `min_effect`) or "undecided"; "wrong" if its outputs are not those
            that are wanted, "failed" if it, or the baseline, could not be measured.
        cause: One sentence that says why.
        ratio: The candidate's time over the baseline's; NaN if it was not timed.
        low, high: The interval of it.
        min_effect: The least difference that counts.
        baseline_ns, candidate_ns: The time of a call. With `exact` instructions, and not nanoseconds.
        processes, pairs: How many were measured.
        checked: How many outputs of the candidate were compared and found right.
        per_class: A row a class of inputs.
        memory: None if it was not looked at.
        units: A row a process.
        notes: What else is to be known.
        seconds: What it took.
        unit: "ns" or "instructions".
        failed_side: Which of both failed or is wrong; None where none is to blame.
        failed_class: The class of the input with which it did.
        baseline_variant, candidate_variant: The code that ran, as spans name it; None where that is not known.
    """

    verdict: Verdict
    cause: str
    ratio: float = math.nan
    low: float = math.nan
    high: float = math.nan
    min_effect: float = 0.0
    baseline_ns: float = math.nan
    candidate_ns: float = math.nan
    processes: int = 0
    pairs: int = 0
    checked: int = 0
    per_class: tuple[ClassResult, ...] = ()
    memory: Memory | None = None
    units: tuple[Unit, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    unit: Literal["ns", "instructions"] = "ns"
    failed_side: Side | None = None
    failed_class: str | None = None
    baseline_variant: str | None = None
    candidate_variant: str | None = None

    @property
    def is_ranked(self) -> bool:
        """Whether there is a time to be ranked by: nothing that is wrong or has failed has one."""
        return self.verdict not in ("wrong", "failed")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain values that JSON can hold; NaN becomes None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
