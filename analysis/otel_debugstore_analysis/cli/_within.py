"""An answer in a number of tokens: rows are left out, then long texts are cut; all that is printed counts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_debugstore_analysis.cli._output import json_text, text_of
from otel_debugstore_analysis.cli._views import Tables, View, as_json, heading_of, notes_of, viewed
from otel_debugstore_analysis.text import printable

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Table
    from otel_debugstore_analysis.report.budget import LeftOut, Section

_WIDTHS: Final = (None, 2000, 200, 40)
"""To how many characters texts are cut, one after the other, until something fits."""
_BESIDE: Final = "\0"
"""In a text that is printed: what follows goes to standard error. It is in no text that is printed."""


class Printed(NamedTuple):
    """What is printed, on standard output and beside it."""

    output: str
    remark: str


class Answer(NamedTuple):
    """An answer, and how it is printed.

    Attributes:
        analysis: Its name.
        tables: Its tables.
        views: By table how people see it, the main one first.
        output_format: One of `FORMATS`.
        command: The command that prints all of it; empty where there is none.
    """

    analysis: str
    tables: Tables
    views: Mapping[str, View]
    output_format: str
    command: str

    @property
    def printed(self) -> Iterable[str]:
        """The tables that are printed, by name."""
        if self.output_format == "json":
            return self.tables
        return list(self.views)[:1] if self.output_format == "csv" else self.views


def within(answer: Answer, max_tokens: int) -> Printed:
    """Return what is printed of an answer in so many tokens."""
    from otel_debugstore_analysis.report.answer import narrow_to

    for width in _WIDTHS:
        narrowed = {name: narrow_to(table, width) for name, table in answer.tables.items()}
        text = _fitted(answer._replace(tables=narrowed), max_tokens)
        if text is not None:
            output, _, remark = text.partition(_BESIDE)
            return Printed(output, remark)
    return _least(answer)


def _fitted(answer: Answer, max_tokens: int) -> str | None:
    """Return what is printed of an answer in so many tokens; None if not one row fits."""
    from otel_debugstore_analysis.report.answer import cut_to
    from otel_debugstore_analysis.report.budget import Layout, Section, Tier, fit

    def text(sections: Sequence[Section], taken: Sequence[int], rest: str) -> str:
        counts = {section.name: items for section, items in zip(sections, taken, strict=True)}
        kept = {name: cut_to(table, counts.get(name, len(table.rows))) for name, table in answer.tables.items()}
        if answer.output_format == "json":
            return as_json(answer.analysis, kept, rest)
        return _text(answer._replace(tables=kept)) + (f"{_BESIDE}{rest}" if answer.output_format == "csv" else rest)

    def section(name: str, table: Table) -> Section:
        further = table.left_out or 0
        return Section(Tier.EVIDENCE, name, "", ("",) * len(table.rows), answer.command, further=further)

    sections = [section(name, answer.tables[name]) for name in answer.printed]
    ways = (_fetched,) if answer.output_format == "json" else (_listed, _summed)  # JSON's tables have the numbers
    return fit(sections, max_tokens, Layout(text, (*ways, _unsaid, _unsaid), lambda _, tokens: "")) or None


def _text(answer: Answer) -> str:
    if answer.output_format == "csv":
        return text_of(answer.tables[next(iter(answer.views))], "csv")
    parts = []
    for view, table in viewed(answer.tables, answer.views):
        if table.rows:
            title = f"{heading_of(view.title, answer.output_format)}\n" if view.title else ""
            parts.append(title + text_of(table, answer.output_format))
    notes = "".join(f"{printable(note)}\n" for note in notes_of(answer.tables, answer.views))
    return "\n".join([*parts, *([notes] if notes else [])])


def _listed(rest: Sequence[LeftOut]) -> str:
    return "".join(
        f"{count:,} rows of {section.name} are left out{f': {section.command}' if section.command else '.'}\n"
        for section, count in rest
    )


def _fetched(rest: Sequence[LeftOut]) -> str:
    return next((section.command for section, _ in rest), "")


def _summed(rest: Sequence[LeftOut]) -> str:
    return f"{sum(count for _, count in rest):,} rows are left out.\n" if rest else ""


def _unsaid(rest: Sequence[LeftOut]) -> str:
    return ""


def _least(answer: Answer) -> Printed:
    """Return what is printed where not one row fits: that none does, and how many there are."""
    tables = [answer.tables[name] for name in answer.printed]
    count = sum(len(table.rows) + (table.left_out or 0) for table in tables)
    if answer.output_format == "json":
        return Printed(json_text({"analysis": answer.analysis, "tables": {}, "left_out": count}) + "\n", "")
    said = f"Nothing fits into so few tokens: {count:,} rows are left out.\n"
    return Printed("", said) if answer.output_format == "csv" else Printed(said, "")
