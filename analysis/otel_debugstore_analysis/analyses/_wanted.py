"""Spans of certain groups: those that an analysis looks at closer, after another query has found which these are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from otel_debugstore_analysis.query import Selection, tables
from otel_debugstore_analysis.query._selection import Filter, attributes_among

if TYPE_CHECKING:
    import ibis.expr.types as ir

Key = tuple[Any, ...]
WantedValues = tuple[tuple[int, bool], ...]
"""By column how many values, and if NULL is among them."""


class Wanted(NamedTuple):
    """Groups, in an order, and what a query for their spans takes.

    Attributes:
        columns: What spans are grouped by.
        filter: The shape of the selection.
        values: How many values there are, by column.
        parameters: The values, and those of the selection.
        rank: The groups' places.
    """

    columns: tuple[str, ...]
    filter: Filter
    values: WantedValues
    parameters: dict[str, Any]
    rank: dict[Key, int]

    @staticmethod
    def of(columns: tuple[str, ...], selection: Selection, keys: Sequence[Key]) -> Wanted:
        """Return what asks for these groups among the selected spans."""
        parameters, counts = selection.parameters, []
        for number in range(len(columns)):
            different = list(dict.fromkeys(key[number] for key in keys))
            known = [value for value in different if value is not None]
            parameters |= {_key(number, place): value for place, value in enumerate(known)}
            counts.append((len(known), len(known) < len(different)))
        rank = {key: place for place, key in enumerate(keys)}
        return Wanted(columns, selection.filter, tuple(counts), parameters, rank)

    @property
    def shape(self) -> tuple[tuple[str, ...], Filter, WantedValues]:
        """The first arguments of functions that build a query with `wanted_spans`."""
        return self.columns, self.filter, self.values

    def in_order(self, rows: Sequence[Key]) -> list[tuple[Key, Key]]:
        """Return keys and the values beside them, in the order of the groups, without those of other groups."""
        width = len(self.columns)
        found = [(row[:width], row[width:]) for row in rows if row[:width] in self.rank]
        return sorted(found, key=lambda pair: (self.rank[pair[0]], pair[1][0]))


def wanted_spans(
    columns: tuple[str, ...], shape: Filter, values: WantedValues, further: Sequence[str] = ()
) -> ir.Table:
    """Return the selected spans whose values are, column by column, among those of the groups.

    Args:
        columns, shape, values: Of `Wanted`.
        further: Further attributes that are read, as columns `attributes.KEY`.
    """
    spans = shape.apply(tables.spans(attributes_among((*columns, *shape.fields, *further))))
    conditions = []
    for number, (column, (count, has_null)) in enumerate(zip(columns, values, strict=True)):
        kind = str(spans[column].type())
        among = spans[column].isin([tables.parameter(_key(number, place), kind) for place in range(count)])
        if has_null:
            among = among | spans[column].isnull() if count else spans[column].isnull()
        conditions.append(among)
    return spans.filter(*conditions)


def _key(number: int, place: int) -> str:
    return f"key_{number}_{place}"
