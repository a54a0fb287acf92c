"""Weights of sampled calls: their sum estimates the calls without bias, however these lie in and beside each other."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_debugstore import configure, function
from otel_debugstore.calls import meter
from otel_debugstore.recording_settings import recording_settings
from otel_debugstore_exporters.reader import SessionReader

NAME = "often"


@pytest.fixture
def base_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where a session lies whose functions are sampled: one call in twenty, whatever machine this is."""
    monkeypatch.setattr(meter, "_MIN_PROBABILITY", 1 / 20)
    monkeypatch.setattr(meter, "_meters", {})
    monkeypatch.setenv("OTEL_DEBUGSTORE_OVERHEAD_BUDGET", "0.001%")
    recording_settings.cache_clear()
    configure(session_id="s", base_path=tmp_path)
    yield tmp_path
    recording_settings.cache_clear()


def work() -> int:
    """Take a few microseconds."""
    return sum(range(300))


def in_a_row() -> int:
    @function(name=NAME)
    def call(number: int) -> int:
        return work()

    for number in range(20_000):
        call(number)
    return 20_000


def in_each_other() -> int:
    @function(name=NAME)
    def call(depth: int) -> int:
        return call(depth - 1) + work() if depth else 0

    for _ in range(1_000):
        call(20)
    return 21_000


def in_threads() -> int:
    @function(name=NAME)
    def call(number: int) -> int:
        time.sleep(0.0002)
        return number

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, range(8_000)))
    return 8_000


def in_tasks() -> int:
    @function(name=NAME)
    async def call(number: int) -> int:
        await asyncio.sleep(0)
        return work()

    async def main() -> None:
        for _ in range(150):
            await asyncio.gather(*[call(number) for number in range(100)])

    asyncio.run(main())
    return 15_000


def in_generators() -> int:
    def numbers(count: int) -> Generator[int]:
        for number in range(count):
            work()
            yield number

    call = function(name=NAME)(numbers)
    lazy: Callable[[int], Iterator[int]] = function(name=NAME)(lambda count: numbers(count))
    for number in range(4_000):
        list(call(2))
        next(iter(call(2)))  # and forgotten
        list(lazy(1))
        call(number).close()  # which nothing of it has run
    return 12_000


@pytest.mark.parametrize("program", [in_a_row, in_each_other, in_threads, in_tasks, in_generators])
def test_the_sum_of_weights(program: Callable[[], int], base_path: Path) -> None:
    """It is the number of calls, within five standard errors; and spans and counted calls make all calls exactly."""
    made = program()
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.shutdown()
    with SessionReader(base_path, ["s"]) as reader:
        weights = [
            float(weight)
            for (weight,) in reader.query("SELECT sample_weight FROM spans WHERE component = ?", [NAME]).rows
        ]
        ((counted,),) = reader.query("SELECT sum(call_count) FROM counters WHERE component = ?", [NAME]).rows
    assert len(weights) + int(counted) == made
    assert counted > 0
    error = math.sqrt(sum(weight * (weight - 1) for weight in weights))
    assert 0 < error < made / 2
    assert abs(sum(weights) - made) < 5 * error
