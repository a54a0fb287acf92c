"""`run_command`: runs a command of the user's without a shell, and leaves nothing of it running.

The command gets a session of its own, without the terminal, and a mark in its environment, which the processes that it
starts inherit. When it has ended, or its time is up, or this process is stopped (Ctrl-C, SIGTERM, SIGHUP), all
processes of its group or with that mark are ended, too: SIGTERM, and SIGKILL for those that are still there a moment
later. Not found is a process that left the group and cleared its environment; and if this process is killed by SIGKILL,
nobody is left to end anything.

What it writes is read while it runs, so it never waits for us; of each stream the beginning and the end are kept.
Threads: any; the signals are seen in the main thread only, and only where the program has no handler of its own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import shlex
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, Any, Final, Literal

from otel_debugstore.errors import ConfigurationError

Status = Literal["ok", "failed", "timeout", "not_found", "killed"]

TIMEOUT_S: Final = 600.0
MAX_OUTPUT_BYTES: Final = 1_000_000
MARK: Final = "_OTEL_DEBUGSTORE_COMMAND"
"""In the environment of a command: the marks of the commands that it is a part of, with colons between them."""
_GRACE_S: Final = 2.0
_POLL_S: Final = 0.02
_DRAIN_S: Final = 1.0
_CHUNK: Final = 65_536
_MAX_KILLS: Final = 20
_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHELL_WORDS: Final = frozenset({"&&", "||", "|", ";", "&", ">", ">>", "<", "2>&1"})


@dataclass(frozen=True)
class Output:
    """What a command wrote to a stream.

    Attributes:
        head: The first bytes; all of them if none were left out.
        tail: The last bytes, if some were left out.
        left_out_bytes: How many bytes between them were not kept.
    """

    head: bytes = b""
    tail: bytes = b""
    left_out_bytes: int = 0

    @property
    def text(self) -> str:
        """The output as text, with a line that says how much was left out; what is no UTF-8 is replaced."""
        head, tail = (part.decode("utf-8", "replace") for part in (self.head, self.tail))
        return f"{head}\n[... {self.left_out_bytes:,} bytes left out ...]\n{tail}" if self.left_out_bytes else head

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out."""
        return not self.left_out_bytes


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        argv: The command.
        status: "ok" (exit code 0), "failed" (another), "timeout", "not_found" (it could not be started) or "killed"
            (by a signal that was not ours).
        cause: One sentence that says so, for a person.
        exit_code: None where there is none: it was not started, or a signal ended it.
        signal: The number of the signal that ended it, ours included; None where none did.
        seconds: How long it ran.
        stdout, stderr: What it wrote.
        left_running: How many processes it had left behind, or had when its time was up; all were ended.
    """

    argv: tuple[str, ...]
    status: Status
    cause: str
    exit_code: int | None = None
    signal: int | None = None
    seconds: float = 0.0
    stdout: Output = field(default_factory=Output)
    stderr: Output = field(default_factory=Output)
    left_running: int = 0

    @property
    def is_ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.status == "ok"


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
    with _SignalsHeld() as held:
        try:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env=environ,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return Outcome(command, "not_found", _why_not_started(command[0], cwd, error))
        running = _Running(process, mark, stdin or b"", max_output_bytes)
        try:
            has_ended = running.wait(began + timeout_s, held)
            seconds = time.monotonic() - began
        finally:
            left_running = running.end()
    code, number, status, cause = _ending(process.returncode, running.is_status_known)
    if not has_ended:
        status, cause = "timeout", f"It ran longer than {timeout_s:g} s, and was ended."
    stdout, stderr = running.outputs()
    return Outcome(command, status, cause, code, number, seconds, stdout, stderr, left_running)


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


class _Stopped(BaseException):
    """A signal that stops this process has come."""


class _SignalsHeld:
    """Has a signal that stops this process wait until the command was ended."""

    def __init__(self) -> None:
        self.caught: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> _SignalsHeld:
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                former = signal.getsignal(number)
                if former in (signal.SIG_DFL, signal.default_int_handler):
                    self._former[number] = former
                    signal.signal(number, self._catch)
        return self

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.caught = number

    def check(self) -> None:
        """Raise if one has come."""
        if self.caught is not None:
            raise _Stopped

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        if self.caught is not None:
            signal.raise_signal(self.caught)


class _Running:
    """A command that was started."""

    def __init__(self, process: subprocess.Popen[bytes], mark: str, stdin: bytes, max_bytes: int) -> None:
        self._process = process
        self._mark = mark
        self._input = memoryview(stdin)
        self._selector = selectors.DefaultSelector()
        self._kept: list[_Kept] = []
        self.is_status_known = True
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._kept.append(_Kept(max_bytes))
            self._selector.register(stream, selectors.EVENT_READ, self._kept[-1])
        if process.stdin is not None:
            os.set_blocking(process.stdin.fileno(), False)
            self._selector.register(process.stdin, selectors.EVENT_WRITE)

    def wait(self, deadline: float, held: _SignalsHeld) -> bool:
        """Feed and drain it until it has ended: True; or its time is up: False. It is not reaped yet."""
        while True:
            held.check()
            if self._has_ended():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._move(min(left, _POLL_S))

    def end(self) -> int:
        """End it and whatever it has left behind, reap it, and return how many other processes there were.

        It is reaped last: until then no other group can have its number.
        """
        try:
            return len(self._end_all() - {self._process.pid})
        finally:
            self._signal(set(), signal.SIGKILL)
            self._process.wait()
            self._drain()

    def _end_all(self) -> set[int]:
        ended: set[int] = set()
        for number in (signal.SIGTERM, *[signal.SIGKILL] * _MAX_KILLS):
            found = set(_marked(self._mark))
            if not found and self._has_ended():
                break
            self._signal(found, number)
            ended |= found
            until = time.monotonic() + _GRACE_S
            while time.monotonic() < until and not (self._has_ended() and not any(map(_is_alive, found))):
                self._move(_POLL_S)
        return ended

    def outputs(self) -> tuple[Output, Output]:
        """Return what it wrote to its two streams."""
        stdout, stderr = (kept.output() for kept in self._kept)
        return stdout, stderr

    def _has_ended(self) -> bool:
        if not hasattr(os, "waitid"):  # macOS, before Python 3.13: it can't be asked without being reaped
            return self._process.poll() is not None
        try:
            return os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:  # SIGCHLD is ignored here, or somebody waits for all children
            self.is_status_known = False
            return True

    def _move(self, timeout_s: float) -> None:
        """Read and write what can be, waiting so long at most until something can."""
        if not self._selector.get_map():
            time.sleep(timeout_s)
            return
        for key, _ in self._selector.select(timeout_s):
            stream: IO[bytes] = key.fileobj  # type: ignore[assignment]
            if key.data is None:
                self._write(stream)
            else:
                self._read(stream, key.data)

    def _read(self, stream: IO[bytes], kept: _Kept) -> None:
        try:
            data = os.read(stream.fileno(), _CHUNK)
        except BlockingIOError:
            return
        if data:
            kept.add(data)
        else:
            self._close(stream)

    def _write(self, stream: IO[bytes]) -> None:
        try:
            self._input = self._input[os.write(stream.fileno(), self._input[:_CHUNK]) :]
        except BlockingIOError:
            return
        except BrokenPipeError:  # it does not read to the end, which is its own affair
            self._input = self._input[:0]
        if not self._input:
            self._close(stream)

    def _close(self, stream: IO[bytes]) -> None:
        self._selector.unregister(stream)
        with contextlib.suppress(OSError):
            stream.close()

    def _drain(self) -> None:
        """Read what is left in the pipes, and close them."""
        deadline = time.monotonic() + _DRAIN_S
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._close(self._process.stdin)
        while self._selector.get_map() and time.monotonic() < deadline:
            self._move(_POLL_S)
        for key in list(self._selector.get_map().values()):
            self._close(key.fileobj)  # type: ignore[arg-type]
        self._selector.close()

    def _signal(self, pids: set[int], number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpgid(pid) != self._process.pid:  # a second SIGTERM would end one that is ending well
                    os.kill(pid, number)


class _Kept:
    """The beginning and the end of a stream."""

    def __init__(self, max_bytes: int) -> None:
        self._half = max(max_bytes // 2, 1)
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        """Take in what was read."""
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._half:
            self._trim()

    def _trim(self) -> None:
        over = max(len(self._tail) - self._half, 0)
        self._left_out += over
        del self._tail[:over]

    def output(self) -> Output:
        """Return what was kept."""
        self._trim()
        if self._left_out:
            return Output(bytes(self._head), bytes(self._tail), self._left_out)
        return Output(bytes(self._head + self._tail))


def _marked(mark: str) -> Iterator[int]:
    """Yield the processes with this mark that run."""
    import psutil

    for process in psutil.process_iter():
        try:
            if mark in process.environ().get(MARK, "") and process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid
        except (psutil.Error, OSError):  # it has ended, or is not ours
            continue


def _is_alive(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _ending(return_code: int, is_known: bool) -> tuple[int | None, int | None, Status, str]:
    """Return exit code, signal, status and cause of a command that was not ended by us."""
    if not is_known:
        return None, None, "failed", "How it ended is not known: SIGCHLD is ignored or handled in this process."
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
