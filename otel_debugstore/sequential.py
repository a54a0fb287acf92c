"""`ConfidenceSequence`: an interval for the log-ratio of two implementations that may be looked at after every pair.

A pair is two timings, of the one and of the other, made beside each other in random order; its value is the logarithm
of their ratio. An interval that is looked at again and again, until it says something, has to hold at all looks at
once: a t-test that is asked after every pair calls one in three pairs of equal functions different.

What is used is the normal mixture of Robbins (1970, "Statistical methods related to the law of the iterated
logarithm"), in the form of Howard, Ramdas, McAuliffe and Sekhon (2021, "Time-uniform, nonparametric, nonasymptotic
confidence sequences", equation 14): with `S` the sum of the values, `V` its intrinsic time and `p` the mixture's
precision, S**2 stays below (V + p) * log((V + p) / (p * a**2)) at all times, but for a share `a` of all streams.
Their time is the self-normalised one of values that are symmetric (de la Peña 1999): V is the sum of squares, so
nothing is taken for granted about how much values spread, or that they spread alike.

Values are held against a centre and clipped at `CLIP` of their sigma (Huber 1964): one pair of which the scheduler took
half says no more than another. Sigma is 1.4826 times the median distance of the first values from that centre. It
only sets where values are clipped and for how many of them the interval is narrowest. It is a function of the distances
alone, and the signs of values that are symmetric about the centre do not depend on these, so the error rate holds
exactly, however badly sigma is estimated from few values.

What must be so: given what was seen before, a pair's log-ratio is symmetric about its centre. Equal functions in random
order make it so. Threads: one at a time. No dependencies, and nothing grows but the list of values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Final, Literal, Self

from otel_debugstore.errors import ConfigurationError

SequentialVerdict = Literal["faster", "slower", "equal", "undecided"]

CONFIDENCE: Final = 0.95
MIN_EFFECT: Final = 0.03
FIRST: Final = 10
"""From how many values sigma is estimated; before that nothing is said."""
CLIP: Final = 0.7
"""At how many sigma values are clipped: 84 % efficient where they are normal, and the best where one in ten is far
off, as on a machine that does other work (of those pairs, 29 find what 37 find with 1.5)."""
NARROWEST_AT: Final = 40
"""After how many values the interval is the narrowest of its kind: about where +5 % is found."""
_NORMAL_MAD: Final = 1.482602218505602
_STEPS: Final = 60
_LEAST_SIGMA: Final = 1e-12


class ConfidenceSequence:
    """Log-ratios of pairs, and what they say, at any time.

    Args:
        confidence: Of how many streams the intervals hold what they shall, at all looks.
        first: From how many values sigma is estimated.

    Raises:
        ConfigurationError: `confidence` or `first` can't be one.
    """

    __slots__ = ("_alpha", "_first", "_values")

    def __init__(self, confidence: float = CONFIDENCE, first: int = FIRST) -> None:
        if not 0 < confidence < 1:
            raise ConfigurationError(f"A confidence of {confidence} can't be kept; take one such as 0.95.")
        if first < 2:
            raise ConfigurationError(f"Sigma can't be estimated from {first} values; take 5 or more.")
        self._alpha = 1 - confidence
        self._first = first
        self._values: list[float] = []

    @classmethod
    def of(cls, values: Iterable[float], confidence: float = CONFIDENCE, first: int = FIRST) -> Self:
        """Return the sequence that has seen `values`, to go on with."""
        sequence = cls(confidence, first)
        for value in values:
            sequence.add(value)
        return sequence

    def add(self, value: float) -> bool:
        """Take the log-ratio of one more pair; return False, and leave it out, if it is not a finite number."""
        if not math.isfinite(value):
            return False
        self._values.append(float(value))
        return True

    @property
    def count(self) -> int:
        """How many pairs were seen."""
        return len(self._values)

    @property
    def values(self) -> tuple[float, ...]:
        """The log-ratios seen, in their order: what `of` takes."""
        return tuple(self._values)

    @property
    def sigma(self) -> float:
        """How much the first values spread about their median, as a standard deviation; NaN before there are any."""
        first = self._values[: self._first]
        return _sigma(first, _median(first)) if first else math.nan

    @property
    def estimate(self) -> float:
        """The log-ratio about which the values, clipped, are balanced; NaN before there are any."""
        return self._where(lambda total, _: total) if self._values else math.nan

    def interval(self) -> tuple[float, float]:
        """Return the log-ratios that are not excluded: from -inf to inf before there are `first` values."""
        if self.count < self._first:
            return -math.inf, math.inf
        return (
            self._where(lambda total, bound: total - bound),
            self._where(lambda total, bound: total + bound),
        )

    def excludes(self, log_ratio: float) -> bool:
        """Return whether a log-ratio lies outside of the interval."""
        return self._side(log_ratio) != 0

    def verdict(self, min_effect: float = MIN_EFFECT) -> SequentialVerdict:
        """Return what is known by now of the second of each pair against the first.

        Args:
            min_effect: The least difference that counts, as a share. "faster" and "slower" are said where the interval
                excludes 0 and the estimate is at least so far from it, "equal" where the interval lies within it.
        """
        effect = math.log1p(min_effect)
        side = self._side(0.0)
        if side and abs(self.estimate) >= effect:
            return "slower" if side > 0 else "faster"
        if min_effect > 0 and self._side(effect) < 0 < self._side(-effect):
            return "equal"
        return "undecided"

    def _side(self, center: float) -> int:
        """Return 1 if the values are known to lie above a log-ratio, -1 if below, 0 if neither is known."""
        if self.count < self._first:
            return 0
        total, bound = self._sum_and_bound(center)
        return 0 if abs(total) <= bound else (1 if total > 0 else -1)

    def _sum_and_bound(self, center: float) -> tuple[float, float]:
        """Return the sum of the clipped distances from `center`, and what it stays below if that is the centre."""
        sigma = _sigma(self._values[: self._first], center)
        limit = CLIP * sigma
        total = squares = 0.0
        for value in self._values:
            distance = min(max(value - center, -limit), limit)
            total += distance
            squares += distance * distance
        log_alpha = -2 * math.log(self._alpha)
        precision = NARROWEST_AT * sigma * sigma / (log_alpha + math.log1p(log_alpha))
        whole = squares + precision
        return total, math.sqrt(whole * (math.log(whole / precision) + log_alpha))

    def _where(self, level: Callable[[float, float], float]) -> float:
        """Return the centre at which `level`, which falls as the centre rises, crosses zero: by bisection."""
        low, high = min(self._values), max(self._values)
        margin = (high - low) + _LEAST_SIGMA
        low, high = low - margin, high + margin
        while level(*self._sum_and_bound(low)) < 0 and low > -1e3:
            low -= margin
            margin *= 2
        while level(*self._sum_and_bound(high)) > 0 and high < 1e3:
            high += margin
            margin *= 2
        for _ in range(_STEPS):
            middle = (low + high) / 2
            if level(*self._sum_and_bound(middle)) > 0:
                low = middle
            else:
                high = middle
        return (low + high) / 2


def _sigma(values: list[float], center: float) -> float:
    return max(_NORMAL_MAD * _median([abs(value - center) for value in values]), _LEAST_SIGMA)


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
