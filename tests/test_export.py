"""Exported files: compressed by their name, there as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_debugstore.errors import ConfigurationError, DebugStoreError
from otel_debugstore_exporters.batch import SpanBatch, SpanRecord, batch_from_records
from otel_debugstore_exporters.export import export_otlp_json_file
from otel_debugstore_exporters.formats import decode, open_input


def batches(count: int = 3) -> Iterator[SpanBatch]:
    for number in range(count):
        yield batch_from_records(
            [SpanRecord(b"t" * 16, bytes([number] * 8), "s", 1, 2, attributes={"n": number})] * 700
        )


@pytest.mark.parametrize(
    ("name", "compression"),
    [("a.jsonl", None), ("a.jsonl.gz", "gzip"), ("a.jsonl.zst", "zstd"), ("a.zstd", "zstd")],
)
def test_a_file_is_compressed_as_its_name_says(tmp_path: Path, name: str, compression: str | None) -> None:
    """What was written can be imported, with every span in its order."""
    path = tmp_path / name
    assert export_otlp_json_file(batches(), path) == 2100
    with path.open("rb") as file:
        opened = open_input(file)
        assert (opened.compression, opened.format) == (compression, "otlp-json")
        read = [unit.result for unit in decode(opened.stream, opened.format)]
    records = [record for batch in read if isinstance(batch, SpanBatch) for record in batch.records()]
    assert records == [record for batch in batches() for record in batch.records()]


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    """Unless overwriting is allowed."""
    path = tmp_path / "a.jsonl"
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="there already"):
        export_otlp_json_file(batches(), path)
    assert path.read_text() == "mine"
    assert export_otlp_json_file(batches(), path, overwrite=True) == 2100
    assert path.read_text() != "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_export_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    """Neither half a file nor a temporary one."""

    def interrupted() -> Iterator[SpanBatch]:
        yield from batches()
        raise error

    with pytest.raises(error):
        export_otlp_json_file(interrupted(), tmp_path / "a.jsonl.gz")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """One line that names the file."""
    with pytest.raises(DebugStoreError, match="can't be written"):
        export_otlp_json_file(batches(), tmp_path / "missing" / "a.jsonl")


def test_files_have_the_usual_access_rights(tmp_path: Path) -> None:
    """Those of any new file: the umask decides."""
    before = os.umask(0o027)
    try:
        export_otlp_json_file(batches(1), tmp_path / "a.jsonl")
    finally:
        os.umask(before)
    assert (tmp_path / "a.jsonl").stat().st_mode & 0o777 == 0o640
