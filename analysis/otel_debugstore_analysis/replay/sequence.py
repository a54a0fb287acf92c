"""`comparison_of`: the verdict on a recorded sequence that two versions ran, from the times of their processes.

As in a benchmark the unit is the generation of processes, whose forks share addresses and a hash seed; its value is the
median log-ratio of its pairs.
"""

from __future__ import annotations

import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Final

from otel_debugstore_analysis.benchmark._decision import decided
from otel_debugstore_analysis.benchmark.results import ClassResult, Comparison, Unit

_CONFIDENCE: Final = 0.95
Pairs = Sequence[Sequence[int]]
"""Pairs of times in nanoseconds: of the original and of the candidate."""


def comparison_of(units: Sequence[Mapping[str, Any]], min_effect: float, seed: int = 0) -> Comparison:
    """Return what the times of generations of processes say.

    Args:
        units: Of each its `pid`, its `pairs`, and the pairs by class of inputs.
        min_effect: The least difference that counts, as a share.
        seed: Of the bootstrap.
    """
    whole = [unit["pairs"] for unit in units]
    found = _result("", whole, min_effect, seed)
    labels = dict.fromkeys(label for unit in units for label in unit["classes"])
    return Comparison(
        found.verdict,
        _cause(found, len(units)),
        found.ratio,
        found.low,
        found.high,
        min_effect,
        found.baseline_ns,
        found.candidate_ns,
        len(units),
        found.pairs,
        per_class=tuple(
            _result(label, [unit["classes"][label] for unit in units], min_effect, seed) for label in labels
        ),
        units=tuple(
            Unit(unit["pid"], platform.node(), *_medians(unit["pairs"]), tuple(map(_log_ratio, unit["pairs"])))
            for unit in units
        ),
    )


def _result(label: str, units: Sequence[Pairs], min_effect: float, seed: int) -> ClassResult:
    ratios = [statistics.median(map(_log_ratio, pairs)) for pairs in units]
    decision = decided(ratios, min_effect, _CONFIDENCE, seed)
    pairs = [pair for unit in units for pair in unit]
    return ClassResult(label, *decision[:4], *_medians(pairs), len(pairs))


def _log_ratio(pair: Sequence[int]) -> float:
    baseline_ns, candidate_ns = pair
    return math.log(max(candidate_ns, 1) / max(baseline_ns, 1))


def _medians(pairs: Pairs) -> tuple[float, float]:
    baseline, candidate = zip(*pairs, strict=True)
    return statistics.median(baseline), statistics.median(candidate)


def _cause(found: ClassResult, count: int) -> str:
    interval = f"{found.ratio:.3g} times the time ({found.low:.3g} to {found.high:.3g})"
    return f"The recorded sequence took {interval} in {count} generations of processes."
