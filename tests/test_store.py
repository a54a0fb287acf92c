"""`DebugStore`: the names that users of the replaced system call, from threads, forks and with odd values."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import threading
import time
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from faults import Workers, problems, stored_names
from otel_debugstore import DebugStore
from otel_debugstore.errors import ConfigurationError, InvalidSessionIdError, QueryError
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.journal import Journal, JournalError, JournalWriteError
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths

RECORD_COLUMNS = [
    "id",
    "timestamp",
    "context_type",
    "context_id",
    "context_name",
    "parent_context",
    "request_data",
    "response_data",
    "metadata",
    "duration_ms",
    "memory_mb",
    "cpu_percent",
    "status",
    "error",
    "code_snapshot",
    "code_hash",
    "variant_id",
]


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "s")


def opened(paths: SessionPaths, **options: Any) -> DebugStore:
    return DebugStore(paths.session_id, base_path=paths.base_path, **options)


def test_a_record_comes_back_as_it_was_written(paths: SessionPaths) -> None:
    """Every column, before and after it was sealed."""
    with opened(paths) as store:
        identifier = store.write_record(
            context_type="tool",
            context_id="tool-1",
            context_name="fetch",
            parent_context="workflow-1",
            request_data={"url": "x", "n": [1, 2]},
            response_data="text",
            metadata={"k": 1},
            duration_ms=1500.5,
            memory_mb=12.5,
            cpu_percent=80.0,
            status="error",
            error="it broke",
            code_snapshot="def f(): ...",
            timestamp=1_700_000_000.25,
        )
        for _ in range(2):
            (row,) = store.query_analytics("SELECT * FROM records")
            assert list(row) == RECORD_COLUMNS
            variant = row.pop("variant_id")
            assert variant == row.pop("code_hash")
            assert len(variant) == 16
            assert row.pop("timestamp") == pytest.approx(1_700_000_000.25, abs=1e-6)
            assert row == {
                "id": identifier,
                "context_type": "tool",
                "context_id": "tool-1",
                "context_name": "fetch",
                "parent_context": "workflow-1",
                "request_data": '{"url":"x","n":[1,2]}',
                "response_data": "text",
                "metadata": '{"k":1}',
                "duration_ms": 1500.5,
                "memory_mb": 12.5,
                "cpu_percent": 80.0,
                "status": "error",
                "error": "it broke",
                "code_snapshot": "def f(): ...",
            }
            store.sync_to_duckdb()


def test_a_variant_with_code(paths: SessionPaths) -> None:
    """The hash is the code's, also where the variant has a name of its own."""
    with opened(paths) as store:
        store.write_record("tool", "a", "x", code_snapshot="def f(): ...")
        store.write_record("tool", "b", "x", code_snapshot="def f(): ...", variant_id="v2")
        store.write_record("tool", "c", "x", variant_id="v3")
        rows = store.query_analytics("SELECT code_hash, variant_id FROM records ORDER BY context_id")
        (first, second, third) = [(row["code_hash"], row["variant_id"]) for row in rows]
        assert first == (first[1], first[1])
        assert second == (first[0], "v2")
        assert third == ("v3", "v3")
        code = store.query_analytics("SELECT variant, qualified_name, source FROM code ORDER BY variant")
    assert [tuple(row.values()) for row in code] == [(first[0], "x", "def f(): ..."), ("v2", "x", "def f(): ...")]


def test_code_is_written_once(paths: SessionPaths) -> None:
    """However often it comes."""
    with opened(paths, auto_sync=False) as store:
        for n in range(3):
            store.write_record("tool", f"a{n}", "x", code_snapshot="def f(): ...")
            store.flush()
    with Journal.open(paths.journal) as journal:
        written = [code.source for _, blob in journal.blobs() for code in codec.decode(blob).code]
    assert written == ["def f(): ..."]


def test_code_that_is_too_long(paths: SessionPaths) -> None:
    """The version is known; its source is in the record alone."""
    with opened(paths) as store:
        store.write_record("tool", "a", "x", code_snapshot="#" * 200_000, variant_id="long")
        (row,) = store.query_analytics("SELECT variant, source FROM code")
    assert row == {"variant": "long", "source": None}


