"""What recording a call costs: against a bare span, as a share of short operations, and in a loop of very many.

R1: CPU time of the calling thread for a call of a function of two small arguments, in bursts; between bursts
everything is flushed. The ways take turns within one process. All measures are on.
R2: pairs of one bare and one recorded operation, in turn; the median of their differences, as a share.
R3: a loop of a million calls, bare and recorded, each in a process of its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.measure import Figure, Options, in_process, interleaved, median, scratch
from benchmarks.recorders import SESSION, provider

_BURST: Final = 1_000
_ROUNDS: Final = 40
_TARGETS: Final = (
    ("tool", "`@tool`, two small arguments, everything captured and measured", 2.0),
    ("tool_plain", "`@tool` without capture", 1.6),
    ("function_plain", "`@function` without capture", 1.3),
)
_OPERATIONS: Final = ((10.0, 0.5, 400), (3.0, 1.5, 800), (1.0, 4.0, 1500))
_LOOP: Final = 1_000_000


def figures(options: Options) -> list[Figure]:
    """Measure what recorded calls cost."""
    return [*_against_a_span(options), *_shares(options), *_loop(options)]


def _against_a_span(options: Options) -> list[Figure]:
    runs = []
    for _ in range(options.repeats(5)):
        with scratch() as path:
            found: dict[str, list[float]] = in_process(
                bursts,
                variables={"OTEL_DEBUGSTORE_OVERHEAD_BUDGET": "off"},
                base_path=str(path),
                rounds=options.size(_ROUNDS),
            )
            runs.append({kind: median(values) / 1000 for kind, values in found.items()})
    bare = median([run["bare"] for run in runs])
    return [
        Figure(
            "R1",
            f"caller CPU of a call: {what} / a bare span with a dropping exporter",
            median([run[kind] / run["bare"] for run in runs]),
            target,
            "x",
            detail=f"bare {bare:.1f} us, recorded {median([run[kind] for run in runs]):.1f} us",
        )
        for kind, what, target in _TARGETS
    ]


def bursts(base_path: str, rounds: int) -> dict[str, list[float]]:
    """Return by kind the nanoseconds of caller CPU a call, a burst each."""
    from otel_debugstore import function, tool

    ours = provider("ours", base_path)
    stock = provider("stock")
    tracer = stock.get_tracer("bench")

    def add(left: int, right: str) -> str:
        return right

    def bare(left: int, right: str) -> str:
        with tracer.start_as_current_span("bare"):
            return add(left, right)

    calls: dict[str, Callable[[int, str], str]] = {
        "bare": bare,
        "tool": tool(name="tool")(add),
        "tool_plain": tool(name="tool_plain", capture_args=False, capture_result=False)(add),
        "function_plain": function(name="function_plain", capture_args=False, capture_result=False)(add),
    }

    def burst(kind: str) -> float:
        call = calls[kind]
        began = time.thread_time_ns()
        for number in range(_BURST):
            call(number, "text")
        spent = time.thread_time_ns() - began
        (stock if kind == "bare" else ours).force_flush()
        return spent / _BURST

    for kind in calls:
        burst(kind)
    return interleaved(burst, tuple(calls), rounds)


def _shares(options: Options) -> list[Figure]:
    measured = []
    for millis, target, pairs in _OPERATIONS:
        with scratch() as path:
            found: dict[str, float] = in_process(share, base_path=str(path), millis=millis, pairs=options.size(pairs))
        measured.append(
            Figure(
                "R2",
                f"what `@tool` with capture adds to an operation of {millis:g} ms",
                100 * found["added_ns"] / found["bare_ns"],
                target,
                "%",
                detail=f"{found['added_ns'] / 1000:.1f} us on {found['bare_ns'] / 1e6:.2f} ms",
            )
        )
    return measured


def share(base_path: str, millis: float, pairs: int) -> dict[str, float]:
    """Return the median time of an operation, and what recording it added, in nanoseconds."""
    from otel_debugstore import tool

    provider("ours", base_path)
    count = _calibrated(millis)

    def operation(loops: int, text: str) -> int:
        found = 0
        for number in range(loops):
            found += number % 7
        return found

    recorded = tool(name="operation")(operation)
    bare_ns, added_ns = [], []

    def timed(call: Callable[[int, str], int]) -> int:
        began = time.perf_counter_ns()
        call(count, "text")
        return time.perf_counter_ns() - began

    for number in range(pairs):
        if number % 2:
            first, second = timed(operation), timed(recorded)
        else:
            second, first = timed(recorded), timed(operation)
        bare_ns.append(first)
        added_ns.append(second - first)
    return {"bare_ns": median(bare_ns), "added_ns": median(added_ns)}


def _calibrated(millis: float) -> int:
    """Return how many rounds of the operation take so long."""

    def spend(loops: int) -> float:
        began, found = time.perf_counter(), 0
        for number in range(loops):
            found += number % 7
        return time.perf_counter() - began

    return int(100_000 * millis / 1000 / median([spend(100_000) for _ in range(9)]))


def _loop(options: Options) -> list[Figure]:
    ratios, details = [], []
    count = options.size(_LOOP)
    for _ in range(options.repeats(5)):
        with scratch() as path:
            found: dict[str, float] = in_process(loop, base_path=str(path), count=count)
        ratios.append(found["recorded_s"] / found["bare_s"])
        details.append(found)
    exact = sum(one["counted"] == count for one in details)
    last = details[-1]
    return [
        Figure(
            "R3",
            f"a loop of {count:,} calls of a `@function` of 2 us: recorded / bare",
            median(ratios),
            2.0,
            "x",
            detail=f"{min(ratios):.2f} to {max(ratios):.2f}; bare {1e6 * last['bare_s'] / count:.2f} us a call; "
            f"{last['spans']:.0f} spans",
        ),
        Figure(
            "R3",
            f"runs of {len(details)} in which spans and counted calls make {count:,}",
            exact,
            len(details),
            "runs",
            "exactly",
        ),
    ]


def loop(base_path: str, count: int) -> dict[str, float]:
    """Return the seconds of a loop bare and recorded, and how many calls were counted in the store."""
    from otel_debugstore import function
    from otel_debugstore_exporters.reader import SessionReader

    made = provider("ours", base_path)

    def two_microseconds(value: int) -> int:
        found = 0
        for number in _DIGITS:
            found += number * value
        return found

    recorded = function(name="small")(two_microseconds)

    def timed(call: Callable[[int], int]) -> float:
        began = time.perf_counter()
        for number in range(count):
            call(number)
        return time.perf_counter() - began

    bare_s = min(timed(two_microseconds) for _ in range(2))
    recorded_s = timed(recorded)
    made.force_flush()
    made.shutdown()
    with SessionReader(Path(base_path), [SESSION]) as reader:
        ((spans,),) = reader.query("SELECT count(*) FROM spans WHERE component = 'small'").rows
        ((counted,),) = reader.query("SELECT coalesce(sum(call_count), 0) FROM counters WHERE component = 'small'").rows
    return {"bare_s": bare_s, "recorded_s": recorded_s, "spans": spans, "counted": int(spans + counted)}


_DIGITS: Final[Any] = tuple(range(40))
