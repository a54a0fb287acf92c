"""Where a session's files lie, and which sessions there are.

{base_path}/{session_id}.lmdb/            the journal, and the locks
{base_path}/{session_id}.duckdb           the first segment
{base_path}/{session_id}+{id}.duckdb      further segments ('+' can't be in a session id)
{base_path}/{session_id}.archive/         Parquet files, when the session was archived
{base_path}/.{session_id}+{id}.{writer}.tmp   a segment being written
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from otel_debugstore.errors import InvalidSessionIdError, SessionNotFoundError
from otel_debugstore.session_id import check_session_id
from otel_debugstore_exporters.descriptors import file_behind, no_standard_descriptors
from otel_debugstore_exporters.writer_name import has_ended, writer_name

DEFAULT_BASE_PATH: Final = "debug_data"
LIVE_LOCK: Final = "live.lock"
JOURNAL_SUFFIX: Final = ".lmdb"
SEGMENT_SUFFIX: Final = ".duckdb"
ARCHIVE_SUFFIX: Final = ".archive"
SET_ASIDE: Final = ".corrupt-"
"""Follows the name of what could not be read; the time does after it."""
_OLD_SECONDS: Final = 86_400.0
"""So long unchanged, what another machine or container was writing counts as left."""


Listing = tuple[tuple[str, int, int], ...]
"""Names, file numbers and times of segments and archive."""


@dataclass(frozen=True, slots=True)
class SessionPaths:
    """The files of one session.

    Raises:
        InvalidSessionIdError: `session_id` can't be one.
    """

    base_path: Path
    session_id: str

    def __post_init__(self) -> None:
        check_session_id(self.session_id)

    @property
    def journal(self) -> Path:
        return self.base_path / f"{self.session_id}{JOURNAL_SUFFIX}"

    @property
    def main_segment(self) -> Path:
        return self.base_path / f"{self.session_id}{SEGMENT_SUFFIX}"

    @property
    def seal_request(self) -> Path:
        """A file that asks the process which is elected to seal now."""
        return self.journal / "seal.request"

    @property
    def archive(self) -> Path:
        return self.base_path / f"{self.session_id}{ARCHIVE_SUFFIX}"

    def further_segment(self, segment_id: str) -> Path:
        return self.base_path / f"{self.session_id}+{segment_id}{SEGMENT_SUFFIX}"

    def temporary_segment(self, segment_id: str) -> Path:
        return self.base_path / f".{self.session_id}+{segment_id}.{writer_name()}.tmp"

    def segments(self) -> list[Path]:
        """Return the segments that are there, the main one first."""
        return [
            self.base_path / name for name in _of_session(self.session_id, _names(self.base_path)) if _is_segment(name)
        ]

    def abandoned(self) -> list[Path]:
        """Return what writers of segments left that died, and what others elsewhere left alone for a day."""
        return [path for path in sorted(self.base_path.glob(f".{_literal(self.session_id)}+*.tmp*")) if _is_left(path)]

    def quarantined(self) -> list[Path]:
        """Return journals and segments that were set aside because they could not be read."""
        name = _literal(self.session_id)
        patterns = (f"{name}{JOURNAL_SUFFIX}", f"{name}{SEGMENT_SUFFIX}", f"{name}+*{SEGMENT_SUFFIX}")
        return sorted(path for pattern in patterns for path in self.base_path.glob(f"{pattern}{SET_ASIDE}*"))

    def is_live(self) -> bool:
        """Whether a process records into the session now."""
        try:
            descriptor = os.open(self.journal / LIVE_LOCK, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return not _flock(descriptor, time.monotonic())
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def not_live(self) -> Iterator[bool]:
        """Keep recorders out for a moment, so that the journal can be removed; yield False if there is one."""
        with self.lock("live") as nobody_else:
            yield nobody_else

    def listing(self) -> Listing:
        """Return names, file numbers and times of segments and archive: what changes when one of them does."""
        return _listing(self.base_path, _of_session(self.session_id, _names(self.base_path)))

    def exists(self) -> bool:
        return self.main_segment.exists() or self.journal.is_dir() or self.archive.is_dir() or bool(self.segments())

    def require(self) -> SessionPaths:
        """Return self if the session exists.

        Raises:
            SessionNotFoundError: It does not.
        """
        if self.exists():
            return self
        known = list_sessions(self.base_path)
        hint = f"there are: {', '.join(known[-5:])}" if known else "there is none; record one first"
        raise SessionNotFoundError(
            f"No session {self.session_id!r} below {self.base_path} ({hint}). See `debugstore sessions`."
        )

    def size_bytes(self) -> int:
        """Return what the session takes on disk."""
        return sum(map(allocated_bytes, (self.journal, self.archive, *self.segments())))

    @contextlib.contextmanager
    def lock(self, name: str, timeout_seconds: float = 0.0) -> Iterator[bool]:
        """Take the session's lock `name`, or yield False if another process keeps it.

        The kernel releases it when its holder dies.
        """
        held = self.hold(name, timeout_seconds)
        try:
            yield held is not None
        finally:
            if held is not None:
                held.release()

    def hold(self, name: str, timeout_seconds: float = 0.0) -> HeldLock | None:
        """Take the session's lock `name` until it is released; None if another process keeps it."""
        held = _open_lock(self.journal, name)
        try:
            if _flock(held.descriptor, time.monotonic() + timeout_seconds):
                return held
        except BaseException:
            held.release()
            raise
        held.release()
        return None


