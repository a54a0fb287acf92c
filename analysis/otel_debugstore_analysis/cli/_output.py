"""Tables on standard output: for people, as JSON, CSV or Markdown.

Tables are for reading: with units, as wide as the terminal, without frames or colours in a pipe. JSON and CSV
are for programs: raw numbers under names that carry the unit. Remarks go to standard error in every format.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

if TYPE_CHECKING:
    from rich.console import Console

from otel_debugstore_analysis import plain_json
from otel_debugstore_analysis.text import heading, human, printable, shortened

FORMATS: Final = ("table", "json", "csv", "markdown")
_MIN_TEXT_WIDTH: Final = 8
_NAMES: Final = frozenset({"component", "workflow", "parent", "where", "name", "service", "file", "most component"})
"""What names tell most by their ends."""
_NUMBERS: Final = (int, float, Decimal)


class Rows(Protocol):
    """What `query.Table` is; named here so that printing needs no query."""

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def rows(self) -> list[tuple[Any, ...]]: ...


format_option = click.option(
    "--format",
    "output_format",
    type=click.Choice(FORMATS),
    default="table",
    show_default=True,
    help="How to print: table and markdown for people, json and csv with raw numbers for programs.",
)


def show(table: Rows, output_format: str, *, raw: bool = False, header: bool = True) -> None:
    """Print a table.

    Args:
        table: The rows.
        output_format: One of `FORMATS`.
        raw: Leave numbers as they are, also for people.
        header: Print the heading of CSV and Markdown; False to go on with a table.
    """
    if output_format == "table" and table.columns and sys.stdout.isatty():
        _show_rich(table, raw)
    else:
        click.echo(text_of(table, output_format, raw=raw, header=header), nl=False)


def text_of(table: Rows, output_format: str, *, raw: bool = False, header: bool = True) -> str:
    """Return a table as `show` prints it into a pipe."""
    if output_format == "json":
        return json_text(dicts(table), indent=2) + "\n"
    if output_format == "csv":
        return _csv_text(table, header)
    if output_format == "markdown":
        return _markdown_text(table, raw, header)
    return _table_text(table, raw)


def dicts(table: Rows) -> list[dict[str, Any]]:
    """Return the rows as dictionaries; columns of the same name are numbered."""
    columns = _distinct(table.columns)
    return [dict(zip(columns, row, strict=True)) for row in table.rows]


def _distinct(columns: Iterable[str]) -> list[str]:
    """Return the names, those that repeat another one numbered: an object holds a name once."""
    names: list[str] = []
    for column in columns:
        name, number = column, 0
        while name in names:
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names


def show_json(value: Any, *, indent: int | None = 2) -> None:
    """Print a value as JSON; what JSON does not know is text, NaN and infinities are null."""
    click.echo(json_text(value, indent=indent))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Return a value as JSON text that is safe to show on a terminal, and that standard output can hold."""
    ascii_only = not (getattr(sys.stdout, "encoding", None) or "utf-8").lower().startswith("utf")
    return plain_json.json_text(value, indent=indent, ascii_only=ascii_only)


def remark(text: str) -> None:
    """Print a line about the output, beside it."""
    click.echo(printable(text), err=True)


def _cells(table: Rows, raw: bool) -> list[list[str]]:
    def cell(column: str, value: Any) -> str:
        if raw and value is not None:
            return printable(str(value))
        return human(column, value)

    return [[cell(c, v) for c, v in zip(table.columns, row, strict=True)] for row in table.rows]


def _headings(table: Rows, raw: bool) -> list[str]:
    return [printable(column if raw else heading(column)) for column in table.columns]


def _table_text(table: Rows, raw: bool) -> str:
    if not table.columns:
        return ""
    lines, numeric = [_headings(table, raw), *_cells(table, raw)], _numeric(table)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(t.rjust(w) if right else t.ljust(w) for t, w, right in zip(line, widths, numeric, strict=True))
        for line in lines
    )
    return "".join(f"{line.rstrip()}\n" for line in padded)


