"""`debugstore sessions`: what was recorded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from otel_debugstore_analysis.cli._interrupt import interruptible
from otel_debugstore_analysis.cli._options import base_path, data_dir_option, seal_quietly
from otel_debugstore_analysis.cli._output import format_option, remark, show

COLUMNS: Final = (
    "session",
    "state",
    "start_ns",
    "duration_ns",
    "span_count",
    "trace_count",
    "error_count",
    "dropped_count",
    "size_bytes",
)
_SUMMARY: Final = """
    SELECT session, min(start_ns), max(end_ns) - min(start_ns), sum(span_count)::BIGINT, count(*),
           sum(error_count)::BIGINT
    FROM traces GROUP BY session"""


@click.command()
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(0),
    default=50,
    show_default=True,
    help="Sessions at most; 0 for all.",
)
@click.option("--no-seal", is_flag=True, help="Write nothing: leave what is in journals there.")
@format_option
@data_dir_option
def command(limit: int, no_seal: bool, output_format: str) -> None:
    """List sessions, the newest first.

    A session is live while a program records into it. Dropped spans are those that were counted instead of
    kept; `debugstore doctor` says why.

    \b
    Examples:
      debugstore sessions
      debugstore --data-dir /srv/traces sessions --format json
    """
    show_sessions(base_path(), limit, output_format, seal=not no_seal)


def show_sessions(path: Path, limit: int, output_format: str, *, seal: bool = True) -> None:
    """Print the newest sessions below a base path."""
    from otel_debugstore_analysis.query import Table
    from otel_debugstore_exporters.session import list_sessions

    found = list_sessions(path)[::-1]
    shown = found[:limit] if limit else found
    if seal:
        seal_quietly(path, shown)
    show(Table(COLUMNS, _rows(path, shown)), output_format)
    if not found:
        remark(f"No session lies below {path}; record one, or name another directory (--data-dir).")
    if len(shown) < len(found):
        remark(f"{len(found) - len(shown):,} older sessions are not shown; --limit 0 shows all.")


def _rows(path: Path, session_ids: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return a row a session."""
    from otel_debugstore_exporters.reader import SessionReader

    unreadable = set[str]()
    with (
        SessionReader(path, session_ids, on_unreadable=lambda session_id, _: unreadable.add(session_id)) as reader,
        interruptible(reader.bare_connection),
    ):
        summaries = {row[0]: row[1:] for row in reader.query(_SUMMARY).rows}
        dropped = {session: sum(drop.count for drop in drops) for session, drops in reader.drops().items()}

    def row(session_id: str) -> tuple[Any, ...]:
        if session_id in unreadable:
            return (session_id, "unreadable", *[None] * (len(COLUMNS) - 3), _size(path, session_id))
        summary = summaries.get(session_id, (None, None, 0, 0, 0))
        state, size = _state(path, session_id), _size(path, session_id)
        return (session_id, state, *summary, dropped.get(session_id, 0), size)

    return [row(session_id) for session_id in session_ids]


def _state(path: Path, session_id: str) -> str:
    from otel_debugstore_exporters.session import SessionPaths

    paths = SessionPaths(path, session_id)
    if paths.is_live():
        return "live"
    return "archived" if paths.archive.is_dir() and not paths.segments() else "ended"


def _size(path: Path, session_id: str) -> int:
    from otel_debugstore_exporters.session import SessionPaths

    return SessionPaths(path, session_id).size_bytes()
