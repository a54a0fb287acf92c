"""Where the spans lie: the seam between analyses and the database that answers them.

An analysis knows the canonical tables (see `tables`), an engine knows how they, and the attributes
among their columns, are read in its database. Another engine supplies the same two things.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import duckdb

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query._selection import ALL_ATTRIBUTES, ATTRIBUTE, INSTANCE, INSTANCE_KEYS
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.segment import first_line
from otel_debugstore_exporters.views import literal

if TYPE_CHECKING:
    import pyarrow as pa

GIVEN: Final = "given"
"""Begins the name of a table that is made of the parameter of the same name; see `tables.given`."""
_MAX_STATEMENTS: Final = 64
_WITH_TEXT: Final = f"SELECT * REPLACE ({ALL_ATTRIBUTES}::JSON::VARCHAR AS {ALL_ATTRIBUTES}) FROM"
_INSTANCES: Final = ", ".join(f"nullif(TRY_CAST(attributes[{literal(key)}] AS VARCHAR), '')" for key in INSTANCE_KEYS)
_WITH_INSTANCE: Final = (
    f"(SELECT s.*, CASE WHEN s.pid IS NULL THEN concat_ws('/', nullif(s.service, ''), nullif(r.instance, '')) "
    f"ELSE coalesce(r.instance, '') END AS {INSTANCE} FROM {{spans}} s "
    f"LEFT JOIN (SELECT resource_id, concat_ws('/', {_INSTANCES}) AS instance FROM {{resources}}) r "
    "USING (resource_id))"
)


class Bound(NamedTuple):
    """What spans are compared with: a column (`start_ns` or `trace_id`), an operator, and the SQL of a value.

    With `days` it is about spans of traces of which one span fulfils it: these start at most so many days off.
    """

    column: str
    operator: str
    value: str
    days: int = 0


@dataclass(frozen=True, slots=True)
class Compiled:
    """SQL over the places of canonical tables.

    Attributes:
        reads: By table the columns that are read.
        columns: Those that come back.
        places: In ClickHouse's SQL, by `table#number`, one for every place: bounds that its rows fulfil anyway.
    """

    sql: str
    reads: Mapping[str, tuple[str, ...]]
    columns: tuple[str, ...]
    places: Mapping[str, tuple[Bound, ...]] = field(default_factory=dict)


class Engine(Protocol):
    """A database with spans."""

    @property
    def dialect(self) -> str:
        """The SQL dialect, as sqlglot names it."""

    @property
    def has_unique_traces(self) -> bool:
        """Whether each trace is one row of `traces`: it has a row a session."""

    def fetch(self, query: Compiled, parameters: Mapping[str, Any], *, further: bool = False) -> list[tuple[Any, ...]]:
        """Return the rows of a query, fresh as of now.

        A column `attributes.KEY` of `spans` is that attribute as text, NULL where a span lacks it; `attributes` of
        `spans` and of `resources` is a JSON object of all, whose values may all be texts. `INSTANCE` of `spans` is
        made of attributes of their resources.

        Args:
            query: What to ask.
            parameters: The values of its parameters.
            further: It belongs to the one before: the same spans will do, if the engine has them in view.

        Raises:
            QueryError: The database refused it.
        """

    def fetch_arrow(self, query: Compiled, parameters: Mapping[str, Any], *, further: bool = False) -> pa.Table:
        """Return the rows of a query as an Arrow table; as `fetch`, for answers of very many rows."""


class DuckDBEngine:
    """Sessions on this machine, through a `SessionReader`."""

    dialect: Final = "duckdb"

    def __init__(self, reader: SessionReader) -> None:
        self.reader = reader
        self._statements: dict[str, Any] = {}

    @property
    def has_unique_traces(self) -> bool:
        return self.reader.has_one_session

    def fetch(self, query: Compiled, parameters: Mapping[str, Any], *, further: bool = False) -> list[tuple[Any, ...]]:
        return self.execute(self._sql(query, further), parameters)

    def fetch_arrow(self, query: Compiled, parameters: Mapping[str, Any], *, further: bool = False) -> pa.Table:
        sql = self._sql(query, further)
        with _translated():
            return self.reader.bare_connection.sql(self._parsed(sql), params=dict(parameters) or None).to_arrow_table()

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return the rows of trusted SQL over the view as of the last refresh."""
        with _translated():
            return self.reader.bare_connection.execute(self._parsed(sql), dict(parameters) or None).fetchall()

    def _sql(self, query: Compiled, further: bool) -> str:
        if not further:
            self.reader.refresh()
        sources = {table: self._source(table, columns) for table, columns in query.reads.items()}
        return with_sources(query.sql, sources)

    def _parsed(self, sql: str) -> Any:
        """Return the statement of an SQL text; parsing one takes up to 0.8 ms."""
        statement = self._statements.get(sql)
        if statement is None:
            if len(self._statements) >= _MAX_STATEMENTS:
                self._statements.clear()
            statement = self._statements[sql] = duckdb.extract_statements(sql)[0]
        return statement

    def _source(self, table: str, columns: Sequence[str]) -> str:
        if table.startswith(GIVEN):
            return f"(SELECT unnest(${table}) AS value)"
        place = self.reader.table(table)
        if ALL_ATTRIBUTES in columns and table != "spans":
            return f"({_WITH_TEXT} (SELECT {', '.join(columns)} FROM {place}))"
        has_instance = INSTANCE in columns
        if table != "spans" or (place != table and not any(c.startswith((ALL_ATTRIBUTES, INSTANCE)) for c in columns)):
            return place
        plain = [column for column in columns if not column.startswith((ATTRIBUTE, INSTANCE))]
        if has_instance:
            plain = list(dict.fromkeys((*plain, "resource_id", "pid", "service")))
        attributes = {c: (c.removeprefix(ATTRIBUTE), "VARCHAR") for c in columns if c.startswith(ATTRIBUTE)}
        sql = f"({self.reader.spans_sql(plain or ['start_ns'], attributes)})"
        if has_instance:
            sql = _WITH_INSTANCE.format(spans=sql, resources=self.reader.table("resources"))
        return f"({_WITH_TEXT} {sql})" if ALL_ATTRIBUTES in columns else sql


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise QueryError(f"The query failed: {first_line(error)}") from error


def place(table: str) -> str:
    """Return the name that stands in compiled SQL where a canonical table is to be put."""
    return f"\ue001{table}"


def with_sources(sql: str, sources: Mapping[str, str]) -> str:
    """Return compiled SQL with what the tables are read from in their places.

    As subqueries and not as common table expressions, which DuckDB takes half a millisecond longer to plan.
    """
    for table, source in sources.items():
        sql = sql.replace(f'"{place(table)}"', source)
    return sql
