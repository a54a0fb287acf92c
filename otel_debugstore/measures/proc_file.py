"""`ProcFile`: a file of /proc that is read again and again through one descriptor that is kept open.

Opening it each time would cost four times as much. The descriptor is no child's business (`O_CLOEXEC`), and it
is opened anew where the program closed it, or uses its number for something else: content that does not look as
it has to is not believed, and a number that is not ours any more is not closed.
Threads: any; no locks. Fork: the child's first read opens its own, because the parent's goes on to show the parent.
"""

from __future__ import annotations

import os
from typing import Final

from otel_debugstore.fork import reset_after_fork
from otel_debugstore.guard import swallow

NO_DESCRIPTOR: Final = -1
"""Reading from it fails, as from one that the program closed."""


class ProcFile:
    """A small file of /proc about this process, about the thread that made this object, or about a child."""

    __slots__ = ("__weakref__", "_identity", "_is_kept", "_is_missing", "_path", "_prefix", "_suffix", "descriptor")

    def __init__(self, path: str, prefix: bytes = b"", suffix: bytes = b"", is_kept: bool = True) -> None:
        """Open nothing yet.

        Args:
            path: The file.
            prefix: What its content begins with, if it is the right file.
            suffix: What it ends with.
            is_kept: Whether to keep the descriptor between reads.
        """
        self._path = path
        self._prefix = prefix
        self._suffix = suffix
        self._is_kept = is_kept
        self._is_missing = False
        self._identity = (0, 0)
        self.descriptor = NO_DESCRIPTOR
        """For an `os.pread` in a hurry; who does that has to check the content, and to call `read` if it is wrong."""
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Let go of the parent's descriptor."""
        self.close()
        self._is_missing = False

    def read(self, size: int) -> bytes | None:
        """Return at most `size` bytes of it, or None if it can't be had."""
        if self.descriptor != NO_DESCRIPTOR:
            content = self._pread(size)
            if content is not None:
                return content
        return None if self._is_missing else self._open_and_read(size)

    def close(self) -> None:
        """Close the descriptor, unless its number is the program's by now. A later `read` opens it again."""
        descriptor, self.descriptor = self.descriptor, NO_DESCRIPTOR
        if descriptor == NO_DESCRIPTOR:
            return
        try:
            if _identity(descriptor) == self._identity:
                os.close(descriptor)
        except OSError as error:  # the program closed it
            swallow(error)

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # noqa: BLE001  # the interpreter ends, and `os` is gone
            return

    def _open_and_read(self, size: int) -> bytes | None:
        self.close()
        try:
            self.descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            self._identity = _identity(self.descriptor)
        except (FileNotFoundError, PermissionError, NotADirectoryError):
            self._is_missing = True
            return None
        except OSError as error:  # no descriptor to be had now
            swallow(error)
            return None
        content = self._pread(size)
        self._is_missing = content is None  # it may be opened and not read, or says something else
        if not self._is_kept:
            self.close()
        return content

    def _pread(self, size: int) -> bytes | None:
        try:
            content = os.pread(self.descriptor, size, 0)
        except OSError as error:  # what it is about is gone, or the program closed it
            swallow(error)
            return None
        return content if content and content.startswith(self._prefix) and content.endswith(self._suffix) else None


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
