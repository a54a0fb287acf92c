"""What "auto" stands for: the limits that `analyses.thresholds` proposes from sessions other than those audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from otel_debugstore_analysis.auditor._threshold import DURATION, ERRORS, MEMORY
from otel_debugstore_analysis.query import Selection
from otel_debugstore_exporters.session import list_sessions


def proposals(base_path: Path, audited: Sequence[str], components: Sequence[str]) -> Mapping[str, Mapping[str, float]]:
    """Return by component what its history proposes, by measure; nothing of those that have none.

    Args:
        base_path: Where sessions lie.
        audited: The sessions that are audited: their own calls would propose limits that they keep.
        components: The names.
    """
    from otel_debugstore_analysis.analysis import Analysis

    earlier = [session for session in list_sessions(base_path) if session not in audited]
    if not earlier or not components:
        return {}
    selection = Selection(where={"component": tuple(dict.fromkeys(components))})
    with Analysis(base_path=base_path, sessions=earlier) as analysis:
        rows = analysis.thresholds(selection=selection, limit=len(components)).dicts()
    columns = {DURATION: "duration_ns", MEMORY: "memory_bytes", ERRORS: "error_rate"}
    return {
        row["component"]: {measure: row[column] for measure, column in columns.items() if row[column] is not None}
        for row in rows
    }
