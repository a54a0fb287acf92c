"""Spans in ClickHouse, where the OpenTelemetry Collector's exporter or `debugstore push` put them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.closing import Closing
from otel_debugstore_analysis.query import _pushed
from otel_debugstore_analysis.query._engine import GIVEN, Compiled, with_sources
from otel_debugstore_analysis.query._otel_columns import READ, SESSION
from otel_debugstore_analysis.query._otel_traces import Source, attribute_keys

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

_SETTINGS: Final = {"join_use_nulls": 1, "aggregate_functions_null_for_empty": 1}
"""NULL where SQL has it, and not 0 or no text."""
_ARROW_SETTINGS: Final = {"output_format_arrow_string_as_string": 1}
_KEY: Final = "attribute_"


class ClickHouseEngine(Closing):
    """A ClickHouse database with `otel_traces`.

    Args:
        client: A connection to it, as `connect` makes one.
        place: What errors call the database.
        sessions: Which sessions count; all spans if it is empty.

    Raises:
        QueryError: It can't be reached, or has no `otel_traces`.
    """

    dialect: Final = "clickhouse"
    has_unique_traces: Final = False

    def __init__(self, client: Client, place: str, sessions: Sequence[str] = ()) -> None:
        self._client = client
        self._place = place
        self._values: dict[str, Any] = {}
        self._source = self._look(list(sessions))

    def close(self) -> None:
        """Let go of the connection."""
        self._client.close()

    def fetch(self, query: Compiled, parameters: Mapping[str, Any], *, further: bool = False) -> list[tuple[Any, ...]]:
        sql, values = self._bound(query, parameters)
        with refused(self._place):
            return [tuple(row) for row in self._client.query(sql, values, settings=_SETTINGS).result_rows]

    def fetch_arrow(self, query: Compiled, parameters: Mapping[str, Any], *, further: bool = False) -> pa.Table:
        sql, values = self._bound(query, parameters)
        with refused(self._place):
            found = self._client.query_arrow(sql, values, settings=_SETTINGS | _ARROW_SETTINGS)
        return found.rename_columns(list(query.columns))

    def _bound(self, query: Compiled, parameters: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the SQL with what the tables are read from, and the values that the server puts into it."""
        values = self._values | {
            name: value if isinstance(value, list) else str(value) for name, value in parameters.items()
        }
        sources = {}
        for place, bounds in query.places.items():
            table = place.partition("#")[0]
            columns = query.reads[table]
            keys = {}
            for number, (column, key) in enumerate(attribute_keys(columns).items()):
                keys[column] = f"{{{_KEY}{number}:String}}"
                values[f"{_KEY}{number}"] = key
            if table.startswith(GIVEN):
                sources[place] = f"(SELECT arrayJoin({{{table}:Array(String)}}) AS value)"
            else:
                sources[place] = f"({self._source.sql(table, columns, bounds, keys)})"
        sql = with_sources(query.sql, sources)
        return sql, {name: value for name, value in values.items() if f"{{{name}:" in sql}

    def _look(self, sessions: list[str]) -> Source:
        with refused(self._place):
            found = {row[0] for row in self._client.query("SHOW TABLES").result_rows}
        if _pushed.SPANS not in found:
            raise QueryError(
                f"{self._place} has no table {_pushed.SPANS}; name the database that the OpenTelemetry Collector's "
                "ClickHouse exporter writes to, or load sessions into it (debugstore push --engine URL)."
            )
        self._check_columns()
        spans, beside = [], {}
        if sessions:
            self._values["sessions"] = sessions
            spans.append(f"has({{sessions:Array(String)}}, {SESSION})")
            beside["session"] = "has({sessions:Array(String)}, session)"
        if _pushed.PUSHES in found and (unfinished := self._unfinished()):
            self._values["unfinished"] = unfinished
            spans.append(f"NOT has({{unfinished:Array(String)}}, {_pushed.PUSH_OF_SPAN})")
            beside["push"] = "NOT has({unfinished:Array(String)}, push)"
        return Source(spans, found, beside)

    def _check_columns(self) -> None:
        """Require the columns that the Collector's exporter makes, of the types that we read."""
        with refused(self._place):
            found = {row[0]: row[1] for row in self._client.query(f"DESCRIBE TABLE {_pushed.SPANS}").result_rows}
        missing = [name for name in READ if name not in found]
        if missing:
            raise QueryError(
                f"{_pushed.SPANS} in {self._place} lacks {', '.join(missing)}: it is not the table that the "
                "OpenTelemetry Collector's ClickHouse exporter creates; name the database of that one."
            )
        for name, kind in found.items():
            if name in READ and "Attributes" in name and "Map(" not in kind:
                raise QueryError(
                    f"{_pushed.SPANS} in {self._place} has {name} as {kind}; only maps of text can be read: let the "
                    "exporter create the table without `json: true`."
                )

    def _unfinished(self) -> list[str]:
        """Return the pushes that began and did not end: what they brought does not count."""
        with refused(self._place):
            return [row[0] for row in self._client.query(_pushed.UNFINISHED).result_rows]


@contextlib.contextmanager
def refused(place: str) -> Iterator[None]:
    """Turn what ClickHouse and its client raise into a `QueryError`."""
    from clickhouse_connect.driver.exceptions import ClickHouseError

    try:
        yield
    except ClickHouseError as error:
        raise QueryError(f"{place} refused the query: {first_line(error)}{_advice(str(error))}") from error


def first_line(error: BaseException) -> str:
    """Return what went wrong without the stack that a server sends along."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].partition(": In scope ")[0][:300].rstrip(".")


def _advice(text: str) -> str:
    if "TIMEOUT_EXCEEDED" in text or "TOO_MANY_ROWS" in text or "MEMORY_LIMIT_EXCEEDED" in text:
        return ". Narrow it down by time (--since), or raise the limit in the URL (?max_execution_time=300)."
    return "."
