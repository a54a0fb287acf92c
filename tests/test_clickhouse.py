"""ClickHouse gives the answers that the sessions give, and says what is wrong where it can't."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ibis
import ibis.expr.types as ir
import pytest

from commands import refused, run_well
from engines import ODD_ATTRIBUTES, Engines, assert_equal, assert_same, both, clickhouse_url, write_synthetic
from otel_debugstore.errors import QueryError
from otel_debugstore_analysis import query
from otel_debugstore_analysis.query import tables
from sessions import MS, START_NS, hex_id, span, write_sealed

EVERY = [
    pytest.param("engines", id="synthetic"),
    pytest.param("nezha", id="nezha"),
]


@pytest.fixture(params=EVERY)
def spans(request: pytest.FixtureRequest) -> Engines:
    """The synthetic spans, and the real ones."""
    found: Engines = request.getfixturevalue(request.param)
    return found


def sorted_rows(table: query.Table) -> query.Table:
    """Return a table in an order that says nothing: rows that are equal in what they were sorted by have none."""
    return query.Table(table.columns, sorted(table.rows, key=repr), table.left_out, table.notes)


def test_every_column_of_every_span(spans: Engines) -> None:
    """All scalar columns, and attributes of every kind as text, are those that the sessions have."""
    keys = tuple(f"attributes.{key}" for key in (*ODD_ATTRIBUTES, "kind", "absent", "debugstore.layer.not"))

    def everything() -> ir.Table:
        found = tables.spans(keys)
        return found.select(*found.columns).order_by("session", "trace_id", "span_id", "pid", "duration_ns")

    rows = assert_same(spans, lambda engine: tables.run(engine, everything))
    assert len(rows) >= 24


def test_traces(spans: Engines) -> None:
    """A row a trace and session, also where a trace has no root, or no start."""

    def everything() -> ir.Table:
        return tables.traces().order_by("trace_id", "session")

    assert_same(spans, lambda engine: tables.run(engine, everything))


@pytest.mark.parametrize("order", ["total", "self", "count", "errors", "p95"])
@pytest.mark.parametrize(
    "by", ["component", "layer", "service", "session", "kind", "pid", "status", ("component", "service"), "whole"]
)
def test_top(engines: Engines, by: Any, order: str) -> None:
    """Counts, sums, percentiles, rates, with weights and with calls that were only counted."""
    assert_same(engines, lambda engine: sorted_rows(query.top(engine, by, order=order, limit=None)))


def test_top_of_real_spans(nezha: Engines) -> None:
    """The same of a shop's spans; in one order, since no two of its sums are equal."""
    for by in ("component", "service", ("service", "kind")):
        assert_same(nezha, partial(query.top, by=by, limit=5))


SELECTIONS = {
    "since": query.Selection(since_ns=START_NS + 20 * MS),
    "until": query.Selection(until_ns=START_NS + 3_001 * MS),
    "far": query.Selection(since_ns=-(2**63), until_ns=2**63 - 1),
    "window": query.Selection(START_NS + 10 * MS, START_NS + 60_000 * MS),
    "attribute": query.Selection(where={"attributes.kind": "json"}),
    "hostile": query.Selection(
        where={"name": "x' OR '1'='1", "attributes.'); DROP TABLE otel_traces; --": "{x:String}"}
    ),
    "number": query.Selection(where={"duration_ns": str(20 * MS)}),
    "fraction": query.Selection(where={"sample_weight": "4.0"}),
    "session": query.Selection(where={"session": "t"}),
    "very many values": query.Selection(
        where={
            "span_id": tuple(hex_id(number) for number in range(3, 300)),
            "name": ("parse", *(f"name {number}" for number in range(200))),
        }
    ),
}


HOSTILE_KEYS = [
    'x"; DROP TABLE otel_traces; --',
    "x\\",
    'x\\" AS y',
    "{x:String}",
    "%s %(x)s",
    "x`y",
    "x'y",
    "é\n",
    "a\tb",
    "%",
]


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_keys_are_never_sql(tmp_path: Path, key: str) -> None:
    """The key of an attribute may be any text: in groups, conditions and columns of a frame."""
    write_sealed(tmp_path, "s", [span(1, attributes={key: "v"}), span(2, "other", start_ms=1)])
    where = query.Selection(where={f"attributes.{key}": "v"})
    with both(tmp_path) as engines:
        assert_same(engines, lambda engine: sorted_rows(query.top(engine, ("component", f"attributes.{key}"))))
        assert assert_same(engines, partial(query.top, selection=where)).rows[0][:2] == ("work", 1)
        assert_same(engines, partial(query.frame, selection=where, columns=(f"attributes.{key}", "cpu_ns")))


