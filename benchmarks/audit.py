"""Figure P4: an audit of 1,000 components over 1M spans: from the shell into the queue, and in a warm process."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Final

from benchmarks import datasets
from benchmarks.measure import Figure, Options, environment, executable, in_process, median, scratch

_TARGET_SECONDS: Final = 2.0
_LIMITS: Final = """
[tool.otel-debugstore.thresholds.layer.tool]
max-p95-ms = 40
[tool.otel-debugstore.thresholds.layer.step]
max-p50-ms = 2
max-p99-ms = 200
"""
"""Of the four layers, one fails for the most part, and one is undecided now and then."""


def figures(options: Options) -> list[Figure]:
    """Measure figure P4."""
    data = datasets.component_million()
    with scratch() as folder:
        pyproject = folder / "pyproject.toml"
        pyproject.write_text(_LIMITS)
        shell = [_from_shell(data, pyproject) for _ in range(options.repeats(7) + 1)][1:]
        warm = in_process(
            ask,
            base_path=str(data.base_path),
            session=data.session,
            pyproject=str(pyproject),
            repeats=options.repeats(7),
        )
    what = f"audit of {datasets.COMPONENTS:,} components over 1M spans"
    return [
        _figure(f"{what}: `debugstore audit` from the shell, into the queue", shell),
        _figure(f"{what}: in a process that is warm, {warm['fail']:.0f} fail", warm["seconds"]),
    ]


def ask(base_path: str, session: str, pyproject: str, repeats: int) -> dict[str, object]:
    """Return the seconds that audits took, and how many components did not keep their limits."""
    from otel_debugstore_analysis.analysis import Analysis
    from otel_debugstore_analysis.auditor import audit, read_thresholds

    thresholds = read_thresholds(Path(pyproject))
    seconds = []
    with Analysis(base_path=base_path, sessions=[session]) as analysis:
        results = audit(analysis.engine, thresholds)
        for _ in range(repeats):
            began = time.perf_counter()
            results = audit(analysis.engine, thresholds)
            seconds.append(time.perf_counter() - began)
    if len(results) != datasets.COMPONENTS:
        raise AssertionError(f"{len(results)} components were audited")
    return {"seconds": seconds, "fail": sum(one.verdict == "fail" for one in results)}


def _from_shell(data: datasets.Dataset, pyproject: Path) -> float:
    line = [executable("debugstore"), "--data-dir", str(data.base_path), "audit", "--session", data.session]
    began = time.perf_counter()
    run = subprocess.run(
        [*line, "--pyproject", str(pyproject), "--format", "junit"], env=environment(), capture_output=True, check=False
    )
    seconds = time.perf_counter() - began
    if run.returncode != 1:
        raise AssertionError(f"exit code {run.returncode}: {run.stderr.decode()}")
    return seconds


def _figure(name: str, seconds: list[float]) -> Figure:
    return Figure(
        "P4", name, median(seconds), _TARGET_SECONDS, "s", detail=f"{min(seconds):.2f} to {max(seconds):.2f} s"
    )
