"""The journal: durable batches of many processes, through full disks, damaged files, forks and kills."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from faults import Workers, assert_exactly_once, assert_sound, names_of, remount, stored_names
from otel_debugstore.errors import CorruptDataError, FormatVersionError
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import batch_from_records
from otel_debugstore_exporters.journal import Journal, JournalError, JournalWriteError
from otel_debugstore_exporters.reader import SessionReader, open_to_read
from otel_debugstore_exporters.session import SessionPaths
from sessions import span


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "s")


def blob(number: int, spans: int = 1) -> bytes:
    return codec.encode(batch_from_records([span(number + i, f"0-{number}-{i}") for i in range(spans)], 1), 1)


def sequences(journal: Journal) -> list[int]:
    return [sequence for sequence, _ in journal.blobs()]


def raw(path: Path) -> lmdb.Environment:
    path.mkdir(parents=True, exist_ok=True)
    return lmdb.open(str(path), max_dbs=8, lib_version=0)


def test_blobs_come_back_in_order(paths: SessionPaths) -> None:
    """Sequences count up from 0, whoever appends, also after the journal was closed."""
    with Journal.open(paths.journal) as journal:
        journal.append([b"a", b"b"])
        journal.append([])
    with Journal.open(paths.journal) as journal, Journal.open(paths.journal) as another:
        another.append([b"c"])
        assert list(journal.blobs()) == [(0, b"a"), (1, b"b"), (2, b"c")]
        assert journal.read(after=0, limit=1) == [(1, b"b")]
        assert list(journal.blobs(after=2)) == []


def test_deleted_blobs_leave_no_gap_in_time(paths: SessionPaths) -> None:
    """Deleting any range, page by page, keeps the rest, the counts and the next sequence."""
    with Journal.open(paths.journal) as journal:
        journal.append([blob(number, spans=2) for number in range(10)])
        journal.delete(0, 3, page=2)
        journal.delete(8, 100)
        assert sequences(journal) == [4, 5, 6, 7]
        journal.append([blob(10)])
        assert sequences(journal)[-1] == 10
        stats = journal.stats()
        assert (stats.blob_count, stats.span_count, stats.first_seq, stats.next_seq) == (5, 9, 4, 11)
        journal.delete(0, 1 << 60)
        stats = journal.stats()
        assert (stats.blob_count, stats.span_count, stats.first_seq, stats.next_seq) == (0, 0, None, 11)


def test_drops_are_counted(paths: SessionPaths, workers: Workers) -> None:
    """Counters add up, by process and reason, and are there after its end."""
    with Journal.open(paths.journal) as journal:
        journal.append([], {"queue_full": 3})
        journal.append([blob(1)], {"queue_full": 4, "disk": 1})
    workers.run("use_journal", paths)
    with Journal.open(paths.journal) as journal:
        found = {(drop.pid == os.getpid(), drop.reason): drop.count for drop in journal.drops()}
        assert found == {(True, "queue_full"): 7, (True, "disk"): 1, (False, "queue_full"): 1}
        assert all(drop.first_ns <= drop.last_ns for drop in journal.drops())


def test_interval_durability(paths: SessionPaths) -> None:
    """What was appended without a sync is visible at once, and stays after one."""
    with Journal.open(paths.journal, durability="interval") as journal:
        journal.append([b"a"])
        assert sequences(journal) == [0]
        journal.sync()
    with Journal.open(paths.journal) as journal:
        assert sequences(journal) == [0]


def test_a_closed_journal_says_so(paths: SessionPaths) -> None:
    """Closing twice is fine; using it afterwards is an error that tells what to do."""
    journal = Journal.open(paths.journal)
    journal.close()
    journal.close()
    with pytest.raises(JournalError, match="open it again"):
        journal.append([b"a"])


def test_clock_stepping_back(paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Order is that of the appends, not that of the clock."""
    with Journal.open(paths.journal) as journal:
        for hour in (5, 3, 4, 1):
            monkeypatch.setattr("time.time_ns", lambda hour=hour: hour * 3600 * 10**9)
            journal.append([codec.encode(batch_from_records([span(hour, f"0-{hour}-0")], 1), hour)], {"disk": 1})
        assert [next(codec.decode(found).records()).name for _, found in journal.blobs()] == [
            f"0-{hour}-0" for hour in (5, 3, 4, 1)
        ]
        assert [drop.count for drop in journal.drops()] == [4]
    assert set(stored_names(paths)) == {f"0-{hour}-0" for hour in (5, 3, 4, 1)}


