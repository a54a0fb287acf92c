"""An LMDB file of ours: opened once a process, grown when it is full, opened again after a fork.

Threads and processes: any number may read and write. One LMDB environment is shared by all who use a path in a
process. Every access is a short transaction under one lock a process (`Environment.lock`), so that a fork finds none
open. (Where a transaction takes longer than a fork waits, two seconds, the child can't use that file.) The map grows on
demand until the disk is full; a refused write changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import resource
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Final, Literal, TypeVar

import lmdb

from otel_debugstore.errors import CorruptDataError, DebugStoreError, ForeignFileError, FormatVersionError
from otel_debugstore.fork import HeldAcrossForks, keep_for_ever
from otel_debugstore_exporters.descriptors import OpenFiles, identity, no_standard_descriptors
from otel_debugstore_exporters.journal_file import (
    DATA_FILE,
    MAX_READERS,
    allocate_lock_file,
    check_length,
    forget_unfinished,
    refuse_damaged,
)

Durability = Literal["sync", "interval"]

_MIN_MAP_SIZE: Final = 1 << 20
_LIMITED_SHARE: Final = 16
"""Where the address space is limited (RLIMIT_AS), the map begins with at most this fraction of it."""
_FORK_WAIT_SECONDS: Final = 2.0
_META: Final = b"meta"


class Environment:
    """The one LMDB environment of this process at a path. What a file holds, a subclass says.

    Attributes:
        noun: What messages call the file.
        instead: What messages advise where the file is somebody else's.
        version: Its format; a file says which it has, and one of a higher format is not opened.
        databases: The names of its databases, beside `meta`.
        error: What is raised when it can't be used.
        write_error: What is raised when it can't be written.
    """

    noun: ClassVar[str]
    instead: ClassVar[str]
    version: ClassVar[int]
    databases: ClassVar[tuple[bytes, ...]]
    error: ClassVar[type[DebugStoreError]]
    write_error: ClassVar[type[DebugStoreError]]

    def __init__(self, path: Path, map_size: int, durability: Durability, readonly: bool) -> None:
        self.path = path
        self.users = 0
        self.lock = threading.RLock()  # guards every transaction; held across a fork
        self.is_readonly = readonly
        self._data_file = path / DATA_FILE
        self._map_size = map_size
        self._durability = durability
        self._is_connected = False
        self._has_databases = False
        self._files = OpenFiles()
        self._pid = os.getpid()
        self.connect()

    def connect(self) -> None:
        """Open the file. If that fails, the next use tries again."""
        self.disconnect()
        self._pid = os.getpid()
        with self.translated():
            if not self.is_readonly:
                self.path.mkdir(parents=True, exist_ok=True)
                allocate_lock_file(self.path)
                forget_unfinished(self.path)
            refuse_damaged(self.path, self.noun)
            with no_standard_descriptors():
                self.lmdb = self._open_environment()
            self._files = OpenFiles(self.path.glob("*.mdb"))
        self._is_connected = True
        try:
            with self.translated():
                info = self.lmdb.info()
                check_length(self.path, info["last_pgno"] + 1, self.lmdb.stat()["psize"], self.noun)
                self._file = identity(self._data_file.stat())
            self._open_databases()
        except BaseException:
            self.disconnect()
            raise

    def disconnect(self) -> None:
        """Let go of the file."""
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

    @contextlib.contextmanager
    def reading(self) -> Iterator[lmdb.Transaction]:
        """A read transaction. Hold `lock`; copy what you need, do not compute in it."""
        with self.translated():
            try:
                txn = self.lmdb.begin()
            except lmdb.MapResizedError:
                self._remap(0)
                txn = self.lmdb.begin()
            with txn:
                if not self._has_databases and not self._find_databases(txn):
                    raise self.not_ours()
                yield txn

    def write(self, work: Any) -> Any:
        """Run `work(txn)` in a write transaction, again after the map was grown if it was full. Hold `lock`."""
        with self.translated(self.write_error):
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

    def database(self, name: bytes) -> Any:
        """Return the handle of a database, for use in a transaction."""
        return self._handles[name]

    def get_meta(self, txn: lmdb.Transaction, key: bytes) -> bytes:
        """Return a value of the database `meta`; nothing if it is not there."""
        return bytes(txn.get(key, db=self._handles[_META]) or b"")

    def put_meta(self, txn: lmdb.Transaction, key: bytes, value: bytes) -> None:
        """Write a value into the database `meta`."""
        txn.put(key, value, db=self._handles[_META])

    def on_create(self, txn: lmdb.Transaction) -> None:
        """Write into a new file what it begins with."""

    def on_open(self, txn: lmdb.Transaction) -> None:
        """Read from a file what is needed to use it."""

    def not_ours(self) -> ForeignFileError:
        """Return the error of a file that LMDB can read and we did not write."""
        return ForeignFileError(f"{self.path} is not a {self.noun} of otel-debugstore; {self.instead}.")

    @contextlib.contextmanager
    def translated(self, kind: type[DebugStoreError] | None = None) -> Iterator[None]:
        """Raise LMDB's and the system's errors as ours.

        Args:
            kind: What is raised where nothing more is known; `error` by default.
        """
        what = f"The {self.noun} {self.path}"
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
            raise CorruptDataError(f"{what} can't be read ({error}); run `debugstore doctor --repair`.") from error
        except (lmdb.DiskError, lmdb.ReadonlyError, lmdb.PanicError, lmdb.MapFullError) as error:
            raise self.write_error(f"{what} can't be written ({error}); free space or fix access.") from error
        except (lmdb.Error, OSError) as error:
            is_full = "No space" in str(error) or "File too large" in str(error)
            chosen = self.write_error if is_full else kind or self.error
            raise chosen(f"{what} can't be used ({error}); check the disk and the access rights.") from error

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
                    readonly=self.is_readonly,
                    lock=not self.is_readonly,
                    create=not self.is_readonly,
                    # lmdb 3 bundles two file formats that can't read each other; 0.9 is the stable one.
                    lib_version=0,
                )
            except (lmdb.MemoryError, MemoryError):
                size //= 2
                if size < _MIN_MAP_SIZE:
                    raise

    def _open_databases(self) -> None:
        """Look for the databases without a writer's lock, whose holder may be stopped; create missing ones."""
        if not self.is_readonly:
            with self.translated():
                self.lmdb.reader_check()
                with self.lmdb.begin() as txn:
                    is_there = self._find_databases(txn)
            if not is_there:
                self.write(self._create)
        with self.reading() as txn:
            self._check_version(txn)
            self.on_open(txn)

    def _find_databases(self, txn: lmdb.Transaction) -> bool:
        """Open the databases, for this transaction only if it is a reading one; False if they are not there."""
        try:
            self._handles = {name: self.lmdb.open_db(name, txn, create=False) for name in self._names()}
        except lmdb.NotFoundError:
            return False
        return True

    def _names(self) -> tuple[bytes, ...]:
        return (_META, *self.databases)

    def _create(self, txn: lmdb.Transaction) -> None:
        if self._find_databases(txn):
            return
        if self.lmdb.stat()["entries"]:
            raise self.not_ours()
        self._handles = {name: self.lmdb.open_db(name, txn) for name in self._names()}
        self.put_meta(txn, b"version", str(self.version).encode())
        self.on_create(txn)

    def _check_version(self, txn: lmdb.Transaction) -> None:
        version = self.get_meta(txn, b"version")
        if not version.isdigit():
            raise self.not_ours()
        if int(version) > self.version:
            raise FormatVersionError(
                f"The {self.noun} {self.path} has format version {int(version)}, this otel-debugstore "
                f"knows up to {self.version}: upgrade it (pip install -U otel-debugstore)."
            )

    def _grow(self) -> None:
        before = self.lmdb.info()["map_size"]
        self._remap(2 * before)
        if self.lmdb.info()["map_size"] <= before:
            raise self.write_error(
                f"The {self.noun} {self.path} can't grow beyond {before} bytes: the address space of this process "
                "is limited (ulimit -v); raise the limit."
            )

    def _remap(self, map_size: int) -> None:
        """Change the size of the map; 0 adopts what another process grew it to."""
        try:
            self.lmdb.set_mapsize(map_size)
        except (lmdb.Error, MemoryError):  # LMDB let go of the old map before it failed to get the new one
            self._map_size = max(map_size, self._map_size)
            self.connect()


