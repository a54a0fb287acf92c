"""`commit_of`: the commit that a file's working tree is at, read from `.git` without running git.

Whether the file is as it was committed is not looked at.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

_MAX_PACKED_BYTES: Final = 8 << 20
_MAX_INDEX_BYTES: Final = 32 << 20
_MAX_FILE_BYTES: Final = 4096
_MAX_LINKS: Final = 5
_MAX_PARENTS: Final = 64
_HEX: Final = frozenset("0123456789abcdef")
_PACKED_PATHS: Final = 4
"""The index format from which on paths are not written out."""


def commit_of(path: str | os.PathLike[str]) -> str | None:
    """Return the commit that is checked out where a file lies, if git knows the file.

    Returns:
        40 or 64 hex digits. None if there is no working tree, no commit yet, none that is kept in files (reftable),
        or if the file is not in the index: what is installed in a working tree is not part of it.
    """
    try:
        file = Path(path).absolute()
        for parent in file.parents[:_MAX_PARENTS]:
            git_dir = _git_dir(parent)
            if git_dir is not None:
                return _head(git_dir) if _is_tracked(git_dir, file.relative_to(parent).as_posix()) else None
    except (OSError, ValueError):
        return None
    return None


def _git_dir(folder: Path) -> Path | None:
    """Return where the repository of a folder is, if it is a working tree's root."""
    dot_git = folder / ".git"
    if dot_git.is_dir():
        return dot_git if (dot_git / "HEAD").exists() else None
    if not dot_git.is_file():
        return None
    target = _read(dot_git).removeprefix("gitdir:").strip()  # a worktree or a submodule
    return folder / target if target else None


def _is_tracked(git_dir: Path, name: str) -> bool:
    """Return whether the index has a file; True too where it can't be told."""
    try:
        with (git_dir / "index").open("rb") as file:
            index = file.read(_MAX_INDEX_BYTES)
    except FileNotFoundError:
        return False
    if int.from_bytes(index[4:8], "big") >= _PACKED_PATHS:
        return True
    path = os.fsencode(name)
    place = index.find(path + b"\0")
    while place >= 0:  # the length stands before the path, or else this is the end of a longer one
        length = int.from_bytes(index[place - 2 : place], "big") & 0xFFF
        extended = int.from_bytes(index[place - 4 : place - 2], "big") & 0xFFF
        if min(len(path), 0xFFF) in (length, extended):
            return True
        place = index.find(path + b"\0", place + 1)
    return False


def _head(git_dir: Path) -> str | None:
    common_dir = git_dir
    if (git_dir / "commondir").exists():
        common_dir = git_dir / _read(git_dir / "commondir").strip()
    text = _read(git_dir / "HEAD").strip()
    for _ in range(_MAX_LINKS):
        if not text.startswith("ref:"):
            return text if len(text) in (40, 64) and _HEX.issuperset(text) else None
        name = text.removeprefix("ref:").strip()
        if name.startswith("/") or ".." in name.split("/"):
            return None
        text = _loose(git_dir, name) or _loose(common_dir, name) or _packed(common_dir, name)
    return None


def _loose(git_dir: Path, name: str) -> str:
    try:
        return _read(git_dir / name).strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return ""


def _packed(git_dir: Path, name: str) -> str:
    try:
        with (git_dir / "packed-refs").open("rb") as file:
            content = file.read(_MAX_PACKED_BYTES).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
    return next((line.split(" ", 1)[0] for line in content.splitlines() if line.endswith(f" {name}")), "")


def _read(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
