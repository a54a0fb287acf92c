"""Command lines as words."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from otel_debugstore.errors import ConfigurationError

_SHELL_WORDS: Final = frozenset({"&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1"})


def split_command(command: str | Sequence[str]) -> list[str]:
    """Return the words of a command line, quoted as in a shell; a list of words stays what it is.

    Raises:
        ConfigurationError: It is empty, a quote is not closed, or it needs a shell.
    """
    if not isinstance(command, str):
        return list(command)
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigurationError(f"The command {command!r} can't be read: {error}.") from error
    if not words:
        raise ConfigurationError("The command is empty.")
    if not _SHELL_WORDS.isdisjoint(words):
        raise ConfigurationError(
            f"The command {command!r} needs a shell, and commands are run without one; write bash -c '...'."
        )
    return words


def command_of_tests(command: str | Sequence[str]) -> list[str]:
    """Return the words of a command that runs a project's tests, with the program that stands beside this Python.

    What the PATH has of that name, where no environment is activated, is a `pytest` that knows nothing of what is
    installed here. A program with a directory in its name, and one that is not there, stay what they are.

    Raises:
        ConfigurationError: As `split_command`.
    """
    words = split_command(command)
    if words and os.sep not in words[0]:
        beside = Path(sys.executable).parent / words[0]
        if os.access(beside, os.X_OK):
            return [str(beside), *words[1:]]
    return words
