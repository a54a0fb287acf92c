"""Calls that were counted and not recorded: they are in every count and sum, whoever asks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from otel_debugstore.outbox import CallCount
from otel_debugstore_analysis import query
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import SpanRecord, batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.seal import seal_if_idle
from otel_debugstore_exporters.session import SessionPaths
from sessions import MS, START_NS, span

SECOND = 1_000_000_000
F = {"debugstore.component": "f", "debugstore.layer": "function"}
QUARTER = "ot=th:c"
SPANS = [
    span(1, "f", duration_ms=10, attributes=F),  # before sampling began
    span(2, "f", duration_ms=20, attributes=F, trace_state=QUARTER),
    span(3, "child", parent=2, duration_ms=5, attributes={"debugstore.component": "child", "debugstore.layer": "tool"}),
    span(4, "f", duration_ms=90, attributes=F | {"debugstore.late": True}, error="E"),
    span(5, "foreign", duration_ms=1, trace_state=QUARTER, error="E"),  # by a sampler that counts nothing
]


def calls(component: str, count: int, *, at_s: float = 0, seconds: float = 1, errors: int = 0) -> CallCount:
    """Return calls of 2 ms each, counted in an interval, whose recording took 7 ns each."""
    began = START_NS + int(at_s * SECOND)
    ended = began + int(seconds * SECOND)
    return CallCount(began, ended, "function", component, count, errors, count * 2 * MS, 3, count * 7)


def write(base_path: Path, session: str, spans: Sequence[SpanRecord], counts: list[CallCount], pid: int = 1) -> None:
    batch = batch_from_records(spans, pid)
    batch.counts = counts
    paths = SessionPaths(base_path, session)
    base_path.mkdir(exist_ok=True)
    with Journal.open(paths.journal) as journal:
        journal.append([codec.encode(batch, START_NS)])


@pytest.fixture(params=["journal", "sealed"])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[query.DuckDBEngine]:
    """Two processes of a session and one of another."""
    write(tmp_path, "s", SPANS, [calls("f", 100, errors=3)])
    write(tmp_path, "s", [], [calls("f", 1_000), calls("only counted", 10)], pid=2)
    write(tmp_path, "t", [span(6, "f", attributes=F, trace_state=QUARTER)], [calls("f", 5)])
    if request.param == "sealed":
        assert seal_if_idle(SessionPaths(tmp_path, "s"))
    with SessionReader(tmp_path) as reader:
        yield query.DuckDBEngine(reader)


def by(table: query.Table, *fields: str) -> dict[Any, dict[str, Any]]:
    """Return the rows by the value of a field, or the values of several."""
    keys = [tuple(row[field] for field in fields) for row in table.dicts()]
    return dict(zip((key if len(key) > 1 else key[0] for key in keys), table.dicts(), strict=True))


def test_counts_and_sums_are_exact(work: query.DuckDBEngine) -> None:
    """A component's calls are its spans and what was counted, not what the weights of the sampled ones say."""
    table = query.top(work)
    rows = by(table, "component")
    f = rows["f"]
    assert (f["count"], f["total_ns"]) == (4 + 1_105, 121 * MS + 1_105 * 2 * MS)
    assert f["error_rate"] == 4 / 1_109
    assert f["recording_ns"] == 1_105 * 7
    assert rows["only counted"]["count"] == 10
    assert (rows["only counted"]["p50_ns"], rows["only counted"]["self_ns"]) == (None, 20 * MS)
    assert (rows["foreign"]["count"], rows["foreign"]["total_ns"], rows["foreign"]["error_rate"]) == (4, 4 * MS, 1.0)
    assert rows["foreign"]["recording_ns"] is None
    assert (table.left_out, table.notes) == (0, ())


def test_percentiles_are_weighted(work: query.DuckDBEngine) -> None:
    """Late spans stand for themselves, sampled ones for four: 10, 20, 20, 20, 20, 90, and 1 four times."""
    f = by(query.top(work), "component")["f"]
    assert (f["p50_ns"], f["p95_ns"]) == (10 * MS, 90 * MS)


def test_self_time_of_counted_calls(work: query.DuckDBEngine) -> None:
    """It is their time, less the share that the sampled ones, 3 x 20 + 3 x 1 ms, spent in their children, 3 x 5 ms."""
    f = by(query.top(work), "component")["f"]
    assert f["self_ns"] == 116 * MS + round(1_105 * 2 * MS * 48 / 63)


@pytest.mark.parametrize(
    "fields", [("layer",), ("session",), ("pid",), ("name",), ("layer", "component"), ("session", "pid", "name")]
)
def test_every_grouping_agrees(work: query.DuckDBEngine, fields: tuple[str, ...]) -> None:
    """Whatever of what a counter knows the calls are grouped by, they add up to the same."""
    rows = query.top(work, fields, limit=None).dicts()
    assert sum(row["count"] for row in rows) == 4 + 1 + 4 + 1_115
    assert sum(row["total_ns"] for row in rows) == (121 + 5 + 4 + 2_230) * MS
    assert sum(row["recording_ns"] or 0 for row in rows) == 1_115 * 7


