"""Benchmarks: two functions side by side, in processes of their own, and a verdict that can be trusted.

The names are imported when they are first used: the processes that measure import this package, too, and nothing of
what they do not need.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_debugstore_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from otel_debugstore_analysis.benchmark.distributed import compare_on_hosts
    from otel_debugstore_analysis.benchmark.fixture import BenchmarkFixture, BenchmarkResult
    from otel_debugstore_analysis.benchmark.history import history
    from otel_debugstore_analysis.benchmark.method import compare_functions
    from otel_debugstore_analysis.benchmark.model import BenchmarkOptions, Case, Check, FunctionRef, Outcome
    from otel_debugstore_analysis.benchmark.resolving import (
        Resolution,
        ResolutionError,
        require_resolution,
        resolution,
    )
    from otel_debugstore_analysis.benchmark.results import ClassResult, Comparison, Memory, Unit
    from otel_debugstore_analysis.benchmark.scenarios import BenchmarkScenario, create_standard_scenarios
    from otel_debugstore_analysis.benchmark.storing import record_comparison

_MODULES = {
    "BenchmarkFixture": "fixture",
    "BenchmarkOptions": "model",
    "BenchmarkResult": "fixture",
    "BenchmarkScenario": "scenarios",
    "Case": "model",
    "Check": "model",
    "ClassResult": "results",
    "Comparison": "results",
    "FunctionRef": "model",
    "Memory": "results",
    "Outcome": "model",
    "Resolution": "resolving",
    "ResolutionError": "resolving",
    "Unit": "results",
    "compare_functions": "method",
    "compare_on_hosts": "distributed",
    "create_standard_scenarios": "scenarios",
    "history": "history",
    "record_comparison": "storing",
    "require_resolution": "resolving",
    "resolution": "resolving",
}

__all__ = [
    "BenchmarkFixture",
    "BenchmarkOptions",
    "BenchmarkResult",
    "BenchmarkScenario",
    "Case",
    "Check",
    "ClassResult",
    "Comparison",
    "FunctionRef",
    "Memory",
    "Outcome",
    "Resolution",
    "ResolutionError",
    "Unit",
    "compare_functions",
    "compare_on_hosts",
    "create_standard_scenarios",
    "history",
    "record_comparison",
    "require_resolution",
    "resolution",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
