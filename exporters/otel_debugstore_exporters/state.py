"""What changes after it was recorded: the optimization queue, baselines, verdicts, and pins on evidence.

{base_path}/state.lmdb holds tables of values by text keys. Loss: a change is durable when the call returns, and is
all there or not at all, whatever dies when; a refused one (full disk, read-only) changes nothing and raises
`StateWriteError`. Capacity: until the disk is full. Threads and processes: any number may read and write, each change
sees all that were made before it; see `environment`, also on forks. Reading creates nothing.

Database in the file: `values` (table, zero byte, key -> msgpack of version, key and value). Of a key longer than LMDB
takes, the rest stands as its SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, TypeVar

import lmdb
import msgpack

from otel_debugstore.errors import ConfigurationError, CorruptDataError, DebugStoreError, FormatVersionError
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.environment import Environment, acquire, release
from otel_debugstore_exporters.journal_file import DATA_FILE, is_begun

STATE_NAME: Final = "state.lmdb"
_MAP_SIZE: Final = 1 << 30
_VALUE_VERSION: Final = 1
_VALUES: Final = b"values"
_TABLE: Final = re.compile("[a-z_]{1,40}")
_TRACE_ID: Final = re.compile("[0-9a-f]{32}")
_LONGEST_KEY: Final = 400
"""Bytes; LMDB takes 511, a table's name and a digest among them."""
_PINS: Final = "pins"

R = TypeVar("R")
Update = Callable[[Any], Any]


class StateError(DebugStoreError):
    """The state can't be opened or read."""


class StateWriteError(StateError):
    """A change was refused (disk full, read-only, file size limit); nothing of it was kept."""


class State:
    """The tables below a base path; see the module's first lines. Nothing stays open between calls.

    Values are what JSON knows, bytes, and integers of any size; sequences come back as lists.

    Args:
        base_path: Where sessions lie.
    """

    def __init__(self, base_path: str | os.PathLike[str]) -> None:
        self.path = Path(base_path) / STATE_NAME

    def get(self, table: str, key: str) -> Any:
        """Return the value at a key; None if there is none.

        Raises:
            CorruptDataError: The file is damaged.
            FormatVersionError: A newer version wrote it.
            StateError: It can't be read for another reason.
        """
        return self._read(lambda changes: changes.get(table, key), None)

    def items(self, table: str, prefix: str = "") -> list[tuple[str, Any]]:
        """Return keys that begin with `prefix`, with their values, sorted by key.

        Raises:
            CorruptDataError, FormatVersionError, StateError: As `get`.
        """
        return self._read(lambda changes: changes.items(table, prefix), [])

    def check(self) -> None:
        """Read every value.

        Raises:
            CorruptDataError, FormatVersionError, StateError: As `get`; the first that is found.
        """
        self._read(Changes.check, None)

    def put(self, table: str, key: str, value: Any) -> None:
        """Write a value; None deletes it.

        Raises:
            StateWriteError: The disk refused.
            CorruptDataError, FormatVersionError, StateError: As `get`.
        """
        self.change(lambda changes: changes.put(table, key, value))

    def delete(self, table: str, key: str) -> bool:
        """Delete a value, and return whether there was one.

        Raises:
            StateWriteError, CorruptDataError, FormatVersionError, StateError: As `put`.
        """
        return self.change(lambda changes: changes.delete(table, key))

    def update(self, table: str, key: str, function: Update) -> Any:
        """Replace the value at a key by what `function` makes of it, in one step, and return that.

        Args:
            table: The table.
            key: The key.
            function: Takes the value (None if there is none) and returns the new one (None deletes it). It is called
                while nobody else can write, and may be called again: it must be quick and change nothing itself.

        Raises:
            StateWriteError, CorruptDataError, FormatVersionError, StateError: As `put`. What `function` raises comes
                through, and nothing is changed then.
        """

        def work(changes: Changes) -> Any:
            value = function(changes.get(table, key))
            changes.put(table, key, value)
            return value

        return self.change(work)

    def change(self, work: Callable[[Changes], R]) -> R:
        """Make several changes, all or none of them, and return what `work` does.

        Args:
            work: As `function` of `update`.

        Raises:
            StateWriteError, CorruptDataError, FormatVersionError, StateError: As `update`.
        """

        def attempt(txn: lmdb.Transaction) -> R:
            try:
                return work(Changes(environment, txn))
            except lmdb.Error:
                raise
            except Exception as error:
                raise _Raised(error) from error  # a ValueError of `work` says nothing of the file

        environment = self._acquire()
        try:
            with environment.lock:
                found: R = environment.write(attempt)
        except _Raised as raised:
            raise raised.error from None
        finally:
            release(environment)
        return found

    def pin(self, owner: str, trace_ids: Iterable[str]) -> None:
        """Have retention spare what holds these traces, and no others that `owner` pinned before.

        Args:
            owner: Who needs them; each has pins of its own.
            trace_ids: 32 hexadecimal digits each.

        Raises:
            ConfigurationError: One is no trace id.
            StateWriteError, CorruptDataError, FormatVersionError, StateError: As `put`.
        """
        wanted = list(trace_ids)
        self.change(lambda changes: changes.pin(owner, wanted))

    def unpin(self, owner: str) -> None:
        """Let go of what `owner` pinned.

        Raises:
            StateWriteError, CorruptDataError, FormatVersionError, StateError: As `put`.
        """
        self.pin(owner, ())

    def pinned(self) -> frozenset[str]:
        """Return the traces that somebody pinned.

        Raises:
            CorruptDataError, FormatVersionError, StateError: As `get`.
        """
        return frozenset(trace_id for _, trace_ids in self.items(_PINS) for trace_id in trace_ids)

    def _read(self, question: Callable[[Changes], R], nothing: R) -> R:
        """Answer a question in a reading transaction; with `nothing` where there is no state yet."""
        try:
            if not is_begun(self.path) and not self.path.is_file():
                return nothing
        except OSError as error:
            raise StateError(f"The state {self.path} can't be read ({error}); check the access rights.") from error
        environment = self._acquire()
        try:
            with environment.lock, environment.reading() as txn:
                return question(Changes(environment, txn))
        finally:
            release(environment)

    def _acquire(self) -> _Environment:
        is_readonly = self.path.is_dir() and not all(
            os.access(path, os.W_OK) for path in (self.path, self.path / DATA_FILE) if path.exists()
        )
        environment = acquire(self.path, lambda key: _Environment(key, _MAP_SIZE, "sync", is_readonly))
        try:
            environment.ensure_connected()  # one that was open while this process was forked is not
        except BaseException:
            release(environment)
            raise
        return environment


