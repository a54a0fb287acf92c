"""SQL of strangers and of our own, the view `otel_traces`, and attributes of any name."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from otel_debugstore.errors import (
    QueryError,
)
from otel_debugstore_exporters.batch import Event, Link, Resource
from otel_debugstore_exporters.query_result import query_errors
from otel_debugstore_exporters.reader import SessionReader
from sessions import hex_id, span, write_journal, write_sealed


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "data"


_ALLOWED = {
    "SELECT count(*) FROM spans": [(2,)],
    "FROM spans SELECT count(*);": [(2,)],
    "WITH x AS (SELECT 1 AS a) SELECT a FROM x -- done": [(1,)],
    "VALUES (1), (2)": [(1,), (2,)],
    "SELECT attributes['a']::INTEGER FROM spans ORDER BY 1": [(1,), (2,)],
    "SELECT 'it''s; DROP TABLE x'": [("it's; DROP TABLE x",)],
    "TABLE spans LIMIT 0": [],
    "(SELECT 1) UNION ALL FROM range(2, 3)": [(1,), (2,)],
    "DESCRIBE SELECT 1 AS a": [("a", "INTEGER", "YES", None, None, None)],
    "SELECT column_name, count FROM (SUMMARIZE SELECT 1 AS a)": [("a", 1)],
    "SELECT name FROM (SHOW TABLES) WHERE name = 'spans'": [("spans",)],
    "SELECT * FROM query('SELECT 1')": [(1,)],
    "UNPIVOT (SELECT 1 AS a, 2 AS b) ON a, b": [("a", 1), ("b", 2)],
    "PIVOT (SELECT 1 AS a, 2 AS b) ON a IN (1) USING sum(b)": [(2,)],
    "PIVOT (SELECT session, kind FROM spans) ON kind USING count(*)": [("s", 2)],
    "-- by kind\nFROM (PIVOT (SELECT session, kind FROM spans) ON kind) SELECT 1": [(1,)],
    "WITH x AS (PIVOT (SELECT session, kind FROM spans) ON kind USING count(*)) SELECT session FROM x": [("s",)],
}


@pytest.fixture(scope="module")
def two_spans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("two spans")
    write_sealed(base, "s", [span(1, attributes={"a": 1})])
    write_journal(base, "s", [span(2, attributes={"a": 2})])
    return base


def test_untrusted_queries(two_spans: Path) -> None:
    """One reader answers any number of SELECTs, with the columns' names, and can't be refreshed any more."""
    with SessionReader(two_spans, ["s"]) as reader:
        for sql, rows in _ALLOWED.items():
            assert reader.query_untrusted(sql).rows == rows
        assert "PROJECTION" in str(reader.query_untrusted("EXPLAIN SELECT count(*) FROM spans").rows).upper()
        assert reader.query_untrusted("EXPLAIN ANALYZE SELECT count(*) FROM spans").rows
        limited = reader.query_untrusted("SELECT span_id AS id FROM spans", limit=1)
        assert (limited.columns, limited.types, len(limited.rows), limited.truncated) == (
            ("id",),
            ("VARCHAR",),
            1,
            True,
        )
        with pytest.raises(QueryError, match="open another one"):
            reader.query("SELECT 1")


_FORBIDDEN = [
    "",
    "-- nothing",
    ";",
    "SELECT 1; SELECT 2",
    "SELEC 1",
    "SELECT * FROM nothing",
    "SELECT 'a'::INTEGER",
    "SELECT '\ud800'",
    "DELETE FROM tail.spans",
    "UPDATE tail.spans SET name = 'x'",
    "INSERT INTO tail.code VALUES ('a', 'b', 'c', 1, 'd', 'e')",
    "CREATE TABLE memory.t AS SELECT 1",
    "DROP VIEW spans",
    "ALTER TABLE tail.spans DROP name",
    "TRUNCATE tail.spans",
    "EXPLAIN ANALYZE DELETE FROM tail.spans",
    "explain /* */ analyse DROP VIEW spans",
    "EXPLAIN (ANALYZE) DELETE FROM tail.spans",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{out}'",
    "COPY (SELECT 1) TO '{out}'",
    "EXPORT DATABASE '{out}'",
    "ATTACH '{out}' AS other",
    "DETACH tail",
    "USE tail",
    "SET threads = 1",
    "SET enable_external_access = true",
    "RESET ALL",
    "PRAGMA database_list",
    "CALL enable_logging(storage = 'file', storage_path = '{out}')",
    "SELECT * FROM enable_logging(storage = 'file', storage_path = '{out}')",
    "SELECT * FROM enable_profiling(save_location = '{out}')",
    "INSTALL httpfs",
    "LOAD httpfs",
    "BEGIN",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "CHECKPOINT",
    "VACUUM",
    "SELECT * FROM read_csv('{here}')",
    "SELECT * FROM read_text('{here}')",
    "SELECT * FROM read_blob('{here}')",
    "SELECT * FROM '{here}'",
    "SELECT * FROM glob('/*')",
    "SELECT * FROM sniff_csv('{here}')",
    "SELECT * FROM read_parquet('https://127.0.0.1:9/x.parquet')",
    "SELECT * FROM duckdb_secrets()",
    "SELECT getenv('HOME')",
    "SELECT * FROM query('DROP VIEW spans')",
    "CREATE TABLE memory.t AS PIVOT spans ON kind USING count(*)",
    "CREATE TEMP TABLE t AS PIVOT spans ON kind USING count(*)",
    "COPY (PIVOT spans ON kind USING count(*)) TO '{out}'",
    "EXPLAIN ANALYZE COPY (PIVOT spans ON kind USING count(*)) TO '{out}'",
    "WITH x AS (PIVOT spans ON kind USING count(*)) INSERT INTO tail.code SELECT 'a', 'b', 'c', 1, 'd', 'e' FROM x",
    "SELECT * FROM (PIVOT (FROM read_csv('{here}')) ON column0)",
    "EXPLAIN PIVOT spans ON kind USING count(*)",
    "WITH gone AS (DELETE FROM tail.spans RETURNING *) SELECT * FROM gone",
]


@pytest.mark.parametrize("sql", _FORBIDDEN)
def test_forbidden_queries(two_spans: Path, tmp_path: Path, sql: str) -> None:
    """SQL that is wrong, writes, or reaches for files or the network: one line says so, and nothing has changed."""
    out, here = tmp_path / "out", Path(__file__)
    before = {path: path.read_bytes() for path in two_spans.rglob("*.duckdb")}
    with SessionReader(two_spans, ["s"]) as reader:
        with pytest.raises(QueryError) as raised:
            reader.query_untrusted(sql.format(out=out, here=here))
        assert "\n" not in str(raised.value)
        assert reader.query_untrusted("SELECT count(*), count(DISTINCT name) FROM spans").rows == [(2, 1)]
    assert not out.exists()
    assert {path: path.read_bytes() for path in two_spans.rglob("*.duckdb")} == before


def test_a_query_that_takes_too_long(two_spans: Path) -> None:
    """It is stopped, and the reader answers the next one."""
    with SessionReader(two_spans, ["s"]) as reader:
        began = time.monotonic()
        with pytest.raises(QueryError, match="narrow it down"):
            reader.query_untrusted("SELECT count(*) FROM range(1000000) a, range(1000000) b", timeout_seconds=0.3)
        assert time.monotonic() - began < 60
        assert reader.query_untrusted("SELECT 1").rows == [(1,)]


def test_times_of_nanoseconds(two_spans: Path) -> None:
    """All nine digits of them arrive, as text; wherever they stand in a result, and whatever stands around it."""
    nanosecond = "make_timestamp_ns(1700000000123456789)"
    text = "2023-11-14T22:13:20.123456789"
    asked = {
        f"SELECT {nanosecond} AS t, 1 AS t; -- twice": [(text, 1)],
        f"SELECT [{nanosecond}, NULL]": [([text, None],)],
        f"SELECT {{'TIMESTAMP_NS': {nanosecond}, 'b c': 'x'}}": [({"TIMESTAMP_NS": text, "b c": "x"},)],
        f'SELECT MAP {{\'TIMESTAMP_NS\': [{nanosecond}]}} AS "it\'s """': [({"TIMESTAMP_NS": [text]},)],
        "FROM range(3) SELECT make_timestamp_ns(range) ORDER BY range DESC LIMIT 1": [
            ("1970-01-01T00:00:00.000000002",)
        ],
        'SELECT "Timestamp", "Events.Timestamp" FROM otel_traces LIMIT 1': [("2023-11-14T22:13:20.000000000", [])],
        f"SELECT MAP {{{nanosecond}: 1}}, row(1, {nanosecond}), array_value({nanosecond})": [
            ({text: 1}, (1, text), (text,))
        ],
        "SELECT NULL::TIMESTAMP_NS[], NULL::STRUCT(a TIMESTAMP_NS), NULL::MAP(INTEGER, TIMESTAMP_NS)": [
            (None, None, None)
        ],
        "SELECT 'TIMESTAMP_NS'": [("TIMESTAMP_NS",)],
    }
    with SessionReader(two_spans, ["s"]) as reader:
        for sql, rows in asked.items():
            assert reader.query_untrusted(sql).rows == rows
        limited = reader.query_untrusted(f"SELECT {nanosecond} AS t FROM range(9)", limit=2)
        assert (limited.columns, len(limited.rows), limited.truncated) == (("t",), 2, True)


