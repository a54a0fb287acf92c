"""`debugstore report`: what is slow, since when, why, and what to do about it."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from otel_debugstore_analysis.cli._analysis import component_option, max_tokens_option
from otel_debugstore_analysis.cli._options import Scope, engine_options
from otel_debugstore_analysis.cli._output import remark
from otel_debugstore_analysis.cli._progress import Update, progress_bar
from otel_debugstore_analysis.cli._selection import Chosen, selection_options

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Engine, Selection

MAX_TOKENS: Final = 8_000
_FORMATS: Final = ("markdown", "html", "json")


@click.command()
@click.option(
    "--format",
    "output_format",
    type=click.Choice(_FORMATS),
    help="By default what the name of the output ends in (.md, .html, .json), else markdown.",
)
@click.option(
    "--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="A file; by default standard output."
)
@max_tokens_option
@selection_options
@component_option
@engine_options
def command(
    scope: Scope,
    chosen: Chosen,
    component: str | None,
    output_format: str | None,
    output: Path | None,
    max_tokens: int | None,
) -> None:
    """Report what is slow, since when, because of what, and what it would gain to fix it.

    Markdown is for agents and people: verdict and recommendations first, then what they rest on, code, and samples, in
    8,000 tokens unless --max-tokens says otherwise; what is left out is listed with the command that fetches it.
    HTML is one file with charts, waterfalls and a flame graph, to be opened offline.

    \b
    Examples:
      debugstore report
      debugstore report --max-tokens 1000 --since 1h
      debugstore report -o report.html
      debugstore report --format json --component parse
    """
    from otel_debugstore_analysis.report import tokens

    chosen_format = output_format or _format_of(output)
    if chosen_format == "html" and max_tokens is not None:
        raise click.UsageError("--max-tokens is for markdown and json: a page is for people.")
    if chosen_format == "markdown" or max_tokens is not None:
        tokens.load_in_background()
    selection, scope = chosen.selection(component), scope.named()
    with _without_collection(), progress_bar("report") as progress, scope.engine() as engine:
        text = _report(engine, selection, scope, chosen_format, max_tokens, progress)
    if output is None or str(output) == "-":
        click.echo(text, nl=False)
        return
    output.write_text(text, encoding="utf-8")
    remark(f"The report is in {output}.")


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Leave cycles alone for as long as the report takes: looking for them in all of Ibis takes a tenth of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _format_of(output: Path | None) -> str:
    suffix = output.suffix.lower() if output is not None else ""
    return {".html": "html", ".htm": "html", ".json": "json"}.get(suffix, "markdown")


def _report(
    engine: Engine,
    selection: Selection,
    scope: Scope,
    output_format: str,
    max_tokens: int | None,
    progress: Update | None,
) -> str:
    from otel_debugstore_analysis.report.findings import find

    is_page = output_format == "html"
    findings = find(engine, selection=selection, charts=is_page, scope=scope.options(), progress=progress)
    if is_page:
        from otel_debugstore_analysis.report.html import html_report

        return html_report(findings)
    if output_format == "json":
        from otel_debugstore_analysis.report.json import json_report

        return json_report(findings, max_tokens)
    from otel_debugstore_analysis.report.sections import markdown_report

    return markdown_report(findings, MAX_TOKENS if max_tokens is None else max_tokens)
