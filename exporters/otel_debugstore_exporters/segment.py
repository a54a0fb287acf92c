"""Sealed segments: immutable DuckDB files of spans.

`SegmentWriter` writes one under a temporary name and `publish` renames it: a segment is there as a
whole or not at all, whatever dies when. Each says in its `segment` table what it holds (`Source`),
so whoever reads can tell a journal blob, or a smaller segment, that a segment already covers.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Final

import duckdb

from otel_debugstore.errors import CorruptDataError, DebugStoreError, ForeignFileError, FormatVersionError
from otel_debugstore_exporters import schema
from otel_debugstore_exporters.arrow import Stager, resource_row, scope_row
from otel_debugstore_exporters.batch import Resource, Scope, SpanBatch
from otel_debugstore_exporters.session import SessionPaths
from otel_debugstore_exporters.side_tables import BY_CONTENT, sum_counters
from otel_debugstore_exporters.split import slice_batch

ROW_GROUP_SIZE: Final = 12_288
"""Rows written at a time and to a row group. Sealing 122,880 spans with ten attributes takes a peak of 126 MB
more than the bare interpreter, 140 with 20,480 and 148 with 30,720; bytes a span are 69, 65 and 62."""
_COMPACT_ROW_GROUP_SIZE: Final = 122_880
_BLOCK_SIZE: Final = 65_536
"""Bytes a span of 148,168 real spans: 53 with blocks of 16 KiB (their dictionaries are too small), 40 with 64 KiB,
50 with DuckDB's default of 256 KiB (each table wastes part of a block)."""
_STAGE_CHARACTERS: Final = 32 << 20
WRITING_MEMORY: Final = "1GB"
"""For writing segments where nobody is observed; what is too much for it goes to temporary files."""