@pytest.mark.parametrize("selection", SELECTIONS.values(), ids=SELECTIONS)
def test_selections(engines: Engines, selection: query.Selection) -> None:
    """Time ranges and conditions take the same spans; what is in them is a value and never SQL."""
    assert_same(engines, lambda engine: sorted_rows(query.top(engine, selection=selection, limit=None)))
    assert_same(engines, lambda engine: sorted_rows(query.slowest(engine, selection=selection, limit=100)))
    assert_same(engines, lambda engine: query.frame(engine, selection=selection))


@pytest.mark.parametrize("equal", [10, 99])
def test_slowest_of_equal_spans(tmp_path: Path, equal: int) -> None:
    """Those that began first, and of these by their ids, however many there are."""
    order = [n for remainder in range(7) for n in range(1, equal + 1) if n % 7 == remainder]
    spans = [span(n, trace=n, start_ms=n % 7, duration_ms=5) for n in range(1, equal + 1)]
    write_sealed(tmp_path, "s", [*spans, span(100, trace=100, duration_ms=4)])
    with both(tmp_path) as engines:
        found = assert_same(engines, lambda engine: query.slowest(engine, limit=5))
    assert [row["span_id"] for row in found.dicts()] == [hex_id(n) for n in order[:5]]


def test_slowest(nezha: Engines) -> None:
    """The longest spans and traces."""
    assert_same(nezha, lambda engine: query.slowest(engine, limit=10))
    assert_same(nezha, lambda engine: query.slowest_traces(engine, limit=10))


def test_trace(spans: Engines) -> None:
    """Every trace, found by its id or the beginning of it, as the same tree."""
    ids = [row[0] for row in query.slowest_traces(spans["duckdb"], limit=10).rows]
    assert ids
    for trace_id in ids:
        assert_same(spans, partial(query.trace, trace_id=trace_id))
        assert_same(spans, partial(query.trace, trace_id=trace_id, limit=2))


@pytest.mark.parametrize("by", ["component", "layer", "service"])
def test_percentiles_of_the_histogram(spans: Engines, by: str) -> None:
    """Buckets are computed on ClickHouse, and counted calls are in counts and sums there too."""
    assert_same(spans, lambda engine: sorted_rows(query.percentiles_from_rollup(engine, by, limit=None)))
    start = START_NS // 10**10 * 10**10
    window = {"since_ns": start, "until_ns": start + 10**10}
    assert_same(spans, lambda engine: sorted_rows(query.percentiles_from_rollup(engine, by, limit=None, **window)))


def test_what_is_beside_spans(engines: Engines) -> None:
    """Counters and code come with a push: the ledger is the same."""
    ledger = assert_same(engines, query.ledger)
    assert [row["recording_ns"] for row in ledger.dicts()] == [280]

    def code() -> ir.Table:
        return tables.code()

    assert assert_same(engines, lambda engine: tables.run(engine, code)) == [
        ("abc", "module.f", "/app/module.py", 7, "c0ffee", "def f(): ...")
    ]


def test_frame(spans: Engines) -> None:
    """Whole traces as numpy columns, with parents and self times."""
    found = assert_same(spans, lambda engine: query.frame(engine, columns=("cpu_ns", "kind", "attributes.kind")))
    assert_equal(found.span_ids, query.frame(spans["clickhouse"]).span_ids)
    cut = assert_same(spans, lambda engine: query.frame(engine, max_traces=3))
    assert cut.left_out_traces
    assert cut.notes