def test_questions(paths: SessionPaths) -> None:
    """Summary, errors, slow operations and statistics."""
    with opened(paths) as store:
        for number in range(20):
            status = {3: "error", 5: "timeout", 7: "retry"}.get(number, "success")
            store.write_record("tool", f"t{number}", "fetch", duration_ms=100.0 * number, status=status)  # type: ignore[arg-type]
        store.write_record("node", "n", "other", duration_ms=1.0)
        (fetch, other) = store.get_performance_summary()
        assert (fetch["context_name"], fetch["execution_count"], fetch["success_count"]) == ("fetch", 20, 17)
        assert (fetch["avg_duration_ms"], fetch["p50_duration_ms"], fetch["max_duration_ms"]) == (950.0, 950.0, 1900.0)
        assert (other["context_type"], other["execution_count"]) == ("node", 1)
        assert {row["status"] for row in store.get_error_records()} == {"error", "timeout"}
        assert len(store.get_error_records(limit=1)) == 1
        assert [row["duration_ms"] for row in store.get_slow_operations(1700)] == [1900.0, 1800.0, 1700.0]
        assert len(store.get_slow_operations(limit=2)) == 2
        assert store.get_slow_operations(limit=0) == []
        for limit in (-1, None, 2.5, "5"):
            with pytest.raises(ConfigurationError):
                store.get_slow_operations(limit=limit)  # type: ignore[arg-type]
            with pytest.raises(ConfigurationError):
                store.get_error_records(limit)  # type: ignore[arg-type]
        with pytest.raises(QueryError):
            store.query_analytics("SELEC")
        assert store.query_analytics("SELECT count(*) AS n FROM spans WHERE component = ?", ["fetch"]) == [{"n": 20}]
        stats = store.get_stats()
        assert (stats["record_count"], stats["journal_record_count"], stats["sealed_record_count"]) == (21, 21, 0)
        assert store.sync_to_duckdb() == 21
        assert store.sync_to_duckdb() == 0
        stats = store.get_stats()
        assert (stats["record_count"], stats["journal_record_count"], stats["sealed_record_count"]) == (21, 0, 21)
        assert (stats["segment_count"], stats["dropped"], stats["session_id"]) == (1, {}, "s")


def test_errors_are_those_that_the_summary_counts(paths: SessionPaths) -> None:
    """Whatever the statuses are: what is neither a success nor a retry has failed."""
    statuses: list[Any] = ["success", "retry", "error", "timeout", "failed", "cancelled", None, 5, _Odd()]
    with opened(paths) as store:
        for number, status in enumerate(statuses):
            store.write_record("tool", f"t{number}", f"n{number}", status=status)
        for _ in range(2):
            failed = {row["context_name"] for row in store.get_error_records()}
            assert failed == {row["context_name"] for row in store.get_performance_summary() if row["error_count"]}
            assert failed == {f"n{number}" for number in range(2, len(statuses))}
            store.sync_to_duckdb()


def test_numbers_of_any_kind(paths: SessionPaths) -> None:
    """Numbers of numpy and decimals are kept as numbers."""
    numbers: list[Any] = [np.int64(3), np.float32(2.5), np.float64(0.1), Decimal("1.5"), Fraction(1, 4), 7, 0.5]
    with opened(paths) as store:
        for number in numbers:
            store.write_record("tool", "t", "x", memory_mb=number, cpu_percent=number)
        rows = store.query_analytics("SELECT memory_mb, cpu_percent FROM records")
    expected = sorted(map(float, numbers))
    assert sorted(row["memory_mb"] for row in rows) == expected
    assert sorted(row["cpu_percent"] for row in rows) == expected


@pytest.mark.parametrize("nothing", ["", False, 0, 0.0, [], {}, ()])
def test_what_is_empty_is_nothing(paths: SessionPaths, nothing: Any) -> None:
    """It is no error, and no variant other than that of the code."""
    with opened(paths) as store:
        store.write_record("tool", "t", "x", error=nothing, variant_id=nothing)
        store.write_record("tool", "u", "y", error=nothing, variant_id=nothing, code_snapshot="pass")
        plain, with_code = store.query_analytics("SELECT * FROM records ORDER BY context_name")
    assert (plain["error"], plain["variant_id"], with_code["error"]) == (None, None, None)
    assert with_code["variant_id"] == with_code["code_hash"] is not None


def test_whether_something_is_empty_may_not_be_asked(paths: SessionPaths) -> None:
    """A value whose own `__bool__` raises is taken as its text, as one is that has another meaning of it."""
    with opened(paths) as store:
        store.write_record("tool", "t", "x", error=np.array([0, 0]), variant_id=_Undecided())  # type: ignore[arg-type]
        (row,) = store.query_analytics("SELECT * FROM records")
    assert (row["error"], row["variant_id"]) == ("[0 0]", "undecided")


class _Undecided(list[int]):
    def __len__(self) -> int:
        raise RuntimeError

    def __str__(self) -> str:
        return "undecided"


