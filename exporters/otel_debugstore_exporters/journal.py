"""The LMDB journal of one session: durable batches, in the order in which they were committed.

Loss: a blob is durable when `append` returns (durability `sync`); with `interval` a power failure may
take what came after the last `sync()`, the death of a process takes nothing. Capacity: the map grows
on demand until the disk is full; a refused write changes nothing and raises `JournalWriteError`.
Threads and processes: any number may append and read. One LMDB environment is shared by all
`Journal` objects of a process and path; it is reopened after a fork. Every access is a short
transaction under one lock a process (`_Environment.lock`), so that a fork finds none open. (Where a
transaction takes longer than a fork waits, two seconds, the child can't use that journal.)
Liveness: from its first append on, a process holds the session's `live` lock, shared; whoever removes
journals takes it exclusively. An append into a journal that was removed begins a new one.

Databases in the file: `batches` (8-byte big-endian sequence -> blob, see `codec`), `meta`, and
`drops` (process and reason -> how many spans were dropped).
"""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import lmdb

from otel_debugstore.errors import CorruptDataError, DebugStoreError, FormatVersionError
from otel_debugstore.fork import keep_for_ever
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.descriptors import OpenFiles, identity, no_standard_descriptors
from otel_debugstore_exporters.journal_file import (
    DATA_FILE,
    MAX_READERS,
    allocate_lock_file,
    check_length,
    forget_unfinished,
    refuse_damaged,
)
from otel_debugstore_exporters.session import HeldLock, hold_live

Durability = Literal["sync", "interval"]

