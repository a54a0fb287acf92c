"""A session is named by its file, whatever its rows say: it may have been copied or renamed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import run_well
from otel_debugstore.outbox import CallCount
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.archive import archive_session
from otel_debugstore_exporters.batch import batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.merging import merge
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.seal import seal_if_idle
from otel_debugstore_exporters.session import SessionPaths
from sessions import START_NS, span, write_sealed

BY_SESSION = {
    "spans": "SELECT session, count(*) FROM spans GROUP BY ALL ORDER BY ALL",
    "traces": "SELECT session, count(*) FROM traces GROUP BY ALL ORDER BY ALL",
    "counters": "SELECT session, count(*) FROM counters GROUP BY ALL ORDER BY ALL",
}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A base path with the session `old`: a segment with a span and a counter, and one with another span."""
    base = tmp_path / "data"
    batch = batch_from_records([span(1)], 1)
    batch.counts = [CallCount(START_NS, START_NS + 1, "function", "f", 2, 0, 10)]
    with Journal.open(SessionPaths(base, "old").journal) as journal:
        journal.append([codec.encode(batch, START_NS)])
    seal_if_idle(SessionPaths(base, "old"))
    write_sealed(base, "old", [span(2)])
    shutil.rmtree(base / "old.lmdb")
    return base


def archive(paths: SessionPaths) -> None:
    archive_session(paths, remove=True)


@pytest.mark.parametrize("made", [None, merge, archive])
def test_it_is_named_by_its_file(base: Path, made: Callable[[SessionPaths], Any] | None) -> None:
    """Alone and beside others; of segments that were written, merged or archived."""
    if made is not None:
        made(SessionPaths(base, "old"))
    for path in list(base.iterdir()):
        path.rename(path.with_name(path.name.replace("old", "new")))
    with SessionReader(base, ["new"]) as reader:
        assert {table: reader.query(sql).rows for table, sql in BY_SESSION.items()} == {
            "spans": [("new", 2)],
            "traces": [("new", 1)],
            "counters": [("new", 1)],
        }
        assert reader.query(f"SELECT DISTINCT session FROM {reader.table('counters')}").rows == [("new",)]
    write_sealed(base, "other", [span(3, trace=2)])
    with SessionReader(base) as reader:
        assert reader.query(BY_SESSION["spans"]).rows == [("new", 2), ("other", 1)]
        assert reader.query(BY_SESSION["traces"]).rows == [("new", 1), ("other", 1)]


@pytest.mark.parametrize("made", [merge, archive])
def test_what_is_made_of_it_has_its_name(base: Path, made: Callable[[SessionPaths], Any]) -> None:
    """A renamed session that is merged or archived, and gets its old name back, has that one again."""
    for path in list(base.iterdir()):
        path.rename(path.with_name(path.name.replace("old", "new")))
    made(SessionPaths(base, "new"))
    for name in ("new", "old"):
        with SessionReader(base, [name]) as reader:
            for sql in BY_SESSION.values():
                assert [session for session, _ in reader.query(sql).rows] == [name]
        for path in list(base.iterdir()):
            path.rename(path.with_name(path.name.replace("new", "old")))


def test_commands_agree(base: Path) -> None:
    """`sessions`, `top` and `sql` count a copy and the original as two sessions of the same spans."""
    merge(SessionPaths(base, "old"))
    (segment,) = base.glob("*.duckdb")
    shutil.copy(segment, base / "copy.duckdb")
    as_json = ("--format", "json", "--data-dir", base)
    listed = json.loads(run_well("sessions", *as_json))
    assert {row["session"]: row["span_count"] for row in listed} == {"copy": 2, "old": 2}
    for table in ("spans", "traces"):
        found = json.loads(run_well("sql", BY_SESSION[table], "--all-sessions", *as_json))
        assert [row["session"] for row in found] == ["copy", "old"]
    (top,) = json.loads(run_well("top", "--by", "session", "--session", "copy", *as_json))
    assert top["session"] == "copy"
