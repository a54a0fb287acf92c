"""`Running`: a command that was started, and all that it starts."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Final

from otel_debugstore_analysis.processes.outcome import Output
from otel_debugstore_analysis.processes.output import Kept
from otel_debugstore_analysis.processes.signals import SignalsHeld

MARK: Final = "_OTEL_DEBUGSTORE_COMMAND"
"""In the environment of a command: the marks of the commands that it is a part of, with colons between them."""
_KEEPER: Final = str(Path(__file__).with_name("keeper.py"))
_GRACE_S: Final = 2.0
_POLL_S: Final = 0.02
_DRAIN_S: Final = 1.0
_CHUNK: Final = 65_536
_MAX_KILLS: Final = 20
_KEEPER_S: Final = 15.0


class Running:
    """A command that was started."""

    def __init__(
        self,
        command: Sequence[str],
        cwd: str | os.PathLike[str] | None,
        environment: Mapping[str, str],
        stdin: bytes | None,
        mark: str,
        max_bytes: int,
    ) -> None:
        self._mark = mark
        self._pid: int | None = None
        self.return_code: int | None = None
        self.not_started: OSError | None = None
        self._said = b""
        self._is_watched = True
        self._status, status = os.pipe()
        control, self._control = os.pipe()
        try:
            self._keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", _KEEPER, str(status), str(control), *command],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=(status, control),
            )
        except BaseException:
            os.close(self._status)
            os.close(self._control)
            raise
        finally:
            os.close(status)
            os.close(control)
        self._input = memoryview(stdin or b"")
        self._selector = selectors.DefaultSelector()
        self._kept: list[Kept] = []
        self._selector.register(self._status, selectors.EVENT_READ, self._hear)
        for stream in (self._keeper.stdout, self._keeper.stderr):
            assert stream is not None
            os.set_blocking(stream.fileno(), False)
            self._kept.append(kept := Kept(max_bytes))
            self._selector.register(stream, selectors.EVENT_READ, partial(self._read, stream, kept))
        if self._keeper.stdin is not None:
            os.set_blocking(self._keeper.stdin.fileno(), False)
            self._selector.register(self._keeper.stdin, selectors.EVENT_WRITE, partial(self._write, self._keeper.stdin))

    def wait(self, deadline: float, held: SignalsHeld) -> bool:
        """Feed and drain it until it has ended: True; or its time is up: False."""
        while True:
            held.check()
            if self._has_ended():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._move(min(left, _POLL_S))

    def end(self) -> int:
        """End it and whatever it has left behind, and return how many other processes there were."""
        self._keeper.send_signal(signal.SIGCONT)  # the command may have stopped it
        try:
            return len(self._end_all() - {self._pid})
        finally:
            with contextlib.suppress(BrokenPipeError):  # it has ended
                os.write(self._control, b"\n")  # if it was closed, another process may have it open: a fork of ours
            os.close(self._control)
            self._wait_for_keeper()
            self._drain()

    def _wait_for_keeper(self) -> None:
        """Wait until the keeper has ended what is left, and itself."""
        try:
            self._keeper.wait(_KEEPER_S)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()

    def _end_all(self) -> set[int]:
        ended: set[int] = set()
        for number in (signal.SIGTERM, *[signal.SIGKILL] * _MAX_KILLS):
            found = self._found()
            if not found and self._has_ended():
                break
            self._signal(found, number)
            ended |= found
            until = time.monotonic() + _GRACE_S
            while time.monotonic() < until and not (self._has_ended() and not any(map(_is_alive, found))):
                self._move(_POLL_S)
        return ended

    def _found(self) -> set[int]:
        """Return the processes of the command that run."""
        return {*_descendants(self._keeper.pid), *_marked(self._mark)} - {self._keeper.pid}

    def outputs(self) -> tuple[Output, Output]:
        """Return what it wrote to its two streams."""
        stdout, stderr = (kept.output() for kept in self._kept)
        return stdout, stderr

    def _has_ended(self) -> bool:
        return self.return_code is not None or self.not_started is not None or not self._is_watched

    def _move(self, timeout_s: float) -> None:
        """Read and write what can be, waiting so long at most until something can."""
        if not self._selector.get_map():
            time.sleep(timeout_s)
            return
        for key, _ in self._selector.select(timeout_s):
            key.data()

    def _hear(self) -> None:
        """Take in what the keeper says."""
        data = os.read(self._status, _CHUNK)
        if not data:
            self._is_watched = False
            self._selector.unregister(self._status)
        *lines, self._said = (self._said + data).split(b"\n")
        for line in lines:
            if line.startswith(b"!"):
                number = int(line[1:])
                self.not_started = OSError(number, os.strerror(number))
            elif self._pid is None:
                self._pid = int(line)
            else:
                self.return_code = int(line)

    def _read(self, stream: IO[bytes], kept: Kept) -> None:
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
        if self._keeper.stdin is not None and not self._keeper.stdin.closed:
            self._close(self._keeper.stdin)
        while self._selector.get_map() and time.monotonic() < deadline:
            self._move(_POLL_S)
        for stream in (self._keeper.stdout, self._keeper.stderr):
            if stream is not None and not stream.closed:
                self._close(stream)
        os.close(self._status)
        self._selector.close()

    def _signal(self, pids: set[int], number: int) -> None:
        group, was_sent = self._pid, False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # The number of a group whose leader was reaped may be another's by now.
            if group is not None and (self.return_code is None or sys.platform != "linux"):
                os.killpg(group, number)
                was_sent = True
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if not was_sent or os.getpgid(pid) != group:  # a second SIGTERM would end one that is ending well
                    os.kill(pid, number)


def _marked(mark: str) -> Iterator[int]:
    """Yield the processes with this mark that run."""
    import psutil

    for process in psutil.process_iter():
        try:
            if mark in process.environ().get(MARK, "") and process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid
        except (psutil.Error, OSError):  # it has ended, or is not ours
            continue


def _descendants(pid: int) -> list[int]:
    """Return the processes below one, those that it adopted among them, that run."""
    import psutil

    try:
        return [child.pid for child in psutil.Process(pid).children(recursive=True) if _is_alive(child.pid)]
    except psutil.Error:
        return []


def _is_alive(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
