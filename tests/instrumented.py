"""Runs programs as users do: in a process of their own, with or without `opentelemetry-instrument`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

INSTRUMENT = Path(sys.executable).with_name("opentelemetry-instrument")


def run_python(*arguments: str | Path, folder: Path, timeout_seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run Python without instrumentation and without any OpenTelemetry setting."""
    return _run([sys.executable, *arguments], folder, timeout_seconds)


def run_instrumented(
    *arguments: str | Path, folder: Path, timeout_seconds: float = 120, **settings: str | Path
) -> subprocess.CompletedProcess[str]:
    """Run Python under `opentelemetry-instrument`.

    Args:
        arguments: Those of Python: a script and its arguments.
        folder: The working directory, where `debug_data` is made by default.
        timeout_seconds: How long the program may take.
        settings: Flags of `opentelemetry-instrument` by name, such as `service_name="x"`; if nothing else
            is said, spans go to our store alone, metrics and logs nowhere.
    """
    settings = {
        "traces_exporter": "debugstore",
        "metrics_exporter": "none",
        "logs_exporter": "none",
        **settings,
    }
    flags = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    return _run([INSTRUMENT, *flags, sys.executable, *arguments], folder, timeout_seconds)


def _run(command: list[str | Path], folder: Path, timeout_seconds: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )
