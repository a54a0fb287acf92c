"""Compiles Ibis expressions over the canonical tables to SQL with places for these."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import ibis.expr.operations as ops
import sqlglot.expressions as sge

from otel_debugstore_analysis.query._compilers import ForClickHouse, ForDuckDB, made_for_clickhouse
from otel_debugstore_analysis.query._engine import Compiled, place
from otel_debugstore_analysis.query.tables import CLICKHOUSE, MARK

if TYPE_CHECKING:
    import ibis.expr.types as ir


def compile_to(dialect: str, expression: ir.Table) -> Compiled:
    """Return the SQL of an expression in a dialect."""
    tree = _compiler(dialect).to_sqlglot(expression).transform(_parameter_or_same, dialect)
    tables = [table for table in tree.find_all(sge.Table) if not table.db and table.name not in _common(tree)]
    places = made_for_clickhouse(tree, tables) if dialect == CLICKHOUSE else {}
    for table in tables:
        table.set("this", sge.to_identifier(place(table.name), quoted=True))
    return Compiled(tree.sql(dialect=dialect), _reads(expression), tuple(expression.columns), places)


def _common(tree: sge.Expression) -> set[str]:
    """Return the names of common table expressions, which Ibis makes of what is used several times."""
    return {expression.alias for expression in tree.find_all(sge.CTE)}


def _reads(expression: ir.Table) -> dict[str, tuple[str, ...]]:
    names = {field.name for field in expression.op().find(ops.Field)}
    found: dict[str, tuple[str, ...]] = {}
    for table in expression.op().find(ops.UnboundTable):
        columns = tuple(name for name in table.schema.names if name in names) or table.schema.names[:1]
        found[table.name] = tuple(dict.fromkeys((*found.get(table.name, ()), *columns)))
    return found


def _parameter_or_same(node: sge.Expression, dialect: str) -> sge.Expression:
    if isinstance(node, sge.Literal) and node.is_string and node.this.startswith(MARK):
        name = node.this.removeprefix(MARK)
        if dialect == CLICKHOUSE:
            return sge.Placeholder(this=name, kind=sge.DataType.build("String", dialect=dialect))
        return sge.Parameter(this=sge.Var(this=name))
    return node


@functools.cache
def _compiler(dialect: str) -> Any:
    return ForClickHouse() if dialect == CLICKHOUSE else ForDuckDB()
