"""Payloads, code and counts on their way from batches into tables; see `otel_debugstore.outbox`.

A payload and a function's code are in a database once, by their digest and variant. Counts are added up by
process, component and the ten seconds in which they begin: `counters` grows with time, not with calls.
"""

from __future__ import annotations

from typing import Final

import duckdb
import nanoarrow as na  # type: ignore[import-untyped]

from otel_debugstore.outbox import CallCount, Code, Payload
from otel_debugstore_exporters.arrow_columns import StagedRows, integers, staged, texts
from otel_debugstore_exporters.batch import SpanBatch
from otel_debugstore_exporters.beside import add_counts
from otel_debugstore_exporters.schema import COUNTER_SUMS, ROLLUP_SECONDS, TABLES

BY_CONTENT: Final = {"payloads": "digest", "code": "variant"}
"""Tables that hold a row once, and the column that says which it is."""

_UNKNOWN: Final = -(2**63)
_PERIOD_NS: Final = ROLLUP_SECONDS * 1_000_000_000
_KEPT_WITHOUT_COUNT: Final = 256
"""What a row of `counters` or `code` takes beside its texts, about."""


class SideTables:
    """Collects what batches carry beside spans, until `insert`."""

    def __init__(self, session: str) -> None:
        self._session = session
        self._clear()

    def __bool__(self) -> bool:
        return bool(self._payloads or self._code or self._counts)

    @property
    def size_bytes(self) -> int:
        """What is collected takes so much memory, about."""
        return self._size_bytes

    @property
    def keys(self) -> set[str]:
        """Digests and variants of what is collected."""
        return {*self._payloads, *self._code}

    def add(self, batch: SpanBatch) -> None:
        """Take what a batch carries beside its spans."""
        for payload in batch.payloads:
            if payload.digest not in self._payloads:
                self._payloads[payload.digest] = payload
                self._size_bytes += len(payload.content)
        for code in batch.code:
            self._code.setdefault(code.variant, code)
            self._size_bytes += len(code.source or "") + _KEPT_WITHOUT_COUNT
        for count in batch.counts:
            key = (batch.pid, count.layer, count.component, count.start_ns // _PERIOD_NS)
            before = self._counts.get(key)
            self._counts[key] = count if before is None else add_counts(before, count)
            self._size_bytes += 0 if before else _KEPT_WITHOUT_COUNT

    def insert(self, connection: duckdb.DuckDBPyConnection, database: str) -> None:
        """Put everything into the tables of a database, and start over."""
        rows = {
            "payloads": self._staged_payloads() if self._payloads else None,
            "code": self._staged_code() if self._code else None,
            "counters": self._staged_counts() if self._counts else None,
        }
        for table, found in rows.items():
            if found is not None:
                _insert(connection, database, table, found)
        self._clear()

    def _clear(self) -> None:
        self._payloads: dict[str, Payload] = {}
        self._code: dict[str, Code] = {}
        self._counts: dict[tuple[int | None, str, str, int], CallCount] = {}
        self._size_bytes = 0

    def _staged_payloads(self) -> StagedRows:
        found = self._payloads.values()
        return staged(
            digest=texts([payload.digest for payload in found]),
            media_type=texts([payload.media_type for payload in found]),
            size_bytes=integers([len(payload.content) for payload in found]),
            replayable=integers([bool(payload.replayable) for payload in found]),
            content=texts([payload.content for payload in found], na.binary()),
        )

    def _staged_code(self) -> StagedRows:
        found = self._code.values()
        return staged(
            variant=texts([code.variant for code in found]),
            qualified_name=texts([code.qualified_name for code in found]),
            file_path=texts([code.file_path or "" for code in found]),
            line_number=integers([_UNKNOWN if code.line_number is None else code.line_number for code in found]),
            git_commit=texts([code.git_commit or "" for code in found]),
            source=texts([code.source or "" for code in found]),
        )

    def _staged_counts(self) -> StagedRows:
        found = self._counts.values()
        sums = {name: integers([getattr(count, name) for count in found]) for name in COUNTER_SUMS}
        return staged(
            start_ns=integers([count.start_ns for count in found]),
            end_ns=integers([count.end_ns for count in found]),
            layer=texts([count.layer for count in found]),
            component=texts([count.component for count in found]),
            session=texts([self._session] * len(found)),
            pid=integers([_UNKNOWN if key[0] is None else key[0] for key in self._counts]),
            **sums,
        )


def sum_counters(connection: duckdb.DuckDBPyConnection, database: str) -> None:
    """Add up the counters of a database as `SideTables` does: segments that are merged share their ten seconds."""
    keys = "layer, component, session, pid"
    sums = ", ".join(f"sum({name})::BIGINT AS {name}" for name in COUNTER_SUMS)
    connection.execute(
        f"CREATE OR REPLACE TEMP TABLE summed AS SELECT min(start_ns) AS start_ns, max(end_ns) AS end_ns, {keys}, "
        f"{sums} FROM {database}.counters GROUP BY {keys}, start_ns // {_PERIOD_NS} ORDER BY component, start_ns"
    )
    connection.execute(f"DELETE FROM {database}.counters")
    connection.execute(f"INSERT INTO {database}.counters BY NAME SELECT * FROM summed")
    connection.execute("DROP TABLE summed")


def _insert(connection: duckdb.DuckDBPyConnection, database: str, table: str, rows: StagedRows) -> None:
    columns = TABLES[table]
    values = ", ".join(_value(name, kind) for name, kind in columns.items())
    key = BY_CONTENT.get(table)
    new = f" ANTI JOIN {database}.{table} USING ({key})" if key else ""
    connection.register("staged_beside", rows)
    try:
        connection.execute(f"INSERT INTO {database}.{table} SELECT {values} FROM staged_beside{new}")
    finally:
        connection.unregister("staged_beside")


def _value(name: str, kind: str) -> str:
    if kind == "BIGINT":
        return f"nullif({name}, {_UNKNOWN}) AS {name}"
    if kind == "VARCHAR":
        return f"nullif({name}, '') AS {name}"
    return f"{name}::{kind} AS {name}"
