"""Quantiles of values of which each stands for so many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def quantiles(values: Floats, weights: Floats, shares: Sequence[float]) -> Floats:
    """Return a row a share: by column of `values` the quantile of its rows; NaN if there are none.

    Where all weights are 1, by linear interpolation between the two nearest values; else the least value that at
    least that share of the weight does not exceed. That is how `query.top` has them.
    """
    if not len(values):
        return np.full((len(shares), *values.shape[1:]), np.nan)
    if (weights == 1.0).all():
        return np.asarray(np.quantile(values, shares, axis=0), dtype=np.float64)
    columns = values.reshape(len(values), -1)
    order = np.argsort(columns, axis=0, kind="stable")
    ordered = np.take_along_axis(columns, order, axis=0)
    reached = np.cumsum(weights[order], axis=0)
    least = [np.argmax(reached >= share * reached[-1], axis=0) for share in shares]
    found = np.take_along_axis(ordered, np.stack(least), axis=0)
    return found.reshape(len(shares), *values.shape[1:])
