"""What is wrong with stored sessions, and with the state beside them, and what can be mended.

`examine` looks and changes nothing. `repair` mends what can be mended without losing a readable span:
it sets unreadable files aside (never deletes them), removes leftovers of dead writers, releases dead
readers, and forgets what is held twice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import duckdb

from otel_debugstore.errors import CorruptDataError, DebugStoreError, ForeignFileError, FormatVersionError
from otel_debugstore.session_id import RESERVED
from otel_debugstore_exporters import codec, schema
from otel_debugstore_exporters.archive import remove_unfinished, unfinished_archive
from otel_debugstore_exporters.archived_drops import drops_of
from otel_debugstore_exporters.findings import Finding, Repairable, foreign, note, problem, set_aside
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.journal_file import damage, is_begun
from otel_debugstore_exporters.reader import open_to_read
from otel_debugstore_exporters.seal import forget_covered
from otel_debugstore_exporters.segment import (
    Segment,
    attached,
    connect,
    first_line,
    quoted,
    read_sources,
    reading,
    remove_segment,
    without_covered,
)
from otel_debugstore_exporters.session import SET_ASIDE, SessionPaths, list_sessions, sessions_set_aside
from otel_debugstore_exporters.state import State

DROP_REASONS: Final = {
    "queue_full": "the queue was full for 100 ms: raise OTEL_DEBUGSTORE_QUEUE_SIZE",
    "after_shutdown": "spans ended after the tracer provider was shut down",
    "unencodable": "a value in them could not be encoded",
    "failed": "queueing them raised, which is a defect of otel-debugstore: please report it",
    "disk": "the journal could not be written: free space, or check access",
    "corrupt": "their blob in the journal was damaged when it was sealed",
    "payload": "arguments and results came faster than they were written: OTEL_DEBUGSTORE_CAPTURE keeps fewer",
}
_PAYLOAD: Final = "payload"


def examine(base_path: Path, session_ids: Sequence[str] | None = None) -> list[Finding]:
    """Return what is wrong, and what was dropped, in the given sessions (default: all, and the state beside them)."""
    return [item.finding for item in _examine_all(base_path, session_ids)]


def repair(base_path: Path, session_ids: Sequence[str] | None = None) -> list[Finding]:
    """Mend what can be mended, and return what was found with `repaired` set where it was."""
    findings = []
    for item in _examine_all(base_path, session_ids):
        repaired = False
        if item.mend is not None:
            with contextlib.suppress(OSError, DebugStoreError):
                item.mend()
                repaired = True
        findings.append(replace(item.finding, repaired=repaired))
    return findings


def _examine_all(base_path: Path, session_ids: Sequence[str] | None) -> Iterator[Repairable]:
    if session_ids is None:
        yield from _examine_state(base_path)
    for paths in _sessions(base_path, session_ids):
        yield from _examine(paths)


def _sessions(base_path: Path, session_ids: Sequence[str] | None) -> list[SessionPaths]:
    if session_ids is None:
        there = list_sessions(base_path)
        gone = [session_id for session_id in sessions_set_aside(base_path) if session_id not in there]
        return [SessionPaths(base_path, session_id) for session_id in (*there, *gone)]
    named = [SessionPaths(base_path, session_id) for session_id in session_ids]
    return [paths if paths.quarantined() else paths.require() for paths in named]


def _examine_state(base_path: Path) -> Iterator[Repairable]:
    """Look at the queue, verdicts and pins, which are of no session; findings name the id that none can have."""
    path = State(base_path).path
    earlier = sorted(base_path.glob(f"{path.name}{SET_ASIDE}*"))
    what = "the queue, verdicts and pins are in it"
    try:
        if is_begun(path) and (why := damage(path)):
            raise CorruptDataError(why)
        State(base_path).check()
    except FormatVersionError as error:
        yield Repairable(Finding(RESERVED, "problem", path.name, "a newer version wrote it", str(error)))
    except CorruptDataError as error:
        remedy = "restore it from a copy, or `debugstore doctor --repair` sets it aside; the queue is empty then"
        finding = Finding(RESERVED, "problem", path.name, f"can't be read ({error}); {what}", remedy)
        yield Repairable(finding, lambda: set_aside(path))
    except (DebugStoreError, OSError) as error:
        yield Repairable(Finding(RESERVED, "problem", path.name, f"{error}; {what}", "then look again"))
    for aside in earlier:
        what = "a state that could not be read was set aside"
        yield Repairable(Finding(RESERVED, "note", aside.name, what, "restore a copy of it, or delete it"))


def _examine(paths: SessionPaths) -> Iterator[Repairable]:
    aside = paths.quarantined()
    with contextlib.closing(connect()) as connection:
        segments = []
        for path in paths.segments():
            found = _examine_segment(paths, path, connection)
            if isinstance(found, Segment):
                segments.append(found)
            elif found is not None:
                yield found
        yield from _examine_leftovers(paths, segments)
        yield from _examine_archive(paths, connection)
        yield from _examine_journal(paths, without_covered(segments))
    for path in aside:
        what = "a file that could not be read was set aside"
        yield Repairable(note(paths, path.name, what, "keep it for analysis, or delete it"))


def _examine_segment(
    paths: SessionPaths, path: Path, connection: duckdb.DuckDBPyConnection
) -> Segment | Repairable | None:
    try:
        with attached(connection, path) as name:
            segment = read_sources(connection, name, path)
            with reading(path):
                count = max(_read_whole(connection, name, table) for table in schema.stored_tables(segment.version))
    except FileNotFoundError:
        return None
    except FormatVersionError as error:
        return Repairable(problem(paths, path.name, "a newer version wrote it", str(error)))
    except ForeignFileError:
        return foreign(paths, path)
    except (CorruptDataError, duckdb.Error) as error:
        what = f"can't be read ({first_line(error.__cause__ or error)})"
        finding = problem(paths, path.name, what, "`debugstore doctor --repair` sets it aside")
        return Repairable(finding, lambda: set_aside(path))
    except DebugStoreError as error:
        return Repairable(problem(paths, path.name, str(error), "then look again"))
    if count != segment.span_count:
        what = f"holds {count} spans, says {segment.span_count}"
        return Repairable(problem(paths, path.name, what, "restore the file from a copy"))
    return segment


def _read_whole(connection: duckdb.DuckDBPyConnection, database: str, table: str) -> int:
    """Read every block of a table, so that DuckDB compares its checksum; return how many spans were seen."""
    found: tuple[int, int] = connection.execute(
        f"SELECT count(*), bit_xor(hash(t)) FROM {database}.{table} t"
    ).fetchall()[0]
    return found[0] if table == "spans" else 0


def _examine_leftovers(paths: SessionPaths, segments: list[Segment]) -> Iterator[Repairable]:
    for path in paths.abandoned():
        what, remedy = (
            "left by a writer that died; its spans are elsewhere",
            "`debugstore doctor --repair` removes it",
        )
        yield Repairable(note(paths, path.name, what, remedy), lambda path=path: remove_segment(path))  # type: ignore[misc]
    unfinished = unfinished_archive(paths)
    if unfinished.exists():
        what, remedy = (
            "an archive that is being written, or whose writer died",
            "`debugstore doctor --repair` removes it",
        )
        yield Repairable(note(paths, unfinished.name, what, remedy), lambda: remove_unfinished(paths))
    kept = {segment.path for segment in without_covered(segments)}
    for segment in segments:
        if segment.path not in kept:
            what = "a larger segment holds all of it (counted once)"
            yield Repairable(
                note(paths, segment.path.name, what, "`debugstore doctor --repair` removes it"),
                lambda segment=segment: remove_segment(segment.path),  # type: ignore[misc]
            )


def _examine_archive(paths: SessionPaths, connection: duckdb.DuckDBPyConnection) -> Iterator[Repairable]:
    if not paths.archive.is_dir():
        return
    may_lack = set(schema.TABLES) - set(schema.stored_tables(_archived_version(paths, connection)))
    for table in schema.TABLES:
        path = paths.archive / f"{table}.parquet"
        if table in may_lack and not path.exists():
            continue
        try:
            connection.execute(f"SELECT bit_xor(hash(t)) FROM read_parquet({quoted(path)}) t").fetchall()
        except duckdb.Error as error:
            what = f"{path.name} can't be read ({first_line(error)})"
            yield Repairable(problem(paths, paths.archive.name, what, "restore it from a copy"))


def _archived_version(paths: SessionPaths, connection: duckdb.DuckDBPyConnection) -> int:
    """Return the format in which an archive was written; this one, where that can't be read."""
    path = quoted(paths.archive / "segment.parquet")
    with contextlib.suppress(duckdb.Error):
        rows = connection.execute(f"SELECT min(version) FROM read_parquet({path})").fetchall()
        return int(rows[0][0] or schema.SEGMENT_VERSION)
    return schema.SEGMENT_VERSION


