"""`SessionReader`: one fresh view of sessions that may be recording, sealing and merging meanwhile.

Sealed segments are attached read-only; what the journals hold beyond them (the tail) is taken into
an in-memory database with the same tables, a blob once. So no reader ever waits for a writer's
lock. Order gives consistency: the journal is read first, the segments after it, and of what both
hold the segment counts; a blob that is in neither can't be, since it is deleted only after its
segment was published. An archive counts where segments and journal do not hold all of it.

Threads: one reader belongs to one thread at a time.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import duckdb

from otel_debugstore.errors import CorruptDataError, DebugStoreError, QueryError
from otel_debugstore_exporters import codec, schema, views
from otel_debugstore_exporters.archived_drops import drops_of
from otel_debugstore_exporters.arrow import Stager
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.journal import Drop, Journal
from otel_debugstore_exporters.journal_file import is_begun
from otel_debugstore_exporters.query_result import QueryResult, fetched, query_errors
from otel_debugstore_exporters.rows import ROW_COLUMNS, SharedRows
from otel_debugstore_exporters.segment import (
    Segment,
    Source,
    connect,
    first_line,
    insert_shared,
    insert_staged,
    join_ranges,
    quoted,
    read_sources,
    reading,
    without_covered,
)
from otel_debugstore_exporters.session import SEGMENT_SUFFIX, Listing, SessionPaths, list_segments, list_sessions
from otel_debugstore_exporters.side_tables import BY_CONTENT
from otel_debugstore_exporters.untrusted_sql import execute, require_select

_TAIL: Final = "tail"
_STAGED_SPANS: Final = 65_536
_STAGED_CHARACTERS: Final = 128 << 20
_FILES_A_SESSION: Final = 3
"""Open at once: two of the journal, one of a segment; a further segment takes one more."""
_OTHER_FILES: Final = 256


@dataclass(slots=True)
class _Session:
    paths: SessionPaths
    journal: Journal | None = None
    next_after: int = -1
    tail_sequences: list[int] = field(default_factory=list)
    tail_spans: int = 0
    tail_keys: set[str] = field(default_factory=set)
    """Digests and variants in the tail's blobs."""
    listing: Listing | None = None
    attached: dict[str, Segment] = field(default_factory=dict)

    def sources(self) -> list[Source]:
        """What the attached segments, and the tail beyond them, hold of which journals and files."""
        found = [source for segment in self.attached.values() for source in segment.sources]
        if self.journal is not None and self.tail_sequences:
            first, last = self.tail_sequences[0], self.tail_sequences[-1]
            found.append(Source(self.journal.journal_id, first, last, span_count=self.tail_spans))
        return join_ranges(found)

    def is_sealed(self, sequence: int) -> bool:
        """Whether an attached segment holds that blob of the journal."""
        journal_id = self.journal.journal_id if self.journal else ""
        return any(
            source.source_id == journal_id and source.first_seq <= sequence <= source.last_seq
            for segment in self.attached.values()
            for source in segment.sources
        )


