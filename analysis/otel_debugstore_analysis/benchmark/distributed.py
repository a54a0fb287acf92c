"""`compare_on_hosts`: the same comparison on several hosts by dask.distributed, combined with the host as a block.

Each host measures by itself, as `compare_functions` does: both halves of a pair are timed beside each other, in one
process on one host. What is combined is the ratios, never times of different hosts:

- `ratio` is the mean over hosts, on the log scale, of the medians over their processes: every host counts the same;
- the interval is the bootstrap's, in which processes are drawn within their hosts (stratified);
- the test is Wilcoxon's signed-rank test with the ranks taken within hosts, and their sums added up; its distribution
  is the convolution of those of the hosts;
- where it is faster on one host and slower on another, by what each of them shows alone, it is undecided.

So what differs between hosts (how fast they are, how noisy) is no part of the error. What holds of these hosts need not
hold of others, as long as they are few.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import statistics
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.analyses.statistics import DRAWS, SEED
from otel_debugstore_analysis.benchmark._decision import (
    Decision,
    decided,
    is_significant,
    signed_rank_of_blocks,
    verdict_of,
)
from otel_debugstore_analysis.benchmark._starting import Function, function_ref
from otel_debugstore_analysis.benchmark.method import compare_functions
from otel_debugstore_analysis.benchmark.model import BenchmarkOptions, Case, Check
from otel_debugstore_analysis.benchmark.results import Comparison, Memory

if TYPE_CHECKING:
    from distributed import Client

_FIRST_WORKER_S: Final = 10.0
"""A client that has just connected may not know the workers that there are, and a scheduler may have lost sight of them
for a moment."""
_INSTALL: Final = "Spreading over hosts needs dask: pip install 'otel-debugstore[distributed]'."


def compare_on_hosts(
    client: Client,
    baseline: Function,
    candidate: Function,
    inputs: Sequence[Case],
    *,
    options: BenchmarkOptions | None = None,
    check: Check | None = None,
    blocks: Literal["host", "worker"] = "host",
) -> Comparison:
    """Return how a candidate does against a baseline on the hosts of a cluster.

    Args:
        client: Of the cluster; otel-debugstore and the functions have to be there on its hosts.
        baseline, candidate: As `compare_functions` has them.
        inputs: What they are called with.
        options: How each host measures.
        check: When an output is right.
        blocks: "host": one worker of each host measures, as several would disturb each other. "worker": all do.

    Raises:
        ConfigurationError: The cluster has no workers, dask is not installed, or the options can't be used.
    """
    options = dataclasses.replace(options or BenchmarkOptions(), stop_early=False, exact=False)
    began = time.monotonic()
    places = _places(client, blocks)
    references = function_ref(baseline), function_ref(candidate)
    futures = {
        name: client.submit(
            compare_functions,
            *references,
            list(inputs),
            options=dataclasses.replace(options, seed=options.seed * 1_009 + number),
            check=check,
            workers=[address],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )
        for number, (name, address) in enumerate(places.items())
    }
    found, notes = _gathered(futures)
    if not found:
        return Comparison("failed", f"No host could measure: {notes[0]}", notes=tuple(notes))
    return combined(found, options, notes, time.monotonic() - began)


def combined(
    found: dict[str, Comparison], options: BenchmarkOptions, notes: Sequence[str] = (), seconds: float = 0.0
) -> Comparison:
    """Return the comparisons of hosts as one.

    Args:
        found: By the name of the host.
        options: How they measured.
        notes: What else is to be said.
        seconds: What it took.
    """
    for name, each in found.items():
        if not each.is_ranked:
            return dataclasses.replace(each, cause=f"On {name}: {each.cause}", seconds=seconds)
    several = list(found.values())
    decision = decided_in_blocks([_log_ratios(each) for each in several], options)
    opposed = _opposed(found, options)
    if opposed:
        decision = decision._replace(verdict="undecided")
    units = tuple(dataclasses.replace(unit, host=name) for name, each in found.items() for unit in each.units)
    return dataclasses.replace(
        several[0],
        verdict=decision.verdict,
        cause=opposed or _cause(decision, options, len(found), len(units)),
        ratio=decision.ratio,
        low=decision.low,
        high=decision.high,
        baseline_ns=statistics.median(unit.baseline_ns for unit in units),
        candidate_ns=statistics.median(unit.candidate_ns for unit in units),
        processes=len(units),
        pairs=sum(each.pairs for each in several),
        checked=sum(each.checked for each in several),
        per_class=tuple(
            dataclasses.replace(row, label=f"{row.label} on {name}")
            for name, each in found.items()
            for row in each.per_class
        ),
        memory=_most([each.memory for each in several if each.memory is not None]),
        units=units,
        notes=(*notes, *dict.fromkeys(f"{name}: {note}" for name, each in found.items() for note in each.notes)),
        seconds=seconds,
    )


def decided_in_blocks(blocks: Sequence[Sequence[float]], options: BenchmarkOptions) -> Decision:
    """Return what log-ratios of processes say that are grouped by hosts."""
    chance = np.random.Generator(np.random.PCG64([SEED, options.seed]))
    values = [np.asarray(block, np.float64) for block in blocks if len(block)]
    middle = float(np.mean([np.median(block) for block in values]))
    drawn = np.mean(
        [np.median(block[chance.integers(0, len(block), (DRAWS, len(block)))], axis=1) for block in values], axis=0
    )
    tail = (1 - options.confidence) / 2
    low, high = (float(value) for value in np.quantile(drawn, (tail, 1 - tail)))
    p_value = signed_rank_of_blocks([block.tolist() for block in values])
    is_certain = is_significant(p_value, options.confidence)
    verdict = verdict_of(middle, low, high, is_certain, options.min_effect)
    return Decision(verdict, math.exp(middle), math.exp(low), math.exp(high), p_value)


def _places(client: Client, blocks: str) -> dict[str, str]:
    """Return the addresses of the workers that measure, by the names of their blocks."""
    try:
        workers = _workers(client)
        if not workers:
            with contextlib.suppress(TimeoutError):
                client.wait_for_workers(1, timeout=_FIRST_WORKER_S)
            workers = _workers(client)
    except AttributeError as error:
        raise ConfigurationError(f"{client!r} is no client of a cluster. {_INSTALL}") from error
    if not workers:
        raise ConfigurationError("The cluster has no workers; start some, and wait for them (client.wait_for_workers).")
    places: dict[str, str] = {}
    for address, worker in sorted(workers.items()):
        places.setdefault(str(worker["host"]) if blocks == "host" else address, address)
    return places


def _workers(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.scheduler_info(n_workers=-1)["workers"]
    return found


def _gathered(futures: dict[str, Any]) -> tuple[dict[str, Comparison], list[str]]:
    """Return what hosts found, and what is to be said of those that did not."""
    found, notes = {}, []
    for name, future in futures.items():
        try:
            found[name] = future.result()
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001  # the host, or its worker, was lost
            notes.append(f"{name} is left out: {type(error).__name__}: {' '.join(str(error).split())[:200]}")
    return found, notes


def _log_ratios(found: Comparison) -> list[float]:
    return [math.log(unit.candidate_ns / unit.baseline_ns) for unit in found.units]


def _most(found: Sequence[Memory]) -> Memory | None:
    return Memory(*(max(values) for values in zip(*map(dataclasses.astuple, found), strict=True))) if found else None


def _opposed(found: dict[str, Comparison], options: BenchmarkOptions) -> str:
    """Return how hosts contradict each other, nothing if they do not."""
    alone = {
        name: decided(_log_ratios(each), options.min_effect, options.confidence).verdict for name, each in found.items()
    }
    faster, slower = ([name for name, verdict in alone.items() if verdict == side] for side in ("faster", "slower"))
    return f"It is faster on {', '.join(faster)}, and slower on {', '.join(slower)}." if faster and slower else ""


def _cause(decision: Decision, options: BenchmarkOptions, hosts: int, units: int) -> str:
    interval = f"{options.confidence:.0%} interval {decision.low:.3f} to {decision.high:.3f}"
    interval += f", {units} processes on {hosts} hosts"
    if decision.verdict in ("faster", "slower"):
        return f"The candidate takes {decision.ratio:.3f} times as long ({interval})."
    if decision.verdict == "equal":
        return f"The difference is within {options.min_effect:.1%} ({interval})."
    return f"Ratio {decision.ratio:.3f}: undecided ({interval}); take more processes, or more hosts."
