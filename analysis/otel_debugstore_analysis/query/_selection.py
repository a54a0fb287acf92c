"""Which spans an analysis looks at, and what its groups may be: fields of a span by name.

A field is a column of the span table, or else the key of an attribute; `attributes.KEY` is always the
attribute, also where a column has that name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from otel_debugstore.errors import QueryError

if TYPE_CHECKING:
    import ibis.expr.types as ir

ATTRIBUTE: Final = "attributes."
SPAN_START: Final = "start_ns"


@dataclass(frozen=True, slots=True)
class Filter:
    """The shape of a selection without its values, so that its SQL can be kept: see `tables.compiled`."""

    since: bool = False
    until: bool = False
    fields: tuple[str, ...] = ()

    def apply(self, spans: ir.Table) -> ir.Table:
        """Return the spans that the selection takes; its values are parameters of the query."""
        from otel_debugstore_analysis.query.tables import parameter

        conditions = []
        if self.since:
            conditions.append(spans[SPAN_START] >= parameter("since_ns", "int64"))
        if self.until:
            conditions.append(spans[SPAN_START] < parameter("until_ns", "int64"))
        for number, name in enumerate(self.fields):
            column = spans[column_of(name)]
            text = column if column.type().is_string() else column.cast("string")
            conditions.append(text == parameter(f"where_{number}"))
        return spans.filter(*conditions) if conditions else spans


@dataclass(frozen=True, slots=True)
class Selection:
    """Spans that start in [since_ns, until_ns) and whose fields have the given values.

    Attributes:
        since_ns: Nanoseconds since 1970-01-01 UTC; None is without bound.
        until_ns: The same.
        where: Field -> value as text; numbers are compared by their decimal text.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    where: Mapping[str, str] = field(default_factory=dict)

    @property
    def filter(self) -> Filter:
        """The shape of this selection."""
        return Filter(self.since_ns is not None, self.until_ns is not None, tuple(sorted(self.where)))

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of this selection, by the names `Filter.apply` gives them."""
        values: dict[str, Any] = {}
        if self.since_ns is not None:
            values["since_ns"] = self.since_ns
        if self.until_ns is not None:
            values["until_ns"] = self.until_ns
        for number, name in enumerate(sorted(self.where)):
            values[f"where_{number}"] = self.where[name]
        return values


EVERYTHING: Final = Selection()


def column_of(name: str) -> str:
    """Return the column of the span table that holds a field.

    Raises:
        QueryError: There can't be such a field.
    """
    from otel_debugstore_analysis.query.tables import SPAN_TYPES

    if name in SPAN_TYPES:
        return name
    key = name.removeprefix(ATTRIBUTE)
    if not key or "\0" in key:
        raise QueryError(f"{name!r} is no field of a span; take a column, or the key of an attribute.")
    return ATTRIBUTE + key


def attributes_among(names: Iterable[str]) -> tuple[str, ...]:
    """Return those columns of the named fields that are attributes."""
    return tuple(dict.fromkeys(c for c in map(column_of, names) if c.startswith(ATTRIBUTE)))
