"""The tests that decide about a candidate: which files they are, which stay as they are, and how they are run."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
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


def decides(name: str, component: str | None, command: Sequence[str]) -> bool:
    """Return whether a file is one of those that decide about a candidate: of the tests, or of their settings.

    Args:
        name: The file by its path within the project.
        component: That of the component, which is not, nor are the folders that it lies in.
        command: What runs the tests: what it names is.
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
        or any(place == path or place in folders for place in _named(command))
    )


def _named(command: Sequence[str]) -> Iterator[PurePosixPath]:
    """Yield the files, folders and modules that a command may name."""
    for place, word in enumerate(_words(command)):
        value = word.partition("=")[2]
        is_option = word.startswith("-")
        text = (value if is_option else word).partition("::")[0]
        path = PurePosixPath(os.path.normpath(text))
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


def command_in_copy(command: Sequence[str], project: Path) -> tuple[str, ...]:
    """Return the command that runs the tests of a copy of a project, in whose folder it is run.

    What it names of the project by absolute paths is named within the folder: the project's own tests would import the
    project's own code, whatever a candidate changes in the copy. A program without a path is the one beside this Python
    (`command_of_tests`).
    """
    return tuple(command_of_tests([_in_copy(word, project) for word in command]))


def _in_copy(text: str, project: Path) -> str:
    def relative(found: re.Match[str]) -> str:
        for path in (Path(os.path.normpath(found[0])), Path(found[0]).resolve()):
            if path.is_relative_to(project):
                return found[0] if lies_apart(path, project) else f"./{path.relative_to(project).as_posix()}"
        return found[0]

    begins = rf"(?:^|(?<=[{_ENDS}])|(?<=^-\w))"
    return re.sub(rf"{begins}(?:{re.escape(str(project))}(?![^/{_ENDS}])|/)[^{_ENDS}]*", relative, text)


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
        kept[_ADDOPTS] = _in_copy(kept[_ADDOPTS], scratch.project)
    return run_command(
        command,
        cwd=scratch.folder,
        environment=kept,
        timeout_s=timeout_s,
    )


def said(outcome: Outcome) -> str:
    """Return how a command ended, with the last that it printed."""
    printed = (outcome.stdout.text.strip() or outcome.stderr.text.strip()).splitlines()
    failed = next((line for line in reversed(printed) if line.startswith(("FAILED", "E  ", "ERROR"))), "")
    last = failed or (printed[-1] if printed else "")
    return f"{outcome.cause} {last[:_MAX_SAID]}".strip()
