"""The views that users query: SQL over the parts (segments, tail, archives) of a reader.

A part is an attached database with the tables of `schema`. Views take the union of all parts.
`otel_traces` has the columns of the OpenTelemetry Collector's ClickHouse exporter; `records` and
`performance_summary` are those of the system this one replaces; `benchmarks` are comparisons of two implementations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from otel_debugstore import attributes as names
from otel_debugstore_exporters import schema

VISIBLE_COLUMNS: Final = tuple(column for column in schema.SPAN_COLUMNS if column != "exact")
SELF_OVERRIDES: Final = "memory.main.self_override"
"""(part, key, self_ns): self times of spans whose trace lies in several parts."""


class Part(NamedTuple):
    """A database of a reader, and what of it is not as in others.

    Attributes:
        name: The name it is attached by.
        version: Of its format.
        session: The session its rows belong to, where they say another one: its file was renamed, or copied.
        is_corrected: Whether `SELF_OVERRIDES` has rows for it.
    """

    name: str
    version: int = schema.VARIANT_VERSION
    session: str | None = None
    is_corrected: bool = False

    def place(self, table: str) -> str:
        """Return what is to be read for a table: its name, or a subquery."""
        if self.version == schema.FIRST_VERSION and table in schema.FIRST_VERSION_TABLES:
            stored, selected = schema.FIRST_VERSION_TABLES[table]
            return f"(SELECT {selected} FROM {self.name}.{stored})"
        return f"{self.name}.{table}"

    def column(self, column: str) -> str:
        """Return the SQL of a column of any table."""
        if column == "session" and self.session is not None:
            return f"{literal(self.session)} AS session"
        return column

    def has_as_is(self, table: str) -> bool:
        """Return whether the table there is what users are to see."""
        is_stored = self.version != schema.FIRST_VERSION or table not in schema.FIRST_VERSION_TABLES
        return is_stored and (self.session is None or "session" not in schema.TABLES[table])


def spans(
    parts: Sequence[Part],
    attributes: Mapping[str, tuple[str, str]] | None = None,
    columns: Sequence[str] = VISIBLE_COLUMNS,
) -> str:
    """Return the SQL of the span table over all parts.

    Args:
        parts: Where the spans are.
        attributes: Further columns: name -> (attribute key, SQL type). They are read inside each part,
            where DuckDB reads only that attribute; outside the union it would read all of them.
        columns: The columns of `spans` wanted.
    """
    return " UNION ALL ".join(_spans_of(part, number, attributes or {}, columns) for number, part in enumerate(parts))


def _spans_of(part: Part, number: int, attributes: Mapping[str, tuple[str, str]], columns: Sequence[str]) -> str:
    """The spans of one part; of text, from the table itself: planning DuckDB's view of it takes as long again."""
    is_text = part.version == schema.SEGMENT_VERSION
    table, join, values = schema.TEXT_SPANS if is_text else "spans", "", dict[str, str]()
    if is_text:
        values["attributes"] = f"s.{schema.ATTRIBUTES_TEXT}::JSON::VARIANT AS attributes"
    if part.session is not None:
        values["session"] = part.column("session")
    if part.is_corrected and "self_ns" in columns:
        values["self_ns"] = "coalesce(o.self_ns, s.self_ns) AS self_ns"
        join = f" LEFT JOIN {SELF_OVERRIDES} o ON o.part = {number} AND o.key = s.rowid"
    listed = [values.get(column, f"s.{column}") for column in columns]
    for name, (key, kind) in attributes.items():
        value = f"s.attributes[{literal(key)}]"
        if is_text:  # reading one takes a fifth of making VARIANT of all
            value = f"json_extract(s.{schema.ATTRIBUTES_TEXT}, {json_pointer(literal(key))})::VARIANT"
        listed.append(f"TRY_CAST({value} AS {kind}) AS {identifier(name)}")
    return f"SELECT {', '.join(listed)} FROM {part.name}.{table} s{join}"


def union(parts: Sequence[Part], table: str) -> str:
    """Return the SQL of a table over all parts."""
    columns = [column for column in schema.TABLES[table] if column != "exact"]
    return " UNION ALL ".join(
        f"SELECT {', '.join(map(part.column, columns))} FROM {part.place(table)}" for part in parts
    )