NUMBERS = {
    "exact quantiles": lambda t: t.duration_ns.quantile(0.37),
    "of none": lambda t: t.duration_ns.quantile([0.1, 0.5], where=t.duration_ns < -(10**15))[1],
    "half away from zero": lambda t: ((t.duration_ns - t.duration_ns) + 2.5).max().round(),
    "rounded down": lambda t: ((t.start_ns * -1 + 3) // 7).sum(),
    "exact beyond 2**53": lambda t: (t.start_ns // 10).max(),
    "sum of none": lambda t: t.duration_ns.sum(where=t.duration_ns < -(10**15)),
    "least of none": lambda t: t.duration_ns.min(where=t.duration_ns < -(10**15)),
    "mixed": lambda t: ibis.coalesce(t.cpu_ns, 0.5).max(),
    "share": lambda t: t.count() / t.duration_ns.sum().nullif(0),
    "distinct": lambda t: t.component.nunique(),
}


@pytest.mark.parametrize("measure", NUMBERS.values(), ids=NUMBERS)
def test_arithmetic(engines: Engines, measure: Any) -> None:
    """Quantiles, rounding, division and NULL are the same, where the databases by themselves differ."""

    def measured() -> ir.Table:
        return tables.spans().aggregate(value=measure(tables.spans()))

    assert_same(engines, lambda engine: tables.run(engine, measured))


def test_lag(engines: Engines) -> None:
    """There is nothing before the first row of a window."""

    def before() -> ir.Table:
        found = tables.spans().filter(ibis._.duration_ns > 0)
        window = ibis.window(group_by="trace_id", order_by=("start_ns", "duration_ns"))
        rows = found.mutate(before=found.duration_ns.lag().over(window), row=ibis.row_number().over(window))
        return rows.select("trace_id", "duration_ns", "before", "row").order_by("trace_id", "row", "duration_ns")

    rows = assert_same(engines, lambda engine: tables.run(engine, before))
    assert any(row[2] is None for row in rows)


@pytest.fixture
def url() -> Iterator[str]:
    with clickhouse_url() as found:
        yield found


def test_foreign_spans(url: str) -> None:
    """What a Collector wrote, whichever version of it: layers by convention, sessions, exceptions, unknown times."""
    from otel_debugstore_analysis.query._connect import client
    from otel_debugstore_analysis.query._pushed import CREATE

    with client(url) as connection:
        connection.command(CREATE[0])
        connection.command("""
            INSERT INTO otel_traces (Timestamp, TraceId, SpanId, ParentSpanId, TraceState, SpanName, SpanKind,
                ServiceName, ResourceAttributes, SpanAttributes, Duration, StatusCode, StatusMessage,
                `Events.Timestamp`, `Events.Name`, `Events.Attributes`) VALUES
            ('2026-01-01 00:00:00.000000001', 'a1', 'b1', '', 'ot=th:8', 'run', 'SPAN_KIND_SERVER', 'web',
                {'session.id': 'S', 'process.pid': '12'}, {'openinference.span.kind': 'AGENT', 'ok': 'true'}, 100,
                'STATUS_CODE_UNSET', '', [], [], []),
            ('2026-01-01 00:00:00.000000011', 'a1', 'b2', 'b1', '', 'call', 'Client', 'web', {},
                {'gen_ai.operation.name': 'execute_tool', 'error.type': 'E', 'debugstore.component': 'tool x'}, 20,
                'Error', 'it broke', ['2026-01-01', '2026-01-01'], ['exception', 'exception'],
                [{'exception.type': 'V', 'exception.message': 'first'}, {'exception.message': 'last'}]),
            (fromUnixTimestamp64Nano(toInt64(0)), 'a2', 'b3', '', '', 'no start', 'Internal', '', {}, {}, 5, 'Ok', '',
                [], [], []),
            ('2026-01-01 00:00:00', 'a2', 'b4', '', '', 'no end', 'Internal', '', {}, {},
                toUInt64(-1767225600000000000), 'Ok', '', [], [], [])""")

    def everything() -> ir.Table:
        found = tables.spans(("attributes.ok",))
        return found.select(*found.columns).order_by("span_id")

    with query.connect(url) as engine:
        compiled = tables.compiled(engine.dialect, everything)
        rows = [dict(zip(compiled.columns, row, strict=True)) for row in engine.fetch(compiled, {})]
        run, call, no_start, no_end = rows
        assert (run["kind"], run["status"], run["layer"], run["session"]) == ("SERVER", "UNSET", "workflow", "S")
        assert (run["pid"], run["sample_weight"], run["self_ns"], run["attributes.ok"]) == (12, 2.0, 80, "true")
        assert (run["parent_id"], run["status_message"], run["exception_type"]) == (None, None, None)
        assert (call["kind"], call["status"], call["layer"], call["session"]) == ("CLIENT", "ERROR", "tool", None)
        assert (call["component"], call["exception_type"], call["exception_message"]) == ("tool x", "V", "last")
        assert (no_start["start_ns"], no_start["duration_ns"], no_start["service"]) == (None, None, None)
        assert (no_end["start_ns"], no_end["duration_ns"]) == (1767225600000000000, None)
        assert query.ledger(engine).rows == []
        assert [row["component"] for row in query.top(engine).dicts()] == ["run", "tool x", "no end", "no start"]


def test_times_that_no_column_holds(tmp_path: Path) -> None:
    """ClickHouse sorts by the seconds from 1970 to 2106: a span that starts outside comes without a start."""
    write_sealed(tmp_path, "s", [span(1, "early", start_ns=-5), span(2, "late", start_ns=9 * 10**18), span(3, "now")])
    with both(tmp_path) as engines:
        frame = query.frame(engines["clickhouse"])
        assert (frame.components, frame.left_out_spans) == (("now",), 2)
        assert {row[0] for row in query.top(engines["clickhouse"]).rows} == {"early", "late", "now"}


def test_sessions_of_a_database(tmp_path: Path) -> None:
    """An engine of some sessions sees these, and what was counted in them, only."""
    write_synthetic(tmp_path)
    with both(tmp_path, "s", "t") as engines:
        place = engines["clickhouse"]
        assert isinstance(place, query.ClickHouseEngine)
        assert {row["session"] for row in query.top(place, "session").dicts()} == {"s", "t"}
    with both(tmp_path, "t") as engines:
        assert_same(engines, query.top)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("clickhouse://u:secret@127.0.0.1:1/db", r"clickhouse://127\.0\.0\.1:1/db can't be reached .*refused"),
        ("clickhouse://host:port/db", "can't be read"),
        ("postgres://host/db", "begins with clickhouse://"),
        ("", "begins with clickhouse://"),
        ("chdb://", "names no directory"),
    ],
)
def test_urls_that_lead_nowhere(url: str, message: str) -> None:
    """An error says what is wrong with the URL or the server, and never the password."""
    with pytest.raises(QueryError, match=message) as error:
        query.connect(url)
    assert "secret" not in str(error.value)


