"""`Sealer`: what the process of a session that is elected does inside the observed program; `sync` says when.

DuckDB is imported when there is something to seal, and gets little memory and one thread. What is begun can be
interrupted at any time, and leaves everything as it was. But an import can't be, and may take seconds where others
need the processor; so there is no connection while something is imported: DuckDB's binding writes to standard error if
one outlives the interpreter.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from otel_debugstore.config import Settings
from otel_debugstore.loading import loading
from otel_debugstore_exporters.session import SessionPaths

if TYPE_CHECKING:
    import duckdb

    from otel_debugstore_exporters.journal import Journal

_MEMORY_LIMITS: Final = ("32MB", "512MB")  # the second where spans are so large that the first is too little
_BACKLOG_SEGMENTS: Final = 8
_FAR_LOOKS: Final = 8
_SMALL_SEGMENTS: Final = 8
_SEAL_SECONDS_A_SPAN: Final = 30e-6
_SEAL_SECONDS_FIXED: Final = 0.3


class Sealer:
    """Seals, merges and removes old data of one session, in one thread; another may only `interrupt` it.

    Args:
        paths: The session.
        settings: Segment size and retention.
        is_cancelled: Whether to give up what was begun.
        before_duckdb: Called before DuckDB is imported.
    """

    def __init__(
        self,
        paths: SessionPaths,
        settings: Settings,
        is_cancelled: Callable[[], bool],
        before_duckdb: Callable[[], None],
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._is_cancelled = is_cancelled
        self._before_duckdb = before_duckdb
        self._connection: Any = None
        self._looked_at: object = None
        self._waiting = 0
        self.is_far = False
        """Whether a segment's worth is not to be expected for a while: not before eight looks more, as things go."""

    @property
    def is_writing(self) -> bool:
        """Whether a segment is being written."""
        return self._connection is not None

    def interrupt(self) -> None:
        """Have DuckDB give up what it does."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.interrupt()

    def seal_what_is_ready(self, is_busy: Callable[[], bool], is_ending: Callable[[], bool]) -> None:
        """Seal a segment's worth for as long as there is one, and everything where another process asked for it.

        Args:
            is_busy: Whether recording needs the processor and the memory now; sealing then waits.
            is_ending: Whether to begin no further segment.
        """
        segment_spans = self._settings.segment_spans
        while not is_ending():
            with self._journal() as journal:
                if self._paths.seal_request.exists():
                    self._seal_all(journal, is_ending)
                waiting = journal.stats().weight
                grown, self._waiting = waiting - self._waiting, waiting
                self.is_far = 0 <= _FAR_LOOKS * grown < segment_spans - waiting
                if waiting < segment_spans or (is_busy() and waiting < _BACKLOG_SEGMENTS * segment_spans):
                    return
                self._seal(journal)

    def seal_within(self, seconds: float) -> None:
        """Seal what waits if that takes no longer."""
        with self._journal() as journal:
            waiting = journal.stats().weight
            fixed = 0.0 if "duckdb" in sys.modules else _SEAL_SECONDS_FIXED
            if waiting and fixed + waiting * _SEAL_SECONDS_A_SPAN <= seconds:
                self._seal(journal)

    def merge_small_segments(self) -> None:
        """Make one segment of small ones where there are many."""
        listing = self._paths.listing()
        if len(listing) < _SMALL_SEGMENTS or listing == self._looked_at:
            return

        from otel_debugstore_exporters.merging import merge_small

        def merge(connection: duckdb.DuckDBPyConnection) -> None:
            with self._paths.lock("merge") as mine:
                if mine and merge_small(self._paths, connection, _SMALL_SEGMENTS) is None:
                    self._looked_at = listing

        self._with_duckdb(merge)

    def apply_retention(self) -> None:
        """Remove what is too old, or too much."""
        settings = self._settings
        if settings.retention_age_seconds is None and settings.retention_size_bytes is None:
            return
        from otel_debugstore_exporters.retention import apply_retention
        from otel_debugstore_exporters.state import State

        def remove(connection: duckdb.DuckDBPyConnection | None) -> None:
            apply_retention(
                self._paths.base_path,
                age_seconds=settings.retention_age_seconds,
                size_bytes=settings.retention_size_bytes,
                connection=connection,
            )

        if State(self._paths.base_path).pinned():
            self._with_duckdb(remove)
        else:
            remove(None)

    def _journal(self) -> Journal:
        with loading("otel_debugstore_exporters.journal"):
            from otel_debugstore_exporters.journal import Journal
        return Journal.open(self._paths.journal)

    def _seal_all(self, journal: Journal, is_ending: Callable[[], bool]) -> None:
        """Seal what the journal holds now; what comes meanwhile waits for its segment."""
        end = journal.stats().next_seq
        while (first := journal.stats().first_seq) is not None and first < end:
            if is_ending():
                return  # who asked can do it then
            self._seal(journal)
        self._paths.seal_request.unlink(missing_ok=True)

    def _seal(self, journal: Journal) -> None:
        from otel_debugstore_exporters import seal, segment

        def seal_once(connection: duckdb.DuckDBPyConnection) -> None:
            seal.forget_covered(journal, segment.current_segments(connection, self._paths))
            seal.seal_once(self._paths, journal, self._settings.segment_spans, connection, self._is_cancelled)

        self._with_duckdb(seal_once)

    def _with_duckdb(self, work: Callable[[duckdb.DuckDBPyConnection], None]) -> None:
        """Do some work within as little memory as it takes."""
        import duckdb

        from otel_debugstore_exporters import segment

        self._before_duckdb()
        _give_back_memory()  # so that the peak of recording and that of sealing do not add up
        for limit in _MEMORY_LIMITS:
            if self._is_cancelled():
                return
            try:
                with contextlib.closing(segment.connect(limit, threads=1)) as connection:
                    self._connection = connection
                    try:
                        work(connection)
                    finally:
                        self._connection = None
            except duckdb.OutOfMemoryException:
                if limit == _MEMORY_LIMITS[-1]:
                    raise
            else:
                break
        _give_back_memory()


def _give_back_memory() -> None:
    """Return to the kernel what CPython and glibc keep of freed memory; after a burst that is 50 MB.

    A full collection empties CPython's free lists, which pin its arenas. Frozen objects are not looked at, so
    it takes no time. A program that looks after garbage collection itself is left alone.
    """
    import ctypes

    if gc.isenabled() and not gc.get_freeze_count() and not gc.callbacks:
        gc.freeze()
        gc.collect()
        gc.unfreeze()
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
