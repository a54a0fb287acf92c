"""The views that users query: SQL over the parts (segments, tail, archives) of a reader.

A part is an attached database with the tables of `schema`. Views take the union of all parts.
`otel_traces` has the columns of the OpenTelemetry Collector's ClickHouse exporter; `records` and
`performance_summary` are those of the system this one replaces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from otel_debugstore import attributes as names
from otel_debugstore_exporters import schema

VISIBLE_COLUMNS: Final = tuple(column for column in schema.SPAN_COLUMNS if column != "exact")
SELF_OVERRIDES: Final = "memory.main.self_override"
"""(part, key, self_ns): self times of spans whose trace lies in several parts."""


def spans(
    parts: Sequence[str],
    corrected: Sequence[str] = (),
    attributes: Mapping[str, tuple[str, str]] | None = None,
    columns: Sequence[str] = VISIBLE_COLUMNS,
) -> str:
    """Return the SQL of the span table over all parts.

    Args:
        parts: Names of databases.
        corrected: Those of them that `self_override` has rows for.
        attributes: Further columns: name -> (attribute key, SQL type). They are read inside each part,
            where DuckDB reads only that attribute; outside the union it would read all of them.
        columns: The columns of `spans` wanted.
    """
    extra = [
        f", TRY_CAST(s.attributes[{literal(key)}] AS {kind}) AS {identifier(name)}"
        for name, (key, kind) in (attributes or {}).items()
    ]
    selects = []
    for number, part in enumerate(parts):
        join, listed = "", [f"s.{column}" for column in columns]
        if part in corrected and "self_ns" in columns:
            listed[listed.index("s.self_ns")] = "coalesce(o.self_ns, s.self_ns) AS self_ns"
            join = f" LEFT JOIN {SELF_OVERRIDES} o ON o.part = {number} AND o.key = s.rowid"
        selects.append(f"SELECT {', '.join(listed)}{''.join(extra)} FROM {part}.spans s{join}")
    return " UNION ALL ".join(selects)


def union(parts: Sequence[str], table: str) -> str:
    """Return the SQL of a table over all parts."""
    columns = ", ".join(column for column in schema.TABLES[table] if column != "exact")
    return " UNION ALL ".join(f"SELECT {columns} FROM {part}.{table}" for part in parts)


def definitions(parts: Sequence[str], corrected: Sequence[str]) -> dict[str, str]:
    """Return the SQL of every view by its name, in an order in which they can be created."""
    return {
        "spans": spans(parts, corrected),
        "traces": _traces(parts),
        "resources": _once(parts, "resources", "resource_id"),
        "scopes": _once(parts, "scopes", "scope_id"),
        "payloads": _once(parts, "payloads", "digest"),
        "code": _once(parts, "code", "variant"),
        "counters": union(parts, "counters"),
        "rollup": union(parts, "rollup"),
        "otel_traces": _OTEL_TRACES,
        "records": _RECORDS,
        "performance_summary": _PERFORMANCE_SUMMARY,
    }


def _once(parts: Sequence[str], table: str, key: str) -> str:
    """A table that a part has each row of once; several may have the same."""
    if len(parts) == 1:
        return union(parts, table)
    return f"SELECT DISTINCT ON ({key}) * FROM ({union(parts, table)})"


def _traces(parts: Sequence[str]) -> str:
    if len(parts) == 1:
        return union(parts, "traces")
    first = "arg_min({0}, start_ns) FILTER (WHERE {0} IS NOT NULL) AS {0}"
    return f"""
        SELECT trace_id, min(start_ns) AS start_ns, max(end_ns) AS end_ns, sum(span_count)::BIGINT AS span_count,
               sum(error_count)::BIGINT AS error_count, {first.format("root_name")},
               {first.format("root_duration_ns")}, {first.format("service")}, session
        FROM ({union(parts, "traces")}) GROUP BY trace_id, session"""


def _string_map(json: str) -> str:
    """Attributes as the Collector writes them: text as it is, null as no text, all else as JSON."""
    # A JSON pointer: a path can't name every key ('*', '', one with a backslash), and one such key fails the query.
    pointer = "'/' || replace(replace(key, '~', '~0'), '/', '~1')"
    value = f"coalesce(json_extract_string({json}, {pointer}), '')"
    return f"map_from_entries(list_transform(json_keys({json}), lambda key: (key, {value})))"


_OTEL_TRACES: Final = f"""
    SELECT make_timestamp_ns(s.start_ns) AS "Timestamp", s.trace_id AS "TraceId", s.span_id AS "SpanId",
           coalesce(s.parent_id, '') AS "ParentSpanId", coalesce(s.trace_state, '') AS "TraceState",
           s.name AS "SpanName", upper(s.kind[1]) || lower(s.kind[2:]) AS "SpanKind",
           coalesce(s.service, '') AS "ServiceName", {_string_map("r.attributes::JSON")} AS "ResourceAttributes",
           coalesce(c.name, '') AS "ScopeName", coalesce(c.version, '') AS "ScopeVersion",
           {_string_map("coalesce(s.attributes::JSON, '{}'::JSON)")} AS "SpanAttributes",
           greatest(s.duration_ns, 0)::UBIGINT AS "Duration",
           upper(s.status[1]) || lower(s.status[2:]) AS "StatusCode",
           coalesce(s.status_message, '') AS "StatusMessage",
           coalesce(list_transform(s.events, lambda e: make_timestamp_ns(e.time_ns)), []) AS "Events.Timestamp",
           coalesce(list_transform(s.events, lambda e: e.name), []) AS "Events.Name",
           coalesce(list_transform(s.events, lambda e: {_string_map("e.attributes")}), []) AS "Events.Attributes",
           coalesce(list_transform(s.links, lambda l: l.trace_id), []) AS "Links.TraceId",
           coalesce(list_transform(s.links, lambda l: l.span_id), []) AS "Links.SpanId",
           coalesce(list_transform(s.links, lambda l: l.trace_state), []) AS "Links.TraceState",
           coalesce(list_transform(s.links, lambda l: {_string_map("l.attributes")}), []) AS "Links.Attributes"
    FROM spans s LEFT JOIN resources r USING (resource_id) LEFT JOIN scopes c USING (scope_id)"""


def _attribute(key: str, kind: str = "VARCHAR") -> str:
    return f"TRY_CAST(attributes[{_quoted(key)}] AS {kind})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


_OUTCOME_STATUS: Final = f"""CASE {_attribute(names.OUTCOME)}
        WHEN 'timeout' THEN 'timeout' WHEN 'retry' THEN 'retry'
        WHEN 'cancelled' THEN 'error' WHEN 'interrupted' THEN 'error' END"""
"""The status of a call that ended neither by a return nor by an error; NULL for others."""

_RECORDS: Final = f"""
    SELECT trace_id || '-' || span_id AS id,
           start_ns / 1e9 + greatest(coalesce(duration_ns, 0), 0) / 1e9 AS "timestamp",
           coalesce(layer, 'span') AS context_type,
           coalesce({_attribute(names.RECORD_CONTEXT_ID)}, span_id) AS context_id, component AS context_name,
           coalesce({_attribute(names.RECORD_PARENT_CONTEXT)}, parent_id) AS parent_context,
           {_attribute(names.RECORD_REQUEST)} AS request_data, {_attribute(names.RECORD_RESPONSE)} AS response_data,
           coalesce({_attribute(names.RECORD_METADATA)}, attributes::JSON::VARCHAR) AS metadata,
           duration_ns / 1e6 AS duration_ms,
           coalesce({_attribute(names.RECORD_MEMORY_MB, "DOUBLE")}, memory_peak_bytes / 1e6) AS memory_mb,
           coalesce({_attribute(names.RECORD_CPU_PERCENT, "DOUBLE")},
                    CASE WHEN duration_ns > 0 THEN 100.0 * cpu_ns / duration_ns END) AS cpu_percent,
           coalesce({_attribute(names.RECORD_STATUS)}, {_OUTCOME_STATUS},
                    CASE status WHEN 'ERROR' THEN 'error' ELSE 'success' END) AS status,
           coalesce(exception_message, status_message) AS error,
           {_attribute(names.RECORD_CODE)} AS code_snapshot,
           coalesce(left(sha256({_attribute(names.RECORD_CODE)}), 16), variant) AS code_hash, variant AS variant_id
    FROM spans"""

_PERFORMANCE_SUMMARY: Final = """
    SELECT context_type, context_name, count(*) AS execution_count,
           avg(duration_ms) AS avg_duration_ms, min(duration_ms) AS min_duration_ms,
           max(duration_ms) AS max_duration_ms,
           quantile_cont(duration_ms, 0.5) AS p50_duration_ms, quantile_cont(duration_ms, 0.95) AS p95_duration_ms,
           quantile_cont(duration_ms, 0.99) AS p99_duration_ms, avg(memory_mb) AS avg_memory_mb,
           avg(cpu_percent) AS avg_cpu_percent, count(*) FILTER (WHERE status = 'success') AS success_count,
           count(*) FILTER (WHERE status <> 'success') AS error_count
    FROM records GROUP BY context_type, context_name"""


def literal(text: str) -> str:
    """Return an SQL string literal."""
    return _quoted(text)


def identifier(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