@pytest.mark.parametrize("order", ["wabt", "tabw", "awbt"])
def test_contexts_nest(paths: SessionPaths, order: str) -> None:
    """Records that name a parent become its children in one trace, whichever is written first."""

    def write(store: DebugStore, layer: str, name: str, parent: str | None, ends_ms: int, duration_ms: float) -> None:
        timestamp = 1e9 + ends_ms / 1000
        store.write_record(layer, name, name, parent_context=parent, duration_ms=duration_ms, timestamp=timestamp)

    records: dict[str, tuple[Any, ...]] = {
        "w": ("workflow", "w", None, 100, 100.0),
        "a": ("step", "a", "w", 50, 40.0),
        "b": ("step", "b", "w", 80, 20.0),
        "t": ("tool", "t", "a", 30, 10.0),
    }
    with opened(paths) as store:
        for name in order:
            write(store, *records[name])
        rows = store.query_analytics(
            "SELECT s.component, s.layer, p.component AS parent, s.self_ns / 1e6 AS self_ms FROM spans s "
            "LEFT JOIN spans p ON p.span_id = s.parent_id AND p.trace_id = s.trace_id ORDER BY s.layer, self_ms"
        )
        assert [tuple(row.values()) for row in rows] == [
            ("b", "step", "w", 20.0),
            ("a", "step", "w", 30.0),
            ("t", "tool", "a", 10.0),
            ("w", "workflow", None, 40.0),
        ]


def test_a_context_that_runs_again(paths: SessionPaths) -> None:
    """Each record is a span of its own, in one trace."""
    with opened(paths) as store:
        ids = [store.write_record("tool", "same", "tool", duration_ms=1.0) for _ in range(5)]
        assert len(set(ids)) == 5
        assert len({identifier.split("-")[0] for identifier in ids}) == 1
        assert store.get_stats()["record_count"] == 5


def test_what_is_written_is_seen_by_others(paths: SessionPaths) -> None:
    """After a second without any call, and at once after a flush."""
    with opened(paths) as store, SessionReader(paths.base_path, ["s"]) as reader:
        store.write_record("tool", "a", "first")
        deadline = time.monotonic() + 10
        while reader.query("SELECT count(*) FROM spans").rows != [(1,)]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        store.write_record("tool", "b", "second")
        store.flush()
        assert reader.query("SELECT count(*) FROM spans").rows == [(2,)]


def test_closing(paths: SessionPaths) -> None:
    """It flushes, happens once, and afterwards nothing is taken any more."""
    store = opened(paths)
    for number in range(700):
        store.write_record("tool", str(number), "x")
    store.close()
    store.close()
    assert stored_names(paths) == {"x": 700}
    with pytest.raises(JournalError, match="closed"):
        store.write_record("tool", "a", "late")
    assert not paths.is_live()
    assert problems(paths) == []


def test_questions_to_a_closed_store(paths: SessionPaths) -> None:
    """They are refused, and open nothing."""
    store = opened(paths)
    store.write_record("tool", "a", "x")
    store.close()
    questions = (store.sync_to_duckdb, store.get_performance_summary, store.get_error_records, store.get_stats)
    for question in (*questions, store.get_slow_operations, lambda: store.query_analytics("SELECT 1")):
        with pytest.raises(JournalError, match="store of session 's' is closed"):
            question()
    assert store._reader is None


