"""`DuckDBSyncProcessor` seals while the program runs, in one process of a session, and only there."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from pathlib import Path

import duckdb
import pytest

from blobs import record
from instrumented import run_instrumented
from otel_debugstore.config import Settings
from otel_debugstore_exporters import sync
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.seal import seal_if_idle
from otel_debugstore_exporters.sealer import Sealer
from otel_debugstore_exporters.session import SessionPaths, list_sessions

RECORD = """
import os, sys, time
from opentelemetry import trace

tracer = trace.get_tracer("program")

def work(count):
    for number in range(count):
        with tracer.start_as_current_span("work", attributes={"number": number}):
            pass
"""


def _record(
    tmp_path: Path, body: str, segment_spans: int = 122_880
) -> tuple[subprocess.CompletedProcess[str], SessionPaths]:
    """Run a program in an empty folder, recording into another one."""
    program = tmp_path / "program.py"
    program.write_text(RECORD + body)
    base_path, folder = tmp_path / "sessions", tmp_path / "folder"
    base_path.mkdir()
    folder.mkdir()
    finished = run_instrumented(
        program, folder=folder, debugstore_path=base_path, debugstore_segment_spans=str(segment_spans)
    )
    (session_id,) = list_sessions(base_path)
    return finished, SessionPaths(base_path, session_id)


def _span_count(paths: SessionPaths) -> int:
    with SessionReader(paths.base_path, [paths.session_id]) as reader:
        return int(reader.query("SELECT count(*) FROM spans").rows[0][0])


def test_a_short_program_leaves_one_file_that_any_client_opens(tmp_path: Path) -> None:
    """What fits in a second is sealed at exit: the journal is empty, and plain DuckDB reads the spans."""
    _, paths = _record(tmp_path, "work(100)")
    with Journal.open(paths.journal) as journal:
        assert journal.stats().span_count == 0
    assert paths.segments() == [paths.main_segment]
    with duckdb.connect(str(paths.main_segment), read_only=True) as connection:
        sql = "SELECT count(*), max(attributes['number']::INTEGER) FROM spans"
        assert connection.execute(sql).fetchall() == [(100, 99)]


def test_a_running_program_is_sealed(tmp_path: Path) -> None:
    """When a segment's worth has come together, it is sealed before the program ends."""
    body = """
deadline = time.monotonic() + 30
while not any(name.endswith(".duckdb") for name in os.listdir(os.environ["OTEL_DEBUGSTORE_PATH"])):
    work(1000)
    time.sleep(0.2)
    assert time.monotonic() < deadline, "nothing was sealed"
os.kill(os.getpid(), 9)
"""
    finished, paths = _record(tmp_path, body, segment_spans=2000)
    assert finished.returncode == -9, finished.stderr
    assert paths.segments()
    assert _span_count(paths) >= 2000


def test_children_record_and_never_import_duckdb(tmp_path: Path) -> None:
    """A forked and a spawned child write to the parent's session; neither seals."""
    body = """
import multiprocessing

def child(queue):
    work(50)
    queue.put([name for name in ("duckdb", "nanoarrow", "pyarrow") if name in sys.modules])

if __name__ == "__main__":
    for method in ("fork", "spawn"):
        context = multiprocessing.get_context(method)
        queue = context.Queue()
        process = context.Process(target=child, args=(queue,))
        process.start()
        assert queue.get(timeout=60) == []
        process.join(60)
        assert process.exitcode == 0
    work(10)
"""
    finished, paths = _record(tmp_path, body)
    assert (finished.returncode, finished.stderr) == (0, "")
    assert _span_count(paths) == 110
    assert paths.segments() == [paths.main_segment]


def test_a_program_that_becomes_a_daemon(tmp_path: Path) -> None:
    """It is a child of the one that was elected, so nobody seals; nothing is lost, and who reads next seals."""
    body = """
work(50)
for _ in range(2):
    if os.fork():
        os._exit(0)
    os.setsid()
os.closerange(0, 256)
for _ in range(3):
    os.open(os.devnull, os.O_RDWR)
work(50)
"""
    finished, paths = _record(tmp_path, body)
    assert (finished.returncode, finished.stderr) == (0, "")
    deadline = time.monotonic() + 60
    while (paths.is_live() or _span_count(paths) < 100) and time.monotonic() < deadline:
        time.sleep(0.05)  # it marks the session as live when it writes: later than it lets go of the output
    assert _span_count(paths) == 100
    with Journal.open(paths.journal) as journal:
        assert journal.stats().span_count >= 50
    assert seal_if_idle(paths)
    with Journal.open(paths.journal) as journal:
        assert journal.stats().span_count == 0
    assert _span_count(paths) == 100


def test_the_program_sees_nothing_of_it(tmp_path: Path) -> None:
    """Output and exit status are the program's own, and no file appears where it runs."""
    finished, _ = _record(tmp_path, "work(3000)\nprint('out')\nprint('err', file=sys.stderr)\nsys.exit(3)")
    assert (finished.returncode, finished.stdout, finished.stderr) == (3, "out\n", "err\n")
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_disk_that_fails_once_does_not_end_sealing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it can't be said whether another process asks for it, the journal is looked at, and so again and again."""
    monkeypatch.setattr(sync, "_POLL_SECONDS", 0.01)
    paths = SessionPaths(tmp_path, "s")
    Journal.open(paths.journal).close()
    fails, stat = threading.Event(), Path.stat

    def failing(path: Path, **kwargs: bool) -> os.stat_result:
        if path == paths.seal_request and not fails.is_set():
            fails.set()
            raise OSError(errno.ESTALE, "Stale file handle", str(path))
        return stat(path, **kwargs)

    processor = sync.DuckDBSyncProcessor(paths, Settings(base_path=tmp_path), may_seal=True)
    try:
        deadline = time.monotonic() + 10
        while not processor._sealer.is_far and time.monotonic() < deadline:
            time.sleep(0.01)
        monkeypatch.setattr(Path, "stat", failing)
        assert fails.wait(10)
        time.sleep(0.1)
        assert processor._thread is not None
        assert processor._thread.is_alive()
    finally:
        processor.shutdown()


def test_the_journal_is_looked_at_less_often_while_a_segment_is_far_from_full(tmp_path: Path) -> None:
    """Far is what eight more looks would not fill, each of which finds as much more as the last one did."""
    paths = SessionPaths(tmp_path, "s")
    settings = Settings(base_path=tmp_path, segment_spans=1500)
    sealer = Sealer(paths, settings, is_cancelled=lambda: False, before_duckdb=lambda: None)

    def is_far() -> bool:
        sealer.seal_what_is_ready(is_busy=lambda: False, is_ending=lambda: False)
        return sealer.is_far

    record(paths, *range(10))  # 150: a blob of two spans weighs 15
    assert is_far()
    record(paths, *range(10, 22))  # 180 more: 8 times that is more than the 1170 that are missing
    assert not is_far()
    assert is_far()  # nothing came
