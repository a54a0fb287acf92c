"""Sessions as Parquet files, for keeping and for other tools.

`archive_session` writes `{session}.archive/{table}.parquet`, one file a table of `schema`; attributes
are JSON text there (VARIANT in Parquet is slow to read). A reader takes an archive like a session.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Final

import duckdb

from otel_debugstore.errors import DebugStoreError
from otel_debugstore_exporters import schema
from otel_debugstore_exporters.archived_drops import write_drops
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.journal_file import DATA_FILE
from otel_debugstore_exporters.reader import SessionReader, load_archived
from otel_debugstore_exporters.segment import Source, connect, first_line, quoted, remove_segment, sync_path
from otel_debugstore_exporters.session import SessionPaths

ARCHIVED_TABLES: Final = tuple(table for table in schema.TABLES if table != "segment")
_WRITTEN_AS: Final = "FORMAT parquet, COMPRESSION zstd"


class ArchiveError(DebugStoreError):
    """A session can't be archived."""


def archive_session(paths: SessionPaths, *, remove: bool = False) -> Path:
    """Write a session's archive, all of it or nothing, and return its folder.

    It says what it holds (`segment.parquet`), as a segment does: spans that are in the archive and
    elsewhere count once, whatever dies when.

    Args:
        paths: The session.
        remove: Remove the journal and the segments afterwards; refused while somebody records.

    Raises:
        ArchiveError: The session is being recorded, has an archive already, or the disk refused.
        SessionNotFoundError: There is none.
    """
    paths.require()
    if paths.archive.exists():
        raise _exists(paths)
    if remove and paths.is_live():
        raise ArchiveError(
            f"Session {paths.session_id} is being recorded; stop its program, or archive without removing."
        )
    try:
        with _unfinished(paths) as temporary:
            with SessionReader(paths.base_path, [paths.session_id]) as reader:
                reader.refresh()
                export_parquet(reader, temporary)
                _write_sources(reader, paths.session_id, temporary)
                if (paths.journal / DATA_FILE).exists():
                    with Journal.open(paths.journal) as journal:
                        write_drops(temporary, journal)
                expected = reader.connection.execute("SELECT count(*) FROM spans").fetchall()[0][0]
                archived = [segment.path for segment in reader.segments()]
                held = reader.sources()
            _check(temporary, expected)
            for path in (*temporary.iterdir(), temporary):
                sync_path(path)
            temporary.rename(paths.archive)
            sync_path(paths.base_path)
    except (duckdb.Error, OSError) as error:
        raise ArchiveError(
            f"Session {paths.session_id} can't be archived ({first_line(error)}); free space or check access."
        ) from error
    if remove:
        _remove(paths, archived, held)
    return paths.archive


def unfinished_archive(paths: SessionPaths) -> Path:
    """Return the folder in which an archive is written before it gets its name."""
    return paths.archive.with_name(f".{paths.archive.name}.tmp")


def remove_unfinished(paths: SessionPaths) -> None:
    """Remove what an archiver left that died.

    Raises:
        ArchiveError: It lives, or has just finished.
    """
    with _unfinished(paths):
        pass


