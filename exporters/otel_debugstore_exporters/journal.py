"""The LMDB journal of one session: durable batches, in the order in which they were committed.

Loss: a blob is durable when `append` returns (durability `sync`); with `interval` a power failure may
take what came after the last `sync()`, the death of a process takes nothing. Capacity: the map grows
on demand until the disk is full; a refused write changes nothing and raises `JournalWriteError`.
Threads and processes: any number may append and read; see `environment`, also on forks.
Liveness: from its first append on, a process holds the session's `live` lock, shared; whoever removes
journals takes it exclusively. An append into a journal that was removed begins a new one.

Databases in the file: `batches` (8-byte big-endian sequence -> blob, see `codec`), `meta`, and
`drops` (process and reason -> how many spans were dropped).
"""

from __future__ import annotations

import os
import struct
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from otel_debugstore.errors import DebugStoreError
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.environment import Durability, Environment, acquire, release
from otel_debugstore_exporters.journal_file import DATA_FILE
from otel_debugstore_exporters.session import HeldLock, hold_live

if TYPE_CHECKING:
    import lmdb

JOURNAL_VERSION: Final = 1
DEFAULT_MAP_SIZE: Final = 16 << 30
_SPANS_A_BLOB: Final = 15
"""What a blob weighs at least: a reader of 8,192 blobs in a journal begins 0.2 s later."""
BYTES_A_SPAN: Final = 1_024
"""So much that is stored, payloads above all, weighs as much as a span when it is decided what to seal."""
_SEQUENCE: Final = struct.Struct(">Q")
_DROP: Final = struct.Struct("<QQQ")
_PROCESS_STARTED_NS: Final = time.time_ns()


class JournalError(DebugStoreError):
    """The journal can't be opened, read or written."""


class JournalWriteError(JournalError):
    """A write was refused (disk full, file size limit, read-only); nothing of it was kept."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Spans of one process that were dropped for one reason. Times in nanoseconds since 1970."""

    pid: int
    reason: str
    count: int
    first_ns: int
    last_ns: int


@dataclass(frozen=True, slots=True)
class JournalStats:
    """Sizes of a journal. Sequences are inclusive; `first_seq` is None when no blob is left."""

    blob_count: int
    span_count: int
    first_seq: int | None
    next_seq: int
    used_bytes: int
    file_bytes: int
    map_size: int

    @property
    def weight(self) -> int:
        """How much there is to seal, in spans: blobs that hold few or none, and payloads, count as some."""
        return max(self.span_count, _SPANS_A_BLOB * self.blob_count, self.used_bytes // BYTES_A_SPAN)


class Journal:
    """One session's journal; see the module's first lines. Use `Journal.open`."""

    def __init__(self, environment: _Environment) -> None:
        self._environment: _Environment | None = environment

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        map_size: int | None = None,
        durability: Durability = "sync",
        readonly: bool = False,
    ) -> Journal:
        """Open the journal at `path`, and create it if it is not there and `readonly` is False.

        Args:
            path: Its directory, `{session}.lmdb`.
            map_size: Bytes of address space to begin with; it grows. Default 16 GiB.
            durability: `sync` commits durably, `interval` leaves that to calls of `sync()`.
            readonly: Change nothing, not even the lock file: for media that can't be written.

        Raises:
            CorruptDataError: The file is not a journal, or is damaged.
            FormatVersionError: A newer version wrote it.
            JournalError: It can't be opened for another reason.
        """
        size = map_size or DEFAULT_MAP_SIZE
        return cls(acquire(path, lambda key: _Environment(key, size, durability, readonly)))

    @property
    def journal_id(self) -> str:
        """The journal's own id, 32 hexadecimal digits: sequences are unique below it."""
        return self._open().journal_id

    def append(self, blobs: Sequence[bytes], drops: Mapping[str, int] | None = None) -> None:
        """Write blobs, and add to this process's drop counters, in one transaction.

        Args:
            blobs: In their order.
            drops: How many more were dropped, by reason; less than 0 takes back what was counted.

        Raises:
            JournalWriteError: The disk refused; nothing was written.
        """
        environment = self._open()
        with environment.lock:
            environment.settle()
            environment.write(lambda txn: environment.put(txn, blobs, drops or {}))

    def read(self, after: int = -1, limit: int = 32) -> list[tuple[int, bytes]]:
        """Return up to `limit` (sequence, blob) pairs with a sequence above `after`, in order."""
        environment = self._open()
        found: list[tuple[int, bytes]] = []
        with environment.lock, environment.reading() as txn, txn.cursor(environment.batches) as cursor:
            if cursor.set_range(_SEQUENCE.pack(after + 1)):
                for key, value in cursor:
                    found.append((_SEQUENCE.unpack(key)[0], bytes(value)))
                    if len(found) >= limit:
                        break
        return found

    def blobs(self, after: int = -1) -> Iterator[tuple[int, bytes]]:
        """Yield all (sequence, blob) pairs above `after`, a few a transaction: a page of them is in memory."""
        while page := self.read(after):
            yield from page
            after = page[-1][0]

    def delete(self, first: int, last: int, page: int = 256) -> None:
        """Delete the blobs with sequences `first` to `last` inclusive, a page a transaction.

        Raises:
            JournalWriteError: The disk refused; some pages may be deleted.
        """
        environment = self._open()

        def delete_page(txn: lmdb.Transaction) -> bool:
            with txn.cursor(environment.batches) as cursor:
                if not cursor.set_range(_SEQUENCE.pack(first)):
                    return False
                for _ in range(page):
                    if not cursor.key() or _SEQUENCE.unpack(cursor.key())[0] > last:
                        return False
                    environment.add_spans(txn, -_span_count(cursor.value()))
                    cursor.delete()
            return True

        more = True
        while more:
            with environment.lock:
                more = environment.write(delete_page)

    def stats(self) -> JournalStats:
        """Return sizes and sequences as of now."""
        environment = self._open()
        with environment.lock, environment.reading() as txn:
            stat = txn.stat(environment.batches)
            with txn.cursor(environment.batches) as cursor:
                first = _SEQUENCE.unpack(cursor.key())[0] if cursor.first() else None
            pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
            return JournalStats(
                blob_count=stat["entries"],
                span_count=environment.span_count(txn),
                first_seq=first,
                next_seq=environment.next_sequence(txn),
                used_bytes=pages * stat["psize"],
                file_bytes=(environment.path / DATA_FILE).stat().st_size,
                map_size=environment.lmdb.info()["map_size"],
            )

    def drops(self) -> list[Drop]:
        """Return what was dropped, by process and reason."""
        environment = self._open()
        found = []
        with environment.lock, environment.reading() as txn, txn.cursor(environment.drops) as cursor:
            for key, value in cursor:
                pid, _, reason = bytes(key).decode(errors="replace").split(":", 2)
                found.append(Drop(int(pid), reason, *_DROP.unpack(value)))
        return found

    def adopt_drops(self, drops: Iterable[Drop]) -> None:
        """Take the counts of another journal, whose place this one takes.

        Raises:
            JournalWriteError: The disk refused.
        """
        environment = self._open()

        def put(txn: lmdb.Transaction) -> None:
            for drop in drops:
                key = f"{drop.pid}:{drop.first_ns}:{drop.reason}".encode()[:500]
                txn.put(key, _DROP.pack(drop.count, drop.first_ns, drop.last_ns), db=environment.drops)

        with environment.lock:
            environment.write(put)

    def sync(self) -> None:
        """Make everything appended so far durable (needed with durability `interval` only).

        Raises:
            JournalWriteError: The disk refused.
        """
        environment = self._open()
        with environment.lock, environment.translated(JournalWriteError):
            environment.lmdb.sync(True)

    def reap_dead_readers(self) -> int:
        """Release what readers that were killed still pin; return how many there were."""
        environment = self._open()
        with environment.lock:
            return int(environment.lmdb.reader_check())

    def is_in_place(self) -> bool:
        """Whether the journal that was opened still lies at its path: it may have been archived or removed."""
        return self._open().is_in_place()

    def close(self) -> None:
        """Give up this object's share of the environment. Idempotent."""
        environment, self._environment = self._environment, None
        if environment is not None:
            release(environment)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> _Environment:
        if self._environment is None:
            raise JournalError("This journal is closed; open it again.")
        self._environment.ensure_connected()
        return self._environment


