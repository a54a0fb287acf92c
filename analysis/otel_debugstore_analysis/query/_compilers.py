"""Ibis's compilers, made to give the same answers on every engine.

Where ClickHouse and DuckDB differ, it is ClickHouse's SQL that follows: quantiles are exact and linear between
neighbours, rounding is half away from zero, sums of integers don't wrap around.
In both, integers are divided as integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import sqlglot as sg
import sqlglot.expressions as sge
from ibis.backends.sql.compilers import ClickHouseCompiler, DuckDBCompiler

from otel_debugstore_analysis.query._engine import Bound
from otel_debugstore_analysis.query._otel_traces import plain_name

_COMPARISONS: Final[dict[type, str]] = {sge.GTE: ">=", sge.GT: ">", sge.LTE: "<=", sge.LT: "<", sge.EQ: "="}
_UNSIGNED: Final = (sge.Count, sge.CountIf, sge.RowNumber, sge.Rank, sge.DenseRank, sge.Length, sge.ApproxDistinct)
_WIDE: Final = "toInt128"
_BOUNDED: Final = ("start_ns", "trace_id")


class ForDuckDB(DuckDBCompiler):  # type: ignore[misc]  # Ibis has no types
    """Ibis's compiler for DuckDB."""

    __slots__ = ()

    def visit_FloorDivide(self, op: Any, *, left: Any, right: Any) -> Any:  # noqa: N802
        """Of integers without a detour by floating point, which can't hold nanoseconds since 1970."""
        if op.left.dtype.is_integer() and op.right.dtype.is_integer():
            left, right = _floored(left, right)
            return self.cast(sge.IntDiv(this=left, expression=right), op.dtype)
        return super().visit_FloorDivide(op, left=left, right=right)


class ForClickHouse(ClickHouseCompiler):  # type: ignore[misc]
    """Ibis's compiler for ClickHouse, with DuckDB's arithmetic."""

    __slots__ = ()

    def visit_Quantile(self, op: Any, *, arg: Any, quantile: Any, where: Any) -> Any:  # noqa: N802
        """Linear between the two nearest values; NULL where there are none."""
        value = self._visit_quantile("quantileExactInclusive", arg, quantile, where)
        return self.if_(self.f.isNaN(value), sge.Null(), value)

    def visit_MultiQuantile(self, op: Any, *, arg: Any, quantile: Any, where: Any) -> Any:  # noqa: N802
        """The same, of several quantiles."""
        values = self._visit_quantile("quantilesExactInclusive", arg, quantile, where)
        name = sg.to_identifier("q")
        known = sge.Lambda(this=self.if_(self.f.isNaN(name), sge.Null(), name), expressions=[name])
        return self.f.arrayMap(known, values)

    def visit_Sum(self, op: Any, *, arg: Any, where: Any) -> Any:  # noqa: N802
        """Of integers in 128 bits."""
        if op.arg.dtype.is_integer():
            arg = self.f.anon[_WIDE](arg)
        return super().visit_Sum(op, arg=arg, where=where)

    def visit_Round(self, op: Any, *, arg: Any, digits: Any) -> Any:  # noqa: N802
        """Half away from zero."""
        if op.digits is not None and getattr(op.digits, "value", None) != 0:
            return super().visit_Round(op, arg=arg, digits=digits)
        whole = self.f.anon.trunc(arg)
        up = self.if_(self.f.anon.abs(arg - whole) >= 0.5, self.f.anon.sign(arg), 0)
        return self.cast(whole + up, op.dtype)

    def visit_FloorDivide(self, op: Any, *, left: Any, right: Any) -> Any:  # noqa: N802
        """Of integers without a detour by floating point."""
        if op.left.dtype.is_integer() and op.right.dtype.is_integer():
            return self.cast(self.f.anon.intDiv(*_floored(left, right)), op.dtype)
        return super().visit_FloorDivide(op, left=left, right=right)

    def visit_Coalesce(self, op: Any, *, arg: Any) -> Any:  # noqa: N802
        """Of whole numbers and others: ClickHouse has no type for both."""
        return super().visit_Coalesce(op, arg=self._alike(op.arg, arg, op.dtype))

    def visit_Greatest(self, op: Any, *, arg: Any) -> Any:  # noqa: N802
        """The same."""
        return super().visit_Greatest(op, arg=self._alike(op.arg, arg, op.dtype))

    def visit_Least(self, op: Any, *, arg: Any) -> Any:  # noqa: N802
        """The same."""
        return super().visit_Least(op, arg=self._alike(op.arg, arg, op.dtype))

    def visit_IfElse(self, op: Any, *, bool_expr: Any, true_expr: Any, false_null_expr: Any) -> Any:  # noqa: N802
        """The same."""
        kept = (op.true_expr, op.false_null_expr)
        true_expr, false_null_expr = self._alike(kept, (true_expr, false_null_expr), op.dtype)
        return super().visit_IfElse(op, bool_expr=bool_expr, true_expr=true_expr, false_null_expr=false_null_expr)

    def _alike(self, ops: Sequence[Any], compiled: Sequence[Any], dtype: Any) -> tuple[Any, ...]:
        """Return arguments of which the integers are cast where the result is none."""
        if not dtype.is_floating():
            return tuple(compiled)
        pairs = zip(ops, compiled, strict=True)
        return tuple(self.cast(sql, dtype) if op.dtype.is_integer() else sql for op, sql in pairs)

    def visit_InSubquery(self, op: Any, *, needle: Any, rel: Any) -> Any:  # noqa: N802
        """Without a cast, which would keep ClickHouse from using an index."""
        return super(ClickHouseCompiler, self).visit_InSubquery(op, needle=needle, rel=rel)

    def visit_Cast(self, op: Any, *, arg: Any, to: Any) -> Any:  # noqa: N802
        """Numbers with a fraction as DuckDB writes them: whole ones end in `.0`."""
        text = super().visit_Cast(op, arg=arg, to=to)
        if not (to.is_string() and op.arg.dtype.is_floating()):
            return text
        is_bare = self.f.anon.match(text, "^-?[0-9]+$")
        return self.if_(is_bare, self.f.anon.concat(text, ".0"), text)


