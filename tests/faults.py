"""Processes that are killed, damaged files, and what must be true of a session whatever happened."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from otel_debugstore_exporters import doctor
from otel_debugstore_exporters.findings import Finding
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.merging import merge
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.seal import seal
from otel_debugstore_exporters.session import SessionPaths

_TESTS = Path(__file__).parent
PATIENCE_SECONDS = 60.0
SPANS_A_BLOB = 3


@dataclass
class Worker:
    """A process of `programs/workers.py`."""

    pid: int
    file: Path

    def said(self) -> list[str]:
        """What it said so far, in complete lines."""
        text = self.file.read_text() if self.file.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()

    def acknowledged(self) -> set[str]:
        """The blobs it said are durable."""
        return {word for word in self.said() if word.replace("-", "").isdecimal() and "-" in word}

    def wait_for(self, count: int = 1) -> Worker:
        """Wait until it said `count` things."""
        _wait(lambda: len(self.said()) >= count or self._has_ended(), self)
        return self

    def wait(self) -> int:
        """Wait until it ended, and return its status: 0, the signal that killed it, or 256 times its exit code."""
        _wait(self._has_ended, self)
        return int(self._status.read_text())

    def kill(self) -> None:
        """Kill it, whatever it does, and wait until it is gone."""
        if not self._has_ended():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        self.wait()

    @property
    def _status(self) -> Path:
        return self.file.with_name(self.file.name + ".status")

    def _has_ended(self) -> bool:
        return self._status.exists()


class Workers:
    """Starts processes quickly: a server that has imported everything forks them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers = itertools.count()
        self._started: list[Worker] = []
        self._server = subprocess.Popen(
            [sys.executable, _TESTS / "programs" / "workers.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(_TESTS), os.environ.get("PYTHONPATH", "")])},
        )

    def start(self, role: str, paths: SessionPaths, **arguments: Any) -> Worker:
        """Start a process that does `role`, a function of `programs/workers.py`."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        acks = self._folder / f"{next(self._numbers)}.acks"
        order = {"role": role, "acks": str(acks), "base_path": str(paths.base_path), "session": paths.session_id}
        self._server.stdin.write(json.dumps(order | arguments) + "\n")
        self._server.stdin.flush()
        worker = Worker(int(self._server.stdout.readline()), acks)
        self._started.append(worker)
        return worker

    def run(self, role: str, paths: SessionPaths, **arguments: Any) -> list[str]:
        """Have a process do `role`, check that no signal killed it, and return what it said."""
        worker = self.start(role, paths, **arguments)
        assert worker.wait() == 0, worker.said()[-3:]
        return worker.said()

    def kill_all(self) -> None:
        for worker in self._started:
            worker.kill()
        self._started.clear()

    def close(self) -> None:
        self.kill_all()
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(PATIENCE_SECONDS)
        self._server.stdout.close()


def stored_names(paths: SessionPaths) -> Counter[str]:
    """How often each span name is in the session, as a reader that is opened now finds it."""
    with SessionReader(paths.base_path, [paths.session_id]) as reader:
        return Counter(dict(reader.query("SELECT name, count(*) FROM spans GROUP BY name").rows))


def names_of(blobs: Iterable[str], spans: int = SPANS_A_BLOB) -> set[str]:
    """The names of the spans of blobs (`writer-number`)."""
    return {f"{blob}-{index}" for blob in blobs for index in range(spans)}


def assert_exactly_once(paths: SessionPaths, acknowledged: Iterable[str]) -> set[str]:
    """Check that acknowledged blobs are there, no blob in part, and nothing twice; return the names."""
    found = stored_names(paths)
    assert {name: count for name, count in found.items() if count != 1} == {}
    assert names_of(acknowledged) - set(found) == set()
    blobs = Counter(name.rpartition("-")[0] for name in found)
    assert {blob: count for blob, count in blobs.items() if count != SPANS_A_BLOB} == {}
    return set(found)


def problems(paths: SessionPaths) -> list[Finding]:
    """What the doctor finds wrong."""
    return [finding for finding in doctor.examine(paths.base_path, [paths.session_id]) if finding.severity == "problem"]


def seal_and_merge(paths: SessionPaths) -> None:
    """Seal and merge as the next reader that may write does, all of it."""
    with paths.lock("seal", timeout_seconds=PATIENCE_SECONDS) as mine, Journal.open(paths.journal) as journal:
        assert mine
        seal(paths, journal)
    with paths.lock("merge", timeout_seconds=PATIENCE_SECONDS) as mine:
        assert mine
        merge(paths)


def assert_sound(paths: SessionPaths, acknowledged: Iterable[str]) -> None:
    """Check that nothing was lost or doubled, now and after sealing, merging and repair."""
    acknowledged = set(acknowledged)
    found = assert_exactly_once(paths, acknowledged)
    assert problems(paths) == []
    doctor.repair(paths.base_path, [paths.session_id])
    assert doctor.examine(paths.base_path, [paths.session_id]) == []
    assert assert_exactly_once(paths, acknowledged) == found
    seal_and_merge(paths)
    assert assert_exactly_once(paths, acknowledged) == found
    assert len(paths.segments()) <= 1
    assert doctor.examine(paths.base_path, [paths.session_id]) == []


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Mount a small disk in memory.

    Raises:
        PermissionError: It may not be mounted here.
    """
    folder.mkdir()
    size = f"size={megabytes}m"
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True, check=False)
    if done.returncode:
        raise PermissionError(done.stderr.decode())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    """Change the options of a mounted disk, such as `ro`."""
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def _wait(is_done: Any, worker: Worker) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_done():
        assert time.monotonic() < deadline, f"{worker} said {worker.said()[-5:]}"
        time.sleep(0.002)
