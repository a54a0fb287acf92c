"""`debugstore seal`: journals into segments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from otel_debugstore_analysis.cli._options import Scope, scope_options
from otel_debugstore_analysis.cli._output import format_option, show

if TYPE_CHECKING:
    from otel_debugstore_exporters.session import SessionPaths

_PATIENCE_SECONDS: Final = 30.0


@click.command()
@format_option
@scope_options
def command(scope: Scope, output_format: str) -> None:
    """Move what journals hold into segments, and merge small segments.

    Reading does this by itself where it is quick; the program that records does it too, and is asked to do it
    now. A sealed session of up to a million spans is one .duckdb file that any DuckDB opens.

    \b
    Examples:
      debugstore seal
      debugstore seal --all-sessions
    """
    from otel_debugstore_analysis.query import Table
    from otel_debugstore_exporters.session import SessionPaths

    rows = []
    for session_id in scope.session_ids():
        paths = SessionPaths(scope.base_path, session_id)
        rows.append((session_id, _seal(paths), len(paths.segments()), paths.size_bytes()))
    show(Table(("session", "result", "segment_count", "size_bytes"), rows), output_format)


def _seal(paths: SessionPaths) -> str:
    """Seal a session, or have it sealed, and say what came of it."""
    from otel_debugstore_exporters.journal import Journal
    from otel_debugstore_exporters.seal import seal_if_idle, seal_or_ask

    if seal_if_idle(paths):
        return "sealed"
    if not paths.journal.is_dir():
        return "nothing to do"
    with Journal.open(paths.journal) as journal:
        if seal_or_ask(paths, journal, _PATIENCE_SECONDS) is None:
            return "another process seals it"
    return "sealed by the program that records into it"
