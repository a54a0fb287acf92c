"""The state below a base path: whole changes of many processes, through kills, forks, full disks and damaged files."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lmdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faults import Workers, remount
from otel_debugstore.errors import ConfigurationError, CorruptDataError, FormatVersionError
from otel_debugstore_exporters import doctor
from otel_debugstore_exporters.session import SessionPaths, list_sessions
from otel_debugstore_exporters.state import Changes, State, StateError, StateWriteError

_TRACE: str = "0123456789abcdef" * 2
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "s")


@pytest.fixture
def state(paths: SessionPaths) -> State:
    return State(paths.base_path)


def counters(state: State) -> list[int]:
    return [value for _, value in state.items("counters")]


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(values=st.dictionaries(st.text() | st.text(min_size=300), _VALUES.filter(lambda value: value is not None)))
def test_values_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    """Under any key, also one that LMDB would not take; and all are listed by any beginning."""
    state = State(tmp_path_factory.mktemp("state"))
    for key, value in values.items():
        state.put("values", key, value)
    assert state.items("values") == sorted(values.items(), key=lambda item: item[0])
    for key, value in values.items():
        assert state.get("values", key) == value
        beginning = key[: len(key) // 2]
        assert dict(state.items("values", beginning)) == {k: v for k, v in values.items() if k.startswith(beginning)}


def test_long_keys_differ_in_their_end(state: State) -> None:
    """Keys that begin alike are kept apart, whatever their length, and whatever text can hold."""
    keys = ["k" * 400, "k" * 401, "k" * 5_000, "k" * 4_999 + "\ud800", "\x00", ""]
    for number, key in enumerate(keys):
        state.put("values", key, number)
    assert [state.get("values", key) for key in keys] == list(range(len(keys)))
    assert len(state.items("values", "k")) == 4


def test_tables_are_apart(state: State) -> None:
    """The same key in two tables is two values; a table's name has small letters."""
    state.put("a", "key", 1)
    state.put("ab", "key", 2)
    assert (state.items("a"), state.items("ab")) == ([("key", 1)], [("key", 2)])
    with pytest.raises(ConfigurationError, match="small letters"):
        state.put("a\0key", "x", 1)


def test_reading_creates_nothing(paths: SessionPaths, state: State) -> None:
    """There is no state until something is written."""
    assert (state.get("a", "b"), state.items("a"), state.pinned()) == (None, [], frozenset())
    state.check()
    assert not paths.base_path.exists()


def test_the_state_is_no_session(paths: SessionPaths, state: State) -> None:
    """It lies beside sessions, and is none."""
    state.put("a", "b", 1)
    assert list_sessions(paths.base_path) == []
    assert doctor.examine(paths.base_path) == []


def test_update_makes_of_a_value_another_one(state: State) -> None:
    """None stands for no value, before and after."""
    assert state.update("a", "key", lambda value: [value]) == [None]
    assert state.update("a", "key", lambda value: [*value, 2]) == [None, 2]
    assert state.update("a", "key", lambda value: None) is None
    assert state.items("a") == []
    assert not state.delete("a", "key")


@pytest.mark.parametrize("error", [ValueError("theirs"), OSError(28, "No space, they say"), KeyError("x")])
def test_what_a_change_raises_comes_through(state: State, error: Exception) -> None:
    """It is the caller's, not a fault of the file, and nothing is changed."""

    def change(changes: Changes) -> None:
        changes.put("a", "key", 2)
        raise error

    state.put("a", "key", 1)
    with pytest.raises(type(error)) as caught:
        state.change(change)
    assert caught.value is error
    assert state.get("a", "key") == 1


def test_processes_change_one_value(paths: SessionPaths, state: State, workers: Workers) -> None:
    """No change is lost, whoever makes it."""
    others = [workers.start("change_state", paths, count=50) for _ in range(3)]
    assert [other.wait() for other in others] == [0, 0, 0]
    assert counters(state) == [150, 150]


def test_threads_change_one_value(state: State) -> None:
    """Nor where they are threads."""

    def add() -> None:
        for _ in range(25):
            state.update("counters", "n", lambda value: (value or 0) + 1)

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state.get("counters", "n") == 100


