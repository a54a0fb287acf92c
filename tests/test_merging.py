"""Small segments become larger ones: by who asks for it, and in a session that is being recorded."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path

import duckdb
import pytest

from blobs import is_once, sealed
from faults import stored_names
from otel_debugstore import DebugStore
from otel_debugstore_exporters import merging, schema
from otel_debugstore_exporters.merging import merge, merge_small
from otel_debugstore_exporters.segment import (
    Segment,
    connect,
    current_segments,
    without_covered,
)
from otel_debugstore_exporters.session import SessionPaths
from sessions import span, write_sealed


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "s")


def sizes(paths: SessionPaths) -> list[int]:
    with connect() as connection:
        return sorted(segment.span_count for segment in current_segments(connection, paths))


def test_merging(paths: SessionPaths) -> None:
    """Small segments become one under the session's own name; nothing is lost or doubled."""
    for number in range(5):
        sealed(paths, number)
    with connect() as connection:
        (merged,) = merge(paths, connection=connection)
        assert current_segments(connection, paths) == [merged]
    assert paths.segments() == [paths.main_segment]
    assert merged.span_count == 10
    assert len(merged.sources) == 1  # the ranges follow each other
    assert is_once(paths, range(5))
    assert merge(paths) == []


ATTRIBUTES = [
    {},
    {"http.route": "/a", "size": 3, "wait": 0.5, "hit": True, "tags": ["x", "\u00fc"], "nested": {"n": [1, None]}},
    {"only": "here", "big": 2**63 + 5, "float": 3.0},
]


def stored(path: Path) -> tuple[bool, list[object]]:
    """Whether a file has attributes as text, and what any client reads of them there."""
    with duckdb.connect(str(path), read_only=True) as connection:
        is_text = (schema.TEXT_SPANS,) in connection.execute("SHOW TABLES").fetchall()
        found = connection.execute("SELECT attributes FROM spans ORDER BY span_id").fetchall()
    return is_text, [row[0] or {} for row in found]


def test_attributes_as_text(paths: SessionPaths) -> None:
    """Observed programs write attributes as text; whoever reads finds the same, then and when merging made VARIANT
    of them, also where a session has one segment only.
    """
    write_sealed(paths.base_path, "s", [span(n, attributes=some) for n, some in enumerate(ATTRIBUTES, 1)])
    assert stored(paths.main_segment) == (True, ATTRIBUTES)
    (merged,) = merge(paths)
    assert stored(merged.path) == (False, ATTRIBUTES)
    assert merge(paths) == []


def test_text_and_variant(paths: SessionPaths) -> None:
    """Small segments of both kinds become one: in an observed program with text, elsewhere with VARIANT."""
    for number, some in enumerate(ATTRIBUTES, 1):
        write_sealed(paths.base_path, "s", [span(number, attributes=some)])
        if number == 1:
            merge(paths)
    with connect() as connection:
        mixed = merge_small(paths, connection, at_least=3)
        assert mixed is not None
        assert stored(mixed.path) == (True, ATTRIBUTES)
        (merged,) = merge(paths, connection=connection)
    assert stored(merged.path) == (False, ATTRIBUTES)


def test_no_merged_segment_is_too_large(paths: SessionPaths) -> None:
    """None becomes larger than a main segment may be."""
    for number in range(7):
        sealed(paths, number)
    merge(paths, main_spans=6)
    assert sizes(paths) == [2, 6, 6]
    assert is_once(paths, range(7))


