"""The canonical tables as SQL over ClickHouse's `otel_traces`, which the OpenTelemetry Collector's exporter creates."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from otel_debugstore_analysis.query import _pushed
from otel_debugstore_analysis.query._engine import Bound
from otel_debugstore_analysis.query._otel_columns import ENDS_AT_ZERO, RESOURCE_ATTRIBUTES, SIGNED_DURATION, SPAN
from otel_debugstore_analysis.query._selection import ALL_ATTRIBUTES, ATTRIBUTE
from otel_debugstore_exporters import schema

Bounds = Sequence[Bound]

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.]+")
_FAR_NS: Final = 4_000_000_000_000_000_000
_DAY_NS: Final = 86_400_000_000_000
_TYPES: Final = {
    "VARCHAR": "String",
    "BIGINT": "Int64",
    "INTEGER": "Int32",
    "UINTEGER": "UInt32",
    "SMALLINT": "Int16",
    "DOUBLE": "Float64",
    "BOOLEAN": "Bool",
    "BLOB": "String",
}


_TIMED: Final = (
    f"abs(toUnixTimestamp64Nano(Timestamp)) BETWEEN 1 AND {_FAR_NS} AND NOT {ENDS_AT_ZERO} "
    f"AND {SIGNED_DURATION} BETWEEN 1 AND {_FAR_NS}"
)
_EDGE: Final = (
    "TraceId AS trace_id, {id} AS span_id, toUnixTimestamp64Nano(Timestamp) AS start_ns, "
    f"start_ns + {SIGNED_DURATION} AS end_ns"
)


class Source:
    """Where the spans lie in a database, and which of them count.

    Args:
        conditions: SQL conditions on rows of `otel_traces` that count.
        tables: The tables there are, of those that `debugstore push` makes.
        beside: SQL conditions on rows of those of these that have a column.
    """

    def __init__(self, conditions: Sequence[str], tables: Collection[str], beside: Mapping[str, str]) -> None:
        self._conditions = tuple(conditions)
        self._tables = frozenset(tables)
        self._beside = dict(beside)

    def sql(self, table: str, columns: Sequence[str], bounds: Bounds, keys: Mapping[str, str]) -> str:
        """Return the SQL of a canonical table.

        Args:
            table: Its name.
            columns: Those that are read.
            bounds: What its rows fulfil anyway; see `Compiled.places`.
            keys: The SQL of attributes' keys, by column.
        """
        if table == "spans":
            return self._spans(columns, bounds, keys)
        if table == "traces":
            return self._traces(bounds)
        if table == "resources":
            return self._select(
                f"DISTINCT {SPAN['resource_id']} AS resource_id, {RESOURCE_ATTRIBUTES} AS {ALL_ATTRIBUTES}"
            )
        if table == "rollup":
            return self._rollup("start_s")
        if table == "rollup_total":
            return self._rollup()
        return self._pushed(table)

    def _spans(self, columns: Sequence[str], bounds: Bounds, keys: Mapping[str, str]) -> str:
        listed = [f"{SPAN[column]} AS {column}" for column in columns if column in SPAN]
        listed += [
            f'if(mapContains(SpanAttributes, {key}), SpanAttributes[{key}], NULL) AS "{plain_name(column)}"'
            for column, key in keys.items()
        ]
        if "self_ns" not in columns:
            return self._select(", ".join(listed) or "1", bounds)
        needed = [f"{SPAN[c]} AS {c}" for c in ("trace_id", "span_id", "start_ns", "duration_ns") if c not in columns]
        spans = self._select(", ".join((*listed, *needed)), bounds)
        returned = [
            "s.duration_ns - coalesce(c.covered_ns, 0) AS self_ns"
            if column == "self_ns"
            else f's."{plain_name(column)}" AS "{plain_name(column)}"'
            for column in columns
        ]
        return (
            f"SELECT {', '.join(returned)} FROM ({spans}) AS s LEFT JOIN "
            f"({self._covered(bounds)}) AS c ON s.trace_id = c.trace_id AND s.span_id = c.span_id "
            "AND s.start_ns = c.start_ns AND s.start_ns + s.duration_ns = c.end_ns"
        )

    def _covered(self, bounds: Bounds) -> str:
        """How much of each span its children cover; as `schema.self_times`, with ClickHouse's union of intervals."""
        parents = self._select("DISTINCT " + _EDGE.format(id="SpanId"), bounds, _TIMED)
        children = self._select(_EDGE.format(id="ParentSpanId"), _widened(bounds), _TIMED, "ParentSpanId != ''")
        return (
            "SELECT p.trace_id AS trace_id, p.span_id AS span_id, p.start_ns AS start_ns, p.end_ns AS end_ns, "
            "toInt64(intervalLengthSum(greatest(c.start_ns, p.start_ns), least(c.end_ns, p.end_ns))) AS covered_ns "
            f"FROM ({children}) AS c INNER JOIN ({parents}) AS p ON c.trace_id = p.trace_id AND c.span_id = p.span_id "
            "WHERE c.start_ns < p.end_ns AND c.end_ns > p.start_ns "
            "GROUP BY p.trace_id, p.span_id, p.start_ns, p.end_ns"
        )

    def _traces(self, bounds: Bounds) -> str:
        read = ("trace_id", "parent_id", "name", "start_ns", "duration_ns", "status", "service", "session")
        spans = self._select(
            ", ".join(f"{SPAN[column]} AS {column}_" for column in read),
            [bound for bound in bounds if bound.column == "trace_id" or bound.days],
        )
        end = "toInt128(start_ns_) + coalesce(duration_ns_, 0)"
        is_root = "isNull(parent_id_)"
        return f"""
            SELECT trace_id_ AS trace_id, min(start_ns_) AS start_ns,
                   toInt64(maxIf({end}, {end} < 9223372036854775807)) AS end_ns, toInt64(count()) AS span_count,
                   toInt64(countIf(status_ = 'ERROR')) AS error_count,
                   argMinIf(toNullable(name_), start_ns_, {is_root}) AS root_name,
                   minIf(start_ns_, {is_root}) AS root_start_ns,
                   argMinIf(tuple(duration_ns_), start_ns_, {is_root}).1 AS root_duration_ns,
                   argMin(service_, start_ns_) AS service, session_ AS session
            FROM ({spans}) GROUP BY trace_id_, session_"""

    def _rollup(self, *start: str) -> str:
        ten_seconds = schema.ROLLUP_SECONDS * 1_000_000_000
        read = ("start_ns", "duration_ns", "component", "layer", "service", "status")
        spans = self._select(", ".join(f"{SPAN[column]} AS {column}_" for column in read))
        times = ", ".join(f"second AS {name}" for name in (*start, "first_s", "last_s"))
        # As if every ten seconds were a segment of their own.
        return f"""
            SELECT {times}, component_ AS component, layer_ AS layer, service_ AS service,
                   toInt16(ceil(log(greatest(duration_ns_, 1)) / {schema.ROLLUP_GROWTH})) AS bucket,
                   toInt64(count()) AS span_count, toInt64(countIf(status_ = 'ERROR')) AS error_count,
                   accurateCastOrNull(sum(toInt128(duration_ns_)), 'Int64') AS duration_ns
            FROM (SELECT *, intDiv(start_ns_, {ten_seconds}) * {schema.ROLLUP_SECONDS} AS second FROM ({spans}))
            WHERE duration_ns_ IS NOT NULL GROUP BY second, component_, layer_, service_, bucket"""

    def _pushed(self, table: str) -> str:
        columns = schema.TABLES[table]
        name = _pushed.TABLES.get(table)
        unknown = {column: f"CAST(NULL AS Nullable({_TYPES[kind]})) AS {column}" for column, kind in columns.items()}
        if name not in self._tables:
            return f"SELECT {', '.join(unknown.values())} WHERE 0"
        listed = [column if column in _pushed.COLUMNS[table] else unknown[column] for column in columns]
        conditions = [sql for column, sql in self._beside.items() if column in (*columns, "push")]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        order = f"ORDER BY {', '.join(_pushed.COLUMNS[table])} "  # as the views of sessions have it
        once = f" {order}LIMIT 1 BY {_pushed.KEYS[table]}" if table in _pushed.KEYS else ""
        return f"SELECT {', '.join(listed)} FROM {name}{where}{once}"

    def _select(self, expressions: str, bounds: Bounds = (), *conditions: str) -> str:
        where = [*conditions, *self._conditions, *map(_condition, bounds)]
        return f"SELECT {expressions} FROM {_pushed.SPANS}{' WHERE ' + ' AND '.join(where) if where else ''}"


