"""SQL of a user: whether it is one SELECT, or an EXPLAIN of one; what it may take, and how its times are kept whole.

`SessionReader.query_untrusted` runs it.
"""

from __future__ import annotations

import contextlib
import re
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import duckdb

from otel_debugstore.errors import QueryError
from otel_debugstore_exporters.segment import first_line
from otel_debugstore_exporters.views import identifier, literal

_ANALYZE: Final = re.compile(r"\banaly[sz]e\b", re.IGNORECASE)
_PIVOT: Final = re.compile(
    r"(?:\s|\(|--[^\n]*\n|/\*.*?\*/)*(?:pivot|pivot_wider|(?:select|from|with)\b.*\bpivot)", re.IGNORECASE | re.DOTALL
)
"""A PIVOT whose columns DuckDB finds out first: two statements for it."""
_NANOSECONDS: Final = re.compile(r"\bTIMESTAMP_NS\b(?=[,)\[]|$)")
"""The type, also within lists, maps and structures, but not a field of that name: its type follows."""
_EXPLAIN_ANALYZE: Final = re.compile(r"\s*explain\s+analy[sz]e\s+(.*)", re.IGNORECASE | re.DOTALL)


def require_select(sql: str) -> None:
    """Return if the text is one statement that only reads.

    A SELECT can still delete, by a common table expression: run it in a transaction that is READ ONLY.

    Raises:
        QueryError: It is wrong, or anything else.
    """
    kinds = [statement.type for statement in _statements(sql)]
    if not kinds:
        raise QueryError("The query is empty; write one SELECT.")
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


@contextlib.contextmanager
def bounded_memory(more_bytes: int) -> Iterator[None]:
    """Let this process take only so much more memory within the block; Linux holds it to that.

    DuckDB's own limit leaves out texts that a query makes: `repeat('x', 4000000000)` takes 8 GB. For processes
    that do nothing else.

    Raises:
        QueryError: Python got no more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in (_taken_bytes() + more_bytes, soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    except MemoryError as error:
        raise QueryError(
            f"The query failed: it takes more than {more_bytes >> 20:,} MiB of memory; ask for less."
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _taken_bytes() -> int:
    """Return what counts towards the limit, already: memory of the process's own that can be written."""
    with contextlib.suppress(OSError):
        found = re.search(r"^VmData:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found:
            return int(found[1]) << 10
    return 0


def execute(connection: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyConnection:
    """Run a statement that `require_select` let pass, and return its answer.

    Times in nanoseconds come as text: Python's have microseconds.
    """
    if _statements(sql)[0].type != duckdb.StatementType.SELECT:  # `query` takes no PIVOT of columns that it finds out
        return connection.execute(sql)
    described = connection.sql(sql)  # which does not run it
    names, kinds = described.columns, described.types
    if not any(_NANOSECONDS.search(str(kind)) for kind in kinds):
        return connection.execute(sql)
    given = [f"c{number}" for number in range(len(names))]
    columns = [
        f"{_whole(column, kind)} AS {identifier(name)}" for column, kind, name in zip(given, kinds, names, strict=True)
    ]
    return connection.execute(f"SELECT {', '.join(columns)} FROM query({literal(sql)}) AS q({', '.join(given)})")


def _whole(value: str, kind: Any, depth: int = 0) -> str:
    """Return SQL for a value of the type in which times of nanoseconds are texts."""
    if not _NANOSECONDS.search(str(kind)):
        return value
    if kind.id == "timestamp_ns":
        return f"strftime({value}, '%Y-%m-%dT%H:%M:%S.%n')"
    made = value
    if kind.id in ("list", "array"):
        made = _each(value, kind.children[0][1], depth)
    elif kind.id == "map":
        (_, key), (_, item) = kind.children
        made = f"map({_each(f'map_keys({value})', key, depth)}, {_each(f'map_values({value})', item, depth)})"
    elif kind.id in ("struct", "tuple"):
        keys = [literal(name) if name else str(number) for number, (name, _) in enumerate(kind.children, 1)]
        fields = [_whole(f"{value}[{key}]", field, depth) for key, (_, field) in zip(keys, kind.children, strict=True)]
        made = f"row({', '.join(fields)})"
    # The cast names the fields, and makes arrays of lists again; for a union it is all there is.
    return f"CASE WHEN {value} IS NOT NULL THEN CAST({made} AS {_NANOSECONDS.sub('VARCHAR', str(kind))}) END"


def _each(values: str, kind: Any, depth: int) -> str:
    return f"[{_whole(f'v{depth}', kind, depth + 1)} FOR v{depth} IN {values}]"


def _statements(sql: str) -> list[Any]:
    try:
        return list(duckdb.extract_statements(sql))
    except TypeError as error:  # text that UTF-8 can't hold
        raise QueryError("The query failed: it is not Unicode text.") from error
    except (duckdb.Error, RuntimeError) as error:
        raise QueryError(f"The query failed: {first_line(error)}") from error