def test_wrong_queries_of_our_own(two_spans: Path) -> None:
    """Also these are errors of ours, and the reader goes on."""
    with SessionReader(two_spans, ["s"]) as reader:
        for sql in ("SELEC", "SELECT * FROM nothing", "SELECT '\ud800'", "SELECT ?"):
            with pytest.raises(QueryError):
                reader.query(sql)
        assert reader.query("SELECT count(*) FROM spans WHERE span_id = ?", [hex_id(1)]).rows == [(1,)]
        assert reader.query("SELECT count(*) FROM spans WHERE span_id = $id", {"id": hex_id(1)}).rows == [(1,)]


_KEYS = [
    "plain",
    "a.b",
    "a.b.c",
    'quo"te',
    "it's",
    "nul\0in",
    "[0]",
    "a[0].b",
    "$.x",
    "ü✓",
    "new\nline",
    "back\\slash",
    "%s",
    "{x}",
    " ",
    "a'] AS x, s.attributes['plain",
    "--",
    ";",
    "x" * 300,
]


_OTEL_TRACES = {
    "Timestamp": "TIMESTAMP_NS",
    "TraceId": "VARCHAR",
    "SpanId": "VARCHAR",
    "ParentSpanId": "VARCHAR",
    "TraceState": "VARCHAR",
    "SpanName": "VARCHAR",
    "SpanKind": "VARCHAR",
    "ServiceName": "VARCHAR",
    "ResourceAttributes": "MAP(VARCHAR, VARCHAR)",
    "ScopeName": "VARCHAR",
    "ScopeVersion": "VARCHAR",
    "SpanAttributes": "MAP(VARCHAR, VARCHAR)",
    "Duration": "UBIGINT",
    "StatusCode": "VARCHAR",
    "StatusMessage": "VARCHAR",
    "Events.Timestamp": "TIMESTAMP_NS[]",
    "Events.Name": "VARCHAR[]",
    "Events.Attributes": "MAP(VARCHAR, VARCHAR)[]",
    "Links.TraceId": "VARCHAR[]",
    "Links.SpanId": "VARCHAR[]",
    "Links.TraceState": "VARCHAR[]",
    "Links.Attributes": "MAP(VARCHAR, VARCHAR)[]",
}
"""What the Collector's ClickHouse exporter creates, in the types that DuckDB has for it, in order."""


