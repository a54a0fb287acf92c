"""`interval` of a rate, which may be looked at after every call.

Robbins' mixture for coin flips: with k of n calls, a rate p is excluded once the likelihood of what was seen, averaged
over all rates by a Beta(1/2, 1/2), is 1/alpha times its likelihood under p. That ratio is a martingale where p is the
true rate, so by Ville's inequality p is ever excluded in at most a share alpha of all streams (Robbins 1970,
"Statistical methods related to the law of the iterated logarithm"; Howard, Ramdas, McAuliffe and Sekhon 2021,
"Time-uniform, nonparametric, nonasymptotic confidence sequences").
"""

from __future__ import annotations

from math import inf, lgamma, log, pi
from typing import Final, NamedTuple

_STEPS: Final = 40
_LOG_BETA_HALF: Final = log(pi)  # of B(1/2, 1/2)


class Interval(NamedTuple):
    """The rates that are not excluded."""

    low: float
    high: float


def interval(count: int, total: int, alpha: float) -> Interval:
    """Return the rates that `count` of `total` do not exclude; (0, 1) of nothing."""
    if not total:
        return Interval(0.0, 1.0)
    seen = count / total
    low = 0.0 if not count else _edge(count, total, alpha, outside=0.0, inside=seen)
    high = 1.0 if count == total else _edge(count, total, alpha, outside=1.0, inside=seen)
    return Interval(low, high)


def is_above(count: int, total: int, rate: float, alpha: float) -> bool:
    """Return whether `count` of `total` exclude `rate` and all below it."""
    return count > rate * total and _log_evidence(count, total, rate) >= -log(alpha)


def _log_evidence(count: int, total: int, rate: float) -> float:
    """Return the logarithm of what is to reach 1/alpha to exclude `rate`."""
    if (count and rate <= 0) or (count < total and rate >= 1):
        return inf
    mixture = lgamma(count + 0.5) + lgamma(total - count + 0.5) - lgamma(total + 1) - _LOG_BETA_HALF
    return mixture - (count * log(rate) if count else 0.0) - ((total - count) * log(1 - rate) if count < total else 0.0)


def _edge(count: int, total: int, alpha: float, outside: float, inside: float) -> float:
    wanted = -log(alpha)
    for _ in range(_STEPS):
        middle = (outside + inside) / 2
        if _log_evidence(count, total, middle) >= wanted:
            outside = middle
        else:
            inside = middle
    return outside
