"""How people see the tables of an answer, and how programs get them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import click

from otel_debugstore_analysis.cli._output import dicts, json_text, remark, show

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Table

Tables = Mapping[str, "Table"]


class View(NamedTuple):
    """How people see a table of an answer.

    Attributes:
        title: What stands above it, where there are several.
        columns: Those that are shown; all if none are named.
        shape: Makes what is shown of it, before `columns` are taken.
        keeps_empty: Whether columns of which nothing is known are shown, too.
    """

    title: str = ""
    columns: tuple[str, ...] = ()
    shape: Callable[[Table, Tables], Table] | None = None
    keeps_empty: bool = False


def show_all(analysis: str, tables: Tables, views: Mapping[str, View], output_format: str) -> None:
    """Print an answer: a table or several, what has to be said of them, and how many rows there are beyond."""
    main = next(iter(views))
    if output_format == "json":
        click.echo(as_json(analysis, tables), nl=False)
        return
    left_out = tables[main].left_out
    if output_format == "csv":
        show(tables[main], "csv")
    else:
        left_out = _show_views(tables, views, output_format)
    for note in notes_of(tables, views):
        remark(note)
    if left_out:
        remark(f"{left_out:,} more rows are not shown; --limit 0 shows all.")


def _show_views(tables: Tables, views: Mapping[str, View], output_format: str) -> int | None:
    """Print the tables, and return how many rows the main one has beyond."""
    found = viewed(tables, views)
    shown = [(view.title, table) for view, table in found if table.rows]
    for number, (title, table) in enumerate(shown):
        if number:
            click.echo()
        if title:
            click.echo(heading_of(title, output_format))
        show(table, output_format)
    return found[0][1].left_out


def viewed(tables: Tables, views: Mapping[str, View]) -> list[tuple[View, Table]]:
    """Return the tables that are shown, as people see them."""
    from otel_debugstore_analysis.report.answer import only

    found = []
    for name, view in views.items():
        table = view.shape(tables[name], tables) if view.shape else tables[name]
        table = only(table, view.columns)
        found.append((view, table if view.keeps_empty else _without_empty(table)))
    return found


def _without_empty(table: Table) -> Table:
    """Return the columns of a table of which something is known."""
    from otel_debugstore_analysis.report.answer import only

    known = [name for place, name in enumerate(table.columns) if any(row[place] is not None for row in table.rows)]
    return only(table, tuple(known)) if known else table


def heading_of(title: str, output_format: str) -> str:
    """Return what stands above a table of several."""
    return f"## {title}\n" if output_format == "markdown" else f"{title}:"


def notes_of(tables: Tables, views: Mapping[str, View]) -> list[str]:
    """Return what is to be said of the tables that are shown, each sentence once."""
    notes = list(dict.fromkeys(note for name in views for note in tables[name].notes))
    return notes if notes or any(tables[name].rows for name in views) else ["Nothing of the kind was found."]


def as_json(analysis: str, tables: Tables, command: str = "") -> str:
    """Return an answer as JSON with a line a row; with the command that prints all of it, if there is one to name."""
    parts = []
    for name, table in tables.items():
        rows = ",\n".join(f"        {json_text(row)}" for row in dicts(table))
        body = f"[\n{rows}\n      ]" if rows else "[]"
        rest = f'"left_out": {json_text(table.left_out)}, "notes": {json_text(list(table.notes))}'
        parts.append(f'    {json_text(name)}: {{\n      "rows": {body},\n      {rest}\n    }}')
    end = f',\n  "command": {json_text(command)}\n}}\n' if command else "\n}\n"
    return f'{{\n  "analysis": {json_text(analysis)},\n  "tables": {{\n' + ",\n".join(parts) + "\n  }" + end