def test_the_collectors_columns(base: Path) -> None:
    """Names and types in the order of its table, and attributes of any name as text; null is no text, as there."""
    attributes: dict[str, Any] = {
        key: f"v{number}" for number, key in enumerate([*_KEYS, "", "*", "~1", "/", "\\", '\\"'])
    }
    attributes |= {"whole": 1, "list": [1, "a"], "map": {"k": True}, "null": None}
    expected = attributes | {"whole": "1", "list": '[1,"a"]', "map": '{"k":true}', "null": ""}
    attributes |= {"double": 1.0, "doubles": [1.0, 2.5, -3.0], "nested": {"k.0": [{"x": 10.0}]}, "small": 1e-7}
    expected |= {"double": "1", "doubles": "[1,2.5,-3]", "nested": '{"k.0":[{"x":10}]}', "small": "1e-7"}
    attributes |= {"texts": ["1.0", 'a",1.0]', "\\", "1.0,"], "a.0": "1.0", "-0.05": -0.05}
    expected |= {"texts": r'["1.0","a\",1.0]","\\","1.0,"]', "a.0": "1.0", "-0.05": "-0.05"}
    record = span(1, attributes=attributes)
    record = replace(
        record,
        events=(Event(5, "e", attributes),),
        links=(Link(b"\1" * 16, b"\2" * 8, attributes=attributes),),
        resource=Resource(attributes),
    )
    write_sealed(base, "s", [record])
    write_journal(base, "s", [record])
    with SessionReader(base, ["s"]) as reader:
        result = reader.query("SELECT * FROM otel_traces")
        assert dict(zip(result.columns, result.types, strict=True)) == _OTEL_TRACES
        assert list(result.columns) == list(_OTEL_TRACES)
        for row in (dict(zip(result.columns, values, strict=True)) for values in result.rows):
            assert row["SpanAttributes"] == row["ResourceAttributes"] == expected
            assert row["Events.Attributes"] == row["Links.Attributes"] == [expected]


def test_attributes_of_any_name(base: Path) -> None:
    """An attribute is found by exactly its name, and nothing in a name is SQL."""
    attributes = {key: number for number, key in enumerate(_KEYS)} | {"a": {"b": 99, "c": [1]}}
    write_sealed(base, "s", [span(1, attributes=attributes)])
    write_journal(base, "s", [span(2, attributes=attributes)])
    with SessionReader(base, ["s"]) as reader:
        reader.refresh()
        for number, key in enumerate(_KEYS):
            sql = reader.spans_sql(("span_id",), {key: (key, "BIGINT")})
            result = reader.query(f"{sql} ORDER BY span_id")
            assert result.columns == ("span_id", key)
            assert result.rows == [(hex_id(1), number), (hex_id(2), number)]
        missing = reader.spans_sql(
            ("name",), {"x": ("not there", "BIGINT"), "y": ("plain", "BOOLEAN"), "z": ("a", "BIGINT")}
        )
        assert set(reader.query(missing).rows) == {("work", None, False, None)}


def test_ctrl_c_is_no_error_of_a_query() -> None:
    """DuckDB's client has two ways to say it; both go on as they are."""
    for error in (RuntimeError("Query interrupted"), duckdb.InterruptException("Interrupted!")):
        with pytest.raises(type(error)) as raised, query_errors():
            raise error
        assert raised.value is error
    with pytest.raises(QueryError, match="Query cancelled"), query_errors():
        raise RuntimeError("Query cancelled")
