"""The auditor: limits of components, whether they are kept, and what does not keep them put into the queue.

Names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from otel_debugstore_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from otel_debugstore_analysis.auditor._audit import audit
    from otel_debugstore_analysis.auditor._auditor import PerformanceAuditor
    from otel_debugstore_analysis.auditor._checks import Check
    from otel_debugstore_analysis.auditor._result import AuditResult, CodeOf, OptimizationCandidate
    from otel_debugstore_analysis.auditor._settings import parse_thresholds, read_thresholds
    from otel_debugstore_analysis.auditor._tests import TestRuns, run_tests
    from otel_debugstore_analysis.auditor._threshold import DEFAULT_THRESHOLDS, PerformanceThreshold, Thresholds

_MODULES = {
    "DEFAULT_THRESHOLDS": "_threshold",
    "AuditResult": "_result",
    "Check": "_checks",
    "CodeOf": "_result",
    "OptimizationCandidate": "_result",
    "PerformanceAuditor": "_auditor",
    "PerformanceThreshold": "_threshold",
    "TestRuns": "_tests",
    "Thresholds": "_threshold",
    "audit": "_audit",
    "parse_thresholds": "_settings",
    "read_thresholds": "_settings",
    "run_tests": "_tests",
}

__all__ = [
    "DEFAULT_THRESHOLDS",
    "AuditResult",
    "Check",
    "CodeOf",
    "OptimizationCandidate",
    "PerformanceAuditor",
    "PerformanceThreshold",
    "TestRuns",
    "Thresholds",
    "audit",
    "parse_thresholds",
    "read_thresholds",
    "run_tests",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
