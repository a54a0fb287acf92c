"""What a machine can tell apart: the baseline against itself, measured as any candidate is.

The half-width of the interval of such an A/A run is 1.96 standard errors (at 95 %). A difference is found in 80 % of
runs if it is as large as 1.96 + 0.84 of them: that is the resolution.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.benchmark._starting import Function, function_ref
from otel_debugstore_analysis.benchmark.method import compare_functions
from otel_debugstore_analysis.benchmark.model import BenchmarkOptions, Case, Check
from otel_debugstore_analysis.benchmark.results import Comparison

POWER: Final = 0.8


class ResolutionError(ConfigurationError):
    """A gate asks for less than the machine can tell apart."""


@dataclass(frozen=True)
class Resolution:
    """What can be told apart.

    Attributes:
        effect: The least difference that 80 % of runs find, as a share; NaN where the baseline could not be measured.
        comparison: The baseline against itself.
    """

    effect: float
    comparison: Comparison


def resolution(
    baseline: Function,
    inputs: Sequence[Case],
    *,
    options: BenchmarkOptions | None = None,
    check: Check | None = None,
) -> Resolution:
    """Return what difference to a baseline could be found here, now, and with these options.

    Args:
        baseline: A function.
        inputs: What it is called with.
        options: How it will be measured.
        check: When an output is right.

    Raises:
        ConfigurationError: As `compare_functions`.
    """
    options = dataclasses.replace(options or BenchmarkOptions(), stop_early=False, exact=False, memory=False)
    reference = function_ref(baseline)
    found = compare_functions(reference, reference, inputs, options=options, check=check)
    return Resolution(effect_of(found, options.confidence), found)


def require_resolution(found: Resolution, gate: float) -> None:
    """Refuse a gate that can't be kept.

    Args:
        found: What can be told apart.
        gate: The difference to be found, as a share.

    Raises:
        ResolutionError: It is smaller than what can be told apart.
    """
    if math.isnan(found.effect):
        raise ResolutionError(f"What this machine resolves can't be told: {found.comparison.cause}")
    if gate < found.effect:
        raise ResolutionError(
            f"A gate of {gate:.1%} can't be kept: equal functions show that this machine resolves "
            f"{found.effect:.1%} with "
            f"{found.comparison.processes} processes. Take a wider gate, more processes, a quieter machine, or count "
            "instructions instead (--exact)."
        )


def effect_of(found: Comparison, confidence: float) -> float:
    """Return what the comparison of a function with itself shows can be told apart; NaN if it shows nothing."""
    if not found.is_ranked or math.isnan(found.low):
        return math.nan
    normal = statistics.NormalDist()
    wide, power = normal.inv_cdf(0.5 + confidence / 2), normal.inv_cdf(POWER)
    half = (math.log(found.high) - math.log(found.low)) / 2
    return math.expm1(half * (wide + power) / wide)
