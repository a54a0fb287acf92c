"""Instructions instead of time: `valgrind --tool=callgrind` counts what a call executes.

Each side and input runs under valgrind twice, with few calls and with more; the difference is what these took, and what
starting the interpreter takes is gone. Hash seeds and addresses are the same in all runs, so what is left of noise is
about
0.03 %; a difference of less than 0.1 % is called none. It is 50 to 75 times slower than running, and it says nothing of
waiting, of caches, or of branches that are predicted wrong.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.benchmark._decision import verdict_of
from otel_debugstore_analysis.benchmark._workers import WorkerFailedError, WorkerProcess
from otel_debugstore_analysis.benchmark.model import BenchmarkOptions, Job
from otel_debugstore_analysis.benchmark.results import ClassResult, Comparison
from otel_debugstore_analysis.processes import run_command

NOISE: Final = 0.001
SLOWER: Final = 100.0
"""How much slower than running it is at most."""
_TARGET_NS: Final = 10_000_000
_MAX_CALLS: Final = 10_000
_START_S: Final = 60.0
_TOTAL: Final = re.compile(r"^(?:summary|totals):\s*(\d+)", re.MULTILINE)
_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from otel_debugstore_analysis.benchmark._worker import call_often; call_often(*sys.argv[1:])"
)


def compare_exactly(job: Job, options: BenchmarkOptions, forked: bool, began: float) -> Comparison:
    """Return the comparison by instructions.

    Raises:
        ConfigurationError: There is no valgrind, or the functions can't be had in a fresh interpreter.
    """
    if shutil.which("valgrind") is None:
        raise ConfigurationError(
            "Instructions are counted by valgrind, which is not installed; install it (apt install valgrind), "
            "or leave out "
            "`exact`."
        )
    if forked:
        raise ConfigurationError(
            "Instructions are counted in fresh interpreters: the functions have to be importable by name, and "
            "their inputs "
            "picklable."
        )
    from otel_debugstore_analysis.benchmark.method import failed

    try:
        with WorkerProcess(job, forked=False, timeout_s=options.timeout_s, environment=options.environment) as worker:
            changes = worker.ask("prepare")["changes"]
            if any(changes):
                raise WorkerFailedError(
                    "The functions change their input, so it can't be counted what the same call takes again: "
                    "time them "
                    "instead.",
                    None,
                    changes.index(True),
                )
            calls_ns = worker.ask("rounds", count=1)["rounds"][0]
            finished = worker.ask("finish")
            variants = worker.ask("variants")["variants"]
        counts = [
            [_instructions(job, options, case, side, calls_ns[case][side]) for side in range(2)]
            for case in range(len(job.cases))
        ]
    except WorkerFailedError as error:
        return failed(error, job.cases, seconds=time.monotonic() - began)
    return _comparison(job, options, counts, finished, variants, time.monotonic() - began)


def _instructions(job: Job, options: BenchmarkOptions, case: int, side: int, call_ns: float) -> float:
    """Return how many instructions a call takes."""
    more = min(max(round(_TARGET_NS / max(call_ns, 1.0)), 1), _MAX_CALLS)
    with tempfile.TemporaryDirectory(prefix="otel-debugstore-exact-") as folder:
        (Path(folder) / "job").write_bytes(pickle.dumps(job))
        few, many = (_total(Path(folder), job, options, case, side, calls, call_ns) for calls in (1, 1 + more))
    return max((many - few) / more, 0.0)


def _total(folder: Path, job: Job, options: BenchmarkOptions, case: int, side: int, calls: int, call_ns: float) -> int:
    paths = [os.path.abspath(path or ".") for path in sys.path]  # noqa: PTH100
    out = folder / f"counts.{calls}"
    outcome = run_command(
        [
            *("valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "--quiet"),
            *(
                sys.executable,
                "-P",
                "-c",
                _BOOT,
                json.dumps(paths),
                str(folder / "job"),
                str(side),
                str(case),
                str(calls),
            ),
        ],
        cwd=job.cwd,
        environment={
            **os.environ,
            "OTEL_SDK_DISABLED": "true",
            **(options.environment or {}),
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        timeout_s=_START_S + SLOWER * (options.timeout_s + calls * call_ns / 1e9),
    )
    found = _TOTAL.search(out.read_text()) if out.exists() else None
    if not outcome.is_ok or found is None:
        said = " ".join(outcome.stderr.text.split())[-200:]
        raise WorkerFailedError(f"valgrind could not count: {outcome.cause} {said}".strip(), side, case)
    return int(found.group(1))


def _comparison(
    job: Job,
    options: BenchmarkOptions,
    counts: Sequence[Sequence[float]],
    finished: dict[str, object],
    variants: Sequence[str | None],
    seconds: float,
) -> Comparison:
    labels = list(dict.fromkeys(case.label for case in job.cases))
    rows = []
    for label in labels:
        those = [number for number, case in enumerate(job.cases) if case.label == label]
        rows.append(_row(label, job, options, counts, those))
    whole = _row("", job, options, counts, range(len(job.cases)))
    return Comparison(
        whole.verdict,
        f"The candidate takes {whole.ratio:.4f} times as many instructions ({whole.candidate_ns:,.0f} for "
        f"{whole.baseline_ns:,.0f} a call).",
        whole.ratio,
        whole.low,
        whole.high,
        options.min_effect,
        whole.baseline_ns,
        whole.candidate_ns,
        processes=1,
        pairs=len(job.cases),
        checked=int(str(finished["checked"])),
        per_class=tuple(rows),
        notes=("Instructions were counted, not time.",),
        seconds=seconds,
        unit="instructions",
        baseline_variant=variants[0],
        candidate_variant=variants[1],
    )


def _row(
    label: str, job: Job, options: BenchmarkOptions, counts: Sequence[Sequence[float]], cases: Sequence[int]
) -> ClassResult:
    weight = sum(job.cases[case].weight for case in cases)
    one, other = (sum(job.cases[case].weight * counts[case][side] for case in cases) / weight for side in (0, 1))
    log = math.log(max(other, 1.0) / max(one, 1.0))
    low, high = log - NOISE, log + NOISE
    verdict = verdict_of(log, low, high, True, max(options.min_effect, NOISE))
    return ClassResult(label, verdict, math.exp(log), math.exp(low), math.exp(high), one, other, len(cases))