def test_four_processes_write_one_session(paths: SessionPaths, workers: Workers) -> None:
    """Each blob of each is there once, and the sequences have no gap."""
    writers = [workers.start("write", paths, writer=number, count=50, pause=0) for number in range(3)]
    writers.append(workers.start("write_records", paths, writer=3, count=50))
    assert [writer.wait() for writer in writers] == [0, 0, 0, 0]
    with Journal.open(paths.journal) as journal:
        assert sequences(journal) == list(range(200))
        assert journal.stats().span_count == 600
    assert_sound(paths, set.union(*(writer.acknowledged() for writer in writers)))


def test_the_map_grows(paths: SessionPaths, workers: Workers) -> None:
    """A small map grows as needed, and processes that have the journal open follow."""
    with Journal.open(paths.journal, map_size=1 << 20) as journal:
        journal.append([b"x" * 400_000] * 5)
        grown = journal.stats().map_size
        assert grown > 2_000_000
        writer = workers.start("fill_disk", paths, writer=7, map_size=grown).wait_for(200)
        workers.kill_all()
        assert len(list(journal.blobs())) >= 205
        journal.append([b"x" * 400_000] * 5)
        assert len(writer.acknowledged()) >= 200


@pytest.mark.slow
def test_a_limited_address_space(paths: SessionPaths, workers: Workers) -> None:
    """The map takes a small part of what there is; when it can't grow, an append fails and nothing else."""
    first, *rest = workers.run("limit_memory", paths, spare=48 << 20, durability="interval")
    assert int(first.split()[1]) <= 64 << 20
    *acknowledged, refused, blobs = rest
    assert "address space" in refused
    assert len(acknowledged) == int(blobs.split()[1]) > 100
    assert set(stored_names(paths)) == names_of(acknowledged)


def test_a_refused_write_loses_nothing(paths: SessionPaths, workers: Workers) -> None:
    """Where the kernel refuses (RLIMIT_FSIZE), the append says so, keeps the rest, and works again later."""
    said = workers.run("limit_file_size", paths, room=300_000)
    assert any(line.startswith("refused: The journal") for line in said)
    found = stored_names(paths)
    before = {blob for blob in said if blob.startswith("0-")}
    assert set(found) == names_of(before) | names_of({"1-1"})
    assert set(found.values()) == {1}


def test_a_full_disk(disk: Path, workers: Workers) -> None:
    """An append is refused, what was acknowledged stays, and when there is space it works again."""
    paths = SessionPaths(disk, "s")
    filler = disk / "filler"
    filler.write_bytes(bytes(4 << 20))
    said = workers.run("fill_disk", paths)
    assert said[-1].startswith("refused")
    with SessionReader(disk, ["s"]) as reader:
        assert reader.query("SELECT count(*) FROM spans").rows == [(3 * (len(said) - 1),)]
    filler.unlink()
    with Journal.open(paths.journal) as journal:
        journal.append([blob(5_000)])
    assert set(stored_names(paths)) == names_of(said[:-1]) | {"0-5000-0"}


@pytest.mark.parametrize("free_bytes", [0, 4096, 12_288, 20_480, 32_768])
def test_beginning_a_journal_on_a_full_disk(disk: Path, workers: Workers, free_bytes: int) -> None:
    """It is an error, or it works as far as the space goes; it never kills the process (SIGBUS)."""
    filler = disk / "filler"
    with filler.open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    os.truncate(filler, filler.stat().st_size - free_bytes)
    said = workers.run("fill_disk", SessionPaths(disk, "s"))
    assert said[-1].startswith(("refused", "JournalWriteError", "JournalError"))
    filler.unlink()
    with Journal.open(SessionPaths(disk, "s").journal) as journal:
        journal.append([blob(5_000)])
        assert len(sequences(journal)) == len(said)


def test_a_disk_that_can_not_be_written(disk: Path) -> None:
    """A journal, sealed spans and both are read; writing is refused."""
    paths = SessionPaths(disk, "s")
    with Journal.open(paths.journal) as journal:
        journal.append([blob(1, spans=2)])
    remount(disk, "ro")
    try:
        assert set(stored_names(paths)) == {"0-1-0", "0-1-1"}
        assert not paths.is_live()
        with open_to_read(paths.journal) as journal, pytest.raises(JournalWriteError):
            journal.append([blob(2)])
        with pytest.raises(JournalError):
            Journal.open(SessionPaths(disk, "another").journal)
    finally:
        remount(disk, "rw")


