"""The canonical tables as Ibis expressions, and their compilation.

Analyses are functions that build an Ibis expression over `spans()`, `traces()` or `rollup()`. `run`
compiles it for an engine and fetches the rows. Building and compiling takes 8 ms, more than many a
query over a million spans, so compiled SQL is kept, by the function and the hashable arguments that give the
expression its shape; between processes too, where `_kept` was told a place. Values that change from call to call are
parameters.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Final

from otel_debugstore_analysis.query import _kept
from otel_debugstore_analysis.query._engine import GIVEN, Compiled, Engine
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import ALL_ATTRIBUTES
from otel_debugstore_exporters import schema

if TYPE_CHECKING:
    import ibis.expr.types as ir

_TYPES: Final = {
    "VARCHAR": "string",
    "BIGINT": "int64",
    "UBIGINT": "uint64",
    "INTEGER": "int32",
    "UINTEGER": "uint32",
    "SMALLINT": "int16",
    "DOUBLE": "float64",
    "BOOLEAN": "boolean",
}
CLICKHOUSE: Final = "clickhouse"
MARK: Final = "\ue000"
"""Begins the text that stands for a parameter until the SQL tree is there (a private-use character)."""


def _types(table: str) -> dict[str, str]:
    return {name: _TYPES[kind] for name, kind in schema.TABLES[table].items() if kind in _TYPES}


SPAN_TYPES: Final = _types("spans")
"""The scalar columns of the canonical span table and their Ibis types."""


def spans(attributes: tuple[str, ...] = ()) -> ir.Table:
    """Return the canonical span table, with attributes (`attributes.KEY`, or `INSTANCE`) as further text columns."""
    return ibis.table(SPAN_TYPES | dict.fromkeys(attributes, "string"), name="spans")


def resources() -> ir.Table:
    """Return the table with a row a resource, with all its attributes as JSON text."""
    return ibis.table({"resource_id": "string", ALL_ATTRIBUTES: "string"}, name="resources")


def traces() -> ir.Table:
    """Return the table with a row a trace and session."""
    return ibis.table(_types("traces"), name="traces")


def counters() -> ir.Table:
    """Return the table of calls that were counted: a row a component and interval."""
    return ibis.table(_types("counters"), name="counters")


def code() -> ir.Table:
    """Return the table with a row a version of a function's code."""
    return ibis.table(_types("code"), name="code")


def payloads() -> ir.Table:
    """Return the table with a row a recorded argument or result, without its content."""
    return ibis.table(_types("payloads"), name="payloads")


def rollup() -> ir.Table:
    """Return the histogram of durations: a row a component, ten seconds and bucket."""
    return ibis.table(_types("rollup"), name="rollup")


def rollup_total() -> ir.Table:
    """Return the histogram of durations of whole segments: a row a component and bucket."""
    return ibis.table(_types("rollup_total"), name="rollup_total")


def given(name: str = GIVEN) -> ir.Table:
    """Return the table with a row a text of a parameter that is a list: for more values than there can be names.

    Args:
        name: That of the parameter, which begins with `GIVEN`.
    """
    return ibis.table({"value": "string"}, name=name)


def parameter(name: str, kind: str = "string") -> ir.Value:
    """Return a value that is given when the query runs."""
    marked = ibis.literal(MARK + name)
    return marked if kind == "string" else marked.cast(kind)


def run(engine: Engine, build: Callable[..., ir.Table], *shape: Hashable, **parameters: Any) -> list[tuple[Any, ...]]:
    """Return the rows of the expression `build(*shape)` on an engine, with these parameters."""
    return engine.fetch(compiled(engine.dialect, build, *shape), parameters)


@functools.lru_cache(maxsize=256)
def compiled(dialect: str, build: Callable[..., ir.Table], *shape: Hashable) -> Compiled:
    """Return the SQL of the expression `build(*shape)` in a dialect."""
    found = _kept.load(dialect, build, shape)
    if found is None:
        from otel_debugstore_analysis.query._compile import compile_to

        found = compile_to(dialect, build(*shape))
        _kept.save(dialect, build, shape, found)
    return found
