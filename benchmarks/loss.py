"""Figure 4: eight threads record 400,000 spans at full blast under `opentelemetry-instrument`, ten times.

Nothing but the normal end of the program flushes. Then another process counts what a reader finds, by
distinct id too, and what was counted as dropped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from benchmarks.generate import Emitter
from benchmarks.measure import Figure, Options, in_process, scratch
from benchmarks.recorders import SESSION

_THREADS: Final = 8
_SPANS: Final = 50_000


def figures(options: Options) -> list[Figure]:
    """Measure figure 4."""
    runs = 2 if options.quick else 10
    expected = _THREADS * _SPANS
    accounted = complete = 0
    found = []
    for _ in range(runs):
        with scratch() as path:
            variables = {
                "OTEL_TRACES_EXPORTER": "debugstore",
                "OTEL_METRICS_EXPORTER": "none",
                "OTEL_LOGS_EXPORTER": "none",
                "OTEL_DEBUGSTORE_PATH": str(path),
                "OTEL_DEBUGSTORE_SESSION": SESSION,
            }
            in_process(record, instrumented=True, variables=variables)
            counted = in_process(count, base_path=str(path))
        found.append(counted["spans"])
        accounted += counted["spans"] + counted["dropped"] == expected and counted["distinct"] == counted["spans"]
        complete += counted["spans"] == expected
    return [
        Figure(
            "4",
            f"8 threads x 50,000 spans: runs of {runs} in which found and counted as dropped make 400,000",
            accounted,
            runs,
            "runs",
            "exactly",
            f"found {min(found):,} to {max(found):,}",
        ),
        Figure(
            "4",
            f"8 threads x 50,000 spans: runs of {runs} in which all 400,000 are found",
            complete,
            runs - 1,
            "runs",
            "at least",
        ),
    ]


def record() -> None:
    """Record in eight threads, through the global provider."""
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    from benchmarks.caller_latency import in_threads

    made = trace.get_tracer_provider()
    assert isinstance(made, TracerProvider)
    in_threads([Emitter(made, seed) for seed in range(_THREADS)], _SPANS)


def count(base_path: str) -> dict[str, int]:
    """Return what a reader finds."""
    from otel_debugstore_exporters.reader import SessionReader

    with SessionReader(Path(base_path), [SESSION]) as reader:
        rows = reader.query("SELECT count(*), count(DISTINCT span_id) FROM spans").rows
        drops = sum(drop.count for drops in reader.drops().values() for drop in drops)
    return {"spans": rows[0][0], "distinct": rows[0][1], "dropped": drops}
