"""Figure 7, in part: how much longer a program takes to end than with the stock processor.

From the program's last statement until its process is gone. There is more in the journal than can be sealed
within a second, so nothing is; what ended last is still to be committed.
"""

from __future__ import annotations

import subprocess
import time
from typing import Final

from benchmarks.generate import Emitter
from benchmarks.measure import Figure, Options, command, environment, interleaved, median, result_of, scratch
from benchmarks.recorders import Kind, provider

_SPANS: Final = 60_000
_LAST: Final = 500


def figures(options: Options) -> list[Figure]:
    """Measure the exit."""
    kinds: tuple[Kind, ...] = ("stock", "ours")

    def run(kind: Kind) -> float:
        with scratch() as path:
            process = subprocess.run(
                command(program, kind=kind, base_path=str(path)),
                env=environment(),
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            ended = time.monotonic_ns()
            return (ended - int(result_of(process.stdout))) / 1e6

    runs = interleaved(run, kinds, options.repeats(9))
    stock, ours = (median(runs[kind]) for kind in kinds)
    return [
        Figure(
            "7",
            "a program's exit beyond that with the stock processor, nothing sealed",
            median([o - s for o, s in zip(runs["ours"], runs["stock"], strict=True)]),
            200,
            "ms",
            detail=f"stock {stock:.0f} ms, ours {ours:.0f} ms, at most {max(runs['ours']):.0f} ms",
        )
    ]


def program(kind: Kind, base_path: str) -> int:
    """Record, and return the time at the end of the program: the monotonic clock's nanoseconds."""
    made = provider(kind, base_path)
    emitter = Emitter(made)
    emitter.emit(_SPANS)
    made.force_flush()
    emitter.emit(_LAST)
    return time.monotonic_ns()
