"""Which spans an analysis looks at, and what its groups may be: fields of a span by name.

A field is a column of the span table, or else the key of an attribute; `attributes.KEY` is always the
attribute, also where a column has that name.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.text import instant

if TYPE_CHECKING:
    import ibis.expr.types as ir

ATTRIBUTE: Final = "attributes."
ALL_ATTRIBUTES: Final = "attributes"
INSTANCE: Final = "process_instance"
"""A further column: where the span's process ran, so that with the process id it tells processes apart. In containers
every process has the id 1. Of spans without a process id the service is part of it."""
INSTANCE_KEYS: Final = ("host.name", "k8s.pod.name", "service.instance.id")
"""The attributes of a resource that say it. Others may differ between the calls of one process."""
SPAN_START: Final = "start_ns"
MANY: Final = -1
_MAX_NAMED: Final = 100
"""Of a field with more values these are one parameter, a list: SQL with thousands of parameters compiles slowly."""


@dataclass(frozen=True, slots=True)
class Filter:
    """The shape of a selection without its values, so that its SQL can be kept: see `tables.compiled`.

    Attributes:
        since, until: Whether it has that bound.
        fields: The fields that must have certain values.
        counts: By field how many values it may have; `MANY` if these are a list.
    """

    since: bool = False
    until: bool = False
    fields: tuple[str, ...] = ()
    counts: tuple[int, ...] = ()

    @property
    def is_of_times(self) -> bool:
        """Whether it is a range of time, and nothing else."""
        return (self.since or self.until) and not self.fields

    def apply(self, spans: ir.Table) -> ir.Table:
        """Return the spans that the selection takes; its values are parameters of the query."""
        from otel_debugstore_analysis.query.tables import parameter

        conditions = []
        if self.since:
            conditions.append(spans[SPAN_START] >= parameter("since_ns", "int64"))
        if self.until:
            conditions.append(spans[SPAN_START] < parameter("until_ns", "int64"))
        found = self.where(spans, {name: column_of(name) for name in self.fields})
        return found.filter(*conditions) if conditions else found

    def where(self, table: ir.Table, columns: Mapping[str, str]) -> ir.Table:
        """Return the rows of a table whose fields, in these columns of it, have the selection's values."""
        from otel_debugstore_analysis.query.tables import given, parameter

        conditions = []
        for number, name in enumerate(self.fields):
            column = table[columns[name]]
            text = column if column.type().is_string() else column.cast("string")
            if self.counts[number] == MANY:
                conditions.append(text.isin(given(_list(number)).value))
                continue
            values = [parameter(_where(number, place)) for place in range(self.counts[number])]
            conditions.append(text == values[0] if len(values) == 1 else text.isin(values))
        return table.filter(*conditions) if conditions else table


@dataclass(frozen=True, slots=True)
class Selection:
    """Spans that start in [since_ns, until_ns) and whose fields have the given values.

    Attributes:
        since_ns: Nanoseconds since 1970-01-01 UTC; None is without bound.
        until_ns: The same.
        where: Field -> value as text, or several of which it must have one; numbers are compared by their decimal text.

    Raises:
        QueryError: A value is no text, or the range ends before it begins.
    """

    since_ns: int | None = None
    until_ns: int | None = None
    where: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.where.items():
            values = value if isinstance(value, (tuple, list)) else (value,)
            for one in values:
                if not isinstance(one, str):
                    raise QueryError(f"{name!r} can't be {one!r}: the value of a field is text, such as {str(one)!r}.")
        if self.since_ns is not None and self.until_ns is not None and self.since_ns > self.until_ns:
            since, until = instant(int(self.since_ns)), instant(int(self.until_ns))
            raise QueryError(f"No span starts after {since} and before {until} UTC: the range ends before it begins.")

    @property
    def filter(self) -> Filter:
        """The shape of this selection."""
        fields = tuple(sorted(self.where))
        counts = tuple(MANY if self._is_list(name) else len(self._values(name)) for name in fields)
        return Filter(self.since_ns is not None, self.until_ns is not None, fields, counts)

    @property
    def key(self) -> Hashable:
        """What tells this selection from others."""
        return self.since_ns, self.until_ns, tuple((name, self._values(name)) for name in sorted(self.where))

    @property
    def parameters(self) -> dict[str, Any]:
        """The values of this selection, by the names `Filter.apply` gives them."""
        values: dict[str, Any] = {}
        if self.since_ns is not None:
            values["since_ns"] = self.since_ns
        if self.until_ns is not None:
            values["until_ns"] = self.until_ns
        for number, name in enumerate(sorted(self.where)):
            if self._is_list(name):
                values[_list(number)] = list(self._values(name))
            else:
                values |= {_where(number, place): value for place, value in enumerate(self._values(name))}
        return values

    def _is_list(self, name: str) -> bool:
        return len(self._values(name)) > _MAX_NAMED

    def _values(self, name: str) -> tuple[str, ...]:
        value = self.where[name]
        return (value,) if isinstance(value, str) else tuple(value)


EVERYTHING: Final = Selection()


def _where(number: int, place: int) -> str:
    return f"where_{number}_{place}"


def _list(number: int) -> str:
    from otel_debugstore_analysis.query._engine import GIVEN

    return f"{GIVEN}_{number}"


def column_of(name: str) -> str:
    """Return the column of the span table that holds a field.

    Raises:
        QueryError: There can't be such a field.
    """
    from otel_debugstore_analysis.query.tables import SPAN_TYPES

    if name in SPAN_TYPES or name == INSTANCE:
        return name
    key = name.removeprefix(ATTRIBUTE)
    if not key or "\0" in key:
        raise QueryError(f"{name!r} is no field of a span; take a column, or the key of an attribute.")
    return ATTRIBUTE + key


def attributes_among(names: Iterable[str]) -> tuple[str, ...]:
    """Return those columns of the named fields that the span table has only if they are asked for."""
    return tuple(dict.fromkeys(c for c in map(column_of, names) if c.startswith(ATTRIBUTE) or c == INSTANCE))
