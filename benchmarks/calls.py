"""What recording a call costs: against a bare span, as a share of short operations, and in a loop of very many.

R1: CPU time of the calling thread for a call of a function of two small arguments, in bursts; between bursts
everything is flushed. Of most calls the threads that write do the larger part: so also the CPU time of the process,
with the flush, where the bare span's exporter drops what it gets. The ways take turns within one process. All measures
are on: of one tool memory and I/O are read at every call, as of one whose calls move something; of the others as
`measures.thrift` has it for what moves nothing: of every 32nd call, after the first 256.
R2: an operation of Python that computes, bare, recorded, in a bare span, and in a wrapper of wrapt that does nothing,
in turn: the median of the time that a call takes beside its operation, which says by the clock when it begins and ends
(a whole operation differs from itself by more than is to be measured). Besides, what our threads take in CPU time in a
program that does nothing but such recorded operations, for some seconds, as if all of it had kept the program from
running. Both together as a share of the operation. What is timed is the second of two operations of a kind: as in a
program that does nothing else, one lies between two recordings. After 300 calls to warm up; so the calls whose memory
and I/O are read are too few to be seen in that median. How long an operation is follows the machine's pace:
so nearly every call has other arguments and another result than all before.
R3: a loop of a million calls of a function that is made to take 2 us bare: bare, recorded, bare, in one process. And,
without a target, an item of a generator that does nothing, where its call is sampled and where not.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import wrapt

from benchmarks.measure import Figure, Options, in_process, interleaved, median, scratch
from benchmarks.recorders import SESSION, provider

_BURST: Final = 1_000
_ROUNDS: Final = 40
_TARGETS: Final = (
    ("tool_every", "`@tool`, two small arguments, all captured, memory and I/O of every call", 2.0),
    ("tool", "`@tool`, two small arguments, all captured, memory and I/O of every 32nd call", 2.0),
    ("tool_plain", "`@tool` without capture", 1.6),
    ("function_plain", "`@function` without capture", 1.3),
)
_OPERATIONS: Final = ((10.0, 0.5, 100), (3.0, 1.5, 250), (1.0, 4.0, 600))
_SECONDS: Final = 4.0  # of nothing but recorded operations: so many commits, whose cost they share
_WARM_UP: Final = 300  # what moves nothing is measured now and then only, after that many calls
_LOOP: Final = 1_000_000
_CALL_SECONDS: Final = 2e-6
_STEPS: Final = tuple(range(64))
_CALIBRATION: Final = 20_000
_PACE: Final = 0.25  # how far the number of an operation's rounds follows the machine's pace, each time
_PACING: Final = 60
_ITEMS: Final = 100_000


def figures(options: Options) -> list[Figure]:
    """Measure what recorded calls cost."""
    return [*_against_a_span(options), *_shares(options), *_loop(options), *_items(options)]


def _against_a_span(options: Options) -> list[Figure]:
    runs, whole = [], []
    for _ in range(options.repeats(5)):
        with scratch() as path:
            found: dict[str, list[list[float]]] = in_process(
                bursts,
                variables={"OTEL_DEBUGSTORE_OVERHEAD_BUDGET": "off"},
                base_path=str(path),
                rounds=options.size(_ROUNDS),
            )
            runs.append({kind: median([caller for caller, _ in values]) / 1000 for kind, values in found.items()})
            whole.append({kind: median([process for _, process in values]) / 1000 for kind, values in found.items()})
    bare = median([run["bare"] for run in runs])
    return [
        Figure(
            "R1",
            "CPU of the process for a call: `@tool`, all captured, written / a bare span, dropped",
            median([run["tool"] / run["bare"] for run in whole]),
            None,
            "x",
            detail=f"bare {median([run['bare'] for run in whole]):.1f} us, "
            f"recorded {median([run['tool'] for run in whole]):.1f} us",
        ),
        *(
            Figure(
                "R1",
                f"caller CPU of a call: {what} / a bare span with a dropping exporter",
                median([run[kind] / run["bare"] for run in runs]),
                target,
                "x",
                detail=f"bare {bare:.1f} us, recorded {median([run[kind] for run in runs]):.1f} us",
            )
            for kind, what, target in _TARGETS
        ),
    ]


def bursts(base_path: str, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Return by kind the nanoseconds of CPU a call, a burst each: the caller's, and the whole process's."""
    from otel_debugstore import function, tool
    from otel_debugstore.measures.thrift import Thrift

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
        "tool_every": tool(name="tool_every")(add),
        "tool": tool(name="tool")(add),
        "tool_plain": tool(name="tool_plain", capture_args=False, capture_result=False)(add),
        "function_plain": function(name="function_plain", capture_args=False, capture_result=False)(add),
    }

    saw = Thrift.saw

    def never_enough(thrift: Thrift, duration_ns: int, has_moved: bool) -> None:
        saw(thrift, duration_ns, True)

    def burst(kind: str) -> tuple[float, float]:
        call = calls[kind]
        setattr(Thrift, "saw", never_enough if kind == "tool_every" else saw)  # noqa: B010  # mypy allows no other way
        process_began, began = time.process_time_ns(), time.thread_time_ns()
        for number in range(_BURST):
            call(number, "text")
        spent = time.thread_time_ns() - began
        (stock if kind == "bare" else ours).force_flush()
        return spent / _BURST, (time.process_time_ns() - process_began) / _BURST

    for kind in calls:
        burst(kind)
    return interleaved(burst, tuple(calls), rounds)


