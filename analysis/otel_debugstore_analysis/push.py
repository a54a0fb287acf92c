"""Loads sessions into ClickHouse: spans into the Collector's `otel_traces`, and what is beside them.

A push counts as a whole or not at all: its rows carry its id, and `debugstore_pushes` says which pushes ended. What
one brought that was interrupted is removed, at the latest by the next push of that session.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import duckdb
import pyarrow as pa

from otel_debugstore import attributes as names
from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query import _pushed
from otel_debugstore_analysis.query._clickhouse import refused
from otel_debugstore_exporters import views
from otel_debugstore_exporters.layer_mapping import KNOWN
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.segment import first_line

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

BATCH_ROWS: Final = 20_000
_LAST_START_NS: Final = (2**32 - 1) * 1_000_000_000
"""In 2106: the last that a DateTime of ClickHouse holds, by which `otel_traces` is sorted. Later starts are unknown."""
_BEGUN: Final = "begun"
_DONE: Final = "done"
_REPLACED: Final = "replaced"
_INSERT_SETTINGS: Final = {"max_partitions_per_insert_block": 0, "max_execution_time": 0}

Progress = Callable[[int, int], None]


class Pushed(NamedTuple):
    """What became of a session.

    Attributes:
        state: "pushed", "replaced", or "skipped" where it was there already.
        span_count: Spans of it in ClickHouse.
        more_count: Spans that it got since, where it was skipped.
    """

    session: str
    state: str
    span_count: int
    more_count: int


class Pusher:
    """A ClickHouse database to load sessions into.

    Args:
        client: A connection to it.
        place: What errors call it.

    Raises:
        QueryError: The tables can't be made.
    """

    def __init__(self, client: Client, place: str) -> None:
        self._client = client
        self._place = place
        with refused(place):
            for statement in _pushed.CREATE:
                client.command(statement)

    def push(
        self, reader: SessionReader, session: str, again: bool = False, progress: Progress | None = None
    ) -> Pushed:
        """Load a session, unless it is there.

        Args:
            reader: Of that session alone.
            session: Its id.
            again: Whether to load it although it is there, in the place of what is.
            progress: Told how many spans are loaded, of how many.

        Raises:
            QueryError: ClickHouse refused it; nothing of it counts.
        """
        reader.refresh()
        total = _one(reader, "SELECT count(*) FROM spans")
        with refused(self._place):
            before = self._pushes(session)
            done = [push for push, (state, _) in before.items() if state == _DONE]
            for push, (state, _) in before.items():
                if state == _BEGUN:
                    self._remove(push)
            if done and not again:
                there = before[done[0]][1]
                return Pushed(session, "skipped", there, max(total - there, 0))
        push = uuid.uuid4().hex
        self._load(reader, session, push, total, progress)
        self._check(push, total)
        with refused(self._place):
            self._mark((push, session, _DONE, total), *((old, session, _REPLACED, 0) for old in done))
            for old in done:
                self._remove(old)
        return Pushed(session, "replaced" if done else "pushed", total, 0)

    def _load(self, reader: SessionReader, session: str, push: str, total: int, progress: Progress | None) -> None:
        with refused(self._place):
            self._mark((push, session, _BEGUN, total))
        try:
            loaded = 0
            for batch in _batches(reader, _spans_sql(), {"push": push}):
                with refused(self._place):
                    self._client.insert_arrow(_pushed.SPANS, _as_clickhouse(batch), settings=_INSERT_SETTINGS)
                loaded += batch.num_rows
                if progress is not None:
                    progress(loaded, total)
            for table, place in _pushed.TABLES.items():
                sql = f"SELECT {', '.join(_pushed.COLUMNS[table])}, $push AS push FROM {table}"
                for batch in _batches(reader, sql, {"push": push}):
                    with refused(self._place):
                        self._client.insert_arrow(place, pa.Table.from_batches([batch]), settings=_INSERT_SETTINGS)
        except BaseException:
            with contextlib.suppress(Exception):
                self._remove(push)
            raise

    def _check(self, push: str, total: int) -> None:
        """Require that all is there: another push of the session, at the same time, would take this for unfinished."""
        with refused(self._place):
            ((there,),) = self._client.query(_pushed.COUNT_OF_PUSH, {"push": push}).result_rows
        if there != total:
            with contextlib.suppress(Exception):
                self._remove(push)
            raise QueryError(
                f"{self._place} holds {there:,} of {total:,} spans that were loaded: another push of the session ran "
                "at the same time, or the table drops spans; nothing of it counts. Push again."
            )

    def _pushes(self, session: str) -> dict[str, tuple[str, int]]:
        """Return the pushes of a session: their state and how many spans they brought."""
        rows = self._client.query(_pushed.PUSHES_OF, {"session": session}).result_rows
        return {push: (state, int(count)) for push, state, count in rows}

    def _mark(self, *rows: tuple[str, str, str, int]) -> None:
        """Say what state pushes are in; all at once."""
        columns = ("push", "session", "state", "span_count", "at_ns")
        now = time.time_ns()
        self._client.insert(_pushed.PUSHES, [[*row, now] for row in rows], columns)

    def _remove(self, push: str) -> None:
        for table, condition in _pushed.OF_PUSH.items():
            self._client.command(f"DELETE FROM {table} WHERE {condition}", {"push": push})


def _one(reader: SessionReader, sql: str) -> int:
    row = reader.connection.execute(sql).fetchone()
    return int(row[0]) if row else 0


def _batches(reader: SessionReader, sql: str, parameters: Mapping[str, Any]) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a query over the reader's views, in bounded batches."""
    try:
        with reader.connection.cursor() as cursor:
            yield from cursor.sql(sql, params=dict(parameters)).to_arrow_reader(BATCH_ROWS)
    except duckdb.Error as error:
        raise QueryError(f"The session can't be read ({first_line(error)}); run `debugstore doctor`.") from error


