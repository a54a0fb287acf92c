"""`debugstore archive`: sessions as Parquet files."""

from __future__ import annotations

import click

from otel_debugstore_analysis.cli._options import Scope, scope_options
from otel_debugstore_analysis.cli._output import format_option, show
from otel_debugstore_analysis.cli._progress import progress_over


@click.command()
@click.option("--remove", is_flag=True, help="Remove journal and segments when the archive is complete.")
@format_option
@scope_options
def command(scope: Scope, remove: bool, output_format: str) -> None:
    """Write sessions as Parquet files, for keeping and for other tools.

    An archive is a folder SESSION.archive with a file a table; it is there as a whole or not at all, and
    every command reads it like a session.

    \b
    Examples:
      debugstore archive
      debugstore archive --session nightly_20260301T020000.000Z --remove
    """
    from otel_debugstore_analysis.query import Table
    from otel_debugstore_exporters.archive import archive_session
    from otel_debugstore_exporters.session import SessionPaths

    rows = []
    for session_id in progress_over(scope.session_ids(), "Archiving"):
        folder = archive_session(SessionPaths(scope.base_path, session_id), remove=remove)
        rows.append((session_id, str(folder), sum(file.stat().st_size for file in folder.iterdir())))
    show(Table(("session", "archive", "size_bytes"), rows), output_format)
