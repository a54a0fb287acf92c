"""`Scratch`: a copy of a project's files, in which candidates are tried; the project itself is never written to."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from otel_debugstore_analysis.closing import Closing
from otel_debugstore_analysis.optimizer.lines import exact_text, with_ends_of
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
    `left_out`. No link leads out of it: one that leaves the project is copied as what it leads to.

    Args:
        project: The project's directory.
        left_out: Directories that are not copied, such as that of the sessions.
        of: Another copy of the project: what that has is copied, and not what the project has by now.

    Raises:
        OptimizerError: It is too large, or can't be read.
    """

    def __init__(self, project: Path, left_out: tuple[Path, ...] = (), *, of: Scratch | None = None) -> None:
        self.project = project.resolve()
        self._left_out = tuple(path.resolve() for path in left_out)
        self._temporary = tempfile.TemporaryDirectory(prefix="debugstore-scratch-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name).resolve() / (self.project.name or "project")
        self._digests: dict[str, str] = {}
        self._bytes = 0
        try:
            if of is None:
                self._copy()
            else:
                shutil.copytree(of.folder, self.folder, symlinks=True)
                self._digests = of._digests
        except OSError as error:
            self.close()
            raise OptimizerError(f"{self.project} can't be copied ({error}).") from error
        except BaseException:
            self.close()
            raise

    def another(self) -> Scratch:
        """Return a copy of this copy: of the project as it was, whatever became of it since."""
        return Scratch(self.project, of=self)

    def close(self) -> None:
        """Remove it."""
        self._temporary.cleanup()

    def path_of(self, file: str | os.PathLike[str]) -> Path | None:
        """Return where a file or directory of the project lies in the copy; None if it is none of the project's."""
        try:
            return self.folder / Path(file).resolve().relative_to(self.project)
        except ValueError:
            return None

    def name_of(self, name: str) -> str:
        """Return the path within the project of what a name there stands for: a link stands for where it leads."""
        path = Path(os.path.realpath(self.folder / name))
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else name

    def apply(self, files: Mapping[str, str | None]) -> None:
        """Write changed files into the copy.

        Raises:
            OptimizerError: A path leads out of it.
        """
        write_files(self.folder, files)

    def changes(self) -> dict[str, str | None]:
        """Return the texts of files that are other than when they were copied, None where one is gone."""
        found: dict[str, str | None] = {}
        files = [path for path in _walked(self.folder, ()) if path.is_file() and not path.is_symlink()]
        for name in sorted(self._digests.keys() | {path.relative_to(self.folder).as_posix() for path in files}):
            path = self.folder / name
            if not path.is_file():
                found[name] = None
            elif self._digests.get(name) != _digest(path):
                try:
                    found[name] = path.read_text(encoding="utf-8")
                except UnicodeDecodeError:
                    continue
        return found

    def _copy(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        links = []
        for path in self._listed():
            if path.is_symlink():
                links.append(path)
            else:
                self._take(path, path.relative_to(self.project))
        for path in links:
            self._link(path)

    def _take(self, path: Path, name: Path) -> None:
        """Copy a file, under a name within the project."""
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        self._digests[name.as_posix()] = _digest(target)
        self._bytes += target.stat().st_size
        if self._bytes > _MAX_BYTES:
            raise OptimizerError(
                f"{self.project} has more than {_MAX_BYTES >> 30} GiB of files, what its links lead to included; name "
                "the directory of the code alone."
            )

    def _link(self, path: Path) -> None:
        """Have a link within the copy for one within the project, and what it leads to for one that leaves it."""
        name, real = path.relative_to(self.project), Path(os.path.realpath(path))
        if not real.exists():
            return
        copied = self.path_of(real)
        if copied is not None:
            if copied.exists():
                target = self.folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(os.path.relpath(copied, target.parent))
        elif real.is_file():
            self._take(real, name)
        elif real.is_dir() and not self.project.is_relative_to(real):
            for each in _walked(real, self._left_out):
                if each.is_file():
                    self._take(each, name / each.relative_to(real))

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


def lies_apart(path: Path, project: Path) -> bool:
    """Return whether a path within a project is none of its own files, but of an environment or the like."""
    around = [path, *path.parents]
    return any(
        each.name in _LEFT_OUT or (each / "pyvenv.cfg").exists() for each in around[: -len((project / "x").parents)]
    )


def write_files(folder: Path, files: Mapping[str, str | None]) -> None:
    """Write texts into files below a folder, with the ends of lines that they have; where one is None, remove the file.

    Raises:
        OptimizerError: A path leads out of the folder.
    """
    for name in files:
        if Path(name).is_absolute() or not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise OptimizerError(f"{name} leads out of the project.")
    for name, text in files.items():
        path = folder / name
        if text is None:
            path.unlink(missing_ok=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(with_ends_of(text, exact_text(path)), encoding="utf-8", newline="")


def _walked(folder: Path, left_out: tuple[Path, ...]) -> Iterator[Path]:
    """Yield the files below a folder, and the links to folders, which are not followed."""
    for parent, folders, names in os.walk(folder):
        kept = [name for name in folders if name not in _LEFT_OUT and not _is_below(Path(parent, name), left_out)]
        folders[:] = sorted(name for name in kept if not Path(parent, name, "pyvenv.cfg").exists())
        names += [name for name in folders if Path(parent, name).is_symlink()]
        for name in sorted(names):
            path = Path(parent, name)
            if (path.is_file() or path.is_symlink()) and not name.endswith(".pyc"):
                yield path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_below(path: Path, folders: tuple[Path, ...]) -> bool:
    return any(path == folder or path.is_relative_to(folder) for folder in folders)