def _show_rich(table: Rows, raw: bool) -> None:
    from rich import box
    from rich.cells import cell_len
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    headings, cells, numeric = _headings(table, raw), _cells(table, raw), _numeric(table)
    console = Console(highlight=False)
    natural = [max(map(cell_len, column)) for column in zip(headings, *cells, strict=True)]
    for gap in (2, 1):
        widths = fitting(natural, numeric, console.width - gap * len(headings))
        if widths is not None:
            break
    else:
        _show_records(headings, cells, console)
        return
    shown = Table(
        box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, gap - 1, 0, 0), header_style="bold"
    )  # the box has a blank between columns
    for title, right, width in zip(headings, numeric, widths, strict=True):
        justify: Any = "right" if right else "left"
        shown.add_column(Text(title), justify=justify, no_wrap=True, overflow="ellipsis", width=width)
    for line in cells:
        shown.add_row(*(Text(_cut(*cell)) for cell in zip(headings, line, widths, strict=True)))
    console.print(shown)


def fitting(natural: Sequence[int], numeric: Sequence[bool], available: int) -> list[int] | None:
    """Return widths of columns that fit: texts give way, the widest first; None if they can't enough."""
    widths = list(natural)
    while sum(widths) > available:
        texts = [i for i, right in enumerate(numeric) if not right and widths[i] > _MIN_TEXT_WIDTH]
        if not texts:
            return None
        widest = max(texts, key=lambda i: widths[i])
        widths[widest] -= 1
    return widths


def _cut(title: str, cell: str, width: int) -> str:
    """Return a name without its middle where it is too long; anything else, and wide characters, Rich cuts."""
    return shortened(cell, width) if title in _NAMES and len(cell) > width and cell.isascii() else cell


def _show_records(headings: Sequence[str], cells: Sequence[Sequence[str]], console: Console) -> None:
    """Print a block of lines a row, for tables too wide for the terminal."""
    from rich.text import Text

    width = max(map(len, headings))
    for number, line in enumerate(cells, 1):
        click.echo(f"-- {number} --")
        for title, text in zip(headings, line, strict=True):
            console.print(Text(f"{title.ljust(width)}  {text}"), no_wrap=True, overflow="ellipsis")


def _markdown_text(table: Rows, raw: bool, header: bool) -> str:
    lines = [_markdown_line(line) for line in _cells(table, raw)]
    if header:
        rule = _markdown_line(["---:" if right else "---" for right in _numeric(table)], escape=False)
        lines = [_markdown_line(_headings(table, raw)), rule, *lines]
    return "".join(f"{line}\n" for line in lines)


def _markdown_line(cells: Iterable[str], escape: bool = True) -> str:
    return f"| {' | '.join(cell.translate(_MARKUP) if escape else cell for cell in cells)} |"


_MARKUP: Final = str.maketrans({character: f"\\{character}" for character in "\\|`*_[]<>#"} | {"&": "&amp;"})
"""What Markdown or HTML would take for markup."""


def _csv_text(table: Rows, header: bool) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if header:
        writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow([_csv_value(value) for value in row])
    return text.getvalue()


def _csv_value(value: Any) -> Any:
    if isinstance(value, Decimal):
        return value  # every digit
    value = plain_json.plain(value)
    if isinstance(value, (dict, list)):
        return json_text(value)
    return "\n".join(map(printable, value.split("\n"))) if isinstance(value, str) else value


def _numeric(table: Rows) -> list[bool]:
    return [
        any(isinstance(row[i], _NUMBERS) for row in table.rows)
        and all(row[i] is None or isinstance(row[i], _NUMBERS) for row in table.rows)
        and not any(isinstance(row[i], bool) for row in table.rows)
        for i in range(len(table.columns))
    ]
