"""Figure 1: what recording costs the program, in CPU time a span.

Caller: the CPU time of the thread that ends spans, in bursts of spans with ten attributes; between bursts
the processors empty their queues. The three ways take turns within one process, burst by burst, so that
the state of the machine and of the heap is the same for all.
Process: all CPU time of a process, from the first span until everything is delivered and the provider
is shut down: for ours that is the journal and the sealing into DuckDB, for OTLP the sending.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Sequence
from typing import Any, Final

from benchmarks.generate import Emitter
from benchmarks.measure import Figure, Options, in_process, interleaved, median, scratch
from benchmarks.recorders import Kind, dropped, otlp_sink, provider, wait_until_sealed

_BURST: Final = 2_000
_ROUNDS: Final = 50
_PROCESS_SPANS: Final = 150_000
_CALLERS: Final[tuple[Kind, ...]] = ("none", "stock", "ours")


def figures(options: Options) -> list[Figure]:
    """Measure figure 1."""
    return [_caller(options), _process(options)]


def _caller(options: Options) -> Figure:
    ratios, added = [], []
    for _ in range(options.repeats(7)):
        with scratch() as path:
            found = in_process(caller_bursts, base_path=str(path), rounds=options.size(_ROUNDS))
        none = median(found["none"])
        stock, ours = (_median_difference(found[kind], found["none"]) for kind in ("stock", "ours"))
        ratios.append(ours / stock)
        added.append((none, stock, ours))
    none, stock, ours = (median(column) / 1000 for column in zip(*added, strict=True))
    return Figure(
        "1",
        "caller CPU a span: what ours adds to the SDK / what the stock processor with a dropping exporter adds",
        median(ratios),
        1.25,
        "x",
        detail=f"SDK alone {none:.1f} us, stock adds {stock:.2f} us, ours {ours:.2f} us; "
        f"ratios {min(ratios):.2f} to {max(ratios):.2f}",
    )


def _median_difference(values: Sequence[float], base: Sequence[float]) -> float:
    return median([value - other for value, other in zip(values, base, strict=True)])


def caller_bursts(base_path: str, rounds: int) -> dict[Kind, list[float]]:
    """Return by kind the nanoseconds of caller CPU a span, a burst each."""
    providers = {kind: provider(kind, base_path) for kind in _CALLERS}
    emitters = {kind: Emitter(made) for kind, made in providers.items()}

    def burst(kind: Kind) -> float:
        began = time.thread_time_ns()
        emitters[kind].emit(_BURST)
        spent = time.thread_time_ns() - began
        providers[kind].force_flush()
        return spent / _BURST

    for kind in _CALLERS:
        burst(kind)
    return interleaved(burst, _CALLERS, rounds)


def _process(options: Options) -> Figure:
    kinds: tuple[Kind, ...] = ("none", "otlp", "ours")

    def run(kind: Kind) -> dict[str, Any]:
        with scratch() as path:
            found: dict[str, Any] = in_process(
                process_load, kind=kind, count=_PROCESS_SPANS, base_path=str(path), endpoint=endpoint
            )
            return found

    with otlp_sink() as endpoint:
        runs = interleaved(run, kinds, options.repeats(5))
    none, otlp, ours = (median([one["cpu_ns"] / _PROCESS_SPANS / 1000 for one in runs[kind]]) for kind in kinds)
    lost = sum(one["dropped"] for one in runs["ours"])
    return Figure(
        "1",
        "process CPU a span: ours with sealing / stock processor with OTLP over HTTP (both less the SDK alone)",
        (ours - none) / (otlp - none),
        0.5,
        "x",
        detail=f"SDK alone {none:.1f} us, ours adds {ours - none:.1f} us, OTLP {otlp - none:.1f} us; "
        f"{lost} spans dropped by ours",
    )


def process_load(kind: Kind, count: int, base_path: str, endpoint: str) -> dict[str, int]:
    """Record `count` spans, wait until they are where they belong, shut down; return the CPU time."""
    made = provider(kind, base_path, endpoint)
    emitter = Emitter(made)
    began = _cpu_ns()
    emitter.emit(count)
    made.force_flush()
    if kind == "ours":
        wait_until_sealed(base_path, at_most_waiting=count % 122_880)
    made.shutdown()
    spent = _cpu_ns() - began
    return {"cpu_ns": spent, "dropped": dropped(base_path) if kind == "ours" else 0}


def _cpu_ns() -> int:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return int((used.ru_utime + used.ru_stime) * 1e9)
