"""Removes what is too old, or too much, and spares what somebody pinned (`state`).

Whoever removes something of a session holds its `merge` lock, so that it is still what it was when it was chosen; what
was replaced meanwhile stays. Pins spare the unit that holds spans of the trace: a segment, an archive or a journal.
Where the pins can't be read nothing is removed.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

import duckdb

from otel_debugstore.errors import CorruptDataError, DebugStoreError
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.journal_file import DATA_FILE, is_begun
from otel_debugstore_exporters.segment import WRITING_MEMORY, attached, connect, quoted, reading, remove_segment
from otel_debugstore_exporters.session import SessionPaths, allocated_bytes, list_sessions
from otel_debugstore_exporters.state import State


class _Unit(NamedTuple):
    """What is removed as a whole: a segment, an archive, or a journal. Sorted by when it last changed."""

    changed: float
    size: int
    path: Path
    paths: SessionPaths

    @property
    def is_unchanged(self) -> bool:
        """Whether it is still there, and as old as it was."""
        try:
            return _file(self.path, self.paths).stat().st_mtime == self.changed
        except OSError:
            return False


def apply_retention(
    base_path: Path,
    *,
    age_seconds: float | None = None,
    size_bytes: int | None = None,
    pinned: Collection[str] = (),
    now: float | None = None,
    connection: duckdb.DuckDBPyConnection | None = None,
) -> list[Path]:
    """Unlink what is too old, then the oldest until everything fits, and return what was unlinked.

    The unit is a segment, an archive, or the journal of a session that nobody records into.

    Args:
        base_path: Where the sessions lie.
        age_seconds: Keep what is younger; None keeps all.
        size_bytes: Keep at most so many bytes; None keeps all.
        pinned: Sessions that are spared, beside what holds pinned traces.
        now: The time, seconds since 1970; the current one by default.
        connection: The DuckDB to look for pinned traces with; its own by default.

    Raises:
        CorruptDataError, StateError: Which traces are pinned can't be read; nothing was unlinked.
    """
    now = time.time() if now is None else now
    sessions = [SessionPaths(base_path, session_id) for session_id in list_sessions(base_path)]
    units = sorted(unit for paths in sessions if paths.session_id not in pinned for unit in _units(paths))
    total = sum(paths.size_bytes() for paths in sessions)
    traces = State(base_path).pinned()
    removed = []
    with contextlib.ExitStack() as stack:
        for unit in units:
            too_old = age_seconds is not None and unit.changed < now - age_seconds
            too_much = size_bytes is not None and total > size_bytes
            if not too_old and not too_much:
                continue
            if traces and connection is None:
                connection = stack.enter_context(contextlib.closing(connect(WRITING_MEMORY)))
            if connection is not None and traces and _holds(unit, traces, connection):
                continue
            if _remove(unit):
                total -= unit.size
                removed.append(unit.path)
    return removed


def _units(paths: SessionPaths) -> Iterator[_Unit]:
    for path in (*paths.segments(), paths.archive, paths.journal):
        with contextlib.suppress(OSError):
            yield _Unit(_file(path, paths).stat().st_mtime, allocated_bytes(path), path, paths)


def _file(path: Path, paths: SessionPaths) -> Path:
    """Return what says when a unit last changed."""
    return path / DATA_FILE if path == paths.journal else path


def _remove(unit: _Unit) -> bool:
    """Remove a unit, unless somebody merges or records into its session, or it is another one by now."""
    with contextlib.ExitStack() as stack:
        has_locks = unit.paths.journal.is_dir()  # without it nobody merges
        if has_locks and not stack.enter_context(unit.paths.lock("merge")):
            return False
        if not unit.is_unchanged:
            return False
        if unit.path == unit.paths.journal and not stack.enter_context(unit.paths.not_live()):
            return False
        if unit.path in (unit.paths.journal, unit.paths.archive):
            shutil.rmtree(unit.path, ignore_errors=True)
        else:
            remove_segment(unit.path)
        return True


def _holds(unit: _Unit, traces: Collection[str], connection: duckdb.DuckDBPyConnection) -> bool:
    """Whether a unit holds spans of one of the traces, or can't be read."""
    try:
        if unit.path == unit.paths.journal:
            return _journal_holds(unit.path, traces)
        if unit.path == unit.paths.archive:
            return _table_holds(f"read_parquet({quoted(unit.path / 'spans.parquet')})", unit.path, traces, connection)
        with attached(connection, unit.path) as database:
            return _table_holds(f"{database}.spans", unit.path, traces, connection)
    except FileNotFoundError:
        return False
    except (DebugStoreError, OSError):
        return True


def _table_holds(table: str, path: Path, traces: Collection[str], connection: duckdb.DuckDBPyConnection) -> bool:
    with reading(path):
        found = connection.execute(
            f"SELECT 1 FROM {table} WHERE trace_id IN (SELECT unnest(?)) LIMIT 1", [list(traces)]
        ).fetchall()
    return bool(found)


def _journal_holds(path: Path, traces: Collection[str]) -> bool:
    if not is_begun(path):
        return False
    wanted = {bytes.fromhex(trace_id) for trace_id in traces}
    with Journal.open(path) as journal:
        for _, blob in journal.blobs():
            with contextlib.suppress(CorruptDataError):  # nothing can be read from it
                found = codec.decode(blob).trace_ids
                if any(found[start : start + 16] in wanted for start in range(0, len(found), 16)):
                    return True
    return False