def test_a_version_from_the_future(paths: SessionPaths) -> None:
    """It is refused with what to do, and nothing is changed."""
    with Journal.open(paths.journal) as journal:
        journal.append([blob(1)])
    with raw(paths.journal) as environment, environment.begin(write=True) as txn:
        txn.put(b"version", b"7", db=environment.open_db(b"meta", txn))
    before = (paths.journal / "data.mdb").read_bytes()
    with pytest.raises(FormatVersionError, match="upgrade"):
        Journal.open(paths.journal)
    assert (paths.journal / "data.mdb").read_bytes() == before


def test_an_lmdb_file_of_another_program(paths: SessionPaths) -> None:
    """It is refused, and nothing is changed."""
    with raw(paths.journal) as environment, environment.begin(write=True) as txn:
        txn.put(b"theirs", b"value")
    before = (paths.journal / "data.mdb").read_bytes()
    with pytest.raises(CorruptDataError, match="not a journal"):
        Journal.open(paths.journal)
    assert (paths.journal / "data.mdb").read_bytes() == before


def _journal_with_blobs(paths: SessionPaths) -> bytes:
    """Make a journal that has free pages, several leaves and drops; return its file."""
    with Journal.open(paths.journal, durability="interval") as journal:
        for number in range(40):
            journal.append([blob(100 * number, spans=10), b"small"], {f"reason {number}": 1})
        journal.delete(0, 20)
    return (paths.journal / "data.mdb").read_bytes()


def _use_damaged(paths: SessionPaths, workers: Workers, content: bytes) -> str:
    shutil.rmtree(paths.journal)
    paths.journal.mkdir()
    (paths.journal / "data.mdb").write_bytes(content)
    return workers.run("use_journal", paths)[-1]


