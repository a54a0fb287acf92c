"""How often `compare_functions` is wrong, and what it finds, on a machine under load that this evaluation makes itself.

Functions of a millisecond: equal ones (A/A), and such that are 5 or 10 % slower by construction. The load: as many
processes as there are cores, each of which computes for 5 to 200 ms, and sleeps as long, at random.

Then the confidence sequence: streams drawn from the pairs that the equal functions gave, with a look after every pair.
"""

from __future__ import annotations

import contextlib
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

from evaluation import workload
from evaluation.result import ROOT, Options, Result
from otel_debugstore.sequential import ConfidenceSequence
from otel_debugstore_analysis.benchmark._decision import decided
from otel_debugstore_analysis.benchmark.method import compare_functions
from otel_debugstore_analysis.benchmark.model import BenchmarkOptions, Case
from otel_debugstore_analysis.benchmark.results import Comparison

RUNS: Final = 100
FULL_RUNS: Final = 300
STREAMS: Final = 1_000
MOST_PAIRS: Final = 200
WITHIN: Final = 60
LIMIT_S: Final = 10.0
_CALL_NS: Final = 1_000_000
_SEED: Final = 4
_LOAD: Final = """
import os, random, sys, time
chance, parent = random.Random(int(sys.argv[1])), os.getppid()
while os.getppid() == parent:
    until = time.perf_counter() + chance.uniform(0.005, 0.2)
    while time.perf_counter() < until:
        pass
    time.sleep(chance.uniform(0.005, 0.2))
"""


def results(options: Options) -> list[Result]:
    """Return the wrong verdicts, what is found of 5 and 10 %, and what the confidence sequence says."""
    runs = options.draws(FULL_RUNS if options.full else RUNS)
    found: dict[str, list[Comparison]] = {"same": [], "more_5": [], "more_10": []}
    with _load(os.cpu_count() or 1):
        count = _count()
        for run in range(runs):
            for name in random.Random(run).sample(sorted(found), len(found)):
                found[name].append(_compared(name, count, run))
    return [*_verdicts(found), *_sequences([*_pairs(found["same"])], options)]


@contextlib.contextmanager
def _load(processes: int) -> Iterator[None]:
    running = [
        subprocess.Popen([sys.executable, "-c", _LOAD, str(number)], stdin=subprocess.DEVNULL)
        for number in range(processes)
    ]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()


def _count() -> int:
    """Return for how many numbers `work` takes a millisecond here."""
    tried = 10_000
    least_ns = min(_took_ns(tried) for _ in range(20))
    return round(tried * _CALL_NS / least_ns)


def _took_ns(count: int) -> int:
    began = time.perf_counter_ns()
    workload.work(count)
    return time.perf_counter_ns() - began


def _compared(name: str, count: int, seed: int) -> Comparison:
    return compare_functions(
        "evaluation.workload:work",
        f"evaluation.workload:{name}",
        [Case("numbers", (count,))],
        options=BenchmarkOptions(seed=seed, cwd=str(ROOT), memory=False, max_seconds=0.8 * LIMIT_S),
    )


def _verdicts(found: dict[str, list[Comparison]]) -> list[Result]:
    same = found["same"]
    anything = [
        decided([math.log(unit.candidate_ns / unit.baseline_ns) for unit in each.units], 0.0, 0.95).verdict
        for each in same
    ]
    wrong = ("faster", "slower", "wrong", "failed")
    seconds = [each.seconds for comparisons in found.values() for each in comparisons]
    return [
        Result(
            "benchmark: wrong verdicts on equal functions under load, no least effect",
            sum(verdict in wrong for verdict in anything),
            len(same),
            0.05,
        ),
        Result(
            "benchmark: wrong verdicts on equal functions under load, least effect 3 %",
            sum(each.verdict in wrong for each in same),
            len(same),
            0.02,
            detail=f"{sum(each.verdict == 'equal' for each in same)} are called equal",
        ),
        *(
            Result(
                f"benchmark: +{percent} % found under load",
                sum(each.verdict == "slower" for each in found[f"more_{percent}"]),
                len(found[f"more_{percent}"]),
                target,
                "at least",
                f"median ratio {statistics.median(each.ratio for each in found[f'more_{percent}']):.3f}",
            )
            for percent, target in ((5, 0.6), (10, 0.9))
        ),
        Result(
            f"benchmark: done within {LIMIT_S:.0f} s",
            sum(each <= LIMIT_S for each in seconds),
            len(seconds),
            1.0,
            "at least",
            f"median {statistics.median(seconds):.1f} s, at most {max(seconds):.1f} s",
        ),
    ]


def _pairs(comparisons: Sequence[Comparison]) -> Iterator[float]:
    return (log_ratio for each in comparisons for unit in each.units for log_ratio in unit.log_ratios)


def _sequences(pairs: Sequence[float], options: Options) -> list[Result]:
    """Return how often streams of these pairs are called different, and how many find that they are 5 % slower."""
    chance = random.Random(_SEED)
    streams = options.draws(STREAMS)
    wrong = [_stopped(chance, pairs, 0.0, 0.0) <= MOST_PAIRS for _ in range(streams)]
    stops = [_stopped(chance, pairs, math.log(1.05), 0.03) for _ in range(streams)]
    sigma, deviation = ConfidenceSequence.of(pairs, first=max(len(pairs), 2)).sigma, statistics.pstdev(pairs)
    noise = f"sigma of the {len(pairs):,} pairs {sigma:.1%} (robust), {deviation:.1%} (standard deviation)"
    return [
        Result(
            f"sequence: streams of equal functions called different at any of {MOST_PAIRS} looks",
            sum(wrong),
            streams,
            0.05,
            detail=noise,
        ),
        Result(
            f"sequence: +5 % found within {WITHIN} pairs (half of the streams: the median)",
            sum(stop <= WITHIN for stop in stops),
            streams,
            0.5,
            "at least",
            f"median {statistics.median(stops):.0f} pairs",
        ),
    ]


def _stopped(chance: random.Random, pairs: Sequence[float], shift: float, min_effect: float) -> int:
    """Return after how many pairs a stream was called slower or faster; one more than the most if it never was."""
    sequence = ConfidenceSequence()
    for number in range(1, MOST_PAIRS + 1):
        sequence.add(chance.choice(pairs) + shift)
        if sequence.verdict(min_effect) in (("slower",) if shift else ("slower", "faster")):
            return number
    return MOST_PAIRS + 1
