"""otel-debugstore: a flight recorder for Python tools, workflows and agents.

The public names, each imported from its module when it is first used, so that importing this package
costs next to nothing. (`__init__.pyi` says the same to type checkers: this package is the lowest layer
and may not import the others, nor pretend to under `TYPE_CHECKING`.)

PYTEST_DONT_REWRITE: of a distribution with a plugin, pytest warns of packages that were imported before it.
"""

from importlib import import_module as _import_module

_MODULES = {
    "Analysis": "otel_debugstore_analysis.analysis",
    "AnalysisPackage": "otel_debugstore_analysis.analyzer",
    "AuditResult": "otel_debugstore_analysis.auditor",
    "AutoEvolverInstrumentor": "otel_debugstore.instrumentors.hooks",
    "BenchmarkFixture": "otel_debugstore_analysis.benchmark.fixture",
    "BenchmarkOptions": "otel_debugstore_analysis.benchmark.model",
    "BenchmarkResult": "otel_debugstore_analysis.benchmark.fixture",
    "BenchmarkScenario": "otel_debugstore_analysis.benchmark.scenarios",
    "BoundedSpanProcessor": "otel_debugstore.processor",
    "ConfigurationError": "otel_debugstore.errors",
    "CorruptDataError": "otel_debugstore.errors",
    "DebugAnalyzer": "otel_debugstore_analysis.analyzer",
    "DebugIntegration": "otel_debugstore_analysis.integration",
    "DebugStore": "otel_debugstore_exporters.store",
    "DebugStoreError": "otel_debugstore.errors",
    "DuckDBSyncProcessor": "otel_debugstore_exporters.sync",
    "FormatVersionError": "otel_debugstore.errors",
    "GuardRails": "otel_debugstore.experiments.judge",
    "InvalidSessionIdError": "otel_debugstore.errors",
    "LmdbSpanExporter": "otel_debugstore_exporters.exporter",
    "MalformedInputError": "otel_debugstore.errors",
    "NodeRunnerInstrumentor": "otel_debugstore.instrumentors.hooks",
    "NodeRuntimeInstrumentor": "otel_debugstore.instrumentors.hooks",
    "OptimizationCandidate": "otel_debugstore_analysis.auditor",
    "OptimizationQueue": "otel_debugstore_analysis.queue",
    "PerformanceAuditor": "otel_debugstore_analysis.auditor",
    "PerformanceCollector": "otel_debugstore_analysis.collector",
    "PerformanceThreshold": "otel_debugstore_analysis.auditor",
    "QueryError": "otel_debugstore.errors",
    "RegistryInstrumentor": "otel_debugstore.instrumentors.hooks",
    "SessionNotFoundError": "otel_debugstore.errors",
    "TargetInstrumentor": "otel_debugstore.instrumentors.targets",
    "ThreadPoolInstrumentor": "otel_debugstore.instrumentors.thread_pools",
    "ToolsManagerInstrumentor": "otel_debugstore.instrumentors.hooks",
    "WorkflowTrackerInstrumentor": "otel_debugstore.instrumentors.hooks",
    "ab": "otel_debugstore.experiments.define",
    "configure": "otel_debugstore_exporters.instrument",
    "debug_track": "otel_debugstore_analysis.integration",
    "function": "otel_debugstore.calls.decorators",
    "init_debug_integration": "otel_debugstore_analysis.integration",
    "instrument": "otel_debugstore.calls.decorators",
    "node": "otel_debugstore.calls.decorators",
    "step": "otel_debugstore.calls.decorators",
    "tool": "otel_debugstore.calls.decorators",
    "variant": "otel_debugstore.experiments.define",
    "workflow": "otel_debugstore.calls.decorators",
}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
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
]


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("otel-debugstore")
    elif name in _MODULES:
        value = getattr(_import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
