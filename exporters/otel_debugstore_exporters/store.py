"""`DebugStore`: records written by hand, and questions asked of a session.

A record is a span: it goes the same way (journal, segments, views) as what OpenTelemetry records.
Loss: a record is durable after `flush()`, which also happens every second, every 4,096 records, before
every question, at `close()`, and when the interpreter ends. Threads: all methods may be called from any.
Fork: a child begins without the parent's unwritten records, and writes its own; questions are asked anew.
"""

from __future__ import annotations

import atexit
import contextlib
import operator
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from otel_debugstore import attributes as names
from otel_debugstore.config import Settings
from otel_debugstore.errors import ConfigurationError
from otel_debugstore.fork import HeldAcrossForks, call_at_fork, keep_for_ever
from otel_debugstore.log import warn_once
from otel_debugstore.session_id import check_session_id
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import Resource
from otel_debugstore_exporters.hand_written import (
    ContextIds,
    as_json,
    as_number,
    as_text,
    code_hash,
    none_if_empty,
    record_batch,
    times,
)
from otel_debugstore_exporters.ingestion import ingested
from otel_debugstore_exporters.journal import Journal, JournalError
from otel_debugstore_exporters.merging import merge
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.seal import seal_or_ask
from otel_debugstore_exporters.session import SessionPaths
from otel_debugstore_exporters.snapshots import Snapshots
from otel_debugstore_exporters.sync import DuckDBSyncProcessor
from otel_debugstore_exporters.views import OVER_VIEWS

RecordStatus = Literal["success", "error", "timeout", "retry"]

_BATCH: Final = 512
_FLUSH_RECORDS: Final = 8 * _BATCH
_FLUSH_SECONDS: Final = 1.0
_FORK_WAIT_SECONDS: Final = 1.0
_SEALING_SECONDS: Final = 30.0
_ERROR_RECORDS: Final = (
    f"SELECT * FROM ({OVER_VIEWS['records']} WHERE spans.status = 'ERROR') ORDER BY timestamp DESC, id LIMIT ?"
)


