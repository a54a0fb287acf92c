"""What all benchmarks share: figures, interleaved repeats, and work in processes of its own."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

ROOT: Final = Path(__file__).parents[1]
_RESULT: Final = "benchmark result: "
K = TypeVar("K")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """How thoroughly to measure."""

    quick: bool = False

    def repeats(self, full: int) -> int:
        """Return how often to repeat what a full run repeats `full` times."""
        return max(2, full // 3) if self.quick else full

    def size(self, full: int) -> int:
        """Return how much of something to use of which a full run uses `full`."""
        return full // 5 if self.quick else full


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured figure.

    Attributes:
        number: Of the figure it belongs to, such as "1".
        what: What was measured, of what.
        measured: The value, in `unit`.
        target: What it has to reach, in the same unit; None where it is only reported.
        unit: "x" for a ratio.
        goal: Whether smaller or larger is better.
        detail: What stands behind the value: absolute figures of this machine.
    """

    number: str
    what: str
    measured: float
    target: float | None
    unit: str
    goal: Literal["at most", "at least", "exactly"] = "at most"
    detail: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None where there is none."""
        if self.target is None:
            return None
        if self.goal == "exactly":
            return self.measured == self.target
        return self.measured <= self.target if self.goal == "at most" else self.measured >= self.target


def interleaved(run: Callable[[K], T], kinds: Sequence[K], repeats: int) -> dict[K, list[T]]:
    """Return by kind what `run(kind)` returned.

    The kinds take turns: what disturbs one disturbs all. Each round has an order of its own, from a seed: where
    each kind always follows the same one, it is charged with the state of the caches that this one leaves behind
    (caller CPU of figure 1: 1.27 in cyclic order, 1.07 in random order, in turn on one machine).
    """
    orders = random.Random(len(kinds))
    found: dict[K, list[T]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind in orders.sample(kinds, len(kinds)):
            found[kind].append(run(kind))
    return found


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """Return the least of the values that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 100_000) * len(ordered) // 100_000) - 1))]


def peak_rss_bytes() -> int:
    """Return the most memory that this process has had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmHWM")


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory on disk for the time being (`TMPDIR` chooses where)."""
    path = Path(tempfile.mkdtemp(prefix="otel-debugstore-bench-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def environment(**variables: str) -> dict[str, str]:
    """Return this process's environment without OpenTelemetry's variables, and with `variables`.

    Python keeps bytecode of this checkout, as an installation has it: what we are compared with has its own.
    """
    left_out = ("OTEL_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return kept | {"PYTHONPATH": os.pathsep.join(paths)} | variables


def executable(name: str) -> str:
    """Return the path of a program that is installed beside this Python."""
    return str(Path(sys.executable).with_name(name))


def command(function: Callable[..., Any], *, instrumented: bool = False, **arguments: Any) -> list[str]:
    """Return the command that calls a function of a benchmark in a new process."""
    prefix = [executable("opentelemetry-instrument")] if instrumented else []
    target = f"{_module_name(function)}:{function.__name__}"
    return [*prefix, sys.executable, "-m", "benchmarks.measure", target, json.dumps(arguments)]


def in_process(
    function: Callable[..., Any],
    *,
    instrumented: bool = False,
    variables: Mapping[str, str] | None = None,
    **arguments: Any,
) -> Any:
    """Call a function of a benchmark in a new process and return what it returned, through JSON.

    Args:
        function: One at the top of its module.
        instrumented: Whether to run it under `opentelemetry-instrument`.
        variables: Of the environment.
        arguments: What it is called with; what JSON can hold.
    """
    done = subprocess.run(
        command(function, instrumented=instrumented, **arguments),
        env=environment(**(variables or {})),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd=ROOT,
    )
    return result_of(done.stdout)


def result_of(output: str) -> Any:
    """Return the result among what a process of `command` printed."""
    for line in reversed(output.splitlines()):
        if line.startswith(_RESULT):
            return json.loads(line.removeprefix(_RESULT))
    raise RuntimeError(f"a benchmark's process printed no result, but: {output[-500:]!r}")


def _module_name(function: Callable[..., Any]) -> str:
    spec = sys.modules[function.__module__].__spec__
    return spec.name if spec else function.__module__


def _main() -> None:
    target, arguments = sys.argv[1:3]
    module, name = target.split(":")
    function = getattr(importlib.import_module(module), name)
    print(_RESULT + json.dumps(function(**json.loads(arguments))), flush=True)


if __name__ == "__main__":
    _main()
