"""What an analysis answers, as tables by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from otel_debugstore_analysis.query import Table

Tables = Mapping[str, Table]


def tables_of(analysis: str, answer: Any) -> dict[str, Table]:
    """Return the tables of an answer by their names; a single one has the analysis's name."""
    if isinstance(answer, Table):
        return {analysis: answer}
    return {name: value for name, value in answer._asdict().items() if isinstance(value, Table)}


def as_dict(table: Table) -> dict[str, Any]:
    """Return a table as it stands in JSON: see docs/analyses/json.md."""
    rows = [{name: steady(value) for name, value in row.items()} for row in table.dicts()]
    return {"rows": rows, "left_out": table.left_out, "notes": list(table.notes)}


def steady(value: Any) -> Any:
    """Return a number without the digits in which sums differ that were added up in another order."""
    return float(f"{value:.12g}") if isinstance(value, float) else value


def cut_to(table: Table, rows: int) -> Table:
    """Return the first rows of a table; what is cut off is counted among what it left out."""
    if rows >= len(table.rows):
        return table
    left_out = None if table.left_out is None else table.left_out + len(table.rows) - rows
    return Table(table.columns, table.rows[:rows], left_out, table.notes)


def narrow_to(table: Table, width: int | None) -> Table:
    """Return a table whose texts have at most so many characters, any number for None."""

    def short(value: Any) -> Any:
        is_long = width is not None and isinstance(value, str) and len(value) > width
        return f"{value[:width]}…" if is_long else value

    rows = [tuple(map(short, row)) for row in table.rows]
    notes = table.notes if rows == table.rows else (*table.notes, f"Texts are cut after {width:,} characters.")
    return Table(table.columns, rows, table.left_out, notes)


def only(table: Table, columns: tuple[str, ...]) -> Table:
    """Return those columns of a table that it has, all if none are named."""
    places = [table.columns.index(name) for name in columns or table.columns if name in table.columns]
    names = tuple(table.columns[place] for place in places)
    return Table(names, [tuple(row[place] for place in places) for row in table.rows], table.left_out, table.notes)
