"""Figure 8: what `import otel_debugstore` takes beyond the import of the SDK, which it needs."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.measure import Figure, Options, environment, interleaved, median

_CODE = "import time; began = time.perf_counter(); import {}; print(time.perf_counter() - began)"


def figures(options: Options) -> list[Figure]:
    """Measure figure 8."""
    modules = ("opentelemetry.sdk.trace", "otel_debugstore", "otel_debugstore_exporters.instrument")
    runs = interleaved(_milliseconds, modules, options.repeats(15))
    sdk, ours, recorder = (median(runs[module]) for module in modules)
    return [
        Figure(
            "8",
            "import otel_debugstore less import opentelemetry.sdk.trace",
            ours - sdk,
            40,
            "ms",
            detail=f"SDK {sdk:.0f} ms, ours {ours:.1f} ms: it imports its parts when they are used",
        ),
        Figure(
            "8",
            "import of everything that records, the SDK included, less import opentelemetry.sdk.trace",
            recorder - sdk,
            None,
            "ms",
        ),
    ]


def _milliseconds(modules: str) -> float:
    done = subprocess.run(
        [sys.executable, "-c", _CODE.format(modules)],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return float(done.stdout) * 1000
