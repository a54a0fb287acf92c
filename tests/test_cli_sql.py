"""What users query is what docs/schema.md says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from commands import run_well
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