class Changes:
    """The tables as a change finds them, and what it makes of them; see the methods of `State`."""

    def __init__(self, environment: Environment, txn: lmdb.Transaction) -> None:
        self._path = environment.path
        self._txn = txn
        self._values = environment.database(_VALUES)

    def get(self, table: str, key: str) -> Any:
        """Return the value at a key; None if there is none."""
        found = self._txn.get(_stored_key(table, key), db=self._values)
        return None if found is None else self._unpacked(found)[1]

    def items(self, table: str, prefix: str = "") -> list[tuple[str, Any]]:
        """Return keys that begin with `prefix`, with their values, sorted by key."""
        beginning = _table_key(table) + _encoded(prefix)[:_LONGEST_KEY]
        found = []
        with self._txn.cursor(self._values) as cursor:
            if cursor.set_range(beginning):
                for stored, packed in cursor:
                    if not bytes(stored).startswith(beginning):
                        break
                    found.append(self._unpacked(packed))
        return sorted((item for item in found if item[0].startswith(prefix)), key=lambda item: item[0])

    def check(self) -> None:
        """Read every value."""
        with self._txn.cursor(self._values) as cursor:
            for _, packed in cursor:
                self._unpacked(packed)

    def put(self, table: str, key: str, value: Any) -> None:
        """Write a value; None deletes it."""
        if value is None:
            self.delete(table, key)
        else:
            packed = codec.pack_value([_VALUE_VERSION, key, value])
            self._txn.put(_stored_key(table, key), packed, db=self._values)

    def delete(self, table: str, key: str) -> bool:
        """Delete a value, and return whether there was one."""
        return bool(self._txn.delete(_stored_key(table, key), db=self._values))

    def pin(self, owner: str, trace_ids: Iterable[str]) -> None:
        """Have retention spare what holds these traces, and no others that `owner` pinned before."""
        wanted = sorted(set(trace_ids))
        for trace_id in wanted:
            if not is_trace_id(trace_id):
                raise ConfigurationError(f"{trace_id!r:.80} can't be pinned: a trace id has 32 hexadecimal digits.")
        self.put(_PINS, owner, wanted or None)

    def _unpacked(self, packed: bytes | memoryview) -> tuple[str, Any]:
        """Return the key and the value."""
        try:
            version, *rest = codec.unpack_value(bytes(packed))
            if version == _VALUE_VERSION:
                key, value = rest
                return str(key), value
        except (ValueError, TypeError, msgpack.UnpackException) as error:
            raise CorruptDataError(
                f"A value in the state {self._path} can't be decoded ({error}); run `debugstore doctor --repair`."
            ) from error
        raise FormatVersionError(
            f"A value in the state {self._path} has format version {version!r}, this otel-debugstore "
            f"knows up to {_VALUE_VERSION}: upgrade it (pip install -U otel-debugstore)."
        )


class _Environment(Environment):
    """The one LMDB environment of this process at a state's path."""

    noun = "state"
    instead = "take another data directory"
    version = 1
    databases = (_VALUES,)
    error = StateError
    write_error = StateWriteError


class _Raised(Exception):  # noqa: N818  carries one
    """What a change of the caller's raised."""

    def __init__(self, error: Exception) -> None:
        super().__init__(error)
        self.error = error


def is_trace_id(text: str) -> bool:
    """Return whether a text is a trace id as tables have it: 32 hexadecimal digits, small letters."""
    return _TRACE_ID.fullmatch(text) is not None


def _stored_key(table: str, key: str) -> bytes:
    encoded = _encoded(key)
    if len(encoded) > _LONGEST_KEY:
        encoded = encoded[:_LONGEST_KEY] + hashlib.sha256(encoded).digest()
    return _table_key(table) + encoded


def _table_key(table: str) -> bytes:
    if not _TABLE.fullmatch(table):
        raise ConfigurationError(f"{table!r:.80} can't be a table of the state: take small letters and '_'.")
    return table.encode() + b"\0"


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogatepass")
