"""What `debugstore push` makes in a ClickHouse database: `otel_traces`, and what has no place in it.

`otel_traces` is the table that the OpenTelemetry Collector's ClickHouse exporter creates, and stays as that makes it:
what else is known of a span goes into its attributes.
"""

from __future__ import annotations

from typing import Final

from otel_debugstore_exporters import schema

SPANS: Final = "otel_traces"
PUSHES: Final = "debugstore_pushes"
TABLES: Final = {"counters": "debugstore_counters", "code": "debugstore_code", "payloads": "debugstore_payloads"}
"""By canonical table the table that holds it."""
KEYS: Final = {"code": "variant", "payloads": "digest"}
"""By table what its rows are told apart by: pushes of several sessions may have brought the same."""
COLUMNS: Final = {
    table: tuple(name for name, kind in schema.TABLES[table].items() if kind != "BLOB") for table in TABLES
}
"""Their columns. What payloads hold stays on the machine that recorded them."""

SESSION: Final = "debugstore.session"
PUSH: Final = "debugstore.push"
PID: Final = "debugstore.pid"
RESOURCE_ID: Final = "debugstore.resource_id"
SCOPE_ID: Final = "debugstore.scope_id"
OF_RESOURCE: Final = (SESSION, PUSH, PID, RESOURCE_ID, SCOPE_ID)
"""Attributes of the resource."""

FLAGS: Final = "debugstore.flags"
DROPPED_ATTRIBUTES: Final = "debugstore.dropped_attributes"
DROPPED_EVENTS: Final = "debugstore.dropped_events"
DROPPED_LINKS: Final = "debugstore.dropped_links"
OF_SPAN: Final = (FLAGS, DROPPED_ATTRIBUTES, DROPPED_EVENTS, DROPPED_LINKS)
"""Attributes of the span, where they are not 0."""

_CREATE_SPANS: Final = f"""
    CREATE TABLE IF NOT EXISTS {SPANS} (
        Timestamp DateTime64(9) CODEC(Delta, ZSTD(1)),
        TraceId String CODEC(ZSTD(1)),
        SpanId String CODEC(ZSTD(1)),
        ParentSpanId String CODEC(ZSTD(1)),
        TraceState String CODEC(ZSTD(1)),
        SpanName LowCardinality(String) CODEC(ZSTD(1)),
        SpanKind LowCardinality(String) CODEC(ZSTD(1)),
        ServiceName LowCardinality(String) CODEC(ZSTD(1)),
        ResourceAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
        ScopeName String CODEC(ZSTD(1)),
        ScopeVersion String CODEC(ZSTD(1)),
        SpanAttributes Map(LowCardinality(String), String) CODEC(ZSTD(1)),
        Duration UInt64 CODEC(ZSTD(1)),
        StatusCode LowCardinality(String) CODEC(ZSTD(1)),
        StatusMessage String CODEC(ZSTD(1)),
        Events Nested (
            Timestamp DateTime64(9),
            Name LowCardinality(String),
            Attributes Map(LowCardinality(String), String)
        ) CODEC(ZSTD(1)),
        Links Nested (
            TraceId String,
            SpanId String,
            TraceState String,
            Attributes Map(LowCardinality(String), String)
        ) CODEC(ZSTD(1)),
        INDEX idx_trace_id TraceId TYPE bloom_filter(0.001) GRANULARITY 1,
        INDEX idx_res_attr_key mapKeys(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
        INDEX idx_res_attr_value mapValues(ResourceAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
        INDEX idx_span_attr_key mapKeys(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
        INDEX idx_span_attr_value mapValues(SpanAttributes) TYPE bloom_filter(0.01) GRANULARITY 1,
        INDEX idx_duration Duration TYPE minmax GRANULARITY 1
    ) ENGINE = MergeTree
    PARTITION BY toDate(Timestamp)
    ORDER BY (ServiceName, SpanName, toDateTime(Timestamp))
    SETTINGS index_granularity = 8192, ttl_only_drop_parts = 1"""

_CREATE_PUSHES: Final = f"""
    CREATE TABLE IF NOT EXISTS {PUSHES} (
        push String, session String, state LowCardinality(String), at_ns Int64, span_count UInt64
    ) ENGINE = MergeTree ORDER BY (session, at_ns)"""

UNFINISHED: Final = f"SELECT push FROM {PUSHES} GROUP BY push HAVING argMax(state, at_ns) != 'done'"
"""The pushes that did not end, or were replaced."""
PUSHES_OF: Final = f"""
    SELECT push, argMax(state, at_ns), argMax(span_count, at_ns) FROM {PUSHES}
    WHERE session = {{session:String}} GROUP BY push ORDER BY max(at_ns) DESC"""
"""The pushes of a session, the newest first."""
PUSH_OF_SPAN: Final = f"ResourceAttributes['{PUSH}']"
COUNT_OF_PUSH: Final = f"SELECT count() FROM {SPANS} WHERE {PUSH_OF_SPAN} = {{push:String}}"
OF_PUSH: Final = {
    SPANS: f"{PUSH_OF_SPAN} = {{push:String}}",
    **dict.fromkeys((*TABLES.values(), PUSHES), "push = {push:String}"),
}
"""By table the condition on the rows that a push brought."""

_TYPES: Final = {"VARCHAR": "String", "BIGINT": "Int64", "BOOLEAN": "Bool"}


def _create(table: str) -> str:
    columns = ", ".join(f"{name} Nullable({_TYPES[schema.TABLES[table][name]]})" for name in COLUMNS[table])
    return f"CREATE TABLE IF NOT EXISTS {TABLES[table]} ({columns}, push String) ENGINE = MergeTree ORDER BY push"


CREATE: Final = (_CREATE_SPANS, _CREATE_PUSHES, *map(_create, TABLES))
"""Statements that make what is not there yet."""