@dataclass(frozen=True, slots=True)
class Source:
    """What spans came from: sequences `first_seq` to `last_seq` inclusive of a journal, or a file.

    A file has a `source_id` of its own for each time it was imported, sequences 0 to 0, and its SHA-256.
    The order of the fields is that of the `segment` table.
    """

    source_id: str
    first_seq: int = 0
    last_seq: int = 0
    sha256: str | None = None
    name: str | None = None
    span_count: int = 0

    def covers(self, other: Source) -> bool:
        """Whether everything of `other` came from this source."""
        return (
            self.source_id == other.source_id and self.first_seq <= other.first_seq and other.last_seq <= self.last_seq
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """A published segment and what it holds; `session` is the one that its rows name."""

    path: Path
    sources: tuple[Source, ...]
    version: int = schema.VARIANT_VERSION
    session: str | None = None

    @property
    def span_count(self) -> int:
        return sum(source.span_count for source in self.sources)

    @property
    def holds_text(self) -> bool:
        """Whether it holds attributes as text, which merging makes VARIANT of."""
        return self.version == schema.SEGMENT_VERSION

    def covered_by(self, other: Segment) -> bool:
        """Whether `other` holds everything this one holds."""
        return all(any(theirs.covers(ours) for theirs in other.sources) for ours in self.sources)


def connect(memory_limit: str | None = None, threads: int | None = None) -> duckdb.DuckDBPyConnection:
    """Return an in-memory DuckDB that asks no network, picks up no Python variables, and prints nothing."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "python_enable_replacements": False,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "wal_autocheckpoint": "1GB",
        "write_buffer_row_group_count": 1,
        "variant_minimum_shredding_size": 2048,
        # The default is a folder in the working directory, which is the observed program's.
        "temp_directory": str(Path(tempfile.gettempdir()) / f"otel-debugstore-{os.getpid()}"),
    }
    if memory_limit:
        config["memory_limit"] = memory_limit
    if threads:
        config["threads"] = threads
    connection = duckdb.connect(config=config)
    # By default it prints into programs whose `__main__` has no file, such as that of `python -c`.
    connection.execute("SET enable_progress_bar = false")
    return connection


class SegmentWriter:
    """Writes one segment. Leaving the `with` block without `publish` removes what was written.

    Args:
        paths: The session.
        connection: The DuckDB to use; its own by default.
        compact: Collect everything first, and write it sorted as a whole, in row groups of 122,880, without gaps and
            with attributes as VARIANT, not text: half the size, and quick to group by an attribute, for more memory
            and work. For processes that are not observed.
    """

    def __init__(
        self,
        paths: SessionPaths,
        *,
        connection: duckdb.DuckDBPyConnection | None = None,
        compact: bool = False,
    ) -> None:
        self._paths = paths
        self._segment_id = uuid.uuid4().hex[:16]
        self._temporary = paths.temporary_segment(self._segment_id)
        self._database = f"writing_{self._segment_id}"
        self._owned = connection is None
        self._connection = connection or connect(WRITING_MEMORY)
        self._compact = compact
        self._as_text = not compact
        self._stager = Stager(paths.session_id)
        self._sources: list[Source] = []
        self._merged: list[Segment] = []
        self._attached = False
        self._added = 0

    @property
    def span_count(self) -> int:
        """Spans taken so far."""
        return self._added + sum(segment.span_count for segment in self._merged)

    def __enter__(self) -> SegmentWriter:
        self._paths.base_path.mkdir(parents=True, exist_ok=True)
        self._attached = True
        try:
            if self._compact:
                self._create(":memory:", self._database)
            else:
                self._create(self._temporary, self._database, ROW_GROUP_SIZE)
        except BaseException:  # Ctrl-C among them
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._attached:
            with contextlib.suppress(duckdb.Error):
                self._connection.execute(f"DETACH {self._database}")
        with contextlib.suppress(duckdb.Error):
            self._connection.execute(f"DETACH DATABASE IF EXISTS {self._database}_compact")
        if self._owned:
            self._connection.close()
        remove_segment(self._temporary)

    def add(self, batch: SpanBatch) -> None:
        """Take the spans of a batch, and what it carries beside them."""
        self._added += len(batch)
        # DuckDB writes a row group at once only if one insert fills it; else it waits in memory for the checkpoint.
        room = ROW_GROUP_SIZE - len(self._stager)
        while len(batch) >= room:
            self._stager.add(slice_batch(batch, 0, room))
            self._flush()
            batch = slice_batch(batch, room, len(batch))
            room = ROW_GROUP_SIZE
        if not batch.is_empty:
            self._stager.add(batch)
        if self._stager.characters >= _STAGE_CHARACTERS:
            self._flush()

    def add_source(self, source: Source) -> None:
        """Say where batches that were added came from; its `span_count` is theirs."""
        self._sources.append(source)

    def add_segment(self, segment: Segment) -> None:
        """Take everything that another segment holds."""
        with attached(self._connection, segment.path) as other:
            self.add_tables(other)
        self.add_sources_of(segment)

    def add_segments(self, segments: Sequence[Segment]) -> None:
        """Take everything that some segments hold, without collecting it in memory.

        Their spans in one insert: what one leaves of a row group, DuckDB keeps until the checkpoint, which can't be
        interrupted: 2.1 s for eight segments of 30,208 spans with an insert each, 0.01 s for eight of 15,360 like this.
        """
        with contextlib.ExitStack() as stack:
            names = [stack.enter_context(attached(self._connection, segment.path)) for segment in segments]
            self._add_spans(names)
            for name in names:
                self._add_others(name, {})
        for segment in segments:
            self.add_sources_of(segment)

    def add_tables(self, database: str, where: Mapping[str, str] | None = None) -> None:
        """Take what the tables of an attached database hold.

        Args:
            database: Its name.
            where: By table, which rows.
        """
        conditions = where or {}
        self._add_spans([database], conditions.get("spans", "true"))
        self._add_others(database, conditions)

    def _add_spans(self, databases: Sequence[str], condition: str = "true") -> None:
        session = self._paths.session_id  # whatever the rows say: the session may have another name by now
        self._connection.execute(
            schema.copy_spans(self._connection, self._database, self._as_text, databases, session, condition)
        )

    def _add_others(self, database: str, conditions: Mapping[str, str]) -> None:
        self._connection.execute(
            f"INSERT INTO {self._database}.counters "
            f"SELECT * REPLACE ({quoted(self._paths.session_id)} AS session) FROM {database}.counters "
            f"WHERE {conditions.get('counters', 'true')}"
        )
        for table, key in (("resources", "resource_id"), ("scopes", "scope_id"), *BY_CONTENT.items()):
            self._connection.execute(
                f"INSERT INTO {self._database}.{table} SELECT * FROM {database}.{table} "
                f"WHERE {key} NOT IN (SELECT {key} FROM {self._database}.{table}) AND {conditions.get(table, 'true')}"
            )

    def add_sources_of(self, segment: Segment) -> None:
        """Say that all of a segment was taken."""
        self._merged.append(segment)

    def add_shared(self, resources: Mapping[str, Resource], scopes: Mapping[str, Scope]) -> None:
        """Take resources and scopes under the ids that spans of `add_tables` know them by."""
        self._stager.resources.update(resources)
        self._stager.scopes.update(scopes)

    def rename_counted(self, components: Mapping[str, str]) -> None:
        """Give components other names in the counters that were taken."""
        for old, new in components.items():
            self._connection.execute(
                f"UPDATE {self._database}.counters SET component = ? WHERE component = ?", [new, old]
            )

    def publish(self, path: Path | None = None) -> Segment:
        """Finish the segment and give it its name, atomically and durably.

        Args:
            path: A name to take, replacing what has it; by default the session's main segment if there is none
                yet, else a further one.
        """
        self.complete_tables()
        sources = self._write_sources()
        if self._compact:
            self._write_compactly()
        else:
            self._connection.execute(f"CHECKPOINT {self._database}")
        self._connection.execute(f"DETACH {self._database}")
        self._attached = False
        sync_path(self._temporary)
        return Segment(self._name(path), sources, self._version, self._paths.session_id)

    def complete_tables(self) -> str:
        """Bring everything that was taken into the tables, derived ones too, and return their database's name."""
        self._flush()
        insert_shared(self._connection, self._database, self._stager)
        sum_counters(self._connection, self._database)
        schema.derive(self._connection, self._database, as_text=self._as_text)
        return self._database

    def _create(self, path: Path | str, database: str, row_group_size: int | None = None) -> None:
        options = f"BLOCK_SIZE {_BLOCK_SIZE}" + (f", ROW_GROUP_SIZE {row_group_size}" if row_group_size else "")
        self._connection.execute(f"ATTACH {quoted(path)} AS {database} ({options})")
        schema.create_tables(self._connection, database, as_text=self._as_text)

    def _write_compactly(self) -> None:
        """Write the tables, which are in memory (or where DuckDB puts what is too much for it), sorted."""
        compact = f"{self._database}_compact"
        self._create(self._temporary, compact, _COMPACT_ROW_GROUP_SIZE)
        for table in schema.TABLES:
            order = {"spans": " ORDER BY start_ns", "traces": " ORDER BY trace_id"}.get(table, "")
            self._connection.execute(f"INSERT INTO {compact}.{table} SELECT * FROM {self._database}.{table}{order}")
        self._connection.execute(f"CHECKPOINT {compact}")
        self._connection.execute(f"DETACH {compact}")

    def _flush(self) -> None:
        insert_staged(self._connection, self._database, self._stager, as_text=self._as_text)

    @property
    def _version(self) -> int:
        return schema.SEGMENT_VERSION if self._as_text else schema.VARIANT_VERSION

    def _write_sources(self) -> tuple[Source, ...]:
        sources = join_ranges([source for segment in self._merged for source in segment.sources] + self._sources)
        for source in sources:
            row = (self._version, *astuple(source), self._paths.session_id)
            self._connection.execute(f"INSERT INTO {self._database}.segment VALUES ({', '.join('?' * len(row))})", row)
        return tuple(sources)

    def _name(self, path: Path | None) -> Path:
        if path is not None:
            self._temporary.replace(path)
        else:
            path = self._paths.main_segment
            try:
                os.link(self._temporary, path)  # unlike a rename, it never replaces what another process published
            except OSError:  # it is there, or the file system has no links
                path = self._paths.further_segment(self._segment_id)
                self._temporary.replace(path)
        sync_path(path.parent)
        return path


def insert_staged(
    connection: duckdb.DuckDBPyConnection, database: str, stager: Stager, *, as_text: bool = False
) -> None:
    """Put what a stager collected since the last time into the tables of a database, but for what spans share.

    See `schema.create_tables` for `as_text`.
    """
    if len(stager):
        connection.register("staged", stager.take())
        try:
            connection.execute(schema.insert_spans(database, "staged", as_text=as_text))
        finally:
            connection.unregister("staged")
    if stager.beside:
        stager.beside.insert(connection, database)


def insert_shared(connection: duckdb.DuckDBPyConnection, database: str, stager: Stager) -> None:
    """Put the resources and scopes of all that a stager collected into the tables of a database, once each."""
    for table, key, rows in (
        ("resources", "resource_id", [resource_row(*item) for item in stager.resources.items()]),
        ("scopes", "scope_id", [scope_row(*item) for item in stager.scopes.items()]),
    ):
        columns = schema.TABLES[table]
        values = ", ".join("?::JSON::VARIANT" if kind == "VARIANT" else "?" for kind in columns.values())
        for row in rows:
            connection.execute(
                f"INSERT INTO {database}.{table} SELECT {values} "
                f"WHERE NOT EXISTS (FROM {database}.{table} WHERE {key} = {quoted(row[0])})",
                row,
            )


@contextlib.contextmanager
def attached(connection: duckdb.DuckDBPyConnection, path: Path) -> Iterator[str]:
    """Attach a segment read-only, and yield the name of its database.

    Raises:
        FileNotFoundError: It was merged away, or removed.
        CorruptDataError: It is damaged.
        DebugStoreError: It can't be read for another reason.
    """
    name = f"segment_{uuid.uuid4().hex[:16]}"
    with reading(path):
        connection.execute(f"ATTACH {quoted(path)} AS {name} (READ_ONLY)")
    try:
        yield name
    finally:
        with contextlib.suppress(duckdb.Error):
            connection.execute(f"DETACH {name}")


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Translate what DuckDB says when a segment can't be read; see `attached`."""
    try:
        yield
    except (duckdb.CatalogException, duckdb.BinderException):
        raise  # the file is sound, and the question wrong
    except (duckdb.InterruptException, duckdb.OutOfMemoryException) as error:
        raise DebugStoreError(f"The segment {path} was not read ({first_line(error)}); try again.") from error
    except duckdb.Error as error:
        if not path.exists():
            raise FileNotFoundError(path) from error
        if any(sign in str(error) for sign in _NOT_OUR_TURN):
            raise DebugStoreError(
                f"The segment {path} can't be opened ({first_line(error)}); close it in other programs that "
                "may write it, and check the access rights."
            ) from error
        raise CorruptDataError(
            f"The segment {path} can't be read ({first_line(error)}); run `debugstore doctor --repair`."
        ) from error


_NOT_OUR_TURN: Final = ("Could not set lock", "Cannot open file", "Failed to open file")


def read_sources(connection: duckdb.DuckDBPyConnection, database: str, path: Path) -> Segment:
    """Return what an attached segment says of itself.

    Raises:
        FormatVersionError: A newer version wrote it.
        ForeignFileError: It is a DuckDB file, but not a segment.
    """
    try:
        with reading(path):
            rows = connection.execute(
                "SELECT version, session, source_id, first_seq, last_seq, sha256, source_name, span_count "
                f"FROM {database}.segment"
            ).fetchall()
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        raise ForeignFileError(
            f"{path} is not a segment of otel-debugstore ({first_line(error)}); move it elsewhere."
        ) from error
    newest = max((row[0] for row in rows), default=schema.VARIANT_VERSION)
    if newest > schema.SEGMENT_VERSION:
        raise FormatVersionError(
            f"The segment {path} has format version {newest}, this otel-debugstore knows up to "
            f"{schema.SEGMENT_VERSION}: upgrade it (pip install -U otel-debugstore)."
        )
    return Segment(path, tuple(Source(*row[2:]) for row in rows), newest, rows[0][1] if rows else None)


def current_segments(connection: duckdb.DuckDBPyConnection, paths: SessionPaths) -> list[Segment]:
    """Return the session's segments, without those that another one covers.

    Raises:
        CorruptDataError: One can't be read.
    """
    return without_covered(all_segments(connection, paths))


def all_segments(connection: duckdb.DuckDBPyConnection, paths: SessionPaths) -> list[Segment]:
    """Return the session's segments as of one moment, also those that another one covers.

    Raises:
        CorruptDataError: One can't be read.
    """
    while True:
        listing, found = paths.listing(), []
        try:
            for path in paths.segments():
                with attached(connection, path) as name:
                    found.append(read_sources(connection, name, path))
        except FileNotFoundError:
            continue  # merged away since the directory was listed
        if paths.listing() == listing:
            return found


def without_covered(segments: Iterable[Segment]) -> list[Segment]:
    """Return the segments of which no other holds everything; of equal ones the first."""
    found = list(segments)
    kept = [
        segment
        for number, segment in enumerate(found)
        if not any(
            segment.covered_by(other) and (index < number or not other.covered_by(segment))
            for index, other in enumerate(found)
            if index != number
        )
    ]
    return sorted(kept, key=lambda s: s.path.name)


def join_ranges(sources: Iterable[Source]) -> list[Source]:
    """Return the sources with ranges of one journal that follow each other made into one."""
    joined: list[Source] = []
    for source in sorted(sources, key=lambda s: (s.source_id, s.first_seq)):
        last = joined[-1] if joined else None
        if last and last.source_id == source.source_id and source.first_seq == last.last_seq + 1:
            count = last.span_count + source.span_count
            joined[-1] = replace(last, last_seq=source.last_seq, span_count=count)
        else:
            joined.append(source)
    return joined


def remove_segment(path: Path) -> None:
    """Unlink a segment and the write-ahead log an interrupted writer left."""
    for file in (path, path.with_name(path.name + ".wal")):
        file.unlink(missing_ok=True)


def quoted(value: Path | str) -> str:
    """Return an SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def sync_path(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
