"""Runs `debugstore`: in this process, or as a user does in one of its own, on a terminal or into a pipe."""

from __future__ import annotations

import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path
from typing import Final

from click.testing import CliRunner, Result

from otel_debugstore_analysis.cli import main

DEBUGSTORE: Final = Path(sys.executable).with_name("debugstore")


def run(*arguments: str | Path, input: str | bytes | None = None) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=input)


def run_well(*arguments: str | Path, input: str | bytes | None = None) -> str:
    """Return what a command that succeeds prints on standard output."""
    result = run(*arguments, input=input)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*arguments: str | Path, input: str | bytes | None = None) -> str:
    """Return the one line that a command says which can't do its work; nothing is on standard output."""
    result = run(*arguments, input=input)
    assert (result.exit_code, result.stdout) == (2, ""), result.output
    assert result.stderr.startswith("debugstore: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def environment(**variables: str) -> dict[str, str]:
    """Return the environment without OpenTelemetry's settings, with some more variables."""
    return {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")} | variables


def start(*arguments: str | Path, stdout: int = subprocess.PIPE) -> subprocess.Popen[str]:
    """Start a command in a process of its own."""
    return subprocess.Popen(
        [str(DEBUGSTORE), *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def on_terminal(*arguments: str | Path, columns: int = 80) -> str:
    """Return what a command prints on a terminal of so many columns."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    terminal = environment(TERM="xterm-256color")
    for size in ("COLUMNS", "LINES", "NO_COLOR"):
        terminal.pop(size, None)
    command = [str(DEBUGSTORE), *map(str, arguments)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=terminal)
    os.close(theirs)
    printed = b""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if select.select([ours], [], [], 0.1)[0]:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # Linux's way to say that the other side is closed
                break
            if not chunk:
                break
            printed += chunk
    process.wait(10)
    os.close(ours)
    return printed.decode().replace("\r\n", "\n")
