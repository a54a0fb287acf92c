"""Forks a process for each line of JSON on standard input: `{"role": ..., "acks": FILE, ...arguments}`.

Answers with its process id. The process says in FILE, a line each, what it has done; `write` says so
only after it is durable. When it has ended, FILE with `.status` appended holds its wait status.
With `die_at` it kills itself before the n-th thing it does to files (by any of `DEADLY`).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from otel_debugstore.errors import DebugStoreError
from otel_debugstore.masking import Masker
from otel_debugstore_exporters import archive, codec, importer, journal, merging, reader, scan, seal, segment, store
from otel_debugstore_exporters.batch import batch_from_records
from otel_debugstore_exporters.session import SessionPaths
from sessions import span
from state_roles import (  # noqa: F401  # roles
    audit_again,
    change_state,
    claim_all,
    fill_state,
    fork_while_changing,
    fork_while_state_is_locked,
    use_state,
)

DEADLY = {"os.link", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree", "os.utime", "test.sql", "test.commit"}

Say = Callable[[object], None]


def blob(writer: int, number: int, spans: int = 3, padding: int = 0) -> bytes:
    """Return a journal blob whose spans have names that occur once: `writer-number-index`."""
    attributes = {"padding": os.urandom(padding)} if padding else {}
    records = [
        span(number * 100 + i + 1, f"{writer}-{number}-{i}", trace=writer + 1, attributes=attributes)
        for i in range(spans)
    ]
    return codec.encode(batch_from_records(records, os.getpid()), time.time_ns())


def write(
    say: Say, paths: SessionPaths, writer: int, count: int = 1 << 30, pause: float = 0.002, **limits: Any
) -> None:
    """Append blobs; say the number of each once it is durable."""
    with journal.Journal.open(paths.journal, **limits) as opened:
        for number in range(count):
            opened.append([blob(writer, number)])
            say(f"{writer}-{number}")
            time.sleep(pause)


def write_records(say: Say, paths: SessionPaths, writer: int, count: int = 1 << 30, auto_sync: bool = False) -> None:
    """Write records through a `DebugStore`, three a flush."""
    with store.DebugStore(paths.session_id, paths.base_path, auto_sync=auto_sync) as opened:
        for number in range(count):
            for index in range(3):
                opened.write_record("tool", f"{writer}-{number}", f"{writer}-{number}-{index}", duration_ms=1.0)
            opened.flush()
            say(f"{writer}-{number}")


def name_segment(say: Say, paths: SessionPaths) -> None:
    """Say what a segment would be called while this process writes it."""
    say(paths.temporary_segment("0123456789abcdef"))


def seal_session(say: Say, paths: SessionPaths, segment_spans: int = 120, once: bool = False) -> None:
    """Seal whenever there is something to seal: a few segments at a time, of at least so many spans."""
    for _ in _rounds(once):
        with paths.lock("seal", timeout_seconds=10) as mine, journal.Journal.open(paths.journal) as opened:
            if mine:
                # A segment takes its time however small it is, and writers don't wait: with small ones alone
                # each sealing has more to do than the one before, on a slow machine without end.
                spans = max(segment_spans, opened.stats().span_count // 4)
                say(len(seal.seal(paths, opened, segment_spans=spans)))


def merge_session(say: Say, paths: SessionPaths, once: bool = False) -> None:
    """Merge whenever there are two segments."""
    for _ in _rounds(once):
        with paths.lock("merge", timeout_seconds=10) as mine:
            if mine:
                say(len(merging.merge(paths)))


def import_one_by_one(say: Say, paths: SessionPaths, files: list[str]) -> None:
    """Import files; say the name of each once it is in."""
    for file in files:
        report = importer.import_files([file], paths)
        say(f"{Path(file).stem} {'skipped' if report.skipped else report.spans}")


def archive_session(say: Say, paths: SessionPaths) -> None:
    """Archive the session, and remove the rest of it."""
    archive.archive_session(paths, remove=True)
    say("archived")


def fix_secrets(say: Say, paths: SessionPaths) -> None:
    """Mask the secrets in the session."""
    say(f"masked {len(scan.fix(paths.base_path, [paths.session_id], Masker()))}")


def count_spans(say: Say, paths: SessionPaths) -> None:
    """Count the spans again and again, with one reader."""
    with reader.SessionReader(paths.base_path, [paths.session_id]) as opened:
        for _ in _rounds(once=False):
            found = opened.query("SELECT count(*), count(DISTINCT name) FROM spans").rows[0]
            say(f"{found[0]} {found[1]}")


def count_with_few_files(say: Say, paths: SessionPaths, files: int) -> None:
    """Count the spans of all sessions where only so many files may be open at first."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))
    with reader.SessionReader(paths.base_path) as opened:
        say(opened.query("SELECT count(*) FROM spans").rows[0][0])