def test_a_database_without_spans(url: str) -> None:
    """The error says which table is missed, and how it comes there."""
    with pytest.raises(QueryError, match=r"no table otel_traces.*debugstore push"):
        query.connect(url)


def test_another_table_of_that_name(url: str) -> None:
    """A table with other columns, or with attributes as JSON, is told apart before anything is asked."""
    from otel_debugstore_analysis.query._connect import client
    from otel_debugstore_analysis.query._pushed import CREATE

    with client(url) as connection:
        connection.command("CREATE TABLE otel_traces (TraceId String) ENGINE = MergeTree ORDER BY TraceId")
        with pytest.raises(QueryError, match=r"lacks Timestamp, SpanId.*Collector's"):
            query.connect(url)
        connection.command("DROP TABLE otel_traces")
        without_indices = "\n".join(line for line in CREATE[0].splitlines() if "INDEX" not in line)
        as_json = without_indices.replace("Map(LowCardinality(String), String)", "JSON").replace(
            ") CODEC(ZSTD(1)),\n    ) ENGINE", ") CODEC(ZSTD(1))\n    ) ENGINE"
        )
        connection.command(as_json)
    with pytest.raises(QueryError, match=r"ResourceAttributes as JSON.*json: true"):
        query.connect(url)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where clickhouse-connect is not installed, the error says what to install."""
    monkeypatch.setitem(sys.modules, "clickhouse_connect", None)
    with pytest.raises(QueryError, match=r"otel-debugstore\[clickhouse\]"):
        query.connect("clickhouse://localhost/otel")


@pytest.mark.slow
def test_a_query_that_takes_too_much(tmp_path: Path, url: str) -> None:
    """Limits in the URL hold, and the error says how to narrow the query down."""
    write_sealed(tmp_path, "s", [span(number, "f") for number in range(1, 5)])
    run_well("--data-dir", tmp_path, "push", "--engine", url)
    assert "--since" in refused("top", "--engine", f"{url}&max_rows_to_read=2")
