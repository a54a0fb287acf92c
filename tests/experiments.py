"""Experiments whose calls take as long as they say, by a clock of their own, and whose coin is seeded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pytest

from otel_debugstore.experiments import arm, draws
from otel_debugstore.experiments.judge import Judgement, judge
from otel_debugstore.experiments.keeper import KEEPER
from otel_debugstore.experiments.record import Record


class MemoryStore:
    """What is kept of experiments, in this process."""

    def __init__(self) -> None:
        self.plain: dict[str, Any] = {}

    def read(self, name: str) -> Any:
        return self.plain.get(name)

    def change(self, name: str, function: Callable[[Any], Any]) -> Any:
        self.plain[name] = function(self.plain.get(name))
        return self.plain[name]

    def record(self, name: str) -> Record:
        """Return what is kept of an experiment after everything was exchanged."""
        KEEPER.exchange()
        return Record.of(self.plain.get(name))

    def judged(self, name: str, arm_name: str) -> Judgement:
        """Return what is known of an arm by now."""
        found = self.record(name)
        tallies = found.tally(found.control), found.tally(arm_name)
        return judge(*tallies, found.pairs_of(arm_name), len(found.weights) - 1, found.min_effect)


class Times:
    """A clock that only moves when a call says that time passes."""

    def __init__(self) -> None:
        self.now_ns = 0

    def pass_ms(self, milliseconds: float) -> None:
        self.now_ns += round(milliseconds * 1e6)


@contextmanager
def seeded(seed: int) -> Iterator[tuple[Times, MemoryStore]]:
    """Have experiments that are made here draw by a seed, time by `Times`, and be kept in a `MemoryStore`."""
    times, store = Times(), MemoryStore()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arm, "perf_counter_ns", lambda: times.now_ns)
        patch.setattr(draws, "Random", lambda _: Random(seed))
        KEEPER.open(lambda: store)
        try:
            yield times, store
        finally:
            KEEPER.close()