def _floored(left: Any, right: Any) -> tuple[Any, Any]:
    """Return the operands of a division that cuts off the fraction, so that it rounds down as floor does."""
    left, right = sge.paren(left), sge.paren(right)
    rest = sge.paren(sge.Mod(this=sge.paren(sge.Mod(this=left, expression=right) + right), expression=right))
    return sge.paren(left - rest), right


def made_for_clickhouse(tree: sge.Expression, tables: Sequence[sge.Table]) -> dict[str, tuple[Bound, ...]]:
    """Change what Ibis made to what ClickHouse can run, safely; return the places of tables, see `Compiled.places`.

    Args:
        tree: What Ibis made.
        tables: The canonical tables in it.
    """
    _make_integers_common(tree)
    _make_names_plain(tree)
    return _numbered(tree, tables)


def _make_integers_common(tree: sge.Expression) -> None:
    """Make counts and sums signed integers of 64 bits.

    Those that it makes by itself (unsigned ones, and those of 128 bits) go with hardly any other number. A sum that
    64 bits can't hold is NULL.
    """
    for node in list(tree.find_all(*_UNSIGNED)):
        _wrap(node, "toInt64")
    for wide in [node for node in tree.find_all(sge.Anonymous) if node.this == _WIDE]:
        if wide.parent is not None:
            _wrap(wide.parent, "accurateCastOrNull", sge.Literal.string("Int64"))


def _make_names_plain(tree: sge.Expression) -> None:
    """Give names that could be taken for SQL others: keys of attributes are among them."""
    for node in list(tree.find_all(sge.Identifier)):
        node.set("this", plain_name(node.this))


def _wrap(node: Any, function: str, *arguments: sge.Expression) -> None:
    """Put a function around an aggregate, and the window over which it is one."""
    whole = node.parent if isinstance(node.parent, sge.Window) else node
    around = sge.Anonymous(this=function)
    whole.replace(around)
    around.set("expressions", [whole, *arguments])


def _numbered(tree: sge.Expression, tables: Sequence[sge.Table]) -> dict[str, tuple[Bound, ...]]:
    """Give every place of a table in the tree a name of its own; return what is known of its rows.

    ClickHouse can't derive from a condition on nanoseconds which part of `otel_traces` holds such rows, nor from a
    condition on some spans of a trace where the others lie.
    """
    found: dict[str, tuple[Bound, ...]] = {}
    places = [(select, table) for select in tree.find_all(sge.Select) for table in _tables(select) if table in tables]
    bounds = [tuple(_bounds(select, table.alias_or_name)) for select, table in places]
    for (_, table), known in zip(places, bounds, strict=True):
        name = f"{table.name}#{len(found)}"
        found[name] = known
        table.set("this", sge.to_identifier(name, quoted=True))
    return found


def _tables(select: sge.Select) -> list[sge.Table]:
    origin = select.args.get("from_")
    sources = [origin.this] if origin else []
    sources += [join.this for join in select.args.get("joins") or ()]
    return [source for source in sources if isinstance(source, sge.Table)]


def _bounds(select: sge.Select, alias: str) -> Iterator[Bound]:
    where = select.args.get("where")
    if where is None:
        return
    condition = where.this
    for part in condition.flatten() if isinstance(condition, sge.And) else [condition]:
        part = part.unnest()
        column = part.this
        if not isinstance(column, sge.Column) or column.table != alias or column.name not in _BOUNDED:
            continue
        if isinstance(part, sge.In) and column.name == "trace_id":
            yield from _bounds_of_traces(part.args.get("query"))
        elif (operator := _COMPARISONS.get(type(part))) and not any(part.expression.find_all(sge.Column, sge.Query)):
            yield Bound(column.name, operator, part.expression.sql(dialect="clickhouse"))


def _bounds_of_traces(query: sge.Expression | None) -> Iterator[Bound]:
    """Yield what is known of the spans of traces that a subquery names: they start near the ones it looks at."""
    inner = query.find(sge.Select) if query is not None else None
    for table in _tables(inner) if inner is not None else ():
        if inner is not None and table.name == "spans":
            for bound in _bounds(inner, table.alias_or_name):
                yield bound._replace(days=bound.days + (bound.column == "start_ns"))