class HeldLock:
    """A lock of a session, held by an open file."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._file = file_behind(descriptor)

    def is_held(self) -> bool:
        """Return whether it is; a program that closes all descriptors lets go of ours, too."""
        return file_behind(self.descriptor) == self._file

    def release(self) -> None:
        """Let go of it, unless the program has a file of its own under the number now."""
        if self.is_held():
            os.close(self.descriptor)


def hold_live(journal: Path) -> HeldLock:
    """Mark a session as being recorded into, until the lock that is returned is released.

    Waits while somebody removes the journal.
    """
    held = _open_lock(journal, "live")
    try:
        fcntl.flock(held.descriptor, fcntl.LOCK_SH)
    except BaseException:
        held.release()
        raise
    return held


def _open_lock(journal: Path, name: str) -> HeldLock:
    journal.mkdir(parents=True, exist_ok=True)
    with no_standard_descriptors():
        return HeldLock(os.open(journal / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644))


def list_segments(base_path: Path, session_ids: Iterable[str]) -> dict[str, Listing]:
    """Return `SessionPaths.listing` of sessions; the folder is read once for all of them."""
    by_session: dict[str, list[str]] = {session_id: [] for session_id in session_ids}
    for name in _names(base_path):
        stem = name.removesuffix(SEGMENT_SUFFIX) if _is_segment(name) else name.removesuffix(ARCHIVE_SUFFIX)
        if stem != name and (names := by_session.get(stem.split("+", 1)[0])) is not None:
            names.append(name)
    return {s: _listing(base_path, _of_session(s, names)) for s, names in by_session.items()}


def _names(base_path: Path) -> list[str]:
    try:
        return [entry.name for entry in os.scandir(base_path)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_segment(name: str) -> bool:
    return name.endswith(SEGMENT_SUFFIX)


def _of_session(session_id: str, names: Iterable[str]) -> list[str]:
    """Return which of the names are segments of a session, the main one first, or its archive."""
    main, prefix, archive = session_id + SEGMENT_SUFFIX, session_id + "+", session_id + ARCHIVE_SUFFIX
    found = [n for n in names if n in (main, archive) or (n.startswith(prefix) and _is_segment(n))]
    return sorted(found, key=lambda name: (name == archive, name != main, name))


def _listing(base_path: Path, names: Iterable[str]) -> Listing:
    found: list[tuple[str, int, int]] = []
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            stat = (base_path / name).stat()
            found.append((name, stat.st_ino, stat.st_ctime_ns))
    return tuple(found)


def list_sessions(base_path: Path) -> list[str]:
    """Return the ids of the sessions below `base_path`, oldest first by the time of their files."""
    found: dict[str, float] = {}
    for path in base_path.glob("*") if base_path.is_dir() else ():
        session_id = _session_of(path.name)
        if session_id:
            with contextlib.suppress(OSError):
                found[session_id] = max(found.get(session_id, 0.0), _changed(path))
    return sorted(found, key=lambda session_id: (found[session_id], session_id))


def sessions_set_aside(base_path: Path) -> list[str]:
    """Return the ids of sessions of which something was set aside, whether or not there is anything else of them."""
    names = (name.rpartition(SET_ASIDE)[0] for name in _names(base_path))
    return sorted({session_id for name in names if (session_id := _session_of(name))})


def _session_of(name: str) -> str | None:
    for suffix in (JOURNAL_SUFFIX, SEGMENT_SUFFIX, ARCHIVE_SUFFIX):
        if name.endswith(suffix) and not name.startswith("."):
            session_id = name[: -len(suffix)].split("+", 1)[0]
            with contextlib.suppress(InvalidSessionIdError):  # a file of somebody else
                return check_session_id(session_id) if session_id else None
    return None


def _changed(path: Path) -> float:
    """When the data last changed; opening a journal to read it touches its lock file only."""
    data = path / "data.mdb"
    return (data if data.exists() else path).stat().st_mtime


def allocated_bytes(path: Path) -> int:
    """Return what a file, or the files in a folder, take on disk."""
    if path.is_dir():
        return sum(map(allocated_bytes, path.glob("*")))
    with contextlib.suppress(OSError):
        return path.stat().st_blocks * 512
    return 0


def _literal(session_id: str) -> str:
    """Session ids hold nothing that is special to glob; this says so where it matters."""
    return check_session_id(session_id)


def _is_left(path: Path) -> bool:
    """Whether nobody writes this unfinished segment any more."""
    ended = has_ended(path.name.rpartition(".tmp")[0].rpartition(".")[2])
    if ended is not None:
        return ended
    try:
        return path.stat().st_mtime < time.time() - _OLD_SECONDS
    except FileNotFoundError:
        return False


def _flock(descriptor: int, deadline: float) -> bool:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
        else:
            return True
