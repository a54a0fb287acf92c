"""From what processes measured to a verdict.

The unit is the process. Each gives one log-ratio: of an input the median over its pairs; of several the ratio of the
weighted sums of medians. `ratio` is the median over the processes, its interval the percentile bootstrap of that (Efron
1979), over whole processes. The verdict is

- "faster" or "slower" where the interval excludes 1, the ratio is at least `min_effect` away from it, and Wilcoxon's
  signed-rank test (1945) over the processes finds a difference at 0.75 of the error rate, too: it is exact where the
  two of a pair are alike, which random order sees to, while the bootstrap of few processes is not;
- "equal" where the interval lies within `min_effect`;
- "undecided" otherwise.

Classes of inputs are decided in the same way, their p-values corrected for the number of classes (Benjamini and
Hochberg).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_debugstore_analysis.analyses.statistics import DRAWS, SEED
from otel_debugstore_analysis.benchmark.results import Verdict

LEAST_UNITS: Final = 6
"""With fewer processes no p-value of the signed-rank test is as small as 0.05."""
_MARGIN: Final = 0.75
"""The share of the error rate at which is tested; the rest is for what processes have in common."""
_MAD: Final = 1.4826
_FAR: Final = 3.0
_LEAST_WARM_UP: Final = 0.05
_EXACT_UP_TO: Final = 60

Floats = npt.NDArray[np.float64]


class Decision(NamedTuple):
    """A ratio, its interval, and what follows from them."""

    verdict: Verdict
    ratio: float
    low: float
    high: float
    p_value: float


def warm_up(times: Sequence[float]) -> int:
    """Return how many of the first values are warm-up: as long as they are far above what the second half is like.

    Args:
        times: In their order. At most the first half is called warm-up.
    """
    half = len(times) // 2
    if half < 2:
        return 0
    rest = np.asarray(times[half:])
    middle = float(np.median(rest))
    spread = _MAD * float(np.median(np.abs(rest - middle)))
    limit = middle + max(_FAR * spread, _LEAST_WARM_UP * middle)
    return next((number for number in range(half) if times[number] <= limit), half)


def decided(log_ratios: Sequence[float], min_effect: float, confidence: float, seed: int = SEED) -> Decision:
    """Return what the log-ratios of processes say."""
    values = np.asarray(log_ratios, np.float64)
    if not len(values):
        return Decision("undecided", math.nan, math.nan, math.nan, 1.0)
    middle = float(np.median(values))
    if len(values) < 2:
        return Decision("undecided", math.exp(middle), math.nan, math.nan, 1.0)
    chance = np.random.Generator(np.random.PCG64([SEED, seed]))
    medians = np.median(values[chance.integers(0, len(values), (DRAWS, len(values)))], axis=1)
    tail = (1 - confidence) / 2
    low, high = (float(value) for value in np.quantile(medians, (tail, 1 - tail)))
    p_value = signed_rank(values.tolist())
    verdict = verdict_of(middle, low, high, is_significant(p_value, confidence), min_effect)
    return Decision(verdict, math.exp(middle), math.exp(low), math.exp(high), p_value)


def is_significant(p_value: float, confidence: float) -> bool:
    """Return whether a p-value is small enough."""
    return p_value <= _MARGIN * (1 - confidence)


def verdict_of(middle: float, low: float, high: float, is_certain: bool, min_effect: float) -> Verdict:
    """Return what follows from an interval of log-ratios."""
    effect = math.log1p(min_effect)
    if is_certain and low > 0 and middle >= effect:
        return "slower"
    if is_certain and high < 0 and middle <= -effect:
        return "faster"
    return "equal" if -effect <= low and high <= effect else "undecided"


def signed_rank(values: Sequence[float]) -> float:
    """Return Wilcoxon's p-value (two-sided) that values lie about 0: exact up to 60 of them."""
    return signed_rank_of_blocks([values])


def signed_rank_of_blocks(blocks: Sequence[Sequence[float]]) -> float:
    """Return the same of values in blocks: they are ranked within these, and the sums of the ranks added up."""
    kept = [[value for value in block if value] for block in blocks]
    counts = [len(block) for block in kept if block]
    if not counts:
        return 1.0
    above = sum(
        rank
        for block in kept
        for rank, value in zip(_ranks([abs(value) for value in block]), block, strict=True)
        if value > 0
    )
    whole = sum(count * (count + 1) / 2 for count in counts)
    least = min(above, whole - above)
    if sum(counts) <= _EXACT_UP_TO:
        ways = functools.reduce(_convolved, map(_ways, counts))
        return min(1.0, math.ldexp(sum(ways[: math.floor(least) + 1]), 1 - sum(counts)))
    spread = math.sqrt(sum(count * (count + 1) * (2 * count + 1) / 24 for count in counts))
    return math.erfc((whole / 2 - least) / spread / math.sqrt(2))


def _convolved(one: Sequence[int], other: Sequence[int]) -> tuple[int, ...]:
    """Return in how many ways two sums give each sum of both."""
    found = [0] * (len(one) + len(other) - 1)
    for total, ways in enumerate(one):
        for more, number in enumerate(other):
            found[total + more] += ways * number
    return tuple(found)


def _ranks(values: Sequence[float]) -> list[float]:
    """Return the rank of each value from 1 up; equal ones share the middle of theirs."""
    _, place, sizes = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    middles = np.cumsum(sizes) - (sizes - 1) / 2
    return [float(rank) for rank in middles[place.reshape(-1)]]


@functools.lru_cache(maxsize=64)
def _ways(count: int) -> tuple[int, ...]:
    """Return in how many ways signs of the ranks up to `count` give each sum."""
    ways = [1]
    for rank in range(1, count + 1):
        longer = ways + [0] * rank
        for total, number in enumerate(ways):
            longer[total + rank] += number
        ways = longer
    return tuple(ways)
