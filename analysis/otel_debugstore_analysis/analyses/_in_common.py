"""What failing calls have in common: which values they have more often than calls that did not fail.

For a field with a value, `share` is the part of the failing calls that have it, `other_share` that of the others, where
each component counts as much as among the failing ones; `lift` is the one by the other. Significance is of traces and
not of calls, since a retried call fails again for the same reason: Fisher's exact or the z-test where one component
fails, Mantel and Haenszel's where several do; corrected for the number of values looked at (Benjamini and Hochberg),
where those that no fifth more of the failing calls have count as tests and can't be found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._calls import Bools, Floats, Ints
from otel_debugstore_analysis.analyses._features import Feature
from otel_debugstore_analysis.analyses.statistics import benjamini_hochberg, two_shares

LEAST_LIFT: Final = 1.2
LEAST_TRACES: Final = 2
"""A value that one trace has is in common with nothing."""
VALUES: Final = 10
"""Of each field so many values are looked at: those that most failing calls have."""
_SIGNIFICANT: Final = 0.05


class Common(NamedTuple):
    """A value that failing calls have more often.

    Attributes:
        lift: None where no other call has it.
        traces, other_traces: In how many traces failing calls, and others, have it.
    """

    field: str
    value: str
    share: float
    other_share: float
    lift: float | None
    q_value: float
    traces: int
    other_traces: int

    @property
    def order(self) -> tuple[Any, ...]:
        """What such values are sorted by: how many of the failing calls it could be answerable for."""
        answerable = (self.share - self.other_share) / max(1 - self.other_share, 1e-9)
        return -round(answerable, 9), self.q_value, self.field, self.value


class Calls(NamedTuple):
    """Calls, those that failed and others.

    Attributes:
        component, trace: Codes.
        fields: What is known of them.
        codes: By field and call the place of its value in `values`, -1 where it has none.
        values: By field its values.
    """

    component: Ints
    trace: Ints
    weight: Floats
    fields: Sequence[str]
    codes: Sequence[Ints]
    values: Sequence[Sequence[str]]

    @staticmethod
    def of(component: Ints, trace: Ints, weight: Floats, features: Sequence[Feature]) -> Calls:
        """Return calls with these features."""
        codes, values = [], []
        for feature in features:
            numbers: dict[str, int] = {}
            places = [-1 if one is None else numbers.setdefault(one, len(numbers)) for one in feature.values]
            codes.append(np.array(places, np.int64))
            values.append(list(numbers))
        return Calls(component, trace, weight, [feature.key for feature in features], codes, values)

    def in_common(self, failing: Ints, others: Ints) -> list[Common]:
        """Return what calls of one kind have in common that others of the same components have not.

        Args:
            failing: The places of those that fail.
            others: The places of those that don't.
        """
        beside = others[np.isin(self.component[others], self.component[failing])]
        rows = np.concatenate([failing, beside])
        has_failed = np.arange(len(rows)) < len(failing)
        strata = _Strata.of(self.component[rows], self.trace[rows], has_failed, self.weight[rows])
        found = [
            one
            for field, codes, values in zip(self.fields, self.codes, self.values, strict=True)
            for one in _of_field(field, codes[rows], values, strata)
        ]
        q_values = benjamini_hochberg([p_value for _, p_value in found])
        kept = [one._replace(q_value=q) for (one, _), q in zip(found, q_values, strict=True) if q <= _SIGNIFICANT]
        return sorted((one for one in kept if _is_more(one.share, one.other_share)), key=lambda one: one.order)


class _Strata(NamedTuple):
    """Calls of a number of components; a cell is a component's calls that failed (2n), or its others (2n + 1).

    Attributes:
        has_failed: By call.
        weight: By call.
        cell: By call.
        unit: By call its trace, within the cell; ascending by cell.
        begin: By cell its first unit.
        units: By cell how many there are.
        whole: By cell the weight of its calls.
    """

    has_failed: Bools
    weight: Floats
    cell: Ints
    unit: Ints
    begin: Ints
    units: Ints
    whole: Floats

    @staticmethod
    def of(component: Ints, trace: Ints, has_failed: Bools, weight: Floats) -> _Strata:
        number = np.unique(component, return_inverse=True)[1].reshape(-1)
        cell = 2 * number + ~has_failed
        count = 2 * (int(number.max(initial=-1)) + 1)
        width = int(trace.max(initial=0)) + 1
        keys, unit = np.unique(cell * width + trace, return_inverse=True)
        units = np.bincount(keys // width, minlength=count)
        begin = np.concatenate([[0], np.cumsum(units)[:-1]])
        return _Strata(
            has_failed,
            weight,
            cell,
            unit.reshape(-1),
            begin,
            units,
            np.bincount(cell, weight, count).astype(np.float64),
        )


def _of_field(field: str, codes: Ints, values: Sequence[str], strata: _Strata) -> Iterator[tuple[Common, float]]:
    """Yield the values of a field that were looked at, each with the probability of such shares by chance."""
    if not len(codes) or codes.min() == codes.max():
        return
    counts = np.bincount(codes[strata.has_failed] + 1, minlength=len(values) + 1)[1:]
    wanted = sorted(np.flatnonzero(counts >= LEAST_TRACES).tolist(), key=lambda code: (-counts[code], values[code]))
    wanted = wanted[:VALUES]
    if not wanted:
        return
    place = np.full(len(values) + 1, len(wanted), np.int64)
    place[wanted] = np.arange(len(wanted))
    column, width = place[codes], len(wanted) + 1
    sums = np.bincount(strata.cell * width + column, strata.weight, len(strata.whole) * width).reshape(-1, width)
    shares = sums / np.where(strata.whole > 0, strata.whole, 1.0)[:, None]
    part = strata.whole[0::2] / strata.whole[0::2].sum()
    share, other_share = np.minimum(part @ shares[0::2], 1.0), np.minimum(part @ shares[1::2], 1.0)
    has = np.zeros((int(strata.units.sum()) + 1, width), np.int64)
    has[strata.unit, column] = 1
    before = np.concatenate([np.zeros((1, width), np.int64), np.cumsum(has, axis=0)])
    hits = before[strata.begin + strata.units] - before[strata.begin]
    for number, code in enumerate(wanted):
        traces, other_traces = int(hits[0::2, number].sum()), int(hits[1::2, number].sum())
        one, other = float(share[number]), float(other_share[number])
        lift = one / other if other else None
        p_value = 1.0
        if traces >= LEAST_TRACES and _is_more(one, other):
            p_value = _p_value(hits[0::2, number], strata.units[0::2], hits[1::2, number], strata.units[1::2])
        yield Common(field, values[code], one, other, lift, 1.0, traces, other_traces), p_value


def _is_more(share: float, other_share: float) -> bool:
    return share > 0 and share >= LEAST_LIFT * other_share


def _p_value(hits: Ints, counts: Ints, other_hits: Ints, other_counts: Ints) -> float:
    """Return how likely such differences are by chance, in all strata together."""
    told = [
        (int(hit), int(count), int(other_hit), int(other))
        for hit, count, other_hit, other in zip(hits, counts, other_hits, other_counts, strict=True)
        if count and other
    ]
    if len(told) == 1:
        return two_shares(*told[0])
    difference = variance = 0.0
    for hit, count, other_hit, other in told:
        whole, both = count + other, hit + other_hit
        difference += hit - count * both / whole
        variance += count * other * both * (whole - both) / (whole**2 * max(whole - 1, 1))
    return math.erfc(abs(difference) / math.sqrt(2 * variance)) if variance > 0 else 1.0
