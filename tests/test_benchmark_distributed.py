"""Benchmarks on several hosts: measured on each, and combined with the host as a block."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.benchmark import BenchmarkOptions, Case, Comparison, Unit, compare_on_hosts
from otel_debugstore_analysis.benchmark._decision import signed_rank, signed_rank_of_blocks
from otel_debugstore_analysis.benchmark.distributed import combined

if TYPE_CHECKING:
    from distributed import Client

OPTIONS = BenchmarkOptions(processes=6, pairs=3, timeout_s=30)
NUMBERS = [Case("numbers", (list(range(2_000)),))]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A local cluster of two worker processes, with the functions of the tests on their path."""
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            env={"PYTHONPATH": str(Path(__file__).parent)},
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        yield client


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_every_worker_measures_whole_pairs(client: Client) -> None:
    """Both workers measure by themselves, and the verdict is one; what is wrong on one is wrong."""
    client.wait_for_workers(2)  # a busy scheduler may have lost sight of one for a moment
    found = compare_on_hosts(
        client, "benchmarked:total", "benchmarked:slow_total", NUMBERS, options=OPTIONS, blocks="worker"
    )
    assert found.verdict == "slower", found.cause
    assert "on 2 hosts" in found.cause
    assert len({unit.host for unit in found.units}) == 2
    assert found.processes == 12
    assert len(found.per_class) == 2
    assert found.checked == 24

    wrong = compare_on_hosts(
        client, "benchmarked:total", "benchmarked:wrong_total", NUMBERS, options=OPTIONS, blocks="worker"
    )
    assert (wrong.verdict, wrong.failed_side) == ("wrong", "candidate")
    one = compare_on_hosts(client, "benchmarked:total", "benchmarked:total", NUMBERS, options=OPTIONS)
    assert len({unit.host for unit in one.units}) == 1  # they are on one host


def _of_host(speed_ns: float, log_ratios: list[float]) -> Comparison:
    units = tuple(Unit(pid, "here", speed_ns, speed_ns * math.exp(log), (log,)) for pid, log in enumerate(log_ratios))
    return Comparison("undecided", "", 1.0, 1.0, 1.0, units=units, processes=len(units), pairs=len(units), checked=3)


def test_hosts_are_blocks() -> None:
    """Hosts of which one is ten times as fast do not disturb each other, and each counts the same."""
    chance = random.Random(1)
    found = {
        name: _of_host(speed, [0.08 + chance.gauss(0, 0.01) for _ in range(count)])
        for name, speed, count in (("fast", 1e5, 4), ("slow", 1e6, 8))
    }
    whole = combined(found, OPTIONS)
    assert whole.verdict == "slower"
    assert whole.low < math.exp(0.08) < whole.high
    assert whole.high / whole.low < 1.05
    assert whole.checked == 6
    assert {unit.host for unit in whole.units} == {"fast", "slow"}


def test_a_host_that_says_otherwise_leaves_it_undecided() -> None:
    """What is faster on one and slower on the other is no verdict."""
    chance = random.Random(2)
    found = {str(shift): _of_host(1e6, [shift + chance.gauss(0, 0.01) for _ in range(8)]) for shift in (0.1, -0.1)}
    whole = combined(found, OPTIONS)
    assert whole.verdict == "undecided"
    assert "faster on -0.1, and slower on 0.1" in whole.cause


def test_ranks_within_blocks() -> None:
    """One block is the plain test; two that agree are more certain than one of them."""
    values = [0.1, 0.2, 0.3, -0.05, 0.4, 0.5]
    assert signed_rank_of_blocks([values]) == signed_rank(values)
    assert signed_rank_of_blocks([values, values]) < signed_rank(values)
    assert signed_rank_of_blocks([[1.0] * 3, [1.0] * 3]) == pytest.approx(2 / 2**6)


def test_without_workers() -> None:
    """A cluster that has none, and gets none, is refused, and so is what is no client; one that comes late is found."""

    class _Empty:
        def __init__(self) -> None:
            self.workers: dict[str, object] = {}

        def scheduler_info(self, n_workers: int) -> dict[str, object]:
            return {"workers": self.workers}

        def wait_for_workers(self, n_workers: int, timeout: float) -> None:
            raise TimeoutError

    class _Late(_Empty):
        def wait_for_workers(self, n_workers: int, timeout: float) -> None:
            self.workers = {"tcp://1": {"host": "a"}}

        def submit(self, *_: object, **options: object) -> Future[Comparison]:
            assert options["workers"] == ["tcp://1"]
            measured = Future[Comparison]()
            measured.set_result(_of_host(1e6, [0.1] * 8))
            return measured

    with pytest.raises(ConfigurationError, match="no workers"):
        compare_on_hosts(_Empty(), "benchmarked:total", "benchmarked:total", NUMBERS)  # type: ignore[arg-type]
    found = compare_on_hosts(_Late(), "benchmarked:total", "benchmarked:total", NUMBERS)  # type: ignore[arg-type]
    assert {unit.host for unit in found.units} == {"a"}
    with pytest.raises(ConfigurationError, match=r"otel-debugstore\[distributed\]"):
        compare_on_hosts(None, "benchmarked:total", "benchmarked:total", NUMBERS)  # type: ignore[arg-type]
