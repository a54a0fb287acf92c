"""How often experiments are wrong, and how soon they are right: simulated, through the callables that users call."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import seeded
from otel_debugstore import GuardRails, ab
from otel_debugstore.experiments.assignment import Shares, hash_of
from otel_debugstore.experiments.evidence import MAX_VALUES, Pairs
from otel_debugstore.experiments.rates import interval, is_above

STREAMS = 100
ALLOWED = 0.05
RAILS = GuardRails(max_p95_ms=4.0, max_error_rate=0.02, max_ratio=1.05)


class _World:
    """What makes calls slow or fail, whichever arm runs: load that drifts, a sawtooth, and bursts of trouble."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._load = 0.0
        self._trouble = 0
        self._calls = 0

    def call(self) -> tuple[float, bool]:
        """Return how long the next call takes, in milliseconds, and whether it fails."""
        draw = self._random
        self._calls += 1
        self._load = 0.99 * self._load + 0.05 * draw.gauss(0, 1)
        self._trouble = max(0, self._trouble - 1) or (60 if draw.random() < 0.002 else 0)
        log_ms = self._load + 0.4 * (self._calls % 97) / 97 + (1.5 if self._trouble else 0.0)
        log_ms += draw.expovariate(1.0) if draw.random() < 0.2 else draw.gauss(0, 0.2)
        return math.exp(log_ms), draw.random() < (0.4 if self._trouble else 0.02)


def _watched(
    seed: int,
    calls: int,
    *,
    effect: float = 1.0,
    more_errors: float = 0.0,
    user_of: Callable[[Random], int] = lambda draw: 0,
    speed_of: Callable[[int], float] = lambda user: 1.0,
    **options: Any,
) -> Iterator[tuple[int, str, str | None]]:
    """Run an experiment, and yield after how many calls it was looked at, the verdict, and what stopped the arm."""
    world, draw = _World(seed), Random(seed + 1_000_000)
    with seeded(seed) as (times, store):

        def arm(slower: float, failing: float) -> Callable[[int], None]:
            def run(user: int) -> None:
                duration_ms, fails = world.call()
                times.pass_ms(duration_ms * slower * speed_of(user))
                if fails or draw.random() < failing:
                    raise OSError

            return run

        searched = ab("search", {"v1": arm(1.0, 0.0), "v2": arm(effect, more_errors)}, **options)
        look_at = 50
        for number in range(1, calls + 1):
            with contextlib.suppress(OSError):
                searched(user_of(draw))
            if number == look_at:
                look_at = int(look_at * 1.2)
                stop = store.record("search").stop_of("v2")
                yield number, store.judged("search", "v2").verdict, stop.by if stop else None


def _wrong(calls: int, **options: Any) -> tuple[int, int]:
    """Return in how many streams of equal arms a verdict was wrong at any look, and in how many an arm was stopped."""
    verdicts = stops = 0
    for seed in range(STREAMS):
        looks = list(_watched(seed, calls, **options))
        verdicts += any(verdict in ("faster", "slower", "failed") for _, verdict, _ in looks)
        stops += any(stop is not None for *_, stop in looks)
    return verdicts, stops


def _median_calls_until(what: Callable[[str, str | None], bool], calls: int, **options: Any) -> float:
    """Return after how many calls the half of 15 experiments had got there."""
    found = [
        next((number for number, *look in _watched(seed, calls, **options) if what(look[0] or "", look[1])), math.inf)
        for seed in range(15)
    ]
    return sorted(found)[7]


@pytest.mark.slow
@pytest.mark.parametrize("weights", [{"v1": 1, "v2": 1}, {"v1": 9, "v2": 1}, {"v1": 1, "v2": 3}])
def test_equal_arms_are_rarely_called_different(weights: dict[str, float]) -> None:
    """At most one in twenty experiments is ever told wrong, and one in twenty stopped, whatever else slows calls."""
    verdicts, stops = _wrong(1000, weights=weights, guard_rails=RAILS)
    assert verdicts <= ALLOWED * STREAMS
    assert stops <= ALLOWED * STREAMS


