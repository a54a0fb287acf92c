"""Figure 5: from the end of a span to its being seen by a query in another process.

The program runs under `opentelemetry-instrument`, ends a span every two milliseconds, and seals meanwhile,
as its segments are small here. A reader in another process asks every 50 ms for what is new.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks.generate import Emitter
from benchmarks.measure import Figure, Options, command, environment, in_process, median, percentile, scratch
from benchmarks.recorders import SESSION

_INTERVAL_SECONDS: Final = 0.002
_POLL_SECONDS: Final = 0.05


def figures(options: Options) -> list[Figure]:
    """Measure figure 5."""
    runs, seconds = options.repeats(5), options.size(12)
    p99s, medians, counts = [], [], []
    for _ in range(runs):
        with scratch() as path:
            writer = subprocess.Popen(
                command(write, instrumented=True, seconds=seconds),
                env=environment(
                    OTEL_TRACES_EXPORTER="debugstore",
                    OTEL_METRICS_EXPORTER="none",
                    OTEL_LOGS_EXPORTER="none",
                    OTEL_DEBUGSTORE_PATH=str(path),
                    OTEL_DEBUGSTORE_SESSION=SESSION,
                    OTEL_DEBUGSTORE_SEGMENT_SPANS="1000",
                ),
                stdout=subprocess.DEVNULL,
            )
            delays = in_process(watch, base_path=str(path), seconds=seconds)
            if writer.wait():
                raise RuntimeError("the program that records failed")
        p99s.append(percentile(delays, 0.99))
        medians.append(median(delays))
        counts.append(len(delays))
    return [
        Figure(
            "5",
            "span end to visible in another process, p99",
            median(p99s),
            1.5,
            "s",
            detail=f"median {median(medians):.2f} s; p99 {min(p99s):.2f} to {max(p99s):.2f} s in {runs} runs "
            f"of {min(counts):,} spans or more",
        )
    ]


def write(seconds: float) -> None:
    """End spans at a steady rate."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    made = trace.get_tracer_provider()
    assert isinstance(made, TracerProvider)
    emitter = Emitter(made)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        emitter.emit(1)
        time.sleep(_INTERVAL_SECONDS)


def watch(base_path: str, seconds: float) -> list[float]:
    """Return the seconds from the end of each span until a query returned it, for the spans of `seconds`."""
    from otel_debugstore_exporters.reader import SessionReader

    delays: list[float] = []
    last_end = 0
    with SessionReader(Path(base_path)) as reader:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            rows = reader.query(
                "SELECT start_ns + duration_ns AS end_ns FROM spans WHERE start_ns + duration_ns > ? ORDER BY end_ns",
                [last_end],
            ).rows
            now = time.time_ns()
            if rows and not delays:
                until = time.monotonic() + seconds - 1
            delays += [(now - end_ns) / 1e9 for (end_ns,) in rows]
            last_end = rows[-1][0] if rows else last_end
            time.sleep(_POLL_SECONDS)
    return delays
