"""`thresholds`: the last calls are the last ones, of frequent components and of rare ones."""

from __future__ import annotations

import random
from pathlib import Path

from otel_debugstore_analysis import query
from otel_debugstore_analysis.analyses.thresholds import thresholds
from otel_debugstore_exporters.reader import SessionReader
from sessions import MS, span, write_sealed

CALLS = 40


def test_last_calls_of_frequent_and_of_rare_components(tmp_path: Path) -> None:
    """Calls every second, calls at the beginning only, and calls at the end: of each the last forty at most."""
    chance = random.Random(7)
    history = {"steady": range(2_000), "early": range(60), "rare": range(0, 2_000, 500), "late": range(1_950, 2_000)}
    durations = {name: [chance.randrange(1, 1_000) for _ in seconds] for name, seconds in history.items()}
    spans = [
        span(number, name, trace=number + 1, start_ms=1_000 * second, duration_ms=duration)
        for number, (name, second, duration) in enumerate(
            (name, second, duration)
            for name, seconds in history.items()
            for second, duration in zip(seconds, durations[name], strict=True)
        )
    ]
    write_sealed(tmp_path, "s", spans)
    with SessionReader(tmp_path) as reader:
        rows = {row["component"]: row for row in thresholds(query.DuckDBEngine(reader), calls=CALLS).dicts()}
    for name, made in durations.items():
        last = sorted(made[-CALLS:])
        assert rows[name]["calls"] == len(last)
        middle = (last[(len(last) - 1) // 2] + last[len(last) // 2]) / 2
        assert rows[name]["median_ns"] == middle * MS