def test_merging_keeps_what_is_published_meanwhile(paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A segment that appears after the merger has looked around is none that it may remove."""
    sealed(paths, 0)
    sealed(paths, 1)
    real = without_covered

    def look_then_somebody_publishes(segments: Iterable[Segment]) -> list[Segment]:
        found = real(segments)
        write_sealed(paths.base_path, "s", [span(1, "0-7-0"), span(2, "0-7-1")])
        return found

    monkeypatch.setattr(merging, "without_covered", look_then_somebody_publishes)
    merge(paths)
    assert is_once(paths, [0, 1, 7])


def test_merging_removes_what_a_dead_merger_left(paths: SessionPaths) -> None:
    """Segments that a larger one covers count once, and go with the next merge."""
    for number in range(3):
        sealed(paths, number)
    kept = {path: path.read_bytes() for path in paths.segments() if path != paths.main_segment}
    merge(paths)
    for path, content in kept.items():
        path.write_bytes(content)
    assert is_once(paths, range(3))
    merge(paths)
    assert paths.segments() == [paths.main_segment]
    assert is_once(paths, range(3))


def test_merged_spans_keep_their_age(paths: SessionPaths) -> None:
    """A merged segment is as old as the newest of its parts: retention goes by that."""
    for number in range(3):
        sealed(paths, number)
    for age, path in enumerate(paths.segments()):
        os.utime(path, (1000 + age, 1000 + age))
    merge(paths)
    assert paths.main_segment.stat().st_mtime == 1002


def test_a_killed_merger_of_further_segments(paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the main segment has no part in it, too: nothing is there twice, then or after the next merge."""
    sealed(paths, 0, 1, 2)
    sealed(paths, 3)
    sealed(paths, 4)
    with monkeypatch.context() as patch:
        patch.setattr(merging, "remove_segment", lambda path: None)  # it died before
        _, merged = merge(paths, main_spans=6)
    assert merged.path != paths.main_segment
    assert is_once(paths, range(5))
    merge(paths)
    assert is_once(paths, range(5))


@pytest.mark.slow
def test_small_segments(paths: SessionPaths) -> None:
    """While a session is recorded, many small ones become one; few, and those of a good size, are left alone."""
    with connect() as connection:
        for number in range(7):
            sealed(paths, number)
        assert merge_small(paths, connection, at_least=8) is None
        assert sizes(paths) == [2] * 7
        sealed(paths, 7)
        merged = merge_small(paths, connection, at_least=8)
        assert merged is not None
        assert (merged.span_count, sizes(paths)) == (16, [16])
        write_sealed(paths.base_path, "s", [span(1, f"0-{100 + i // 2}-{i % 2}") for i in range(61_440)])
        for number in range(8, 15):
            sealed(paths, number)
        assert merge_small(paths, connection, at_least=8) is not None
        assert sizes(paths) == [30, 61_440]
        assert merge_small(paths, connection, at_least=2) is None
    assert is_once(paths, [*range(15), *range(100, 100 + 30_720)])


def test_small_segments_with_large_payloads(paths: SessionPaths) -> None:
    """What is large on disk is left alone, however few spans it has."""
    for number in range(8):
        sealed(paths, number)
    for path in paths.segments():
        os.truncate(path, 64 << 20)  # which DuckDB doesn't mind
    with connect() as connection:
        assert merge_small(paths, connection, at_least=2) is None


def test_a_session_that_is_recorded(paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its small segments are merged while it goes on, and what is written meanwhile is kept."""
    monkeypatch.setattr("otel_debugstore_exporters.sync._POLL_SECONDS", 0.01)
    monkeypatch.setattr("otel_debugstore_exporters.sync._MERGING_SECONDS", 0.2)
    for number in range(12):
        sealed(paths, number)
    with DebugStore("s", paths.base_path) as store:
        deadline, count = time.monotonic() + 60, 0
        while len(paths.segments()) > 1 and time.monotonic() < deadline:
            store.write_record("tool", str(count), "0-12-0")
            count += 1
            store.flush()
            time.sleep(0.02)
        assert paths.segments() == [paths.main_segment]
        assert store.get_stats()["record_count"] == 24 + count


@pytest.mark.slow
def test_an_exit_while_merging(paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program does not wait for a merge that has begun: it is given up, and leaves nothing behind."""
    monkeypatch.setattr("otel_debugstore_exporters.sync._POLL_SECONDS", 0.01)
    monkeypatch.setattr("otel_debugstore_exporters.sync._MERGING_SECONDS", 0.0)
    for number in range(8):
        write_sealed(paths.base_path, "s", [span(1, f"0-{number}-{i}") for i in range(12_000)])
    store = DebugStore("s", paths.base_path)
    deadline = time.monotonic() + 60
    while not list(paths.base_path.glob(".s+*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.001)
    store.close()
    assert len(paths.segments()) == 8
    assert list(paths.base_path.glob(".s+*")) == []
    assert sum(stored_names(paths).values()) == 96_000