def _shares(options: Options) -> list[Figure]:
    return [figure for operation in _OPERATIONS for figure in _share_of(*operation, options)]


def _share_of(millis: float, target: float, rounds: int, options: Options) -> Iterator[Figure]:
    runs: list[dict[str, float]] = []
    for _ in range(options.repeats(3)):
        with scratch() as path:
            many, seconds = options.size(rounds), _SECONDS / (4 if options.quick else 1)
            runs.append(in_process(share, base_path=str(path), millis=millis, rounds=many, seconds=seconds))

    def shares(kind: str) -> list[float]:
        return [100 * run[kind] / run["operation"] for run in runs]

    tool = [caller + 100 * run["threads"] for caller, run in zip(shares("tool"), runs, strict=True)]
    yield Figure(
        "R2",
        f"what `@tool` with capture adds to an operation of {millis:g} ms, CPU of all our threads included",
        median(tool),
        target,
        "%",
        detail=f"{min(tool):.2f} to {max(tool):.2f}; caller {median([run['tool'] for run in runs]) / 1000:.1f} us, "
        f"threads {1000 * millis * median([run['threads'] for run in runs]):.1f} us, "
        f"on {median([run['operation'] for run in runs]) / 1e6:.2f} ms",
    )
    for kind, what in (("span", "a bare span with a dropping exporter"), ("wrapper", "a wrapper that does nothing")):
        found = shares(kind)
        yield Figure(
            "R2",
            f"what {what} adds to an operation of {millis:g} ms, threads left out",
            median(found),
            None,
            "%",
            detail=f"{min(found):.2f} to {max(found):.2f}; {median([run[kind] for run in runs]) / 1000:.1f} us",
        )


