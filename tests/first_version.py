"""Segments and archives of the first version of the format, made of those of this one."""

from __future__ import annotations

from pathlib import Path

import duckdb

from otel_debugstore_exporters.segment import connect, quoted

_LACKS = {"rollup": "first_s, last_s", "traces": "root_start_ns"}


def make_first_version(path: Path) -> None:
    """Rewrite a segment as one of the first version."""
    with connect() as connection:
        connection.execute(f"ATTACH {quoted(path)} AS old")
        connection.execute("DROP TABLE old.rollup_total")
        for table, columns in _LACKS.items():
            for column in columns.split(", "):
                connection.execute(f"ALTER TABLE old.{table} DROP COLUMN {column}")
        connection.execute("UPDATE old.segment SET version = 1")
        connection.execute("DETACH old")


def make_first_version_archive(archive: Path) -> None:
    """Rewrite an archive as one of the first version."""
    (archive / "rollup_total.parquet").unlink()
    changes = {table: f"* EXCLUDE ({columns})" for table, columns in _LACKS.items()} | {
        "segment": "* REPLACE (1::INTEGER AS version)"
    }
    for table, selected in changes.items():
        path = quoted(archive / f"{table}.parquet")
        with duckdb.connect() as connection:
            connection.execute(f"CREATE TABLE old AS SELECT {selected} FROM read_parquet({path})")
            connection.execute(f"COPY old TO {path} (FORMAT parquet)")
