"""Processes that measure, seen from the one that asks: started, asked with a limit of time, and ended with all they
left.

A worker has a session of its own, so nothing that it runs has the user's terminal. Another process watches over it,
as over a command (`processes.keeper`): on Linux it adopts what the worker leaves behind, and ends it by SIGKILL, also
when this process is gone. Elsewhere its group and its descendants are ended. And everywhere in Linux what carries its
mark in the environment is, in case that a function ended the process that watches.
"""

from __future__ import annotations

import contextlib
import functools
import json
import mmap
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from otel_debugstore_analysis.benchmark import _subjects, _worker
from otel_debugstore_analysis.benchmark._subjects import NOT_ITS_OWN, SIDES, STATE
from otel_debugstore_analysis.benchmark.model import Job

_MARK: Final = "_OTEL_DEBUGSTORE_BENCHMARK"
_POLL_S: Final = 0.25
_START_S: Final = 60.0
_END_S: Final = 15.0
_BOOT: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop(1)); "
    "from otel_debugstore_analysis.benchmark._worker import main; main()"
)


class WorkerFailedError(Exception):
    """A process that could not measure.

    Attributes:
        cause: One sentence.
        side: 0 for the baseline, 1 for the candidate, None where it is nobody's fault.
        case: The number of the input; None where it was none.
        is_wrong: Whether an output is wrong.
    """

    def __init__(self, cause: str, side: int | None = None, case: int | None = None, is_wrong: bool = False) -> None:
        super().__init__(cause)
        self.cause = cause
        self.side = side
        self.case = case
        self.is_wrong = is_wrong


