"""The tests that decide about a candidate: which files they are, which stay as they are, and how they are run."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Final

from otel_debugstore_analysis.optimizer.scratch import Scratch, lies_apart
from otel_debugstore_analysis.processes import Outcome, command_of_tests, run_command

_FOLDERS: Final = ("test", "tests")
_FILES: Final = ("test*.py", "*_test.py", "tests.py", "conftest.py")
_SETTINGS: Final = (
    *("pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml", "tox.ini", "setup.cfg", "pyproject.toml"),
    *("noxfile.py", "Makefile", "makefile", "GNUmakefile", ".coveragerc"),
    *("sitecustomize.py", "usercustomize.py"),
)
_ENDS: Final = r"\s=:,;\"'()&|<>"
"""What ends a path within a word."""
_ADDOPTS: Final = "PYTEST_ADDOPTS"
_MAX_SAID: Final = 400


def decides(name: str, component: str | None, command: Sequence[str], project: Path) -> bool:
    """Return whether a file is one of those that decide about a candidate: of the tests, or of their settings.

    Args:
        name: The file by its path within the project.
        component: That of the component, which is not, nor are the folders that it lies in.
        command: What runs the tests: what it names is.
        project: Where the project lies.
    """
    if name == component:
        return False
    path = PurePosixPath(name)
    around = PurePosixPath(component or ".").parents
    folders = [parent for parent in path.parents if parent not in around]
    return (
        path.name in _SETTINGS
        or any(fnmatchcase(path.name, glob) for glob in _FILES)
        or any(folder.name in _FOLDERS for folder in folders)
        or any(place == path or place in folders for place in _named(command, project))
    )


def _named(command: Sequence[str], project: Path) -> Iterator[PurePosixPath]:
    """Yield the files, folders and modules of a project that a command may name."""
    for place, word in enumerate(_words(command)):
        value = word.partition("=")[2]
        is_option = word.startswith("-")
        text = (value if is_option else word).partition("::")[0]
        within = _within(text, project) if text.startswith("/") else None
        path = PurePosixPath(os.path.normpath(text) if within is None else within)
        is_program = place == 0 and "/" not in text
        if not text or is_program or (is_option and not path.suffix):  # an option names packages too: --cov=package
            continue
        yield path
        module = text.replace(".", "/")
        yield from (PurePosixPath(module), PurePosixPath(f"{module}.py"))


def _words(command: Sequence[str]) -> Iterator[str]:
    """Yield the words of a command, and those within one that is a command itself, as of `bash -c`."""
    for word in command:
        try:
            yield from shlex.split(word)
        except ValueError:  # a quote that is not closed
            yield word


def command_in_copy(command: Sequence[str], scratch: Scratch) -> tuple[str, ...]:
    """Return the command that runs the tests of a copy of a project.

    What it names of the project by absolute paths is named in the copy: the project's own tests would import the
    project's own code, whatever a candidate changes. What is not in the copy, such as what git ignores, stays where it
    is. A program without a path is the one beside this Python (`command_of_tests`).
    """
    return tuple(command_of_tests([_in_copy(word, scratch) for word in command]))


def _in_copy(text: str, scratch: Scratch) -> str:
    def renamed(found: re.Match[str]) -> str:
        path = found[0].lstrip("/")
        slashes = found[0].removesuffix(path)[1:]  # of a URL
        within = _within(f"/{path}", scratch.project)
        if within is None or lies_apart(scratch.project / within, scratch.project):
            return found[0]
        copied = scratch.folder / within
        return f"{slashes}{copied}" if copied.exists() or not (scratch.project / within).exists() else found[0]

    begins = rf"(?:^|(?<=[{_ENDS}@])|(?<=^-\w))"
    project = re.escape(str(scratch.project))
    return re.sub(rf"{begins}/*(?:{project}(?![^/{_ENDS}])|/)[^{_ENDS}]*", renamed, text)


def _within(absolute: str, project: Path) -> Path | None:
    """Return the path within a project of what an absolute one names; None if that is none of the project's."""
    for path in (Path(os.path.normpath(absolute)), Path(absolute).resolve()):
        if path.is_relative_to(project):
            return path.relative_to(project)
    return None


def run_tests(command: Sequence[str], scratch: Scratch, root: str, timeout_s: float) -> Outcome:
    """Run the tests in a copy of a project, with its modules.

    Args:
        command: What runs them.
        scratch: The copy.
        root: Where modules are imported from, by its path within the project.
        timeout_s: When they are ended.
    """
    outer = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [
        str(scratch.folder / root),
        str(scratch.folder),
        *(str(scratch.path_of(path) or path) for path in outer if path),
    ]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "_OTEL_"))}
    kept["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    if _ADDOPTS in kept:
        kept[_ADDOPTS] = _in_copy(kept[_ADDOPTS], scratch)
    return run_command(
        command_in_copy(command, scratch),
        cwd=scratch.folder,
        environment=kept,
        timeout_s=timeout_s,
    )


def said(outcome: Outcome) -> str:
    """Return how a command ended, with the last that it printed: of pytest, the last test that failed, and why."""
    printed = (outcome.stdout.text.strip() or outcome.stderr.text.strip()).splitlines()
    failed = next((line for line in reversed(printed) if line.startswith(("FAILED", "ERROR"))), "")
    exception = _exception(printed)
    name, _, message = failed.partition(" - ")
    if exception.startswith(message.removesuffix("...")):  # it is shortened, or lacks
        failed = " - ".join(filter(None, (name, exception)))
    last = failed or (printed[-1] if printed else "")
    return f"{outcome.cause} {last[:_MAX_SAID]}".strip()


def _exception(printed: Sequence[str]) -> str:
    """Return the first line of the last exception that pytest printed: of lines that begin with E, the outermost."""
    blocks = [list(lines) for is_error, lines in groupby(printed, lambda line: line.startswith("E  ")) if is_error]
    block = [line[1:] for line in blocks[-1] if line[1:].strip()] if blocks else []
    return min(block, key=lambda line: len(line) - len(line.lstrip()), default="").strip()
