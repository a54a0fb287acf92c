"""The files of a journal, before LMDB maps them: LMDB trusts what it maps, and a damaged file kills the process."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import sys
from pathlib import Path
from typing import Final

from otel_debugstore.errors import CorruptDataError

DATA_FILE: Final = "data.mdb"
MAX_READERS: Final = 254
_LOCK_FILE_BYTES: Final = 64 * (MAX_READERS + 2)
_CHECKED_BYTES: Final = 1 << 30
"""Larger files are not checked when they are opened: a check takes 0.4 s a GB."""
_ATTEMPTS: Final = 5
_LOCK_FILE: Final = "lock.mdb"
_MAGIC: Final = (0xBEEFC0DE).to_bytes(4, sys.byteorder)
_PAGE_NUMBER_PLACE: Final = slice(0, 8)  # of the first page: 0
_MAGIC_PLACE: Final = slice(16, 20)
_TRANSACTION_PLACE: Final = slice(144, 152)
_LEAK: Final = "a leak"
"""Pages that nothing reaches: they take space, and harm nobody."""


def is_begun(path: Path) -> bool:
    """Whether there is a journal at `path` that something may have been committed to."""
    data = path / DATA_FILE
    return data.exists() and data.stat().st_size > 0 and not _is_unfinished(data)


def refuse_damaged(path: Path, noun: str = "journal") -> None:
    """Raise `CorruptDataError` if the file of the journal, or what the message calls it, at `path` is damaged."""
    if is_begun(path) and (path / DATA_FILE).stat().st_size <= _CHECKED_BYTES and (why := damage(path)):
        raise CorruptDataError(f"The {noun} {path} is damaged ({why}); run `debugstore doctor --repair`.")


def forget_unfinished(path: Path) -> None:
    """Empty a file that the disk had no room for when it was begun: LMDB would never accept it again."""
    data = path / DATA_FILE
    if not data.exists() or not _is_unfinished(data):
        return
    with (path / _LOCK_FILE).open("r+b") as lock, contextlib.suppress(OSError):
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)  # LMDB's own: nobody has it open, nobody begins it
        if _is_unfinished(data):
            os.truncate(data, 0)


def _is_unfinished(data: Path) -> bool:
    """Whether it ends within the two pages that LMDB begins with, before anything was committed."""
    with data.open("rb") as file:
        head = file.read(2 * mmap.PAGESIZE)
    is_lmdb = not any(head[_PAGE_NUMBER_PLACE]) and head[_MAGIC_PLACE].startswith(_MAGIC[: len(head[_MAGIC_PLACE])])
    return 0 < len(head) < 2 * mmap.PAGESIZE and is_lmdb and not any(head[_TRANSACTION_PLACE])


def damage(path: Path) -> str | None:
    """Return what is wrong with the structure of the journal at `path`, None if nothing is.

    Sound while others write: LMDB never changes a page that the last commit reaches, and a commit changes
    one of the two first pages. So what was found counts only if these stayed the same meanwhile.

    Raises:
        OSError: It can't be read.
    """
    from lmdb import verify

    for _ in range(_ATTEMPTS):
        before = _head(path)
        try:
            found: list[str] = verify.verify(str(path))  # type: ignore[no-untyped-call]
        except verify.VerifyError as error:
            found = [str(error)]
        found = [problem for problem in found if _LEAK not in problem]
        found = [problem for problem in found if _LEAK not in problem]
        if not found:
            return None
        if _head(path) == before:
            return found[0]
    return None  # written all the time, by who has checked it


def check_length(path: Path, pages: int, page_size: int, noun: str = "journal") -> None:
    """Refuse a file cut short: LMDB would read past its end, which kills the process (SIGBUS)."""
    need, have = pages * page_size, (path / DATA_FILE).stat().st_size
    if have < need:
        raise CorruptDataError(
            f"The {noun} {path} is cut short ({have} of {need} bytes); run `debugstore doctor --repair`."
        )


def allocate_lock_file(path: Path) -> None:
    """Give the lock file its blocks first: LMDB maps it, and a hole on a full disk kills the process."""
    lock = path / _LOCK_FILE
    if lock.exists() and lock.stat().st_size >= _LOCK_FILE_BYTES:
        return
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, _LOCK_FILE_BYTES)
    finally:
        os.close(descriptor)


def _head(path: Path) -> bytes:
    with (path / DATA_FILE).open("rb") as file:
        return file.read(2 * mmap.PAGESIZE)
