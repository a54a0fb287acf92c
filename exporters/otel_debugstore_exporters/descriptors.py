"""Files that a library holds open in a program that may close their descriptors, or has closed 0, 1 and 2.

A program that becomes a daemon closes every descriptor it finds, and opens its own files after that. LMDB would
then write into whatever has the number now. So the files behind the numbers are looked at before they are used.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

File = tuple[int, int]
"""A file by its device and inode."""

_LAST_STANDARD: Final = 2


class OpenFiles:
    """The descriptors that this process has on some files as of now (Linux; elsewhere none are found)."""

    def __init__(self, paths: Iterable[Path] = ()) -> None:
        files = {identity(path.stat()) for path in paths}
        self._files: dict[int, File] = {}
        if files:
            with contextlib.suppress(OSError):
                numbers = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
                self._files = {number: file for number in numbers if (file := file_behind(number)) in files}

    def are_intact(self) -> bool:
        """Return whether the program closed none of them."""
        return all(file_behind(number) == file for number, file in self._files.items())

    @contextlib.contextmanager
    def closing(self) -> Iterator[None]:
        """While the library closes its descriptors: put back what the program has under those it took over."""
        taken = [number for number, file in self._files.items() if file_behind(number) not in (None, file)]
        copies = [(number, os.dup(number), os.get_inheritable(number)) for number in taken]
        try:
            yield
        finally:
            for number, copy, is_inheritable in copies:
                os.dup2(copy, number, is_inheritable)
                os.close(copy)


@contextlib.contextmanager
def no_standard_descriptors() -> Iterator[None]:
    """Keep files from being opened as 0, 1 or 2 where the program closed these: it will put others there."""
    taken = []
    try:
        while (number := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= _LAST_STANDARD:
            taken.append(number)
        os.close(number)
        yield
    finally:
        for number in taken:
            os.close(number)


def identity(stat: os.stat_result) -> File:
    """Return which file a `stat` is of."""
    return stat.st_dev, stat.st_ino


def file_behind(descriptor: int) -> File | None:
    """Return which file a descriptor is open on; None if it is closed."""
    try:
        return identity(os.fstat(descriptor))
    except OSError:
        return None
