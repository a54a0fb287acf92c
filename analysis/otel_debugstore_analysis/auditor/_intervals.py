"""How sure a share or a mean is: intervals of 95 %, where calls of a process depend on each other.

A quantile is a share in other words: the 95th percentile is above a limit if more than 5 % of the calls are. So the
interval of a quantile is the binomial one of that share (Clopper and Pearson 1934), which is the order-statistic
interval of the quantile (Conover 1999, section 3.2; Woodruff 1952). Rates have Wilson's interval (1927), means
Student's.

Calls are counted as fewer than they are where processes differ more than calls do: by the design effect of the
processes (Kish 1965), estimated by the linearised variance of a ratio, and by Student's t for the few processes that it
is estimated from, with the degrees of freedom of Satterthwaite (1946) for the sum of the two variances. That is the
interval of Korn and Graubard (1998), but that processes which agree are not taken for few. Of a single process nothing
is known about others. Weighted calls count as Kish's effective number of them, (sum of w)^2 / sum of w^2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses.statistics import Interval
from otel_debugstore_analysis.auditor._distributions import beta_quantiles, beta_shares, student_quantile

Truths = npt.NDArray[np.bool_]

CONFIDENCE: Final = 0.95
_TAIL: Final = (1 - CONFIDENCE) / 2
_NORMAL: Final = 1.959963984540054
_MANY: Final = 20_000
MOST: Final = 10**9
"""More calls than this nobody is told to record."""


class Part(NamedTuple):
    """What one process says: calls, the sums of their weights and squared weights, and of weighted values."""

    calls: int
    weight: float
    squares: float
    total: float

    def plus(self, other: Part) -> Part:
        """Return what both say together."""
        return Part(
            self.calls + other.calls,
            self.weight + other.weight,
            self.squares + other.squares,
            self.total + other.total,
        )


class Estimate(NamedTuple):
    """A share or a mean.

    Attributes:
        value: NaN if there are no calls.
        calls: How many were recorded.
        effective: How many independent ones they are worth.
        processes: In how many processes they were.
    """

    value: float
    calls: int
    effective: float
    processes: int


NO_CALLS: Final = Estimate(math.nan, 0, 0.0, 0)


def share_of(parts: Sequence[Part]) -> Estimate:
    """Return the share of which `total` is the weight, by process."""
    parts = [part for part in parts if part.weight > 0]
    if not parts:
        return NO_CALLS
    weight, squares = sum(part.weight for part in parts), sum(part.squares for part in parts)
    share = min(max(sum(part.total for part in parts) / weight, 0.0), 1.0)
    calls, count = sum(part.calls for part in parts), weight**2 / squares
    among_calls = share * (1 - share) / count
    if among_calls <= 0 or len(parts) < 2:
        return Estimate(share, calls, count, len(parts))
    whole, wider = _variance(parts, share, weight, among_calls, count)
    return Estimate(share, calls, count * among_calls / whole / wider, len(parts))


def mean_of(parts: Sequence[Part], squared_total: float) -> tuple[Estimate, Interval]:
    """Return the mean of the values, and its interval: all numbers where it can't be told.

    Args:
        parts: By process, with the sums of the values.
        squared_total: The weighted sum of their squares.
    """
    parts = [part for part in parts if part.weight > 0]
    if not parts:
        return NO_CALLS, Interval(-math.inf, math.inf)
    weight, squares = sum(part.weight for part in parts), sum(part.squares for part in parts)
    mean = sum(part.total for part in parts) / weight
    calls, count = sum(part.calls for part in parts), weight**2 / squares
    estimate = Estimate(mean, calls, count, len(parts))
    if count < 2:
        return estimate, Interval(-math.inf, math.inf)
    among_calls = max(squared_total / weight - mean**2, 0.0) / (count - 1)
    if among_calls <= 0:
        return estimate, Interval(mean, mean)
    whole, wider = _variance(parts, mean, weight, among_calls, count)
    half = _NORMAL * math.sqrt(whole * wider)
    effective = max(count * among_calls / whole / wider, 1.0)
    return estimate._replace(effective=effective), Interval(mean - half, mean + half)


def _variance(
    parts: Sequence[Part], value: float, weight: float, among_calls: float, count: float
) -> tuple[float, float]:
    """Return the variance of an estimate, and by what it is to be multiplied for the uncertainty of itself."""
    processes, excess = len(parts), 0.0
    if processes > 1:
        scatter = sum((part.total - value * part.weight) ** 2 for part in parts) / weight**2
        excess = max(scatter * processes / (processes - 1) - among_calls, 0.0)
    whole = among_calls + excess
    freedom = whole**2 / (excess**2 / max(processes - 1, 1) + among_calls**2 / max(count - 1, 1))
    return whole, (student_quantile(freedom, 1 - _TAIL) / _NORMAL) ** 2


def exact(shares: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Return the ends of the binomial intervals of shares that were seen in so many calls each."""
    hits = shares * counts
    low, high = np.zeros_like(shares), np.ones_like(shares)
    some, short = hits > 0, hits < counts
    low[some] = beta_quantiles(hits[some], counts[some] - hits[some] + 1, _TAIL)
    high[short] = beta_quantiles(hits[short] + 1, counts[short] - hits[short], 1 - _TAIL)
    return low, high


def exact_sides(shares: Floats, counts: Floats, values: Floats) -> tuple[Truths, Truths]:
    """Return whether the binomial intervals end at or below values between 0 and 1, and whether they begin above.

    Of very many calls Wilson's are taken, which are the same then and take less time.
    """
    hits, are_few = shares * counts, counts < _MANY
    below, above = wilson_sides(shares, counts, values)
    some, short = are_few & (hits > 0), are_few & (hits < counts)
    above[are_few & (hits <= 0)] = False
    below[are_few & (hits >= counts)] = False
    above[some] = beta_shares(hits[some], counts[some] - hits[some] + 1, values[some]) < _TAIL
    below[short] = beta_shares(hits[short] + 1, counts[short] - hits[short], values[short]) >= 1 - _TAIL
    return below, above


def wilson_sides(shares: Floats, counts: Floats, values: Floats) -> tuple[Truths, Truths]:
    """Return whether Wilson's intervals end at or below values, and whether they begin above."""
    low, high = wilson(shares, counts)
    return high <= values, low > values


def wilson(shares: Floats, counts: Floats) -> tuple[Floats, Floats]:
    """Return the ends of Wilson's intervals."""
    square = _NORMAL**2
    some = np.maximum(counts, 1e-9)
    middle = shares + square / (2 * some)
    half = _NORMAL * np.sqrt(shares * (1 - shares) / some + square / (4 * some**2))
    whole = 1 + square / some
    return np.maximum((middle - half) / whole, 0.0), np.minimum((middle + half) / whole, 1.0)
