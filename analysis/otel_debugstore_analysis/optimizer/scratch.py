"""`Scratch`: a copy of a project's files, in which candidates are tried; the project itself is never written to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from otel_debugstore_analysis.closing import Closing
from otel_debugstore_analysis.optimizer.protocol import OptimizerError
from otel_debugstore_analysis.processes import run_command

_LEFT_OUT: Final = frozenset(
    (
        ".git",
        ".hg",
        ".svn",
        "__pycache__",
        "node_modules",
        ".venv",
        "venv",
        ".tox",
        ".nox",
        ".mypy_cache",
        ".pytest_cache",
    )
)
_MAX_BYTES: Final = 1 << 30
_GIT_TIMEOUT_S: Final = 30.0


class Scratch(Closing):
    """A copy of a project; a context manager, at whose end it is gone.

    What git knows of, or would not ignore, is copied; where there is no git, all but caches, environments and
    `left_out`.

    Args:
        project: The project's directory.
        left_out: Directories that are not copied, such as that of the sessions.

    Raises:
        OptimizerError: It is too large, or can't be read.
    """

    def __init__(self, project: Path, left_out: tuple[Path, ...] = ()) -> None:
        self.project = project.resolve()
        self._left_out = tuple(path.resolve() for path in left_out)
        self._temporary = tempfile.TemporaryDirectory(prefix="debugstore-scratch-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name).resolve() / (self.project.name or "project")
        try:
            self._copy()
        except OSError as error:
            self.close()
            raise OptimizerError(
                f"{self.project} can't be copied ({error.strerror or error}: {error.filename})."
            ) from error
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Remove it."""
        self._temporary.cleanup()

    def path_of(self, file: str | os.PathLike[str]) -> Path | None:
        """Return where a file or directory of the project lies in the copy; None if it is none of the project's."""
        try:
            return self.folder / Path(file).resolve().relative_to(self.project)
        except ValueError:
            return None

    def apply(self, files: Mapping[str, str | None]) -> None:
        """Write changed files into the copy.

        Raises:
            OptimizerError: A path leads out of it.
        """
        write_files(self.folder, files)

    def changes(self) -> dict[str, str | None]:
        """Return the texts of files that are other than the project's by now, None where one is gone."""
        found: dict[str, str | None] = {}
        now = {path.relative_to(self.folder).as_posix() for path in _walked(self.folder, ())}
        for name in sorted(now | self._copied):
            copy, original = self.folder / name, self.project / name
            if not copy.is_file():
                found[name] = None
            elif not original.is_file() or copy.read_bytes() != original.read_bytes():
                try:
                    found[name] = copy.read_text(encoding="utf-8")
                except UnicodeDecodeError:
                    continue
        return found

    def _copy(self) -> None:
        self._copied: set[str] = set()
        total = 0
        for path in self._listed():
            name = path.relative_to(self.project)
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target, follow_symlinks=False)
            self._copied.add(name.as_posix())
            total += 0 if path.is_symlink() else path.stat().st_size
            if total > _MAX_BYTES:
                raise OptimizerError(
                    f"{self.project} has more than {_MAX_BYTES >> 30} GiB of files; name that of the code alone."
                )
        self.folder.mkdir(parents=True, exist_ok=True)

    def _listed(self) -> Iterator[Path]:
        listed = run_command(
            ["git", "-C", str(self.project), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            timeout_s=_GIT_TIMEOUT_S,
            max_output_bytes=64 << 20,
        )
        if not (listed.is_ok and listed.stdout.is_whole and listed.stdout.head):
            yield from _walked(self.project, self._left_out)
            return
        for name in listed.stdout.head.split(b"\0"):
            path = self.project / os.fsdecode(name)
            if name and (path.is_file() or path.is_symlink()) and not _is_below(path, self._left_out):
                yield path


def write_files(folder: Path, files: Mapping[str, str | None]) -> None:
    """Write texts into files below a folder; where a text is None, remove the file.

    Raises:
        OptimizerError: A path leads out of the folder.
    """
    for name, text in files.items():
        path = folder / name
        if Path(name).is_absolute() or not path.resolve().is_relative_to(folder.resolve()):
            raise OptimizerError(f"{name} leads out of the project.")
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            has_crlf = path.is_file() and b"\r\n" in path.read_bytes()
            path.write_text(text, encoding="utf-8", newline="\r\n" if has_crlf else "\n")


def _walked(folder: Path, left_out: tuple[Path, ...]) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        kept = [name for name in folders if name not in _LEFT_OUT and not _is_below(Path(parent, name), left_out)]
        folders[:] = sorted(name for name in kept if not Path(parent, name, "pyvenv.cfg").exists())
        for name in sorted(names):
            path = Path(parent, name)
            if path.is_file() and not name.endswith(".pyc"):
                yield path


def _is_below(path: Path, folders: tuple[Path, ...]) -> bool:
    return any(path == folder or path.is_relative_to(folder) for folder in folders)