def _spans_sql() -> str:
    """Return the SQL of a session's spans as rows of `otel_traces`; times as integers, see `_as_clickhouse`."""
    resource = {
        _pushed.PUSH: "$push",
        _pushed.SESSION: "s.session",
        _pushed.PID: "s.pid::VARCHAR",
        _pushed.RESOURCE_ID: "s.resource_id",
        _pushed.SCOPE_ID: "s.scope_id",
    }
    own_layer = f"TRY_CAST(s.attributes['{names.LAYER}'] AS VARCHAR)"
    needs_layer = f"{own_layer} IS NULL AND s.layer IS DISTINCT FROM {_layer_by_convention()}"
    span = {
        names.LAYER: f"CASE WHEN {needs_layer} THEN coalesce(s.layer, '') END",
        _pushed.FLAGS: "nullif(s.flags, 0)::VARCHAR",
        _pushed.DROPPED_ATTRIBUTES: "nullif(s.dropped_attributes, 0)::VARCHAR",
        _pushed.DROPPED_EVENTS: "nullif(s.dropped_events, 0)::VARCHAR",
        _pushed.DROPPED_LINKS: "nullif(s.dropped_links, 0)::VARCHAR",
    }
    events = "coalesce(list_transform(s.events, lambda e: {}), [])"
    links = "coalesce(list_transform(s.links, lambda l: {}), [])"
    start = f"CASE WHEN s.start_ns BETWEEN 1 AND {_LAST_START_NS} THEN s.start_ns END"
    columns = {
        "Timestamp": f"coalesce({start}, 0)",
        "TraceId": "s.trace_id",
        "SpanId": "s.span_id",
        "ParentSpanId": "coalesce(s.parent_id, '')",
        "TraceState": "coalesce(s.trace_state, '')",
        "SpanName": "s.name",
        "SpanKind": "upper(s.kind[1]) || lower(s.kind[2:])",
        "ServiceName": "coalesce(s.service, '')",
        "ResourceAttributes": _map(_entries("r.attributes"), resource),
        "ScopeName": "coalesce(c.name, '')",
        "ScopeVersion": "coalesce(c.version, '')",
        "SpanAttributes": _map(_entries("s.attributes"), span),
        "Duration": f"coalesce(s.duration_ns, -{start}, 0)",
        "StatusCode": "upper(s.status[1]) || lower(s.status[2:])",
        "StatusMessage": "coalesce(s.status_message, '')",
        "Events.Timestamp": events.format("make_timestamp_ns(e.time_ns)"),
        "Events.Name": events.format("e.name"),
        "Events.Attributes": events.format(views.string_map("e.attributes")),
        "Links.TraceId": links.format("l.trace_id"),
        "Links.SpanId": links.format("l.span_id"),
        "Links.TraceState": links.format("l.trace_state"),
        "Links.Attributes": links.format(views.string_map("l.attributes")),
    }
    listed = ", ".join(f'{value} AS "{name}"' for name, value in columns.items())
    return f"SELECT {listed} FROM spans s LEFT JOIN resources r USING (resource_id) LEFT JOIN scopes c USING (scope_id)"


def _layer_by_convention() -> str:
    """The layer that is read of a span that names none itself."""
    known = []
    for key, layers in KNOWN.items():
        cases = " ".join(f"WHEN {views.literal(value)} THEN {views.literal(layer)}" for value, layer in layers.items())
        known.append(f"CASE TRY_CAST(s.attributes[{views.literal(key)}] AS VARCHAR) {cases} END")
    return f"coalesce({', '.join(known)})"


def _entries(attributes: str) -> str:
    """Attributes as (key, text) pairs: texts as `attributes[key]::VARCHAR` gives them, none for null.

    A cast of all of them at once writes lists and maps as JSON; these are cast one by one.
    """
    json = f"{attributes}::JSON"
    item = f"json_extract({json}, {views.json_pointer('e.key')})"
    is_nested = f"e.value[1] IN ('[', '{{') AND json_type({item}) IN ('ARRAY', 'OBJECT')"
    text = f"CASE WHEN {is_nested} THEN {item}::VARIANT::VARCHAR ELSE e.value END"
    entries = f"map_entries(coalesce({json}, '{{}}'::JSON)::MAP(VARCHAR, VARCHAR))"
    return f"list_transform({entries}, lambda e: {{'key': e.key, 'value': {text}}})"


def _map(entries: str, further: Mapping[str, str]) -> str:
    """Entries as a map, with further ones; those that are NULL are left out."""
    listed = ", ".join(f"{{'key': {views.literal(key)}, 'value': {value}}}" for key, value in further.items())
    keys = ", ".join(map(views.literal, further))
    kept = f"list_filter({entries}, lambda x: x.key NOT IN ({keys}) OR (x.key = {views.literal(names.LAYER)}))"
    return f"map_from_entries(list_filter(list_concat({kept}, [{listed}]), lambda x: x.value IS NOT NULL))"


def _as_clickhouse(batch: pa.RecordBatch) -> pa.Table:
    """Return a batch with times as ClickHouse takes them; all 64 bits of them stay as they are."""
    table = pa.Table.from_batches([batch])
    for name, kind in (("Timestamp", pa.timestamp("ns")), ("Duration", pa.uint64())):
        column = pa.chunked_array([chunk.view(kind) for chunk in table[name].chunks], kind)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table
