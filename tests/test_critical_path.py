"""`critical_path`: at every instant of a run exactly one span is answerable, and which one is as published."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
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
from otel_debugstore_analysis.analyses.critical_path import CriticalPath, critical_path
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.importer import import_files
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths
from sessions import MS, hex_id, span, write_journal, write_sealed
from waiting import Call, place, traces

SHARED = Path(__file__).parents[2] / "shared" / "data"
"""Public traces, beside the project where it is developed."""


@contextmanager
def stored(spans: Sequence[SpanRecord]) -> Iterator[query.DuckDBEngine]:
    with tempfile.TemporaryDirectory() as folder:
        write_journal(Path(folder), "s", spans)
        with SessionReader(Path(folder)) as reader:
            yield query.DuckDBEngine(reader)


def shares(found: CriticalPath) -> dict[str | None, int]:
    """Return by component how long it is on the path."""
    return {row["component"]: row["critical_ns"] for row in found.components.dicts()}


def pieces(found: CriticalPath) -> list[tuple[str, int, int]]:
    """Return the segments: the span's id, and from when to when in microseconds."""
    rows = found.segments.dicts()
    return [(row["span_id"], row["from_ns"] // 1000, row["to_ns"] // 1000) for row in rows]


def jaeger(folder: Path, path: Path, **options: Any) -> CriticalPath:
    """Return the answer for a file of Jaeger's JSON, skipping the test where it is absent."""
    if not path.exists():
        pytest.skip(f"the public trace {path.name} is not there: expected in ../shared/data of the project")
    assert import_files([path], SessionPaths(folder, "jaeger")).spans > 0
    with SessionReader(folder) as reader:
        return critical_path(query.DuckDBEngine(reader), **options)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12])
def test_crisp(tmp_path: Path, number: int) -> None:
    """On CRISP's own cases every operation has the exclusive time on the critical path that these state."""
    path = SHARED / "crisp" / f"{number}.json"
    found = shares(jaeger(tmp_path, path))
    stated = json.loads(path.read_text())["testing"]
    of_operations: dict[str, int] = stated[0] if isinstance(stated, list) else stated["opTimeExclusive"]
    assert found == {name.rpartition(" ")[2]: time_us * 1000 for name, time_us in of_operations.items() if time_us}


