"""What to optimise next: what saves most for sure comes first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engines import Engines, assert_same
from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses.candidates import candidates
from otel_debugstore_analysis.query import DuckDBEngine, Selection, Table
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.reader import SessionReader
from sessions import MS, span, write_journal, write_sealed

RUNS = 20


def runs(count: int = RUNS) -> Iterator[SpanRecord]:
    """Yield runs of a second: a query of 600 ms, and beside it a check of 100 ms that nobody waits for."""
    for n in range(1, count + 1):
        begin = n * 1_000
        yield span(1, "job", trace=n, start_ms=begin, duration_ms=1_000)
        yield span(2, "query", parent=1, trace=n, start_ms=begin + 100, duration_ms=600)
        yield span(3, "check", parent=1, trace=n, start_ms=begin + 200, duration_ms=100)


def ask(base_path: Path, **options: Any) -> Table:
    with SessionReader(base_path) as reader:
        return candidates(DuckDBEngine(reader), **options)


def test_what_saves_most_comes_first(tmp_path: Path) -> None:
    """Half of the query's time, times how sure that is after twenty runs; what nobody waits for is no candidate."""
    write_sealed(tmp_path, "s", runs())
    rows = ask(tmp_path).dicts()
    assert [(row["kind"], row["component"]) for row in rows] == [("faster", "query"), ("faster", "job")]
    first = rows[0]
    assert first["saved_ns_per_s"] == pytest.approx(300 * MS)
    assert first["confidence"] == pytest.approx(RUNS / (RUNS + 1.959963984540054**2))
    assert first["expected_ns_per_s"] == pytest.approx(first["saved_ns_per_s"] * first["confidence"])
    assert (first["observations"], first["executions"], first["mean_ns"]) == (RUNS, RUNS, 600 * MS)
    assert first["p95_saved_ns"] == pytest.approx(300 * MS)
    assert len(first["trace_ids"]) == 3


def test_habits_are_candidates_too(tmp_path: Path) -> None:
    """Ten calls of one component one after the other: with what one call for all would save."""
    spans = []
    for n in range(1, RUNS + 1):
        spans.append(span(1, "job", trace=n, start_ms=n * 1_000, duration_ms=1_000))
        for k in range(10):
            spans.append(span(2 + k, "select", parent=1, trace=n, start_ms=n * 1_000 + 90 * k, duration_ms=90))
    write_sealed(tmp_path, "s", spans)
    table = ask(tmp_path)
    first = table.dicts()[0]
    assert (first["kind"], first["component"], first["where"]) == ("n_plus_one", "select", "job")
    assert first["saved_ns_per_s"] == pytest.approx(810 * MS)
    assert "must not be added up" in table.notes[-1]


def test_what_was_seen_more_often_comes_first(tmp_path: Path) -> None:
    """Of the same saving."""
    spans = [
        *(span(1, "often", trace=n, start_ms=n * 10, duration_ms=10) for n in range(1, 101)),
        *(span(1, "seldom", trace=200 + n, start_ms=n * 500, duration_ms=500) for n in range(2)),
    ]
    write_sealed(tmp_path, "s", spans)
    rows = [row for row in ask(tmp_path, min_executions=0).dicts() if row["kind"] == "faster"]
    assert [row["component"] for row in rows] == ["often", "seldom"]
    assert rows[0]["saved_ns_per_s"] == pytest.approx(rows[1]["saved_ns_per_s"])


def test_confidence_is_that_of_the_component(tmp_path: Path) -> None:
    """Of many runs one has a call that saves much: that was seen once, however often the workflow ran."""
    spans = list(runs())
    spans.append(span(1, "job", trace=90, start_ms=90_000, duration_ms=3_000))
    spans.append(span(2, "rare", parent=1, trace=90, start_ms=90_000, duration_ms=2_500))
    write_sealed(tmp_path, "s", spans)
    found = {row["component"]: row for row in ask(tmp_path, min_executions=0).dicts()}
    assert (found["rare"]["observations"], found["query"]["observations"]) == (1, RUNS)
    assert found["rare"]["confidence"] == pytest.approx(0.2065, abs=1e-4)


def test_a_sampled_trace_is_one_observation(tmp_path: Path) -> None:
    """However many it stands for: of what makes a component faster, and of habits."""
    spans = [span(1, "job", duration_ms=1_000, trace_state="ot=th:ffc")]
    spans += [
        span(2 + k, "select", parent=1, start_ms=90 * k, duration_ms=90, trace_state="ot=th:ffc") for k in range(10)
    ]
    write_sealed(tmp_path, "s", spans)
    rows = ask(tmp_path).dicts()
    assert {row["kind"] for row in rows} == {"faster", "n_plus_one"}
    assert {row["observations"] for row in rows} == {1}
    assert {row["executions"] for row in rows} == {1_024, 10_240}


