"""`LmdbSpanExporter`: ended spans into the journal of a session.

Loss: what `export` answered with SUCCESS, or what was added before a `commit` that returned True, is in
the journal. Blobs that the disk refuses are kept in memory, up to 16 MiB, and tried again with every
commit; beyond that the oldest are dropped and counted ("disk"). Spans that can't be encoded are dropped
one by one and counted ("unencodable"). Counts are written to the journal with the next commit that
succeeds. With the last one, of a process that ends, what the disk refuses is counted first, and then written
blob by blob as far as there is room. Trouble is logged, one line for each kind, and never raised.
What goes into the store beside spans (`outbox`) goes the same way: payloads and code never later than the
spans that name them, counts of calls with the commit, and never dropped; where every call is a span, counts say only
what recording cost, and then wait for up to 5 s unless somebody asks for a commit. Payloads for which there is no room,
in the outbox or here, are counted ("payload"). Secrets are masked, in the thread that writes, before anything
is encoded. What experiments have seen (`experiments.keeper`) is exchanged with each commit.
Capacity: one transaction a commit, however many batches were added.
Threads: safe; an export that can't have the lock within 100 ms leaves its blobs to whoever has it.
Fork: a child starts without the parent's blobs and counts, and with its own handle on the journal.
Start: what encodes, masks and writes is loaded with the first batch, in the thread that writes; what that imports
from elsewhere is imported here, before the program's folder is on `sys.path` (see `otel_debugstore.loading`).
"""

from __future__ import annotations

import array  # noqa: F401
import contextlib
import functools
import mmap  # noqa: F401
import os
import resource  # noqa: F401
import threading
import uuid  # noqa: F401
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import lmdb  # noqa: F401
import msgpack  # noqa: F401
import zstandard  # noqa: F401
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from otel_debugstore.active_session import activate_session
from otel_debugstore.clock import Clock
from otel_debugstore.config import Settings
from otel_debugstore.errors import DebugStoreError
from otel_debugstore.experiments.keeper import KEEPER
from otel_debugstore.fork import reset_after_fork
from otel_debugstore.loading import loading
from otel_debugstore.log import warn_once
from otel_debugstore.outbox import OUTBOX
from otel_debugstore.span_fields import calls_of, fields_of
from otel_debugstore_exporters.beside import WaitingCounts, take_beside
from otel_debugstore_exporters.pending import PAYLOAD, Blob, PendingBlobs
from otel_debugstore_exporters.session import SessionPaths

if TYPE_CHECKING:
    from otel_debugstore.experiments.keeping import Store
    from otel_debugstore_exporters.batch import SpanBatch
    from otel_debugstore_exporters.encoder import Encoder
    from otel_debugstore_exporters.journal import Journal

UNENCODABLE: Final = "unencodable"

