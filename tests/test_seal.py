"""From the journal to segments, and from small segments to larger ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from blobs import blob, is_once, record, sealed, waiting
from faults import Workers, problems, remount, stored_names
from otel_debugstore.errors import CorruptDataError, DebugStoreError, FormatVersionError
from otel_debugstore_exporters import codec
from otel_debugstore_exporters import seal as sealing
from otel_debugstore_exporters.archive import archive_session
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.merging import merge
from otel_debugstore_exporters.seal import seal, seal_if_idle
from otel_debugstore_exporters.segment import (
    Segment,
    SegmentWriter,
    Source,
    connect,
    current_segments,
    without_covered,
)
from otel_debugstore_exporters.session import SessionPaths


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "s")


def test_sealing_moves_everything(paths: SessionPaths) -> None:
    """Into segments of about the size asked for; the first gets the session's own name."""
    record(paths, *range(10))
    with Journal.open(paths.journal) as journal:
        made = seal(paths, journal, segment_spans=6)
        assert [segment.span_count for segment in made] == [6, 6, 6, 2]
        assert made[0].path == paths.main_segment
        assert {segment.path for segment in made} == set(paths.segments())
        assert seal(paths, journal) == []
    assert waiting(paths) == 0
    assert is_once(paths, range(10))


def test_sealing_ends_though_writers_go_on(paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes what is there when it begins, a segment at a time, and not all that comes meanwhile."""
    record(paths, *range(4))
    real, rounds = sealing.seal_once, list[int]()

    def seal_one_while_recording(*arguments: object) -> Segment | None:
        record(paths, 100 + len(rounds))
        rounds.append(1)
        assert len(rounds) < 20
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(sealing, "seal_once", seal_one_while_recording)
    with Journal.open(paths.journal) as journal:
        seal(paths, journal, segment_spans=2)
    assert is_once(paths, [*range(4), *range(100, 100 + len(rounds))])


def test_a_damaged_blob_is_counted_and_the_rest_sealed(paths: SessionPaths) -> None:
    """Its spans count as dropped, and it does not stand in the way."""
    damaged = bytearray(blob(1))
    damaged[-10] ^= 1
    with Journal.open(paths.journal) as journal:
        journal.append([blob(0), bytes(damaged), b"short", blob(2)])
        seal(paths, journal)
        assert {drop.reason: drop.count for drop in journal.drops()} == {"corrupt": 3}
    assert waiting(paths) == 0
    assert is_once(paths, [0, 2])


def test_a_blob_from_the_future_stays(paths: SessionPaths) -> None:
    """What comes before it is sealed; it and what follows waits for a newer version, and nothing is lost."""
    with Journal.open(paths.journal) as journal:
        journal.append([blob(0), b"\x07" + blob(1)[1:], blob(2)])
        with pytest.raises(FormatVersionError, match="upgrade"):
            seal(paths, journal)
        assert [sequence for sequence, _ in journal.blobs()] == [1, 2]
    with connect() as connection:
        assert [segment.span_count for segment in current_segments(connection, paths)] == [2]


def test_what_a_segment_holds_already_is_not_sealed_again(paths: SessionPaths) -> None:
    """A sealer that died between publishing and deleting leaves blobs that are in both."""
    sealed(paths, 0)
    record(paths, 1, 2)
    before = shutil.copytree(paths.journal, paths.base_path / "journal before")
    sealed(paths)
    shutil.rmtree(paths.journal)
    before.rename(paths.journal)
    assert is_once(paths, range(3))
    record(paths, 3)
    sealed(paths)
    assert waiting(paths) == 0
    assert is_once(paths, range(4))
    assert sum(1 for _ in paths.segments()) == 3


def test_two_publish_the_first_segment(paths: SessionPaths) -> None:
    """Both are kept, under two names."""
    with SegmentWriter(paths) as one, SegmentWriter(paths) as other:
        for number, writer in enumerate((one, other)):
            writer.add(codec.decode(blob(number)))
            writer.add_source(Source(f"file {number}", span_count=2))
        published = {one.publish().path, other.publish().path}
    assert len(published) == 2
    assert paths.main_segment in published
    assert is_once(paths, [0, 1])


def test_an_interrupted_writer_leaves_nothing(paths: SessionPaths) -> None:
    """Whatever goes wrong within the block."""

    class Interrupted(BaseException):
        pass

    def write_and_be_interrupted() -> None:
        with SegmentWriter(paths) as writer:
            writer.add(codec.decode(blob(0)))
            raise Interrupted

    with pytest.raises(Interrupted):
        write_and_be_interrupted()
    assert list(paths.base_path.iterdir()) == []


def test_seal_if_idle(paths: SessionPaths, workers: Workers) -> None:
    """It seals and merges a session that nobody seals, and leaves alone what is too large or somebody else's."""
    sealed(paths, 0)
    record(paths, 1, 2)
    assert not seal_if_idle(paths, max_spans=3)
    with paths.lock("seal") as mine:
        assert mine
        assert not seal_if_idle(paths)
    assert waiting(paths) == 2
    assert seal_if_idle(paths)
    assert (waiting(paths), len(paths.segments())) == (0, 1)
    assert not seal_if_idle(SessionPaths(paths.base_path, "none"))


def test_sealing_on_a_full_disk(disk: Path) -> None:
    """It fails and leaves nothing behind; the journal keeps the spans, and with space it works."""
    paths = SessionPaths(disk, "s")
    record(paths, *range(5))
    filler = disk / "filler"
    filler.write_bytes(bytes((5 << 20) + (700 << 10)))  # a segment takes 200 kB
    before = sorted(path.name for path in disk.iterdir())
    for _ in range(3):
        with Journal.open(paths.journal) as journal, pytest.raises((duckdb.Error, OSError)):
            seal(paths, journal)
    assert sorted(path.name for path in disk.iterdir()) == before
    assert is_once(paths, range(5))
    filler.unlink()
    sealed(paths)
    assert waiting(paths) == 0
    assert is_once(paths, range(5))


def test_a_disk_that_can_not_be_written(disk: Path) -> None:
    """Sealed spans, an archive and a journal are read; sealing by readers is left."""
    paths = SessionPaths(disk, "s")
    sealed(paths, 0)
    record(paths, 1)
    archived = SessionPaths(disk, "archived")
    sealed(archived, 2)
    archive_session(archived, remove=True)
    remount(disk, "ro")
    try:
        assert is_once(paths, [0, 1])
        assert is_once(archived, [2])
        assert not seal_if_idle(paths)
        assert problems(paths) == []
    finally:
        remount(disk, "rw")


_DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda good: good[: len(good) // 2],
    "cut in the head": lambda good: good[:5000],
    "empty": lambda good: b"",
    "garbage": lambda good: bytes(range(256)) * (len(good) // 256),
    "garbage in the head": lambda good: good[:4096] + os.urandom(8192) + good[12_288:],
    "garbage in the middle": lambda good: good[:20_000] + os.urandom(len(good) - 20_000),
}


@pytest.mark.parametrize("damage", _DAMAGE)
def test_a_damaged_segment(paths: SessionPaths, damage: str) -> None:
    """It is an error that names the file and the remedy; and no process writes into the session unawares."""
    sealed(paths, 0)
    sealed(paths, 1)
    record(paths, 2)
    paths.main_segment.write_bytes(_DAMAGE[damage](paths.main_segment.read_bytes()))
    with pytest.raises(CorruptDataError, match=r"s\.duckdb.*doctor --repair"):
        stored_names(paths)
    with Journal.open(paths.journal) as journal, pytest.raises(CorruptDataError):
        seal(paths, journal)
    with pytest.raises(CorruptDataError):
        merge(paths)
    assert waiting(paths) == 1
    assert len(paths.segments()) == 2


def test_a_duckdb_file_of_another_program(paths: SessionPaths) -> None:
    """It is refused, and not changed."""
    paths.base_path.mkdir()
    with duckdb.connect(str(paths.main_segment)) as connection:
        connection.execute("CREATE TABLE theirs AS SELECT 1")
    before = paths.main_segment.read_bytes()
    with pytest.raises(CorruptDataError, match="not a segment of otel-debugstore"):
        stored_names(paths)
    assert paths.main_segment.read_bytes() == before


def test_a_segment_from_the_future(paths: SessionPaths) -> None:
    """It is refused with what to do, by readers and sealers, and not changed."""
    sealed(paths, 0)
    with duckdb.connect(str(paths.main_segment)) as connection:
        connection.execute("UPDATE segment SET version = 7")
    before = paths.main_segment.read_bytes()
    with pytest.raises(FormatVersionError, match="upgrade"):
        stored_names(paths)
    with Journal.open(paths.journal) as journal, pytest.raises(FormatVersionError):
        seal(paths, journal)
    assert paths.main_segment.read_bytes() == before


def test_a_segment_that_another_program_has_open(paths: SessionPaths, workers: Workers) -> None:
    """DuckDB lets one process write a file and nobody read it then: this is no damage, and passes."""
    sealed(paths, 0)
    holder = workers.start("read_sealed_by_user", paths).wait_for()
    with pytest.raises(DebugStoreError, match="close it") as raised:
        stored_names(paths)
    assert not isinstance(raised.value, CorruptDataError)
    holder.kill()
    assert is_once(paths, [0])


def test_covering() -> None:
    """Of segments that hold the same, one is kept: the one with most sources."""
    whole = Segment(Path("whole"), (Source("j", 0, 9), Source("file")))
    parts = [
        Segment(Path("a"), (Source("j", 0, 3),)),
        Segment(Path("b"), (Source("j", 4, 9),)),
        Segment(Path("c"), (Source("file"),)),
        Segment(Path("d"), (Source("j", 8, 10),)),
        Segment(Path("e"), (Source("k", 0, 3),)),
        Segment(Path("f"), (Source("file"), Source("other"))),
    ]
    assert without_covered([*parts, whole, whole]) == [*parts[3:], whole]


def test_a_merged_segment_counts_whatever_its_name_is(paths: SessionPaths) -> None:
    """One that holds what two others held replaces both, though it has one source as they have."""

    def segment(name: str, first: int, last: int) -> Segment:
        return Segment(paths.base_path / name, (Source("j", first, last, span_count=last - first + 1),))

    parts = [segment("a", 0, 0), segment("b", 1, 1)]
    for merged in (segment("0", 0, 1), segment("c", 0, 1)):
        assert without_covered([*parts, merged]) == [merged]
        assert without_covered([merged, *parts, segment("d", 2, 2)]) == [merged, segment("d", 2, 2)]
    assert without_covered([segment("x", 0, 1), segment("y", 0, 1)]) == [segment("x", 0, 1)]
