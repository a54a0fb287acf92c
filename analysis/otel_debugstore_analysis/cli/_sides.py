"""Two sets of spans as arguments: BEFORE and AFTER."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from otel_debugstore_analysis.cli._analysis import Ask
from otel_debugstore_analysis.cli._times import TIME

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Engine, Selection

_RANGE: Final = ".."


class SideType(click.ParamType[str]):
    """A set as text, in which times are absolute."""

    name = "set"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from otel_debugstore_analysis.report.commands import moment

        text = str(value)
        if not _is_range(text):
            return text
        since, _, until = text.partition(_RANGE)
        return _RANGE.join(moment(TIME.convert(time, param, ctx)) if time else "" for time in (since, until))


SIDE: Final = SideType()


def _is_range(text: str) -> bool:
    return "=" not in text and _RANGE in text


def with_sessions(ask: Ask, *sides: str) -> Ask:
    """Return a question to the sessions, too, that sets name."""
    named = [session for text in sides for session in _sessions(text)]
    if not named or ask.scope.all_sessions:
        return ask
    scope = dataclasses.replace(ask.scope, given=tuple(dict.fromkeys((*ask.scope.given, *named))))
    return dataclasses.replace(ask, scope=scope)


def _sessions(text: str) -> Sequence[str]:
    """Return the sessions that a set names, none if it is another kind of set."""
    return () if "=" in text or _is_range(text) else [part for part in text.split(",") if part]


def side(engine: Engine, text: str, selection: Selection) -> Selection:
    """Return what of the selected spans is in a set."""
    from otel_debugstore_analysis.analyses.compare import of_commit

    field, equals, value = text.partition("=")
    if field == "commit" and equals:
        return dataclasses.replace(selection, where={**selection.where, **of_commit(engine, value).where})
    if equals:
        return dataclasses.replace(selection, where={**selection.where, field: value})
    if _is_range(text):
        since, _, until = text.partition(_RANGE)
        times = [TIME.convert(time, None, None) if time else None for time in (since, until)]
        return dataclasses.replace(selection, since_ns=times[0], until_ns=times[1])
    sessions = tuple(_sessions(text))
    if not sessions:
        raise click.UsageError("BEFORE and AFTER are sessions (a,b), FIELD=VALUE, commit=DIGITS, or TIME..TIME.")
    return dataclasses.replace(selection, where={**selection.where, "session": sessions})
