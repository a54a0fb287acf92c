"""Spans out of the store, as OTLP JSON Lines."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from otel_debugstore.errors import ConfigurationError, DebugStoreError
from otel_debugstore_exporters.batch import SpanBatch
from otel_debugstore_exporters.formats.otlp_json import write_lines
from otel_debugstore_exporters.whole_file import appearing


def write_otlp_json_lines(batches: Iterable[SpanBatch], out: BinaryIO) -> int:
    """Write the spans as OTLP JSON Lines, at most 512 a line; return how many there were.

    What OTLP can't hold is left out or written as its nearest relative, see `formats.otlp_json` and
    `formats.anyvalue`; everything that came in as OTLP goes out equal.
    """
    return write_lines(batches, out)


def export_otlp_json_file(batches: Iterable[SpanBatch], path: Path, overwrite: bool = False) -> int:
    """Write the spans to a file that appears when it is complete; return how many there were.

    Args:
        batches: The spans.
        path: Where; a name that ends in `.gz` or `.zst` is compressed.
        overwrite: Replace a file that is there.

    Raises:
        ConfigurationError: The file is there already, and `overwrite` is False.
        DebugStoreError: It can't be written.
    """
    if path.exists() and not overwrite:
        raise ConfigurationError(
            f"{path} is there already; choose another name, or allow it (--overwrite, overwrite=True)."
        )
    try:
        with appearing(path) as file, _compressed(file, path) as out:
            return write_lines(batches, out)
    except OSError as error:
        raise DebugStoreError(
            f"{path} can't be written ({error.strerror or error}); free space or fix access."
        ) from error


@contextlib.contextmanager
def _compressed(file: BinaryIO, path: Path) -> Iterator[Any]:
    if path.suffix == ".gz":
        with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as out:
            yield out
    elif path.suffix in (".zst", ".zstd"):
        with zstandard.ZstdCompressor().stream_writer(file, closefd=False) as writer:
            yield writer
    else:
        yield file