def definitions(parts: Sequence[Part]) -> dict[str, str]:
    """Return the SQL of every view over parts by its name; those of `OVER_VIEWS` are made of these."""
    return {
        "spans": spans(parts),
        "traces": _traces(parts),
        "resources": _once(parts, "resources", "resource_id"),
        "scopes": _once(parts, "scopes", "scope_id"),
        "payloads": _once(parts, "payloads", "digest"),
        "code": _once(parts, "code", "variant", tuple(schema.TABLES["code"])),
        "counters": union(parts, "counters"),
        "rollup": union(parts, "rollup"),
        "rollup_total": union(parts, "rollup_total"),
    }


def _once(parts: Sequence[Part], table: str, key: str, order: Sequence[str] = ()) -> str:
    """A table that a part has each row of once; several may have the same, or, in this order, others of that key."""
    if len(parts) == 1:
        return union(parts, table)
    ordered = f" ORDER BY {', '.join(order)}" if order else ""
    return f"SELECT DISTINCT ON ({key}) * FROM ({union(parts, table)}){ordered}"


def _traces(parts: Sequence[Part]) -> str:
    if len(parts) == 1:
        return union(parts, "traces")
    return f"""
        SELECT trace_id, min(start_ns) AS start_ns, max(end_ns) AS end_ns, sum(span_count)::BIGINT AS span_count,
               sum(error_count)::BIGINT AS error_count, arg_min(root_name, root_start_ns) AS root_name,
               min(root_start_ns) AS root_start_ns, arg_min_null(root_duration_ns, root_start_ns) AS root_duration_ns,
               arg_min(service, start_ns) AS service, session
        FROM ({union(parts, "traces")}) GROUP BY trace_id, session"""


def json_pointer(key: str) -> str:
    """Return the SQL of the JSON pointer to a key of an object.

    A path can't name every key ('*', '', one with a backslash), and one such key fails the query.
    """
    return f"'/' || replace(replace({key}, '~', '~0'), '/', '~1')"


_TEXT_OR_WHOLE_DOUBLE: Final = r'("(?:[^"\\]|\\.)*"|-0\.0)|\.0([,}\]])'
"""What JSON has between quotes (and -0.0), which stays, and the end of a double like 1.0, of which `.0` goes."""


def string_map(json: str) -> str:
    """Return the SQL of attributes as the Collector writes them: text as it is, null as no text, all else as JSON.

    Its JSON has 1 for the number 1.0, also within lists.
    """
    value = f"coalesce(json_extract_string(m, {json_pointer('key')}), '')"
    numbers = f"regexp_replace({json}, '{_TEXT_OR_WHOLE_DOUBLE}', '\\1\\2', 'g')::JSON"
    texts = f"map_from_entries(list_transform(json_keys(m), lambda key: (key, {value})))"
    return f"list_transform([{numbers}], lambda m: {texts})[1]"


_OTEL_TRACES: Final = f"""
    SELECT make_timestamp_ns(s.start_ns) AS "Timestamp", s.trace_id AS "TraceId", s.span_id AS "SpanId",
           coalesce(s.parent_id, '') AS "ParentSpanId", coalesce(s.trace_state, '') AS "TraceState",
           s.name AS "SpanName", upper(s.kind[1]) || lower(s.kind[2:]) AS "SpanKind",
           coalesce(s.service, '') AS "ServiceName", {string_map("r.attributes::JSON")} AS "ResourceAttributes",
           coalesce(c.name, '') AS "ScopeName", coalesce(c.version, '') AS "ScopeVersion",
           {string_map("coalesce(s.attributes::JSON, '{}'::JSON)")} AS "SpanAttributes",
           greatest(s.duration_ns, 0)::UBIGINT AS "Duration",
           upper(s.status[1]) || lower(s.status[2:]) AS "StatusCode",
           coalesce(s.status_message, '') AS "StatusMessage",
           coalesce(list_transform(s.events, lambda e: make_timestamp_ns(e.time_ns)), []) AS "Events.Timestamp",
           coalesce(list_transform(s.events, lambda e: e.name), []) AS "Events.Name",
           coalesce(list_transform(s.events, lambda e: {string_map("e.attributes")}), []) AS "Events.Attributes",
           coalesce(list_transform(s.links, lambda l: l.trace_id), []) AS "Links.TraceId",
           coalesce(list_transform(s.links, lambda l: l.span_id), []) AS "Links.SpanId",
           coalesce(list_transform(s.links, lambda l: l.trace_state), []) AS "Links.TraceState",
           coalesce(list_transform(s.links, lambda l: {string_map("l.attributes")}), []) AS "Links.Attributes"
    FROM spans s LEFT JOIN resources r USING (resource_id) LEFT JOIN scopes c USING (scope_id)"""