_CUTS: list[Callable[[bytes], bytes]] = [
    lambda good: good[:4096],
    lambda good: good[:8192],
    lambda good: good[:12_288],
    lambda good: good[: len(good) // 2],
    lambda good: good[:-4096],
    lambda good: random.Random(1).randbytes(len(good)),
    lambda good: b"SQLite format 3\0" + bytes(8176),
    lambda good: bytes(len(good)),
    lambda good: good[:16] + bytes(80) + good[96:],
    lambda good: good[:8192] + bytes(len(good) - 8192),
]


@pytest.mark.parametrize("number", range(len(_CUTS)))
def test_a_file_that_is_no_journal(paths: SessionPaths, workers: Workers, number: int) -> None:
    """Truncated and foreign files are refused with what to do; the process lives."""
    said = _use_damaged(paths, workers, _CUTS[number](_journal_with_blobs(paths)))
    assert said.startswith("CorruptDataError")
    assert "debugstore doctor --repair" in said or "choose another session" in said


@pytest.mark.parametrize("length", [0, 10, 100, 4096, 8191])
def test_an_unfinished_file_is_a_new_journal(paths: SessionPaths, workers: Workers, length: int) -> None:
    """A process that died, or had no space, while it made the journal left this."""
    with raw(paths.journal):
        empty = (paths.journal / "data.mdb").read_bytes()
    assert _use_damaged(paths, workers, empty[:length]) == "used, 1 left"


def _garble(good: bytes, seed: int) -> bytes:
    """Write random bytes at random places, whole pages now and then, or move pages."""
    some = random.Random(seed)
    found = bytearray(good)
    kind = seed % 4
    for _ in range(some.choice([1, 1, 3, 8])):
        garbage = some.randbytes(some.choice([1, 2, 8, 64])) if kind else some.randbytes(4096)
        place = some.randrange(8192 if kind == 1 else len(good))
        place = place // 4096 * 4096 if kind == 0 else place
        found[place : place + len(garbage)] = garbage
    if kind == 3:
        page, other = (some.randrange(len(good) // 4096) * 4096 for _ in range(2))
        found[page : page + 4096] = good[other : other + 4096]
    return bytes(found[: len(good)])


@pytest.mark.parametrize(
    "seeds", [range(60), pytest.param(range(60, 800), marks=pytest.mark.slow)], ids=["some", "many"]
)
def test_garbage_never_kills_the_process(paths: SessionPaths, workers: Workers, seeds: range) -> None:
    """Random bytes at random places: everything works, or an error of ours says why. LMDB would crash."""
    good = _journal_with_blobs(paths)
    said = [_use_damaged(paths, workers, _garble(good, seed)) for seed in seeds]
    assert {line.split(":")[0] for line in said} <= {"used, 1 left", "CorruptDataError", "FormatVersionError"}
    refused = sum(line.startswith("CorruptDataError") for line in said)
    assert len(said) // 20 < refused < len(said)


def test_a_dead_reader_pins_nothing(paths: SessionPaths, workers: Workers) -> None:
    """A reader that was killed in its transaction is released when the journal is opened: pages are used again."""
    with Journal.open(paths.journal) as journal:
        journal.append([blob(0)])
    workers.start("hold_reading_transaction", paths).wait_for().kill()
    with Journal.open(paths.journal, durability="interval") as journal:
        for number in range(60):
            journal.append([b"x" * 100_000])
            journal.delete(number, number)
        assert journal.stats().file_bytes < 2_000_000
        assert journal.reap_dead_readers() == 0


def test_a_dead_reader_can_be_reaped(paths: SessionPaths, workers: Workers) -> None:
    """A process that has the journal open long can release those that died meanwhile."""
    with Journal.open(paths.journal) as journal:
        journal.append([blob(0)])
        workers.start("hold_reading_transaction", paths).wait_for().kill()
        assert journal.reap_dead_readers() == 1


def test_a_stopped_writer_stops_no_reader(paths: SessionPaths, workers: Workers) -> None:
    """Reading needs no lock that a writer has; and when it is killed, writing goes on."""
    with Journal.open(paths.journal) as journal:
        journal.append([blob(0)])
    writer = workers.start("stop_while_writing", paths).wait_for()
    assert set(stored_names(paths)) == {"0-0-0"}
    writer.kill()
    with Journal.open(paths.journal) as journal:
        journal.append([blob(1)])
        assert sequences(journal) == [0, 1]


def test_forking_while_appending(paths: SessionPaths, workers: Workers) -> None:
    """Fifty children append to the journal of their parent, which goes on: each blob once, no reader slot lost."""
    said = workers.run("fork_while_appending", paths, forks=50)
    assert said[-1] == "statuses {0}"
    acknowledged = {line for line in said if line.replace("-", "").isdecimal()}
    assert {f"{child}-0" for child in range(1, 51)} | {"500-0"} <= acknowledged
    assert_exactly_once(paths, acknowledged)
    with raw(paths.journal) as environment:
        assert environment.readers() == "(no active readers)\n"


def test_a_child_takes_no_reader_slot_from_its_parent(paths: SessionPaths, workers: Workers) -> None:
    """Whenever the child closes its copy, the parent stays registered as reading: writers spare its pages."""
    assert workers.run("fork_between_reads", paths) == ["True"]


def test_forking_during_a_long_transaction(paths: SessionPaths, workers: Workers) -> None:
    """The child can't use the journal, says so, and ends well; the parent goes on."""
    said = workers.run("fork_while_locked", paths)
    assert sorted(said) == ["0-0", "child: JournalError", "status 0"]
    assert_exactly_once(paths, {"0-0"})


def test_a_journal_removed_while_it_is_open(paths: SessionPaths) -> None:
    """The next append begins a new one: nothing goes into a file that nobody will find."""
    with Journal.open(paths.journal) as journal:
        journal.append([blob(0)])
        before = journal.journal_id
        shutil.rmtree(paths.journal)
        assert not journal.is_in_place()
        journal.append([blob(1)])
        assert journal.is_in_place()
        assert journal.journal_id != before
    assert set(stored_names(paths)) == {"0-1-0"}


def test_who_appends_is_live(paths: SessionPaths, workers: Workers) -> None:
    """A session is live from the first append of a process until its end, however it ends."""
    with Journal.open(paths.journal) as journal:
        assert not paths.is_live()
        journal.append([blob(0)])
        assert paths.is_live()
    assert not paths.is_live()
    writer = workers.start("write", paths, writer=1).wait_for()
    assert paths.is_live()
    writer.kill()
    assert not paths.is_live()


def test_threads_share_a_journal(paths: SessionPaths) -> None:
    """Any number of threads append and read at once."""
    with Journal.open(paths.journal, durability="interval") as journal:

        def work(number: int) -> None:
            with Journal.open(paths.journal) as mine:
                for index in range(25):
                    mine.append([blob(1000 * number + index)])
                    mine.read(limit=3)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sequences(journal) == list(range(200))
    assert len(stored_names(paths)) == 200


def test_killed_by_its_own_signal(paths: SessionPaths, workers: Workers) -> None:
    """The harness tells a process that a signal killed from one that ended."""
    writer = workers.start("write", paths, writer=1).wait_for()
    os.kill(writer.pid, signal.SIGKILL)
    assert writer.wait() == signal.SIGKILL