def test_a_killed_process_leaves_whole_changes(paths: SessionPaths, state: State, workers: Workers) -> None:
    """Whenever it dies, what it acknowledged is there, and no change in part."""
    for _ in range(8):
        worker = workers.start("change_state", paths).wait_for(random.Random(1).randint(3, 9))
        worker.kill()
        first, second = counters(state)
        assert first == second >= max(int(said) for said in worker.said())
        state.change(lambda changes: [changes.delete("counters", key) for key in ("first", "second")])


def test_a_stopped_process_does_not_keep_readers_waiting(paths: SessionPaths, state: State, workers: Workers) -> None:
    """What is committed can be read while another process is stopped, at any point."""
    worker = workers.start("change_state", paths).wait_for(5)
    os.kill(worker.pid, signal.SIGSTOP)
    assert len(counters(state)) == 2
    worker.kill()
    state.put("a", "key", 1)


def test_forks_while_a_thread_changes(paths: SessionPaths, state: State, workers: Workers) -> None:
    """A child changes the state like any process, whatever its parent was doing."""
    said = workers.run("fork_while_changing", paths, forks=15)
    assert said.count("status 0") == 15
    first, second = counters(state)
    assert first == second >= 15


def test_a_fork_while_a_thread_changes_for_long(paths: SessionPaths, state: State, workers: Workers) -> None:
    """A child that is forked in the middle of a change says that it can't use the state; its parent goes on."""
    child, status, *_, parent = workers.run("fork_while_state_is_locked", paths)
    assert child.startswith("StateError: ")
    assert status == "status 0"
    assert parent == "used, 1 left"
    assert state.get("values", "slow") == 1


