"""`debugstore sql`: a SELECT over sessions."""

from __future__ import annotations

import sys
from typing import Final

import click

from otel_debugstore_analysis.cli._options import Scope, reading_options
from otel_debugstore_analysis.cli._output import format_option, remark, show

_MEMORY_BYTES: Final = 4 << 30
"""Twice what DuckDB may take for tables: for the texts of a query, and the rows that come back."""


@click.command()
@click.argument("query")
@click.option("--limit", "-n", type=click.IntRange(0), default=1000, show_default=True, help="Rows at most; 0 for all.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=60.0,
    show_default=True,
    help="Seconds the query may take.",
)
@format_option
@reading_options
def command(scope: Scope, query: str, limit: int, timeout: float, output_format: str) -> None:
    """Run one SELECT (DuckDB's SQL) over sessions; "-" reads it from standard input.

    Nothing can be changed by it, and it reaches no file and no network. There are the tables spans, traces,
    resources, scopes, payloads, code, counters, rollup and rollup_total, and the views otel_traces, records and
    performance_summary; docs/schema.md describes them.

    \b
    Examples:
      debugstore sql "SELECT component, count(*) FROM spans GROUP BY ALL"
      debugstore sql "SELECT attributes['http.route'] AS route, max(duration_ns) FROM spans GROUP BY ALL"
      debugstore sql "SELECT * FROM traces ORDER BY start_ns DESC LIMIT 5" --format json
    """
    from otel_debugstore_exporters.untrusted_sql import bounded_memory

    text = sys.stdin.read() if query == "-" else query
    with scope.reader(memory_limit="2GB") as reader, bounded_memory(_MEMORY_BYTES):
        result = reader.query_untrusted(text, limit=limit or None, timeout_seconds=timeout)
    show(result, output_format, raw=True)
    if result.truncated:
        remark(f"Only the first {limit:,} rows are shown; --limit 0 shows all.")