def plain_name(name: str) -> str:
    """Return the name that a column has in ClickHouse's SQL: that of a key with other characters in hexadecimal."""
    return name if _PLAIN.fullmatch(name) else f"named_{name.encode().hex()}"


def attribute_keys(columns: Sequence[str]) -> dict[str, str]:
    """Return by column that is an attribute its key."""
    return {column: column.removeprefix(ATTRIBUTE) for column in columns if column.startswith(ATTRIBUTE)}


def _condition(bound: Bound) -> str:
    """Return a bound as a condition that the primary key, partitions and indices of `otel_traces` serve."""
    if bound.column == "trace_id":
        return f"TraceId {bound.operator} {bound.value}"
    margin = f"{'-' if bound.operator[0] == '>' else '+'} {bound.days * _DAY_NS}"
    instant = f"greatest(0, least({_FAR_NS}, assumeNotNull({bound.value}))) {margin}"
    return f"Timestamp {bound.operator} fromUnixTimestamp64Nano(toInt64({instant}))"


def _widened(bounds: Bounds) -> list[Bound]:
    """Return the bounds of the children of spans with these."""
    return [
        bound._replace(days=bound.days + 1) if bound.column == "start_ns" else bound
        for bound in bounds
        if bound.column == "trace_id" or bound.operator != "="
    ]
