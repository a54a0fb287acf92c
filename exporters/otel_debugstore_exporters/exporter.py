"""`LmdbSpanExporter`: ended spans into the journal of a session.

Loss: what `export` answered with SUCCESS, or what was added before a `commit` that returned True, is in
the journal. Blobs that the disk refuses are kept in memory, up to 16 MiB, and tried again with every
commit; beyond that the oldest are dropped and counted ("disk"). Spans that can't be encoded are dropped
one by one and counted ("unencodable"). Counts are written to the journal with the next commit that
succeeds. Trouble is logged, one line for each kind, and never raised.
Capacity: one transaction a commit, however many batches were added.
Threads: safe; an export that can't have the lock within 100 ms leaves its blobs to whoever has it.
Fork: a child starts without the parent's blobs and counts, and with its own handle on the journal.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_debugstore.active_session import activate_session
from otel_debugstore.config import Settings
from otel_debugstore.fork import reset_after_fork
from otel_debugstore.log import warn_once
from otel_debugstore_exporters.codec import encode
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.readable import batch_from_readable
from otel_debugstore_exporters.session import SessionPaths

DISK: Final = "disk"
UNENCODABLE: Final = "unencodable"
MAX_PENDING_BYTES: Final = 16 << 20

_REOPEN_SECONDS: Final = 5.0
_SYNC_SECONDS: Final = 5.0
_LOCK_SECONDS: Final = 0.1


class LmdbSpanExporter(SpanExporter):
    """Exports spans to the journal; also the `BatchSink` of a `BoundedSpanProcessor`."""

    def __init__(self, settings: Settings | None = None, **overrides: Any) -> None:
        """Make an exporter. Never raises, and opens nothing before the first span.

        Args:
            settings: All settings; by default those of the environment with `overrides` before them.
            overrides: Fields of `Settings`, also as text, as declarative configuration gives them; one
                that can't be used is logged and left out.
        """
        self.settings: Final = settings or Settings.tolerant(**overrides)
        self._paths: SessionPaths | None = None
        self._journal: Journal | None = None  # reopens itself after a fork
        self._next_open = self._next_sync = 0.0
        self._is_unsynced = False
        self.after_fork_in_child()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Start over with nothing pending; the session stays."""
        self._lock = threading.Lock()  # guards the journal and what is taken off `_pending`
        self._pending: deque[tuple[bytes, int]] = deque()  # (blob, spans in it), oldest first
        self._pending_bytes = 0
        self._drops: Counter[str] = Counter()

    def activate(self, service_name: str = "") -> SessionPaths:
        """Settle the session of this exporter, tell it to child processes, and return its paths.

        Args:
            service_name: What the session is named after, unless settings name it or it is settled.
        """
        if self._paths is None:
            self._paths = SessionPaths(*activate_session(self.settings, service_name))
        return self._paths

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write spans to the journal, durably; FAILURE if they are pending or were dropped."""
        self.add(spans)
        return SpanExportResult.SUCCESS if self.commit() else SpanExportResult.FAILURE

    def add(self, spans: Sequence[ReadableSpan]) -> None:
        """Encode spans as one blob, to be written by the next commit."""
        if not spans:
            return
        if self._paths is None:
            self.activate(_service_name(spans[0]))
        try:
            blob = _blob(spans)
        except Exception as error:  # noqa: BLE001  # whatever a value's own methods may raise
            self._add_one_by_one(spans, error)
        else:
            self._pending.append((blob, len(spans)))
            self._pending_bytes += len(blob)
            self._shed()

    def drop(self, reason: str, count: int) -> None:
        """Count spans that were lost; the next commit writes the count."""
        self._drops[reason] += count

    def commit(self) -> bool:
        """Write what is pending in one transaction; return whether nothing is pending any more."""
        return self._commit(_LOCK_SECONDS)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Write what is pending; return whether that was done within the timeout."""
        return self._commit(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Write what is pending and close the journal; a later commit opens it again."""
        self._next_open = self._next_sync = 0.0
        self._commit(_LOCK_SECONDS)
        if self._lock.acquire(timeout=_LOCK_SECONDS):
            journal, self._journal = self._journal, None
            try:
                if journal is not None:
                    journal.close()
            except Exception as error:  # noqa: BLE001
                self._report(error)
            finally:
                self._lock.release()

    def _add_one_by_one(self, spans: Sequence[ReadableSpan], error: Exception) -> None:
        if len(spans) == 1:
            self._drops[UNENCODABLE] += 1
            warn_once(
                UNENCODABLE,
                f"A span can't be encoded ({_describe(error)}); such spans are dropped and counted.",
            )
            return
        for span in spans:
            self.add((span,))

    def _commit(self, seconds: float) -> bool:
        if self._is_settled():
            return True
        if not self._lock.acquire(timeout=seconds):
            return False
        try:
            self._write(self._opened())
        except Exception as error:  # noqa: BLE001  # disk, journal or LMDB; the program must not notice
            self._report(error)
        finally:
            self._lock.release()
        return not self._pending

    def _is_settled(self) -> bool:
        is_synced = not self._is_unsynced or time.monotonic() < self._next_sync
        return not self._pending and not any(self._drops.values()) and is_synced

    def _opened(self) -> Journal:
        """Return the journal, opened if need be. One that can't be opened is tried every five seconds."""
        if self._journal is None:
            now = time.monotonic()
            if now < self._next_open:
                raise _NotYetError
            self._next_open = now + _REOPEN_SECONDS
            settings = self.settings
            self._journal = Journal.open(
                self.activate().journal, map_size=settings.map_size_bytes, durability=settings.durability
            )
        return self._journal

    def _write(self, journal: Journal) -> None:
        taken = [self._pending.popleft() for _ in range(len(self._pending))]
        drops = {reason: count for reason, count in self._drops.items() if count}
        try:
            if taken or drops:
                journal.append([blob for blob, _ in taken], drops)
        except BaseException:
            self._pending.extendleft(reversed(taken))
            raise
        self._is_unsynced = self.settings.durability == "interval"
        self._pending_bytes -= sum(len(blob) for blob, _ in taken)
        self._drops.subtract(drops)
        if self._is_unsynced and time.monotonic() >= self._next_sync:
            self._sync(journal)

    def _sync(self, journal: Journal) -> None:
        journal.sync()
        self._is_unsynced = False
        self._next_sync = time.monotonic() + _SYNC_SECONDS

    def _shed(self) -> None:
        """Drop the oldest pending blobs beyond the bound, except for those that are being written."""
        while self._pending_bytes > MAX_PENDING_BYTES and len(self._pending) > 1:
            blob, span_count = self._pending.popleft()
            self._pending_bytes -= len(blob)
            self._drops[DISK] += span_count

    def _report(self, error: Exception) -> None:
        if not isinstance(error, _NotYetError):
            warn_once(
                "journal",
                f"{_describe(error)} Spans wait in memory, up to 16 MiB; more are dropped and counted.",
            )


class _NotYetError(Exception):
    """The journal could not be opened a moment ago."""


def _blob(spans: Sequence[ReadableSpan]) -> bytes:
    return encode(batch_from_readable(spans, os.getpid()), time.time_ns())


def _service_name(span: ReadableSpan) -> str:
    name = span.resource.attributes.get("service.name", "")
    return name if isinstance(name, str) else ""


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
