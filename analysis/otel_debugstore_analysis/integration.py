"""`DebugIntegration` and `debug_track`: scoped recording under the names of the system this one replaces."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final, TypeVar, overload

from otel_debugstore.calls.decorators import Recording, instrument
from otel_debugstore.instrumentors import workflow_tracker
from otel_debugstore.instrumentors.patching import Patches
from otel_debugstore.layers import Layer
from otel_debugstore_analysis.closing import Closing
from otel_debugstore_analysis.collector import PerformanceCollector

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")


class DebugIntegration(Closing):
    """Records the workflows, steps and functions of a program into a session.

    Args:
        session_id: The session; by default a new one named after the program.
        base_path: Where sessions lie, by default "debug_data".
        settings: Other fields of `Settings`.

    Raises:
        ConfigurationError: This process records into another session already.
    """

    def __init__(
        self,
        session_id: str | None = None,
        base_path: str | os.PathLike[str] | None = None,
        **settings: Any,
    ) -> None:
        self._collector = PerformanceCollector(session_id, base_path, **settings)
        self._patches: Final[dict[type, Patches]] = {}

    @property
    def session_id(self) -> str:
        """The session that is recorded into."""
        return self._collector.session_id

    def track_workflow(self, tracker: T) -> T:
        """Record the steps of a workflow tracker from now on, and those of others of its class; return it."""
        kind = type(tracker)
        if kind not in self._patches:
            self._patches[kind] = patches = Patches()
            module = ModuleType(kind.__module__)
            module.WorkflowTracker = kind  # type: ignore[attr-defined]
            workflow_tracker.patch(module, patches)
        return tracker

    def track_step(
        self, step_id: str, tool_name: str | None = None, inputs: Mapping[str, Any] | None = None
    ) -> Recording:
        """Return a context manager that records a step.

        Args:
            step_id: What it is called in what is recorded.
            tool_name: The tool it uses: an input like others.
            inputs: What goes into it, by name.
        """
        given = {"tool_name": tool_name} if tool_name is not None else {}
        return instrument("step", step_id, inputs={**given, **(inputs or {})})

    def track_function(self, name: str | None = None, layer: Layer = "function") -> Recording:
        """Return a decorator, and context manager, that records a function."""
        return instrument(layer, name)

    def analyze(self, min_executions: int = 1, max_tokens: int = 4000) -> str:
        """Return, as Markdown, where the time of the session went; see `PerformanceCollector`."""
        return self._collector.generate_optimization_report(min_executions=min_executions, max_tokens=max_tokens)

    def close(self) -> None:
        """Write down what was recorded, and leave trackers alone again."""
        while self._patches:
            self._patches.popitem()[1].undo()
        self._collector.close()


def init_debug_integration(
    session_id: str | None = None, base_path: str | os.PathLike[str] | None = None, **settings: Any
) -> DebugIntegration:
    """Record this process into a session from now on; see `DebugIntegration`."""
    return DebugIntegration(session_id, base_path, **settings)


@overload
def debug_track(function: F, /) -> F: ...


@overload
def debug_track(
    layer: Layer = "function", name: str | None = None, *, capture_args: bool = True, capture_result: bool = True
) -> Recording: ...


def debug_track(
    layer: Any = "function", name: str | None = None, *, capture_args: bool = True, capture_result: bool = True
) -> Any:
    """Record a function: `@debug_track`, or `@debug_track("tool", "name")`.

    Raises:
        ConfigurationError: There is no such layer, or it can't be called.
    """
    if callable(layer):
        return instrument("function", name, capture_args=capture_args, capture_result=capture_result)(layer)
    return instrument(layer, name, capture_args=capture_args, capture_result=capture_result)
