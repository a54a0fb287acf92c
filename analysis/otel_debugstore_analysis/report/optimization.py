"""The report on one session, for whoever records it."""

from __future__ import annotations

from typing import Final

from otel_debugstore_analysis.analysis import Analysis
from otel_debugstore_analysis.report import commands
from otel_debugstore_analysis.report.findings import find
from otel_debugstore_analysis.report.sections import markdown_report
from otel_debugstore_exporters.session import SessionPaths

_ROWS: Final = 100


def optimization_report(paths: SessionPaths, *, min_executions: int = 1, max_tokens: int = 4000) -> str:
    """Return, as Markdown, where the time of a session went and what to do about it.

    Args:
        paths: The session.
        min_executions: Components that were called less often are left out.
        max_tokens: The most it may have; what is left out is listed at its end.
    """
    with Analysis(base_path=paths.base_path, sessions=[paths.session_id]) as analysis:
        scope = commands.of_sessions(paths.base_path, [paths.session_id])
        findings = find(analysis.engine, limit=_ROWS, scope=scope)
    return markdown_report(findings.called(min_executions), max_tokens)