def test_a_program_that_does_not_close_its_store(paths: SessionPaths) -> None:
    """What it wrote last is kept when the interpreter ends."""
    program = (
        "import sys\n"
        "from otel_debugstore import DebugStore\n"
        "store = DebugStore('s', base_path=sys.argv[1])\n"
        "store.write_record('tool', 'a', 'last')\n"
        "sys.exit(3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, paths.base_path], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert stored_names(paths) == {"last": 1}


@pytest.mark.slow
def test_a_session_that_another_process_seals(paths: SessionPaths, workers: Workers) -> None:
    """The one that is elected is asked, and does it while it goes on; what it does not do stays in the journal."""
    elected = workers.start("write_records", paths, writer=1, auto_sync=True).wait_for(3)
    with opened(paths) as store:
        for _ in range(2):
            store.write_record("tool", "a", "ours")
            assert store.sync_to_duckdb() >= 4
            assert store.query_analytics("SELECT count(*) AS n FROM records WHERE context_name = 'ours'") != []
            assert paths.segments() == [paths.main_segment]
        assert elected.wait_for(len(elected.said()) + 3).said()
        elected.kill()
        assert store.get_stats()["record_count"] >= 2 + 3 * len(elected.said())
    assert problems(paths) == []


def test_an_elected_process_that_does_not_answer(paths: SessionPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for so long and no longer; nothing is lost, and the next time it is sealed here."""
    monkeypatch.setattr("otel_debugstore_exporters.store._SEALING_SECONDS", 0.3)
    with opened(paths) as store:
        store.write_record("tool", "a", "x")
        with paths.lock("seal") as mine:
            assert mine
            assert store.sync_to_duckdb() == 0
        assert not paths.seal_request.exists()
        assert store.get_stats()["record_count"] == 1
        assert store.sync_to_duckdb() == 1


def test_what_several_processes_dropped(paths: SessionPaths, workers: Workers) -> None:
    """It is added up."""
    workers.run("use_journal", paths)
    with opened(paths) as store, Journal.open(paths.journal) as journal:
        journal.append([], {"queue_full": 4, "disk": 1})
        assert store.get_stats()["dropped"] == {"queue_full": 5, "disk": 1}


def test_two_stores_of_one_session(paths: SessionPaths) -> None:
    """In one process they share the journal, and both can seal."""
    with opened(paths) as one, opened(paths, auto_sync=False) as other:
        one.write_record("tool", "a", "one")
        other.write_record("tool", "b", "other")
        assert other.sync_to_duckdb() == 1
        assert one.sync_to_duckdb() == 1
        assert one.get_stats()["record_count"] == other.get_stats()["record_count"] == 2
        one.close()
        other.write_record("tool", "c", "after")
    assert stored_names(paths) == {"one": 1, "other": 1, "after": 1}


def test_threads(paths: SessionPaths) -> None:
    """Writing, asking and sealing from eight threads at once loses nothing and doubles nothing."""
    failures = []
    with opened(paths) as store:

        def work(thread: int) -> None:
            try:
                for number in range(400):
                    store.write_record("tool", f"{thread}-{number}", f"{thread}", parent_context=f"{thread}")
                    if number % 200 == 100 + thread:
                        store.get_stats()
                    if number == 300 and thread == 0:
                        store.sync_to_duckdb()
            except Exception as error:  # noqa: BLE001
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert store.get_stats()["record_count"] == 3200
        assert store.query_analytics("SELECT count(DISTINCT id) AS n FROM records") == [{"n": 3200}]
    assert stored_names(paths) == {str(number): 400 for number in range(8)}


def test_a_long_question_keeps_no_writer_waiting(paths: SessionPaths) -> None:
    """Records are taken while another thread waits for its answer."""
    with opened(paths) as store:
        store.write_record("tool", "a", "first")
        asked = threading.Thread(
            target=lambda: store.query_analytics("SELECT count(*) FROM range(400000000) t(i) WHERE i % 7 = 1")
        )
        asked.start()
        written = 0
        while asked.is_alive():
            store.write_record("tool", "b", "more")
            written += 1
            time.sleep(0.001)
        assert written > 20


def test_forks(paths: SessionPaths, workers: Workers) -> None:
    """Each record is there once, whoever wrote it, and parent and children end as they should."""
    said = workers.run("fork_with_store", paths)
    assert [line for line in said if line.startswith("status")] == ["status 0"] * 3
    written = {"0-0-0", "0-1-0", "0-2-0", "0-3-0", "0-9-0", "1-0-0", "2-0-0", "3-0-0"}
    assert stored_names(paths) == dict.fromkeys(written, 1)
    assert problems(paths) == []


@pytest.mark.slow
def test_forks_while_it_seals(paths: SessionPaths, workers: Workers) -> None:
    """Sealing gives way: children end with status 0 and write nothing to standard error, and nothing is lost."""
    said = workers.run("fork_while_sealing", paths, forks=12)
    assert said[-1] == "statuses {0} stderr 0"
    assert len(paths.segments()) > 0
    found = stored_names(paths)
    assert set(found.values()) == {1}
    assert {name.rpartition("-")[0] for name in found} == set(said[:-1])


_NO_TIMES: list[dict[str, Any]] = [
    {"duration_ms": math.nan},
    {"duration_ms": math.inf},
    {"duration_ms": -math.inf},
    {"duration_ms": 1e300},
    {"duration_ms": "5"},
    {"timestamp": math.nan},
    {"timestamp": math.inf},
    {"timestamp": 1_700_000_000_000.0},  # milliseconds
    {"timestamp": -1e11},
    {"timestamp": "now"},
]


@pytest.mark.parametrize("times", _NO_TIMES)
def test_times_that_make_no_sense(paths: SessionPaths, times: dict[str, Any]) -> None:
    """They are refused at once; what comes before and after is kept."""
    with opened(paths, auto_sync=False) as store:
        store.write_record("tool", "a", "before")
        with pytest.raises(ConfigurationError, match="seconds since 1970"):
            store.write_record("tool", "b", "bad", **times)
        store.write_record("tool", "c", "after")
        store.flush()
    assert stored_names(paths) == {"before": 1, "after": 1}


class _Odd:
    def __repr__(self) -> str:
        raise RuntimeError("no text")

    __str__ = __repr__


def test_values_of_any_kind(paths: SessionPaths) -> None:
    """Whatever is given as data is kept somehow; nothing of it keeps others from being written, sealed or read."""
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]
    odd: list[Any] = [None, b"\xff", "\ud800", "nul\0", math.nan, 2**200, {1: 2}, {(1, 2): 3}, {"a": b"x"}]
    odd += [deep, _Odd(), object(), {1, 2}, open, "x" * 2_000_000, {"self": None}]
    odd[-1]["self"] = odd[-1]
    with opened(paths) as store:
        for number, value in enumerate(odd):
            store.write_record(
                "tool", f"c{number}", "x", request_data=value, response_data=value, metadata=value, duration_ms=1.0
            )
            store.write_record("tool", "m", "x", memory_mb=value, cpu_percent=value)
        rows = 2 * len(odd)
        for call in (store.flush, store.sync_to_duckdb, store.get_performance_summary, store.get_error_records):
            call()
            assert len(store.query_analytics("SELECT * FROM records")) == rows
    with SessionReader(paths.base_path, ["s"]) as reader:
        reader.refresh()
        assert len(list(reader.records())) == rows


def test_names_of_any_kind(paths: SessionPaths) -> None:
    """What should be text is taken as its text."""
    with opened(paths) as store:
        values: list[Any] = [5, None, 1.5, "\ud800", "", "nul\0", "x" * 10_000, ("a", 1), _Odd()]
        for value in values:
            store.write_record(value, value, value, parent_context=value, error=value, status=value, variant_id=value)
        store.sync_to_duckdb()
        names = [row["context_name"] for row in store.query_analytics("SELECT context_name FROM records")]
        expected = ["5", "None", "1.5", "?", "", "nul\0", "x" * 10_000, "('a', 1)", "(_Odd: has no text)"]
        assert sorted(names) == sorted(expected)


def test_bad_sessions(tmp_path: Path) -> None:
    """An id that can't be one changes nothing."""
    bad: Any
    for bad in ("", "../x", "a/b", ".hidden", "a b", "é", "x" * 129, None, 3, b"a", "state", "State"):
        with pytest.raises(InvalidSessionIdError, match="Choose another one"):
            DebugStore(bad, base_path=tmp_path / "data")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("size", [-1, 0, 1.5, "x", 1 << 70, []])
def test_bad_map_sizes(tmp_path: Path, size: Any) -> None:
    """A size that can't be one is said in one line, and changes nothing."""
    with pytest.raises(ConfigurationError, match=r"map_size.* such as 64MiB") as raised:
        DebugStore("s", base_path=tmp_path / "data", map_size=size)
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("path", [3, b"x", "a\0b", ""])
def test_bad_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: Any) -> None:
    """So is a path that can't be one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="base_path can't be"):
        DebugStore("s", base_path=path)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_can_not_be_written(tmp_path: Path) -> None:
    """It is an error with the path in it."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match="file"):
        DebugStore("s", base_path=tmp_path / "file")


def fill(filler: Path) -> None:
    """Write a file until the disk has no space."""
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"x" * 65_536):
            pass


def test_a_full_disk(disk: Path) -> None:
    """The caller learns of it, the records are kept in memory, and are written when there is space."""
    paths = SessionPaths(disk, "s")
    filler = disk / "filler"
    with opened(paths, auto_sync=False) as store:
        store.write_record("tool", "a", "x")
        store.flush()
        fill(filler)
        for number in range(300):
            store.write_record("tool", str(number), "x", request_data=f"{number**99:x}" * 30)
        with pytest.raises(JournalWriteError):
            store.flush()
        filler.unlink()
        store.flush()
        with Journal.open(paths.journal) as journal:
            assert journal.stats().span_count == 301
    assert stored_names(paths) == {"x": 301}


def test_closing_on_a_full_disk(disk: Path) -> None:
    """It says so, and lets go of the session all the same."""
    paths = SessionPaths(disk, "s")
    store = opened(paths)
    store.write_record("tool", "a", "x", request_data=f"{7**99999:x}" * 40)
    filler = disk / "filler"
    fill(filler)
    with pytest.raises(JournalWriteError):
        store.close()
    assert not paths.is_live()
    filler.unlink()
    with opened(paths) as again:
        again.write_record("tool", "b", "y")
    assert stored_names(paths) == {"y": 1}