JOURNAL_VERSION: Final = 1
DEFAULT_MAP_SIZE: Final = 16 << 30
_MIN_MAP_SIZE: Final = 1 << 20
_LIMITED_SHARE: Final = 16
"""Where the address space is limited (RLIMIT_AS), the map begins with at most this fraction of it."""
_DATABASES: Final = (b"meta", b"batches", b"drops")
_SPANS_A_BLOB: Final = 15
"""What a blob weighs at least: a reader of 8,192 blobs in a journal begins 0.2 s later."""
BYTES_A_SPAN: Final = 1_024
"""So much that is stored, payloads above all, weighs as much as a span when it is decided what to seal."""
_SEQUENCE: Final = struct.Struct(">Q")
_DROP: Final = struct.Struct("<QQQ")
_FORK_WAIT_SECONDS: Final = 2.0
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
        return cls(_acquire(path, map_size or DEFAULT_MAP_SIZE, durability, readonly))

    @property
    def journal_id(self) -> str:
        """The journal's own id, 32 hexadecimal digits: sequences are unique below it."""
        return self._open().journal_id

    def append(self, blobs: Sequence[bytes], drops: Mapping[str, int] | None = None) -> None:
        """Write blobs, and add to this process's drop counters, in one transaction.

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
        with environment.lock, _translated(environment.path, JournalWriteError):
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
            _release(environment)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _open(self) -> _Environment:
        if self._environment is None:
            raise JournalError("This journal is closed; open it again.")
        self._environment.ensure_connected()
        return self._environment


class _Environment:
    """The one LMDB environment of this process at a path."""

    def __init__(self, path: Path, map_size: int, durability: Durability, readonly: bool) -> None:
        self.path = path
        self.users = 0
        self.lock = threading.RLock()  # guards every transaction; held across a fork
        self.held_for_fork = False
        self._data_file = path / DATA_FILE
        self._map_size = map_size
        self._durability = durability
        self._readonly = readonly
        self._is_connected = False
        self._has_databases = False
        self._live: HeldLock | None = None
        self._files = OpenFiles()
        self._pid = os.getpid()
        self.connect()

    def connect(self) -> None:
        """Open the file. If that fails, the next use tries again."""
        self.disconnect()
        self._pid = os.getpid()
        with _translated(self.path):
            if not self._readonly:
                self.path.mkdir(parents=True, exist_ok=True)
                allocate_lock_file(self.path)
                forget_unfinished(self.path)
            refuse_damaged(self.path)
            with no_standard_descriptors():
                self.lmdb = self._open_environment()
            self._files = OpenFiles(self.path.glob("*.mdb"))
        self._is_connected = True
        try:
            with _translated(self.path):
                info = self.lmdb.info()
                check_length(self.path, info["last_pgno"] + 1, self.lmdb.stat()["psize"])
                self._file = identity(self._data_file.stat())
            self._open_databases()
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Let go of the file, and of the `live` lock."""
        live, self._live = self._live, None
        if live is not None:
            live.release()
        self._has_databases = False
        if self._is_connected:
            self._is_connected = False
            with self._files.closing():
                self.lmdb.close()

    def abandon(self) -> None:
        """Leave the file open for good: closing it would wait for the thread of the parent that uses it."""
        keep_for_ever(self.lmdb)
        self._is_connected = self._has_databases = False

    def ensure_connected(self) -> None:
        """Open the file again after a fork, or when that failed the last time."""
        if self._pid != os.getpid() or not self._is_connected:
            with self.lock:
                if self._pid != os.getpid() or not self._is_connected:
                    self.connect()

    def is_in_place(self) -> bool:
        """Whether the open file is still the one at the path, and still open."""
        try:
            return self._files.are_intact() and identity(self._data_file.stat()) == self._file
        except FileNotFoundError:
            return False

    def settle(self) -> None:
        """Hold the `live` lock of the journal at the path; begin a new one if ours was removed. Hold `lock`."""
        if self._readonly:
            return
        with _translated(self.path):
            while self._live is None or not self._live.is_held() or not self.is_in_place():
                if not self.is_in_place():
                    self.connect()
                self._live = hold_live(self.path)

    def _open_environment(self) -> lmdb.Environment:
        """Open with as much address space as the process may have (RLIMIT_AS)."""
        size = self._map_size
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            size = min(size, max(_MIN_MAP_SIZE, limit // _LIMITED_SHARE))
        while True:
            try:
                return lmdb.open(
                    str(self.path),
                    map_size=size,
                    max_dbs=8,
                    max_readers=MAX_READERS,
                    # A spare one keeps its slot in the table of readers, and a forked child would free that.
                    max_spare_txns=0,
                    sync=self._durability == "sync",
                    metasync=self._durability == "sync",
                    readonly=self._readonly,
                    lock=not self._readonly,
                    create=not self._readonly,
                    # lmdb 3 bundles two file formats that can't read each other; 0.9 is the stable one.
                    lib_version=0,
                )
            except (lmdb.MemoryError, MemoryError):
                size //= 2
                if size < _MIN_MAP_SIZE:
                    raise

    def _open_databases(self) -> None:
        """Look for the databases without a writer's lock, whose holder may be stopped; create missing ones."""
        if not self._readonly:
            with _translated(self.path):
                self.lmdb.reader_check()
                with self.lmdb.begin() as txn:
                    is_there = self._find_databases(txn)
            if not is_there:
                self.write(self._create)
        with self.reading() as txn:
            self._read_meta(txn)

    def _find_databases(self, txn: lmdb.Transaction) -> bool:
        """Open the databases, for this transaction only if it is a reading one; False if they are not there."""
        try:
            self.meta, self.batches, self.drops = (self.lmdb.open_db(name, txn, create=False) for name in _DATABASES)
        except lmdb.NotFoundError:
            return False
        return True

    def _create(self, txn: lmdb.Transaction) -> None:
        if self._find_databases(txn):
            return
        if self.lmdb.stat()["entries"]:
            raise _not_ours(self.path)
        self.meta, self.batches, self.drops = (self.lmdb.open_db(name, txn) for name in _DATABASES)
        txn.put(b"version", str(JOURNAL_VERSION).encode(), db=self.meta)
        txn.put(b"journal_id", uuid.uuid4().hex.encode(), db=self.meta)
        txn.put(b"next_seq", _SEQUENCE.pack(0), db=self.meta)

    def _read_meta(self, txn: lmdb.Transaction) -> None:
        version = self.get_meta(txn, b"version")
        if not version.isdigit():
            raise _not_ours(self.path)
        if int(version) > JOURNAL_VERSION:
            raise FormatVersionError(
                f"The journal {self.path} has format version {int(version)}, this otel-debugstore "
                f"knows up to {JOURNAL_VERSION}: upgrade it (pip install -U otel-debugstore)."
            )
        self.journal_id = self.get_meta(txn, b"journal_id").decode()
        self.next_sequence(txn)

    @contextlib.contextmanager
    def reading(self) -> Iterator[lmdb.Transaction]:
        """A read transaction. Hold `lock`; copy what you need, do not compute in it."""
        with _translated(self.path):
            try:
                txn = self.lmdb.begin()
            except lmdb.MapResizedError:
                self._remap(0)
                txn = self.lmdb.begin()
            with txn:
                if not self._has_databases and not self._find_databases(txn):
                    raise _not_ours(self.path)
                yield txn

    def write(self, work: Any) -> Any:
        """Run `work(txn)` in a write transaction; grow the map when it is full. Hold `lock`."""
        with _translated(self.path, JournalWriteError):
            while True:
                try:
                    with self.lmdb.begin(write=True) as txn:
                        if not self._has_databases:
                            self._find_databases(txn)
                        result = work(txn)
                    self._has_databases = True  # a commit keeps what was opened
                    return result
                except lmdb.MapResizedError:
                    self._remap(0)
                except lmdb.MapFullError:
                    self._grow()
                except lmdb.PanicError:
                    # A failed fsync leaves an environment unusable, the file as of the last commit.
                    self.disconnect()
                    raise

    def _grow(self) -> None:
        before = self.lmdb.info()["map_size"]
        self._remap(2 * before)
        if self.lmdb.info()["map_size"] <= before:
            raise JournalWriteError(
                f"The journal {self.path} can't grow beyond {before} bytes: the address space of this process "
                "is limited (ulimit -v); raise the limit."
            )

    def _remap(self, map_size: int) -> None:
        """Change the size of the map; 0 adopts what another process grew it to."""
        try:
            self.lmdb.set_mapsize(map_size)
        except (lmdb.Error, MemoryError):  # LMDB let go of the old map before it failed to get the new one
            self._map_size = max(map_size, self._map_size)
            self.connect()

    def get_meta(self, txn: lmdb.Transaction, key: bytes) -> bytes:
        return bytes(txn.get(key, db=self.meta) or b"")

    def next_sequence(self, txn: lmdb.Transaction) -> int:
        return int(_SEQUENCE.unpack(self.get_meta(txn, b"next_seq"))[0])

    def span_count(self, txn: lmdb.Transaction) -> int:
        return int(self.get_meta(txn, b"span_count") or 0)

    def add_spans(self, txn: lmdb.Transaction, count: int) -> None:
        txn.put(b"span_count", str(max(0, self.span_count(txn) + count)).encode(), db=self.meta)

    def put(self, txn: lmdb.Transaction, blobs: Sequence[bytes], drops: Mapping[str, int]) -> None:
        sequence = self.next_sequence(txn)
        for offset, blob in enumerate(blobs):
            txn.put(_SEQUENCE.pack(sequence + offset), blob, db=self.batches, append=True)
        self.add_spans(txn, sum(map(_span_count, blobs)))
        if blobs:
            txn.put(b"next_seq", _SEQUENCE.pack(sequence + len(blobs)), db=self.meta)
        now = time.time_ns()
        for reason, count in drops.items():
            key = f"{os.getpid()}:{_PROCESS_STARTED_NS}:{reason}".encode()[:500]
            old = txn.get(key, db=self.drops)
            before, first, _ = _DROP.unpack(old) if old else (0, now, now)
            txn.put(key, _DROP.pack(before + count, first, now), db=self.drops)


def _not_ours(path: Path) -> CorruptDataError:
    return CorruptDataError(f"{path} is not a journal of otel-debugstore; choose another session.")


@contextlib.contextmanager
def _translated(path: Path, kind: type[JournalError] = JournalError) -> Iterator[None]:
    try:
        yield
    except (
        lmdb.InvalidError,
        lmdb.CorruptedError,
        lmdb.PageNotFoundError,
        lmdb.VersionMismatchError,
        lmdb.IncompatibleError,
        struct.error,
        ValueError,
    ) as error:
        raise CorruptDataError(
            f"The journal {path} can't be read ({error}); run `debugstore doctor --repair`."
        ) from error
    except (lmdb.DiskError, lmdb.ReadonlyError, lmdb.PanicError, lmdb.MapFullError) as error:
        raise JournalWriteError(f"The journal {path} can't be written ({error}); free space or fix access.") from error
    except (lmdb.Error, OSError) as error:
        if "No space" in str(error) or "File too large" in str(error):
            kind = JournalWriteError
        raise kind(f"The journal {path} can't be used ({error}); check the disk and the access rights.") from error


def _span_count(blob: bytes | memoryview) -> int:
    try:
        return codec.read_header(blob).span_count
    except DebugStoreError:
        return 0


_environments: dict[Path, _Environment] = {}
_registry_lock = threading.RLock()  # guards _environments and the counts of users
_registry_held_for_fork = False


def _acquire(path: Path, map_size: int, durability: Durability, readonly: bool) -> _Environment:
    key = path.absolute()
    with _registry_lock:
        environment = _environments.get(key)
        if environment is None:
            environment = _environments[key] = _Environment(key, map_size, durability, readonly)
        elif not environment.is_in_place():
            with environment.lock:
                environment.connect()
        environment.users += 1
        return environment


def _release(environment: _Environment) -> None:
    with _registry_lock:
        environment.users -= 1
        if environment.users == 0:
            del _environments[environment.path]
            with environment.lock:
                environment.disconnect()


def _before_fork() -> None:
    global _registry_held_for_fork
    _registry_held_for_fork = _registry_lock.acquire(timeout=_FORK_WAIT_SECONDS)
    for environment in _environments.values():
        environment.held_for_fork = environment.lock.acquire(timeout=_FORK_WAIT_SECONDS)


def _after_fork_in_parent() -> None:
    for environment in _environments.values():
        if environment.held_for_fork:
            environment.lock.release()
    if _registry_held_for_fork:
        _registry_lock.release()


def _after_fork_in_child() -> None:
    """Close what was inherited: an environment used after a fork corrupts the table of readers."""
    global _registry_lock
    _registry_lock = threading.RLock()
    for environment in _environments.values():
        environment.lock = threading.RLock()
        if environment.held_for_fork:
            environment.disconnect()
        else:
            environment.abandon()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
