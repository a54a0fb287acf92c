"""`compare`: units and not calls decide, and what changed in the structure is named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from engines import Engines, assert_same, both
from otel_debugstore.errors import QueryError
from otel_debugstore_analysis import query
from otel_debugstore_analysis.analyses.compare import compare, decide, of_commit
from otel_debugstore_exporters.batch import Resource
from otel_debugstore_exporters.reader import SessionReader
from sessions import MS, START_NS, span, write_sealed

BEFORE, AFTER = [f"a{n}" for n in range(6)], [f"b{n}" for n in range(6)]


def write(base_path: Path, session: str, work_ms: float, children: int, seed: int) -> None:
    """Write a session of ten traces: `work` calls `step` so many times."""
    spans = []
    for number in range(10):
        trace = seed * 100 + number + 1
        spans.append(span(trace * 100, "work", trace=trace, start_ms=number * 100, duration_ms=work_ms + number / 100))
        spans += [
            span(trace * 100 + c, "step", parent=trace * 100, trace=trace, start_ms=number * 100 + c, duration_ms=0.5)
            for c in range(1, children + 1)
        ]
    write_sealed(base_path, session, spans)


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """Six sessions before, and six in which `work` is 30 % slower and calls `step` twice in place of once."""
    for n in range(6):
        write(tmp_path, BEFORE[n], 10 + n * 0.1, 1, n)
        write(tmp_path, AFTER[n], 13 + n * 0.1, 2, 50 + n)
    return tmp_path


@contextmanager
def engine(base_path: Path) -> Iterator[query.DuckDBEngine]:
    with SessionReader(base_path) as reader:
        yield query.DuckDBEngine(reader)


def test_slower_by_sessions(sessions: Path) -> None:
    """The ratio is that of the medians of six sessions each, with an interval around it."""
    with engine(sessions) as found:
        result = compare(found, BEFORE, AFTER)
    work, step = result.components.dicts()
    assert (work["component"], work["verdict"], work["before_units"], work["after_units"]) == ("work", "slower", 6, 6)
    assert work["ratio"] == pytest.approx(13.295 / 10.295)
    assert 1.2 < work["ratio_low"] <= work["ratio"] <= work["ratio_high"] < 1.4
    assert (step["component"], step["verdict"], step["before_count"], step["after_count"]) == ("step", "equal", 60, 120)
    assert result.components.notes == ()
    (child,) = result.children.dicts()
    assert (child["parent"], child["child"], child["verdict"]) == ("work", "step", "more")
    assert (child["before_calls"], child["after_calls"]) == (1, 2)
    shares = {row["component"]: (row["before_share"], row["after_share"]) for row in result.critical_path.dicts()}
    assert shares["step"] == pytest.approx((0.5 / 10.3, 1.0 / 13.3), rel=1e-2)


def test_few_units(sessions: Path) -> None:
    """One session on a side decides nothing, however many calls it has; a sentence says so."""
    with engine(sessions) as found:
        result = compare(found, BEFORE[:1], AFTER[:1])
        few = compare(found, BEFORE[:3], AFTER[:3])
    assert {row["verdict"] for row in result.components.dicts()} == {"undecided"}
    assert result.components.notes[0].startswith("Too few to decide anything: 1 processes before and 1 after")
    assert few.components.dicts()[0]["verdict"] == "slower"
    assert few.components.notes[0].startswith("Few to compare")


def test_structure_by_sessions(sessions: Path) -> None:
    """Shares and calls differ as sessions do, and not as their traces: of one session on a side there is no q-value."""
    with engine(sessions) as found:
        result = compare(found, BEFORE, AFTER)
        few = compare(found, BEFORE[:1], AFTER[:1])
    assert all(row["q_value"] < 1e-3 for row in (*result.children.dicts(), *result.critical_path.dicts()))
    assert [row["verdict"] for row in few.children.dicts()] == ["more"]
    assert {row["q_value"] for row in (*few.children.dicts(), *few.critical_path.dicts())} == {None}
    for table in (few.children, few.critical_path):
        assert table.notes[-1].startswith("In fewer than 3 sessions or processes on a side")


def test_sessions_that_differ_from_each_other(tmp_path: Path) -> None:
    """What differs from session to session on both sides is no difference, however many traces each has."""
    for n, (before_ms, after_ms, children) in enumerate(
        [(10, 11, 1), (13, 12, 3), (9, 13, 2), (14, 10, 1), (11, 14, 3)]
    ):
        write(tmp_path, BEFORE[n], before_ms, children, n)
        write(tmp_path, AFTER[n], after_ms, 1 + (children + n) % 3, 50 + n)
    with engine(tmp_path) as found:
        result = compare(found, BEFORE[:5], AFTER[:5])
    assert result.children.rows == []
    assert min(row["q_value"] for row in result.critical_path.dicts()) > 0.05


def test_pods_are_processes(tmp_path: Path) -> None:
    """Their process ids are all 1, their hosts or instances differ; another attribute of theirs may change."""
    for session, work_ms in (("before", 10), ("after", 13)):
        for pod in range(6):
            where = {"host.name": f"{session}{pod % 3}", "service.instance.id": f"{pod // 3}"}
            spans = [
                replace(
                    span(n + 1, trace=1 + n + 10 * pod, start_ms=n * 20, duration_ms=work_ms + n / 10),
                    resource=Resource({**where, "seen": n % 2}),
                )
                for n in range(10)
            ]
            write_sealed(tmp_path, session, spans)
    with both(tmp_path) as engines:
        result = assert_same(engines, lambda found: compare(found, ["before"], ["after"]))
    (row,) = result.components.dicts()
    assert (row["verdict"], row["before_units"], row["after_units"]) == ("slower", 6, 6)
    assert [side["processes"] for side in result.sides.dicts()] == [6, 6]


def test_services_are_processes(tmp_path: Path) -> None:
    """Of spans that tell no process id, those of several services are of several processes."""
    spans = [span(n, trace=n, start_ms=n, service=f"service {n % 4}") for n in range(1, 9)]
    write_sealed(tmp_path, "s", spans, pid=None)
    with both(tmp_path) as engines:
        result = assert_same(engines, lambda found: compare(found, ["s"], ["s"]))
    assert [side["processes"] for side in result.sides.dicts()] == [4, 4]


def test_nothing_on_a_side(sessions: Path) -> None:
    """A sentence, and no rows."""
    with engine(sessions) as found:
        result = compare(found, BEFORE, ["nonsense"])
        nothing = compare(found, [], query.Selection(until_ns=5))
    assert (result.components.rows, result.children.rows) == ([], [])
    assert "after" in result.components.notes[0]
    assert "before or after" in nothing.components.notes[0]


@pytest.mark.slow
def test_equal_on_both_engines(sessions: Path) -> None:
    """By sessions, and by time."""
    with both(sessions) as engines:
        assert_same(engines, lambda found: compare(found, BEFORE, AFTER))
        middle = START_NS + 450 * MS
        halves = query.Selection(until_ns=middle), query.Selection(since_ns=middle)
        assert_same(engines, lambda found: compare(found, *halves, by=("component", "session")))


def test_odd_spans(engines: Engines) -> None:
    """Circles, orphans, spans without times, sampled ones: the same answer on both engines."""
    assert_same(engines, lambda found: compare(found, ["s"], ["t"]))
    assert_same(engines, lambda found: compare(found, query.Selection(where={"pid": "1"}), of_commit(found, "c0f")))


def test_a_commit_that_was_not_recorded(engines: Engines) -> None:
    """The error says so, for an empty text too."""
    for commit in ("beef", ""):
        with pytest.raises(QueryError, match="commit"):
            of_commit(engines["duckdb"], commit)


def test_verdicts_do_not_depend_on_the_scale() -> None:
    """A verdict on durations is one on the same durations in other units."""
    import numpy as np

    pairs = [(np.array([5.0, 5.1, 5.2, 4.9]), np.array([6.0, 6.1, 6.2, 5.9]))]
    assert decide(pairs)[0].verdict == decide([(pairs[0][0] * 1e6, pairs[0][1] * 1e6)])[0].verdict == "slower"
    assert decide([(pairs[0][1], pairs[0][0])])[0].verdict == "faster"
    assert decide([(np.zeros(5), np.ones(5))])[0].verdict == "undecided"
