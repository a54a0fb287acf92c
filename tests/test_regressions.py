"""`regressions` and `thresholds`: what histories say."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from engines import Engines, assert_same, both
from otel_debugstore.outbox import Code
from otel_debugstore_analysis import query
from otel_debugstore_analysis.analyses.regressions import regressions
from otel_debugstore_analysis.analyses.thresholds import thresholds
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths
from sessions import MS, START_NS, hex_id, span, write_sealed


@pytest.fixture
def history(tmp_path: Path) -> Path:
    """Sixteen sessions, an hour apart; from the tenth on `work` takes 10 % longer, by another variant."""
    write_history(tmp_path, 16, 9, 11.0)
    return tmp_path


def write_history(base_path: Path, sessions: int, first: int, after_ms: float) -> None:
    """Write sessions of which those from the `first` on have another variant of `work`, and take so long, not 10 ms."""
    chance = random.Random(3)
    for number in range(sessions):
        variant, base = ("old", 10.0) if number < first else ("new", after_ms)
        spans = [
            span(
                number * 100 + n,
                "work",
                trace=number * 100 + n,
                start_ms=number * 3_600_000 + n * 50,
                duration_ms=base * (1 + chance.gauss(0, 0.01)),
                attributes={"debugstore.variant": variant},
            )
            for n in range(1, 12)
        ]
        batch = batch_from_records(spans, 1)
        batch.code = [Code(variant, "m.work", git_commit=f"commit of {variant}")]
        with Journal.open(SessionPaths(base_path, f"s{number:02}").journal) as journal:
            journal.append([codec.encode(batch, START_NS)])


def test_a_step_over_sessions(history: Path) -> None:
    """It is found, to within a session, with both levels, variants and commits, over sessions and over time."""
    with SessionReader(history) as reader:
        rows = regressions(query.DuckDBEngine(reader)).dicts()
    assert [(row["over"], row["verdict"]) for row in rows] == [("sessions", "slower"), ("time", "slower")]
    first = rows[0]
    assert first["at_session"] in ("s08", "s09", "s10")
    assert first["points_before"] + first["points_after"] == 16
    assert first["ratio"] == pytest.approx(1.1, abs=0.02)
    assert 1.05 < first["ratio_low"] <= first["ratio"] <= first["ratio_high"] < 1.15
    assert len(first["trace_ids"]) == 2
    for row in rows:
        assert (row["variant_before"], row["variant_after"]) == ("old", "new")
        assert (row["commit_before"], row["commit_after"]) == ("commit of old", "commit of new")


@pytest.mark.parametrize(("sessions", "first"), [(10, 5), (10, 4), (12, 6), (12, 8)])
def test_a_doubling_in_few_sessions(tmp_path: Path, sessions: int, first: int) -> None:
    """It is found from ten sessions on, if four were before it and four after; the evidence is of both levels."""
    write_history(tmp_path, sessions, first, 20.0)
    with SessionReader(tmp_path) as reader:
        table = regressions(query.DuckDBEngine(reader))
    change = table.dicts()[0]
    assert (change["over"], change["verdict"], change["at_session"]) == ("sessions", "slower", f"s{first:02}")
    assert (change["points_before"], change["points_after"]) == (first, sessions - first)
    assert [int(trace_id, 16) // 100 for trace_id in change["trace_ids"]] == [first - 1, first]
    assert not any("sessions" in note for note in table.notes)


@pytest.mark.slow
def test_equal_on_both_engines(history: Path, engines: Engines, nezha: Engines) -> None:
    """Histories of sessions, odd spans, and a real shop's minute."""
    with both(history) as found:
        for analysis in (regressions, thresholds):
            assert_same(found, analysis)
            assert_same(engines, analysis)
            assert_same(nezha, analysis)
        assert_same(found, lambda engine: regressions(engine, ("session", "component")))


def test_too_short_a_history(tmp_path: Path) -> None:
    """No change, and a sentence that says why none can be found."""
    write_sealed(tmp_path, "s", [span(1)])
    with SessionReader(tmp_path) as reader:
        found = regressions(query.DuckDBEngine(reader))
        empty = regressions(query.DuckDBEngine(reader), selection=query.Selection(until_ns=3))
    assert found.rows == []
    assert found.notes[0].startswith("1 of 1 groups are in fewer than 10 sessions")
    assert empty.notes == ("No span with a start is selected.",)


def test_no_thresholds_without_times(tmp_path: Path) -> None:
    """Of calls without a start there is a sentence."""
    write_sealed(tmp_path, "s", [span(n, trace=n, start_ns=None) for n in range(1, 5)])
    with SessionReader(tmp_path) as reader:
        table = thresholds(query.DuckDBEngine(reader))
    assert (table.rows, table.notes) == ([], ("No call that is selected has a start and a duration.",))


def test_thresholds_are_of_the_last_calls(tmp_path: Path) -> None:
    """Median and MAD where these reach further than p99.9; earlier calls do not count."""
    old = [span(n, trace=n, start_ms=n, duration_ms=500) for n in range(1, 50)]
    late = [
        span(n, trace=n, start_ms=n, duration_ms=10 + n % 3, error="E" if n == 99 else None) for n in range(50, 150)
    ]
    write_sealed(tmp_path, "s", [*old, *late])
    with SessionReader(tmp_path) as reader:
        (row,) = thresholds(query.DuckDBEngine(reader), calls=100).dicts()
        (few,) = thresholds(query.DuckDBEngine(reader), calls=10).dicts()
        nothing = thresholds(query.DuckDBEngine(reader), selection=query.Selection(until_ns=3))
    assert (row["median_ns"], row["mad_ns"], row["p999_ns"]) == (11 * MS, 1 * MS, 12 * MS)
    assert (row["duration_ns"], row["calls"], row["is_provisional"], row["memory_bytes"]) == (17 * MS, 100, False, None)
    assert 0.01 < row["error_rate"] < 0.06
    assert row["trace_ids"] == tuple(hex_id(number, 32) for number in (50, 53, 56))
    assert (few["calls"], few["is_provisional"]) == (10, True)
    assert (nothing.rows, nothing.notes) == ([], ("No span is selected.",))


def test_calls_that_began_together(tmp_path: Path) -> None:
    """Which of them are the last ones is the same on both engines."""
    write_sealed(tmp_path, "s", [span(n, trace=n, duration_ms=n) for n in range(1, 40)])
    with both(tmp_path) as engines:
        found = assert_same(engines, lambda engine: thresholds(engine, calls=10))
    assert found.dicts()[0]["median_ns"] == 34.5 * MS
