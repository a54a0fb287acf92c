"""A question over many sessions is answered from those that can be read; the others are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest

from commands import refused, run
from otel_debugstore.errors import CorruptDataError
from otel_debugstore_exporters.reader import SessionReader
from sessions import span, write_journal, write_sealed
from stored import count_spans


def truncate(base: Path) -> None:
    path = base / "broken.duckdb"
    path.write_bytes(path.read_bytes()[:1000])


def of_the_future(base: Path) -> None:
    with duckdb.connect(str(base / "broken.duckdb")) as connection:
        connection.execute("UPDATE segment SET version = 99")


def no_segment(base: Path) -> None:
    (base / "broken.duckdb").unlink()
    with duckdb.connect(str(base / "broken.duckdb")) as connection:
        connection.execute("CREATE TABLE mine (a INTEGER)")


def damage_journal(base: Path) -> None:
    write_journal(base, "broken", [span(9)])
    (base / "broken.lmdb" / "data.mdb").write_bytes(b"nonsense" * 1024)


BREAKING = {
    "doctor": truncate,
    "upgrade": of_the_future,
    "is not a segment": no_segment,
    "broken.lmdb": damage_journal,
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base path with the sessions `sealed`, `broken` (not yet) and `journal`, of a span each in one trace."""
    for number, session_id in enumerate(("sealed", "broken"), 1):
        write_sealed(tmp_path / "data", session_id, [span(number)])
    write_journal(tmp_path / "data", "journal", [span(3)])
    return tmp_path / "data"


@pytest.mark.parametrize("why", BREAKING)
def test_all_sessions_but_one(base: Path, why: str) -> None:
    """It is left out, which stands on standard error; by its name it is an error, as it is if there is no other."""
    BREAKING[why](base)
    ask = ("sql", "SELECT session, count(*) AS n FROM spans GROUP BY ALL ORDER BY ALL", "--data-dir", base)
    result = run(*ask, "--all-sessions", "--format", "json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == [{"session": "journal", "n": 1}, {"session": "sealed", "n": 1}]
    assert result.stderr.startswith("Session broken is left out: ")
    assert result.stderr.count("\n") == 1
    assert why in result.stderr
    assert why in refused(*ask, "--session", "broken")
    assert why in refused(*ask, "--session", "broken", "--session", "sealed")
    listed = json.loads(run("sessions", "--data-dir", base, "--format", "json").stdout)
    assert {row["session"]: row["state"] for row in listed} == {
        "sealed": "ended",
        "journal": "ended",
        "broken": "unreadable",
    }


def test_no_session_can_be_read(tmp_path: Path) -> None:
    """Then there is nothing to answer from."""
    write_sealed(tmp_path, "broken", [span(1)])
    truncate(tmp_path)
    assert "doctor" in refused("top", "--all-sessions", "--data-dir", tmp_path)


@pytest.mark.parametrize("breaking", [truncate, damage_journal])
def test_a_reader_goes_on_without_it(base: Path, breaking: Callable[[Path], None]) -> None:
    """Told once, it counts nothing of that session any more, also what it had read; others go on, and may begin."""
    told = list[tuple[str, str]]()
    with SessionReader(base, on_unreadable=lambda session_id, error: told.append((session_id, str(error)))) as reader:
        assert count_spans(reader) == 3
        breaking(base)
        write_sealed(base, "broken", [span(4)])
        write_journal(base, "sealed", [span(5)])
        write_journal(base, "later", [span(6)])
        for _ in range(2):
            assert count_spans(reader) == 4
        assert [session_id for session_id, _ in told] == ["broken"]
        assert sorted(reader.session_ids) == ["journal", "later", "sealed"]
    with SessionReader(base) as reader, pytest.raises(Exception, match="broken"):
        count_spans(reader)


def test_whoever_does_not_ask_is_stopped(base: Path) -> None:
    """A program that reads all sessions gets no answer that lacks one without its knowledge."""
    truncate(base)
    with SessionReader(base) as reader, pytest.raises(CorruptDataError, match="broken"):
        count_spans(reader)
