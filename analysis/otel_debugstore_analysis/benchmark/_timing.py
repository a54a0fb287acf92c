"""The timed region: a clock, a loop, and the function. Runs in the processes that measure: standard library only.

The loop is that of pyperf's `bench_func`: `for _ in range(loops): call()`, where `call` is the function itself, or a
`functools.partial` that holds its arguments; a single call stands between two readings of the clock. So a function
reads here what it reads there.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any, Final

try:
    import resource
except ImportError:  # not Unix
    resource = None  # type: ignore[assignment]

HALF_NS: Final = 1_000_000
"""How long a half of a pair takes at least: long against the clock, short against the scheduler's slices."""
MAX_COPIES: Final = 256
_TRIES: Final = 3
MAX_LOOPS: Final = 1 << 24

Call = Callable[[], Any]


def preemptions() -> int:
    """Return how often the scheduler has taken the processor from this thread; 0 where that is not known."""
    if resource is None or not hasattr(resource, "RUSAGE_THREAD"):  # not Linux
        return 0
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nivcsw


def bound(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> Call:
    """Return what the loop calls."""
    return functools.partial(function, *args, **kwargs) if args or kwargs else function


def never_raising(call: Call) -> Call:
    """Return a call that ends in the same way whether an exception leaves it or not."""

    def run() -> None:
        try:
            call()
        except BaseException:  # noqa: BLE001  # the outcome was compared before
            return

    return run


def time_ns(call: Call, loops: int) -> int:
    """Return how long so many calls take, one after the other."""
    if loops == 1:
        began = perf_counter_ns()
        call()
        return perf_counter_ns() - began
    rounds = range(loops)
    began = perf_counter_ns()
    for _ in rounds:
        call()
    return perf_counter_ns() - began


def time_each_ns(calls: Sequence[Call]) -> int:
    """Return how long these calls take: of a function that changes its input, each has one of its own."""
    began = perf_counter_ns()
    for call in calls:
        call()
    return perf_counter_ns() - began


def calibrated(time: Callable[[int], int], most: int = MAX_LOOPS) -> int:
    """Return how many loops take `HALF_NS`, or one.

    Args:
        time: Returns how long a number of loops takes.
        most: So many at most.
    """
    loops = 1
    while True:
        taken = time(loops)
        for _ in range(_TRIES - 1 if taken < _TRIES * HALF_NS else 0):  # it may have been interrupted
            taken = min(taken, time(loops))
        if taken >= HALF_NS * 0.9 or loops >= most:
            return loops
        loops = min(max(loops * 2, math.ceil(loops * HALF_NS / max(taken, 1)) if taken > 1_000 else loops * 10), most)