class WorkerProcess:
    """A process that measures; a context manager, at whose end nothing of it is left.

    Args:
        job: What to measure.
        forked: Whether to fork this process; if not, an interpreter is started.
        timeout_s: How long a single call may take.
        environment: Further environment variables.
    """

    def __init__(
        self, job: Job, *, forked: bool, timeout_s: float, environment: Mapping[str, str] | None = None
    ) -> None:
        self._job = job
        self._timeout_s = timeout_s
        self._mark = uuid.uuid4().hex
        self._state_file = tempfile.TemporaryFile()  # noqa: SIM115  # closed in `end`
        self._state_file.truncate(mmap.PAGESIZE)
        self._state = mmap.mmap(self._state_file.fileno(), mmap.PAGESIZE)
        self._process: subprocess.Popen[bytes] | None = None
        requests, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        self._status, status = os.pipe()
        control, self._control = os.pipe()
        self._unread = b""
        self._said = b""
        try:
            start = self._fork if forked else self._start
            self._keeper = start((requests, answers, status, control), environment or {})
        finally:
            for descriptor in (requests, answers, status, control):
                os.close(descriptor)

    @property
    def pid(self) -> int:
        """The process that measures; 0 if it did not start."""
        return int(next(iter(self._heard(1)), b"0"))

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def ask(self, what: str, **arguments: Any) -> dict[str, Any]:
        """Return the answer to a request.

        Raises:
            WorkerFailedError: The functions could not be measured: they fail, are wrong, hang, or end the process.
        """
        nonce = uuid.uuid4().hex
        with contextlib.suppress(BrokenPipeError):  # it has ended, as the answer will say
            os.write(self._requests, json.dumps({"do": what, "nonce": nonce, **arguments}).encode() + b"\n")
        answer = _answer_to(nonce, self._line())
        failed = answer.get("failed")
        if failed is not None:
            raise WorkerFailedError(failed["cause"], failed["side"], failed["case"], failed["wrong"])
        return answer

    def end(self) -> None:
        """End the process, and whatever it left running. Idempotent."""
        if self._state.closed:
            return
        self._kill()
        for descriptor in (self._requests, self._answers, self._status, self._control):
            os.close(descriptor)
        self._state.close()
        self._state_file.close()

    def _start(self, descriptors: tuple[int, int, int, int], environment: Mapping[str, str]) -> int:
        requests, answers, status, control = descriptors
        passed = (requests, answers, self._state_file.fileno(), status, control)
        paths = [os.path.abspath(path or ".") for path in sys.path]  # noqa: PTH100
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _BOOT, json.dumps(paths), *map(str, passed)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=self._job.cwd,
            env={**os.environ, "OTEL_SDK_DISABLED": "true", **environment, _MARK: self._mark},
            pass_fds=passed,
            start_new_session=True,
        )
        self._process = process
        data = pickle.dumps(self._job)
        with contextlib.suppress(BrokenPipeError):
            self._send(b"%16d" % len(data) + data)
        return process.pid

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(self._requests, view) :]

    def _fork(self, descriptors: tuple[int, int, int, int], environment: Mapping[str, str]) -> int:
        requests, answers, status, control = descriptors
        sys.stdout.flush()
        sys.stderr.flush()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads: what is in the child does not use what they may hold
            pid = os.fork()
        if pid == 0:
            try:
                os.setsid()
                os.environ.update(environment)
                os.environ[_MARK] = self._mark
                for descriptor in (self._requests, self._answers, self._status, self._control):
                    os.close(descriptor)
                if self._job.cwd is not None:
                    os.chdir(self._job.cwd)
                state = self._state_file.fileno()
                serve = functools.partial(_worker.serve, self._job, requests, answers, state)
                _worker.keep_serving(serve, status, control)
            finally:
                os._exit(0)
        return pid

    def _line(self) -> bytes:
        """Return the next line that it writes."""
        ticks, since = self._where()[0], time.monotonic()
        while b"\n" not in self._unread:
            if select.select([self._answers], [], [], min(_POLL_S, self._timeout_s))[0]:
                data = os.read(self._answers, 1 << 16)
                if not data:
                    raise self._has_ended()
                self._unread += data
            now = self._where()[0]
            if now != ticks:
                ticks, since = now, time.monotonic()
            elif time.monotonic() - since > self._limit_s():
                raise self._blamed(f"did not come to an end within {self._limit_s():g} s")
        line, _, self._unread = self._unread.partition(b"\n")
        return line

    def _where(self) -> tuple[int, int, int, int]:
        ticks, phase, side, case, *_ = STATE.unpack_from(self._state)
        return ticks, phase, side, case

    def _limit_s(self) -> float:
        """Return how long what it does now may take: a busy machine takes a while to start and to import."""
        return self._timeout_s if self._where()[1] == _subjects.CALL else max(self._timeout_s, _START_S)

    def _has_ended(self) -> WorkerFailedError:
        codes = self._heard(2, _END_S)[1:2]
        return self._blamed(f"ended its process ({_ending(int(codes[0]) if codes else None)})")

    def _heard(self, count: int, timeout_s: float = _START_S) -> list[bytes]:
        """Return the lines that the process which watches wrote, once there are so many: the process, how it ended."""
        until = time.monotonic() + timeout_s
        while self._said.count(b"\n") < count:
            if not select.select([self._status], [], [], max(until - time.monotonic(), 0.0))[0]:
                break
            data = os.read(self._status, 1 << 16)
            if not data:
                break
            self._said += data
        return self._said.split(b"\n")[:-1]

    def _blamed(self, what: str) -> WorkerFailedError:
        """Return what is wrong with the function that was running."""
        _, phase, side, case = self._where()
        if side not in range(len(SIDES)) or case not in range(max(len(self._job.cases), 1)):
            return WorkerFailedError(NOT_ITS_OWN)
        if phase == 0:
            return WorkerFailedError(f"The process that measures {what.replace('its process', 'before it began')}.")
        if phase == _subjects.SETUP:
            return WorkerFailedError(f"The setup or teardown {what}.")
        if phase == _subjects.INPUTS:
            label = self._job.cases[case].label
            return WorkerFailedError(f"Making the input of class {label!r} {what}.", None, case)
        if phase == _subjects.IMPORT:
            return WorkerFailedError(f"The {SIDES[side]} {what} while it was imported.", side)
        label = self._job.cases[case].label
        return WorkerFailedError(f"The {SIDES[side]} {what}, with an input of class {label!r}.", side, case)

    def _kill(self) -> None:
        if sys.platform != "linux":
            self._kill_known()
        _send(self._keeper, signal.SIGCONT)  # a function may have stopped it
        with contextlib.suppress(BrokenPipeError):  # it has ended
            os.write(self._control, b"\n")  # if it was closed, another process may have it open: a fork of this one
        self._heard(sys.maxsize, _END_S)  # until it has ended
        _send(self._keeper, signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        else:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._keeper, 0)
        for pid in _marked(self._mark):
            _send(pid, signal.SIGKILL)

    def _kill_known(self) -> None:
        """End its group and its descendants: here nobody adopts what it leaves behind."""
        import psutil

        with contextlib.suppress(psutil.Error):
            for child in psutil.Process(self._keeper).children(recursive=True):
                _send(child.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid := self.pid:
                os.killpg(pid, signal.SIGKILL)


def _answer_to(nonce: str, line: bytes) -> dict[str, Any]:
    """Return the answer that a line holds.

    Raises:
        WorkerFailedError: It holds none to what was asked: it was not the worker that wrote it.
    """
    answer: Any = None
    with contextlib.suppress(ValueError):
        answer = json.loads(line)
    if not isinstance(answer, dict) or answer.pop("nonce", None) != nonce:
        raise WorkerFailedError(NOT_ITS_OWN)
    return answer


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)


def _marked(mark: str) -> list[int]:
    """Return the processes that were started with this mark; where there is no /proc, none is found."""
    found = []
    with contextlib.suppress(OSError):
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark.encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
    return found


def _ending(code: int | None) -> str:
    if code is None:
        return "how is not known"
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:  # a real-time signal
        return f"signal {-code}"
