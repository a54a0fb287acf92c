"""What a benchmark of a function of a microsecond reads, next to pyperf, by turns on the same machine.

Both have processes of their own, and both call the function in a loop of their own; pyperf's reading is the mean over
its values, ours the median over processes of medians. Each round both measure, in random order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.measure import ROOT, Figure, Options, interleaved, median, scratch
from benchmarks.one_microsecond import NUMBERS

_PROCESSES: Final = 2
_ROUNDS: Final = 45
"""Many short ones: the machine's pace changes within seconds, and a ratio is of two readings side by side."""


def figures(options: Options) -> list[Figure]:
    """Measure how far our reading is from pyperf's."""
    found = interleaved(_reading_ns, ("ours", "pyperf"), options.repeats(_ROUNDS))
    ratios = [ours / theirs for ours, theirs in zip(found["ours"], found["pyperf"], strict=True)]
    ratio = median(ratios)
    return [
        Figure(
            "benchmark",
            "timed region: a function of 1 us, our reading and pyperf's: how far apart",
            max(ratio, 1 / ratio),
            1.05,
            "x",
            detail=f"ours {median(found['ours']):.0f} ns, pyperf {median(found['pyperf']):.0f} ns, ours / pyperf "
            f"{ratio:.3f} ({min(ratios):.3f} to {max(ratios):.3f} in {len(ratios)} rounds)",
        )
    ]


def _reading_ns(kind: str) -> float:
    return _ours_ns() if kind == "ours" else _pyperf_ns()


def _ours_ns() -> float:
    from otel_debugstore_analysis.benchmark import BenchmarkOptions, Case, compare_functions

    name = "benchmarks.one_microsecond:work"
    wanted = BenchmarkOptions(processes=_PROCESSES, memory=False, cwd=str(ROOT))
    found = compare_functions(name, name, [Case("numbers", (NUMBERS,))], options=wanted)
    if not found.is_ranked:
        raise RuntimeError(found.cause)
    return found.baseline_ns


def _pyperf_ns() -> float:
    with scratch() as folder:
        result = folder / "result.json"
        subprocess.run(
            [
                *(sys.executable, str(Path(__file__).with_name("one_microsecond.py")), "--quiet"),
                *("--processes", str(_PROCESSES), "--values", "3", "--warmups", "1", "--min-time", "0.02"),
                *("-o", str(result)),
            ],
            env=dict(os.environ),
            stdout=subprocess.DEVNULL,
            check=True,
        )
        [benchmark] = json.loads(result.read_text())["benchmarks"]
    values: list[float] = [value for run in benchmark["runs"] for value in run.get("values", ())]
    return 1e9 * sum(values) / len(values)