def hold_reading_transaction(say: Say, paths: SessionPaths) -> None:
    """Begin to read the journal, and never end."""
    with journal.Journal.open(paths.journal) as opened, opened._open().reading():
        say("reading")
        signal.pause()


def stop_while_writing(say: Say, paths: SessionPaths) -> None:
    """Stop (SIGSTOP) in the middle of an append."""
    with journal.Journal.open(paths.journal) as opened:
        environment = opened._open()
        environment.settle()

        def stop(txn: Any) -> None:
            environment.put(txn, [blob(99, 0)], {})
            say("stopping")
            os.kill(os.getpid(), signal.SIGSTOP)

        environment.write(stop)
        say("99-0")


def use_journal(say: Say, paths: SessionPaths) -> None:
    """Do everything that can be done with a journal, and say how it went."""
    try:
        with journal.Journal.open(paths.journal) as opened:
            say(f"found {sum(1 for _ in opened.blobs())}")
            opened.stats()
            opened.drops()
            opened.append([blob(98, n, spans=40) for n in range(5)], {"queue_full": 1})
            opened.delete(0, 1 << 40)
            opened.append([blob(98, 9)])
            found = sum(1 for _ in opened.blobs())
            say(f"used, {found} left")
    except DebugStoreError as error:
        say(f"{type(error).__name__}: {error}")


def limit_file_size(say: Say, paths: SessionPaths, room: int) -> None:
    """Append until the file has grown by `room` bytes and the kernel refuses more; then again without limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with journal.Journal.open(paths.journal) as opened:
        size = opened.stats().file_bytes + room
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        _append_until_refused(say, opened, 0)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        opened.append([blob(1, 1)])
        say("1-1")


def fill_disk(say: Say, paths: SessionPaths, writer: int = 0, **limits: Any) -> None:
    """Append until the disk refuses."""
    try:
        opened = journal.Journal.open(paths.journal, **limits)
    except DebugStoreError as error:
        say(f"{type(error).__name__}: {error}")
        return
    with opened:
        _append_until_refused(say, opened, writer)


def limit_memory(say: Say, paths: SessionPaths, spare: int, **limits: Any) -> None:
    """Append until the address space, `spare` bytes beyond what is in use, does not let the map grow."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + spare
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))
    with journal.Journal.open(paths.journal, **limits) as opened:
        say(f"map {opened.stats().map_size}")
        _append_until_refused(say, opened, 0)
        say(f"blobs {opened.stats().blob_count}")


def fork_while_appending(say: Say, paths: SessionPaths, forks: int) -> None:
    """Append in a thread while forking; each child appends too, and ends by `sys.exit`."""
    opened = journal.Journal.open(paths.journal)
    done = threading.Event()

    def append() -> None:
        number = 0
        while not done.is_set():
            opened.append([blob(0, number)])
            say(f"0-{number}")
            opened.read(limit=2)
            number += 1

    thread = threading.Thread(target=append)
    thread.start()
    statuses = set()
    for number in range(forks):
        pid = os.fork()
        if not pid:
            opened.append([blob(1 + number, 0)])
            say(f"{1 + number}-0")
            if number % 2:
                opened.close()
            sys.exit(0)
        if number % 5 == 0:  # several at a time
            statuses.add(os.waitpid(pid, 0)[1])
    while True:
        try:
            statuses.add(os.wait()[1])
        except ChildProcessError:
            break
    done.set()
    thread.join()
    opened.append([blob(500, 0)])
    say("500-0")
    say(f"statuses {statuses}")


def fork_between_reads(say: Say, paths: SessionPaths) -> None:
    """Fork a child that is slow to let go of its copy of the journal; say whether reading meanwhile is protected."""
    parent, disconnect = os.getpid(), journal._Environment.disconnect

    def disconnect_late(self: Any) -> None:
        if os.getpid() != parent:
            time.sleep(0.2)
        disconnect(self)

    journal._Environment.disconnect = disconnect_late  # type: ignore[method-assign]
    with journal.Journal.open(paths.journal) as opened:
        environment = opened._open()
        with environment.lock, environment.reading():
            pass
        pid = os.fork()
        if not pid:
            sys.exit(0)
        with environment.lock, environment.reading():
            os.waitpid(pid, 0)
            say(str(parent) in environment.lmdb.readers())


def fork_while_locked(say: Say, paths: SessionPaths) -> None:
    """Fork while another thread is in a transaction for longer than a fork waits."""
    opened = journal.Journal.open(paths.journal)
    inside, leave = threading.Event(), threading.Event()

    environment = opened._open()

    def stay(_: Any) -> None:
        inside.set()
        leave.wait(20)

    def hold() -> None:
        with environment.lock:
            environment.write(stay)

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait()
    pid = os.fork()
    if not pid:
        try:
            opened.append([blob(1, 0)])
        except journal.JournalError as error:
            say(f"child: {type(error).__name__}")
        sys.exit(0)
    say(f"status {os.waitpid(pid, 0)[1]}")
    leave.set()
    thread.join()
    opened.append([blob(0, 0)])
    say("0-0")


