"""Reads back what a program recorded, sealed or not."""

from __future__ import annotations

from pathlib import Path

from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.reader import SessionReader


def stored_spans(base_path: Path) -> list[SpanRecord]:
    """Return every span of the one session below a base path."""
    with SessionReader(base_path) as reader:
        reader.refresh()
        (_,) = reader.session_ids
        return list(reader.records())


def count_spans(reader: SessionReader) -> int:
    """Return how many spans a reader shows."""
    return int(reader.query("SELECT count(*) FROM spans").rows[0][0])
