"""Spans as they end, of one session on this machine.

A span is shown once, also when it moves from the journal into a segment meanwhile: what was shown is
remembered by a hash of the span for `WINDOW_SECONDS`. A span whose batch comes later than that after its end
(a clock that was set back, an import of old data) is not shown.
"""

from __future__ import annotations

import time
from typing import Any, Final

from otel_debugstore_analysis.query._engine import DuckDBEngine
from otel_debugstore_analysis.query._table import Table

WINDOW_SECONDS: Final = 60
COLUMNS: Final = (
    "start_ns",
    "duration_ns",
    "component",
    "name",
    "layer",
    "service",
    "status",
    "exception_type",
    "trace_id",
    "span_id",
    "pid",
    "session",
)
_SEEN: Final = "followed_span"
_IDENTITY: Final = "hash(trace_id, span_id, pid, start_ns, duration_ns)"
_END: Final = "start_ns::HUGEINT + coalesce(duration_ns, 0)"


class Follower:
    """Gives out the spans of a reader's sessions as they come.

    Args:
        engine: The sessions.
        last: How many of the spans that are there already come first.
    """

    def __init__(self, engine: DuckDBEngine, last: int = 10) -> None:
        self._engine = engine
        self._last = last
        self._began = False

    def poll(self) -> Table:
        """Return the spans that came since the last call, by the time they ended."""
        changed = self._engine.reader.refresh()
        if not self._began:
            self._began = True
            return self._begin()
        return Table(COLUMNS, self._new() if changed else [])

    def _begin(self) -> Table:
        source = self._engine.reader.spans_sql(COLUMNS)
        rows = self._engine.execute(
            f"SELECT {', '.join(COLUMNS)} FROM ({source}) ORDER BY {_END} DESC NULLS LAST LIMIT $last",
            {"last": self._last},
        )
        self._engine.execute(
            f"CREATE OR REPLACE TEMP TABLE {_SEEN} AS SELECT {_IDENTITY} AS identity, {_END} AS end_ns "
            f"FROM ({source}) WHERE {_END} >= $oldest",
            {"oldest": _oldest_ns()},
        )
        return Table(COLUMNS, rows[::-1])

    def _new(self) -> list[tuple[Any, ...]]:
        oldest = {"oldest": _oldest_ns()}
        self._engine.execute(f"DELETE FROM {_SEEN} WHERE end_ns < $oldest", oldest)
        source = self._engine.reader.spans_sql(COLUMNS)
        rows = self._engine.execute(
            f"SELECT {', '.join(COLUMNS)}, identity, end_ns FROM "
            f"(SELECT *, {_IDENTITY} AS identity, {_END} AS end_ns FROM ({source})) "
            f"WHERE end_ns >= $oldest AND identity NOT IN (SELECT identity FROM {_SEEN}) ORDER BY end_ns",
            oldest,
        )
        if rows:
            self._engine.execute(
                f"INSERT INTO {_SEEN} SELECT unnest($identities), unnest($ends)",
                {"identities": [row[-2] for row in rows], "ends": [row[-1] for row in rows]},
            )
        return [row[:-2] for row in rows]


def _oldest_ns() -> int:
    return time.time_ns() - WINDOW_SECONDS * 1_000_000_000