def _attribute(key: str, kind: str = "VARCHAR") -> str:
    return f"TRY_CAST(attributes[{_quoted(key)}] AS {kind})"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _weighted_average(column: str) -> str:
    return f"sum({column} * weight) / sum(weight) FILTER (WHERE {column} IS NOT NULL)"


_OUTCOME_STATUS: Final = f"""CASE {_attribute(names.OUTCOME)}
        WHEN 'timeout' THEN 'timeout' WHEN 'retry' THEN 'retry' WHEN 'cancelled' THEN 'cancelled'
        WHEN 'interrupted' THEN 'error' END"""
"""The status of a call that ended neither by a return nor by an error; NULL for others."""

_RECORD_COLUMNS: Final = f"""
           trace_id || '-' || span_id AS id,
           start_ns / 1e9 + greatest(coalesce(duration_ns, 0), 0) / 1e9 AS "timestamp",
           coalesce(layer, 'span') AS context_type,
           coalesce({_attribute(names.RECORD_CONTEXT_ID)}, span_id) AS context_id, component AS context_name,
           coalesce({_attribute(names.RECORD_PARENT_CONTEXT)}, parent_id) AS parent_context,
           {_attribute(names.RECORD_REQUEST)} AS request_data, {_attribute(names.RECORD_RESPONSE)} AS response_data,
           CASE WHEN {_attribute(names.RECORD_CONTEXT_ID)} IS NOT NULL THEN {_attribute(names.RECORD_METADATA)}
                ELSE attributes::JSON::VARCHAR END AS metadata,
           duration_ns / 1e6 AS duration_ms,
           coalesce({_attribute(names.RECORD_MEMORY_MB, "DOUBLE")}, memory_peak_bytes / 1e6) AS memory_mb,
           coalesce({_attribute(names.RECORD_CPU_PERCENT, "DOUBLE")},
                    CASE WHEN duration_ns > 0 THEN 100.0 * cpu_ns / duration_ns END) AS cpu_percent,
           coalesce({_attribute(names.RECORD_STATUS)}, {_OUTCOME_STATUS},
                    CASE status WHEN 'ERROR' THEN 'error' ELSE 'success' END) AS status,
           coalesce(exception_message, status_message) AS error,
           {_attribute(names.RECORD_CODE)} AS code_snapshot,
           coalesce(left(sha256({_attribute(names.RECORD_CODE)}), 16), variant) AS code_hash, variant AS variant_id"""

_RECORDS: Final = f"SELECT {_RECORD_COLUMNS} FROM spans"

_BENCHMARK_COLUMNS: Final = {
    "name": (names.BENCHMARK_NAME, "VARCHAR"),
    "baseline": (names.BENCHMARK_BASELINE, "VARCHAR"),
    "candidate": (names.BENCHMARK_CANDIDATE, "VARCHAR"),
    "verdict": (names.BENCHMARK_VERDICT, "VARCHAR"),
    "cause": (names.BENCHMARK_CAUSE, "VARCHAR"),
    "ratio": (names.BENCHMARK_RATIO, "DOUBLE"),
    "ratio_low": (names.BENCHMARK_RATIO_LOW, "DOUBLE"),
    "ratio_high": (names.BENCHMARK_RATIO_HIGH, "DOUBLE"),
    "min_effect": (names.BENCHMARK_MIN_EFFECT, "DOUBLE"),
    "unit": (names.BENCHMARK_UNIT, "VARCHAR"),
    "baseline_time": (names.BENCHMARK_BASELINE_TIME, "DOUBLE"),
    "candidate_time": (names.BENCHMARK_CANDIDATE_TIME, "DOUBLE"),
    "baseline_variant": (names.BENCHMARK_BASELINE_VARIANT, "VARCHAR"),
    "candidate_variant": (names.BENCHMARK_CANDIDATE_VARIANT, "VARCHAR"),
    "processes": (names.BENCHMARK_PROCESSES, "BIGINT"),
    "pairs": (names.BENCHMARK_PAIRS, "BIGINT"),
    "checked": (names.BENCHMARK_CHECKED, "BIGINT"),
    "baseline_peak_bytes": (names.BENCHMARK_BASELINE_PEAK_BYTES, "BIGINT"),
    "candidate_peak_bytes": (names.BENCHMARK_CANDIDATE_PEAK_BYTES, "BIGINT"),
    "classes": (names.BENCHMARK_CLASSES, "VARCHAR"),
    "host": (names.BENCHMARK_HOST, "VARCHAR"),
    "python": (names.BENCHMARK_PYTHON, "VARCHAR"),
}
_BENCHMARKS: Final = f"""
    SELECT session, trace_id, span_id, start_ns, duration_ns, layer,
           {", ".join(f"{_attribute(key, kind)} AS {column}" for column, (key, kind) in _BENCHMARK_COLUMNS.items())}
    FROM spans WHERE {_attribute(names.BENCHMARK_VERDICT)} IS NOT NULL"""

