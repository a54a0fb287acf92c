"""The names users may rely on: a change here is a change for them, and belongs in the changelog."""

from __future__ import annotations

import importlib
import inspect

import pytest

PUBLIC = {
    "otel_debugstore": [
        "BoundedSpanProcessor",
        "ConfigurationError",
        "CorruptDataError",
        "DebugIntegration",
        "DebugStore",
        "DebugStoreError",
        "DuckDBSyncProcessor",
        "FormatVersionError",
        "InvalidSessionIdError",
        "LmdbSpanExporter",
        "MalformedInputError",
        "NodeRunnerInstrumentor",
        "NodeRuntimeInstrumentor",
        "PerformanceCollector",
        "QueryError",
        "RegistryInstrumentor",
        "SessionNotFoundError",
        "TargetInstrumentor",
        "ThreadPoolInstrumentor",
        "ToolsManagerInstrumentor",
        "WorkflowTrackerInstrumentor",
        "__version__",
        "configure",
        "debug_track",
        "function",
        "init_debug_integration",
        "instrument",
        "node",
        "step",
        "tool",
        "workflow",
    ],
}


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_are_these(package: str) -> None:
    """`__all__` is sorted and holds exactly the names listed here."""
    assert importlib.import_module(package).__all__ == PUBLIC[package] == sorted(PUBLIC[package])


@pytest.mark.parametrize("package", PUBLIC)
def test_public_names_exist_and_are_documented(package: str) -> None:
    """Every public name can be imported, is listed by `dir`, and says what it is."""
    module = importlib.import_module(package)
    for name in PUBLIC[package]:
        value = getattr(module, name)
        assert name in dir(module)
        assert isinstance(value, str) or inspect.getdoc(value), f"{package}.{name} has no docstring"


def test_a_name_that_is_not_there() -> None:
    """A wrong name is an AttributeError, as of any module."""
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        importlib.import_module("otel_debugstore").Nonsense  # noqa: B018
