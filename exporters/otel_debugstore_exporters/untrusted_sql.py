"""Whether SQL of a user is one SELECT, or an EXPLAIN of one, before it is run; `SessionReader.query_untrusted` asks."""

from __future__ import annotations

import re
from typing import Any, Final

import duckdb

from otel_debugstore.errors import QueryError
from otel_debugstore_exporters.segment import first_line

_ANALYZE: Final = re.compile(r"\banaly[sz]e\b", re.IGNORECASE)
_PIVOT: Final = re.compile(
    r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:pivot|pivot_wider|(?:select|from|with)\b.*\bpivot)", re.IGNORECASE | re.DOTALL
)
"""A PIVOT whose columns DuckDB finds out first: two statements for it."""
_EXPLAIN_ANALYZE: Final = re.compile(r"\s*explain\s+analy[sz]e\s+(.*)", re.IGNORECASE | re.DOTALL)


def require_select(sql: str) -> None:
    """Return if the text is one statement that only reads.

    A SELECT can still delete, by a common table expression: run it in a transaction that is READ ONLY.

    Raises:
        QueryError: It is wrong, or anything else.
    """
    kinds = [statement.type for statement in _statements(sql)]
    if len(kinds) != 1:
        raise QueryError(f"A query is one SELECT, this is {len(kinds)} statements; run them one by one.")
    if kinds[0] == duckdb.StatementType.EXPLAIN and _ANALYZE.search(sql):  # it runs what it explains
        found = _EXPLAIN_ANALYZE.fullmatch(sql)
        kinds = [statement.type for statement in _statements(found[1])] if found else kinds
        if kinds != [duckdb.StatementType.SELECT]:
            raise QueryError("Only EXPLAIN ANALYZE of a SELECT is allowed; leave ANALYZE out otherwise.")
    if kinds[0] == duckdb.StatementType.MULTI:
        if not _PIVOT.match(sql):
            raise QueryError("Only SELECT is allowed; name the columns of the PIVOT (ON ... IN ...) to explain it.")
    elif kinds[0] not in (duckdb.StatementType.SELECT, duckdb.StatementType.EXPLAIN):
        raise QueryError(f"Only SELECT is allowed, this is {kinds[0].name}: the store can't be changed by a query.")


def _statements(sql: str) -> list[Any]:
    try:
        return list(duckdb.extract_statements(sql))
    except TypeError as error:  # text that UTF-8 can't hold
        raise QueryError("The query failed: it is not Unicode text.") from error
    except (duckdb.Error, RuntimeError) as error:
        raise QueryError(f"The query failed: {first_line(error)}") from error
