"""The tables of a segment, and the SQL that fills them. docs/schema.md describes them for users.

A segment (a `.duckdb` file, and the in-memory database that holds the journal's tail) has the same
tables. `create_tables` makes them, `insert_spans` takes staged Arrow rows (see `arrow`), and
`derive` fills what follows from the spans: self times, `traces`, `rollup`, `rollup_total`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import duckdb

SEGMENT_VERSION: Final = 3
"""Segments of this version hold `attributes` as text; see `ATTRIBUTES_TEXT`."""
VARIANT_VERSION: Final = 2
"""Segments of this version hold them as VARIANT."""
FIRST_VERSION: Final = 1
"""Segments of this version lack `rollup_total`, and the columns that `FIRST_VERSION_TABLES` makes up for."""
ROLLUP_SECONDS: Final = 10
ROLLUP_GROWTH: Final = 0.02
"""Bucket b of `rollup` holds durations d with b = ceil(ln(d) / 0.02): 2 % wide, error at most 1 %."""

EVENTS_TYPE: Final = "STRUCT(time_ns BIGINT, name VARCHAR, attributes JSON, dropped_attributes UINTEGER)[]"
LINKS_TYPE: Final = (
    "STRUCT(trace_id VARCHAR, span_id VARCHAR, trace_state VARCHAR, flags UINTEGER, attributes JSON, "
    "dropped_attributes UINTEGER)[]"
)

SPAN_COLUMNS: Final[dict[str, str]] = {
    "trace_id": "VARCHAR",
    "span_id": "VARCHAR",
    "parent_id": "VARCHAR",
    "name": "VARCHAR",
    "kind": "VARCHAR",
    "start_ns": "BIGINT",
    "duration_ns": "BIGINT",
    "status": "VARCHAR",
    "status_message": "VARCHAR",
    "exception_type": "VARCHAR",
    "exception_message": "VARCHAR",
    "service": "VARCHAR",
    "session": "VARCHAR",
    "pid": "BIGINT",
    "thread_id": "BIGINT",
    "layer": "VARCHAR",
    "component": "VARCHAR",
    "variant": "VARCHAR",
    "cpu_ns": "BIGINT",
    "memory_peak_bytes": "BIGINT",
    "memory_net_bytes": "BIGINT",
    "io_read_bytes": "BIGINT",
    "io_write_bytes": "BIGINT",
    "self_ns": "BIGINT",
    "sample_weight": "DOUBLE",
    "trace_state": "VARCHAR",
    "flags": "UINTEGER",
    "links": LINKS_TYPE,
    "events": EVENTS_TYPE,
    "dropped_attributes": "UINTEGER",
    "dropped_events": "UINTEGER",
    "dropped_links": "UINTEGER",
    "resource_id": "VARCHAR",
    "scope_id": "VARCHAR",
    "attributes": "VARIANT",
    "exact": "BLOB",
}
"""The `spans` table. `exact` holds the span as a one-span blob where the columns can't hold it exactly
(bytes, NaN, integers beyond 64 bits, lone surrogates, ...), else NULL."""

TEXT_SPANS: Final = "text_spans"
ATTRIBUTES_TEXT: Final = "attributes_text"
"""What observed programs write: VARIANT costs them 6 us a span more than JSON text, a sixth of all that recording does.
So their segments hold spans in the table `text_spans`, and `spans` is a view of it, which computes `attributes` from
the text and has all columns (and `rowid`) that the table `spans` has elsewhere, and the text. Merging makes VARIANT of
it."""

TABLES: Final[dict[str, dict[str, str]]] = {
    "spans": SPAN_COLUMNS,
    "traces": {
        "trace_id": "VARCHAR",
        "start_ns": "BIGINT",
        "end_ns": "BIGINT",
        "span_count": "BIGINT",
        "error_count": "BIGINT",
        "root_name": "VARCHAR",
        "root_start_ns": "BIGINT",
        "root_duration_ns": "BIGINT",
        "service": "VARCHAR",
        "session": "VARCHAR",
    },
    "resources": {
        "resource_id": "VARCHAR",
        "schema_url": "VARCHAR",
        "attributes": "VARIANT",
        "dropped_attributes": "UINTEGER",
        "exact": "BLOB",
    },
    "scopes": {
        "scope_id": "VARCHAR",
        "name": "VARCHAR",
        "version": "VARCHAR",
        "schema_url": "VARCHAR",
        "attributes": "VARIANT",
        "dropped_attributes": "UINTEGER",
        "exact": "BLOB",
    },
    "payloads": {
        "digest": "VARCHAR",
        "media_type": "VARCHAR",
        "size_bytes": "BIGINT",
        "replayable": "BOOLEAN",
        "content": "BLOB",
    },
    "code": {
        "variant": "VARCHAR",
        "qualified_name": "VARCHAR",
        "file_path": "VARCHAR",
        "line_number": "BIGINT",
        "git_commit": "VARCHAR",
        "source": "VARCHAR",
    },
    "counters": {
        "start_ns": "BIGINT",
        "end_ns": "BIGINT",
        "layer": "VARCHAR",
        "component": "VARCHAR",
        "session": "VARCHAR",
        "pid": "BIGINT",
        "call_count": "BIGINT",
        "error_count": "BIGINT",
        "duration_ns": "BIGINT",
        "recorded_count": "BIGINT",
        "recording_ns": "BIGINT",
    },
    "rollup": {
        "start_s": "BIGINT",
        "first_s": "BIGINT",
        "last_s": "BIGINT",
        "component": "VARCHAR",
        "layer": "VARCHAR",
        "service": "VARCHAR",
        "bucket": "SMALLINT",
        "span_count": "UINTEGER",
        "error_count": "UINTEGER",
        "duration_ns": "BIGINT",
    },
    "rollup_total": {
        "first_s": "BIGINT",
        "last_s": "BIGINT",
        "component": "VARCHAR",
        "layer": "VARCHAR",
        "service": "VARCHAR",
        "bucket": "SMALLINT",
        "span_count": "BIGINT",
        "error_count": "BIGINT",
        "duration_ns": "BIGINT",
    },
    "segment": {
        "version": "INTEGER",
        "source_id": "VARCHAR",
        "first_seq": "BIGINT",
        "last_seq": "BIGINT",
        "sha256": "VARCHAR",
        "source_name": "VARCHAR",
        "span_count": "BIGINT",
        "session": "VARCHAR",
    },
}
"""Tables by name, columns by name. `segment` has a row a source: which part of which journal, or which
imported file, the segment holds."""

FIRST_VERSION_TABLES: Final[dict[str, tuple[str, str]]] = {
    "traces": ("traces", "*, CASE WHEN root_name IS NOT NULL THEN start_ns END AS root_start_ns"),
    "rollup": ("rollup", "*, start_s AS first_s, start_s AS last_s"),
    "rollup_total": ("rollup", "* EXCLUDE (start_s), start_s AS first_s, start_s AS last_s"),
}
"""By table: the table of a segment of the first version, and what is to be selected from it."""


def stored_tables(version: int) -> list[str]:
    """Return the tables that segments and archives of a version have."""
    made_up = {table for table, (stored, _) in FIRST_VERSION_TABLES.items() if stored != table}
    return [table for table in TABLES if version != FIRST_VERSION or table not in made_up]


COUNTER_SUMS: Final = ("call_count", "error_count", "duration_ns", "recorded_count", "recording_ns")
"""The columns of `counters` that are added up."""


def create_tables(connection: duckdb.DuckDBPyConnection, database: str, *, as_text: bool = False) -> None:
    """Create all tables in an attached database.

    Args:
        connection: The DuckDB.
        database: The name of the database.
        as_text: Whether attributes of spans are stored as text.
    """
    for table, columns in TABLES.items():
        body = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        if as_text and table == "spans":
            table, body = TEXT_SPANS, body.replace('"attributes" VARIANT', _TEXT_COLUMN)
        connection.execute(f"CREATE TABLE {database}.{table} ({body})")
    if as_text:
        values = {**dict.fromkeys(SPAN_COLUMNS, ""), "attributes": f"{ATTRIBUTES_TEXT}::JSON::VARIANT AS "}
        visible = ", ".join(f'{value}"{name}"' for name, value in values.items())
        connection.execute(
            f"CREATE VIEW {database}.spans AS SELECT rowid, {visible}, {ATTRIBUTES_TEXT} FROM {TEXT_SPANS}"
        )


_TEXT_COLUMN: Final = f"{ATTRIBUTES_TEXT} VARCHAR USING COMPRESSION zstd"


def holds_text(connection: duckdb.DuckDBPyConnection, database: str) -> bool:
    """Return whether an attached database stores attributes of spans as text."""
    found = connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = ? AND table_name = ?", [database, TEXT_SPANS]
    )
    return bool(found.fetchall())


def copy_spans(
    connection: duckdb.DuckDBPyConnection,
    database: str,
    as_text: bool,
    sources: Sequence[str],
    session: str,
    where: str,
) -> str:
    """Return the SQL that takes spans of other databases into one.

    Args:
        connection: The DuckDB.
        database: Where they go.
        as_text: Whether attributes of spans are stored as text there.
        sources: The names of the databases they are in.
        session: The session they belong to.
        where: Which spans.
    """
    kept = ", ".join(column for column in SPAN_COLUMNS if column not in ("attributes", "session"))
    selects = []
    for source in sources:
        table, attributes = "spans", "attributes::JSON::VARCHAR" if as_text else "attributes"
        if as_text and holds_text(connection, source):
            table, attributes = TEXT_SPANS, ATTRIBUTES_TEXT
        selects.append(f"SELECT {kept}, '{session}', {attributes} FROM {source}.{table} WHERE {where}")
    table, attributes = (TEXT_SPANS, ATTRIBUTES_TEXT) if as_text else ("spans", "attributes")
    into = f"{table} ({kept}, session, {attributes})"
    return f"INSERT INTO {database}.{into} {' UNION ALL '.join(selects)}"


_EVENTS_JSON: Final = '[{"time_ns":"BIGINT","name":"VARCHAR","attributes":"JSON","dropped_attributes":"UINTEGER"}]'
_LINKS_JSON: Final = (
    '[{"trace_id":"VARCHAR","span_id":"VARCHAR","trace_state":"VARCHAR","flags":"UINTEGER",'
    '"attributes":"JSON","dropped_attributes":"UINTEGER"}]'
)

_STAGED: Final[dict[str, str]] = {
    "parent_id": "nullif(parent_id, '0000000000000000')",
    "kind": "coalesce(['UNSPECIFIED','INTERNAL','SERVER','CLIENT','PRODUCER','CONSUMER'][kind + 1], kind::VARCHAR)",
    "start_ns": "nullif(start_ns, -9223372036854775808)",
    "duration_ns": "nullif(duration_ns, -9223372036854775808)",
    "status": "coalesce(['UNSET','OK','ERROR'][status + 1], status::VARCHAR)",
    "self_ns": "nullif(duration_ns, -9223372036854775808)",
    "links": f"CASE WHEN links <> '' THEN from_json(links, '{_LINKS_JSON}') END",
    "events": f"CASE WHEN events <> '' THEN from_json(events, '{_EVENTS_JSON}') END",
    "attributes": "CASE WHEN attributes <> '' THEN attributes::JSON::VARIANT END",
    "exact": "CASE WHEN octet_length(exact) > 0 THEN exact END",
}
_NULL_IF_EMPTY: Final = (
    "status_message",
    "exception_type",
    "exception_message",
    "service",
    "layer",
    "variant",
    "trace_state",
)
_NULL_IF_MINIMUM: Final = (
    "pid",
    "thread_id",
    "cpu_ns",
    "memory_peak_bytes",
    "memory_net_bytes",
    "io_read_bytes",
    "io_write_bytes",
)


def staged_expression(column: str) -> str:
    """Return the SQL that makes a column of `spans` from the staged row."""
    if column in _NULL_IF_EMPTY:
        return f"nullif({column}, '')"
    if column in _NULL_IF_MINIMUM:
        return f"nullif({column}, -9223372036854775808)"
    return _STAGED.get(column, column)


def insert_spans(database: str, staged: str, *, as_text: bool = False) -> str:
    """Return the SQL that takes staged rows into `spans`, in their order; see `create_tables` for `as_text`.

    Staged rows make one row group, and DuckDB's zone maps are by row group: sorting within it would help no
    query, and takes a fifth of the time and half of the memory of sealing. Merging sorts a segment as a whole.
    """
    values = {column: staged_expression(column) for column in SPAN_COLUMNS}
    if as_text:
        values["attributes"] = "nullif(attributes, '')"
    table = TEXT_SPANS if as_text else "spans"
    return f"INSERT INTO {database}.{table} SELECT {', '.join(values.values())} FROM {staged}"


_FAR_NS: Final = 4_000_000_000_000_000_000
"""Times beyond this (the year 2096) are kept, but left out of sums that could overflow."""


def self_times(edges: str) -> str:
    """Return the SQL of (key, self_ns) for the spans of `edges` that have children there, and maybe for others.

    Self time is the duration minus the length of the union of the children's intervals, each clipped to
    the span's own. `edges` has columns key, trace_id, span_id, parent_id, start_ns, duration_ns. The
    running maximum of the ends so far, over children in order of start, gives the union in one pass.
    Spans that share an id each count all children of that id. Their intervals are joined once, not by
    every pair of span and child: what is covered before the span's end, less what is before its start.
    """
    return f"""
        WITH edge AS NOT MATERIALIZED (
            SELECT * FROM {edges}
            WHERE start_ns BETWEEN -{_FAR_NS} AND {_FAR_NS} AND duration_ns BETWEEN 1 AND {_FAR_NS}
        ), shared AS MATERIALIZED (
            SELECT trace_id, span_id
            FROM edge SEMI JOIN (SELECT trace_id, parent_id AS span_id FROM edge) USING (trace_id, span_id)
            GROUP BY trace_id, span_id HAVING count(*) > 1
        ), child AS (
            SELECT p.key AS key, p.duration_ns AS duration_ns,
                   greatest(c.start_ns, p.start_ns) AS child_start,
                   least(c.start_ns + c.duration_ns, p.start_ns + p.duration_ns) AS child_end
            FROM edge c JOIN (FROM edge ANTI JOIN shared USING (trace_id, span_id)) p
                      ON c.parent_id = p.span_id AND c.trace_id = p.trace_id
            WHERE c.start_ns < p.start_ns + p.duration_ns AND c.start_ns + c.duration_ns > p.start_ns
        ), swept AS (
            SELECT key, duration_ns, child_start, child_end,
                   max(child_end) OVER (PARTITION BY key ORDER BY child_start, child_end
                                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
            FROM child
        ), {_SHARED_IDS}
        SELECT key, (any_value(duration_ns)
                     - sum(greatest(0, child_end - greatest(child_start, coalesce(reached, child_start)))))::BIGINT
                    AS self_ns
        FROM swept GROUP BY key
        UNION ALL SELECT key, (any_value(duration_ns) - sum(covered_ns))::BIGINT FROM covered GROUP BY key"""


_SHARED_IDS: Final = """
        sharer AS (
            SELECT e.key, e.trace_id, e.span_id, e.start_ns, e.duration_ns
            FROM edge e SEMI JOIN shared USING (trace_id, span_id)
        ), reaching AS (
            SELECT trace_id, parent_id AS span_id, start_ns AS child_start, start_ns + duration_ns AS child_end,
                   max(start_ns + duration_ns) OVER (PARTITION BY trace_id, parent_id ORDER BY start_ns, duration_ns
                                                     ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
            FROM edge SEMI JOIN (SELECT trace_id, span_id AS parent_id FROM shared) USING (trace_id, parent_id)
        ), piece AS (
            SELECT trace_id, span_id, greatest(child_start, coalesce(reached, child_start)) AS begin_ns,
                   child_end AS end_ns
            FROM reaching WHERE reached IS NULL OR child_end > reached
        ), busy AS (
            SELECT *, sum(end_ns::HUGEINT - begin_ns) OVER (PARTITION BY trace_id, span_id ORDER BY begin_ns) AS so_far
            FROM piece
        ), moment AS (
            SELECT key, trace_id, span_id, duration_ns, start_ns AS moment_ns, -1 AS sign FROM sharer
            UNION ALL SELECT key, trace_id, span_id, duration_ns, start_ns + duration_ns, 1 FROM sharer
        ), covered AS (
            SELECT key, duration_ns, sign * (so_far - greatest(0, end_ns - moment_ns)) AS covered_ns
            FROM moment ASOF JOIN busy ON moment.trace_id = busy.trace_id AND moment.span_id = busy.span_id
                                      AND moment.moment_ns >= busy.begin_ns
        )"""


def derive(connection: duckdb.DuckDBPyConnection, database: str, *, as_text: bool = False) -> None:
    """Fill self times, `traces`, `rollup` and `rollup_total` of a database from its spans.

    See `create_tables` for `as_text`.
    """
    stored = TEXT_SPANS if as_text else "spans"
    edges = f"(SELECT rowid AS key, trace_id, span_id, parent_id, start_ns, duration_ns FROM {database}.spans)"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE self_time AS {self_times(edges)}")
    connection.execute(
        f"UPDATE {database}.{stored} SET self_ns = duration_ns "
        "WHERE self_ns IS DISTINCT FROM duration_ns AND rowid NOT IN (SELECT key FROM self_time)"
    )
    connection.execute(
        f"UPDATE {database}.{stored} AS span SET self_ns = self_time.self_ns FROM self_time "
        "WHERE self_time.key = span.rowid AND span.self_ns IS DISTINCT FROM self_time.self_ns"
    )
    connection.execute("DROP TABLE self_time")
    connection.execute(f"INSERT INTO {database}.traces {summarise_traces(f'{database}.spans')}")
    connection.execute(f"INSERT INTO {database}.rollup {summarise_rollup(f'{database}.spans')}")
    connection.execute(f"INSERT INTO {database}.rollup_total {total_rollup(f'{database}.rollup')}")


def summarise_traces(spans: str) -> str:
    """Return the SQL of the `traces` rows of some spans: one a trace and session.

    By trace id: whoever looks for one trace reads one block of them, and there is nothing in the order of time that
    would be read without the rest.
    """
    root = "{}({}, start_ns) FILTER (WHERE parent_id IS NULL)"
    return f"""
        SELECT trace_id, min(start_ns) AS start_ns,
               max(start_ns::HUGEINT + coalesce(duration_ns, 0))
                   FILTER (WHERE start_ns::HUGEINT + coalesce(duration_ns, 0) < 9223372036854775807)::BIGINT AS end_ns,
               count(*) AS span_count, count(*) FILTER (WHERE status = 'ERROR') AS error_count,
               {root.format("arg_min", "name")} AS root_name, min(start_ns) FILTER (WHERE parent_id IS NULL)
                   AS root_start_ns, {root.format("arg_min_null", "duration_ns")} AS root_duration_ns,
               arg_min(service, start_ns) AS service, session
        FROM {spans} GROUP BY trace_id, session ORDER BY trace_id"""


def summarise_rollup(spans: str) -> str:
    """Return the SQL of the `rollup` rows of some spans."""
    ten_seconds = f"{{}} // {ROLLUP_SECONDS * 1_000_000_000} * {ROLLUP_SECONDS}"
    return f"""
        SELECT {ten_seconds.format("start_ns")} AS start_s,
               (SELECT {ten_seconds.format("min(start_ns)")} FROM {spans} WHERE duration_ns IS NOT NULL) AS first_s,
               (SELECT {ten_seconds.format("max(start_ns)")} FROM {spans} WHERE duration_ns IS NOT NULL) AS last_s,
               component, layer, service,
               ceil(ln(greatest(duration_ns, 1)) / {ROLLUP_GROWTH})::SMALLINT AS bucket,
               count(*) AS span_count, count(*) FILTER (WHERE status = 'ERROR') AS error_count,
               TRY_CAST(sum(duration_ns::HUGEINT) AS BIGINT) AS duration_ns
        FROM {spans} WHERE duration_ns IS NOT NULL
        GROUP BY ALL ORDER BY component, start_s, bucket"""


def total_rollup(rollup: str) -> str:
    """Return the SQL of the `rollup_total` rows of the rows of `rollup` of one segment.

    Spans without a start are in no window: they have rows of their own, without first and last.
    """
    return f"""
        SELECT CASE WHEN start_s IS NOT NULL THEN first_s END AS first_s,
               CASE WHEN start_s IS NOT NULL THEN last_s END AS last_s, component, layer, service, bucket,
               sum(span_count)::BIGINT AS span_count, sum(error_count)::BIGINT AS error_count,
               TRY_CAST(sum(duration_ns) AS BIGINT) AS duration_ns
        FROM {rollup} GROUP BY ALL ORDER BY component, bucket"""
