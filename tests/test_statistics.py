"""Statistics of analyses: equal to those of other libraries, and the same each time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_debugstore_analysis.analyses import statistics
from otel_debugstore_analysis.analyses._change_points import MIN_POINTS, change_points, normal_scores


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 1_000), min_size=18, max_size=60),
    st.integers(0, 59),
    st.integers(0, 2_000),
)
def test_change_points_are_those_of_ruptures(values: list[int], place: int, step: int) -> None:
    """The partition costs no more than that of `KernelCPD`, which is the same but for ties."""
    ruptures = pytest.importorskip("ruptures")
    series = np.array(values, dtype=np.float64)
    series[place:] += step
    scores, penalty = normal_scores(series), 3 * math.log(len(series))
    found = change_points(series)
    theirs = ruptures.KernelCPD("linear", min_size=4).fit(scores.reshape(-1, 1)).predict(pen=penalty)[:-1]

    def cost(places: list[int]) -> float:
        parts = np.split(scores, places)
        return sum(float(((part - part.mean()) ** 2).sum()) for part in parts) + penalty * len(places)

    assert cost(found) <= cost(theirs) + 1e-9
    assert all(after - before >= 4 for before, after in zip([0, *found], [*found, len(series)], strict=True))


def test_a_step_is_found_where_it_is() -> None:
    """Ten values, and ten of another level."""
    assert change_points([1.0, 1.1, 0.9, 1.05, 0.95] * 2 + [2.0, 2.1, 1.9, 2.05, 1.95] * 2) == [10]
    assert change_points([1.0] * 20) == []
    assert change_points([1.0] * 3 + [9.0] * 4) == []
    assert change_points([3.0] * 12) == change_points([0.0] * 12) == []


@pytest.mark.parametrize("count", range(MIN_POINTS, 25))
def test_every_clear_step_is_found(count: int) -> None:
    """In a history of any length from the least on, wherever it is: four values before and after it are enough.

    Of 18 to 21 values, five: more than are tested exactly, and too few for the penalty.
    """
    noise = np.random.default_rng(count).normal(0, 0.02, count)
    least = 5 if 18 <= count < 22 else 4
    for place in range(least, count - least + 1):
        (found,) = change_points(np.exp(noise + (np.arange(count) >= place)))
        assert abs(found - place) <= (0 if count < 18 else 2)


@pytest.mark.parametrize("count", [MIN_POINTS, 12, 14, 17])
def test_values_in_any_order_hardly_ever_have_a_change(count: int) -> None:
    """At most 1 % of orders do in a history that is tested exactly, whatever its values are."""
    chance = np.random.default_rng(count)
    values = np.exp(chance.standard_t(3, count) * 0.1) + (np.arange(count) < count // 2)
    assert change_points(values) == [count // 2]
    alarms = sum(bool(change_points(chance.permutation(values))) for _ in range(2_000))
    assert alarms <= 30


def test_ratio_of_medians_is_the_same_each_time_and_in_any_order() -> None:
    """What is drawn is drawn from a fixed seed."""
    before, after = np.array([1.0, 1.2, 0.9, 1.1, 1.0]), np.array([2.0, 2.2, 1.9, 2.1, 2.3])
    found = statistics.ratio_of_medians(before, after)
    assert found == statistics.ratio_of_medians(before[::-1], after[::-1])
    assert found.value == 2.1
    assert 1.5 < found.low < 2.1 < found.high < 2.6
    assert math.isnan(statistics.ratio_of_medians(before, np.array([])).value)
    assert math.isnan(statistics.ratio_of_medians(before[:1], after).low)
    assert math.isnan(statistics.ratio_of_medians(np.zeros(4), after).value)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*[st.integers(0, 40)] * 4))
def test_tests_are_those_of_scipy(cells: tuple[int, int, int, int]) -> None:
    """Fisher's exact test where few are expected, Welch's t-test, Benjamini and Hochberg's rates."""
    scipy_stats = pytest.importorskip("scipy.stats")
    a, b, c, d = cells
    p = statistics.two_shares(a, a + b, c, c + d)
    assert 0 <= p <= 1
    rows, columns = (a + b, c + d), (a + c, b + d)
    if min(rows) and min(columns) and min(rows) * min(columns) / sum(rows) < 10:
        assert p == pytest.approx(scipy_stats.fisher_exact([[a, b], [c, d]])[1], abs=1e-9)
    one, other = np.array([a, b, 1.5]), np.array([c, d, 2.5, 7.0])
    expected = scipy_stats.ttest_ind(one, other, equal_var=False).pvalue
    assert statistics.welch(one, other) == pytest.approx(expected, nan_ok=True)
    ps = [p, 0.01, 0.2, 0.04]
    assert statistics.benjamini_hochberg(ps) == pytest.approx(list(scipy_stats.false_discovery_control(ps)))


def test_wilson() -> None:
    """Of four of four the share may be as low as a half; of none anything may be."""
    assert statistics.wilson(4, 4) == pytest.approx((0.5101, 1.0), abs=1e-4)
    assert statistics.wilson(0, 0) == (0.0, 1.0)
