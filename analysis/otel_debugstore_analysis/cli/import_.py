"""`debugstore import`: files into a session."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from otel_debugstore_analysis.cli._errors import Findings
from otel_debugstore_analysis.cli._options import base_path, data_dir_option
from otel_debugstore_analysis.cli._output import format_option, remark, show
from otel_debugstore_analysis.cli._progress import progress_bar

if TYPE_CHECKING:
    from otel_debugstore_exporters.importer import FileReport, ImportReport, Progress

_SHOWN: Final = 20
"""Malformed units of a file that are shown; all are counted."""


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--session", "-s", metavar="ID", help="The session to import into; by default named after the first file."
)
@click.option(
    "--from",
    "source_format",
    metavar="FORMAT",
    help="otlp-json, otlp-proto or jaeger-json; found out by default.",
)
@click.option("--again", is_flag=True, help="Import also what the session holds already.")
@format_option
@data_dir_option
def command(
    files: tuple[str, ...], session: str | None, source_format: str | None, again: bool, output_format: str
) -> None:
    """Import OTLP (JSON Lines or protobuf) or Jaeger JSON files into a session.

    Files may be compressed with gzip or zstd; "-" is standard input. A line (or message) is all or nothing: a
    malformed one is reported, the rest goes in, and the exit code is 1. A file that the session holds already
    is skipped.

    \b
    Examples:
      debugstore import traces.jsonl.gz
      debugstore import --session incident-42 *.otlp.jsonl
      curl -s http://localhost:16686/api/traces/4bf9... | debugstore import --session jaeger -
    """
    from otel_debugstore_exporters.importer import import_files
    from otel_debugstore_exporters.session import SessionPaths

    paths = SessionPaths(base_path(), session or _session_of(files[0]))
    with progress_bar("Importing", unit_bytes=True) as update:

        def progress(now: Progress) -> None:
            if update is not None:
                update(Path(now.name).name, now.done_bytes, now.total_bytes)

        report = import_files(list(files), paths, format=source_format, again=again, progress=progress)
    _show(report, paths.session_id, output_format)


def _session_of(file: str) -> str:
    """Return the session that a file is imported into by default: the same every time."""
    from otel_debugstore.session_id import MAX_LENGTH

    stem = "stdin" if file == "-" else Path(file).name
    stem = re.sub(r"(\.(gz|zst|zstd|jsonl?|pb|bin|otlp))+$", "", stem)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip(".-")[:MAX_LENGTH] or "import"


def _show(report: ImportReport, session_id: str, output_format: str) -> None:
    from otel_debugstore_analysis.query import Table

    columns = ("file", "session", "result", "span_count", "malformed_count")
    show(Table(columns, [_row(file, session_id) for file in report.files]), output_format)
    for file in report.files:
        for malformed in file.malformed[:_SHOWN]:
            remark(f"{file.name}:{malformed.number}: {malformed.message}")
        if file.malformed_count > _SHOWN:
            remark(f"{file.name}: {file.malformed_count - _SHOWN:,} more malformed ones are not shown.")
        if file.skipped:
            remark(f"{file.name}: the session holds it already; --again imports it once more.")
    if not report.complete:
        raise Findings


def _row(file: FileReport, session_id: str) -> tuple[Any, ...]:
    result = "skipped" if file.skipped else file.error or "imported"
    return (file.name, session_id, result, file.spans, file.malformed_count)
