"""`SessionReader`: one fresh view of sessions that may be recording, sealing and merging meanwhile.

Sealed segments are attached read-only; what the journals hold beyond them (the tail) is taken into
an in-memory database with the same tables, a blob once. So no reader ever waits for a writer's
lock. Order gives consistency: the journal is read first, the segments after it, and of what both
hold the segment counts; a blob that is in neither can't be, since it is deleted only after its
segment was published.

Threads: one reader belongs to one thread at a time.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import duckdb

from otel_debugstore.errors import CorruptDataError, QueryError
from otel_debugstore_exporters import codec, schema, views
from otel_debugstore_exporters.arrow import Stager, resource_row, scope_row
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.journal import Drop, Journal
from otel_debugstore_exporters.rows import ROW_COLUMNS, SharedRows
from otel_debugstore_exporters.segment import (
    Segment,
    connect,
    first_line,
    quoted,
    read_sources,
    without_covered,
)
from otel_debugstore_exporters.session import SessionPaths, list_sessions

_TAIL: Final = "tail"
_ARCHIVED_TABLES: Final = ("spans", "traces", "resources", "scopes", "payloads", "code", "counters", "rollup")


@dataclass(slots=True)
class _Session:
    paths: SessionPaths
    journal: Journal | None = None
    next_after: int = -1
    tail_sequences: list[int] = field(default_factory=list)
    listing: tuple[tuple[str, int], ...] = ()
    attached: dict[str, Segment] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Rows of a query, with the names and DuckDB types of their columns."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    truncated: bool = False


class SessionReader:
    """A view over sessions below a base path; see the module's first lines.

    Args:
        base_path: Where the sessions lie.
        session_ids: Which; all that are there when it is None (also those that begin later).
        memory_limit: DuckDB's, such as "2GB"; by default 80 % of the machine's.
        threads: DuckDB's; by default one a core.

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
    ) -> None:
        self._base_path = base_path
        self._all = session_ids is None
        self._connection = connect(memory_limit, threads)
        self._sessions = {s: _Session(SessionPaths(base_path, s).require()) for s in session_ids or ()}
        self._names = 0
        self._views_of: tuple[Any, ...] | None = None
        self._locked = False
        self.parts: list[str] = []
        self.corrected: list[str] = []
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
    def connection(self) -> duckdb.DuckDBPyConnection:
        """The DuckDB connection with the views as of the last `refresh`. For trusted SQL."""
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
                if session_id not in self._sessions:
                    self._sessions[session_id] = _Session(SessionPaths(self._base_path, session_id))
        grown = [self._read_tail(session) for session in self._sessions.values()]
        changed = [self._attach_segments(session) for session in self._sessions.values()]
        self._create_views(force=any(grown) or any(changed))
        return any(grown) or any(changed)

    def query(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), limit: int | None = None
    ) -> QueryResult:
        """Refresh, run trusted SQL and return its rows (at most `limit`).

        Raises:
            QueryError: DuckDB refused it.
        """
        self.refresh()
        return self._run(sql, parameters, limit)

    def query_untrusted(self, sql: str, limit: int | None = None, timeout_seconds: float = 60.0) -> QueryResult:
        """Refresh, shut files and network, run one SELECT of somebody's, and return its rows.

        The reader can't be refreshed after this: DuckDB does not reopen what it shut.

        Raises:
            QueryError: It is wrong, not a single SELECT, tries what is shut, or takes too long.
        """
        if not self._locked:
            self.refresh()
            self._locked = True
            for setting in ("enable_external_access = false", "lock_configuration = true"):
                self._connection.execute(f"SET {setting}")
        _require_select(sql)
        timer = threading.Timer(timeout_seconds, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            return self._run(sql, (), limit)
        except duckdb.InterruptException as error:
            raise QueryError(
                f"The query took longer than {timeout_seconds:g} s and was stopped; narrow it down."
            ) from error
        finally:
            timer.cancel()

    def spans_sql(
        self,
        columns: Sequence[str] = views.VISIBLE_COLUMNS,
        attributes: Mapping[str, tuple[str, str]] | None = None,
    ) -> str:
        """Return the SQL of the span table as of the last refresh; see `views.spans`."""
        return views.spans(self.parts, self.corrected, attributes, columns)

    def records(self, where: str = "true", parameters: Sequence[Any] = ()) -> Iterator[SpanRecord]:
        """Yield spans as of the last refresh, by session and start time, every field of them.

        Args:
            where: Trusted SQL over the columns of `spans`.
            parameters: Values for the `?` in it.
        """
        shared = SharedRows(self._connection, self.parts)
        sql = self.spans_sql(ROW_COLUMNS)
        cursor = self._connection.cursor()
        cursor.execute(
            f"SELECT {', '.join(ROW_COLUMNS)} FROM ({sql}) WHERE {where} ORDER BY session, start_ns",
            list(parameters),
        )
        while rows := cursor.fetchmany(4096):
            for row in rows:
                yield shared.record(row)

    def drops(self) -> dict[str, list[Drop]]:
        """Return by session what was dropped there."""
        return {s: session.journal.drops() if session.journal else [] for s, session in self._sessions.items()}

    def segments(self) -> list[Segment]:
        """Return the segments of the view."""
        return [segment for session in self._sessions.values() for segment in session.attached.values()]

    def close(self) -> None:
        """Let go of everything. Idempotent."""
        for session in self._sessions.values():
            if session.journal is not None:
                session.journal.close()
                session.journal = None
        self._connection.close()

    def _run(self, sql: str, parameters: Any, limit: int | None) -> QueryResult:
        try:
            cursor = self._connection.execute(sql, parameters or None)
            described = cursor.description or []
            rows = cursor.fetchall() if limit is None else cursor.fetchmany(limit + 1)
        except duckdb.InterruptException:
            raise
        except duckdb.Error as error:
            raise QueryError(f"The query failed: {first_line(error)}") from error
        names = tuple(str(column[0]) for column in described)
        kinds = tuple(str(column[1]) for column in described)
        if limit is not None and len(rows) > limit:
            return QueryResult(names, kinds, rows[:limit], truncated=True)
        return QueryResult(names, kinds, rows)

    def _create_tail(self) -> None:
        self._connection.execute(f"ATTACH ':memory:' AS {_TAIL}")
        schema.create_tables(self._connection, _TAIL)
        self._connection.execute(f"CREATE TABLE {views.SELF_OVERRIDES} (part INTEGER, key BIGINT, self_ns BIGINT)")

    def _read_tail(self, session: _Session) -> bool:
        """Take the journal's new blobs into the tail."""
        if session.journal is None:
            if not (session.paths.journal / "data.mdb").exists():
                return False
            session.journal = open_to_read(session.paths.journal)
        stager = Stager(session.paths.session_id)
        before = session.next_after
        for sequence, blob in session.journal.blobs(before):
            session.next_after = sequence
            if not self._is_sealed(session, sequence):
                session.tail_sequences.append(sequence)
                with contextlib.suppress(CorruptDataError):  # doctor names it; the others still count
                    stager.add(codec.decode(blob))
        self._insert(stager)
        return session.next_after != before

    def _is_sealed(self, session: _Session, sequence: int) -> bool:
        journal_id = session.journal.journal_id if session.journal else ""
        return any(
            source.source_id == journal_id and source.first_seq <= sequence <= source.last_seq
            for segment in session.attached.values()
            for source in segment.sources
        )

    def _insert(self, stager: Stager) -> None:
        if not len(stager):
            return
        self._connection.register("staged", stager.take())
        self._connection.execute(schema.insert_spans(_TAIL, "staged"))
        self._connection.unregister("staged")
        for table, rows in (
            ("resources", [resource_row(*item) for item in stager.resources.items()]),
            ("scopes", [scope_row(*item) for item in stager.scopes.items()]),
        ):
            for row in rows:
                values = ", ".join(
                    "?::JSON::VARIANT" if kind == "VARIANT" else "?" for kind in schema.TABLES[table].values()
                )
                self._connection.execute(f"INSERT INTO {_TAIL}.{table} VALUES ({values})", row)

    def _attach_segments(self, session: _Session) -> bool:
        """Attach what is new, detach what is gone; drop from the tail what is sealed now."""
        while True:
            listing = _listing(session.paths)
            if listing == session.listing:
                return False
            try:
                self._attach_listed(session, listing)
            except FileNotFoundError:
                continue  # merged away since the directory was listed
            if _listing(session.paths) == listing:
                break
        session.listing = listing
        if any(self._is_sealed(session, sequence) for sequence in session.tail_sequences):
            self._rebuild_tail()
        return True

    def _attach_listed(self, session: _Session, listing: tuple[tuple[str, int], ...]) -> None:
        for name in list(session.attached):
            self._connection.execute(f"DETACH {name}")
            del session.attached[name]
        found = {}
        for file, _ in listing:
            path = session.paths.base_path / file
            if path == session.paths.archive:
                continue
            self._names += 1
            name = f"segment_{self._names}"
            self._attach(path, name)
            found[name] = read_sources(self._connection, name, path)
        kept = {segment.path for segment in without_covered(found.values())}
        for name, segment in found.items():
            if segment.path in kept:
                session.attached[name] = segment
            else:
                self._connection.execute(f"DETACH {name}")
        if session.paths.archive.is_dir() and not session.attached:
            self._load_archive(session)

    def _attach(self, path: Path, name: str) -> None:
        try:
            self._connection.execute(f"ATTACH {quoted(path)} AS {name} (READ_ONLY)")
        except duckdb.Error as error:
            if not path.exists():
                raise FileNotFoundError(path) from error
            raise CorruptDataError(
                f"The segment {path} can't be read ({first_line(error)}); run `debugstore doctor --repair`."
            ) from error

    def _load_archive(self, session: _Session) -> None:
        """Take an archive's Parquet files into memory: a locked connection can't read files."""
        self._names += 1
        name = f"archive_{self._names}"
        self._connection.execute(f"ATTACH ':memory:' AS {name}")
        schema.create_tables(self._connection, name)
        for table in _ARCHIVED_TABLES:
            path = session.paths.archive / f"{table}.parquet"
            columns = ", ".join(
                f"{column}::JSON::VARIANT" if kind == "VARIANT" else f"{column}::{kind}"
                for column, kind in schema.TABLES[table].items()
            )
            try:
                self._connection.execute(
                    f"INSERT INTO {name}.{table} SELECT {columns} FROM read_parquet({quoted(path)})"
                )
            except duckdb.Error as error:
                raise CorruptDataError(
                    f"The archive {path} can't be read ({first_line(error)}); restore it from a copy."
                ) from error
        session.attached[name] = Segment(session.paths.archive, ())

    def _rebuild_tail(self) -> None:
        for table in schema.TABLES:
            self._connection.execute(f"DELETE FROM {_TAIL}.{table}")
        for session in self._sessions.values():
            session.next_after = -1
            session.tail_sequences.clear()
            self._read_tail(session)

    def _create_views(self, *, force: bool) -> None:
        sealed = [name for session in self._sessions.values() for name in session.attached]
        tail_is_empty = not any(session.tail_sequences for session in self._sessions.values())
        self.parts = sealed if sealed and tail_is_empty else [*sealed, _TAIL]
        if not force and self._views_of == tuple(self.parts):
            return
        self._views_of = tuple(self.parts)
        if _TAIL in self.parts:
            for table in ("traces", "rollup"):
                self._connection.execute(f"DELETE FROM {_TAIL}.{table}")
            schema.derive(self._connection, _TAIL)
        self._correct_self_times()
        for name, sql in views.definitions(self.parts, self.corrected).items():
            self._connection.execute(f"CREATE OR REPLACE VIEW memory.main.{name} AS {sql}")

    def _correct_self_times(self) -> None:
        """Recompute the self times of spans whose trace lies in several parts."""
        self._connection.execute(f"DELETE FROM {views.SELF_OVERRIDES}")
        self.corrected = []
        if len(self.parts) < 2:
            return
        traces = " UNION ALL ".join(f"SELECT trace_id FROM {part}.traces" for part in self.parts)
        self._connection.execute(
            f"CREATE OR REPLACE TEMP TABLE shared_trace AS SELECT trace_id FROM ({traces}) "
            "GROUP BY trace_id HAVING count(*) > 1"
        )
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
        numbers = self._connection.execute(f"SELECT DISTINCT part FROM {views.SELF_OVERRIDES}").fetchall()
        self.corrected = [self.parts[number] for (number,) in numbers]


def open_to_read(path: Path) -> Journal:
    """Open a journal to read it, also where nothing may be written."""
    writable = os.access(path, os.W_OK) and os.access(path / "data.mdb", os.W_OK)
    return Journal.open(path, readonly=not writable)


def _listing(paths: SessionPaths) -> tuple[tuple[str, int], ...]:
    found: list[tuple[str, int]] = []
    for path in paths.segments():
        with contextlib.suppress(FileNotFoundError):
            found.append((path.name, path.stat().st_ino))
    if paths.archive.is_dir():
        found.append((paths.archive.name, paths.archive.stat().st_mtime_ns))
    return tuple(found)


def _require_select(sql: str) -> None:
    try:
        statements = duckdb.extract_statements(sql)
    except duckdb.Error as error:
        raise QueryError(f"The query failed: {first_line(error)}") from error
    if len(statements) != 1:
        raise QueryError(f"A query is one SELECT, this is {len(statements)} statements; run them one by one.")
    if statements[0].type not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise QueryError(
            f"Only SELECT is allowed, this is {statements[0].type.name}: the store can't be changed by a query."
        )
