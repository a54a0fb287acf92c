"""The canonical tables as SQL over ClickHouse's `otel_traces`, which the OpenTelemetry Collector's exporter creates.

What the columns of a span are made of is what `otel_debugstore_exporters.arrow` makes them of. `otel_traces` knows no
NULL: a start of 0 is an unknown one, and so is an end of 0 (the Collector's duration is then the negative start).
What `debugstore push` adds to a span's attributes is in `_pushed`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from otel_debugstore import attributes as names
from otel_debugstore_analysis.query import _pushed
from otel_debugstore_analysis.query._selection import ATTRIBUTE
from otel_debugstore_exporters import schema
from otel_debugstore_exporters.layer_mapping import KNOWN

Bounds = Sequence[tuple[str, str, str]]

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


def _text(text: str) -> str:
    """Return a literal; only for constants of ours."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _span(key: str) -> str:
    return f"SpanAttributes[{_text(key)}]"


def _resource(key: str) -> str:
    return f"ResourceAttributes[{_text(key)}]"


def _or_null(expression: str) -> str:
    return f"nullIf({expression}, '')"


def _number(expression: str) -> str:
    return f"toInt64OrNull({expression})"


def _layer() -> str:
    """The layer a span names; of those that name none the one of the conventions they follow, see docs/layers.md."""
    rules = []
    for key, layers in KNOWN.items():
        found, given = (f"[{', '.join(map(_text, values))}]" for values in (layers.keys(), layers.values()))
        rules.append(_or_null(f"transform({_span(key)}, {found}, {given}, '')"))
    own = _text(names.LAYER)
    return f"if(mapContains(SpanAttributes, {own}), {_or_null(_span(names.LAYER))}, coalesce({', '.join(rules)}))"


def _exception(key: str) -> str:
    """The attributes of the exception events of which the last one with that attribute counts."""
    events = f"arrayFilter((a, n) -> n = {_text(names.EXCEPTION_EVENT)}, Events.Attributes, Events.Name)"
    return f"arrayLast(a -> a[{_text(key)}] != '', {events})[{_text(key)}]"


_LAST_EXCEPTION: Final = (
    f"arrayLast((a, n) -> n = {_text(names.EXCEPTION_EVENT)}, Events.Attributes, Events.Name)"
    f"[{_text(names.EXCEPTION_MESSAGE)}]"
)

_THRESHOLD: Final = (
    "arrayFirst(p -> match(p, '^th:[0-9a-f]{1,14}$'), arrayFlatten(arrayMap(m -> splitByChar(';', substring(m, 4)), "
    "arrayFilter(m -> startsWith(m, 'ot='), arrayMap(m -> trimBoth(m), splitByChar(',', TraceState))))))"
)
_REJECTED: Final = f"reinterpretAsUInt64(reverse(unhex(rightPad(substring({_THRESHOLD}, 4), 14, '0'))))"
"""The threshold as a number; 0 where there is none."""

_START: Final = "nullIf(toUnixTimestamp64Nano(Timestamp), 0)"
_SIGNED_DURATION: Final = "reinterpretAsInt64(Duration)"
_ENDS_AT_ZERO: Final = f"toUnixTimestamp64Nano(Timestamp) + {_SIGNED_DURATION} = 0"
SESSION: Final = _or_null(
    f"if({_resource(_pushed.SESSION)} != '', {_resource(_pushed.SESSION)}, {_resource(names.SESSION_ID)})"
)
"""The session of a span in `otel_traces`."""

_SPAN: Final[Mapping[str, str]] = {
    "trace_id": "TraceId",
    "span_id": "SpanId",
    "parent_id": "if(match(ParentSpanId, '^0*$'), NULL, ParentSpanId)",
    "name": "toString(SpanName)",
    "kind": "upper(replaceOne(SpanKind, 'SPAN_KIND_', ''))",
    "start_ns": _START,
    "duration_ns": f"if(isNull({_START}) OR {_ENDS_AT_ZERO}, NULL, {_SIGNED_DURATION})",
    "status": "upper(replaceOne(StatusCode, 'STATUS_CODE_', ''))",
    "status_message": _or_null("StatusMessage"),
    "exception_type": _or_null(
        f"if({_exception(names.EXCEPTION_TYPE)} != '', {_exception(names.EXCEPTION_TYPE)}, {_span(names.ERROR_TYPE)})"
    ),
    "exception_message": _or_null(_LAST_EXCEPTION),
    "service": _or_null("toString(ServiceName)"),
    "session": SESSION,
    "pid": f"coalesce({_number(_resource(_pushed.PID))}, {_number(_resource(names.PROCESS_PID))})",
    "thread_id": _number(_span(names.THREAD_ID)),
    "layer": _layer(),
    "component": f"if({_span(names.COMPONENT)} != '', {_span(names.COMPONENT)}, toString(SpanName))",
    "variant": _or_null(_span(names.VARIANT)),
    "cpu_ns": _number(_span(names.CPU_TIME_NS)),
    "memory_peak_bytes": _number(_span(names.MEMORY_PEAK_BYTES)),
    "memory_net_bytes": _number(_span(names.MEMORY_NET_BYTES)),
    "io_read_bytes": _number(_span(names.IO_READ_BYTES)),
    "io_write_bytes": _number(_span(names.IO_WRITE_BYTES)),
    "sample_weight": f"if(position(TraceState, 'th:') = 0 OR {_span(names.LATE)} = 'true', 1., "
    f"72057594037927936. / toFloat64(72057594037927936 - {_REJECTED}))",
    "trace_state": _or_null("TraceState"),
    "flags": f"toUInt32OrZero({_span(_pushed.FLAGS)})",
    "dropped_attributes": f"toUInt32OrZero({_span(_pushed.DROPPED_ATTRIBUTES)})",
    "dropped_events": f"toUInt32OrZero({_span(_pushed.DROPPED_EVENTS)})",
    "dropped_links": f"toUInt32OrZero({_span(_pushed.DROPPED_LINKS)})",
    "resource_id": f"if({_resource(_pushed.RESOURCE_ID)} != '', {_resource(_pushed.RESOURCE_ID)}, "
    "lower(hex(sipHash64(ResourceAttributes))))",
    "scope_id": f"if({_resource(_pushed.SCOPE_ID)} != '', {_resource(_pushed.SCOPE_ID)}, "
    "lower(hex(sipHash64(ScopeName, ScopeVersion))))",
}
"""By column of `spans` what it is made of; `self_ns` is made of other spans."""