class DebugStore:
    """A session to write records into and to query.

    Args:
        session_id: The session; see `check_session_id` for what one may be.
        base_path: Where sessions lie.
        auto_sync: Seal in the background while this object lives.
        map_size: The journal's first map size in bytes; it grows.

    Raises:
        ConfigurationError: `base_path` or `map_size` can't be one.
        InvalidSessionIdError: `session_id` can't be one.
        JournalError: The session can't be opened for writing.
    """

    def __init__(
        self,
        session_id: str,
        base_path: str | os.PathLike[str] = "debug_data",
        auto_sync: bool = True,
        map_size: int | None = None,
    ) -> None:
        self.session_id = check_session_id(session_id)
        settings = Settings.from_environment(base_path=base_path, session_id=session_id, map_size_bytes=map_size)
        self._paths = SessionPaths(settings.base_path, session_id)
        self._journal = Journal.open(self._paths.journal, map_size=settings.map_size_bytes)
        self._resource = Resource({names.SERVICE_NAME: session_id, names.SESSION_ID: session_id})
        self._pending: list[tuple[Any, ...]] = []
        self._ids = ContextIds(session_id)
        self._code = Snapshots()
        self._lock = threading.RLock()  # guards _pending, _ids and _code
        self._query_lock = threading.Lock()  # guards _reader
        self._held = HeldAcrossForks()
        self._reader: SessionReader | None = None
        self._closed = threading.Event()
        self._sync = DuckDBSyncProcessor(self._paths, settings, may_seal=auto_sync)
        self._flusher: threading.Thread | None = None
        call_at_fork(self._before_fork, self._after_fork_in_parent, self._after_fork_in_child)

    @property
    def base_path(self) -> Path:
        """Where its session lies, and others beside it."""
        return self._paths.base_path

    def __enter__(self) -> DebugStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write_record(
        self,
        context_type: str,
        context_id: str,
        context_name: str,
        parent_context: str | None = None,
        request_data: Any = None,
        response_data: Any = None,
        metadata: Mapping[str, Any] | None = None,
        duration_ms: float | None = None,
        memory_mb: float | None = None,
        cpu_percent: float | None = None,
        status: RecordStatus = "success",
        error: str | None = None,
        code_snapshot: str | None = None,
        variant_id: str | None = None,
        timestamp: float | None = None,
    ) -> str:
        """Write one record and return its id.

        Args:
            context_type: Becomes the span's layer (tool, workflow, step, node, function, ...).
            context_id: What ran; records that name it in `parent_context` become its children.
            context_name: Becomes the span's name and component.
            parent_context: The `context_id` this ran within.
            request_data: What went in; text as it is, else as JSON.
            response_data: What came out, likewise.
            metadata: Anything else, as JSON.
            duration_ms: How long it took, milliseconds.
            memory_mb: Memory in MB, as the caller measured it.
            cpu_percent: CPU in percent of one core, as the caller measured it.
            status: Anything but `success` (and `retry`) makes the span an error.
            error: The error's text.
            code_snapshot: The source that ran; its hash is the variant unless `variant_id` says another.
            variant_id: The variant.
            timestamp: When it ended, seconds since 1970; now by default.

        Raises:
            ConfigurationError: `duration_ms` and `timestamp` are no times of the years 1678 to 2261.
            JournalError: The store is closed, or (`JournalWriteError`) the disk refused; the record is kept then.
        """
        context_type, context_id, context_name = as_text(context_type), as_text(context_id), as_text(context_name)
        parent_context = None if parent_context is None else as_text(parent_context)
        ended = None if status is None else as_text(status)
        code_snapshot = as_json(code_snapshot)
        variant_id, error = none_if_empty(variant_id), none_if_empty(error)
        variant = ("" if variant_id is None else as_text(variant_id)) or code_hash(code_snapshot)
        start_ns, end_ns = times(timestamp, duration_ms)
        found: dict[str, Any] = {
            names.LAYER: context_type,
            names.COMPONENT: context_name,
            names.RECORD_CONTEXT_ID: context_id,
            names.RECORD_STATUS: ended,
        }
        optional = (
            (names.RECORD_PARENT_CONTEXT, parent_context),
            (names.RECORD_REQUEST, as_json(request_data)),
            (names.RECORD_RESPONSE, as_json(response_data)),
            (names.RECORD_METADATA, as_json(metadata)),
            (names.RECORD_MEMORY_MB, as_number(memory_mb)),
            (names.RECORD_CPU_PERCENT, as_number(cpu_percent)),
            (names.RECORD_CODE, code_snapshot),
            (names.VARIANT, variant),
        )
        for key, value in optional:
            if value is not None:
                found[key] = value
        code = 0 if ended in ("success", "retry") else 2
        message = "" if error is None else as_text(error)
        with self._lock:
            if self._flusher is None:
                self._start_flusher()
            if code_snapshot is not None and variant is not None:
                self._code.put(variant, context_name, code_snapshot)
            trace_id, span_id, parent_id = self._ids.of(context_id, parent_context)
            self._pending.append((trace_id, span_id, parent_id, context_name, start_ns, end_ns, code, message, found))
            if len(self._pending) >= _FLUSH_RECORDS:
                self.flush()
        return f"{trace_id.hex()}-{span_id.hex()}"

    def flush(self) -> None:
        """Make every record written so far durable, and visible to all readers.

        Raises:
            JournalWriteError: The disk refused; the records are kept and tried again.
        """
        with self._lock:
            while self._pending:
                rows = self._pending[:_FLUSH_RECORDS]
                batches = [record_batch(rows[i : i + _BATCH], self._resource) for i in range(0, len(rows), _BATCH)]
                batches[0].code = written = self._code.waiting()
                self._journal.append([codec.encode(ingested(batch), time.time_ns()) for batch in batches])
                self._code.forget(written)
                del self._pending[: len(rows)]

    def sync_to_duckdb(self) -> int:
        """Seal the session into DuckDB, merge small segments, and return how many spans were sealed.

        Where a recorder of the session, in this process or another, is elected to seal it, that one is asked.
        Returns 0 if it has not done so after 30 s; the spans stay in the journal then, and queries find them there.

        Raises:
            JournalError: The store is closed.
        """
        self._require_open()
        self.flush()
        with self._sync.paused():
            sealed = seal_or_ask(self._paths, self._journal, _SEALING_SECONDS) or 0
        with self._paths.lock("merge", timeout_seconds=_SEALING_SECONDS) as mine:
            if mine:
                merge(self._paths)
        return sealed

    def query_analytics(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query over the views of the session (docs/schema.md), as dicts.

        Raises:
            JournalError: The store is closed.
            QueryError: The SQL is wrong.
        """
        self.flush()
        with self._query_lock:
            self._require_open()
            if self._reader is None:
                self._reader = SessionReader(self._paths.base_path, [self.session_id])
            result = self._reader.query(sql, params)
        return [dict(zip(result.columns, row, strict=True)) for row in result.rows]

    def get_performance_summary(self) -> list[dict[str, Any]]:
        """Return the `performance_summary` view, the largest total duration first."""
        return self.query_analytics(
            "SELECT * FROM performance_summary ORDER BY avg_duration_ms * execution_count DESC NULLS LAST, context_name"
        )

    def get_error_records(self, limit: int = 100) -> list[dict[str, Any]]:
        """Return the newest records that failed: those that `performance_summary` counts as errors."""
        return self.query_analytics(_ERROR_RECORDS, [_limit(limit)])

    def get_slow_operations(self, threshold_ms: float = 1000.0, limit: int = 100) -> list[dict[str, Any]]:
        """Return the slowest records that took at least `threshold_ms`."""
        return self.query_analytics(
            "SELECT * FROM records WHERE duration_ms >= ? ORDER BY duration_ms DESC, id LIMIT ?",
            [threshold_ms, _limit(limit)],
        )

    def get_stats(self) -> dict[str, Any]:
        """Return sizes and counts: records, what is sealed and what waits, bytes on disk, drops."""
        total = self.query_analytics("SELECT count(*) AS n FROM spans")[0]["n"]
        stats = self._journal.stats()
        dropped: Counter[str] = Counter()
        for drop in self._journal.drops():
            dropped[drop.reason] += drop.count
        return {
            "session_id": self.session_id,
            "record_count": total,
            "journal_record_count": stats.span_count,
            "sealed_record_count": max(0, total - stats.span_count),
            "segment_count": len(self._paths.segments()),
            "size_bytes": self._paths.size_bytes(),
            "map_size_bytes": stats.map_size,
            "dropped": dict(dropped),
        }

    def close(self) -> None:
        """Flush, seal if it is quick, and let go of the session. Idempotent."""
        if self._closed.is_set():
            return
        with self._lock:
            self._closed.set()
            flusher, self._flusher = self._flusher, None
        try:
            if flusher is not None:
                flusher.join()
            self.flush()
        finally:
            atexit.unregister(self._flush_at_exit)
            self._sync.shutdown()
            with self._query_lock:
                self._close_reader()
            self._journal.close()

    def _require_open(self) -> None:
        if self._closed.is_set():
            raise JournalError(f"The store of session {self.session_id!r} is closed; open another one.")

    def _start_flusher(self) -> None:
        self._require_open()
        atexit.register(self._flush_at_exit)
        self._flusher = threading.Thread(target=self._flush_regularly, name="otel-debugstore-flush", daemon=True)
        self._flusher.start()

    def _flush_regularly(self) -> None:
        while not self._closed.wait(_FLUSH_SECONDS):
            with contextlib.suppress(Exception):  # raised to the caller by the next call of theirs
                self.flush()

    def _flush_at_exit(self) -> None:
        try:
            self.flush()
        except Exception as error:  # noqa: BLE001  the program ends all the same
            warn_once("journal", f"records of session {self.session_id} were not written ({error}).")

    def _close_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _before_fork(self) -> None:
        """Close the reader; the next question opens another one. A child can't even close a copy of it."""
        if self._held.take(self._query_lock, _FORK_WAIT_SECONDS):
            self._close_reader()

    def _after_fork_in_parent(self) -> None:
        self._held.release()

    def _after_fork_in_child(self) -> None:
        was_closed, self._closed = self._closed.is_set(), threading.Event()
        if was_closed:
            self._closed.set()
        is_reader_closed = bool(self._held.forget())
        self._lock, self._query_lock = threading.RLock(), threading.Lock()
        self._pending, self._code = [], Snapshots()
        self._flusher = None
        if not is_reader_closed:
            keep_for_ever(self._reader)
            self._reader = None


def _limit(limit: int) -> int:
    with contextlib.suppress(TypeError):
        if (rows := operator.index(limit)) >= 0:
            return rows
    raise ConfigurationError(f"A limit of {limit!r} rows makes no sense; give a whole number, 0 or more.")