_REOPEN_SECONDS: Final = 5.0
_SYNC_SECONDS: Final = 5.0
_COUNTS_SECONDS: Final = 5.0
_LOCK_SECONDS: Final = 0.1
_BESIDE_BYTES: Final = 1 << 16
"""Contents of more bytes have a blob of their own: a disk that is nearly full may still have room for the spans."""
_LAST_SECONDS: Final = 1.0
"""So long the last commit tries to write single blobs that a disk refuses together."""


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
        self._next_sync = 0.0
        self._is_unsynced = False
        self.after_fork_in_child()
        reset_after_fork(self)
        OUTBOX.open()

    def after_fork_in_child(self) -> None:
        """Start over with nothing pending; the session stays."""
        self._next_open = 0.0  # the parent may have been opening the journal just now
        self._lock = threading.Lock()  # guards the journal and what is taken off `_pending`
        self._pending = PendingBlobs()
        self._counts = WaitingCounts()
        self._next_counts = 0.0
        self._drops: Counter[str] = Counter()  # all ever; changed by who adds or counts
        self._written_drops: Counter[str] = Counter()  # changed under the lock

    def activate(self, service_name: str = "") -> SessionPaths:
        """Settle the session of this exporter, tell it to child processes, and return its paths.

        Args:
            service_name: What the session is named after, unless settings name it or it is settled.
        """
        if self._paths is None:
            self._paths = SessionPaths(*activate_session(self.settings, service_name))
            KEEPER.open(functools.partial(_experiments, self._paths.base_path))
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
        batches: list[tuple[Sequence[ReadableSpan], SpanBatch]] = []
        try:
            calls, others = calls_of(spans)
            if calls is not None:
                batches.append((spans, _encoder().calls(calls)))
            if others:
                batches.append((others, _encoder().spans(fields_of(others))))
        except Exception as error:  # noqa: BLE001  # whatever a value's own methods may raise
            self._add_one_by_one(spans, error)
            return
        contents = self._contents()  # also what became known of the spans just now
        beside = contents.pop() if contents and contents[-1].content_bytes <= _BESIDE_BYTES else None
        self._add_contents(contents)
        for some, batch in batches:
            self._add_batch(some, batch, beside)
            beside = None

    def drop(self, reason: str, count: int) -> None:
        """Count spans that were lost; the next commit writes the count."""
        self._drops[reason] += count

    def commit(self, *, is_asked: bool = True) -> bool:
        """Write what is pending now in one transaction; return whether that was done.

        Args:
            is_asked: Whether somebody wants everything written; else counts that can wait do so.
        """
        return self._commit(_LOCK_SECONDS, is_asked=is_asked)

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Write what is pending; return whether that was done within the timeout."""
        return self._commit(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Write what is pending, or count it, and close the journal; a later commit opens it again."""
        self._next_open = self._next_sync = 0.0
        self._commit(_LOCK_SECONDS, is_last=True)
        if self._lock.acquire(timeout=_LOCK_SECONDS):
            journal, self._journal = self._journal, None
            try:
                if journal is not None:
                    journal.close()
            except Exception as error:  # noqa: BLE001
                self._report(error)
            finally:
                self._lock.release()

    def _add_batch(self, spans: Sequence[ReadableSpan], batch: SpanBatch, beside: SpanBatch | None) -> None:
        """Encode spans, and contents that go in the same blob: to write one more takes longer than to encode them."""
        try:
            payload_count = 0 if beside is None else len(beside.payloads)
            blob = Blob(_encoder().blob(batch, beside), len(batch), payload_count)
        except Exception as error:  # noqa: BLE001  # as above
            if beside is not None:
                self._add_contents((beside,))
            # The others among the spans of a batch of calls have a batch of their own.
            some = spans if batch.call_values is None else [span for span in spans if calls_of((span,))[0] is not None]
            self._add_one_by_one(some, error)
        else:
            self._add_blob(blob)

    def _add_one_by_one(self, spans: Sequence[ReadableSpan], error: Exception) -> None:
        if len(spans) == 1 or isinstance(error, ImportError):
            self._drops[UNENCODABLE] += len(spans)
            warn_once(
                UNENCODABLE,
                f"A span can't be encoded ({_describe(error)}); such spans are dropped and counted.",
            )
            return
        for span in spans:
            self.add((span,))

    def _contents(self, *, with_counts: bool = False) -> list[SpanBatch]:
        """Take what waits in the outbox; return payloads and code, in batches of a bounded size."""
        taken = take_beside(with_counts=with_counts)
        if taken is None:
            return []
        if taken.counts:
            self._counts.add(taken.counts)
        if taken.left_out:
            self._drops[PAYLOAD] += taken.left_out
        if not taken.payloads and not taken.code:
            return []
        try:
            return list(_encoder().contents(taken.payloads, taken.code))
        except ImportError as error:
            self._lose_payloads(len(taken.payloads), error)
            return []

    def _add_contents(self, contents: Iterable[SpanBatch]) -> None:
        for batch in contents:
            try:
                self._add_blob(Blob(_encoder().blob(batch), payload_count=len(batch.payloads)))
            except Exception as error:  # noqa: BLE001
                self._lose_payloads(len(batch.payloads), error)

    def _lose_payloads(self, count: int, error: Exception) -> None:
        self._drops[PAYLOAD] += count
        warn_once(PAYLOAD, f"A payload can't be encoded ({_describe(error)}); such ones are counted.")

    def _add_blob(self, blob: Blob) -> None:
        for shed in self._pending.add(blob):
            self._count(shed.losses())

    def _count(self, losses: Mapping[str, int]) -> None:
        for reason, count in losses.items():
            self._drops[reason] += count  # no call between load and store, where threads may switch

    def _commit(self, seconds: float, *, is_asked: bool = True, is_last: bool = False) -> bool:
        now = Clock.monotonic()
        with_counts = is_asked or OUTBOX.has_silent_counts or now >= self._next_counts
        if with_counts:
            self._next_counts = now + _COUNTS_SECONDS
        self._add_contents(self._contents(with_counts=with_counts))
        KEEPER.exchange()
        if self._is_settled():
            return True
        if not self._lock.acquire(timeout=seconds):
            return False
        try:
            try:
                self._write(self._opened())
            except Exception:
                if is_last and self._journal is not None:
                    self._write_what_fits(self._journal)
                raise
        except Exception as error:  # noqa: BLE001  # disk, journal or LMDB; the program must not notice
            self._report(error)
            return False
        finally:
            self._lock.release()
        return True

    def _is_settled(self) -> bool:
        is_synced = not self._is_unsynced or Clock.monotonic() < self._next_sync
        return not self._pending and not self._counts and dict(self._drops) == dict(self._written_drops) and is_synced

    def _opened(self) -> Journal:
        """Return the journal, opened if need be. One that can't be opened is tried every five seconds."""
        if self._journal is None:
            now = Clock.monotonic()
            if now < self._next_open:
                raise _NotYetError
            self._next_open = now + _REOPEN_SECONDS
            settings = self.settings
            with loading("otel_debugstore_exporters.journal"):
                from otel_debugstore_exporters.journal import Journal
            self._journal = Journal.open(
                self.activate().journal, map_size=settings.map_size_bytes, durability=settings.durability
            )
        return self._journal

    def _write(self, journal: Journal) -> None:
        counted = Counter(dict(self._drops))  # `dict` copies at once, whatever other threads count
        drops = counted - self._written_drops
        taken = self._pending.take()
        counts = self._counts.pending()
        try:
            blobs = [blob.data for blob in taken]
            if counts:
                blobs.append(_encoder().counts(counts))
            if blobs or drops:
                journal.append(blobs, drops)
        except BaseException:
            self._pending.put_back(taken)
            raise
        self._is_unsynced = self.settings.durability == "interval"
        self._counts.forget()
        self._pending.settle(taken)
        self._written_drops = counted
        if self._is_unsynced and Clock.monotonic() >= self._next_sync:
            self._sync(journal)

    def _write_what_fits(self, journal: Journal) -> None:
        """Count all that waits as lost, and take that back with each blob for which there is room."""
        taken = self._pending.take()
        lost = Counter[str]()
        for blob in taken:
            lost.update(blob.losses())
        counted = Counter(dict(self._drops))
        counted.update(lost)
        try:
            journal.append([], counted - self._written_drops)
        except BaseException:
            self._pending.put_back(taken)
            raise
        self._written_drops = counted
        self._pending.settle(taken)
        try:
            deadline = Clock.monotonic() + _LAST_SECONDS
            for blob in taken:
                if Clock.monotonic() >= deadline:
                    break
                with contextlib.suppress(DebugStoreError):
                    journal.append([blob.data], {reason: -count for reason, count in blob.losses().items()})
                    lost.subtract(blob.losses())
                    self._written_drops.subtract(blob.losses())
        finally:
            self._count(lost)
        if counts := self._counts.pending():
            journal.append([_encoder().counts(counts)])
            self._counts.forget()

    def _sync(self, journal: Journal) -> None:
        journal.sync()
        self._is_unsynced = False
        self._next_sync = Clock.monotonic() + _SYNC_SECONDS

    def _report(self, error: Exception) -> None:
        if not isinstance(error, _NotYetError):
            warn_once(
                "journal",
                f"{_describe(error)} Spans wait in memory, up to 16 MiB; those beyond, and those that still wait at "
                "the end, are dropped, and counted if that can be written.",
            )


class _NotYetError(Exception):
    """The journal could not be opened a moment ago."""


def _encoder() -> Encoder:
    return _encoder_type()(os.getpid())


@functools.cache
def _encoder_type() -> type[Encoder]:
    with loading("otel_debugstore_exporters.encoder"):
        from otel_debugstore_exporters.encoder import Encoder
    return Encoder


def _experiments(base_path: Path) -> Store:
    with loading("otel_debugstore_exporters.experiments"):
        from otel_debugstore_exporters.experiments import ExperimentStore
    return ExperimentStore(base_path)


def _service_name(span: ReadableSpan) -> str:
    name = span.resource.attributes.get("service.name", "")
    return name if isinstance(name, str) else ""


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__
