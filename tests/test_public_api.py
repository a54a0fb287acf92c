"""The names users may rely on: a change here is a change for them, and belongs in the changelog."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

PUBLIC = {
    "otel_debugstore": [
        "Analysis",
        "AnalysisPackage",
        "AuditResult",
        "AutoEvolverInstrumentor",
        "BenchmarkFixture",
        "BenchmarkOptions",
        "BenchmarkResult",
        "BenchmarkScenario",
        "BoundedSpanProcessor",
        "ConfigurationError",
        "CorruptDataError",
        "DebugAnalyzer",
        "DebugIntegration",
        "DebugStore",
        "DebugStoreError",
        "DuckDBSyncProcessor",
        "FormatVersionError",
        "GuardRails",
        "InvalidSessionIdError",
        "LmdbSpanExporter",
        "MalformedInputError",
        "NodeRunnerInstrumentor",
        "NodeRuntimeInstrumentor",
        "OptimizationCandidate",
        "OptimizationQueue",
        "PerformanceAuditor",
        "PerformanceCollector",
        "PerformanceThreshold",
        "QueryError",
        "RegistryInstrumentor",
        "SessionNotFoundError",
        "TargetInstrumentor",
        "ThreadPoolInstrumentor",
        "ToolsManagerInstrumentor",
        "WorkflowTrackerInstrumentor",
        "__version__",
        "ab",
        "configure",
        "debug_track",
        "function",
        "init_debug_integration",
        "instrument",
        "node",
        "step",
        "tool",
        "variant",
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


def _imported(statement: str) -> set[str]:
    """The top names of all modules that are there after a statement in a new interpreter."""
    program = f"{statement}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.split())


def test_the_core_imports_neither_of_the_others() -> None:
    """No module of it does; the public names of the others are imported when they are first used."""
    everything = (
        "import importlib, pkgutil, otel_debugstore\n"
        "for module in pkgutil.walk_packages(otel_debugstore.__path__, 'otel_debugstore.'):\n"
        "    importlib.import_module(module.name)"
    )
    assert not _imported(everything) & {"otel_debugstore_exporters", "otel_debugstore_analysis"}
    assert "otel_debugstore_exporters" in _imported("from otel_debugstore import LmdbSpanExporter")


def test_what_records_brings_no_database_with_it() -> None:
    """Nor tables, nor a command line: neither the exporter nor what seals imports them before they are needed."""
    heavy = {"duckdb", "ibis", "nanoarrow", "pyarrow", "numpy", "pandas", "polars", "pydantic", "rich", "click"}
    names = "configure, LmdbSpanExporter, DuckDBSyncProcessor, workflow"
    assert not _imported(f"from otel_debugstore import {names}\nimport otel_debugstore_exporters.journal") & heavy