def _examine_journal(paths: SessionPaths, segments: list[Segment]) -> Iterator[Repairable]:
    if not is_begun(paths.journal):
        yield from _drops(paths, None)
        return
    remedy = "`debugstore doctor --repair` sets it aside; recording begins a new one"
    try:
        if why := damage(paths.journal):
            raise CorruptDataError(why)
        journal = open_to_read(paths.journal)
    except FormatVersionError as error:
        yield Repairable(problem(paths, paths.journal.name, "a newer version wrote it", str(error)))
        return
    except ForeignFileError:
        yield foreign(paths, paths.journal)
        return
    except CorruptDataError as error:
        what = f"can't be read ({first_line(error.__cause__ or error)})"
        finding = problem(paths, paths.journal.name, what, remedy)
        yield Repairable(finding, lambda: set_aside(paths.journal))
        return
    except (DebugStoreError, OSError) as error:
        yield Repairable(problem(paths, paths.journal.name, str(error), "then look again"))
        return
    with journal:
        yield from _examine_blobs(paths, journal, segments)
        yield from _drops(paths, journal)


def _drops(paths: SessionPaths, journal: Journal | None) -> Iterator[Repairable]:
    for drop in drops_of(journal, paths.archive):
        why = DROP_REASONS.get(drop.reason, "see docs/losses.md")
        lost = "payloads were left out" if drop.reason == _PAYLOAD else f"spans were dropped ({drop.reason})"
        yield Repairable(note(paths, f"process {drop.pid}", f"{drop.count} {lost}", why))


def _examine_blobs(paths: SessionPaths, journal: Journal, segments: list[Segment]) -> Iterator[Repairable]:
    sealed = [s for segment in segments for s in segment.sources if s.source_id == journal.journal_id]
    twice = 0
    for sequence, blob in journal.blobs():
        if any(source.first_seq <= sequence <= source.last_seq for source in sealed):
            twice += 1
            continue
        try:
            codec.decode(blob)
        except FormatVersionError as error:
            yield Repairable(problem(paths, f"blob {sequence}", "a newer version wrote it", str(error)))
        except CorruptDataError as error:
            remedy = "sealing counts its spans as dropped (corrupt)"
            yield Repairable(problem(paths, f"blob {sequence}", str(error), remedy))
    if twice:
        what = f"{twice} blobs are in a segment too (counted once)"
        yield Repairable(
            note(paths, paths.journal.name, what, "the next sealing deletes them"),
            lambda: _forget(paths, segments),
        )


def _forget(paths: SessionPaths, segments: list[Segment]) -> None:
    with Journal.open(paths.journal) as journal:
        forget_covered(journal, segments)
