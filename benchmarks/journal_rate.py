"""Figure 3: how fast ended spans of the SDK reach the journal, next to OTLP protobuf encoding.

Ours: batches of 512 spans through the exporter, a durable commit for every 16 of them, which is what the
processor does when spans come in fast. The other: the same batches through the encoder of the stock OTLP
exporter, sent nowhere.
"""

from __future__ import annotations

import time
from typing import Final

from benchmarks.generate import BATCH, readable_spans
from benchmarks.measure import Figure, Options, in_process, median, scratch
from benchmarks.recorders import SESSION

_BATCHES: Final = 32
_SPANS: Final = _BATCHES * BATCH
_BATCHES_A_COMMIT: Final = 16


def figures(options: Options) -> list[Figure]:
    """Measure figure 3."""
    with scratch() as path:
        found = in_process(rates, base_path=str(path), rounds=options.repeats(15))
    ours, single, otlp = (median(found[name]) for name in ("ours", "single", "otlp"))
    return [
        Figure(
            "3",
            "journal with synchronous commits: spans a second / those of OTLP protobuf encoding",
            median([o / p for o, p in zip(found["ours"], found["otlp"], strict=True)]),
            5,
            "x",
            "at least",
            f"ours {ours:,.0f}/s ({1e6 / ours:.1f} us, of them {median(found['cpu_us']):.1f} CPU), "
            f"OTLP {otlp:,.0f}/s ({1e6 / otlp:.1f} us); with a commit for every batch {single:,.0f}/s",
        )
    ]


def rates(base_path: str, rounds: int) -> dict[str, list[float]]:
    """Return spans a second of both, by turns, and the CPU microseconds a span of ours."""
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

    from otel_debugstore_exporters.exporter import LmdbSpanExporter

    spans = readable_spans(_SPANS)
    batches = [spans[first : first + BATCH] for first in range(0, len(spans), BATCH)]
    exporter = LmdbSpanExporter(base_path=base_path, session_id=SESSION)

    def journal(batches_a_commit: int) -> None:
        for number, batch in enumerate(batches, 1):
            exporter.add(batch)
            if number % batches_a_commit == 0 and not exporter.commit():
                raise RuntimeError("the journal refused a batch")

    found: dict[str, list[float]] = {"ours": [], "cpu_us": [], "single": [], "otlp": []}
    for number in range(rounds + 1):
        times, cpu = [time.perf_counter()], time.thread_time()
        journal(_BATCHES_A_COMMIT)
        times, cpu = [*times, time.perf_counter()], time.thread_time() - cpu
        for batch in batches:
            encode_spans(batch).SerializeToString()
        times.append(time.perf_counter())
        journal(1)
        times.append(time.perf_counter())
        if number:  # the first round warms up
            for name, began, ended in zip(("ours", "otlp", "single"), times, times[1:], strict=False):
                found[name].append(_SPANS / (ended - began))
            found["cpu_us"].append(cpu / _SPANS * 1e6)
    exporter.shutdown()
    return found
