"""`debugstore tail`: the last spans, and those that end from now on."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from otel_debugstore_analysis.cli._options import Scope, scope_options
from otel_debugstore_analysis.cli._output import format_option, json_text, remark, show
from otel_debugstore_analysis.text import duration, instant, printable

if TYPE_CHECKING:
    from otel_debugstore_analysis.query import Follower, Table

POLL_SECONDS: Final = 0.25


@click.command()
@click.option("--follow", "-f", is_flag=True, help="Go on with spans as they end, until Ctrl-C.")
@click.option("--lines", "-n", type=click.IntRange(0), default=10, show_default=True, help="Spans to begin with.")
@format_option
@scope_options
def command(scope: Scope, follow: bool, lines: int, output_format: str) -> None:
    """Show the last spans by the time they ended, and with -f those that end from now on.

    With -f sessions that begin later are followed too, all or those that --session names. JSON is a line a span.

    \b
    Examples:
      debugstore tail
      debugstore tail -f
      debugstore tail -f --format json | jq 'select(.status == "ERROR")'
    """
    printer = _Printer(output_format)
    with contextlib.ExitStack() as stack:
        following = _Following(scope, lines, wait=follow, stack=stack)
        while True:
            for table in following.poll():
                printer.show(table)
            if not follow:
                return
            time.sleep(POLL_SECONDS)


class _Following:
    """One follower a session; sessions that begin later are taken in, if sessions were named then only those."""

    def __init__(self, scope: Scope, lines: int, wait: bool, stack: contextlib.ExitStack) -> None:
        from otel_debugstore_exporters.session import SessionPaths, list_sessions

        self._scope = scope
        self._stack = stack
        self._followers: dict[str, Follower] = {}
        self._known = set(list_sessions(scope.base_path))
        later = [s for s in scope.given if not SessionPaths(scope.base_path, s).exists()] if wait else []
        is_empty = wait and not scope.given and not self._known
        if later:
            remark(f"Not there yet, below {scope.base_path}: session {', '.join(later)}; waiting for it.")
            scope = dataclasses.replace(scope, given=tuple(s for s in scope.given if s not in later))
        elif is_empty:
            remark(f"No session lies below {scope.base_path} yet; waiting for one.")
        if scope.given or not (later or is_empty):
            for session_id in scope.session_ids():
                self._add(session_id, lines)

    def poll(self) -> Iterator[Table]:
        from otel_debugstore_exporters.session import list_sessions

        for session_id in list_sessions(self._scope.base_path):
            if session_id not in self._known and session_id in (self._scope.given or (session_id,)):
                self._add(session_id, 1_000_000)
        for follower in self._followers.values():
            yield follower.poll()

    def _add(self, session_id: str, lines: int) -> None:
        from otel_debugstore_analysis.query import DuckDBEngine, Follower
        from otel_debugstore_exporters.reader import SessionReader

        self._known.add(session_id)
        reader = self._stack.enter_context(SessionReader(Path(self._scope.base_path), [session_id], threads=1))
        self._followers[session_id] = Follower(DuckDBEngine(reader), lines)


class _Printer:
    """Prints tables one after the other as one."""

    def __init__(self, output_format: str) -> None:
        self._format = output_format
        self._began = False

    def show(self, table: Table) -> None:
        if self._format == "json":
            self._lines(table, json_text)
        elif self._format == "table":
            self._lines(table, _cut if sys.stdout.isatty() else _line)
        elif table.rows or not self._began:
            show(table, self._format, header=not self._began)
        self._began = True

    @staticmethod
    def _lines(table: Table, text: Callable[[dict[str, Any]], str]) -> None:
        if table.rows:
            click.echo("\n".join(map(text, table.dicts())))


def _cut(span: dict[str, Any]) -> str:
    """Return a line that fits the terminal."""
    from rich.text import Text

    line = Text(_line(span))
    line.truncate(shutil.get_terminal_size().columns, overflow="ellipsis")
    return line.plain


def _line(span: dict[str, Any]) -> str:
    began = instant(span["start_ns"]) if span["start_ns"] is not None else "-"
    took = duration(span["duration_ns"]) if span["duration_ns"] is not None else "-"
    failed = f"  ERROR {span['exception_type'] or ''}".rstrip() if span["status"] == "ERROR" else ""
    where = span["service"] or "-"
    return printable(f"{began}  {took:>8}  {span['trace_id'][:8]}  {where}  {span['name']}{failed}")
