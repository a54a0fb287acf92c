"""`DebugStore.write_record`: records a second, each of them a durable span at the end."""

from __future__ import annotations

import time
from typing import Any, Final

from benchmarks.measure import Figure, Options, in_process, median, scratch

_RECORDS: Final = 100_000


def figures(options: Options) -> list[Figure]:
    """Measure the rate of records written by hand."""
    runs = []
    for _ in range(options.repeats(5)):
        with scratch() as path:
            runs.append(in_process(rates, base_path=str(path)))
    small, full = (median(column) for column in zip(*runs, strict=True))
    return [
        Figure(
            "-",
            "DebugStore.write_record, until durable: records a second",
            small,
            100_000,
            "/s",
            "at least",
            f"with request, response and metadata of 100 characters {full:,.0f}/s",
        )
    ]


def rates(base_path: str) -> tuple[float, float]:
    """Return records a second: small ones, and ones that carry data."""
    from otel_debugstore_exporters.store import DebugStore

    found = []
    text = "x" * 100
    data: dict[str, Any] = {"request_data": text, "response_data": text, "metadata": {"note": text}}
    for number, fields in enumerate(({}, data)):
        with DebugStore(f"bench-{number}", base_path, auto_sync=False) as store:
            began = time.perf_counter()
            for record in range(_RECORDS):
                store.write_record("tool", f"call-{record}", "search", duration_ms=1.5, status="success", **fields)
            store.flush()
            found.append(_RECORDS / (time.perf_counter() - began))
    return found[0], found[1]