@contextlib.contextmanager
def _unfinished(paths: SessionPaths) -> Iterator[Path]:
    """Hold the folder in which the archive is written, empty: one process does. Remove it if it is still there."""
    folder = unfinished_archive(paths)
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ArchiveError(
                f"Session {paths.session_id} is being archived already; wait until it is done."
            ) from error
        try:
            if not _is_at(folder, descriptor) or paths.archive.exists():  # its holder has just finished
                raise _exists(paths)
            for left in folder.iterdir():
                left.unlink()
            yield folder
        finally:
            if _is_at(folder, descriptor):
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _is_at(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(folder.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _exists(paths: SessionPaths) -> ArchiveError:
    return ArchiveError(f"{paths.archive} exists already; move it away to archive the session again.")


def _remove(paths: SessionPaths, archived: Sequence[Path], held: Sequence[Source]) -> None:
    """Remove what was archived, and nothing that came since."""
    with paths.not_live() as nobody_records:
        journal_is_archived = nobody_records and _holds_all(paths, held)
        if journal_is_archived:
            shutil.rmtree(paths.journal, ignore_errors=True)
    for path in archived:
        remove_segment(path)
    if not journal_is_archived:
        raise ArchiveError(
            f"Session {paths.session_id} was recorded into while it was archived; its journal stays, the rest is "
            f"in {paths.archive}."
        )


def _holds_all(paths: SessionPaths, held: Sequence[Source]) -> bool:
    if not (paths.journal / DATA_FILE).exists():
        return True
    with Journal.open(paths.journal) as journal:
        return all(
            any(s.covers(Source(journal.journal_id, sequence, sequence)) for s in held)
            for sequence, _ in journal.blobs()
        )


def _write_sources(reader: SessionReader, session_id: str, folder: Path) -> None:
    reader.connection.execute("CREATE TEMP TABLE archived AS FROM tail.segment LIMIT 0")
    for source in reader.sources():
        row = (schema.VARIANT_VERSION, *astuple(source), session_id)
        reader.connection.execute(f"INSERT INTO archived VALUES ({', '.join('?' * len(row))})", row)
    reader.connection.execute(f"COPY archived TO {quoted(folder / 'segment.parquet')} ({_WRITTEN_AS})")


def export_parquet(reader: SessionReader, folder: Path) -> None:
    """Write every table of the reader's view as Parquet into `folder`."""
    for table in ARCHIVED_TABLES:
        selected = _archived_columns(table)
        if table == "spans":
            source = reader.spans_sql(tuple(schema.TABLES[table]))
        elif table in schema.FIRST_VERSION_TABLES or table == "counters":
            source = f"SELECT * FROM {table}"
        else:
            source = " UNION ALL ".join(f"SELECT * FROM {part}.{table}" for part in reader.parts)
        distinct = _DISTINCT.get(table, "")
        order = "ORDER BY start_ns" if table in ("spans", "traces") else ""
        reader.connection.execute(
            f"COPY (SELECT {distinct} {selected} FROM ({source}) {order}) "
            f"TO {quoted(folder / f'{table}.parquet')} ({_WRITTEN_AS})"
        )


@contextlib.contextmanager
def load_archive(connection: duckdb.DuckDBPyConnection, archive: Path) -> Iterator[str]:
    """Load an archive into a database in memory, and yield its name.

    Raises:
        CorruptDataError: It can't be read.
    """
    name = f"archive_{uuid.uuid4().hex[:16]}"
    connection.execute(f"ATTACH ':memory:' AS {name}")
    try:
        schema.create_tables(connection, name)
        for table in ARCHIVED_TABLES:
            load_archived(connection, archive, table, name)
        yield name
    finally:
        with contextlib.suppress(duckdb.Error):
            connection.execute(f"DETACH {name}")


def write_tables(connection: duckdb.DuckDBPyConnection, database: str, archive: Path) -> None:
    """Replace the files of an archive by the tables of a database, each by one rename.

    `spans` comes after what it names, and after what is computed from it: whoever takes secrets out of an archive, and
    dies, finds them there the next time. Only what the first version does not have, and tells versions apart, is last.
    """
    is_first = not (archive / "rollup_total.parquet").exists()
    later = {"spans", *(schema.FIRST_VERSION_TABLES if is_first else ())}
    for table in sorted(ARCHIVED_TABLES, key=lambda table: table in later):
        order = " ORDER BY start_ns" if table in ("spans", "traces") else ""
        path = archive / f"{table}.parquet"
        temporary = archive / f".{table}.parquet.tmp"
        connection.execute(
            f"COPY (SELECT {_archived_columns(table)} FROM {database}.{table}{order}) "
            f"TO {quoted(temporary)} ({_WRITTEN_AS})"
        )
        sync_path(temporary)
        temporary.replace(path)
    sync_path(archive)


def _archived_columns(table: str) -> str:
    columns = schema.TABLES[table].items()
    return ", ".join(f"{name}::JSON::VARCHAR AS {name}" if kind == "VARIANT" else name for name, kind in columns)


_DISTINCT: Final = {
    "resources": "DISTINCT ON (resource_id)",
    "scopes": "DISTINCT ON (scope_id)",
    "payloads": "DISTINCT ON (digest)",
    "code": "DISTINCT ON (variant)",
}


def _check(folder: Path, expected: int) -> None:
    connection = connect()
    try:
        sql = f"SELECT count(*) FROM read_parquet({quoted(folder / 'spans.parquet')})"
        found = connection.execute(sql).fetchall()[0][0]
    finally:
        connection.close()
    if found != expected:
        raise ArchiveError(f"The archive holds {found} of {expected} spans; nothing was archived. Try again.")
