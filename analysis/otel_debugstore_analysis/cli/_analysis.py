"""What the commands of analyses share: their options, how they ask, and how answers are shown.

An answer is a table or several. People see the columns and the tables that matter to them; `json` has all of them
under the names of the Python API (docs/analyses/json.md), `csv` one table. With `--max-tokens` all that is printed
counts, so notes stand in the answer and not beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import click

from otel_debugstore_analysis.cli._options import Scope, engine_options
from otel_debugstore_analysis.cli._output import dicts, format_option, json_text, remark, show, text_of
from otel_debugstore_analysis.cli._progress import progress_bar
from otel_debugstore_analysis.cli._selection import Chosen, selection_options
from otel_debugstore_analysis.text import printable

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Engine, Selection, Table
    from otel_debugstore_analysis.report.budget import LeftOut, Section

F = TypeVar("F", bound=Callable[..., Any])

ALL: Final = 1_000_000_000
"""What `--limit 0` stands for."""
MIN_TOKENS: Final = 100
_WIDTHS: Final = (None, 2000, 200, 40)
"""To how many characters texts are cut, one after the other, until something fits."""
_Tables = Mapping[str, "Table"]


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
    shape: Callable[[Table, _Tables], Table] | None = None
    keeps_empty: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """What the shared options of a command say."""

    scope: Scope
    chosen: Chosen
    component: str | None
    output_format: str
    max_tokens: int | None

    def selection(self, *, of_component: bool = True) -> Selection:
        """Return which spans count.

        Args:
            of_component: Whether `--component` selects spans; if not, it is the command's to use.
        """
        return self.chosen.selection(self.component if of_component else None)

    def show(self, analysis: str, question: Callable[[Engine], Any], views: Mapping[str, View]) -> _Tables:
        """Ask, print the answer, and return its tables.

        Args:
            analysis: Its name.
            question: Asks an engine; the answer is a table, or a tuple of tables with names.
            views: By table how people see it, the main one first; tables without one are not for them.
        """
        from otel_debugstore_analysis.report.answer import tables_of

        with progress_bar(analysis.replace("_", " ")), self.scope.engine() as engine:
            tables = tables_of(analysis, question(engine))
        if self.max_tokens is not None:
            click.echo(_within(analysis, tables, views, self.output_format, self.max_tokens), nl=False)
        else:
            _show(analysis, tables, views, self.output_format)
        return tables


def analysis_options(function: F) -> F:
    """Give a command what all analyses have; it gets them as one argument `ask`."""

    @functools.wraps(function)
    def wrapper(
        scope: Scope,
        chosen: Chosen,
        component: str | None,
        output_format: str,
        max_tokens: int | None,
        **rest: Any,
    ) -> Any:
        return function(ask=Ask(scope, chosen, component, output_format, max_tokens), **rest)

    decorated: Any = selection_options(component_option(max_tokens_option(format_option(engine_options(wrapper)))))
    return decorated  # type: ignore[no-any-return]


component_option: Final = click.option("--component", metavar="NAME", help="Only this component.")
max_tokens_option: Final = click.option(
    "--max-tokens",
    type=click.IntRange(MIN_TOKENS),
    metavar="N",
    help=f"Tokens at most, a hard limit, at least {MIN_TOKENS}; what is left out is counted.",
)


def limit_option(default: int, what: str) -> Callable[[F], F]:
    """Return `--limit`: how many of something at most; the command gets `ALL` for 0."""
    return click.option(
        "--limit",
        "-n",
        type=click.IntRange(0),
        default=default,
        show_default=True,
        callback=lambda _context, _parameter, value: value or ALL,
        help=f"{what} at most; 0 for all.",
    )


def _show(analysis: str, tables: _Tables, views: Mapping[str, View], output_format: str) -> None:
    main = next(iter(views))
    if output_format == "json":
        click.echo(_json(analysis, tables), nl=False)
        return
    left_out = tables[main].left_out
    if output_format == "csv":
        show(tables[main], "csv")
    else:
        left_out = _show_views(tables, views, output_format)
    for note in _notes(tables, views):
        remark(note)
    if left_out:
        remark(f"{left_out:,} more rows are not shown; --limit 0 shows all.")


def _show_views(tables: _Tables, views: Mapping[str, View], output_format: str) -> int | None:
    """Print the tables, and return how many rows the main one has beyond."""
    found = _viewed(tables, views)
    shown = [(view.title, table) for view, table in found if table.rows]
    for number, (title, table) in enumerate(shown):
        if number:
            click.echo()
        if title:
            click.echo(_title(title, output_format))
        show(table, output_format)
    return found[0][1].left_out


def _viewed(tables: _Tables, views: Mapping[str, View]) -> list[tuple[View, Table]]:
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


def _title(title: str, output_format: str) -> str:
    return f"## {title}\n" if output_format == "markdown" else f"{title}:"


def _notes(tables: _Tables, views: Mapping[str, View]) -> list[str]:
    """Return what is to be said of the tables that are shown, each sentence once."""
    notes = list(dict.fromkeys(note for name in views for note in tables[name].notes))
    return notes if notes or any(tables[name].rows for name in views) else ["Nothing of the kind was found."]


def _json(analysis: str, tables: _Tables) -> str:
    """Return an answer as JSON with a line a row."""
    parts = []
    for name, table in tables.items():
        rows = ",\n".join(f"        {json_text(row)}" for row in dicts(table))
        body = f"[\n{rows}\n      ]" if rows else "[]"
        rest = f'"left_out": {json_text(table.left_out)}, "notes": {json_text(list(table.notes))}'
        parts.append(f'    {json_text(name)}: {{\n      "rows": {body},\n      {rest}\n    }}')
    return f'{{\n  "analysis": {json_text(analysis)},\n  "tables": {{\n' + ",\n".join(parts) + "\n  }\n}\n"


def _within(analysis: str, tables: _Tables, views: Mapping[str, View], output_format: str, max_tokens: int) -> str:
    """Return what is printed of an answer in so many tokens."""
    from otel_debugstore_analysis.report.answer import narrow_to

    for width in _WIDTHS:
        narrowed = {name: narrow_to(table, width) for name, table in tables.items()}
        text = _fitted(analysis, narrowed, views, output_format, max_tokens)
        if text is not None:
            return text
    return _least(analysis, output_format)


def _fitted(
    analysis: str, tables: _Tables, views: Mapping[str, View], output_format: str, max_tokens: int
) -> str | None:
    """Return what is printed of an answer in so many tokens; None if not one row fits."""
    from otel_debugstore_analysis.report.answer import cut_to
    from otel_debugstore_analysis.report.budget import Layout, Section, Tier, fit

    names = tables if output_format == "json" else list(views)[:1] if output_format == "csv" else views

    def text(sections: Sequence[Section], taken: Sequence[int], rest: str) -> str:
        counts = {section.name: items for section, items in zip(sections, taken, strict=True)}
        kept = {name: cut_to(table, counts.get(name, len(table.rows))) for name, table in tables.items()}
        return _printed(analysis, kept, views, output_format) + rest

    command = f"debugstore {analysis.replace('_', '-')} --limit 0"
    sections = [
        Section(Tier.EVIDENCE, name, "", ("",) * len(tables[name].rows), command, further=tables[name].left_out or 0)
        for name in names
    ]
    ways = (_unsaid, _unsaid) if output_format in ("json", "csv") else (_listed, _summed)
    return fit(sections, max_tokens, Layout(text, (*ways, _unsaid, _unsaid), lambda _, tokens: "")) or None


def _printed(analysis: str, tables: _Tables, views: Mapping[str, View], output_format: str) -> str:
    if output_format == "json":
        return _json(analysis, tables)
    if output_format == "csv":
        return text_of(tables[next(iter(views))], "csv")
    parts = []
    for view, table in _viewed(tables, views):
        if table.rows:
            title = f"{_title(view.title, output_format)}\n" if view.title else ""
            parts.append(title + text_of(table, output_format))
    notes = "".join(f"{printable(note)}\n" for note in _notes(tables, views))
    return "\n".join([*parts, *([notes] if notes else [])])


def _listed(rest: Sequence[LeftOut]) -> str:
    lines = [f"{count:,} rows of {section.name} are left out: {section.command}\n" for section, count in rest]
    return "".join(lines)


def _summed(rest: Sequence[LeftOut]) -> str:
    return f"{sum(count for _, count in rest):,} rows are left out.\n" if rest else ""


def _unsaid(rest: Sequence[LeftOut]) -> str:
    return ""


def _least(analysis: str, output_format: str) -> str:
    """Return what is printed where not one row fits: that none does."""
    if output_format == "json":
        return json_text({"analysis": analysis, "tables": {}}) + "\n"
    return "" if output_format == "csv" else "No row fits into so few tokens.\n"
