"""`PerformanceCollector`: recording and a report in one object, under the names of the system this one replaces."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider

from otel_debugstore.calls.decorators import Recording, instrument
from otel_debugstore.layers import Layer
from otel_debugstore_analysis.closing import Closing
from otel_debugstore_exporters.instrument import configure
from otel_debugstore_exporters.session import SessionPaths


class PerformanceCollector(Closing):
    """Records a session of this process, and says where its time went.

    Args:
        session_id: The session to record into; by default a new one named after the program.
        base_path: Where sessions lie, by default "debug_data".
        settings: Other fields of `Settings`.

    Raises:
        ConfigurationError: This process records into another session already: there is one a process, and `close` does
            not end it.
    """

    def __init__(
        self,
        session_id: str | None = None,
        base_path: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        self._provider: TracerProvider = configure(session_id, base_path, **settings)
        self._paths: SessionPaths = recorded_session(self._provider)

    @property
    def session_id(self) -> str:
        """The session that is recorded into."""
        return self._paths.session_id

    def instrument(
        self,
        layer: Layer = "tool",
        tool_name: str | None = None,
        capture_args: bool = True,
        capture_result: bool = True,
        track_code_changes: bool = True,
    ) -> Recording:
        """Return a decorator that records a function.

        Args:
            layer: "workflow", "step", "node", "tool" or "function".
            tool_name: What it is called in what is recorded; by default the function's qualified name.
            capture_args, capture_result: Whether arguments and results are kept.
            track_code_changes: Has no effect: which code ran is always recorded.
        """
        return instrument(layer, tool_name, capture_args=capture_args, capture_result=capture_result)

    def track_execution(self, layer: Layer = "tool", tool_name: str | None = None) -> Recording:
        """Return a context manager that records a block."""
        return instrument(layer, tool_name)

    def generate_optimization_report(
        self,
        output_path: str | os.PathLike[str] | None = None,
        min_executions: int = 1,
        max_tokens: int = 4000,
    ) -> str:
        """Return, as Markdown, where the time of the session went and what to do about it.

        Args:
            output_path: A file to write it to, too.
            min_executions: Components that were called less often are left out.
            max_tokens: The most it may have, a hard limit.
        """
        from otel_debugstore_analysis.report.optimization import optimization_report

        self._provider.force_flush()
        report = optimization_report(self._paths, min_executions=min_executions, max_tokens=max_tokens)
        if output_path is not None:
            Path(output_path).write_text(report, encoding="utf-8")
        return report

    def close(self) -> None:
        """Write down what was recorded. What is recorded later still goes into the session."""
        self._provider.force_flush()


def recorded_session(provider: TracerProvider) -> SessionPaths:
    """Return the session that a provider records into, after `configure`."""
    from otel_debugstore_exporters.instrument import exporter_of

    return exporter_of(provider).activate()
