"""From the pairs of processes to a comparison: medians, classes of inputs, and what is to be said of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any, Final

from otel_debugstore.sequential import ConfidenceSequence
from otel_debugstore_analysis.benchmark._decision import (
    LEAST_UNITS,
    Decision,
    decided,
    is_significant,
    verdict_of,
    warm_up,
)
from otel_debugstore_analysis.benchmark.model import BenchmarkOptions, Case
from otel_debugstore_analysis.benchmark.results import ClassResult, Verdict

LEAST_PAIRS: Final = 3
Rounds = list[list[tuple[float, float, bool]]]
"""By round and input: the nanoseconds of a call of each side, and whether no other process had the processor."""


class MeasuredProcess:
    """What a process measured, without its warm-up; where pairs were looked at one by one, it was left out before."""

    def __init__(self, pid: int, rounds: Rounds, cases: Sequence[Case], has_warm_up: bool) -> None:
        self.pid = pid
        self._cases = cases
        calm = [times for times in rounds if all(pair[2] for pair in times)]
        self.disturbed = len(rounds) - len(calm)
        rounds = calm if has_warm_up and len(calm) >= LEAST_PAIRS else rounds
        totals = [[sum(pair[side] for pair in times) for times in rounds] for side in (0, 1)]
        self.dropped = max(warm_up(side) for side in totals) if has_warm_up else 0
        self.never_settled = self.dropped >= max(len(rounds) // 2, 2)
        self.kept = rounds[self.dropped :]
        self._medians = [self._median(case) for case in range(len(cases))]

    def _median(self, case: int) -> tuple[float, float]:
        """Return the time of a call of each side: the candidate's by the median of the ratios of its pairs."""
        baseline = max(statistics.median(times[case][0] for times in self.kept), 1e-3)
        ratio = statistics.median(max(times[case][1], 1e-3) / max(times[case][0], 1e-3) for times in self.kept)
        return baseline, baseline * ratio

    def of(self, cases: Sequence[int]) -> tuple[float, float]:
        """Return the time of a call of each side: the weighted mean over inputs."""
        weight = sum(self._cases[case].weight for case in cases)
        one, other = (
            sum(self._cases[case].weight * self._medians[case][side] for case in cases) / weight for side in (0, 1)
        )
        return one, other

    def whole(self) -> tuple[float, float]:
        """Return that of all inputs."""
        return self.of(range(len(self._cases)))


def classes(
    units: Sequence[MeasuredProcess], cases: Sequence[Case], options: BenchmarkOptions
) -> tuple[ClassResult, ...]:
    """Return what was found by classes of inputs, in the order of the inputs."""
    from otel_debugstore_analysis.analyses.statistics import benjamini_hochberg

    labels = list(dict.fromkeys(case.label for case in cases))
    times = [
        [unit.of([n for n, case in enumerate(cases) if case.label == label]) for unit in units] for label in labels
    ]
    found = [
        decided([math.log(b / a) for a, b in each], options.min_effect, options.confidence, options.seed)
        for each in times
    ]
    rows = []
    for label, each, decision, q_value in zip(
        labels, times, found, benjamini_hochberg([decision.p_value for decision in found]), strict=True
    ):
        verdict: Verdict = "undecided"
        if not math.isnan(decision.low):
            logs = [math.log(value) for value in decision[1:4]]
            is_certain = is_significant(q_value, options.confidence)
            verdict = verdict_of(logs[0], logs[1], logs[2], is_certain, options.min_effect)
        rows.append(
            ClassResult(
                label,
                verdict,
                decision.ratio,
                decision.low,
                decision.high,
                statistics.median(a for a, _ in each),
                statistics.median(b for _, b in each),
                sum(len(unit.kept) for unit in units) * sum(case.label == label for case in cases),
            )
        )
    return tuple(rows)


def cause_of(decision: Decision, options: BenchmarkOptions, units: int) -> str:
    interval = f"{options.confidence:.0%} interval {decision.low:.3f} to {decision.high:.3f}, {units} processes"
    if decision.verdict in ("faster", "slower"):
        return f"The candidate takes {decision.ratio:.3f} times as long ({interval})."
    if decision.verdict == "equal":
        return f"The difference is within {options.min_effect:.1%} ({interval})."
    if units < LEAST_UNITS:
        return f"{units} processes are too few to tell anything: take at least {LEAST_UNITS}."
    return (
        f"Ratio {decision.ratio:.3f}: neither is a difference of {options.min_effect:.1%} certain, nor that "
        f"there is none "
        f"({interval}); take more processes."
    )


def sequential(sequence: ConfidenceSequence, options: BenchmarkOptions) -> tuple[Decision, str]:
    low, high = map(math.exp, sequence.interval()) if sequence.count >= 2 else (math.nan, math.nan)
    verdict: Any = sequence.verdict(options.min_effect)
    decision = Decision(verdict, math.exp(sequence.estimate), low, high, math.nan)
    interval = f"{options.confidence:.0%} confidence sequence {low:.3f} to {high:.3f}, {sequence.count} pairs"
    causes = {
        "equal": f"The difference is within {options.min_effect:.1%} ({interval}).",
        "undecided": f"Ratio {decision.ratio:.3f}: undecided when all pairs were measured ({interval}).",
    }
    return decision, causes.get(verdict, f"The candidate takes {decision.ratio:.3f} times as long ({interval}).")


def notes_of(units: Sequence[MeasuredProcess]) -> list[str]:
    dropped, disturbed = [unit.dropped for unit in units], sum(unit.disturbed for unit in units)
    notes = []
    if disturbed:
        notes.append(f"Other processes took the processor during {disturbed} pairs, which were timed again in vain.")
    if any(dropped):
        notes.append(f"Warm-up was dropped: up to {max(dropped)} pairs in {sum(map(bool, dropped))} processes.")
    if any(unit.never_settled for unit in units):
        notes.append("In some processes the times had not settled when half of the pairs were measured.")
    return notes
