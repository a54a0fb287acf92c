"""What a query gives back: rows, or one error of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import duckdb

from otel_debugstore.errors import QueryError
from otel_debugstore_exporters.segment import first_line


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Rows of a query, with the names and DuckDB types of their columns."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    truncated: bool = False


def fetched(answer: duckdb.DuckDBPyConnection | None, limit: int | None) -> QueryResult:
    """Return the rows of an answer, at most so many."""
    if answer is None:  # there is nothing in the text
        return QueryResult((), (), [])
    described = answer.description or []
    rows = answer.fetchall() if limit is None else answer.fetchmany(limit + 1)
    names = tuple(str(column[0]) for column in described)
    kinds = tuple(str(column[1]) for column in described)
    if limit is not None and len(rows) > limit:
        return QueryResult(names, kinds, rows[:limit], truncated=True)
    return QueryResult(names, kinds, rows)


@contextlib.contextmanager
def query_errors() -> Iterator[None]:
    """Turn what DuckDB says of a query into a `QueryError`, but for an interrupt."""
    try:
        yield
    except duckdb.InterruptException:
        raise
    # Besides its own errors, DuckDB's client raises these for text and values that Python can't hold.
    except (duckdb.Error, RuntimeError, ValueError, OverflowError) as error:
        if type(error) is RuntimeError and str(error) == "Query interrupted":  # so its client says it of Ctrl-C
            raise
        raise QueryError(f"The query failed: {first_line(error)}") from error
