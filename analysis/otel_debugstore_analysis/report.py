"""Where the time of a session went, as Markdown that fits a token budget."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from otel_debugstore_analysis import query
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths

_CHARACTERS_A_TOKEN = 1
"""A token has at least one character: a text of so many characters has no more tokens, by any encoding of text."""


def optimization_report(paths: SessionPaths, *, min_executions: int = 1, max_tokens: int = 4000) -> str:
    """Return the components of a session by total time, the largest first.

    Args:
        paths: The session.
        min_executions: Components that were called less often are left out.
        max_tokens: The most it may have; what is left out is counted in its last line.
    """
    with contextlib.closing(SessionReader(paths.base_path, [paths.session_id])) as reader:
        table = query.top(query.DuckDBEngine(reader), limit=None)
    rows = [row for row in table.dicts() if row["count"] >= min_executions]
    head = f"# Where the time of {paths.session_id} went\n\n"
    head += "| component | calls | total ms | self ms | p50 ms | p95 ms | p99 ms | errors |\n"
    head += "|---|--:|--:|--:|--:|--:|--:|--:|\n"
    return _within(head, [_line(row) for row in rows], max_tokens * _CHARACTERS_A_TOKEN)


def _within(head: str, lines: Sequence[str], characters: int) -> str:
    for count in range(len(lines), -1, -1):
        left_out = len(lines) - count
        tail = f"\n{left_out} more components are left out; see `debugstore top --limit 0`.\n" if left_out else ""
        text = head + "".join(lines[:count]) + tail
        if len(text.encode()) <= characters:
            return text
    return (head + f"{len(lines)} components")[: max(0, characters)]


def _line(row: dict[str, Any]) -> str:
    times = " | ".join(_millis(row[name]) for name in ("total_ns", "self_ns", "p50_ns", "p95_ns", "p99_ns"))
    return f"| {_cell(row['component'])} | {row['count']:,.0f} | {times} | {100 * (row['error_rate'] or 0):.1f} % |\n"


def _millis(value: float | None) -> str:
    return "" if value is None else f"{value / 1e6:,.3f}"


def _cell(text: Any) -> str:
    printable = "".join(character if character.isprintable() else "?" for character in str(text))
    return printable.replace("\\", "\\\\").replace("|", "\\|")
