"""Where the level of a series changes.

Of 18 values or more: ranks to normal scores (Blom 1958), then the partition that minimises the squared deviations from
the means of its parts, plus a penalty of 3 ln n a change; parts have at least 4 values. That is what
`ruptures.KernelCPD("linear", min_size=4)` finds (Arlot, Celisse and Harchaoui 2019), without the 1.3 s that importing
it takes.

Of 10 to 17 values that penalty is more than most changes can save, so one change is looked for, where two parts of the
values' logarithms differ most (the squared deviations from their means are least), and tested by permutation (Fisher
1935): of all ways to choose the values of a part, the share in which the parts differ as much, summed over the lengths
that a part can have (Boole), is at most 1 %. Of 9 values not even the clearest change is that rare: 2 of 126 ways.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._quantiles import Floats

MIN_SIZE: Final = 4
"""The fewest values between two change points."""
MIN_POINTS: Final = 10
"""Of fewer values none is found, however clear it looks."""
PENALTY: Final = 3.0
MAX_POINTS: Final = 1_000
_FEW_POINTS: Final = 17
"""Up to so many values the test by permutation is made. With more the penalty finds every clear change with 5 values
before it and 5 after, from 22 values on with 4; each further value would double what the test takes."""
_FALSE_ALARMS: Final = 0.01
_NEAR: Final = 1e-9


def change_points(values: Sequence[float] | Floats) -> list[int]:
    """Return at which places the level of a series changes: the first values of the new levels, ascending.

    Args:
        values: In the order of time. Of more than `MAX_POINTS` only the last ones are looked at.
    """
    series = np.asarray(values, dtype=np.float64)
    first = max(len(series) - MAX_POINTS, 0)
    series = series[first:]
    count = len(series)
    if count < MIN_POINTS:
        return []
    if count <= _FEW_POINTS:
        return _split(series)
    scores = normal_scores(series)
    return [first + place for place in _partition(scores, PENALTY * math.log(count))]


def normal_scores(values: Floats) -> Floats:
    """Return for each value the normal deviate of its rank; equal values share the middle of their ranks."""
    from statistics import NormalDist

    _, place, sizes = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(sizes) - (sizes - 1) / 2
    deviate = NormalDist().inv_cdf
    scores = [deviate((rank - 0.375) / (len(values) + 0.25)) for rank in ranks.tolist()]
    return np.asarray(scores)[place.reshape(-1)]


def _partition(scores: Floats, penalty: float) -> list[int]:
    """Return the ends but the last of the parts of the cheapest partition: dynamic programming over all of them."""
    count = len(scores)
    sums = np.concatenate([[0.0], np.cumsum(scores)])
    squares = np.concatenate([[0.0], np.cumsum(scores**2)])
    cheapest = np.full(count + 1, np.inf)
    cheapest[0] = -penalty
    before = np.zeros(count + 1, np.int64)
    for end in range(MIN_SIZE, count + 1):
        begin = np.arange(end - MIN_SIZE + 1)
        cost = squares[end] - squares[begin] - (sums[end] - sums[begin]) ** 2 / (end - begin)
        whole = cheapest[begin] + cost + penalty
        before[end] = least = int(np.argmin(whole))
        cheapest[end] = whole[least]
    places = []
    end = int(before[count])
    while end > 0:
        places.append(end)
        end = int(before[end])
    return places[::-1]


def _split(series: Floats) -> list[int]:
    """Return the place where two parts differ most, if values in any order would hardly ever differ so much."""
    count, is_positive = len(series), series > 0
    if not is_positive.any():
        return []
    logs = np.log(np.where(is_positive, series, series[is_positive].min()))
    logs -= logs.mean()
    length = np.arange(MIN_SIZE, count - MIN_SIZE + 1)
    differs = np.cumsum(logs)[length - 1] ** 2 * count / (length * (count - length))
    best = int(np.argmax(differs))
    parts = _parts(count)
    sums = np.zeros(1)
    for value in logs[:-1].tolist():
        sums = np.concatenate([sums, sums + value])
    p_value = float(parts.share[sums**2 * parts.scale >= differs[best] * (1 - _NEAR)].sum())
    return [int(length[best])] if p_value <= _FALSE_ALARMS else []


class _Parts(NamedTuple):
    """The ways to choose a part of so many values without the last one (a part with it is another one's rest).

    Attributes:
        scale: What the square of the part's sum is multiplied by; 0 where it, or the rest, has too few values.
        share: Of all ways to choose as many values: of the part and of the rest together.
    """

    scale: Floats
    share: Floats


@functools.lru_cache(maxsize=_FEW_POINTS)
def _parts(count: int) -> _Parts:
    sizes = np.zeros(1, np.int64)
    for _ in range(count - 1):
        sizes = np.concatenate([sizes, sizes + 1])
    is_long = (sizes >= MIN_SIZE) & (sizes <= count - MIN_SIZE)
    scale = np.where(is_long, count / np.maximum(sizes * (count - sizes), 1), 0.0)
    share = np.array([2 / math.comb(count, size) for size in range(count)])[sizes]
    return _Parts(scale, np.where(is_long, share, 0.0))
