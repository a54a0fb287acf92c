"""Compiled SQL that is kept in files: the next process needs no Ibis, and what is in the files is never trusted."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_debugstore_analysis import query
from otel_debugstore_analysis.query import _kept, tables
from otel_debugstore_analysis.query._selection import Filter
from otel_debugstore_analysis.query._top import _slowest
from otel_debugstore_exporters.reader import SessionReader
from sessions import span, write_sealed

COMMAND = """
import sys
from otel_debugstore_analysis.cli import main
try:
    main(["--data-dir", sys.argv[1], "performance", "--format", "csv"])
finally:
    print("ibis" in sys.modules, file=sys.stderr)
"""


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Path]:
    """A directory in which SQL is kept for the time being, as if nothing had been compiled before."""
    tables.compiled.cache_clear()
    _kept.keep_in(tmp_path / "cache")
    yield tmp_path / "cache"
    _kept.keep_in(None)
    tables.compiled.cache_clear()


def slowest(base_path: Path) -> list[str]:
    with SessionReader(base_path) as reader:
        return [row["name"] for row in query.slowest(query.DuckDBEngine(reader)).dicts()]


def test_a_command_that_ran_before_needs_no_ibis(tmp_path: Path) -> None:
    """Same answer, and Ibis isn't imported any more."""
    write_sealed(tmp_path / "data", "s", [span(1, "work"), span(2, "load", parent=1, duration_ms=0.5)])
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    runs = [
        subprocess.run(
            [sys.executable, "-c", COMMAND, str(tmp_path / "data")],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    assert "work" in runs[0].stdout
    assert [run.stderr.strip().splitlines()[-1] for run in runs] == ["True", "False"]


def test_what_was_kept_is_what_was_compiled(kept: Path) -> None:
    """SQL, columns, what is read of tables, and for ClickHouse the bounds of their places."""
    for dialect in ("duckdb", "clickhouse"):
        shape = Filter(since=True, fields=("k",), counts=(2,)), 20
        compiled = tables.compiled(dialect, _slowest, *shape)
        assert _kept.load(dialect, _slowest, shape) == compiled
        assert _kept.load(dialect, _slowest, (Filter(since=True), 20)) is None


def test_damaged_files_are_compiled_again(kept: Path, tmp_path: Path) -> None:
    """Empty, cut off, of another query: the answer is the same."""
    write_sealed(tmp_path / "data", "s", [span(1, "work")])
    assert slowest(tmp_path / "data") == ["work"]
    (path,) = kept.rglob("*.json")
    whole = path.read_text()
    for text in ("", whole[:40], "[]", "null", whole.replace("duckdb", "clickhouse", 1)):
        path.write_text(text)
        tables.compiled.cache_clear()
        assert slowest(tmp_path / "data") == ["work"]
        assert path.read_text() == whole


def test_a_place_that_cant_be_written(tmp_path: Path) -> None:
    """Then nothing is kept, and the answer is the same."""
    write_sealed(tmp_path / "data", "s", [span(1, "work")])
    (tmp_path / "file").write_text("not a directory")
    tables.compiled.cache_clear()
    _kept.keep_in(tmp_path / "file" / "cache")
    try:
        assert slowest(tmp_path / "data") == ["work"]
    finally:
        _kept.keep_in(None)


def test_files_of_other_versions_are_removed(kept: Path, tmp_path: Path) -> None:
    """What another version of the code kept goes when this one begins to."""
    write_sealed(tmp_path / "data", "s", [span(1, "work")])
    (kept / "sql-0000000000000000").mkdir(parents=True)
    slowest(tmp_path / "data")
    assert [path.name for path in kept.iterdir()] != ["sql-0000000000000000"]
    assert len(list(kept.iterdir())) == 1