def test_calls_of_several_components_are_candidates(tmp_path: Path) -> None:
    """Two calls one after the other that could be made side by side, as often as they come together."""
    spans = []
    for n in range(1, RUNS + 1):
        spans.append(span(1, "job", trace=n, start_ms=n * 1_000, duration_ms=1_000))
        for place, name in enumerate(("prices", "stock") if n % 2 else ("stock", "prices")):
            begin = n * 1_000 + 500 * place
            spans.append(span(2 + place, name, parent=1, trace=n, start_ms=begin, duration_ms=500))
    write_sealed(tmp_path, "s", spans)
    (row,) = [row for row in ask(tmp_path).dicts() if row["kind"] == "serial_calls"]
    assert (row["component"], row["where"]) == ("prices, stock", "job")
    assert (row["executions"], row["mean_ns"], row["processes"]) == (RUNS, 500 * MS, 1)


def test_what_is_left_out_are_candidates(tmp_path: Path) -> None:
    """Rows that more of them would show; what is not looked at at all is a note's."""
    write_sealed(tmp_path, "s", [span(1, f"c{n}", trace=n, start_ms=n * 20, duration_ms=10) for n in range(1, 61)])
    few, every = (ask(tmp_path, min_executions=0, limit=limit) for limit in (5, 1_000))
    assert (few.left_out, every.left_out) == (len(every.rows) - 5, 0)
    assert any("Only the 50 best" in note for note in every.notes)


def test_rare_and_short_calls_are_left_out(tmp_path: Path) -> None:
    """By the number of calls, and by their mean duration."""
    write_sealed(tmp_path, "s", runs())
    assert {row[1] for row in ask(tmp_path, min_duration_ns=700 * MS).rows} == {"job"}
    table = ask(tmp_path, min_executions=RUNS + 1)
    assert (table.rows, table.notes[-1]) == ([], "No candidate has so many calls of that duration.")


def test_nothing_to_save_is_a_sentence(tmp_path: Path) -> None:
    """An empty session, and spans that took no time."""
    write_journal(tmp_path, "s", [])
    assert ask(tmp_path).notes[-1] == "Nothing was found that would save time."
    write_journal(tmp_path, "s", [span(1, duration_ms=0)])
    assert ask(tmp_path).rows == []


def test_bounds_are_checked(tmp_path: Path) -> None:
    """Negative ones, and what is no share."""
    write_journal(tmp_path, "s", [span(1)])
    with pytest.raises(QueryError, match="fewer or less than 0"):
        ask(tmp_path, min_executions=-1)
    with pytest.raises(QueryError, match="from 0 to 1"):
        ask(tmp_path, faster=2)


def test_both_engines_say_the_same(engines: Engines, nezha: Engines) -> None:
    """Of spans of every kind, and of a real shop's."""
    assert_same(engines, lambda engine: candidates(engine, min_executions=0))
    assert assert_same(nezha, candidates).rows


def test_calls_that_may_need_each_other(tmp_path: Path) -> None:
    """Calls that always come in one order are no candidate; what comes in both may be made side by side."""

    def job(trace: int, names: Sequence[str]) -> list[SpanRecord]:
        begin = 1_000 * trace
        calls = [
            span(2 + n, name, parent=1, trace=trace, start_ms=begin + 200 * n, duration_ms=150)
            for n, name in enumerate(names)
        ]
        return [span(1, "job", trace=trace, start_ms=begin, duration_ms=800), *calls]

    def serial(session: str) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
        table = ask(tmp_path, selection=Selection(where={"session": session}))
        return [row for row in table.dicts() if row["kind"] == "serial_calls"], table.notes

    write_sealed(tmp_path, "one", [one for n in range(1, RUNS + 1) for one in job(n, ("read", "parse"))])
    both = [one for n in range(1, RUNS + 1) for one in job(100 + n, ("left", "right")[:: 1 if n % 2 else -1])]
    write_sealed(tmp_path, "both", both)
    rows, notes = serial("one")
    assert rows == []
    assert any("1 of the habits are left out" in note for note in notes)
    (row,), _ = serial("both")
    assert row["observations"] == RUNS / 2
    assert row["expected_ns_per_s"] > 0
