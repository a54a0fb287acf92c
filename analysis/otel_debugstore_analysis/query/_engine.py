"""Where the spans lie: the seam between analyses and the database that answers them.

An analysis knows the canonical tables (see `tables`), an engine knows how they, and the attributes
among their columns, are read in its database. Another engine supplies the same two things.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import duckdb

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query._selection import ATTRIBUTE
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.segment import first_line


@dataclass(frozen=True, slots=True)
class Compiled:
    """SQL over the places of canonical tables, the columns of each that it reads, and those that it returns."""

    sql: str
    reads: Mapping[str, tuple[str, ...]]
    columns: tuple[str, ...]


class Engine(Protocol):
    """A database with spans."""

    @property
    def dialect(self) -> str:
        """The SQL dialect, as sqlglot names it."""

    def fetch(self, query: Compiled, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a query, fresh as of now.

        A column `attributes.KEY` of `spans` is that attribute as text, NULL where a span lacks it.

        Raises:
            QueryError: The database refused it.
        """


class DuckDBEngine:
    """Sessions on this machine, through a `SessionReader`."""

    dialect: Final = "duckdb"

    def __init__(self, reader: SessionReader) -> None:
        self.reader = reader

    def fetch(self, query: Compiled, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        self.reader.refresh()
        sources = {t: f"({self._spans(columns)})" if t == "spans" else t for t, columns in query.reads.items()}
        return self.execute(with_sources(query.sql, sources), parameters)

    def execute(self, sql: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
        """Return the rows of trusted SQL over the view as of the last refresh."""
        try:
            return self.reader.connection.execute(sql, dict(parameters) or None).fetchall()
        except duckdb.Error as error:
            raise QueryError(f"The query failed: {first_line(error)}") from error

    def _spans(self, columns: Sequence[str]) -> str:
        plain = [column for column in columns if not column.startswith(ATTRIBUTE)]
        attributes = {c: (c.removeprefix(ATTRIBUTE), "VARCHAR") for c in columns if c.startswith(ATTRIBUTE)}
        return self.reader.spans_sql(plain or ["start_ns"], attributes)


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
