"""What users query is what docs/schema.md says; and a query that takes too long or too much is ended."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from commands import DEBUGSTORE, environment, refused, run_well, start
from otel_debugstore_exporters import schema
from sessions import span, write_sealed

DOCUMENT = (Path(__file__).parents[1] / "docs" / "schema.md").read_text()
VIEWS = ("otel_traces", "records", "performance_summary")


def section(title: str) -> str:
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found, f"docs/schema.md has no section {title}"
    return found[1]


def columns(tmp_path: Path, table: str) -> dict[str, str]:
    write_sealed(tmp_path, "s", [span(1)])
    sql = (
        f"SELECT column_name, data_type FROM duckdb_columns() WHERE table_name = '{table}' AND database_name = 'memory'"
    )
    rows = json.loads(run_well("sql", sql, "--data-dir", tmp_path, "--format", "json", "--limit", "0"))
    return {row["column_name"]: row["data_type"] for row in rows}


@pytest.mark.parametrize("table", schema.TABLES)
def test_every_column_of_a_table_is_documented(table: str) -> None:
    """docs/schema.md names the columns of each table in order, with their types."""
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", section(f"`{table}`"), re.MULTILINE)
    kinds = {name: "STRUCT[]" if kind.startswith("STRUCT") else kind for name, kind in schema.TABLES[table].items()}
    assert dict(rows) == kinds
    assert [name for name, _ in rows] == list(kinds)


@pytest.mark.parametrize("table", [table for table in schema.TABLES if table != "segment"])
def test_tables_that_users_query_have_these_columns(tmp_path: Path, table: str) -> None:
    """In `debugstore sql` each table has the documented columns but `exact`."""
    assert list(columns(tmp_path, table)) == [name for name in schema.TABLES[table] if name != "exact"]


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_of_a_view_is_documented(tmp_path: Path, view: str) -> None:
    """docs/schema.md names the columns of each view in order."""
    names = re.findall(r"`([\w.]+)`", section(f"View `{view}`"))
    assert [name for name in names if name != "records" or view == "records"] == list(columns(tmp_path, view))


def test_ctrl_c_ends_a_query(tmp_path: Path) -> None:
    """While DuckDB computes: the process ends with 130, long before the query would."""
    write_sealed(tmp_path, "s", [span(1)])
    endless = "SELECT count(*) FROM spans, range(1000000000) a, range(1000000000) b WHERE a.range * b.range = 7"
    with start("sql", endless, "--data-dir", tmp_path, "--timeout", "3600") as process:
        try:
            seen = psutil.Process(process.pid)
            while sum(seen.cpu_times()[:2]) < 4:  # all that comes before the query takes one
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, said.strip()) == (130, "")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to the memory that it may take")
def test_a_query_that_takes_too_much_memory(tmp_path: Path) -> None:
    """It fails, and so does one whose rows take too much; in a process of its own, which the mistake would kill."""
    write_sealed(tmp_path, "s", [span(1)])
    for sql in ("SELECT length(repeat('x', 4000000000))", "SELECT repeat('x', 100000000) || range FROM range(200)"):
        done = subprocess.run(
            [DEBUGSTORE, "--data-dir", tmp_path, "sql", sql], env=environment(), capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (2, "")
        assert re.fullmatch(r"debugstore: The query failed: .*[Mm]emory.*\n", done.stderr)


def test_programs_get_whole_times(tmp_path: Path) -> None:
    """JSON and CSV have the nine digits of a time in nanoseconds."""
    write_sealed(tmp_path, "s", [span(1, start_ns=1_700_000_000_123_456_789)])
    for output_format in ("json", "csv"):
        shown = run_well("sql", "SELECT Timestamp FROM otel_traces", "--data-dir", tmp_path, "--format", output_format)
        assert "2023-11-14T22:13:20.123456789" in shown


def test_an_empty_query(tmp_path: Path) -> None:
    """Is named as one."""
    write_sealed(tmp_path, "s", [span(1)])
    assert "is empty" in refused("sql", " ; ", "--data-dir", tmp_path)
