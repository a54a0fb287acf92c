"""From the journal to segments.

Whoever seals holds the session's `seal` lock. A blob is deleted from the journal only after the segment that
holds it was published. Death at any point leaves at most something that is held twice, and `Source.covers`
tells which copy counts.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final

import duckdb

from otel_debugstore.errors import CorruptDataError, FormatVersionError
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import SpanBatch
from otel_debugstore_exporters.journal import BYTES_A_SPAN, Journal
from otel_debugstore_exporters.merging import merge
from otel_debugstore_exporters.segment import (
    WRITING_MEMORY,
    Segment,
    SegmentWriter,
    Source,
    connect,
    current_segments,
    remove_segment,
)
from otel_debugstore_exporters.session import SessionPaths

SEGMENT_SPANS: Final = 122_880
_ASKING_SECONDS: Final = 0.1
_MAX_CLAIMED: Final = 100_000


def seal(
    paths: SessionPaths,
    journal: Journal,
    *,
    segment_spans: int = SEGMENT_SPANS,
    connection: duckdb.DuckDBPyConnection | None = None,
    change: Callable[[SpanBatch], SpanBatch] | None = None,
    compact: bool = False,
) -> list[Segment]:
    """Move everything the journal holds now into segments, and return these. Hold the `seal` lock.

    Args:
        paths: The session.
        journal: Its journal.
        segment_spans: How many spans a segment takes at most (a blob of 512 more).
        connection: The DuckDB to use; its own by default.
        change: What to do to each batch on its way.
        compact: See `SegmentWriter`.

    Raises:
        FormatVersionError: A newer version wrote a blob; it and what follows stays in the journal.
        JournalWriteError: The journal's disk refused.
        duckdb.Error: A segment could not be written; the journal still holds its spans.
    """
    made = []
    with contextlib.ExitStack() as stack:
        con = connection or stack.enter_context(contextlib.closing(connect(WRITING_MEMORY)))
        for path in paths.abandoned():
            remove_segment(path)
        forget_covered(journal, current_segments(con, paths))
        last = journal.stats().next_seq - 1  # what comes meanwhile is left: writers may be faster
        while segment := seal_once(paths, journal, segment_spans, con, _never, change, compact):
            made.append(segment)
            if segment.sources[0].last_seq >= last:
                break
    return made


def _never() -> bool:
    return False


def seal_once(
    paths: SessionPaths,
    journal: Journal,
    segment_spans: int,
    connection: duckdb.DuckDBPyConnection,
    is_cancelled: Callable[[], bool] = _never,
    change: Callable[[SpanBatch], SpanBatch] | None = None,
    compact: bool = False,
) -> Segment | None:
    """Move up to `segment_spans` spans from the head of the journal into one segment; None if it is empty.

    Fewer spans make a segment where payloads go with them: it takes at most 1 KiB of blobs a span.

    Gives up, and leaves everything as it was, when `is_cancelled` says so (it is asked once a blob).

    Raises:
        FormatVersionError: A newer version wrote the blob at the head.
    """
    first = last = -1
    corrupt = taken_bytes = 0
    with SegmentWriter(paths, connection=connection, compact=compact) as writer:
        for sequence, blob in journal.blobs():
            if is_cancelled():
                return None
            try:
                batch = codec.decode(blob)
            except CorruptDataError:
                corrupt += _claimed_spans(blob)
            except FormatVersionError:
                if first < 0:
                    raise
                break
            else:
                writer.add(change(batch) if change else batch)
            first, last = (sequence if first < 0 else first), sequence
            taken_bytes += len(blob)
            if writer.span_count >= segment_spans or taken_bytes >= segment_spans * BYTES_A_SPAN:
                break
        if first < 0:
            return None
        writer.add_source(Source(journal.journal_id, first, last, span_count=writer.span_count))
        segment = writer.publish()
    if corrupt:
        journal.append((), {"corrupt": corrupt})
    journal.delete(first, last)
    return segment


def _claimed_spans(blob: bytes) -> int:
    """How many spans a damaged blob says it holds; one if that makes no sense."""
    try:
        return min(max(1, codec.read_header(blob).span_count), _MAX_CLAIMED)
    except CorruptDataError:
        return 1


def forget_covered(journal: Journal, segments: Iterable[Segment]) -> None:
    """Delete from the journal what a segment holds already: its sealer died between the two steps."""
    for segment in segments:
        for source in segment.sources:
            if source.source_id == journal.journal_id:
                journal.delete(source.first_seq, source.last_seq)


def seal_or_ask(paths: SessionPaths, journal: Journal, timeout_seconds: float) -> int | None:
    """Seal what the journal holds now, and return how many spans that were.

    Where another process is elected to seal the session, it is asked; None if it did not do so in time.

    Raises:
        FormatVersionError, JournalWriteError, duckdb.Error: As `seal`.
    """
    wanted = journal.stats()
    deadline = time.monotonic() + timeout_seconds
    try:
        while True:
            with paths.lock("seal") as mine:
                if mine:
                    return sum(segment.span_count for segment in seal(paths, journal))
            first_seq = journal.stats().first_seq
            if first_seq is None or first_seq >= wanted.next_seq:
                return wanted.span_count
            if time.monotonic() >= deadline:
                return None
            paths.seal_request.touch()
            time.sleep(_ASKING_SECONDS)
    finally:
        paths.seal_request.unlink(missing_ok=True)


def seal_if_idle(paths: SessionPaths, *, max_spans: int | None = None) -> bool:
    """Seal and merge a session that no process is elected to seal; return whether it was done.

    Does nothing where it may not write, or where that would touch more than `max_spans` spans.
    """
    if not paths.journal.is_dir() or not os.access(paths.base_path, os.W_OK):
        return False
    with paths.lock("seal") as mine, contextlib.closing(connect(WRITING_MEMORY)) as connection:
        if not mine:
            return False
        with Journal.open(paths.journal) as journal:
            if journal.stats().weight > (max_spans or sys.maxsize):
                return False
            seal(paths, journal, connection=connection, compact=True)
        segments = current_segments(connection, paths)
        is_mergeable = len(segments) > 1 or any(segment.holds_text for segment in segments)
        if is_mergeable and sum(s.span_count for s in segments) <= (max_spans or sys.maxsize):
            with paths.lock("merge") as merging:
                if merging:
                    merge(paths, connection=connection)
        return True