class _Environment(Environment):
    """The one LMDB environment of this process at a journal's path."""

    noun = "journal"
    instead = "choose another session"
    version = JOURNAL_VERSION
    databases = (b"batches", b"drops")
    error = JournalError
    write_error = JournalWriteError
    _live: HeldLock | None = None

    @property
    def batches(self) -> Any:
        """The database of blobs."""
        return self.database(b"batches")

    @property
    def drops(self) -> Any:
        """The database of drop counters."""
        return self.database(b"drops")

    def disconnect(self) -> None:
        """Let go of the file, and of the `live` lock."""
        live, self._live = self._live, None
        if live is not None:
            live.release()
        super().disconnect()

    def settle(self) -> None:
        """Hold the `live` lock of the journal at the path; begin a new one if ours was removed. Hold `lock`."""
        if self.is_readonly:
            return
        with self.translated():
            while self._live is None or not self._live.is_held() or not self.is_in_place():
                if not self.is_in_place():
                    self.connect()
                self._live = hold_live(self.path)

    def on_create(self, txn: lmdb.Transaction) -> None:
        self.put_meta(txn, b"journal_id", uuid.uuid4().hex.encode())
        self.put_meta(txn, b"next_seq", _SEQUENCE.pack(0))

    def on_open(self, txn: lmdb.Transaction) -> None:
        self.journal_id = self.get_meta(txn, b"journal_id").decode()
        self.next_sequence(txn)

    def next_sequence(self, txn: lmdb.Transaction) -> int:
        return int(_SEQUENCE.unpack(self.get_meta(txn, b"next_seq"))[0])

    def span_count(self, txn: lmdb.Transaction) -> int:
        return int(self.get_meta(txn, b"span_count") or 0)

    def add_spans(self, txn: lmdb.Transaction, count: int) -> None:
        self.put_meta(txn, b"span_count", str(max(0, self.span_count(txn) + count)).encode())

    def put(self, txn: lmdb.Transaction, blobs: Sequence[bytes], drops: Mapping[str, int]) -> None:
        sequence = self.next_sequence(txn)
        for offset, blob in enumerate(blobs):
            txn.put(_SEQUENCE.pack(sequence + offset), blob, db=self.batches, append=True)
        self.add_spans(txn, sum(map(_span_count, blobs)))
        if blobs:
            self.put_meta(txn, b"next_seq", _SEQUENCE.pack(sequence + len(blobs)))
        now = time.time_ns()
        for reason, count in drops.items():
            key = f"{os.getpid()}:{_PROCESS_STARTED_NS}:{reason}".encode()[:500]
            old = txn.get(key, db=self.drops)
            before, first, _ = _DROP.unpack(old) if old else (0, now, now)
            if before + count:
                txn.put(key, _DROP.pack(before + count, first, now), db=self.drops)
            else:
                txn.delete(key, db=self.drops)


def _span_count(blob: bytes | memoryview) -> int:
    try:
        return codec.read_header(blob).span_count
    except DebugStoreError:
        return 0
