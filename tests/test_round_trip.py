"""Any span goes through journal, seal, merge, archive and view, and comes back equal."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from otel_debugstore_exporters import codec
from otel_debugstore_exporters.archive import archive_session
from otel_debugstore_exporters.batch import SpanBatch, SpanRecord, batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.merging import merge
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.seal import seal
from otel_debugstore_exporters.session import SessionPaths
from strategies import ANYTHING, comparable, span_batches


def _in_order(batches: Sequence[SpanBatch]) -> list[str]:
    return sorted(repr(_keyed(comparable(record))) for batch in batches for record in batch.records())


def _keyed(value: Any) -> Any:
    """Dicts in the order of their keys: columns of attributes do not keep it."""
    if isinstance(value, dict):
        return sorted(((key, _keyed(item)) for key, item in value.items()), key=repr)
    return [_keyed(item) for item in value] if isinstance(value, list) else value


def _read(base_path: Path) -> list[str]:
    with SessionReader(base_path) as reader:
        reader.refresh()
        return sorted(repr(_keyed(comparable(record))) for record in reader.records())


@given(span_batches(ANYTHING, max_size=6))
@settings(deadline=None)
def test_a_blob_decodes_to_what_was_encoded(batch: SpanBatch) -> None:
    """Every field survives the journal's format."""
    assert _in_order([codec.decode(codec.encode(batch, 1))]) == _in_order([batch])


def test_an_empty_key_in_a_list_of_several_kinds(tmp_path: Path) -> None:
    """It comes back as a map, not as a list of pairs."""
    record = SpanRecord(b"1" * 16, b"2" * 8, "name", 1, 2, attributes={"a": [{"b": {"": -1}}, []]})
    batch = batch_from_records([record])
    with Journal.open(SessionPaths(tmp_path, "session").journal, map_size=1 << 20) as journal:
        journal.append([codec.encode(batch, 1)])
    assert _read(tmp_path) == _in_order([batch])


@pytest.mark.slow
@given(span_batches(ANYTHING, max_size=4), span_batches(ANYTHING, max_size=4))
@settings(
    deadline=None,
    max_examples=20,
    phases=[Phase.explicit, Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.too_slow],
)
def test_spans_come_back_equal_from_every_form_of_storage(first: SpanBatch, second: SpanBatch) -> None:
    """Tail, segment beside tail, two segments, a merged one and an archive all give back equal spans."""
    expected = _in_order([first, second])
    with tempfile.TemporaryDirectory() as folder:
        base_path = Path(folder)
        paths = SessionPaths(base_path, "session")
        with Journal.open(paths.journal, map_size=1 << 20) as journal:
            journal.append([codec.encode(first, 1)])
            journal.append([codec.encode(second, 2)])
            assert _read(base_path) == expected
            seal(paths, journal, segment_spans=1)
            assert _read(base_path) == expected
            merge(paths)
            assert len(paths.segments()) == 1
            assert _read(base_path) == expected
        archive_session(paths, remove=True)
        assert _read(base_path) == expected