@pytest.mark.slow
def test_a_few_heavy_keys_are_no_evidence() -> None:
    """Ten users of very different speed, by whom calls are assigned, say nothing about two equal arms."""
    verdicts, _ = _wrong(
        600,
        key="user",
        user_of=lambda draw: int(draw.expovariate(0.5)),
        speed_of=lambda user: 1.0 + user,
    )
    assert verdicts <= ALLOWED * STREAMS


@pytest.mark.slow
def test_many_keys_are() -> None:
    """With a new user a call, an arm that takes half as long again is found as without a key."""
    users = iter(range(1_000_000))
    options: dict[str, Any] = {"key": "user", "user_of": lambda draw: next(users)}
    assert _median_calls_until(lambda verdict, _: verdict == "slower", 3000, effect=1.5, **options) <= 600
    verdicts, _ = _wrong(600, **options)
    assert verdicts <= ALLOWED * STREAMS


@pytest.mark.slow
def test_what_is_different_is_found_and_stopped() -> None:
    """In half of the experiments a change is known after a few hundred calls, and what is bad is stopped earlier."""
    assert _median_calls_until(lambda verdict, _: verdict == "slower", 3000, effect=1.5) <= 300
    assert _median_calls_until(lambda verdict, _: verdict == "faster", 3000, effect=0.7) <= 400
    rails = GuardRails(max_error_rate=0.1)
    assert _median_calls_until(lambda _, stop: stop is not None, 3000, more_errors=1.0, guard_rails=rails) <= 50
    rails = GuardRails(max_p95_ms=50)
    assert _median_calls_until(lambda _, stop: stop is not None, 3000, effect=100, guard_rails=rails) <= 50


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-3, 3), max_size=700), max_size=8))
def test_pairs_add_up_over_processes(parts: list[list[float]]) -> None:
    """However pairs come in parts, all are there, their mean is theirs, and no more than 512 numbers are kept."""
    whole = Pairs()
    for part in parts:
        seen = Pairs()
        for value in part:
            seen.add(value)
        whole.merge(Pairs.of(seen.to_plain()))
    values = [value for part in parts for value in part]
    assert whole.count == pytest.approx(len(values), abs=len(parts) << whole.level)
    assert len(whole.values) < MAX_VALUES
    plain = whole.to_plain()
    total = sum(whole.values) * (1 << whole.level) + plain["open"][0]
    slack = 3 * (len(parts) << whole.level)  # a block that was joined may hold a few more
    assert total == pytest.approx(sum(values), abs=slack + 1e-6)


@settings(deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.floats(0.001, 0.2))
def test_a_rate_lies_in_its_interval(count: int, more: int, alpha: float) -> None:
    """The rate seen is in the interval, and what is above a rate has its interval above it."""
    total = count + more
    found = interval(count, total, alpha)
    assert 0 <= found.low <= found.high <= 1
    if total:
        assert found.low <= count / total <= found.high
        assert not is_above(count, total, min(1.0, found.low + 1e-9), alpha)
        assert not count or found.low < 1e-9 or is_above(count, total, found.low - 1e-9, alpha)


def test_rates_hold_at_all_looks() -> None:
    """Of 400 streams of coin flips, at most one in twenty ever excludes the truth, looked at after every flip."""
    draw = Random(1)
    wrong = 0
    for _ in range(400):
        count = 0
        for total in range(1, 400):
            count += draw.random() < 0.1
            if is_above(count, total, 0.1, 0.05):
                wrong += 1
                break
    assert wrong <= 20


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=5).filter(any), st.integers(0, 2**32))
def test_arms_get_their_shares(weights: list[int], seed: int) -> None:
    """By chance and by hash each arm gets its share, and a pair is always of the control and another arm."""
    shares, draw = Shares(weights), Random(seed)
    pairs = [shares.of_two(draw.random) for _ in range(4000)]
    hashed = [shares.of_hash(hash_of(f"experiment {seed}", key)) for key in range(4000)]
    assert all(one == other or 0 in (one, other) for one, other in pairs)
    for arm, weight in enumerate(weights):
        share = weight / sum(weights)
        assert sum(pair.count(arm) for pair in pairs) / 8000 == pytest.approx(share, abs=0.05)
        assert hashed.count(arm) / 4000 == pytest.approx(share, abs=0.05)
