"""Secrets in what older sessions hold: where they are (`scan`), and rewriting them (`fix`).

What is recorded now is masked before it reaches the disk; what was imported, or recorded by an older version or with
fewer rules, is not. Nothing here returns or prints a secret, only its place and kind.

Death at any point: a segment or a file of an archive is replaced by one rename, after the new one is on the disk. What
the journal holds goes into a segment, masked, and is deleted after that. So nothing is lost or doubled, and what was
not reached is found by the next scan. Last, a journal that held secrets is begun anew: deleted blobs leave their bytes
in its file. (Killed between the two renames of that, the session lacks counts of drops until the next `fix`.)
Processes: `fix` holds the locks of sealing and merging, and refuses a session that is being recorded.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import duckdb

from otel_debugstore.errors import CorruptDataError, DebugStoreError
from otel_debugstore.masking import Masker
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.archive import load_archive, write_tables
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.journal_file import is_begun
from otel_debugstore_exporters.merging import uncovered
from otel_debugstore_exporters.reader import open_to_read
from otel_debugstore_exporters.scan_tables import Looked, add_masked, look
from otel_debugstore_exporters.seal import seal
from otel_debugstore_exporters.secrets_found import Places, masked_batch, of_batch
from otel_debugstore_exporters.segment import (
    WRITING_MEMORY,
    Segment,
    SegmentWriter,
    all_segments,
    attached,
    connect,
    first_line,
    remove_segment,
    sync_path,
    without_covered,
)
from otel_debugstore_exporters.session import SessionPaths, list_sessions

Progress = Callable[[str, int, int], None]
"""Told what is looked at, how many of its spans are done, and how many it has."""

_LOCK_SECONDS: Final = 5.0
_UNFINISHED: Final = "masking.unfinished"
"""In the folder of a journal whose file held secrets, until it is begun anew."""


class Found(NamedTuple):
    """Secrets of one kind in one place.

    Attributes:
        session: The session.
        place: `journal`, the file name of a segment, or `archive`.
        column: The column of its table (`status_message`, `payloads.content`), or the key of an attribute
            (`attributes.http.url`).
        kind: Which kind of secret.
        value_count: How many values hold one.
    """

    session: str
    place: str
    column: str
    kind: str
    value_count: int


class ScanError(DebugStoreError):
    """A session can't be rewritten now."""


def scan(
    base_path: Path,
    session_ids: Sequence[str] | None,
    masker: Masker,
    progress: Progress | None = None,
) -> list[Found]:
    """Return the secrets in sessions (default: all), and change nothing.

    Raises:
        SessionNotFoundError: One is not there.
        CorruptDataError: A file can't be read.
    """
    return [found for paths in _sessions(base_path, session_ids) for found in _Scan(paths, masker, progress).scan()]


def fix(
    base_path: Path,
    session_ids: Sequence[str] | None,
    masker: Masker,
    progress: Progress | None = None,
) -> list[Found]:
    """Rewrite what holds secrets in sessions (default: all) without them, and return what was found.

    Raises:
        ScanError: A session is being recorded, sealed or merged; those before it are done.
        SessionNotFoundError: One is not there.
        CorruptDataError: A file can't be read.
    """
    return [found for paths in _sessions(base_path, session_ids) for found in _Scan(paths, masker, progress).fix()]


def _sessions(base_path: Path, session_ids: Sequence[str] | None) -> list[SessionPaths]:
    known = list_sessions(base_path) if session_ids is None else session_ids
    return [SessionPaths(base_path, session_id).require() for session_id in known]