E = TypeVar("E", bound=Environment)

_environments: dict[Path, Environment] = {}
_registry_lock = threading.RLock()  # guards _environments and the counts of users
_held: Final = HeldAcrossForks()


def acquire(path: Path, make: Callable[[Path], E]) -> E:
    """Return the environment at a path, made if this process has none there. Each call needs a `release`."""
    key = path.absolute()
    with _registry_lock:
        environment: Any = _environments.get(key)
        if environment is None:
            environment = _environments[key] = make(key)
        elif not environment.is_in_place():
            with environment.lock:
                environment.connect()
        environment.users += 1
        return environment  # type: ignore[no-any-return]  # one path has one kind


def release(environment: Environment) -> None:
    """Let go of an environment; who does so last closes the file."""
    with _registry_lock:
        environment.users -= 1
        if environment.users == 0:
            del _environments[environment.path]
            with environment.lock:
                environment.disconnect()


def _before_fork() -> None:
    _held.take(_registry_lock, _FORK_WAIT_SECONDS)
    for environment in list(_environments.values()):
        _held.take(environment.lock, _FORK_WAIT_SECONDS)


def _after_fork_in_child() -> None:
    """Close what was inherited: an environment used after a fork corrupts the table of readers."""
    global _registry_lock
    _registry_lock = threading.RLock()
    held = _held.forget()
    for environment in _environments.values():
        was_held, environment.lock = environment.lock in held, threading.RLock()
        if was_held:
            environment.disconnect()
        else:
            environment.abandon()


os.register_at_fork(before=_before_fork, after_in_parent=_held.release, after_in_child=_after_fork_in_child)
