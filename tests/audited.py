"""Makes sessions of recorded calls for audits, and modules with tests of their own."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from otel_debugstore_analysis.analysis import Analysis
from otel_debugstore_analysis.auditor import AuditResult, PerformanceThreshold, Thresholds, audit
from otel_debugstore_exporters.batch import SpanRecord
from sessions import span, write_sealed

_numbers = itertools.count(1)


def calls(
    durations_ms: Iterable[float],
    component: str = "work",
    *,
    layer: str = "tool",
    variant: str | None = "v1",
    failed: int = 0,
    memory_mb: float | None = None,
    cpu_ms: float | None = None,
    start_ms: float = 0,
    weight: int = 1,
    attributes: Mapping[str, Any] | None = None,
) -> list[SpanRecord]:
    """Return recorded calls, each in a trace of its own, a second apart; the first ones failed."""
    found: dict[str, Any] = {"debugstore.layer": layer, "debugstore.component": component, **(attributes or {})}
    if variant is not None:
        found["debugstore.variant"] = variant
    if memory_mb is not None:
        found["debugstore.memory.peak_bytes"] = int(memory_mb * 1e6)
    if cpu_ms is not None:
        found["debugstore.cpu.time_ns"] = int(cpu_ms * 1e6)
    threshold = (1 << 56) - (1 << 56) // weight
    made = []
    for place, duration_ms in enumerate(durations_ms):
        number = next(_numbers)
        made.append(
            span(
                number,
                component,
                trace=number,
                start_ms=start_ms + 1000 * place,
                duration_ms=duration_ms,
                error="ValueError" if place < failed else None,
                attributes=found,
                trace_state=f"ot=th:{threshold:014x}" if weight > 1 else "",
            )
        )
    return made


def sealed(base_path: Path, *processes: Iterable[SpanRecord], session: str = "s") -> Path:
    """Write calls as a session, each argument as a process of its own, and return the base path."""
    for pid, spans in enumerate(processes, 1):
        write_sealed(base_path, session, spans, pid)
    return base_path


def audited(base_path: Path, threshold: PerformanceThreshold | Thresholds, **options: Any) -> list[AuditResult]:
    """Audit the tools of a session."""
    thresholds = threshold if isinstance(threshold, Thresholds) else Thresholds({"tool": threshold})
    with Analysis(base_path=base_path, sessions=["s"]) as analysis:
        return audit(analysis.engine, thresholds, **options)


def only(base_path: Path, **limits: Any) -> AuditResult:
    """Return the result of the one tool of a session, held against these limits."""
    (result,) = audited(base_path, PerformanceThreshold(**limits))
    return result


def project(folder: Path, module: str, tests: str, name: str = "fetcher") -> None:
    """Write a module and its tests."""
    (folder / f"{name}.py").write_text(textwrap.dedent(module))
    (folder / "tests").mkdir()
    (folder / "tests" / f"test_{name}.py").write_text(textwrap.dedent(tests))
    (folder / "conftest.py").write_text("")  # so that the tests find the module