class SessionReader:
    """A view over sessions below a base path; see the module's first lines.

    Args:
        base_path: Where the sessions lie.
        session_ids: Which; all that are there when it is None (also those that begin later).
        memory_limit: DuckDB's, such as "2GB"; by default 80 % of the machine's.
        threads: DuckDB's; by default one a core.
        on_unreadable: Called with a session that can't be read, and why, which is left out from then on. By
            default the first one is raised.

    Raises:
        SessionNotFoundError: One of `session_ids` is not there.
    """

    def __init__(
        self,
        base_path: Path,
        session_ids: Sequence[str] | None = None,
        *,
        memory_limit: str | None = None,
        threads: int | None = None,
        on_unreadable: Callable[[str, Exception], None] | None = None,
    ) -> None:
        self._base_path = base_path
        self._all = session_ids is None
        self._on_unreadable = on_unreadable
        self._unreadable: set[str] = set()
        self._connection = connect(memory_limit, threads)
        self._sessions = {s: _Session(SessionPaths(base_path, s).require()) for s in session_ids or ()}
        self._names = 0
        self._is_stale = True  # the views do not show yet what was read
        self._locked = False
        self._parts: list[views.Part] = []
        self._pending: dict[str, str] = {}  # views that show other parts still, and their SQL
        self._create_tail()

    def __enter__(self) -> SessionReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def session_ids(self) -> list[str]:
        """The sessions read from."""
        return list(self._sessions)

    @property
    def parts(self) -> list[str]:
        """The names of the databases that the views show, as of the last refresh."""
        return [part.name for part in self._parts]

    @property
    def has_one_session(self) -> bool:
        """Whether it reads one session, whatever others begin."""
        return not self._all and len(self._sessions) == 1

    @property
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection with the views as of the last `refresh`. For trusted SQL."""
        self._create(*list(self._pending))
        return self._connection

    @property
    def bare_connection(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection with those views only that `table` named. For trusted SQL."""
        return self._connection

    def refresh(self) -> bool:
        """Take in what was recorded, sealed or merged since the last time; return whether anything was.

        Raises:
            CorruptDataError: A file can't be read.
            FormatVersionError: A newer version wrote one.
        """
        if self._locked:
            raise QueryError("This reader is locked for a query by a user; open another one.")
        if self._all:
            for session_id in list_sessions(self._base_path):
                if session_id not in self._sessions and session_id not in self._unreadable:
                    self._sessions[session_id] = _Session(SessionPaths(self._base_path, session_id))
        self._allow_files(0)
        with _translated(self._base_path):
            while True:
                for session in list(self._sessions.values()):
                    with self._left_out_if_unreadable(session):
                        self._read_tail(session)
                for session_id, listing in list_segments(self._base_path, self._sessions).items():
                    session = self._sessions[session_id]
                    if listing != session.listing:
                        with self._left_out_if_unreadable(session):
                            self._attach_segments(session, listing)
                sealed = [s for s in self._sessions.values() if any(map(s.is_sealed, s.tail_sequences))]
                if not sealed:
                    break
                for session in sealed:
                    self._forget_tail(session)  # and read the journal again, with these segments in view
            was_stale, self._is_stale = self._is_stale, True
            if was_stale:
                self._create_views()
            self._is_stale = False
        return was_stale

    def query(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), limit: int | None = None
    ) -> QueryResult:
        """Refresh, run trusted SQL and return its rows (at most `limit`).

        Raises:
            QueryError: DuckDB refused it.
        """
        self.refresh()
        with query_errors():
            return fetched(self.connection.execute(sql, parameters or None), limit)

    def query_untrusted(self, sql: str, limit: int | None = None, timeout_seconds: float = 60.0) -> QueryResult:
        """Refresh, shut files and network, run one SELECT of somebody's, and return its rows.

        The reader can't be refreshed after this: DuckDB does not reopen what it shut.

        Raises:
            QueryError: It is wrong, not a single SELECT, tries what is shut, or takes too long.
        """
        if not self._locked:
            self.refresh()
            connection = self.connection  # with all views
            self._locked = True
            for setting in ("enable_external_access = false", "lock_configuration = true"):
                connection.execute(f"SET {setting}")
        require_select(sql)
        timer = threading.Timer(timeout_seconds, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        self._connection.execute("BEGIN TRANSACTION READ ONLY")  # a SELECT can delete, by a common table expression
        try:
            with query_errors():
                return fetched(execute(self._connection, sql), limit)
        except duckdb.InterruptException as error:
            raise QueryError(
                f"The query took longer than {timeout_seconds:g} s and was stopped; narrow it down."
            ) from error
        finally:
            timer.cancel()
            timer.join()
            self._connection.execute("ROLLBACK")

    def spans_sql(
        self,
        columns: Sequence[str] = views.VISIBLE_COLUMNS,
        attributes: Mapping[str, tuple[str, str]] | None = None,
    ) -> str:
        """Return the SQL of the span table as of the last refresh; see `views.spans`."""
        return views.spans(self._parts, attributes, columns)

    def table(self, table: str) -> str:
        """Return the name of a table, or of the view over all parts, as of the last refresh.

        A table of one part by itself: DuckDB takes half a millisecond less to plan than for a view of it.
        """
        if len(self._parts) == 1 and self._parts[0].has_as_is(table):
            return self._parts[0].place(table)
        self._create(table)
        return table

    def records(self, where: str = "true", parameters: Sequence[Any] = ()) -> Iterator[SpanRecord]:
        """Yield spans as of the last refresh, by session and start time, every field of them.

        Args:
            where: Trusted SQL over the columns of `spans`.
            parameters: Values for the `?` in it.
        """
        with _translated(self._base_path):
            shared = SharedRows(self._connection, self.parts)
            sql = self.spans_sql(ROW_COLUMNS)
            cursor = self._connection.cursor()
            cursor.execute(
                f"SELECT {', '.join(ROW_COLUMNS)} FROM ({sql}) WHERE {where} ORDER BY session, start_ns",
                list(parameters),
            )
            rows = cursor.fetchmany(4096)
        while rows:
            for row in rows:
                yield shared.record(row)
            with _translated(self._base_path):
                rows = cursor.fetchmany(4096)

    def drops(self) -> dict[str, list[Drop]]:
        """Return by session what was dropped there."""
        return {s: drops_of(session.journal, session.paths.archive) for s, session in self._sessions.items()}

    def segments(self) -> list[Segment]:
        """Return the segments of the view."""
        return [segment for session in self._sessions.values() for segment in session.attached.values()]

    def sources(self) -> list[Source]:
        """Return what the view holds of which journals and files."""
        return [source for session in self._sessions.values() for source in session.sources()]

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        for session in self._sessions.values():
            if session.journal is not None:
                session.journal.close()
                session.journal = None
        self._connection.close()

    @contextlib.contextmanager
    def _left_out_if_unreadable(self, session: _Session) -> Iterator[None]:
        """Leave a session out if the block can't read it and somebody is there to be told."""
        try:
            with _translated(self._base_path):
                yield
        except (DebugStoreError, OSError) as error:
            if self._on_unreadable is None:
                raise
            session_id = session.paths.session_id
            for name in list(session.attached):
                self._detach(session, name)
            self._forget_tail(session)
            if session.journal is not None:
                session.journal.close()
            del self._sessions[session_id]
            self._unreadable.add(session_id)
            self._on_unreadable(session_id, error)

    def _create_tail(self) -> None:
        self._connection.execute(f"ATTACH ':memory:' AS {_TAIL}")
        schema.create_tables(self._connection, _TAIL)
        self._connection.execute(f"CREATE TABLE {views.SELF_OVERRIDES} (part INTEGER, key BIGINT, self_ns BIGINT)")
        # Those over views are made once, while there is one part to look at, and hold for whatever comes.
        self._pending = views.definitions([views.Part(_TAIL)]) | views.OVER_VIEWS
        self._create(*list(self._pending))

    def _read_tail(self, session: _Session) -> None:
        """Take the journal's new blobs into the tail."""
        journal = self._journal_of(session)
        if journal is None:
            return
        stager, sequences = None, list[int]()
        for sequence, blob in journal.blobs(session.next_after):
            stager = Stager(session.paths.session_id) if stager is None else stager
            sequences.append(sequence)
            if not session.is_sealed(sequence):
                with contextlib.suppress(CorruptDataError):  # doctor names it; the others still count
                    stager.add(codec.decode(blob))
            if len(stager) >= _STAGED_SPANS or stager.characters >= _STAGED_CHARACTERS:
                self._take(session, stager, sequences)
                sequences = []
        if stager is not None:
            self._take(session, stager, sequences)

    def _journal_of(self, session: _Session) -> Journal | None:
        """Return the journal at the session's path: it may have been archived, removed, or begun anew."""
        if session.journal is not None and not session.journal.is_in_place():
            self._forget_tail(session)
            session.listing = None
            session.journal.close()
            session.journal = None
        if session.journal is None:
            with contextlib.suppress(FileNotFoundError):
                if is_begun(session.paths.journal):
                    session.journal = open_to_read(session.paths.journal)
        return session.journal

    def _take(self, session: _Session, stager: Stager, sequences: Sequence[int]) -> None:
        """Add staged blobs to the tail, all of them or none."""
        if not sequences:
            return
        count, keys = len(stager), stager.beside.keys
        if count or stager.beside:
            self._connection.begin()
            try:
                insert_staged(self._connection, _TAIL, stager)
                insert_shared(self._connection, _TAIL, stager)
            except BaseException:
                self._connection.rollback()
                raise
            self._connection.commit()
        session.tail_sequences += [sequence for sequence in sequences if not session.is_sealed(sequence)]
        session.tail_spans += count
        session.tail_keys |= keys
        session.next_after = sequences[-1]
        self._is_stale = True

    def _forget_tail(self, session: _Session) -> None:
        for table in ("spans", "counters"):
            self._connection.execute(f"DELETE FROM {_TAIL}.{table} WHERE session = ?", [session.paths.session_id])
        keys, session.tail_keys = session.tail_keys, set()
        keys -= set[str]().union(*(other.tail_keys for other in self._sessions.values()))
        for table, key in BY_CONTENT.items() if keys else ():
            self._connection.execute(
                f"DELETE FROM {_TAIL}.{table} WHERE {key} IN (SELECT unnest(?::VARCHAR[]))", [list(keys)]
            )
        session.next_after = -1
        session.tail_sequences.clear()
        session.tail_spans = 0
        self._is_stale = True

    def _attach_segments(self, session: _Session, listing: Listing) -> None:
        """Attach what is new, and detach what is gone, until nothing changed meanwhile."""
        while listing != session.listing:
            self._is_stale = True
            session.listing = None
            with contextlib.suppress(FileNotFoundError):  # merged away since the directory was listed
                self._attach_listed(session, listing)
                session.listing = listing
            listing = session.paths.listing()

    def _attach_listed(self, session: _Session, listing: Listing) -> None:
        for name in list(session.attached):
            self._detach(session, name)
        found = [self._base_path / name for name, *_ in listing if name.endswith(SEGMENT_SUFFIX)]
        self._allow_files(len(found))
        for path in found:
            name = self._new_name("segment")
            with reading(path):
                self._connection.execute(f"ATTACH {quoted(path)} AS {name} (READ_ONLY)")
            session.attached[name] = Segment(path, ())  # detached again, whatever comes
            session.attached[name] = read_sources(self._connection, name, path)
        if session.paths.archive.is_dir():
            self._load_archive(session)
        kept = without_covered(session.attached.values())
        for name, segment in list(session.attached.items()):
            if segment not in kept:
                self._detach(session, name)

    def _allow_files(self, more: int) -> None:
        """Let this process open as many files as it takes; 1,024, a usual limit, is too few for 350 sessions."""
        attached = sum(len(session.attached) for session in self._sessions.values())
        need = _OTHER_FILES + _FILES_A_SESSION * len(self._sessions) + attached + more
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft == resource.RLIM_INFINITY or need <= soft:
            return
        with contextlib.suppress(ValueError, OSError):  # then opening says what failed
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (need if hard == resource.RLIM_INFINITY else min(need, hard), hard)
            )

    def _detach(self, session: _Session, name: str) -> None:
        self._connection.execute(f"DETACH {name}")
        del session.attached[name]

    def _new_name(self, kind: str) -> str:
        self._names += 1
        return f"{kind}_{self._names}"

    def _load_archive(self, session: _Session) -> None:
        """Take an archive into memory (a locked connection can't read files), unless all of it is there already."""
        archive = session.paths.archive
        there = Segment(archive, tuple(session.sources()))
        name = self._new_name("archive")
        self._connection.execute(f"ATTACH ':memory:' AS {name}")
        session.attached[name] = Segment(archive, ())
        schema.create_tables(self._connection, name)
        load_archived(self._connection, archive, "segment", name)
        session.attached[name] = replace(read_sources(self._connection, name, archive), version=schema.VARIANT_VERSION)
        if there.sources and session.attached[name].covered_by(there):
            self._detach(session, name)
            return
        for table in schema.TABLES:
            if table != "segment":
                load_archived(self._connection, archive, table, name)

    def _create_views(self) -> None:
        sealed = [
            _part(name, segment, session.paths.session_id)
            for session in self._sessions.values()
            for name, segment in session.attached.items()
        ]
        tail_is_empty = not any(session.tail_sequences for session in self._sessions.values())
        self._parts = sealed if sealed and tail_is_empty else [*sealed, views.Part(_TAIL)]
        if self._parts[-1].name == _TAIL:
            for table in schema.FIRST_VERSION_TABLES:
                self._connection.execute(f"DELETE FROM {_TAIL}.{table}")
            schema.derive(self._connection, _TAIL)
        self._correct_self_times()
        self._pending = views.definitions(self._parts)

    def _create(self, *names: str) -> None:
        """Create views that were not since the parts changed: over 300 of these, all of them take a second."""
        for name in names:
            if name in self._pending:
                self._connection.execute(f"CREATE OR REPLACE VIEW memory.main.{name} AS {self._pending[name]}")
                del self._pending[name]

    def _correct_self_times(self) -> None:
        """Recompute the self times of spans whose trace lies in several parts."""
        self._connection.execute(f"DELETE FROM {views.SELF_OVERRIDES}")
        if len(self._parts) < 2:
            return
        traces = " UNION ALL ".join(f"SELECT trace_id FROM {part}.traces" for part in self.parts)
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE shared_trace AS SELECT trace_id FROM ({traces}) "
            "GROUP BY trace_id HAVING count(*) > 1"
        )
        if self._connection.execute("SELECT count(*) FROM shared_trace").fetchall() == [(0,)]:
            return
        edges = " UNION ALL ".join(
            f"SELECT {number}::BIGINT * 1000000000000 + rowid AS key, "
            "trace_id, span_id, parent_id, start_ns, duration_ns "
            f"FROM {part}.spans SEMI JOIN shared_trace USING (trace_id)"
            for number, part in enumerate(self.parts)
        )
        self._connection.execute(f"CREATE OR REPLACE TEMP TABLE shared_edge AS {edges}")
        self._connection.execute(
            f"INSERT INTO {views.SELF_OVERRIDES} SELECT key // 1000000000000, key % 1000000000000, self_ns "
            f"FROM ({schema.self_times('shared_edge')})"
        )
        for (number,) in self._connection.execute(f"SELECT DISTINCT part FROM {views.SELF_OVERRIDES}").fetchall():
            self._parts[number] = self._parts[number]._replace(is_corrected=True)


