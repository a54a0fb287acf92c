"""`history`: what benchmarks found, in all sessions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from otel_debugstore_analysis.query import Table
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import list_sessions

COLUMNS: Final = (
    *("start_ns", "name", "baseline", "candidate", "verdict", "ratio", "ratio_low", "ratio_high", "min_effect"),
    *("unit", "baseline_time", "candidate_time", "baseline_peak_bytes", "candidate_peak_bytes", "processes", "pairs"),
    *("checked", "cause", "baseline_variant", "candidate_variant", "host", "python", "session", "trace_id"),
)


def history(
    base_path: str | os.PathLike[str],
    name: str | None = None,
    *,
    sessions: Sequence[str] | None = None,
    limit: int = 50,
) -> Table:
    """Return the comparisons that were recorded, a row each, the newest first.

    Args:
        base_path: Where sessions lie.
        name: Only benchmarks of this name.
        sessions: Only of these sessions.
        limit: How many rows at most.

    Raises:
        SessionNotFoundError: One of `sessions` is not there.
    """
    found = list_sessions(Path(base_path)) if sessions is None else list(sessions)
    if not found:
        return Table(COLUMNS, [])
    where = "WHERE name = $name" if name is not None else ""
    sql = f"SELECT {', '.join(COLUMNS)} FROM benchmarks {where} ORDER BY start_ns DESC, span_id LIMIT $most"
    parameters: dict[str, object] = {"most": limit + 1} | ({"name": name} if name is not None else {})
    with SessionReader(Path(base_path), found) as reader:
        rows = [tuple(row) for row in reader.query(sql, parameters).rows]
    return Table(COLUMNS, rows[:limit], None if len(rows) > limit else 0)
