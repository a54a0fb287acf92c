"""Retention: what is too old or too much goes, what is recorded, merged or pinned stays."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from blobs import is_once, record, sealed
from faults import Workers, seal_and_merge, stored_names
from otel_debugstore.config import Settings
from otel_debugstore.errors import CorruptDataError
from otel_debugstore_exporters import retention
from otel_debugstore_exporters.archive import archive_session
from otel_debugstore_exporters.merging import merge
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.retention import apply_retention
from otel_debugstore_exporters.sealer import Sealer
from otel_debugstore_exporters.session import SessionPaths, list_sessions
from otel_debugstore_exporters.state import State
from sessions import hex_id, span, write_journal, write_sealed


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "s")


def _aged(paths: SessionPaths, seconds: float) -> None:
    """Make what the session has look as if it was written so long ago."""
    then = time.time() - seconds
    for path in (*paths.segments(), paths.journal / "data.mdb", paths.archive):
        if path.exists():
            os.utime(path, (then, then))


def test_retention_by_age(tmp_path: Path) -> None:
    """Segments, archives and journals that are too old go, whole; younger ones stay."""
    sessions = {name: SessionPaths(tmp_path, name) for name in ("old", "young", "archived", "pinned", "journal")}
    for name in ("old", "young", "archived", "pinned"):
        sealed(sessions[name], 0)
    archive_session(sessions["archived"], remove=True)
    record(sessions["old"], 1)
    record(sessions["journal"], 1)
    for name in ("old", "archived", "pinned", "journal"):
        _aged(sessions[name], 1000)
    removed = apply_retention(tmp_path, age_seconds=500, pinned=["pinned"])
    assert len(removed) == 4
    assert list_sessions(tmp_path) == ["pinned", "young"]
    assert apply_retention(tmp_path, age_seconds=500, pinned=["pinned"]) == []
    assert is_once(sessions["pinned"], [0])
    assert is_once(sessions["young"], [0])


def test_retention_by_size(tmp_path: Path) -> None:
    """The oldest go until the rest fits."""
    sessions = [SessionPaths(tmp_path, f"s{number}") for number in range(4)]
    for age, paths in enumerate(sessions):
        write_sealed(tmp_path, paths.session_id, [span(1)])
        _aged(paths, 1000 - age)
    size = sessions[0].size_bytes()
    assert apply_retention(tmp_path, size_bytes=10 * size) == []
    apply_retention(tmp_path, size_bytes=2 * size + 1000)
    assert list_sessions(tmp_path) == ["s2", "s3"]
    apply_retention(tmp_path, size_bytes=0)
    assert list_sessions(tmp_path) == []


def test_retention_spares_what_is_being_recorded(paths: SessionPaths, workers: Workers) -> None:
    """The journal of a live session stays, however old or large; its segments may go."""
    sealed(paths, 0)
    writer = workers.start("write", paths, writer=1).wait_for()
    _aged(paths, 1000)
    os.kill(writer.pid, signal.SIGSTOP)
    _aged(paths, 1000)
    assert apply_retention(paths.base_path, age_seconds=500, size_bytes=0) == [paths.main_segment]
    assert paths.journal.is_dir()
    assert writer.acknowledged() <= {name.rpartition("-")[0] for name in stored_names(paths)}
    writer.kill()
    assert apply_retention(paths.base_path, size_bytes=0) == [paths.journal]


def test_readers_go_on_while_retention_removes(tmp_path: Path) -> None:
    """What a reader has attached it can still read; with the next refresh it is gone."""
    for name in ("a", "b"):
        sealed(SessionPaths(tmp_path, name), 0)
        record(SessionPaths(tmp_path, name), 1)
    _aged(SessionPaths(tmp_path, "a"), 1000)
    with SessionReader(tmp_path) as reader:
        reader.refresh()
        apply_retention(tmp_path, age_seconds=500)
        assert reader.connection.execute("SELECT count(*) FROM spans").fetchall() == [(8,)]
        assert reader.query("SELECT session, count(*) FROM spans GROUP BY ALL").rows == [("b", 4)]
        seal_and_merge(SessionPaths(tmp_path, "b"))
        assert reader.query("SELECT session, count(*) FROM spans GROUP BY ALL").rows == [("b", 4)]


def test_two_retentions_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another process removed first is no error."""
    for name in ("a", "b"):
        sealed(SessionPaths(tmp_path, name), 0)
        archive_session(SessionPaths(tmp_path, name))
    real = retention._units

    def list_then_another_is_faster(paths: SessionPaths) -> object:
        units = list(real(paths))
        for unit in units:
            shutil.rmtree(unit.path, ignore_errors=True)
            unit.path.unlink(missing_ok=True)
        return units

    monkeypatch.setattr(retention, "_units", list_then_another_is_faster)
    apply_retention(tmp_path, size_bytes=0)
    assert list_sessions(tmp_path) == []


