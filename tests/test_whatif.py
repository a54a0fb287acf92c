"""`whatif`: runs replayed with a faster component save what a slow model of waiting says, and nothing at 0 %."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import Engines, assert_same
from otel_debugstore.errors import QueryError
from otel_debugstore_analysis import query
from otel_debugstore_analysis.analyses.whatif import whatif
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.reader import SessionReader
from sessions import MS, hex_id, span, write_journal, write_sealed
from waiting import Call, place, traces


@contextmanager
def stored(spans: Sequence[SpanRecord]) -> Iterator[query.DuckDBEngine]:
    with tempfile.TemporaryDirectory() as folder:
        write_journal(Path(folder), "s", spans)
        with SessionReader(Path(folder)) as reader:
            yield query.DuckDBEngine(reader)


def saved_ms(spans: Sequence[SpanRecord], **options: Any) -> dict[tuple[str, float], float]:
    """Return by component and share what all runs together save."""
    with stored(spans) as engine:
        rows = whatif(engine, **options).dicts()
    return {(row["component"], row["faster_share"]): row["saved_ns"] / MS for row in rows}


def test_in_turn() -> None:
    """Where calls run one after the other, a component saves its share of its self time."""
    spans = [
        span(1, "job", duration_ms=100),
        span(2, "read", parent=1, start_ms=10, duration_ms=40),
        span(3, "write", parent=1, start_ms=50, duration_ms=20),
    ]
    saved = saved_ms(spans, faster=(0.25, 1))
    assert saved == {
        ("read", 0.25): 10,
        ("read", 1): 40,
        ("job", 0.25): 10,
        ("job", 1): 40,
        ("write", 0.25): 5,
        ("write", 1): 20,
    }


def test_side_by_side() -> None:
    """Beside a call that takes as long a faster one saves nothing; a longer one until the other is the last to end."""
    spans = [
        span(1, "job", duration_ms=100),
        span(2, "short", parent=1, duration_ms=60),
        span(3, "long", parent=1, duration_ms=90),
    ]
    saved = saved_ms(spans, faster=(0.25, 0.5))
    assert saved[("short", 0.5)] == 0
    assert saved[("long", 0.25)] == 22.5
    assert saved[("long", 0.5)] == 30
    assert saved[("job", 0.5)] == 5


def test_join() -> None:
    """What began after several calls had ended waited for all of them."""
    spans = [
        span(1, "job", duration_ms=100),
        span(2, "a", parent=1, duration_ms=40),
        span(3, "b", parent=1, duration_ms=50),
        span(4, "c", parent=1, start_ms=60, duration_ms=30),
    ]
    saved = saved_ms(spans, faster=(1,))
    assert saved == {("c", 1): 30, ("job", 1): 20, ("b", 1): 10, ("a", 1): 0}


def test_nested() -> None:
    """A saving deep down reaches the run as far as nothing else is waited for."""
    spans = [
        span(1, "job", duration_ms=100),
        span(2, "left", parent=1, duration_ms=80),
        span(3, "right", parent=1, duration_ms=70),
        span(4, "query", parent=2, start_ms=5, duration_ms=60),
        span(5, "query", parent=3, start_ms=5, duration_ms=65),
    ]
    saved = saved_ms(spans, faster=(0.5, 1))
    assert saved[("query", 0.5)] == 30
    assert saved[("query", 1)] == 60
    assert saved[("left", 1)] == 10


@pytest.mark.parametrize(
    ("child", "saves"),
    [
        (span(2, "part", parent=1, start_ms=10, duration_ms=200), 0),  # nobody waited for its end
        (span(2, "part", parent=1, start_ms=10, duration_ms=90.5), 90),  # less than 1 % later: clocks
        (span(2, "part", parent=1, start_ms=110, duration_ms=20), 0),  # begun when all was over
    ],
)
def test_outliving(child: SpanRecord, saves: float) -> None:
    """A call that outlives its parent was not waited for, and saves nothing."""
    saved = saved_ms([span(1, "job", duration_ms=100), child], faster=(1,))
    assert saved.get(("part", 1), 0) == saves


@settings(max_examples=40, deadline=None)
@given(calls=traces(max_calls=10), component=st.sampled_from("abc"))
def test_model(calls: list[Call], component: str) -> None:
    """Savings are those of a slow model; none at 0 %, never falling with the share, at most it times the own time."""
    faster = (0, 0.25, 0.5, 1)
    with stored([call.record() for call in calls]) as engine:
        rows = whatif(engine, component=component, faster=faster).dicts()
    (root,) = place(calls)
    expected = [(root.high - root.low - root.replayed(component, share)) * 1000 for share in faster]
    found = [row["saved_ns"] for row in rows] or [0] * len(faster)
    assert found == pytest.approx(expected, abs=1e-3)
    assert found[0] == 0
    assert found == sorted(found)
    assert all(row["saved_ns"] <= row["faster_share"] * row["own_ns"] for row in rows)


@settings(max_examples=25, deadline=None)
@given(trees=st.lists(traces(max_calls=8), min_size=2, max_size=5))
def test_many_traces(trees: list[list[Call]]) -> None:
    """What all runs save is the sum of what each does, whichever others are replayed with it."""
    with stored([call.record(trace) for trace, calls in enumerate(trees, 1) for call in calls]) as engine:
        together = whatif(engine, faster=(0.5,), limit=1000).dicts()
    for row in together:
        roots = [place(calls)[0] for calls in trees if calls[0].component == row["workflow"]]
        saved = sum(root.high - root.low - root.replayed(row["component"], 0.5) for root in roots)
        assert row["saved_ns"] == pytest.approx(saved * 1000, abs=1e-3)
        assert row["runs"] == len(roots)


def jobs(durations_ms: Sequence[float]) -> list[SpanRecord]:
    """Return runs that are a call of half their time, a second apart."""
    spans = []
    for number, duration_ms in enumerate(durations_ms, 1):
        spans.append(span(1, "job", trace=number, start_ms=1000 * number, duration_ms=duration_ms))
        spans.append(
            span(2, "query", trace=number, parent=1, start_ms=1000 * number, duration_ms=duration_ms / 2),
        )
    return spans


def test_answer() -> None:
    """Percentiles before and what each is less, the saving in all and per second observed, and the evidence."""
    with stored(jobs([100, 200, 300, 400, 1000])) as engine:
        row = whatif(engine, component="query", faster=(0.5,)).dicts()
    assert row == [
        {
            "workflow": "job",
            "component": "query",
            "faster_share": 0.5,
            "runs": 5,
            "p50_ns": 300 * MS,
            "p95_ns": pytest.approx(880 * MS),
            "p50_saved_ns": 75 * MS,
            "p95_saved_ns": 220 * MS,
            "saved_ns": 500 * MS,
            "saved_share": 0.25,
            "saved_ns_per_s": 100 * MS,
            "observations": 5,
            "own_ns": 1000 * MS,
            "trace_ids": tuple(hex_id(number, 32) for number in (5, 4, 3)),
        }
    ]


def test_order() -> None:
    """Those that save most come first, whatever their workflows; of equals by name; the limit counts components."""
    spans = [*jobs([100]), span(1, "other", trace=9, duration_ms=60)]
    with stored(spans) as engine:
        table = whatif(engine, limit=2)
    assert [(row["workflow"], row["component"]) for row in table.dicts()][::3] == [("other", "other"), ("job", "job")]
    assert (len(table.rows), table.left_out) == (6, 3)


def test_chosen_runs() -> None:
    """The runs may be the spans of a component or layer."""
    with stored(jobs([100, 200])) as engine:
        rows = whatif(engine, workflow="query", faster=(1,)).dicts()
        nothing = whatif(engine, layer="nonsense")
    assert [(row["workflow"], row["component"], row["runs"], row["saved_ns"]) for row in rows] == [
        ("query", "query", 2, 150 * MS)
    ]
    assert nothing.notes == ("No span there is of layer 'nonsense'.",)


def test_weights() -> None:
    """A sampled run saves as often as it stands for others."""
    spans = [span(1, "job", trace=1, duration_ms=10), span(2, "job", trace=2, duration_ms=30, trace_state="ot=th:c")]
    with stored(spans) as engine:
        (row,) = whatif(engine, faster=(0.5,)).dicts()
    assert (row["runs"], row["saved_ns"], row["p50_saved_ns"]) == (5, 65 * MS, 15 * MS)


def test_sample_of_traces() -> None:
    """Where not all traces are looked at, savings per second are those of all, and the sample is mentioned."""
    with stored(jobs([100] * 4)) as engine:
        table = whatif(engine, component="query", faster=(1,), max_traces=2)
    (row,) = table.dicts()
    assert (row["runs"], row["saved_ns"]) == (2, 100 * MS)
    assert row["saved_ns_per_s"] == pytest.approx(200 * MS / 1.1)
    assert "2 of 4 traces" in table.notes[0]


@pytest.mark.parametrize("faster", [(), (-0.1,), (1.5,), (float("nan"),)])
def test_shares_that_cannot_be(faster: Sequence[float]) -> None:
    """Nothing gets faster by less than nothing or more than all."""
    with stored(jobs([1])) as engine, pytest.raises(QueryError, match="from 0 to 1"):
        whatif(engine, faster=faster)


def test_nothing() -> None:
    """Where there are no spans, none of the component, or no time was taken, a sentence says so."""
    with stored([]) as engine:
        assert whatif(engine).notes == ("There are no spans.",)
    with stored(jobs([1])) as engine:
        assert whatif(engine, component="nonsense").notes == ("No run waited for a call of that component.",)
    with stored([span(1, "job", duration_ms=0)]) as engine:
        assert whatif(engine).notes == ("No run took any time.",)


@pytest.mark.slow
def test_deep_trace(tmp_path: Path) -> None:
    """A trace of 100,000 spans, each below the one before, is replayed without recursion."""
    spans = (
        span(
            number, f"c{number % 7}", parent=number - 1 or None, start_ms=number / 1000, duration_ms=500 - number / 500
        )
        for number in range(1, 100_001)
    )
    write_sealed(tmp_path, "s", spans)
    with SessionReader(tmp_path) as reader:
        rows = whatif(query.DuckDBEngine(reader), faster=(1,)).dicts()
    assert sum(row["saved_ns"] for row in rows) == rows[0]["p50_ns"]


def test_many_components(tmp_path: Path) -> None:
    """Of 10,000 components those that save most are found, beyond those that are replayed at first."""
    spans = [span(1, "job", duration_ms=20_000)]
    for number in range(2, 10_002):  # beside each of the first ones runs one that takes as long
        spans.append(span(number, f"c{number}", parent=1, start_ms=2 * (number - 2), duration_ms=1.5))
        if number < 50:
            spans.append(span(-number % 2**32, "beside", parent=1, start_ms=2 * (number - 2), duration_ms=1.5))
    write_sealed(tmp_path, "s", spans)
    with SessionReader(tmp_path) as reader:
        table = whatif(query.DuckDBEngine(reader), faster=(1,), limit=3)
    assert [row["component"] for row in table.dicts()] == ["job", "c100", "c1000"]
    assert table.left_out == 9_999


def test_deep_side_by_side(tmp_path: Path) -> None:
    """Calls side by side at each of 3,000 depths are replayed, the deepest first."""
    spans = [span(1, "job", duration_ms=10_000)]
    for depth in range(3_000):
        start_ms, duration_ms = depth + 1, 10_000 - 2 * depth - 2
        spans.append(span(2 * depth + 2, "chain", parent=max(2 * depth, 1), start_ms=start_ms, duration_ms=duration_ms))
        spans.append(
            span(2 * depth + 3, "beside", parent=max(2 * depth, 1), start_ms=start_ms, duration_ms=duration_ms - 2)
        )
    write_sealed(tmp_path, "s", spans)
    with SessionReader(tmp_path) as reader:
        rows = whatif(query.DuckDBEngine(reader), component="chain", faster=(1,)).dicts()
    assert [row["saved_ns"] for row in rows] == [2 * MS]


def test_both_engines(engines: Engines, nezha: Engines) -> None:
    """DuckDB and ClickHouse give one answer, on odd spans and on those of a real shop."""
    assert_same(engines, whatif)
    assert assert_same(nezha, whatif).rows


def test_time_between_sessions_is_not_observed(tmp_path: Path) -> None:
    """What is saved a second is that of recorded seconds: also of sessions a day apart, and of such at one time."""
    day_ms = 86_400_000
    for session, begin_ms in (("one", 0), ("beside", 500), ("next_day", day_ms)):
        write_journal(tmp_path, session, [span(1, "job", trace=begin_ms + 1, start_ms=begin_ms, duration_ms=1_000)])
    with SessionReader(tmp_path) as reader:
        (row,) = whatif(query.DuckDBEngine(reader), faster=(0.5,)).dicts()
    assert row["saved_ns_per_s"] == pytest.approx(3 * 500 * MS / 2.5)


def test_observations_are_runs_that_get_shorter(tmp_path: Path) -> None:
    """Of four recorded runs, each of which stands for 1,024, one calls what gets faster: one observation."""
    spans = [span(1, "job", trace=n, start_ms=n * 20, duration_ms=10, trace_state="ot=th:ffc") for n in range(1, 5)]
    spans.append(span(2, "rare", parent=1, trace=4, start_ms=81, duration_ms=5, trace_state="ot=th:ffc"))
    write_journal(tmp_path, "s", spans)
    with SessionReader(tmp_path) as reader:
        rows = {row["component"]: row for row in whatif(query.DuckDBEngine(reader), faster=(0.5,)).dicts()}
    assert {name: (row["runs"], row["observations"]) for name, row in rows.items()} == {
        "job": (4_096, 4),
        "rare": (4_096, 1),
    }
