"""Rows of the span tables back into `SpanRecord`s, exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb
import msgspec

from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import (
    KIND_NAMES,
    STATUS_NAMES,
    Event,
    Link,
    Resource,
    Scope,
    SpanRecord,
)

ROW_COLUMNS: Final = (
    "trace_id",
    "span_id",
    "parent_id",
    "name",
    "kind",
    "start_ns",
    "duration_ns",
    "status",
    "status_message",
    "pid",
    "trace_state",
    "flags",
    "links",
    "events",
    "dropped_attributes",
    "dropped_events",
    "dropped_links",
    "resource_id",
    "scope_id",
    "attributes",
    "exact",
    "session",
)
"""The columns of `spans` that `SharedRows.record` takes, in this order."""

_KINDS: Final = {name: number for number, name in enumerate(KIND_NAMES)}
_STATUSES: Final = {name: number for number, name in enumerate(STATUS_NAMES)}


class SharedRows:
    """The resources and scopes of some parts, and spans made with them.

    Args:
        connection: Where the parts are attached.
        parts: Their names.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection, parts: Sequence[str]) -> None:
        self._resources: dict[str, Resource] = {}
        self._scopes: dict[str, Scope] = {}
        for part in parts:
            for number, url, attributes, dropped, exact in _rows(
                connection,
                part,
                "resource_id, schema_url, attributes, dropped_attributes, exact",
                "resources",
            ):
                resource = Resource(*codec.unpack_value(exact)) if exact else Resource(attributes or {}, url, dropped)
                self._resources[number] = resource
            for number, name, version, url, attributes, dropped, exact in _rows(
                connection,
                part,
                "scope_id, name, version, schema_url, attributes, dropped_attributes, exact",
                "scopes",
            ):
                scope = Scope(name, version, url, attributes or {}, dropped)
                self._scopes[number] = Scope(*codec.unpack_value(exact)) if exact else scope

    @property
    def resources(self) -> Mapping[str, Resource]:
        """The resources by their ids."""
        return self._resources

    @property
    def scopes(self) -> Mapping[str, Scope]:
        """The scopes by their ids."""
        return self._scopes

    def record(self, row: Sequence[Any]) -> SpanRecord:
        """Return the span of a row of `ROW_COLUMNS`."""
        exact = row[20]
        if exact is not None:
            return next(codec.decode(exact).records())
        start, duration = row[5], row[6]
        return SpanRecord(
            trace_id=bytes.fromhex(row[0]),
            span_id=bytes.fromhex(row[1]),
            name=row[3],
            start_ns=start,
            end_ns=None if start is None or duration is None else start + duration,
            parent_id=None if row[2] is None else bytes.fromhex(row[2]),
            kind=_number(_KINDS, row[4]),
            status_code=_number(_STATUSES, row[7]),
            status_message=row[8] or "",
            trace_state=row[10] or "",
            flags=row[11],
            attributes=row[19] or {},
            events=tuple(map(_event, row[13] or ())),
            links=tuple(map(_link, row[12] or ())),
            dropped_attributes=row[14],
            dropped_events=row[15],
            dropped_links=row[16],
            resource=self._resources[row[17]],
            scope=self._scopes[row[18]],
            pid=row[9],
        )


def _rows(connection: duckdb.DuckDBPyConnection, part: str, columns: str, table: str) -> list[Any]:
    return connection.execute(f"SELECT {columns} FROM {part}.{table}").fetchall()


def _number(known: dict[str, int], text: str) -> int:
    number = known.get(text)
    return int(text) if number is None else number


def _event(value: dict[str, Any]) -> Event:
    attributes = msgspec.json.decode(value["attributes"])
    return Event(value["time_ns"], value["name"], attributes, value["dropped_attributes"])


def _link(value: dict[str, Any]) -> Link:
    return Link(
        bytes.fromhex(value["trace_id"]),
        bytes.fromhex(value["span_id"]),
        value["trace_state"],
        value["flags"],
        msgspec.json.decode(value["attributes"]),
        value["dropped_attributes"],
    )