def _holding(base_path: Path, trace: int, *sessions: str) -> None:
    """Make sessions of two segments, of which the second has a span of a trace."""
    for session in sessions:
        write_sealed(base_path, session, [span(1, trace=1)])
        write_sealed(base_path, session, [span(2, trace=trace)])


def test_pinned_traces_are_spared(tmp_path: Path) -> None:
    """A segment, an archive or a journal that holds spans of one stays, however old; what is beside it goes."""
    _holding(tmp_path, 7, "segments", "other")
    _holding(tmp_path, 7, "archive")
    archive_session(SessionPaths(tmp_path, "archive"), remove=True)
    write_journal(tmp_path, "journal", [span(3, trace=7)])
    write_journal(tmp_path, "other-journal", [span(3, trace=8)])
    kept = SessionPaths(tmp_path, "segments").segments()[1]
    SessionPaths(tmp_path, "other").segments()[1].unlink()
    for session in list_sessions(tmp_path):
        _aged(SessionPaths(tmp_path, session), 1000)
    State(tmp_path).pin("an item", [hex_id(7, 32), hex_id(99, 32)])
    apply_retention(tmp_path, age_seconds=500, size_bytes=0)
    assert sorted(list_sessions(tmp_path)) == ["archive", "journal", "segments"]
    assert SessionPaths(tmp_path, "segments").segments() == [kept]
    with SessionReader(tmp_path) as reader:
        assert {row[0] for row in reader.query("SELECT DISTINCT session FROM spans WHERE trace_id LIKE '%7'").rows} == {
            *("archive", "journal", "segments")
        }
    State(tmp_path).unpin("an item")
    apply_retention(tmp_path, age_seconds=500)
    assert list_sessions(tmp_path) == []


def test_the_recording_program_spares_them(tmp_path: Path) -> None:
    """What the elected process removes by its settings is not pinned."""
    for number, session in enumerate(("shows", "other")):
        write_sealed(tmp_path, session, [span(1, trace=number + 1)])
        _aged(SessionPaths(tmp_path, session), 1000)
    settings = Settings(base_path=tmp_path, session_id="recording", retention_age_seconds=500)
    sealer = Sealer(SessionPaths(tmp_path, "recording"), settings, lambda: False, lambda: None)
    State(tmp_path).pin("an item", [hex_id(1, 32)])
    sealer.apply_retention()
    assert list_sessions(tmp_path) == ["shows"]
    State(tmp_path).unpin("an item")
    sealer.apply_retention()
    assert list_sessions(tmp_path) == []


def test_nothing_is_removed_where_pins_can_not_be_read(tmp_path: Path) -> None:
    """What they would have spared can't be told."""
    write_sealed(tmp_path, "s", [span(1)])
    state = State(tmp_path)
    state.pin("an item", [hex_id(1, 32)])
    (state.path / "data.mdb").write_bytes(b"nonsense" * 2_000)
    with pytest.raises(CorruptDataError, match="doctor"):
        apply_retention(tmp_path, size_bytes=0)
    assert list_sessions(tmp_path) == ["s"]


def test_an_unreadable_segment_may_hold_a_pinned_trace(tmp_path: Path) -> None:
    """So it stays while something is pinned."""
    write_sealed(tmp_path, "s", [span(1)])
    SessionPaths(tmp_path, "s").main_segment.write_bytes(b"nonsense" * 2_000)
    State(tmp_path).pin("an item", [hex_id(5, 32)])
    assert apply_retention(tmp_path, size_bytes=0) == []
    State(tmp_path).unpin("an item")
    assert len(apply_retention(tmp_path, size_bytes=0)) == 1


def test_what_is_merged_now_is_not_removed(paths: SessionPaths) -> None:
    """Whoever merges holds the session's `merge` lock, and retention leaves the session alone."""
    sealed(paths, 0)
    _aged(paths, 1000)
    with paths.lock("merge") as mine:
        assert mine
        assert apply_retention(paths.base_path, age_seconds=500) == []
    assert is_once(paths, [0])
    assert apply_retention(paths.base_path, age_seconds=500) != []


def test_a_segment_that_was_merged_meanwhile_stays(paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has an old one's name, and younger spans: retention chose it before it was replaced."""
    sealed(paths, 0)
    _aged(paths, 1000)
    sealed(paths, 1)
    assert len(paths.segments()) == 2
    real = retention._units

    def list_then_another_merges(listed: SessionPaths) -> object:
        units = list(real(listed))
        with listed.lock("merge"):
            merge(listed)
        return units

    monkeypatch.setattr(retention, "_units", list_then_another_merges)
    assert apply_retention(paths.base_path, age_seconds=500) == []
    assert is_once(paths, [0, 1])
