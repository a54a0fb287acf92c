"""Figure 2: how long a span makes its caller wait when eight threads record at full blast, and memory.

Below the bound: bursts that fit into the queue, which the processors empty in between. Beyond it: 400,000
spans as fast as eight threads can, where ours makes callers wait for room; how long is reported. Memory
is the peak of the whole process during that, sealing included, less the peak of the same program with
the SDK and no processor.
"""

from __future__ import annotations

import threading
import time
from array import array
from typing import Any, Final

from benchmarks.generate import Emitter
from benchmarks.measure import Figure, Options, in_process, interleaved, median, peak_rss_bytes, percentile, scratch
from benchmarks.recorders import Kind, dropped, provider, wait_until_sealed

THREADS: Final = 8
BLAST_SPANS: Final = 400_000
_BURST: Final = 2_000
_ROUNDS: Final = 12
_SEGMENT_SPANS: Final = 122_880


def figures(options: Options) -> list[Figure]:
    """Measure figure 2."""
    return [_latency(options), *_full_blast(options)]


def _latency(options: Options) -> Figure:
    kinds: tuple[Kind, ...] = ("none", "stock", "ours")

    def run(kind: Kind) -> dict[str, float]:
        with scratch() as path:
            found: dict[str, float] = in_process(latency, kind=kind, base_path=str(path), rounds=options.size(_ROUNDS))
            return found

    runs = interleaved(run, kinds, options.repeats(7))
    p999 = {kind: median([one["p999_ns"] for one in runs[kind]]) / 1e6 for kind in kinds}
    p50 = {kind: median([one["p50_ns"] for one in runs[kind]]) / 1e3 for kind in kinds}
    longest = {kind: max(one["max_ns"] for one in runs[kind]) / 1e6 for kind in kinds}
    return Figure(
        "2",
        "caller latency p99.9, 8 threads below the bound: ours / stock processor with a dropping exporter",
        median([o["p999_ns"] / s["p999_ns"] for o, s in zip(runs["ours"], runs["stock"], strict=True)]),
        1.5,
        "x",
        detail="; ".join(
            f"{kind} p50 {p50[kind]:.0f} us, p99.9 {p999[kind]:.1f} ms, longest {longest[kind]:.0f} ms"
            for kind in kinds
        ),
    )


def latency(kind: Kind, base_path: str, rounds: int) -> dict[str, float]:
    """Return percentiles of the latency of a span, in nanoseconds."""
    made = provider(kind, base_path)
    emitters = [Emitter(made, seed) for seed in range(THREADS)]
    found: array[int] = array("q")
    for number in range(rounds + 1):
        bursts = in_threads(emitters, _BURST)
        if number:  # the first one warms up
            for burst in bursts:
                found.extend(burst)
        made.force_flush()
    made.shutdown()
    return {
        "p50_ns": percentile(found, 0.5),
        "p999_ns": percentile(found, 0.999),
        "max_ns": max(found),
    }


def in_threads(emitters: list[Emitter], count: int) -> list[array[int]]:
    """Have every emitter make `count` spans in a thread of its own; return their latencies."""
    together = threading.Barrier(len(emitters))
    found: list[array[int]] = [array("q") for _ in emitters]

    def work(number: int) -> None:
        together.wait()
        found[number] = emitters[number].latencies_ns(count)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(emitters))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def _full_blast(options: Options) -> list[Figure]:
    kinds: tuple[Kind, ...] = ("none", "ours")

    def run(kind: Kind) -> dict[str, Any]:
        with scratch() as path:
            found: dict[str, Any] = in_process(full_blast, kind=kind, base_path=str(path))
            return found

    runs = interleaved(run, kinds, options.repeats(5))
    ours = runs["ours"]
    seconds = {kind: median([one["seconds"] for one in runs[kind]]) for kind in kinds}
    blocked = median([one["blocked_seconds"] for one in ours])
    peaks = {kind: median([one["peak_bytes"] for one in runs[kind]]) / 1e6 for kind in kinds}
    spans = sum(one["dropped"] for one in ours)
    return [
        Figure(
            "2",
            "full blast, 8 threads x 50,000 spans: share of the callers' time blocked at the queue's bound",
            median([100 * one["blocked_seconds"] / (THREADS * one["seconds"]) for one in ours]),
            None,
            "%",
            detail=f"{blocked:.1f} s of {THREADS} x {seconds['ours']:.1f} s (SDK alone {seconds['none']:.1f} s); "
            f"longest single wait {max(one['longest_ms'] for one in ours):.0f} ms; {spans} spans dropped",
        ),
        Figure(
            "2",
            "full blast: peak memory with ours, sealing included, less that of the program with the SDK alone",
            peaks["ours"] - peaks["none"],
            150,
            "MB",
            detail=f"SDK alone {peaks['none']:.0f} MB, ours {peaks['ours']:.0f} MB",
        ),
    ]


def full_blast(kind: Kind, base_path: str) -> dict[str, float]:
    """Record 400,000 spans in eight threads; return times, the peak of memory, and what was dropped."""
    made = provider(kind, base_path)
    emitters = [Emitter(made, seed) for seed in range(THREADS)]
    waits = _time_waits() if kind == "ours" else []
    began = time.perf_counter()
    bursts = in_threads(emitters, BLAST_SPANS // THREADS)
    seconds = time.perf_counter() - began
    longest = max(map(max, bursts))
    del bursts
    made.force_flush()
    if kind == "ours":
        wait_until_sealed(base_path, at_most_waiting=_SEGMENT_SPANS)
    made.shutdown()
    return {
        "seconds": seconds,
        "blocked_seconds": sum(waits),
        "longest_ms": longest / 1e6,
        "peak_bytes": peak_rss_bytes(),
        "dropped": dropped(base_path) if kind == "ours" else 0,
    }


def _time_waits() -> list[float]:
    """Have the waits of callers for room in the queue timed; return the list that their seconds go to."""
    from otel_debugstore.span_queue import _Gate

    waits: list[float] = []
    wait = _Gate.wait

    def timed(gate: _Gate) -> bool:
        began = time.perf_counter()
        had_room = wait(gate)
        waits.append(time.perf_counter() - began)
        return had_room

    _Gate.wait = timed  # type: ignore[assignment,method-assign]
    return waits
