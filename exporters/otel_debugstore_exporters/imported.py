"""A file is imported once into a session: which files it holds, and the lock of one that is being imported."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import duckdb

from otel_debugstore.errors import DebugStoreError
from otel_debugstore_exporters import schema
from otel_debugstore_exporters.reader import load_archived
from otel_debugstore_exporters.segment import connect, current_segments, first_line, read_sources
from otel_debugstore_exporters.session import SessionPaths


def imported_sha256s(paths: SessionPaths) -> set[str]:
    """Return the SHA-256 of every file that the session holds, in segments or in its archive.

    Raises:
        CorruptDataError: One of them can't be read.
    """
    with contextlib.closing(connect()) as connection:
        found = current_segments(connection, paths)  # before the archive, which is there before they are removed
        if paths.archive.is_dir():
            schema.create_tables(connection, "memory")
            with contextlib.suppress(FileNotFoundError):  # it was removed just now
                load_archived(connection, paths.archive, "segment", "memory")
                found.append(read_sources(connection, "memory", paths.archive))
    return {source.sha256 for segment in found for source in segment.sources if source.sha256}


@contextlib.contextmanager
def written(paths: SessionPaths) -> Iterator[None]:
    """Translate what the disk and DuckDB say when a session can't be written."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise DebugStoreError(
            f"Session {paths.session_id!r} below {paths.base_path} can't be written "
            f"({first_line(error)}); free space or fix access, then import again."
        ) from error


@contextlib.contextmanager
def locked(paths: SessionPaths, sha256: str) -> Iterator[None]:
    """Hold the lock of one file's import into one session, waiting for whoever has it.

    The lock file lies beside the session and not in it, so that an import that fails leaves no session
    behind. Its holder unlinks it; who finds that the file it locked is no longer the one there tries again.
    """
    with written(paths):
        paths.base_path.mkdir(parents=True, exist_ok=True)
        path = paths.base_path / f".{paths.session_id}+import-{sha256[:16]}.lock"
        descriptor = _lock(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _lock(path: Path) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    return os.path.samestat(there, os.fstat(descriptor))
