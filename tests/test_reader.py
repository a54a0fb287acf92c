"""The fresh view: sealed or not, while others write, seal, merge and remove."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from faults import Workers, seal_and_merge
from otel_debugstore.errors import (
    CorruptDataError,
    FormatVersionError,
    InvalidSessionIdError,
    QueryError,
    SessionNotFoundError,
)
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.merging import merge
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.seal import seal
from otel_debugstore_exporters.session import SessionPaths
from sessions import hex_id, span, write_journal, write_sealed
from stored import count_spans


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def paths(base: Path) -> SessionPaths:
    return SessionPaths(base, "s")


def test_it_is_fresh(base: Path, paths: SessionPaths) -> None:
    """Each query sees what was committed before it, sealed or not, and a refresh says whether there was anything."""
    write_journal(base, "s", [span(1)])
    with SessionReader(base, ["s"]) as reader:
        assert reader.refresh()
        assert not reader.refresh()
        assert count_spans(reader) == 1
        write_journal(base, "s", [span(2)])
        assert count_spans(reader) == 2
        seal_and_merge(paths)
        assert count_spans(reader) == 2
        write_journal(base, "s", [span(3)])
        write_sealed(base, "s", [span(4), span(5)])
        assert count_spans(reader) == 5
        seal_and_merge(paths)
        assert count_spans(reader) == 5
        assert reader.query("SELECT list(span_id ORDER BY span_id) FROM spans").rows == [
            ([hex_id(number) for number in range(1, 6)],)
        ]
        assert reader.query("SELECT span_count FROM traces").rows == [(5,)]


def test_several_sessions(base: Path) -> None:
    """Named ones, or all, also those that begin later; the columns say which is which."""
    for session_id in ("a", "b", "c"):
        write_sealed(base, session_id, [span(1)])
        write_journal(base, session_id, [span(2)])
    with SessionReader(base, ["a", "c"]) as reader, SessionReader(base) as everything:
        assert count_spans(reader) == 4
        assert count_spans(everything) == 6
        write_journal(base, "d", [span(3)])
        assert count_spans(reader) == 4
        assert count_spans(everything) == 7
        sql = "SELECT session, count(*) FROM spans GROUP BY ALL ORDER BY ALL"
        assert everything.query(sql).rows == [("a", 2), ("b", 2), ("c", 2), ("d", 1)]
        assert everything.query("SELECT count(*) FROM traces").rows == [(4,)]


def test_sessions_that_are_not_there(base: Path) -> None:
    """An unknown id, and ids that no file may have, are errors; an empty folder is an empty view."""
    with SessionReader(base) as reader:
        assert count_spans(reader) == 0
    with pytest.raises(SessionNotFoundError, match="there is none"):
        SessionReader(base, ["s"])
    write_journal(base, "known", [span(1)])
    with pytest.raises(SessionNotFoundError, match="known"):
        SessionReader(base, ["s"])
    for bad in (
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "/etc",
        "a b",
        "é",
        "a\0b",
        "a\n",
        "+",
        "a+b",
        "-x",
        ".x",
        "x" * 129,
        "*",
    ):
        with pytest.raises(InvalidSessionIdError, match="Choose another"):
            SessionReader(base, [bad])
    assert [path.name for path in base.iterdir()] == ["known.lmdb"]


@pytest.mark.parametrize("session_id", ["_", "a..b", "x" * 128, "a.lmdb", "a.duckdb", "s.archive", "A-_.9"])
def test_sessions_with_odd_names(base: Path, session_id: str) -> None:
    """Everything that may be an id works as one, and stays apart from its neighbours."""
    for name in (session_id, "a"):
        write_journal(base, name, [span(1)])
        write_sealed(base, name, [span(2)])
        write_sealed(base, name, [span(3)])
    with SessionReader(base, [session_id]) as reader:
        assert count_spans(reader) == 3
    with SessionReader(base) as reader:
        assert count_spans(reader) == 6
        assert sorted(reader.session_ids) == sorted([session_id, "a"])


def test_views_of_an_empty_session(base: Path) -> None:
    """Every view is there and empty."""
    write_journal(base, "s", [])
    with SessionReader(base, ["s"]) as reader:
        views = [row[0] for row in reader.query("SELECT view_name FROM duckdb_views() WHERE NOT internal").rows]
        assert {"spans", "traces", "otel_traces", "records", "performance_summary", "rollup"} <= set(views)
        for view in views:
            assert reader.query(f"SELECT * FROM {view}").rows == []
        assert list(reader.records()) == []


def test_a_damaged_blob_does_not_hide_the_others(base: Path, paths: SessionPaths) -> None:
    """The doctor names it; the rest is shown."""
    good = codec.encode(batch_from_records([span(1)], 1), 1)
    damaged = good[:-9] + bytes([good[-9] ^ 1]) + good[-8:]
    with Journal.open(paths.journal) as journal:
        journal.append([good, damaged, b"", good])
    with SessionReader(base, ["s"]) as reader:
        assert count_spans(reader) == 2


def test_a_blob_from_the_future_is_an_error_every_time(base: Path, paths: SessionPaths) -> None:
    """A query never answers without what it can't read; with a newer version it would answer with it."""
    good = codec.encode(batch_from_records([span(1)], 1), 1)
    with Journal.open(paths.journal) as journal:
        journal.append([good, b"\x07" + good[1:], good])
    with SessionReader(base, ["s"]) as reader:
        for _ in range(3):
            with pytest.raises(FormatVersionError, match="upgrade"):
                count_spans(reader)
        with Journal.open(paths.journal) as journal:
            journal.delete(1, 1)
        assert count_spans(reader) == 2