_CONTEXT: Final = "context_type, context_name"
_PERFORMANCE_SUMMARY: Final = f"""
    WITH counted AS (
        SELECT DISTINCT session, layer, component, true AS is_counted FROM counters WHERE call_count > 0
    ), call AS (
        -- A span that was sampled stands for others. If its component has counters, these are counted there.
        SELECT {_CONTEXT}, duration_ms, memory_mb, cpu_percent, status, failed, sample_weight AS weight,
               CASE WHEN is_counted THEN 1.0 ELSE sample_weight END AS calls
        FROM (SELECT {_RECORD_COLUMNS}, spans.status = 'ERROR' AS failed, session, layer, component, sample_weight
              FROM spans)
        LEFT JOIN counted USING (session, layer, component)
    ), total AS (
        SELECT {_CONTEXT}, duration_ms, memory_mb, cpu_percent, weight, calls, calls * duration_ms AS total_ms,
               CASE WHEN duration_ms IS NOT NULL THEN calls END AS timed_calls,
               CASE WHEN failed THEN calls ELSE 0 END AS errors,
               CASE WHEN status = 'success' THEN calls ELSE 0 END AS successes
        FROM call
        UNION ALL BY NAME
        SELECT layer AS context_type, component AS context_name, call_count AS calls, error_count AS errors,
               call_count - error_count AS successes, duration_ns / 1e6 AS total_ms, call_count AS timed_calls
        FROM counters WHERE call_count > 0
    ), sampled AS (
        SELECT {_CONTEXT}, duration_ms, sum(weight) OVER so_far AS reached,
               sum(weight) OVER (PARTITION BY {_CONTEXT}) AS whole
        FROM call
        WHERE duration_ms IS NOT NULL AND ({_CONTEXT}) IN (SELECT ({_CONTEXT}) FROM call WHERE weight <> 1)
        WINDOW so_far AS (PARTITION BY {_CONTEXT} ORDER BY duration_ms)
    ), weighted AS (
        SELECT {_CONTEXT}, min(duration_ms) FILTER (WHERE reached >= 0.5 * whole) AS p50,
               min(duration_ms) FILTER (WHERE reached >= 0.95 * whole) AS p95,
               min(duration_ms) FILTER (WHERE reached >= 0.99 * whole) AS p99
        FROM sampled GROUP BY ALL
    )
    SELECT {_CONTEXT}, round(sum(calls))::BIGINT AS execution_count,
           sum(total_ms) / sum(timed_calls) AS avg_duration_ms, min(duration_ms) AS min_duration_ms,
           max(duration_ms) AS max_duration_ms,
           coalesce(any_value(p50), quantile_cont(duration_ms, 0.5)) AS p50_duration_ms,
           coalesce(any_value(p95), quantile_cont(duration_ms, 0.95)) AS p95_duration_ms,
           coalesce(any_value(p99), quantile_cont(duration_ms, 0.99)) AS p99_duration_ms,
           {_weighted_average("memory_mb")} AS avg_memory_mb, {_weighted_average("cpu_percent")} AS avg_cpu_percent,
           round(sum(successes))::BIGINT AS success_count, round(sum(errors))::BIGINT AS error_count
    FROM total LEFT JOIN weighted USING ({_CONTEXT}) GROUP BY ALL"""


OVER_VIEWS: Final = {
    "otel_traces": _OTEL_TRACES,
    "records": _RECORDS,
    "performance_summary": _PERFORMANCE_SUMMARY,
    "benchmarks": _BENCHMARKS,
}
"""The SQL of the views over other views: it is the same whatever the parts are."""


def literal(text: str) -> str:
    """Return an SQL string literal."""
    return _quoted(text)


def identifier(name: str) -> str:
    """Return an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