def test_selections(work: query.DuckDBEngine) -> None:
    """What a counter knows selects counted calls too."""
    for where, count in [({"component": "f"}, 1_109), ({"session": "t"}, 6), ({"pid": "2", "name": "f"}, 1_000)]:
        table = query.top(work, "layer", selection=query.Selection(where=where))
        assert ([row["count"] for row in table.dicts()], table.notes) == ([count], ())


def test_what_counters_do_not_know_is_estimated(work: query.DuckDBEngine) -> None:
    """By and for anything else counts are those of the weights, and it is said so."""
    table = query.top(work, "status")
    rows = by(table, "status")
    assert (rows["UNSET"]["count"], rows["ERROR"]["count"]) == (1 + 4 + 1 + 4, 1 + 4)
    assert "recording_ns" not in table.columns
    (note,) = table.notes
    assert "estimated" in note
    table = query.top(work, selection=query.Selection(where={"service": "none"}))
    assert (table.rows, table.notes) == ([], (note,))


def test_time_ranges(tmp_path: Path) -> None:
    """Calls of an interval that the range cuts are taken by its share, and how many is said."""
    late = START_NS + 10 * SECOND
    write(tmp_path, "s", [span(1, "f", attributes=F), span(2, "f", attributes=F, start_ns=late)], [])
    write(tmp_path, "s", [], [calls("f", 100), calls("f", 1_000, at_s=10, seconds=10), calls("f", 7, at_s=30)])

    def top(since_s: float | None, until_s: float | None) -> tuple[int, int, tuple[str, ...]]:
        since, until = (None if at is None else START_NS + int(at * SECOND) for at in (since_s, until_s))
        table = query.top(engine, selection=query.Selection(since_ns=since, until_ns=until))
        row = table.dicts()[0] if table.rows else {"count": 0, "total_ns": 0}
        return row["count"], row["total_ns"], table.notes

    with SessionReader(tmp_path) as reader:
        engine = query.DuckDBEngine(reader)
        assert top(None, None) == (1_109, (2 + 2_214) * MS, ())
        assert top(0, 40) == (1_109, (2 + 2_214) * MS, ())
        assert top(0, 5) == (101, 201 * MS, ())
        assert top(50, None) == (0, 0, ())
        count, total, (note,) = top(12.5, None)
        assert (count, total) == (757, 1_514 * MS)
        assert note.startswith("750 of the calls")
        count, _, (note,) = top(9, 12.5)
        assert count == 251
        assert note.startswith("250 of the calls")


def test_the_histogram_and_the_summary_agree(work: query.DuckDBEngine) -> None:
    """`percentiles_from_rollup` and the view `performance_summary` count what `top` counts."""
    of_top = by(query.top(work), "component")
    for row in query.percentiles_from_rollup(work).dicts():
        if row["component"] != "foreign":  # the histogram has no weights
            expected = of_top[row["component"]]
            assert {name: row[name] for name in ("count", "total_ns", "error_rate")} == {
                name: expected[name] for name in ("count", "total_ns", "error_rate")
            }
    assert query.percentiles_from_rollup(work, "service").notes
    assert by(query.percentiles_from_rollup(work, "layer"), "layer")["function"]["count"] == 1_119
    summary = work.reader.query("SELECT * FROM performance_summary")
    names = [
        summary.columns.index(name) for name in ("context_name", "execution_count", "error_count", "success_count")
    ]
    for name, count, errors, successes in ([row[i] for i in names] for row in summary.rows):
        assert (count, errors + successes) == (of_top[name]["count"], count)
        assert errors == round(of_top[name]["error_rate"] * count)
    averages = dict(
        zip(*[[row[i] for row in summary.rows] for i in (1, summary.columns.index("avg_duration_ms"))], strict=True)
    )
    for name, average in averages.items():
        assert average == pytest.approx(of_top[name]["total_ns"] / of_top[name]["count"] / MS)


def test_the_summary_is_weighted_where_spans_were_sampled(work: query.DuckDBEngine) -> None:
    """Its percentiles of sampled components are those of `top`."""
    rows = work.reader.query("SELECT context_name, p50_duration_ms, p95_duration_ms FROM performance_summary").rows
    of_top = by(query.top(work), "component")
    for name, p50, p95 in rows:
        expected = of_top[name]["p50_ns"], of_top[name]["p95_ns"]
        assert (p50, p95) == tuple(None if value is None else value / MS for value in expected)


def test_the_ledger(work: query.DuckDBEngine) -> None:
    """What recording cost is by component and layer, most first; of many rows it is said how many are left out."""
    table = query.ledger(work)
    f, only = table.dicts()
    assert (f["component"], f["call_count"], f["recorded_count"], f["not_recorded_count"]) == ("f", 1_114, 9, 1_105)
    assert (f["recording_ns"], f["measured_ns"]) == (1_105 * 7, 121 * MS + 1_105 * 2 * MS)
    assert only["recording_share"] == 70 / (20 * MS)
    assert query.ledger(work, limit=1).left_out == 1
