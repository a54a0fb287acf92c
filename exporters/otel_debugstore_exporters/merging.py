"""From small segments to larger ones.

Whoever merges holds the session's `merge` lock. A small segment is unlinked only after the larger one was
published; death between the two leaves something that is held twice, and `Source.covers` tells which counts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import duckdb

from otel_debugstore_exporters.journal import BYTES_A_SPAN
from otel_debugstore_exporters.segment import (
    WRITING_MEMORY,
    Segment,
    SegmentWriter,
    all_segments,
    connect,
    remove_segment,
    without_covered,
)
from otel_debugstore_exporters.session import SessionPaths

_MAIN_SPANS: Final = 1_000_000
_SMALL_WEIGHT: Final = 61_440
"""Half of what the sealing thread makes a segment of."""
_MERGED_WEIGHT: Final = 122_880
_MERGED_AT_MOST: Final = 64
"""Segments at once: each is an open file of the observed program."""


def merge(
    paths: SessionPaths, *, connection: duckdb.DuckDBPyConnection | None = None, main_spans: int = _MAIN_SPANS
) -> list[Segment]:
    """Merge segments into as few as possible and return those that are new. Hold the `merge` lock.

    Args:
        paths: The session.
        connection: The DuckDB to use; its own by default.
        main_spans: A merged segment has at most this many spans.
    """
    made = []
    with contextlib.ExitStack() as stack:
        con = connection or stack.enter_context(contextlib.closing(connect(WRITING_MEMORY)))
        for group in _groups(uncovered(con, paths), lambda segment: segment.span_count, main_spans):
            if len(group) > 1 or any(segment.holds_text for segment in group):
                made.append(_merge_group(paths, group, con, compact=True))
    return made


def merge_small(paths: SessionPaths, connection: duckdb.DuckDBPyConnection, at_least: int) -> Segment | None:
    """Merge some small segments into one of moderate size; None if there are too few. Hold the `merge` lock.

    For observed programs: it is bounded work, and takes little memory.

    Args:
        paths: The session.
        connection: The DuckDB to use.
        at_least: How many segments it takes to be worth it.
    """
    small = [segment for segment in uncovered(connection, paths) if _weight(segment) < _SMALL_WEIGHT]
    for group in _groups(small, _weight, _MERGED_WEIGHT):
        if len(group) >= at_least:
            return _merge_group(paths, group[:_MERGED_AT_MOST], connection, compact=False)
    return None


def uncovered(connection: duckdb.DuckDBPyConnection, paths: SessionPaths) -> list[Segment]:
    """Return the segments, after removing those of which another one holds everything."""
    found = all_segments(connection, paths)
    kept = without_covered(found)
    for segment in found:
        if segment not in kept:
            remove_segment(segment.path)  # its merger died before it unlinked it
    return kept


def _groups(segments: Iterable[Segment], size: Callable[[Segment], int], most: int) -> list[list[Segment]]:
    """Return runs of segments, oldest first, that together have at most that size."""
    groups: list[list[Segment]] = [[]]
    total = 0
    for segment in sorted(segments, key=_changed_ns):
        if groups[-1] and total + size(segment) > most:
            groups.append([])
            total = 0
        groups[-1].append(segment)
        total += size(segment)
    return groups


def _weight(segment: Segment) -> int:
    """How much work it is to merge, in spans: payloads count as some."""
    return max(segment.span_count, segment.path.stat().st_size // BYTES_A_SPAN)


def _changed_ns(segment: Segment) -> int:
    return segment.path.stat().st_mtime_ns


def _merge_group(
    paths: SessionPaths, group: Sequence[Segment], connection: duckdb.DuckDBPyConnection, compact: bool
) -> Segment:
    has_main = any(segment.path == paths.main_segment for segment in group)
    with SegmentWriter(paths, connection=connection, compact=compact) as writer:
        if compact:
            for segment in group:
                writer.add_segment(segment)
        else:
            writer.add_segments(group)
        newest = max(map(_changed_ns, group))
        merged = writer.publish(paths.main_segment if has_main else None)
    os.utime(merged.path, ns=(newest, newest))  # retention goes by the age of the spans
    for segment in group:
        if segment.path != merged.path:
            remove_segment(segment.path)
    return merged