def test_a_segment_that_can_not_be_read_is_an_error_every_time(base: Path) -> None:
    """And when it is mended, the same reader goes on."""
    write_sealed(base, "s", [span(1)])
    write_sealed(base, "s", [span(2)])
    with SessionReader(base, ["s"]) as reader:
        assert count_spans(reader) == 2
        write_sealed(base, "s", [span(3)])
        (newest,) = set(base.glob("s*.duckdb")) - {segment.path for segment in reader.segments()}
        good = newest.read_bytes()
        newest.write_bytes(good[:1000])
        for _ in range(3):
            with pytest.raises(CorruptDataError, match="doctor"):
                count_spans(reader)
        newest.rename(newest.with_suffix(".aside"))
        assert count_spans(reader) == 2
        newest.with_suffix(".aside").write_bytes(good)
        newest.with_suffix(".aside").rename(newest)
        assert count_spans(reader) == 3


def test_damage_that_shows_only_when_columns_are_read(base: Path) -> None:
    """It is an error of ours, whatever reads it."""
    write_sealed(base, "s", [span(n, attributes={"text": f"{n * 7919:x}" * 9}) for n in range(1, 3000)])
    write_journal(base, "s", [span(5000)])
    (path,) = base.glob("s.duckdb")
    good = path.read_bytes()
    seen = set()
    for place in range(12_288, len(good), len(good) // 9):
        path.write_bytes(good[:place] + bytes(64) + good[place + 64 :])
        try:
            with SessionReader(base, ["s"]) as reader:
                assert reader.query("SELECT sum(hash(s)) FROM spans s").rows
                assert len(list(reader.records())) == 3000
        except (CorruptDataError, QueryError) as error:
            seen.add(type(error))
    assert CorruptDataError in seen


def test_a_journal_that_begins_anew(base: Path, paths: SessionPaths) -> None:
    """A reader follows when the journal it has open is removed, and when another one takes its place."""
    write_journal(base, "s", [span(1), span(2)])
    write_sealed(base, "s", [span(3)])
    with SessionReader(base, ["s"]) as reader:
        assert count_spans(reader) == 3
        shutil.rmtree(paths.journal)
        assert count_spans(reader) == 1
        write_journal(base, "s", [span(4)])
        assert count_spans(reader) == 2
        shutil.rmtree(paths.journal)
        paths.main_segment.unlink()
        assert count_spans(reader) == 0
        assert not reader.refresh()


def test_a_count_never_drops(base: Path, paths: SessionPaths) -> None:
    """While another thread records, seals and merges, every answer lies between what was there before and after."""
    write_journal(base, "s", [span(1)])
    written, problems, done = [1], list[str](), threading.Event()

    def watch() -> None:
        last = 0
        with SessionReader(base, ["s"], threads=1) as reader:
            while not done.is_set():
                before = written[0]
                found = count_spans(reader)
                if not max(last, before) <= found <= written[0] + 5:
                    problems.append(f"{found} after {last}, of {before} to {written[0]}")
                last = found

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    try:
        with Journal.open(paths.journal) as journal:
            for number in range(6):
                for part in range(3):
                    records = [span(100 + number * 50 + part * 5 + i) for i in range(5)]
                    journal.append([codec.encode(batch_from_records(records, 1), 1)])
                    written[0] += 5
                seal(paths, journal, segment_spans=10)
                if number % 3 == 2:
                    merge(paths)
    finally:
        done.set()
        for watcher in watchers:
            watcher.join()
    assert problems == []
    with SessionReader(base, ["s"]) as reader:
        assert count_spans(reader) == 1 + 6 * 15


def test_a_segment_appears_while_the_tail_is_read_again(
    base: Path, paths: SessionPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sealing between two steps of a refresh hides nothing: what left the journal is looked for in segments again."""
    write_journal(base, "s", [span(1)])
    with SessionReader(base, ["s"]) as reader:
        assert count_spans(reader) == 1
        write_journal(base, "s", [span(2)])
        with Journal.open(paths.journal) as journal:
            seal(paths, journal, segment_spans=1)
        write_journal(base, "s", [span(3)])
        real, calls = SessionReader._forget_tail, list[int]()

        def forget_and_somebody_seals(self: SessionReader, session: object) -> None:
            real(self, session)  # type: ignore[arg-type]
            calls.append(1)
            if len(calls) == 1:
                with Journal.open(paths.journal) as journal:
                    seal(paths, journal, segment_spans=1)

        monkeypatch.setattr(SessionReader, "_forget_tail", forget_and_somebody_seals)
        assert count_spans(reader) == 3
        assert calls


@pytest.mark.slow
def test_more_sessions_than_files_may_be_open(base: Path, workers: Workers, paths: SessionPaths) -> None:
    """The reader raises the limit of its process as far as it takes."""
    for number in range(20):
        write_sealed(base, f"s{number}", [span(1)])
        write_journal(base, f"s{number}", [span(2)])
    assert workers.run("count_with_few_files", paths, files=30) == ["40"]
