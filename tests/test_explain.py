"""Explaining slow and failing calls: what they have that the others have not, and where they spend more time."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import Engines, assert_same, both
from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses.explain import Explanation, explain
from otel_debugstore_analysis.query import DuckDBEngine, Engine, Selection
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.reader import SessionReader
from sessions import span, write_journal, write_sealed

CALLS = 200


def calls(**slow_where: Any) -> Iterator[SpanRecord]:
    """Yield calls of `work` with attributes at random; those with these attributes take ten times as long."""
    chance = random.Random(7)
    for number in range(1, CALLS + 1):
        attributes = {
            "region": chance.choice(["eu", "us", "asia", "africa"]),
            "size": chance.randrange(1_000),
            "cached": chance.random() < 0.5,
            "request": f"r{number}",
            "tags": ["a", "b"],
            "debugstore.input.digest": chance.choice(["aa", "bb"]),
        }
        is_slow = bool(slow_where) and all(attributes[key] == value for key, value in slow_where.items())
        took = chance.uniform(8, 12) * (10 if is_slow else 1)
        yield span(1, "work", trace=number, start_ms=number * 1_000, duration_ms=took, attributes=attributes)
        yield span(2, "read", parent=1, trace=number, start_ms=number * 1_000, duration_ms=took / 2)


def ask(base_path: Path, **options: Any) -> Explanation:
    with SessionReader(base_path) as reader:
        return explain(DuckDBEngine(reader), **options)


def test_an_attribute_that_slow_calls_share_comes_first(tmp_path: Path) -> None:
    """With its share among both, the lift, and a call that has it."""
    write_sealed(tmp_path, "s", calls(region="asia"))
    found = ask(tmp_path, component="work", slow_ns=50_000_000)
    first = found.features.dicts()[0]
    assert (first["kind"], first["key"], first["value"]) == ("attribute", "region", "asia")
    assert (first["share"], first["other_share"]) == (1.0, 0.0)
    (summary,) = found.summary.dicts()
    assert first["lift"] == pytest.approx(summary["calls"] / summary["hits"])
    assert first["q_value"] < 1e-9
    assert first["trace_ids"]


def test_what_is_no_reason_is_not_significant(tmp_path: Path) -> None:
    """Attributes at random do not pass the test that is corrected for their number."""
    write_sealed(tmp_path, "s", calls())
    table = ask(tmp_path, component="work").features
    assert all(row["q_value"] > 0.05 for row in table.dicts())


def test_numbers_are_told_apart_by_quarters(tmp_path: Path) -> None:
    """Slow where an attribute is large: the last quarter says so."""
    spans = [
        span(1, "work", trace=n, start_ms=n, duration_ms=100 if n > 150 else 10, attributes={"size": n})
        for n in range(1, 201)
    ]
    write_sealed(tmp_path, "s", spans)
    first = ask(tmp_path, component="work", slow_ns=50_000_000).features.dicts()[0]
    assert (first["key"], first["value"]) == ("size", "150.25 or more")


@pytest.mark.parametrize("shortest_ms", [10, 9], ids=["all others equal", "one shorter"])
def test_slow_calls_among_many_that_took_equally_long(tmp_path: Path, shortest_ms: int) -> None:
    """Where nine tenths took exactly as long, slow are those that took longer; if none did, a sentence says so."""
    spans = []
    for number in range(1, 101):
        is_slow = number > 95
        took_ms = 1_000 if is_slow else shortest_ms if number == 1 else 10
        shard = {"shard": "bad" if is_slow else "good"}
        spans.append(span(1, "work", trace=number, start_ms=number * 2_000, duration_ms=took_ms, attributes=shard))
    write_sealed(tmp_path / "slow", "s", spans)
    found = ask(tmp_path / "slow", component="work")
    (summary,) = found.summary.dicts()
    assert (summary["bound_ns"], summary["hits"]) == (1_000_000_000, 5)
    first = found.features.dicts()[0]
    assert (first["key"], first["value"], first["share"]) == ("shard", "bad", 1.0)
    write_sealed(tmp_path / "even", "s", spans[1:95])
    assert "Every call" in ask(tmp_path / "even", component="work").features.notes[0]


def test_callers_and_children_are_features(tmp_path: Path) -> None:
    """Calls from one caller are slow, and have a child that others have not."""
    spans = []
    for n in range(1, 81):
        is_slow = n % 4 == 0
        spans.append(span(1, "batch" if is_slow else "page", trace=n, start_ms=n * 1_000, duration_ms=300))
        spans.append(span(2, "work", parent=1, trace=n, start_ms=n * 1_000, duration_ms=200 if is_slow else 10))
        if is_slow:
            spans += [span(k, "retry", parent=2, trace=n, start_ms=n * 1_000, duration_ms=40) for k in (3, 4)]
    write_sealed(tmp_path, "s", spans)
    found = ask(tmp_path, component="work", slow_ns=100_000_000)
    told = {(row["kind"], row["key"], row["value"]) for row in found.features.dicts() if row["q_value"] < 0.05}
    assert {("caller", "component", "batch"), ("child", "retry", "present")} <= told
    assert ("number of children", "retry", "2") in told
    assert found.suspects.columns[0] == "component"
    assert {row[0] for row in found.suspects.rows} == {"work", "retry"}


def test_what_is_the_same_for_a_process_is_tested_by_processes(tmp_path: Path) -> None:
    """A hundred slow calls of one process of two are one observation, and no proof."""
    for pid in (1, 2):
        spans = [
            span(1, "work", trace=100 * pid + n, start_ms=n, duration_ms=50 if pid == 2 else 10) for n in range(100)
        ]
        write_sealed(tmp_path, f"s{pid}", spans, pid=pid)
    rows = ask(tmp_path, component="work", slow_ns=40_000_000).features.dicts()
    of_process = [row for row in rows if row["key"] in ("pid", "session")]
    assert of_process
    assert all((row["unit"], row["q_value"] > 0.05, row["share"]) == ("process", True, 1.0) for row in of_process)


def test_failing_calls_are_explained(tmp_path: Path) -> None:
    """Against those that did not fail; without a component, those of the one with most errors."""
    spans = [
        span(1, "work", trace=n, start_ms=n, error="E" if n % 5 == 0 else None, attributes={"tenant": f"t{n % 5}"})
        for n in range(1, 101)
    ]
    write_sealed(tmp_path, "s", [*spans, span(1, "other", trace=999, duration_ms=1e6)])
    found = ask(tmp_path, what="failing")
    first = found.features.dicts()[0]
    assert (found.summary.dicts()[0]["component"], first["key"], first["value"]) == ("work", "tenant", "t0")


def test_a_selection_by_an_attribute(tmp_path: Path) -> None:
    """Only its calls are looked at."""
    write_sealed(tmp_path, "s", calls(cached=True))
    found = ask(tmp_path, component="work", selection=Selection(where={"region": "eu"}))
    assert 0 < found.summary.dicts()[0]["calls"] < CALLS / 2


def test_calls_beyond_the_bound_are_named(tmp_path: Path) -> None:
    """The last ones are looked at, and how many there are is said."""
    write_sealed(tmp_path, "s", calls())
    found = ask(tmp_path, component="work", max_calls=50)
    assert found.summary.notes == (f"The last 50 of {CALLS} calls are looked at.",)


@pytest.mark.parametrize("what", ["slow", "failing"])
def test_nothing_to_explain_is_a_sentence(tmp_path: Path, what: str) -> None:
    """An empty session, an unknown component, calls that are all alike."""
    write_journal(tmp_path, "s", [])
    assert ask(tmp_path, what=what).features.notes
    write_journal(tmp_path, "s", [span(1), span(2)])
    for component in ("work", "no such", None):
        found = ask(tmp_path, what=what, component=component)
        assert not found.features.rows
        assert found.features.notes


def test_what_can_be_explained_is_said(tmp_path: Path) -> None:
    """Anything else is an error that names both."""
    write_journal(tmp_path, "s", [span(1)])
    with pytest.raises(QueryError, match="take slow or failing"):
        ask(tmp_path, what="cheap")


def test_both_engines_explain_alike(tmp_path: Path) -> None:
    """All tables and all figures, with attributes of every type."""
    write_sealed(tmp_path, "s", list(calls(region="asia"))[:240])
    with both(tmp_path) as found:
        assert assert_same(found, lambda engine: explain(engine, component="work", slow_ns=50_000_000)).features.rows


def test_odd_spans_get_an_answer(engines: Engines) -> None:
    """Whatever spans there are: the same answer on both engines."""

    def every(engine: Engine) -> list[Explanation]:
        names = ("parse", "sampled", "its own parent", "negative", "without start", "", None)
        return [explain(engine, component=name, what=what) for name in names for what in ("slow", "failing")]

    assert_same(engines, every)


def test_real_spans_get_the_same_answer(nezha: Engines) -> None:
    """Of a shop's traffic."""
    found = assert_same(nezha, lambda engine: explain(engine, component="hipstershop.Frontend/Recv."))
    assert {"slow"} == {row["what"] for row in found.summary.dicts()}
