"""Secrets in the tables of one database (a segment, or an archive that was loaded), and the same rows without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import duckdb

from otel_debugstore.masking import Masker
from otel_debugstore.outbox import Code, Payload
from otel_debugstore_exporters.batch import Resource, Scope, SpanBatch, SpanRecord, batch_from_records
from otel_debugstore_exporters.batch_masking import mask_batch, may_hold_secret
from otel_debugstore_exporters.rows import ROW_COLUMNS, SharedRows
from otel_debugstore_exporters.secrets_found import (
    Places,
    masked_payload,
    masked_shared,
    of_payload,
    of_record,
    of_shared,
)
from otel_debugstore_exporters.segment import SegmentWriter
from otel_debugstore_exporters.views import literal

_PAGE: Final = 512
_PAYLOADS: Final = 64
_COUNTED: Final = "counters.component"


@dataclass(slots=True)
class Looked:
    """What was found in a database: how much of what, and in which rows."""

    places: Places = field(default_factory=Places)
    span_rows: list[int] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    variants: list[str] = field(default_factory=list)
    resources: dict[str, Resource] = field(default_factory=dict)
    """Masked, by id."""
    scopes: dict[str, Scope] = field(default_factory=dict)
    components: dict[str, str] = field(default_factory=dict)
    """Names of components in `counters`, and what they are without secrets."""


def look(
    connection: duckdb.DuckDBPyConnection, database: str, masker: Masker, progress: Callable[[int, int], None]
) -> Looked:
    """Return the secrets in a database.

    Args:
        connection: Where it is attached.
        database: Its name.
        masker: What a secret is.
        progress: Told how many spans are done, of how many.
    """
    looked = Looked()
    shared = SharedRows(connection, [database])
    _look_at_shared(looked, shared, masker)
    total, done = _rows(connection, f"SELECT count(*) FROM {database}.spans")[0][0], 0
    for rows in _pages(connection, f"SELECT {', '.join(ROW_COLUMNS)}, rowid FROM {database}.spans", _PAGE):
        records = [(row[-1], shared.record(row)) for row in rows]
        if may_hold_secret(batch_from_records(_bare(record) for _, record in records), masker):
            for number, record in records:
                if places := of_record(record, masker):
                    looked.places += places
                    looked.span_rows.append(number)
        done += len(rows)
        progress(done, total)
    for rows in _pages(connection, f"SELECT digest, content FROM {database}.payloads", _PAYLOADS):
        for digest, content in rows:
            if places := of_payload(bytes(content or b""), masker):
                looked.places += places
                looked.digests.append(digest)
    for rows in _pages(connection, f"SELECT variant, source FROM {database}.code", _PAYLOADS):
        for variant, source in rows:
            if kinds := masker.find(source or ""):
                looked.places.update(("code.source", kind) for kind in kinds)
                looked.variants.append(variant)
    for component, count in _rows(connection, f"SELECT component, count(*) FROM {database}.counters GROUP BY ALL"):
        for kind in masker.find(component or ""):
            looked.places[_COUNTED, kind] += count
            looked.components[component] = masker.mask_text(component)
    return looked


def add_masked(
    connection: duckdb.DuckDBPyConnection, database: str, looked: Looked, writer: SegmentWriter, masker: Masker
) -> None:
    """Have a writer take everything that a database holds, without the secrets that `look` found."""
    connection.execute("CREATE OR REPLACE TABLE memory.main.masked_row (number BIGINT)")
    for first in range(0, len(looked.span_rows), 10_000):
        numbers = looked.span_rows[first : first + 10_000]
        connection.execute("INSERT INTO memory.main.masked_row SELECT unnest(?::BIGINT[])", [numbers])
    where = {
        "spans": "rowid NOT IN (FROM memory.main.masked_row)",
        "resources": _not_in("resource_id", looked.resources),
        "scopes": _not_in("scope_id", looked.scopes),
        "payloads": _not_in("digest", looked.digests),
        "code": _not_in("variant", looked.variants),
        "counters": "true",
    }
    writer.add_tables(database, where)
    writer.add_shared(looked.resources, looked.scopes)
    shared = SharedRows(connection, [database])
    sql = f"SELECT {', '.join(ROW_COLUMNS)}, layer FROM {database}.spans WHERE rowid IN (FROM memory.main.masked_row)"
    for rows in _pages(connection, sql, _PAGE):
        for batch in _batches(rows, shared):
            writer.add(mask_batch(batch, masker))
    for digest in looked.digests:
        sql = f"SELECT digest, media_type, replayable, content FROM {database}.payloads WHERE digest = ?"
        for known, media_type, replayable, content in _rows(connection, sql, [digest]):
            payload = Payload(known, media_type or "", replayable, bytes(content or b""))
            writer.add(SpanBatch(payloads=[masked_payload(payload, masker)]))
    for variant in looked.variants:
        sql = (
            "SELECT variant, qualified_name, file_path, line_number, git_commit, source "
            f"FROM {database}.code WHERE variant = ?"
        )
        for row in _rows(connection, sql, [variant]):
            writer.add(mask_batch(SpanBatch(code=[Code(*row)]), masker))
    writer.rename_counted(looked.components)
    connection.execute("DROP TABLE memory.main.masked_row")


def _look_at_shared(looked: Looked, shared: SharedRows, masker: Masker) -> None:
    for key, resource in shared.resources.items():
        if places := of_shared("resources", resource, masker):
            looked.places += places
            looked.resources[key] = masked_shared(resource, masker)
    for key, scope in shared.scopes.items():
        if places := of_shared("scopes", scope, masker):
            looked.places += places
            looked.scopes[key] = masked_shared(scope, masker)


def _bare(record: SpanRecord) -> SpanRecord:
    """A span without what it shares with others, which is looked at once."""
    return SpanRecord(
        trace_id=record.trace_id,
        span_id=record.span_id,
        name=record.name,
        start_ns=record.start_ns,
        end_ns=record.end_ns,
        status_message=record.status_message,
        attributes=record.attributes,
        events=record.events,
        links=record.links,
    )


def _batches(rows: list[Any], shared: SharedRows) -> Iterator[SpanBatch]:
    """Rows as batches, each of one process; layers that did not come from an attribute are kept."""
    by_pid: dict[int | None, list[Any]] = {}
    for row in rows:
        by_pid.setdefault(row[ROW_COLUMNS.index("pid")], []).append(row)
    for pid, some in by_pid.items():
        batch = batch_from_records([shared.record(row) for row in some], pid)
        batch.layers = {number: row[-1] for number, row in enumerate(some) if row[-1]}
        yield batch


def _pages(connection: duckdb.DuckDBPyConnection, sql: str, size: int) -> Iterator[list[Any]]:
    cursor = connection.cursor()
    cursor.execute(sql)
    while rows := cursor.fetchmany(size):
        yield rows


def _rows(connection: duckdb.DuckDBPyConnection, sql: str, parameters: list[Any] | None = None) -> list[Any]:
    return connection.execute(sql, parameters).fetchall()


def _not_in(column: str, values: Mapping[str, Any] | list[str]) -> str:
    return f"{column} NOT IN ({', '.join(map(literal, values))})" if values else "true"