def fork_with_store(say: Say, paths: SessionPaths) -> None:
    """Write records before and after forks, in parent and children, with an open query and without."""
    opened = store.DebugStore(paths.session_id, paths.base_path)
    opened.write_record("tool", "0", "0-0-0")
    for child in range(1, 4):
        opened.write_record("tool", "0", f"0-{child}-0")
        if child == 2:
            opened.get_stats()
        pid = os.fork()
        if not pid:
            opened.write_record("tool", "0", f"{child}-0-0")
            say(f"{child} sees {opened.query_analytics('SELECT count(*) AS n FROM spans')[0]['n']}")
            if child != 3:
                opened.close()
            else:
                time.sleep(2.5)  # its own thread flushes
            sys.exit(0)
        say(f"status {os.waitpid(pid, 0)[1]}")
    opened.write_record("tool", "0", "0-9-0")
    opened.close()


def fork_while_sealing(say: Say, paths: SessionPaths, forks: int) -> None:
    """Fork while the background thread of a `DebugStore` seals; children end by `sys.exit`."""
    from otel_debugstore_exporters import sync

    sync._POLL_SECONDS = 0.001  # type: ignore[misc]
    os.environ["OTEL_DEBUGSTORE_SEGMENT_SPANS"] = "30"
    statuses, number = set(), 0
    errors = paths.base_path / "stderr"
    opened = store.DebugStore(paths.session_id, paths.base_path)
    with journal.Journal.open(paths.journal) as appended:
        for _ in range(forks):
            for _ in range(12):
                appended.append([blob(0, number)])
                say(f"0-{number}")
                number += 1
            time.sleep(0.03)
            pid = os.fork()
            if not pid:
                os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
                sys.exit(0)
            statuses.add(os.waitpid(pid, 0)[1])
    opened.close()
    say(f"statuses {statuses} stderr {errors.stat().st_size}")


def read_sealed_by_user(say: Say, paths: SessionPaths) -> None:
    """Open the main segment for writing, as the DuckDB shell does, and keep it open."""
    import duckdb

    with duckdb.connect(str(paths.main_segment)):
        say("open")
        signal.pause()


def _append_until_refused(say: Say, opened: journal.Journal, writer: int) -> None:
    for number in range(100_000):
        try:
            opened.append([blob(writer, number, padding=10_000)])
        except journal.JournalWriteError as error:
            say(f"refused: {error}")
            return
        say(f"{writer}-{number}")


def _rounds(once: bool) -> Iterator[None]:
    yield
    while not once:
        time.sleep(0.005)
        yield


class _Connection:
    """A DuckDB connection that tells the audit hooks of every statement."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def execute(self, *arguments: Any) -> Any:
        sys.audit("test.sql")
        return self._connection.execute(*arguments)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def _die_at(number: int, say: Say) -> None:
    """Kill this process before the `number`-th deadly event; with 0 say at the end how many there were."""
    seen = 0

    def watch(event: str, _: Any) -> None:
        nonlocal seen
        if event in DEADLY:
            seen += 1
            if seen == number:
                os.kill(os.getpid(), signal.SIGKILL)

    real_connect, real_write = segment.connect, journal._Environment.write

    def write_audited(self: Any, work: Any) -> Any:
        sys.audit("test.commit")
        return real_write(self, work)

    def connect_audited(*arguments: Any, **named: Any) -> Any:
        return _Connection(real_connect(*arguments, **named))

    for module in (segment, seal, reader, archive, scan):
        module.connect = connect_audited  # type: ignore[attr-defined]
    journal._Environment.write = write_audited  # type: ignore[method-assign]
    sys.addaudithook(watch)
    if not number:
        import atexit

        atexit.register(lambda: say(f"events {seen}"))


def _run(role: str, acks: str, base_path: str, session: str = "s", die_at: int | None = None, **rest: Any) -> None:
    descriptor = os.open(acks, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(what: object) -> None:
        os.write(descriptor, f"{what}\n".encode())

    if die_at is not None:
        _die_at(die_at, say)
    try:
        globals()[role](say, SessionPaths(Path(base_path), session), **rest)
    except Exception as error:
        say(f"raised {type(error).__name__}: {error}")
        raise


def _reap(running: dict[int, str]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        path = Path(running.pop(pid) + ".status")
        path.with_suffix(".tmp").write_text(str(status))
        path.with_suffix(".tmp").rename(path)


def main() -> None:
    running: dict[int, str] = {}
    signal.signal(signal.SIGCHLD, lambda *_: _reap(running))
    for line in sys.stdin:
        order = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
        pid = os.fork()
        if not pid:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
            _run(**order)
            return
        running[pid] = order["acks"]
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        print(pid, flush=True)


if __name__ == "__main__":
    main()