def test_the_map_grows(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit makes room for itself; a change that ran into it is made once."""
    monkeypatch.setattr("otel_debugstore_exporters.state._MAP_SIZE", 1 << 20)
    for number in range(8):
        state.put("values", str(number), bytes([number]) * 400_000)
    assert state.update("counters", "n", lambda value: (value or 0) + 1) == 1
    assert [value[0] for _, value in state.items("values")] == list(range(8))


def test_a_full_disk(disk: Path, workers: Workers) -> None:
    """A change is refused with what to do, what was acknowledged stays, and with space it works again."""
    filler = disk / "filler"
    filler.write_bytes(bytes(4 << 20))
    *written, refused = workers.run("fill_state", SessionPaths(disk, "s"))
    assert refused.startswith("StateWriteError: The state ")
    assert "free space" in refused or "check the disk" in refused
    state = State(disk)
    assert len(state.items("values")) == len(written) > 3
    filler.unlink()
    state.put("values", "later", 1)
    assert len(state.items("values")) == len(written) + 1


def test_a_disk_that_can_not_be_written(disk: Path) -> None:
    """Values are read; a change is refused."""
    state = State(disk)
    state.put("a", "key", 1)
    remount(disk, "ro")
    try:
        assert state.get("a", "key") == 1
        with pytest.raises(StateWriteError, match="can't be written"):
            state.put("a", "key", 2)
        with pytest.raises(StateError, match="check the disk"):
            State(disk / "elsewhere").put("a", "key", 1)
    finally:
        remount(disk, "rw")
    assert state.update("a", "key", lambda value: value + 1) == 2


_DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda good: good[:8192],
    lambda good: good[: len(good) // 2],
    lambda good: good[:-4096],
    lambda good: random.Random(1).randbytes(len(good)),
    lambda good: b"SQLite format 3\0" + bytes(8176),
    lambda good: good[:8192] + bytes(len(good) - 8192),
]


@pytest.mark.parametrize("damage", range(len(_DAMAGES)))
def test_a_damaged_file(paths: SessionPaths, state: State, workers: Workers, damage: int) -> None:
    """It is an error that says what to do; doctor names it, and repair sets it aside, so that a new one can begin."""
    for number in range(40):
        state.put("values", str(number), os.urandom(3_000))
    data = state.path / "data.mdb"
    bad = _DAMAGES[damage](data.read_bytes())
    shutil.rmtree(state.path)
    state.path.mkdir()
    data.write_bytes(bad)
    said = workers.run("use_state", paths)[-1]
    assert said.startswith("CorruptDataError: ")
    assert "doctor" in said
    (found,) = doctor.examine(paths.base_path)
    assert (found.session, found.severity, found.subject) == ("state", "problem", "state.lmdb")
    assert "queue" in found.what
    assert data.read_bytes() == bad
    assert [finding.repaired for finding in doctor.repair(paths.base_path)] == [True]
    (aside,) = paths.base_path.glob("state.lmdb.corrupt-*")
    assert (aside / "data.mdb").read_bytes() == bad
    assert workers.run("use_state", paths)[-1] == "used, 0 left"
    assert [finding.severity for finding in doctor.examine(paths.base_path)] == ["note"]


def _raw(state: State) -> lmdb.Environment:
    state.path.mkdir(parents=True, exist_ok=True)
    return lmdb.open(str(state.path), max_dbs=8, lib_version=0)


def test_a_value_that_is_none(paths: SessionPaths, state: State) -> None:
    """What is no value of ours is an error where it is read, and doctor names it; other values are read."""
    state.put("a", "good", 1)
    with _raw(state) as environment, environment.begin(write=True) as txn:
        txn.put(b"a\0bad", b"\xc1 nonsense", db=environment.open_db(b"values", txn))
    assert state.get("a", "good") == 1
    with pytest.raises(CorruptDataError, match="doctor"):
        state.items("a")
    assert [finding.subject for finding in doctor.examine(paths.base_path)] == ["state.lmdb"]


def test_versions_from_the_future(paths: SessionPaths, state: State) -> None:
    """Of the file, or of a value: refused with what to do, and nothing is changed."""
    state.put("a", "key", 1)
    with _raw(state) as environment, environment.begin(write=True) as txn:
        txn.put(b"a\0new", b"\x94\x07\xa3new\x01\x02", db=environment.open_db(b"values", txn))
    with pytest.raises(FormatVersionError, match="upgrade"):
        state.get("a", "new")
    with _raw(state) as environment, environment.begin(write=True) as txn:
        txn.put(b"version", b"7", db=environment.open_db(b"meta", txn))
    before = (state.path / "data.mdb").read_bytes()
    with pytest.raises(FormatVersionError, match="upgrade"):
        state.put("a", "key", 2)
    doctor.repair(paths.base_path)
    assert (state.path / "data.mdb").read_bytes() == before


def test_a_file_of_another_program(state: State) -> None:
    """It is refused, and nothing is changed."""
    with _raw(state) as environment, environment.begin(write=True) as txn:
        txn.put(b"theirs", b"value")
    before = (state.path / "data.mdb").read_bytes()
    with pytest.raises(CorruptDataError, match="not a state of otel-debugstore; take another data directory"):
        state.get("a", "key")
    assert (state.path / "data.mdb").read_bytes() == before


def test_a_file_in_the_place_of_the_folder(state: State) -> None:
    """Reading and writing say so."""
    state.path.parent.mkdir()
    state.path.write_text("not a folder")
    for use in (lambda: state.get("a", "key"), lambda: state.put("a", "key", 1)):
        with pytest.raises(StateError, match=r"state\.lmdb can't be used"):
            use()


def test_pins_are_of_who_needs_them(state: State) -> None:
    """A trace is pinned while somebody needs it; each owner's pins are replaced as a whole."""
    others = ["f" * 32, "e" * 32]
    state.pin("a", [_TRACE, others[0]])
    state.pin("b", [_TRACE])
    assert state.pinned() == {_TRACE, others[0]}
    state.pin("a", others)
    assert state.pinned() == {_TRACE, *others}
    state.unpin("a")
    assert state.pinned() == {_TRACE}
    state.unpin("b")
    state.unpin("nobody")
    assert state.pinned() == frozenset()
    for bad in ("", "abc", _TRACE.upper(), _TRACE + "0"):
        with pytest.raises(ConfigurationError, match="32 hexadecimal"):
            state.pin("a", [bad])
