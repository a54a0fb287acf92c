"""What the commands of analyses share: their options, how they ask, and how answers are shown.

An answer is a table or several. People see the columns and the tables that matter to them; `json` has all of them
under the names of the Python API (docs/analyses/json.md), `csv` one table. With `--max-tokens` all that is printed
counts, so notes stand in the answer and not beside it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from otel_debugstore_analysis.cli._again import for_all_rows
from otel_debugstore_analysis.cli._options import Scope, engine_options
from otel_debugstore_analysis.cli._output import format_option
from otel_debugstore_analysis.cli._progress import progress_bar
from otel_debugstore_analysis.cli._selection import Chosen, selection_options
from otel_debugstore_analysis.cli._views import Tables, show_all
from otel_debugstore_analysis.cli._views import View as View
from otel_debugstore_analysis.cli._within import Answer, within

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Engine, Selection

F = TypeVar("F", bound=Callable[..., Any])

ALL: Final = 1_000_000_000
"""What `--limit 0` stands for."""
MIN_TOKENS: Final = 100


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

    def show(self, analysis: str, question: Callable[[Engine], Any], views: Mapping[str, View]) -> Tables:
        """Ask, print the answer, and return its tables.

        Args:
            analysis: Its name.
            question: Asks an engine; the answer is a table, or a tuple of tables with names.
            views: By table how people see it, the main one first; tables without one are not for them.
        """
        from otel_debugstore_analysis.report.answer import tables_of

        scope = self.scope.named()
        with progress_bar(analysis.replace("_", " ")), scope.engine() as engine:
            tables = tables_of(analysis, question(engine))
        if self.max_tokens is None:
            show_all(analysis, tables, views, self.output_format)
            return tables
        command = for_all_rows(scope, self.chosen)
        printed = within(Answer(analysis, tables, views, self.output_format, command), self.max_tokens)
        click.echo(printed.output, nl=False)
        if printed.remark:
            click.echo(printed.remark, nl=False, err=True)
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
