"""`debugstore seal`: journals into segments."""

from __future__ import annotations

import click

from otel_debugstore_analysis.cli._options import Scope, scope_options
from otel_debugstore_analysis.cli._output import format_option, show


@click.command()
@format_option
@scope_options
def command(scope: Scope, output_format: str) -> None:
    """Move what journals hold into segments, and merge small segments.

    Reading does this by itself where it is quick; the program that records does it too. A sealed session of
    up to a million spans is one .duckdb file that any DuckDB opens.

    \b
    Examples:
      debugstore seal
      debugstore seal --all-sessions
    """
    from otel_debugstore_analysis.query import Table
    from otel_debugstore_exporters.seal import seal_if_idle
    from otel_debugstore_exporters.session import SessionPaths

    rows = []
    for session_id in scope.session_ids():
        paths = SessionPaths(scope.base_path, session_id)
        if seal_if_idle(paths):
            result = "sealed"
        elif paths.is_live():
            result = "the program that records into it seals it"
        else:
            result = "nothing to do" if not paths.journal.is_dir() else "another process seals it"
        rows.append((session_id, result, len(paths.segments()), paths.size_bytes()))
    show(Table(("session", "result", "segment_count", "size_bytes"), rows), output_format)
