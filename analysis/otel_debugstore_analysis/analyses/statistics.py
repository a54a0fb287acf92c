"""Statistics that analyses share. The same data gives the same figures: what is drawn is drawn from a fixed seed.

- `ratio_of_medians`: percentile bootstrap (Efron 1979) of the ratio of two medians. The values are one per unit (a
  process, or a session), never one per call: calls of one process are not independent of each other.
- `welch`: Welch's t-test (1947).
- `wilson`: Wilson's score interval (1927) of a share.
- `two_shares`: whether two shares differ: the z-test with a pooled share; Fisher's exact test where few are expected.
- `benjamini_hochberg`: p-values of many tests, as the rates of false discoveries (1995).
- `benjamini_yekutieli`: the same, of tests that depend on each other in any way (2001).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_debugstore_analysis.analyses._quantiles import Floats, quantiles

SEED: Final = 20_220_822
CONFIDENCE: Final = 0.95
DRAWS: Final = 4_000
MIN_UNITS: Final = 3
"""With fewer on a side nothing is decided: of equal sets, too many would be called different."""
_NORMAL_95: Final = 1.959963984540054
_FEW_EXPECTED: Final = 10.0
"""Where fewer than this are expected in a cell of two shares, the exact test is taken."""

Ints = npt.NDArray[np.int64]


class Ratio(NamedTuple):
    """A ratio and its 95 % interval; all NaN where it can't be told."""

    value: float
    low: float
    high: float


class Interval(NamedTuple):
    """From `low` to `high`."""

    low: float
    high: float


UNKNOWN: Final = Ratio(math.nan, math.nan, math.nan)


def ratio_of_medians(before: Floats, after: Floats, confidence: float = CONFIDENCE) -> Ratio:
    """Return the median of `after` over that of `before`, with the bootstrap's interval of it.

    Args:
        before, after: One value a unit, in any order. Of a single unit nothing is known about the others: the interval
            is then NaN.
        confidence: How often such intervals hold the ratio.
    """
    if not len(before) or not len(after) or not np.median(before) > 0:
        return UNKNOWN
    value = float(np.median(after) / np.median(before))
    if len(before) < 2 or len(after) < 2:
        return Ratio(value, math.nan, math.nan)
    below, above = _medians_of_draws(before, 0), _medians_of_draws(after, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = above / below
    tail = (1 - confidence) / 2
    low, high = np.quantile(ratios[np.isfinite(ratios)], (tail, 1 - tail))
    return Ratio(value, float(low), float(high))


def _medians_of_draws(values: Floats, stream: int) -> Floats:
    """Return the medians of samples with replacement: those of a number of values are at the same ranks each time."""
    ordered = np.sort(values)
    low, high = _middle_ranks(len(values), stream)
    return np.asarray((ordered[low] + ordered[high]) / 2)


@functools.lru_cache(maxsize=256)
def _middle_ranks(count: int, stream: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    chance = np.random.Generator(np.random.PCG64([SEED, count, stream]))
    drawn = np.sort(chance.integers(0, count, (DRAWS, count)), axis=1)
    return drawn[:, (count - 1) // 2].astype(np.intp), drawn[:, count // 2].astype(np.intp)


class Sample(NamedTuple):
    """How many values there are, their mean, and the variance of what they are drawn from."""

    size: int
    mean: float
    variance: float


def welch(before: Floats, after: Floats) -> float:
    """Return how likely means at least as far apart are where there is no difference; 1 if that can't be told."""
    if len(before) < 2 or len(after) < 2:
        return 1.0
    one, other = (Sample(len(values), float(values.mean()), float(values.var(ddof=1))) for values in (before, after))
    return welch_of(one, other)


def welch_of(one: Sample, other: Sample) -> float:
    """Return what `welch` does, of samples of which only this is known."""
    from scipy.special import stdtr

    if min(one.size, other.size) < 2:
        return 1.0
    spread = one.variance / one.size, other.variance / other.size
    difference, whole = abs(other.mean - one.mean), sum(spread)
    if whole <= 0 or not math.isfinite(whole):
        return 1.0 if difference <= 0 or not math.isfinite(difference) else 0.0
    freedom = whole**2 / (spread[0] ** 2 / (one.size - 1) + spread[1] ** 2 / (other.size - 1))
    return float(2 * stdtr(freedom, -difference / math.sqrt(whole)))


def median_and_mad(values: Floats, weights: Floats) -> tuple[float, float]:
    """Return the weighted median, and the median of the distances from it."""
    median = float(quantiles(values, weights, (0.5,))[0])
    return median, float(quantiles(np.abs(values - median), weights, (0.5,))[0])


def wilson(hits: float, count: float) -> Interval:
    """Return the 95 % interval of a share of which `hits` of `count` were seen; 0 to 1 of none."""
    if count <= 0:
        return Interval(0.0, 1.0)
    share, square = hits / count, _NORMAL_95**2
    middle = share + square / (2 * count)
    half = _NORMAL_95 * math.sqrt(share * (1 - share) / count + square / (4 * count**2))
    whole = 1 + square / count
    return Interval(max((middle - half) / whole, 0.0), min((middle + half) / whole, 1.0))


def two_shares(hits: int, count: int, other_hits: int, other_count: int) -> float:
    """Return how likely shares at least as far apart are where both are of one population (two-sided).

    Args:
        hits: How many of `count`.
        count: The first sample.
        other_hits: How many of `other_count`.
        other_count: The second sample.
    """
    whole, both = count + other_count, hits + other_hits
    if not count or not other_count or both in (0, whole):
        return 1.0
    expected = min(count, other_count) * min(both, whole - both) / whole
    if expected < _FEW_EXPECTED:
        return _fisher(hits, count, both, whole)
    share = both / whole
    spread = math.sqrt(share * (1 - share) * (1 / count + 1 / other_count))
    return math.erfc(abs(hits / count - other_hits / other_count) / spread / math.sqrt(2))


def _fisher(hits: int, count: int, both: int, whole: int) -> float:
    """Return the sum of the probabilities of all tables with these margins that are no likelier than this one."""
    seen = np.arange(max(0, both - (whole - count)), min(count, both) + 1, dtype=np.float64)

    def chosen(total: float, some: Floats) -> Floats:
        return np.array(
            [math.lgamma(total + 1) - math.lgamma(k + 1) - math.lgamma(total - k + 1) for k in some.tolist()]
        )

    log = chosen(both, seen) + chosen(whole - both, count - seen) - chosen(whole, np.array([float(count)]))
    least = log[hits - int(seen[0])] + 1e-7
    return min(float(np.exp(log[log <= least]).sum()), 1.0)


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Return by test the least rate of false discoveries at which it is one of the discoveries."""
    p = np.asarray(p_values, dtype=np.float64)
    if not len(p):
        return []
    order = np.argsort(p, kind="stable")
    scaled = p[order] * len(p) / np.arange(1, len(p) + 1)
    found = np.empty(len(p))
    found[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return [float(q) for q in found]


def benjamini_yekutieli(p_values: Sequence[float]) -> list[float]:
    """Return what `benjamini_hochberg` does, also where tests depend on each other, as of shares of one whole."""
    more = sum(1 / place for place in range(1, len(p_values) + 1))
    return [min(q * more, 1.0) for q in benjamini_hochberg(p_values)]
