"""What "auto" stands for: the limits that `analyses.thresholds` proposes from sessions other than those audited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from otel_debugstore.errors import QueryError
from otel_debugstore.layers import LAYERS
from otel_debugstore_analysis.auditor._threshold import DURATION, ERRORS, MEMORY
from otel_debugstore_analysis.auditor._values import Key
from otel_debugstore_analysis.query import Selection
from otel_debugstore_exporters.session import list_sessions

_COLUMNS: Final = {DURATION: "duration_ns", MEMORY: "memory_bytes", ERRORS: "error_rate"}


def proposals(
    base_path: Path, audited: Sequence[str], by: Sequence[str], keys: Sequence[Key]
) -> Mapping[Key, Mapping[str, float]]:
    """Return by key what its history proposes, by measure; nothing of those that have none.

    Args:
        base_path: Where sessions lie.
        audited: The sessions that are audited: their own calls would propose limits that they keep.
        by: What the keys consist of: layer and component, or an attribute.
        keys: Whose history is asked for.
    """
    from otel_debugstore_analysis.analysis import Analysis

    earlier = [session for session in list_sessions(base_path) if session not in audited]
    if not earlier or not keys:
        return {}
    last = dict.fromkeys(key[-1] for key in keys)
    with Analysis(base_path=base_path, sessions=earlier) as analysis:
        try:
            rows = analysis.thresholds(
                by, selection=Selection(where={by[-1]: tuple(last)}), limit=len(last) * (len(LAYERS) + 1)
            ).dicts()
        except QueryError:  # no earlier span has the attribute
            return {}
    return {
        tuple(row[name] or "" for name in by): {
            measure: row[column] for measure, column in _COLUMNS.items() if row[column] is not None
        }
        for row in rows
    }