def share(base_path: str, millis: float, rounds: int, seconds: float) -> dict[str, float]:
    """Return how long an operation took, and what a tool, a bare span and a wrapper added to the caller's time, in
    nanoseconds; and `threads`, the CPU time that our threads took of each second."""
    from otel_debugstore import tool

    ours, stock = provider("ours", base_path), provider("stock")
    tracer = stock.get_tracer("bench")
    loops, operation_ns = 1_000, 0

    def operation(loops: int, text: str) -> int:
        nonlocal operation_ns
        began = time.perf_counter_ns()
        found = 0
        for number in range(loops):
            found += number % 7
        operation_ns = time.perf_counter_ns() - began
        return found

    def spanned(loops: int, text: str) -> int:
        with tracer.start_as_current_span("operation"):
            return operation(loops, text)

    calls: dict[str, Callable[[int, str], int]] = {
        "bare": operation,
        "span": spanned,
        "wrapper": wrapt.FunctionWrapper(operation, lambda wrapped, _instance, args, kwargs: wrapped(*args, **kwargs)),
        "tool": tool(name="operation")(operation),
    }
    took: list[int] = []

    def keep_pace(exponent: float) -> None:
        nonlocal loops
        loops = max(1, round(loops * (millis * 1e6 / operation_ns) ** exponent))

    def beside(kind: str) -> float:
        """Return what a call takes beside its operation, in nanoseconds."""
        calls[kind](loops, "text")
        began = time.perf_counter_ns()
        calls[kind](loops, "text")
        whole_ns = time.perf_counter_ns() - began
        took.append(operation_ns)
        if kind == "bare":
            keep_pace(_PACE)
        return whole_ns - operation_ns

    for call in calls.values():
        for _ in range(_WARM_UP):
            call(1, "text")
    ours.force_flush()
    for _ in range(_PACING):
        operation(loops, "text")
        keep_pace(1.0 if operation_ns < millis * 1e5 else _PACE)
    took.clear()
    times = interleaved(beside, tuple(calls), rounds)
    stock.shutdown()  # its thread is none of ours
    ours.force_flush()
    began, others_began = time.perf_counter(), time.process_time() - time.thread_time()
    while time.perf_counter() - began < seconds:
        calls["tool"](loops, "text")
        keep_pace(_PACE)
    ours.force_flush()
    threads = (time.process_time() - time.thread_time() - others_began) / (time.perf_counter() - began)
    bare = median(times["bare"])
    return {
        "operation": median(took),
        "threads": threads,
        **{kind: median(times[kind]) - bare for kind in ("tool", "span", "wrapper")},
    }


def _loop(options: Options) -> list[Figure]:
    ratios, details = [], []
    count = options.size(_LOOP)
    for _ in range(options.repeats(3)):
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
    digits = _STEPS

    def two_microseconds(value: int) -> int:
        found = 0
        for number in digits:
            found += number * value
        return found

    recorded = function(name="small")(two_microseconds)

    def timed(call: Callable[[int], int], calls: int) -> float:
        began = time.perf_counter()
        for number in range(calls):
            call(number)
        return time.perf_counter() - began

    took = median([timed(two_microseconds, _CALIBRATION) for _ in range(9)]) / _CALIBRATION
    digits = tuple(range(round(len(_STEPS) * _CALL_SECONDS / took)))
    bare_s = timed(two_microseconds, count)
    recorded_s = timed(recorded, count)
    bare_s = (bare_s + timed(two_microseconds, count)) / 2  # before and after: the machine's pace changes
    made.force_flush()
    made.shutdown()
    with SessionReader(Path(base_path), [SESSION]) as reader:
        ((spans,),) = reader.query("SELECT count(*) FROM spans WHERE component = 'small'").rows
        ((counted,),) = reader.query("SELECT coalesce(sum(call_count), 0) FROM counters WHERE component = 'small'").rows
    return {"bare_s": bare_s, "recorded_s": recorded_s, "spans": spans, "counted": int(spans + counted)}


def _items(options: Options) -> Iterator[Figure]:
    with scratch() as path:
        found: dict[str, list[float]] = in_process(items, base_path=str(path), count=options.size(_ITEMS))
    took = {kind: median(values) for kind, values in found.items()}
    for kind in ("not sampled", "over its budget", "tool"):
        yield Figure(
            "R3",
            f"an item of a generator, {kind}: recorded / bare",
            took[kind] / took["bare"],
            None,
            "x",
            detail=f"bare {took['bare']:.0f} ns, recorded {took[kind]:.0f} ns",
        )


def items(base_path: str, count: int) -> dict[str, list[float]]:
    """Return by kind the nanoseconds an item of a generator, a generator each."""
    from otel_debugstore import function, tool

    provider("ours", base_path)

    def numbers(limit: int) -> Iterator[int]:
        yield from range(limit)

    generators: dict[str, Callable[[int], Iterator[int]]] = {
        "bare": numbers,
        "not sampled": function(name="often")(numbers),
        "over its budget": function(name="few")(numbers),
        "tool": tool(name="tool")(numbers),
    }
    for _ in range(_CALIBRATION):  # from then on nearly none is sampled
        list(generators["not sampled"](1))

    def timed(kind: str) -> float:
        began = time.perf_counter_ns()
        for _ in generators[kind](count):
            pass
        return (time.perf_counter_ns() - began) / count

    return interleaved(timed, tuple(generators), 9)
