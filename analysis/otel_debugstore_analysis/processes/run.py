"""`run_command`: see the package's first lines."""

from __future__ import annotations

import errno
import os
import signal
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.processes.outcome import Outcome, Status
from otel_debugstore_analysis.processes.running import MARK, Running
from otel_debugstore_analysis.processes.signals import SignalsHeld

TIMEOUT_S: Final = 600.0
MAX_OUTPUT_BYTES: Final = 1_000_000


def run_command(
    argv: Sequence[str | os.PathLike[str]],
    *,
    cwd: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    timeout_s: float = TIMEOUT_S,
    max_output_bytes: int = MAX_OUTPUT_BYTES,
) -> Outcome:
    """Run a command to its end, and return how it ended and what it wrote.

    Args:
        argv: The program, looked up on the PATH of its environment, and its arguments.
        cwd: The directory it runs in; by default ours.
        environment: All of its environment; by default ours.
        stdin: What it reads; by default nothing.
        timeout_s: When it is ended.
        max_output_bytes: How much is kept of each of its streams.

    Raises:
        ConfigurationError: There is no command, or it holds a zero byte; or the timeout is not above 0.
    """
    command = tuple(os.fspath(word) for word in argv)
    if not command or any("\0" in word for word in command):
        raise ConfigurationError(f"{list(command)!r} is no command: it takes a program's name, and no zero bytes.")
    if not timeout_s > 0:
        raise ConfigurationError(f"A command can't be given {timeout_s!r} seconds: it takes more than 0.")
    mark = uuid.uuid4().hex
    environ = dict(os.environ if environment is None else environment)
    environ[MARK] = ":".join(filter(None, (environ.get(MARK), mark)))
    began = time.monotonic()
    with SignalsHeld() as held:
        try:
            running = Running(command, cwd, environ, stdin, mark, max_output_bytes)
        except (OSError, ValueError) as error:
            return Outcome(command, "not_found", _why_not_started(command[0], cwd, error))
        try:
            has_ended = running.wait(began + timeout_s, held)
            seconds = time.monotonic() - began
        finally:
            left_running = running.end()
    if running.not_started is not None:
        return Outcome(command, "not_found", _why_not_started(command[0], cwd, running.not_started))
    code, number, status, cause = _ending(running.return_code)
    if not has_ended:
        status, cause = "timeout", f"It ran longer than {timeout_s:g} s, and was ended."
    stdout, stderr = running.outputs()
    return Outcome(command, status, cause, code, number, seconds, stdout, stderr, left_running)


def _ending(return_code: int | None) -> tuple[int | None, int | None, Status, str]:
    """Return exit code, signal, status and cause of a command that was not ended by us."""
    if return_code is None:
        return None, None, "failed", "How it ended is not known: it ended the process that watched it, too."
    if return_code >= 0:
        is_ok = return_code == 0
        return return_code, None, "ok" if is_ok else "failed", f"It ended with exit code {return_code}."
    number = -return_code
    why = ", as the kernel does when memory runs out" if number == signal.SIGKILL else ""
    return None, number, "killed", f"It was ended by {_name_of_signal(number)}{why}."


def _name_of_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def _why_not_started(program: str, cwd: str | os.PathLike[str] | None, error: Exception) -> str:
    if cwd is not None and not Path(cwd).is_dir():
        return f"It could not be started: there is no directory {os.fspath(cwd)}."
    if not isinstance(error, OSError):
        return f"It could not be started: {error}."
    if error.errno == errno.ENOENT:
        return f"It could not be started: there is no program {program}" + (
            "." if os.sep in program else " on the PATH; check its name, or give its whole path."
        )
    if error.errno == errno.EACCES:
        return f"It could not be started: {program} may not be executed (chmod +x makes a file a program)."
    return f"It could not be started: {program}: {error.strerror or error}."
