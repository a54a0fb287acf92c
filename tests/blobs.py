"""Spans with names of their own in a journal, and sealed from there."""

from __future__ import annotations

from collections.abc import Iterable

from faults import stored_names
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.seal import seal
from otel_debugstore_exporters.session import SessionPaths
from sessions import span


def blob(number: int, spans: int = 2) -> bytes:
    records = [span(100 * number + i + 1, f"0-{number}-{i}") for i in range(spans)]
    return codec.encode(batch_from_records(records, 1), 1)


def names(numbers: Iterable[int], spans: int = 2) -> set[str]:
    return {f"0-{number}-{i}" for number in numbers for i in range(spans)}


def record(paths: SessionPaths, *numbers: int) -> None:
    with Journal.open(paths.journal) as journal:
        journal.append([blob(number) for number in numbers])


def sealed(paths: SessionPaths, *numbers: int) -> None:
    """Record blobs and seal them into one segment."""
    record(paths, *numbers)
    with Journal.open(paths.journal) as journal:
        seal(paths, journal)


def is_once(paths: SessionPaths, numbers: Iterable[int]) -> bool:
    found = stored_names(paths)
    return set(found) == names(numbers) and set(found.values()) == {1}


def waiting(paths: SessionPaths) -> int:
    with Journal.open(paths.journal) as journal:
        return journal.stats().blob_count
