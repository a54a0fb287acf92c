"""`debugstore export`: sessions as OTLP JSON Lines or Parquet."""

from __future__ import annotations

import itertools
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.cli._options import Scope, reading_options
from otel_debugstore_analysis.cli._output import remark
from otel_debugstore_analysis.cli._progress import Update, progress_bar

if TYPE_CHECKING:
    from otel_debugstore_exporters.batch import SpanBatch, SpanRecord
    from otel_debugstore_exporters.reader import SessionReader

_BATCH: Final = 512


@click.command()
@click.option(
    "--to",
    "target",
    type=click.Choice(["otlp-json", "parquet"]),
    default="otlp-json",
    show_default=True,
    help="The format.",
)
@click.option(
    "--output",
    "-o",
    default="-",
    metavar="PATH",
    help='The file (compressed if it ends in .gz or .zst), for parquet the folder; "-" is standard output.',
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@reading_options
def command(scope: Scope, target: str, output: str, overwrite: bool) -> None:
    """Write sessions as OTLP JSON Lines, which Collectors and Jaeger read, or as Parquet.

    What was imported comes out equal, field by field. Parquet makes a folder with a file a table.

    \b
    Examples:
      debugstore export -o traces.jsonl.gz
      debugstore export --to parquet -o traces/
      debugstore export --session nightly | gzip > nightly.jsonl.gz
    """
    if target == "parquet" and output == "-":
        raise click.UsageError("Parquet goes into a folder: name it with --output.")
    with scope.reader() as reader, progress_bar("Exporting") as update:
        reader.refresh()
        if target == "parquet":
            _export_parquet(reader, Path(output), overwrite)
            return
        from otel_debugstore_exporters import export

        batches = _batches(_counted(reader, update))
        if output == "-":
            export.write_otlp_json_lines(batches, sys.stdout.buffer)
            return
        count = export.export_otlp_json_file(batches, Path(output), overwrite)
    remark(f"{count:,} spans written to {output}.")


def _counted(reader: SessionReader, update: Update | None) -> Iterator[SpanRecord]:
    total = reader.query("SELECT count(*) FROM spans").rows[0][0] if update else 0
    for number, record in enumerate(reader.records()):
        if update is not None and number % _BATCH == 0:
            update("", number, total)
        yield record


def _batches(records: Iterable[SpanRecord]) -> Iterator[SpanBatch]:
    from otel_debugstore_exporters.batch import batch_from_records

    remaining = iter(records)
    while some := list(itertools.islice(remaining, _BATCH)):
        yield batch_from_records(some)


def _export_parquet(reader: SessionReader, folder: Path, overwrite: bool) -> None:
    """Write a folder that appears when it is complete."""
    from otel_debugstore_exporters.archive import export_parquet

    if folder.exists() and not overwrite:
        raise ConfigurationError(f"{folder} is there already; choose another name, or allow it (--overwrite).")
    if folder.exists() and any(path.suffix != ".parquet" for path in folder.iterdir()):
        raise ConfigurationError(f"{folder} holds other files than Parquet; choose another name.")
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.absolute().parent))
    try:
        export_parquet(reader, temporary)
        temporary.chmod(0o755)
        if folder.exists():
            shutil.rmtree(folder)
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    remark(f"{len(list(folder.iterdir()))} tables written to {folder}.")