_TIMED: Final = (
    f"abs(toUnixTimestamp64Nano(Timestamp)) BETWEEN 1 AND {_FAR_NS} AND NOT {_ENDS_AT_ZERO} "
    f"AND {_SIGNED_DURATION} BETWEEN 1 AND {_FAR_NS}"
)
_EDGE: Final = (
    "TraceId AS trace_id, {id} AS span_id, toUnixTimestamp64Nano(Timestamp) AS start_ns, "
    f"start_ns + {_SIGNED_DURATION} AS end_ns"
)


class Source:
    """Where the spans lie in a database, and which of them count.

    Args:
        conditions: SQL conditions on rows of `otel_traces` that count.
        tables: The tables there are, of those that `debugstore push` makes.
        beside: SQL conditions on rows of these.
    """

    def __init__(self, conditions: Sequence[str], tables: Collection[str], beside: Sequence[str]) -> None:
        self._conditions = tuple(conditions)
        self._tables = frozenset(tables)
        self._beside = tuple(beside)

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
        if table == "rollup":
            return self._rollup("start_s")
        if table == "rollup_total":
            return self._rollup()
        return self._pushed(table)

    def _spans(self, columns: Sequence[str], bounds: Bounds, keys: Mapping[str, str]) -> str:
        listed = [f"{_SPAN[column]} AS {column}" for column in columns if column in _SPAN]
        listed += [
            f'if(mapContains(SpanAttributes, {key}), SpanAttributes[{key}], NULL) AS "{column}"'
            for column, key in keys.items()
        ]
        if "self_ns" not in columns:
            return self._select(", ".join(listed) or "1", bounds)
        needed = [f"{_SPAN[c]} AS {c}" for c in ("trace_id", "span_id", "start_ns", "duration_ns") if c not in columns]
        spans = self._select(", ".join((*listed, *needed)), bounds)
        return (
            f"SELECT s.*, s.duration_ns - coalesce(c.covered_ns, 0) AS self_ns FROM ({spans}) AS s LEFT JOIN "
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
            ", ".join(f"{_SPAN[column]} AS {column}_" for column in read),
            [bound for bound in bounds if bound[0] == "trace_id"],
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
        spans = self._select(", ".join(f"{_SPAN[column]} AS {column}_" for column in read))
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
        if name not in self._tables:
            empty = ", ".join(f"CAST(NULL AS Nullable({_TYPES[kind]})) AS {c}" for c, kind in columns.items())
            return f"SELECT {empty} WHERE 0"
        where = f" WHERE {' AND '.join(self._beside)}" if self._beside else ""
        once = " LIMIT 1 BY variant" if table == "code" else ""
        return f"SELECT {', '.join(columns)} FROM {name}{where}{once}"

    def _select(self, expressions: str, bounds: Bounds = (), *conditions: str) -> str:
        where = [*conditions, *self._conditions, *map(_condition, bounds)]
        return f"SELECT {expressions} FROM {_pushed.SPANS}{' WHERE ' + ' AND '.join(where) if where else ''}"


def attribute_keys(columns: Sequence[str]) -> dict[str, str]:
    """Return by column that is an attribute its key."""
    return {column: column.removeprefix(ATTRIBUTE) for column in columns if column.startswith(ATTRIBUTE)}


def _condition(bound: tuple[str, str, str]) -> str:
    """Return a bound as a condition that the primary key, partitions and indices of `otel_traces` serve."""
    column, operator, value = bound
    if column == "trace_id":
        return f"TraceId {operator} {value}"
    return f"Timestamp {operator} fromUnixTimestamp64Nano(assumeNotNull({value}))"


def _widened(bounds: Bounds) -> list[tuple[str, str, str]]:
    """Return the bounds of children of spans with these: a day more on both sides."""
    wide = []
    for column, operator, value in bounds:
        shift = {">": f" - {_DAY_NS}", "<": f" + {_DAY_NS}"}.get(operator[0], "")
        if column == "trace_id":
            wide.append((column, operator, value))
        elif shift:
            wide.append((column, operator, f"{value}{shift}"))
    return wide