class _Scan:
    """Of one session."""

    def __init__(self, paths: SessionPaths, masker: Masker, progress: Progress | None) -> None:
        self._paths = paths
        self._masker = masker
        self._progress = progress or (lambda *_: None)
        self._found: list[Found] = []
        self._fixes = False
        self._unfinished = paths.journal / _UNFINISHED

    def scan(self) -> list[Found]:
        with contextlib.closing(connect(WRITING_MEMORY)) as connection:
            segments = without_covered(all_segments(connection, self._paths))
            if is_begun(self._paths.journal):
                with open_to_read(self._paths.journal) as journal:
                    self._look_at_journal(journal, segments)
            for segment in segments:
                with attached(connection, segment.path) as name:
                    self._look(connection, name, segment.path.name)
            if self._paths.archive.is_dir():
                with load_archive(connection, self._paths.archive) as name:
                    self._look(connection, name, "archive")
        return self._found

    def fix(self) -> list[Found]:
        paths = self._paths
        had_journal, self._fixes = paths.journal.is_dir(), True
        with _rewriting(paths), contextlib.closing(connect(WRITING_MEMORY)) as connection:
            self._put_back()
            for path in paths.abandoned():
                remove_segment(path)
            self._fix_journal(connection)
            for segment in uncovered(connection, self._paths):
                self._fix_segment(connection, segment)
            if paths.archive.is_dir():
                self._fix_archive(connection)
            if self._unfinished.exists() and is_begun(paths.journal):
                self._begin_journal_anew(connection)
            self._unfinished.unlink(missing_ok=True)
        if not had_journal and not is_begun(paths.journal):
            shutil.rmtree(paths.journal, ignore_errors=True)  # it had our locks in it, and nothing else
        return self._found

    def _look_at_journal(self, journal: Journal, segments: Iterable[Segment]) -> bool:
        """Enter what the blobs hold that are in no segment; return whether there is anything."""
        sealed = [s for segment in segments for s in segment.sources if s.source_id == journal.journal_id]
        places, done, total = Places(), 0, journal.stats().span_count
        for sequence, blob in journal.blobs():
            if not any(source.first_seq <= sequence <= source.last_seq for source in sealed):
                with contextlib.suppress(CorruptDataError):  # doctor names it
                    batch = codec.decode(blob)
                    places += of_batch(batch, self._masker)
                    done += len(batch)
                    self._progress(self._name("journal"), done, total)
        self._enter("journal", places)
        return bool(places)

    def _look(self, connection: duckdb.DuckDBPyConnection, database: str, place: str) -> Looked:
        looked = look(connection, database, self._masker, lambda *done: self._progress(self._name(place), *done))
        self._enter(place, looked.places)
        return looked

    def _enter(self, place: str, places: Counter[tuple[str, str]]) -> None:
        if places and self._fixes:
            self._unfinished.touch()
        for (column, kind), count in sorted(places.items()):
            # A name is nothing that is masked where it is stored, but nothing to be printed either.
            column = self._masker.mask_text(column)
            self._found.append(Found(self._paths.session_id, place, column, kind, count))

    def _name(self, place: str) -> str:
        return f"{self._paths.session_id} {place}"

    def _fix_journal(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Seal the journal, masked, if it holds a secret."""
        if is_begun(self._paths.journal):
            with Journal.open(self._paths.journal) as journal:
                if self._look_at_journal(journal, without_covered(all_segments(connection, self._paths))):
                    self._seal_masked(connection, journal)

    def _seal_masked(self, connection: duckdb.DuckDBPyConnection, journal: Journal) -> None:
        seal(self._paths, journal, connection=connection, change=lambda batch: masked_batch(batch, self._masker))

    def _fix_segment(self, connection: duckdb.DuckDBPyConnection, segment: Segment) -> None:
        with attached(connection, segment.path) as name:
            looked = self._look(connection, name, segment.path.name)
            if not looked.places:
                return
            changed_ns = segment.path.stat().st_mtime_ns
            with SegmentWriter(self._paths, connection=connection, compact=True) as writer:
                add_masked(connection, name, looked, writer, self._masker)
                writer.add_sources_of(segment)
                writer.publish(segment.path)
        os.utime(segment.path, ns=(changed_ns, changed_ns))  # retention goes by the age of the spans

    def _fix_archive(self, connection: duckdb.DuckDBPyConnection) -> None:
        with load_archive(connection, self._paths.archive) as name:
            looked = self._look(connection, name, "archive")
            if not looked.places:
                return
            with SegmentWriter(self._paths, connection=connection, compact=True) as writer:
                add_masked(connection, name, looked, writer, self._masker)
                write_tables(connection, writer.complete_tables(), self._paths.archive)

    def _begin_journal_anew(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Put an empty journal with the same counts of drops in the place of one whose file held secrets."""
        paths, fresh, old = self._paths, _fresh(self._paths), _old(self._paths)
        with Journal.open(paths.journal) as journal:
            self._seal_masked(connection, journal)
        with paths.not_live() as nobody_records:
            with Journal.open(paths.journal) as journal:
                is_empty = journal.stats().blob_count == 0
                drops = journal.drops()
            if not (nobody_records and is_empty):
                raise _busy(paths)
            with Journal.open(fresh) as new:
                new.adopt_drops(drops)
            paths.journal.rename(old)
            with contextlib.suppress(OSError):  # a program began to record just now, into a journal of its own
                fresh.rename(paths.journal)
            shutil.rmtree(old, ignore_errors=True)
            shutil.rmtree(fresh, ignore_errors=True)
            sync_path(paths.base_path)

    def _put_back(self) -> None:
        """Finish what a `fix` left that was killed while it put a new journal in place."""
        fresh, old = _fresh(self._paths), _old(self._paths)
        if old.is_dir():
            if fresh.is_dir() and not is_begun(self._paths.journal):
                shutil.rmtree(self._paths.journal, ignore_errors=True)
                with contextlib.suppress(OSError):
                    fresh.rename(self._paths.journal)
            shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def _rewriting(paths: SessionPaths) -> Iterator[None]:
    """Keep sealers, mergers and archivers out.

    Raises:
        ScanError: There is one, or a program records into the session; or the disk refused.
    """
    if paths.is_live():
        raise _busy(paths)
    try:
        with (
            paths.lock("seal", timeout_seconds=_LOCK_SECONDS) as may_seal,
            paths.lock("merge", timeout_seconds=_LOCK_SECONDS) as may_merge,
        ):
            if not (may_seal and may_merge):
                raise _busy(paths)
            yield
    except (duckdb.Error, OSError) as error:
        raise ScanError(
            f"Session {paths.session_id} can't be rewritten ({first_line(error)}); free space or check access. "
            "What was done stays done."
        ) from error


def _busy(paths: SessionPaths) -> ScanError:
    return ScanError(
        f"Session {paths.session_id} is being recorded, sealed or merged; end its program, then run this again."
    )


def _fresh(paths: SessionPaths) -> Path:
    return paths.journal.with_name(f".{paths.journal.name}.fresh")


def _old(paths: SessionPaths) -> Path:
    return paths.journal.with_name(f".{paths.journal.name}.old")
