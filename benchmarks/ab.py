"""What an A/B experiment adds to a recorded call: drawing an arm, timing it, and taking the call down.

CPU time of the calling thread for a call of two small arguments, in bursts, which take turns in random order within one
process; between bursts everything is flushed, so evidence is exchanged with the store. Against `@tool` with capture.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from benchmarks.measure import Figure, Options, in_process, interleaved, median, scratch
from benchmarks.recorders import provider

_BURST: Final = 1_000
_ROUNDS: Final = 30
_ADDED: Final = (
    ("drawn", "`ab` of two arms by chance, with guard rails"),
    ("keyed", "`ab` of two arms by a key, 1,000 different ones"),
)


def figures(options: Options) -> list[Figure]:
    """Measure what experiments cost their callers."""
    runs = []
    for _ in range(options.repeats(4)):
        with scratch() as path:
            found: dict[str, list[float]] = in_process(bursts, base_path=str(path), rounds=options.size(_ROUNDS))
            tool = found["tool"]
            differences = {
                kind: median([one - other for one, other in zip(found[kind], tool, strict=True)]) / 1000
                for kind, _ in _ADDED
            }
            runs.append({"tool": median(tool) / 1000, **differences})
    tool_us = median([run["tool"] for run in runs])
    return [
        Figure(
            "A/B",
            f"caller CPU that {what} adds to a call of a `@tool`",
            median([run[kind] for run in runs]),
            5.0,
            "us",
            detail=f"{min(run[kind] for run in runs):.1f} to {max(run[kind] for run in runs):.1f}; "
            f"the `@tool` itself {tool_us:.1f} us",
        )
        for kind, what in _ADDED
    ]


def bursts(base_path: str, rounds: int) -> dict[str, list[float]]:
    """Return by kind the nanoseconds of caller CPU a call, a burst each."""
    from otel_debugstore import GuardRails, ab, tool

    ours = provider("ours", base_path)

    def add(left: int, right: str) -> str:
        return right

    def another(left: int, right: str) -> str:
        return right

    arms = {"v1": add, "v2": another}
    rails = GuardRails(max_p95_ms=1000, max_error_rate=0.1, max_ratio=10)
    calls: dict[str, Callable[[int, str], str]] = {
        "tool": tool(name="tool")(add),
        "drawn": ab("drawn", arms, guard_rails=rails),
        "keyed": ab("keyed", arms, key="left"),
    }

    def burst(kind: str) -> float:
        call = calls[kind]
        began = time.thread_time_ns()
        for number in range(_BURST):
            call(number, "text")
        spent = time.thread_time_ns() - began
        ours.force_flush()
        return spent / _BURST

    for kind in calls:
        burst(kind)
    return interleaved(burst, tuple(calls), rounds)
