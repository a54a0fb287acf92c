"""`ConfidenceSequence`: intervals that hold though they are looked at after every pair."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_debugstore.errors import ConfigurationError
from otel_debugstore.sequential import ConfidenceSequence

LOOKS = 100


def _stopped_at(chance: random.Random, shift: float, spread: float, outliers: float, min_effect: float) -> int | None:
    """Return after how many pairs a stream was called slower or faster; None if it never was."""
    sequence = ConfidenceSequence()
    for look in range(1, LOOKS + 1):
        noise = chance.gauss(0, spread) if chance.random() >= outliers else chance.choice((-1, 1)) * chance.random()
        sequence.add(shift + noise)
        if sequence.verdict(min_effect) in ("slower", "faster"):
            return look
    return None


@pytest.mark.parametrize(("spread", "outliers"), [(0.02, 0.0), (0.10, 0.0), (0.05, 0.3)])
def test_equal_functions_are_rarely_called_different_at_any_look(spread: float, outliers: float) -> None:
    """Of 300 streams without a difference at most 5 % are ever called slower or faster, whatever the noise."""
    chance = random.Random(7)
    wrong = sum(_stopped_at(chance, 0.0, spread, outliers, 0.0) is not None for _ in range(300))
    assert wrong <= 15


def test_a_difference_is_found_soon() -> None:
    """At a noise of 10 % half of the streams find 5 % within 60 pairs, in its direction."""
    chance = random.Random(7)
    stops = [_stopped_at(chance, math.log(1.05), 0.10, 0.0, 0.03) for _ in range(100)]
    assert sum(stop is not None and stop <= 60 for stop in stops) >= 50


def test_verdicts() -> None:
    """What is slower, faster or equal is called so; with few pairs nothing is known."""
    chance = random.Random(1)

    def of(shift: float, count: int = 80) -> ConfidenceSequence:
        return ConfidenceSequence.of(shift + chance.gauss(0, 0.01) for _ in range(count))

    assert of(0.1).verdict() == "slower"
    assert of(-0.1).verdict() == "faster"
    assert of(0.0).verdict() == "equal"
    assert of(0.1, count=5).verdict() == "undecided"
    assert of(0.02).verdict() != "slower"  # less than counts
    assert of(0.02).verdict(min_effect=0.0) == "slower"


def test_the_interval_narrows_around_the_ratio() -> None:
    """It holds the true ratio, is unbounded before there are enough values, and gets narrower."""
    chance = random.Random(2)
    sequence = ConfidenceSequence()
    assert sequence.interval() == (-math.inf, math.inf)
    widths = []
    for _ in range(3):
        for _ in range(50):
            sequence.add(0.2 + chance.gauss(0, 0.05))
        low, high = sequence.interval()
        assert low < 0.2 < high
        assert low < sequence.estimate < high
        assert sequence.excludes(0.0)
        assert not sequence.excludes(0.2)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)


def test_one_pair_that_is_far_off_moves_nothing() -> None:
    """A pair of which the scheduler took most counts as any other."""
    chance = random.Random(3)
    values = [chance.gauss(0, 0.01) for _ in range(50)]
    calm, disturbed = ConfidenceSequence.of(values), ConfidenceSequence.of([*values, 5.0])
    assert abs(calm.estimate - disturbed.estimate) < 0.01
    assert disturbed.verdict() == "equal"


@given(st.lists(st.floats(-3, 3), max_size=40), st.floats(0.5, 0.99))
@settings(max_examples=60, deadline=None)
def test_any_values_give_an_interval_with_its_ends_in_order(values: list[float], confidence: float) -> None:
    """Whatever the values are, equal ones and zeros too, nothing fails; going on from them changes nothing."""
    sequence = ConfidenceSequence.of(values, confidence)
    low, high = sequence.interval()
    assert low <= high
    assert sequence.verdict() in ("slower", "faster", "equal", "undecided")
    assert ConfidenceSequence.of(sequence.values, confidence).interval() == (low, high)


def test_mirrored_values_give_the_mirrored_verdict() -> None:
    """Which of both is called the first makes no difference."""
    chance = random.Random(4)
    values = [0.08 + chance.gauss(0, 0.1) for _ in range(90)]
    sequence, mirrored = ConfidenceSequence.of(values), ConfidenceSequence.of(-value for value in values)
    low, high = sequence.interval()
    assert mirrored.interval() == pytest.approx((-high, -low), abs=1e-9)
    assert {sequence.verdict(), mirrored.verdict()} in ({"slower", "faster"}, {"undecided"})


def test_what_is_no_number_is_left_out() -> None:
    """A pair without a ratio is not counted."""
    sequence = ConfidenceSequence()
    assert not sequence.add(math.nan)
    assert not sequence.add(math.inf)
    assert sequence.add(0.0)
    assert sequence.count == 1
    assert math.isnan(ConfidenceSequence().estimate)


@pytest.mark.parametrize(("confidence", "first"), [(0.0, 10), (1.0, 10), (0.95, 1)])
def test_settings_that_cannot_be(confidence: float, first: int) -> None:
    """They are refused."""
    with pytest.raises(ConfigurationError):
        ConfidenceSequence(confidence, first)