def test_crisp_small_overlap(tmp_path: Path) -> None:
    """Calls that overlap by less than 1 % of their parent are one after the other; the overlap is the later one's.

    CRISP states 400, 200, 100 and 300: it counts an overlap for both calls, and takes it from their parent.
    """
    found = shares(jaeger(tmp_path, SHARED / "crisp" / "10.json"))
    assert found == {"O1": 402_000, "O2": 199_000, "O3": 99_000, "O4": 300_000}


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        # A child that outlives its parent is cut to it; the one beside it is not on the path.
        ("traceWithOverlappingChildren", [("send", 0, 3), ("async task 1", 3, 36)]),
        # A child that begins after its parent's end is dropped.
        ("traceWithSingleChildLongerThanParentAndStartsAfterParent", [("send", 0, 40)]),
        # Of three that overlap only the one that ends last is on the path: no other had ended when it began.
        (
            "traceWithThreeShortOverlappingChildren",
            [("send", 0, 13), ("overlapping child 3", 13, 19), ("send", 19, 36)],
        ),
        ("traceWithTwoNonOverlappingChildren", [("send", 0, 10), ("non-overlapping child", 10, 20), ("send", 20, 40)]),
    ],
)
def test_jaeger(tmp_path: Path, name: str, sections: list[tuple[str, int, int]]) -> None:
    """On the traces of Jaeger's tests the sections are those that its rules give, in microseconds."""
    found = jaeger(tmp_path, SHARED / "jaeger-ui" / f"{name}.json")
    rows = found.segments.dicts()
    assert [(row["component"], row["from_ns"] // 1000, row["to_ns"] // 1000) for row in rows] == sections


def test_gen_ai_trace(tmp_path: Path) -> None:
    """A trace of an agent with tools gives the sections that the model does."""
    path = SHARED / "jaeger-ui" / "genaiTestTrace.json"
    found = jaeger(tmp_path, path, max_segments=10_000)
    document = json.loads(path.read_text())
    (root,) = place([_call(made, document["processes"]) for made in document["spans"]])
    zero = root.low
    expected = sorted((begin - zero, end - zero, hex_id(number)) for number, begin, end in root.segments())
    assert [(begin, end, name) for name, begin, end in pieces(found)] == expected


def _call(made: dict[str, Any], processes: dict[str, Any]) -> Call:
    tags = {tag["key"]: tag["value"] for tag in made["tags"]}
    parents = [int(reference["spanID"], 16) for reference in made["references"]]
    kind = str(tags.get("span.kind", "internal")).upper()
    service = processes[made["processID"]]["serviceName"]
    failed = bool(tags.get("error")) or tags.get("otel.status_code") == "ERROR"
    times = (made["startTime"], made["duration"])
    return Call(int(made["spanID"], 16), next(iter(parents), None), *times, kind=kind, service=service, failed=failed)


@pytest.mark.slow
@settings(max_examples=80, deadline=None)
@given(calls=traces())
def test_model(calls: list[Call]) -> None:
    """Whatever the clocks, segments are those of a slow model: they divide the run, with one span at each instant."""
    with stored([call.record() for call in calls]) as engine:
        found = critical_path(engine)
    (root,) = place(calls)
    expected = sorted((begin - root.low, end - root.low, hex_id(number)) for number, begin, end in root.segments())
    assert [(begin, end, name) for name, begin, end in pieces(found)] == expected
    edges = [0, *(end for _, end, _ in expected)]
    assert edges == [*(begin for begin, _, _ in expected), calls[0].duration]
    assert sum(shares(found).values()) == calls[0].duration * 1000


@settings(max_examples=25, deadline=None)
@given(trees=st.lists(traces(max_calls=8), min_size=2, max_size=6))
def test_many_traces(trees: list[list[Call]]) -> None:
    """The answer of all runs is the sum of the answers of each, by workflow."""
    with stored([call.record(trace) for trace, calls in enumerate(trees, 1) for call in calls]) as engine:
        found = critical_path(engine, limit=1000)
    expected: dict[tuple[str, str], int] = defaultdict(int)
    for calls in trees:
        components = {call.number: call.component for call in calls}
        for number, begin, end in place(calls)[0].segments():
            expected[calls[0].component, components[number]] += (end - begin) * 1000
    rows = found.components.dicts()
    assert {(row["workflow"], row["component"]): row["critical_ns"] for row in rows} == expected
    of_workflows = {row["workflow"]: row["total_ns"] for row in found.workflows.dicts()}
    for workflow, total_ns in of_workflows.items():
        assert sum(ns for (of, _), ns in expected.items() if of == workflow) == total_ns


WORK = [
    span(1, "request", duration_ms=100, service="web"),
    span(2, "query", parent=1, start_ms=10, duration_ms=30, service="db", attributes={"debugstore.layer": "tool"}),
    span(3, "query", parent=1, start_ms=50, duration_ms=40, service="db", attributes={"debugstore.layer": "tool"}),
    span(4, "log", parent=1, start_ms=60, duration_ms=20, service="web"),
]


def test_answer() -> None:
    """Time, share, runs, median and evidence by component; the runs by workflow; the path of the slowest run."""
    with stored(WORK) as engine:
        found = critical_path(engine)
    trace = hex_id(1, 32)
    assert found.components.dicts() == [
        {
            "workflow": "request",
            "component": name,
            "critical_ns": ms * MS,
            "critical_share": ms / 100,
            "runs": 1,
            "p50_ns": ms * MS,
            "p95_ns": ms * MS,
            "trace_ids": (trace,),
        }
        for name, ms in (("query", 70), ("request", 30))
    ]
    assert found.workflows.rows == [("request", 1, 100 * MS, 100 * MS, 100 * MS, 4, (trace,))]
    assert found.segments.rows[1] == (trace, hex_id(2), "query", "tool", "db", 10 * MS, 40 * MS, 30 * MS)


@pytest.mark.parametrize(("by", "expected"), [("layer", {"tool": 70, None: 30}), ("service", {"db": 70, "web": 30})])
def test_by(by: str, expected: dict[str | None, int]) -> None:
    """Time may be added up by layer or service; what has none is a group too."""
    with stored(WORK) as engine:
        rows = critical_path(engine, by=by).components.dicts()
    assert {row[by]: row["critical_ns"] // MS for row in rows} == expected


def test_by_nonsense() -> None:
    """What time can't be added up by is refused, with what it can."""
    with stored(WORK) as engine, pytest.raises(QueryError, match="take one of component, layer, service"):
        critical_path(engine, by="trace_id")


def test_weights() -> None:
    """A sampled run stands for as many as its probability says."""
    spans = [span(1, "job", trace=1, duration_ms=10), span(2, "job", trace=2, duration_ms=30, trace_state="ot=th:c")]
    with stored(spans) as engine:
        found = critical_path(engine)
    (row,) = found.workflows.dicts()
    assert (row["runs"], row["total_ns"], row["p50_ns"]) == (5, 130 * MS, 30 * MS)
    assert shares(found) == {"job": 130 * MS}


def test_chosen_runs() -> None:
    """The outermost spans of a component or of a layer may be the runs; what is not below one is not looked at."""
    spans = [*WORK, span(5, "query", parent=3, start_ms=50, duration_ms=10)]
    with stored(spans) as engine:
        by_component = critical_path(engine, workflow="query")
        by_layer = critical_path(engine, layer="tool")
        nothing = critical_path(engine, workflow="nonsense")
    for found in (by_component, by_layer):
        assert [row["runs"] for row in found.workflows.dicts()] == [2]
        assert shares(found) == {"query": 70 * MS}
    assert nothing.components.rows == nothing.segments.rows == []
    assert nothing.components.notes == ("No span there is of component 'nonsense'.",)


def test_roots_and_orphans() -> None:
    """Every root is a run; orphans are, where a trace has no root; else they are left out, and that is said."""
    spans = [
        span(1, "one", duration_ms=10),
        span(2, "follows", start_ms=20, duration_ms=5),
        span(3, "orphan", parent=99, start_ms=2, duration_ms=3),
        span(4, "below", parent=3, start_ms=2, duration_ms=3),
        span(5, "part", trace=2, parent=98, duration_ms=7),
        span(6, "self", trace=3, parent=6, duration_ms=2),
    ]
    with stored(spans) as engine:
        found = critical_path(engine)
    runs = {row["workflow"]: row["total_ns"] // MS for row in found.workflows.dicts()}
    assert runs == {"one": 10, "follows": 5, "part": 7, "self": 2}
    text = " ".join(found.components.notes)
    assert "1 spans whose parent was not recorded are left out" in text
    assert "1 traces have no root" in text


def test_one_trace() -> None:
    """The path of a trace is shown by its id; for one without a run that lasted, and for none, there is a sentence."""
    spans = [*WORK, span(1, "other", trace=2, duration_ms=500), span(1, "short", trace=3, duration_ms=0)]
    with stored(spans) as engine:
        found = critical_path(engine, trace_id=hex_id(1, 32))
        short = critical_path(engine, trace_id=hex_id(3, 32)).segments
        with pytest.raises(QueryError, match="No trace begins with 'ffff'"):
            critical_path(engine, trace_id="ffff")
    assert [row["component"] for row in found.segments.dicts()] == ["request", "query", "request", "query", "request"]
    assert short.rows == []
    assert "no run" in short.notes[0]


def test_limits() -> None:
    """What limits cut off is counted."""
    with stored(WORK) as engine:
        found = critical_path(engine, limit=1, max_segments=2)
    assert (len(found.components.rows), found.components.left_out) == (1, 1)
    assert [row["duration_ns"] // MS for row in found.segments.dicts()] == [30, 40]
    assert found.segments.left_out == 3


def test_nothing(tmp_path: Path) -> None:
    """An empty session is answered with a sentence."""
    write_journal(tmp_path, "s", [])
    with SessionReader(tmp_path) as reader:
        found = critical_path(query.DuckDBEngine(reader))
    assert [len(table.rows) for table in found] == [0, 0, 0]
    assert found.components.notes == ("There are no spans.",)


@pytest.mark.parametrize("duration_ms", [0, -5])
def test_no_time(duration_ms: int) -> None:
    """A run without a duration, or with a negative one, is a run of none."""
    with stored([span(1, "job", duration_ms=duration_ms), span(2, "part", parent=1)]) as engine:
        found = critical_path(engine)
    assert found.components.rows == found.segments.rows == []
    assert [row["total_ns"] for row in found.workflows.dicts()] == [0]


def deep(count: int) -> Iterator[SpanRecord]:
    """Yield spans of which each is the only child of the one before."""
    for number in range(1, count + 1):
        yield span(
            number, f"c{number % 7}", parent=number - 1 or None, start_ms=number / 1000, duration_ms=1000 - number / 500
        )


def wide(count: int) -> Iterator[SpanRecord]:
    """Yield a span with children of as many components, one after the other."""
    yield span(1, "x" * 10_000, duration_ms=count)
    for number in range(2, count + 1):
        yield span(number, f"c{number}", parent=1, start_ms=number - 2, duration_ms=0.5)


def test_deep_trace(tmp_path: Path) -> None:
    """A trace of 100,000 spans, each below the one before, is answered without recursion."""
    write_sealed(tmp_path, "s", deep(100_000))
    with SessionReader(tmp_path) as reader:
        found = critical_path(query.DuckDBEngine(reader), limit=7)
    assert sum(shares(found).values()) == found.workflows.dicts()[0]["total_ns"]
    assert (found.segments.left_out or 0) > 100_000


def test_many_components(tmp_path: Path) -> None:
    """10,000 components, and a name of 10 KB, are answered, in a stable order."""
    write_sealed(tmp_path, "s", wide(10_000))
    with SessionReader(tmp_path) as reader:
        found = critical_path(query.DuckDBEngine(reader), limit=4)
    assert [row["component"][:6] for row in found.components.dicts()] == ["xxxxxx", "c10", "c100", "c1000"]
    assert found.components.left_out == 9_996


def test_both_engines(engines: Engines, nezha: Engines) -> None:
    """DuckDB and ClickHouse give one answer, on odd spans and on those of a real shop."""
    assert_same(engines, critical_path)
    found = assert_same(nezha, critical_path)
    assert sum(row["total_ns"] for row in found.workflows.dicts()) > 0
