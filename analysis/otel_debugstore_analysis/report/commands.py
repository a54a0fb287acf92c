"""Command lines that ask of the same spans again, for whoever is to fetch what was left out.

Values of options may have been recorded by anyone, so each is quoted for a POSIX shell. A value with control,
bidirectional or invisible characters, or with a backtick, would not be what it looks like, or would end the code span
that the command stands in: then there is no command.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from otel_debugstore_analysis.query import Selection
from otel_debugstore_analysis.text import printable

_FIRST_AS_NUMBER: Final = 10**15
"""Nanoseconds that the command line takes for a time since 1970; fewer are a time ago."""


def line(*words: str) -> str:
    """Return a command line of these words; empty if one of them can't be shown as it is."""
    if any(printable(word) != word or "`" in word for word in words):
        return ""
    return shlex.join(words)


def of_sessions(base_path: str | os.PathLike[str], sessions: Iterable[str]) -> tuple[str, ...]:
    """Return the options that name sessions and where they lie."""
    return "--data-dir", os.fspath(base_path), *named(sessions)


def named(sessions: Iterable[str]) -> tuple[str, ...]:
    """Return the options that name sessions."""
    return tuple(word for session in sessions for word in ("--session", session))


def of_selection(selection: Selection) -> tuple[str, ...] | None:
    """Return the options that select the same spans; None where no options do."""
    words: list[str] = []
    for option, time_ns in (("--since", selection.since_ns), ("--until", selection.until_ns)):
        if time_ns is not None:
            words += option, moment(int(time_ns))
    for name, value in selection.where.items():
        values = (value,) if isinstance(value, str) else value
        if len(values) != 1 or not name or "=" in name:
            return None
        words += "--where", f"{name}={values[0]}"
    return tuple(words)


def moment(time_ns: int) -> str:
    """Return a time as the command line takes it."""
    if time_ns >= _FIRST_AS_NUMBER:
        return str(time_ns)
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_ns // 1000)).isoformat()
