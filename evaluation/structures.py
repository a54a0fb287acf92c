"""False alarms of `compare` about the structure of traces: shares of the critical path, and calls below a call.

Processes are drawn from one distribution. Each has a speed of its own, by which its queries are faster or slower than
those of others (log-normal, with a standard deviation of 3 or 10 %), and a share of runs of its own that miss a cache;
its runs differ less from one another. Two sets of processes are compared as `compare` does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from evaluation.result import Options, Result
from otel_debugstore_analysis.analyses._differences import children_compared, critical_paths_compared
from otel_debugstore_analysis.analyses._points import PROCESS
from otel_debugstore_analysis.query import DuckDBEngine, Selection, SpanFrame, frame
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import SpanRecord, batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths

DRAWS: Final = 500
SPREADS: Final = (0.03, 0.10)
UNITS: Final = (5, 10)
_PROCESSES: Final = 200
_RUNS: Final = 20
_MS: Final = 1_000_000
_START_NS: Final = 1_700_000_000_000_000_000
_SIGNIFICANT: Final = 0.05
_SEED: Final = 3


def results(options: Options) -> list[Result]:
    """Return the false alarms by spread and number of processes."""
    chance, found = np.random.default_rng(_SEED), []
    for spread in SPREADS:
        with tempfile.TemporaryDirectory(prefix="otel-debugstore-eval-") as folder:
            _write(chance, Path(folder), spread)
            with SessionReader(Path(folder)) as reader:
                for units in UNITS:
                    found += _results(chance, DuckDBEngine(reader), units, spread, options.draws(DRAWS))
    return found


def _results(chance: np.random.Generator, engine: DuckDBEngine, units: int, spread: float, draws: int) -> list[Result]:
    shares = calls = 0
    for _ in range(draws):
        drawn: list[int] = (chance.permutation(_PROCESSES)[: 2 * units] + 1).tolist()
        before, after = (_frame(engine, side) for side in (drawn[:units], drawn[units:]))
        of_path = critical_paths_compared(before, after, PROCESS, 100).dicts()
        shares += any(row["q_value"] is not None and row["q_value"] <= _SIGNIFICANT for row in of_path)
        calls += bool(children_compared(before, after, PROCESS, 100).rows)
    of = f"A/A of {units} processes a side that differ by {spread:.0%}"
    return [
        Result(f"compare: false alarms about the critical path, {of}", shares, draws, 0.05),
        Result(f"compare: false alarms about calls below a call, {of}", calls, draws, 0.05),
    ]


def _frame(engine: DuckDBEngine, pids: Sequence[int]) -> SpanFrame:
    return frame(engine, selection=Selection(where={"pid": tuple(map(str, pids))}), columns=PROCESS)


def _write(chance: np.random.Generator, base_path: Path, spread: float) -> None:
    """Store the runs of all processes as one session."""
    blobs = []
    for process in range(1, _PROCESSES + 1):
        speed, misses = np.exp(chance.normal(0, spread)), np.clip(chance.normal(0.5, spread), 0.05, 0.95)
        spans: list[SpanRecord] = []
        for run in range(_RUNS):
            query_ms = 100 * speed * np.exp(chance.normal(0, 0.05))
            spans += _run(process * _RUNS + run, float(query_ms), is_missed=chance.random() < misses)
        blobs.append(codec.encode(batch_from_records(spans, process), _START_NS))
    with Journal.open(SessionPaths(base_path, "drawn").journal) as journal:
        journal.append(blobs)


def _run(number: int, query_ms: float, *, is_missed: bool) -> list[SpanRecord]:
    spans = [("query", 5.0, query_ms)] + ([("load", 5.0 + query_ms, 20.0)] if is_missed else [])
    whole_ms = 100.0 + sum(duration_ms for _, _, duration_ms in spans)
    return [
        SpanRecord(
            trace_id=number.to_bytes(16, "big"),
            span_id=(10 * number + place).to_bytes(8, "big"),
            parent_id=(10 * number).to_bytes(8, "big") if place else None,
            name=name,
            start_ns=_START_NS + number * 1_000 * _MS + int(start_ms * _MS),
            end_ns=_START_NS + number * 1_000 * _MS + int((start_ms + duration_ms) * _MS),
        )
        for place, (name, start_ms, duration_ms) in enumerate([("flow", 0.0, whole_ms), *spans])
    ]
