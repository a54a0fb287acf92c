from otel_debugstore.calls.decorators import function as function
from otel_debugstore.calls.decorators import instrument as instrument
from otel_debugstore.calls.decorators import node as node
from otel_debugstore.calls.decorators import step as step
from otel_debugstore.calls.decorators import tool as tool
from otel_debugstore.calls.decorators import workflow as workflow
from otel_debugstore.errors import ConfigurationError as ConfigurationError
from otel_debugstore.errors import CorruptDataError as CorruptDataError
from otel_debugstore.errors import DebugStoreError as DebugStoreError
from otel_debugstore.errors import FormatVersionError as FormatVersionError
from otel_debugstore.errors import InvalidSessionIdError as InvalidSessionIdError
from otel_debugstore.errors import MalformedInputError as MalformedInputError
from otel_debugstore.errors import QueryError as QueryError
from otel_debugstore.errors import SessionNotFoundError as SessionNotFoundError
from otel_debugstore.experiments.define import ab as ab
from otel_debugstore.experiments.define import variant as variant
from otel_debugstore.experiments.judge import GuardRails as GuardRails
from otel_debugstore.instrumentors.hooks import AutoEvolverInstrumentor as AutoEvolverInstrumentor
from otel_debugstore.instrumentors.hooks import NodeRunnerInstrumentor as NodeRunnerInstrumentor
from otel_debugstore.instrumentors.hooks import NodeRuntimeInstrumentor as NodeRuntimeInstrumentor
from otel_debugstore.instrumentors.hooks import RegistryInstrumentor as RegistryInstrumentor
from otel_debugstore.instrumentors.hooks import ToolsManagerInstrumentor as ToolsManagerInstrumentor
from otel_debugstore.instrumentors.hooks import WorkflowTrackerInstrumentor as WorkflowTrackerInstrumentor
from otel_debugstore.instrumentors.targets import TargetInstrumentor as TargetInstrumentor
from otel_debugstore.instrumentors.thread_pools import ThreadPoolInstrumentor as ThreadPoolInstrumentor
from otel_debugstore.processor import BoundedSpanProcessor as BoundedSpanProcessor
from otel_debugstore_analysis.analysis import Analysis as Analysis
from otel_debugstore_analysis.analyzer import AnalysisPackage as AnalysisPackage
from otel_debugstore_analysis.analyzer import DebugAnalyzer as DebugAnalyzer
from otel_debugstore_analysis.auditor import AuditResult as AuditResult
from otel_debugstore_analysis.auditor import OptimizationCandidate as OptimizationCandidate
from otel_debugstore_analysis.auditor import PerformanceAuditor as PerformanceAuditor
from otel_debugstore_analysis.auditor import PerformanceThreshold as PerformanceThreshold
from otel_debugstore_analysis.benchmark.fixture import BenchmarkFixture as BenchmarkFixture
from otel_debugstore_analysis.benchmark.fixture import BenchmarkResult as BenchmarkResult
from otel_debugstore_analysis.benchmark.model import BenchmarkOptions as BenchmarkOptions
from otel_debugstore_analysis.benchmark.scenarios import BenchmarkScenario as BenchmarkScenario
from otel_debugstore_analysis.collector import PerformanceCollector as PerformanceCollector
from otel_debugstore_analysis.integration import DebugIntegration as DebugIntegration
from otel_debugstore_analysis.integration import debug_track as debug_track
from otel_debugstore_analysis.integration import init_debug_integration as init_debug_integration
from otel_debugstore_analysis.queue import OptimizationQueue as OptimizationQueue
from otel_debugstore_exporters.exporter import LmdbSpanExporter as LmdbSpanExporter
from otel_debugstore_exporters.instrument import configure as configure
from otel_debugstore_exporters.store import DebugStore as DebugStore
from otel_debugstore_exporters.sync import DuckDBSyncProcessor as DuckDBSyncProcessor

__all__ = [
    "Analysis",
    "AnalysisPackage",
    "AuditResult",
    "AutoEvolverInstrumentor",
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

__version__: str