def _part(name: str, segment: Segment, session_id: str) -> views.Part:
    return views.Part(name, segment.version, None if segment.session == session_id else session_id)


def load_archived(connection: duckdb.DuckDBPyConnection, archive: Path, table: str, database: str) -> None:
    """Put a table of an archive into a database.

    Raises:
        FileNotFoundError: The archive was removed.
        CorruptDataError: The file can't be read.
    """
    path, selected = archive / f"{table}.parquet", "*"
    if table in schema.FIRST_VERSION_TABLES and not (archive / "rollup_total.parquet").exists():
        stored, selected = schema.FIRST_VERSION_TABLES[table]
        path = archive / f"{stored}.parquet"
    columns = ", ".join(
        f"{column}::JSON::VARIANT" if kind == "VARIANT" else f"{column}::{kind}"
        for column, kind in schema.TABLES[table].items()
    )
    try:
        source = f"(SELECT {selected} FROM read_parquet({quoted(path)}))"
        connection.execute(f"INSERT INTO {database}.{table} SELECT {columns} FROM {source}")
    except duckdb.Error as error:
        if not archive.is_dir():
            raise FileNotFoundError(archive) from error
        raise CorruptDataError(
            f"The archive {path} can't be read ({first_line(error)}); restore it from a copy."
        ) from error


def open_to_read(path: Path) -> Journal:
    """Open a journal to read it, also where nothing may be written."""
    writable = os.access(path, os.W_OK) and os.access(path / "data.mdb", os.W_OK)
    return Journal.open(path, readonly=not writable)


@contextlib.contextmanager
def _translated(base_path: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.InterruptException, duckdb.OutOfMemoryException) as error:
        raise DebugStoreError(
            f"Reading below {base_path} was stopped ({first_line(error)}); narrow it down, or give it more memory."
        ) from error
    except duckdb.Error as error:
        raise CorruptDataError(
            f"Spans below {base_path} can't be read ({first_line(error)}); run `debugstore doctor`."
        ) from error
