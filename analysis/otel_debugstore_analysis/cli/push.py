"""`debugstore push`: sessions into ClickHouse."""

from __future__ import annotations

import functools

import click

from otel_debugstore_analysis.cli._options import Scope, scope_options, seal_quietly
from otel_debugstore_analysis.cli._output import format_option, remark, show
from otel_debugstore_analysis.cli._progress import progress_bar


@click.command()
@click.option(
    "--engine",
    "url",
    required=True,
    metavar="URL",
    help="The database: clickhouse://user@host:port/database, clickhouses:// (TLS) or chdb:///path. "
    "The password comes from the URL, else from CLICKHOUSE_PASSWORD.",
)
@click.option("--again", is_flag=True, help="Replace what an earlier push of the session loaded.")
@format_option
@scope_options
def command(scope: Scope, url: str, again: bool, output_format: str) -> None:
    """Load sessions into ClickHouse, as spans of the OpenTelemetry Collector's table otel_traces.

    Tables that are not there are created. A session counts when all of it is loaded: what a push brought that was
    interrupted is never read, and removed at once or by the next push. A session that is there is skipped.

    \b
    Examples:
      debugstore push --engine clickhouse://default@localhost:8123/otel
      debugstore push --engine clickhouses://me@ch.example.org/otel --all-sessions
      debugstore top --engine clickhouse://default@localhost:8123/otel
    """
    from otel_debugstore_analysis.push import Pusher
    from otel_debugstore_analysis.query import Table
    from otel_debugstore_analysis.query._connect import client, shown
    from otel_debugstore_exporters.reader import SessionReader

    session_ids = scope.session_ids()
    done = []
    with client(url) as connection, progress_bar("Loading") as update:
        pusher = Pusher(connection, shown(url))
        for session_id in session_ids:
            seal_quietly(scope.base_path, [session_id])
            with SessionReader(scope.base_path, [session_id]) as reader:
                tell = functools.partial(update, session_id) if update is not None else None
                done.append(pusher.push(reader, session_id, again, tell))
    show(Table(("session", "state", "span_count"), [row[:3] for row in done]), output_format)
    for row in done:
        if row.more_count:
            remark(f"{row.session} has {row.more_count:,} more spans than were loaded; --again loads it anew.")
