"""The query layer: what groups, percentiles and trees say about spans that are known."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis import query
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.reader import SessionReader
from sessions import MS, START_NS, hex_id, span, write_journal, write_sealed


@contextmanager
def engine(base_path: Path, *session_ids: str) -> Iterator[query.DuckDBEngine]:
    with SessionReader(base_path, session_ids or None) as reader:
        yield query.DuckDBEngine(reader)


def only(table: query.Table) -> dict[str, Any]:
    (row,) = table.dicts()
    return row


WORK = [
    span(1, "request", duration_ms=100, service="web"),
    span(2, "parse", parent=1, start_ms=10, duration_ms=20, attributes={"kind": "json", "size": 10}),
    span(3, "parse", parent=1, start_ms=40, duration_ms=40, attributes={"kind": "json"}, error="ValueError"),
    span(
        4,
        "store",
        parent=3,
        start_ms=50,
        duration_ms=10,
        attributes={"kind": "row", "debugstore.layer": "tool"},
    ),
]


@pytest.fixture(params=["sealed", "journal", "both", "archive"])
def work(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[query.DuckDBEngine]:
    """The spans of `WORK`, however they are kept."""
    if request.param in ("sealed", "archive"):
        write_sealed(tmp_path, "s", WORK)
    elif request.param == "journal":
        write_journal(tmp_path, "s", WORK)
    else:
        write_sealed(tmp_path, "s", WORK[:2])
        write_journal(tmp_path, "s", WORK[2:])
    if request.param == "archive":
        from otel_debugstore_exporters.archive import archive_session
        from otel_debugstore_exporters.session import SessionPaths

        archive_session(SessionPaths(tmp_path, "s"), remove=True)
    with engine(tmp_path) as found:
        yield found


def test_public_names() -> None:
    """`query` offers these names, each documented, and no other."""
    assert query.__all__ == sorted(query.__all__, key=lambda name: (not name.isupper(), name))
    for name in query.__all__:
        assert name in dir(query)
        assert getattr(query, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        query.nonsense  # noqa: B018


def test_top_by_component(work: query.DuckDBEngine) -> None:
    """Counts, total and self times, shares and error rates, the largest total first."""
    table = query.top(work)
    assert [row["component"] for row in table.dicts()] == ["request", "parse", "store"]
    request, parse, store = table.dicts()
    assert (request["total_ns"], request["self_ns"]) == (100 * MS, 40 * MS)
    assert (parse["count"], parse["total_ns"], parse["self_ns"]) == (2, 60 * MS, 50 * MS)
    assert (parse["p50_ns"], parse["p99_ns"]) == (30 * MS, pytest.approx(39.8 * MS))
    assert (parse["error_rate"], store["error_rate"]) == (0.5, 0.0)
    assert sum(row["self_share"] for row in table.dicts()) == pytest.approx(1)
    assert table.left_out == 0


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("name", {("request",): 1, ("parse",): 2, ("store",): 1}),
        ("service", {("web",): 1, (None,): 3}),
        ("layer", {("tool",): 1, (None,): 3}),
        ("session", {("s",): 4}),
        ("kind", {("INTERNAL",): 4}),
        ("attributes.kind", {("json",): 2, ("row",): 1, (None,): 1}),
        ("size", {("10",): 1, (None,): 3}),
        (["component", "attributes.kind"], {("parse", "json"): 2, ("store", "row"): 1, ("request", None): 1}),
    ],
)
def test_top_by_other_fields(work: query.DuckDBEngine, by: Any, groups: dict[Any, int]) -> None:
    """Any column, any attribute, and several of them; spans that lack it are a group of their own."""
    width = 1 if isinstance(by, str) else len(by)
    table = query.top(work, by, percentiles=False)
    assert {row[:width]: row[width] for row in table.rows} == groups


def test_top_of_selected_spans(work: query.DuckDBEngine) -> None:
    """Times (since inclusive, until exclusive) and conditions on columns and attributes narrow it down."""

    def count(**selection: Any) -> int:
        return sum(row["count"] for row in query.top(work, selection=query.Selection(**selection)).dicts())

    assert count(since_ns=START_NS + 10 * MS) == 3
    assert count(until_ns=START_NS + 10 * MS) == 1
    assert count(since_ns=START_NS + 10 * MS, until_ns=START_NS + 50 * MS) == 2
    assert count(where={"attributes.kind": "json"}) == 2
    assert count(where={"attributes.kind": "json", "status": "ERROR"}) == 1
    assert count(where={"duration_ns": str(20 * MS), "size": "10"}) == 1
    assert count(where={"name": "' OR 1=1 --"}) == 0


def test_top_is_bounded_and_says_so(work: query.DuckDBEngine) -> None:
    """Of more groups than the limit allows the largest are there, and the number of the others."""
    table = query.top(work, limit=1)
    assert only(table)["component"] == "request"
    assert table.left_out == 2
    assert only(table)["self_share"] == pytest.approx(0.4)


def test_many_groups(tmp_path: Path) -> None:
    """Of more groups than are fetched at once, shares and what is left out are of all."""
    write_sealed(tmp_path, "s", [span(n, f"g{n:04}", duration_ms=n, start_ms=n) for n in range(1, 1_001)])
    with engine(tmp_path) as found:
        some, everything = query.top(found, limit=3), query.top(found, limit=None)
    assert some.rows == everything.rows[:3]
    assert (some.left_out, everything.left_out) == (997, 0)
    assert some.dicts()[0]["self_share"] == pytest.approx(1_000 / sum(range(1, 1_001)))


@pytest.mark.parametrize("order", ["count", "self", "errors", "p50", "p95", "p99"])
def test_top_in_another_order(work: query.DuckDBEngine, order: str) -> None:
    """Rows are sorted by the measure asked for, descending."""
    table = query.top(work, order=order)
    values = [row[table.columns.index(query.ORDERS[order])] for row in table.rows]
    assert values == sorted(values, reverse=True)


def test_what_top_refuses(work: query.DuckDBEngine) -> None:
    """An attribute no span has, an unknown order, an empty field: errors that say what there is."""
    with pytest.raises(QueryError, match=r"No span there has an attribute 'compnent'.*component"):
        query.top(work, "compnent")
    with pytest.raises(QueryError, match="total, self"):
        query.top(work, order="biggest")
    with pytest.raises(QueryError, match="can't be ordered by 'p50'"):
        query.top(work, order="p50", percentiles=False)
    with pytest.raises(QueryError, match="no field of a span"):
        query.top(work, "attributes.")


def test_top_of_attribute_keys_with_odd_characters(tmp_path: Path) -> None:
    """Quotes, dots, percent signs and non-ASCII in an attribute's key are part of the key."""
    keys = ["it's", 'say "x"', "a.b.c", "ключ", "50 %s", "$dollar", "{curly}", "semi;colon--"]
    write_sealed(tmp_path, "s", [span(1, attributes={key: f"v{i}" for i, key in enumerate(keys)})])
    with engine(tmp_path) as found:
        for number, key in enumerate(keys):
            row = only(query.top(found, key))
            assert row[key] == f"v{number}"
            assert only(query.top(found, selection=query.Selection(where={key: f"v{number}"})))["count"] == 1


@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=40))
@settings(max_examples=20, deadline=None)
def test_percentiles_are_exact(tmp_path_factory: pytest.TempPathFactory, durations: list[int]) -> None:
    """Percentiles interpolate between the two nearest spans, as `statistics.quantiles` (inclusive) does."""
    base_path = tmp_path_factory.mktemp("exact")
    write_sealed(base_path, "s", [span(i + 1, duration_ms=d / MS) for i, d in enumerate(durations)])
    real = [int(d / MS * MS) for d in durations]
    cuts = statistics.quantiles(real * 2 if len(real) == 1 else real, n=100, method="inclusive")
    with engine(base_path) as found:
        row = only(query.top(found))
    expected = [cuts[49], cuts[94], cuts[98]]
    assert [row["p50_ns"], row["p95_ns"], row["p99_ns"]] == pytest.approx(expected, rel=1e-12, abs=1e-3)


def test_sampled_spans_count_by_their_weight(tmp_path: Path) -> None:
    """A span kept with probability 1/4 stands for four, in counts, totals, rates, shares and percentiles."""
    spans = [
        span(1, "a", duration_ms=10, trace_state="ot=th:c", error="E"),  # 1 - 12/16 = 1/4
        span(2, "a", duration_ms=20),
        span(3, "b", duration_ms=60),
    ]
    write_sealed(tmp_path, "s", spans)
    with engine(tmp_path) as found:
        a, b = sorted(query.top(found).dicts(), key=lambda row: str(row["component"]))
    assert (a["count"], a["total_ns"], a["self_ns"]) == (5, 60 * MS, 60 * MS)
    assert (a["error_rate"], a["self_share"]) == (0.8, 0.5)
    assert (a["p50_ns"], a["p95_ns"]) == (10 * MS, 20 * MS)
    assert (b["count"], b["p50_ns"]) == (1, 60 * MS)


def test_spans_without_times(tmp_path: Path) -> None:
    """A span whose times are not known is counted, and has no part in sums and percentiles."""
    write_sealed(tmp_path, "s", [span(1), span(2, start_ns=None), span(3, "b", start_ns=None)])
    with engine(tmp_path) as found:
        work, b = query.top(found).dicts()
        assert (work["count"], work["total_ns"], work["p50_ns"]) == (2, MS, MS)
        assert (b["count"], b["total_ns"], b["p50_ns"]) == (1, None, None)
        assert [row["span_id"] for row in query.slowest(found).dicts()] == [hex_id(1)]
        assert [s.offset_ns for s in query.trace(found, hex_id(1, 32)).spans] == [0, None, None]


def test_no_spans(tmp_path: Path) -> None:
    """An empty session has no groups, no slowest spans, no histogram."""
    write_journal(tmp_path, "s", [])
    with engine(tmp_path) as found:
        for table in (query.top(found), query.slowest(found), query.percentiles_from_rollup(found)):
            assert table.rows == []
        assert query.top(found).left_out == 0


def test_a_reader_sees_what_comes_later(tmp_path: Path) -> None:
    """A query asked again includes what was recorded in between, over all sessions of the reader."""
    write_journal(tmp_path, "s", [span(1)])
    with engine(tmp_path) as found:
        assert only(query.top(found))["count"] == 1
        write_journal(tmp_path, "s", [span(2)])
        write_sealed(tmp_path, "other", [span(3)])
        assert only(query.top(found))["count"] == 3


def test_slowest(work: query.DuckDBEngine) -> None:
    """The longest spans come first, only those selected, at most as many as asked for."""
    assert [row["span_id"] for row in query.slowest(work, limit=2).dicts()] == [hex_id(1), hex_id(3)]
    chosen = query.Selection(where={"component": "parse"})
    assert [row["duration_ns"] for row in query.slowest(work, selection=chosen).dicts()] == [40 * MS, 20 * MS]


def test_slowest_traces(tmp_path: Path) -> None:
    """Traces by the duration of their root."""
    write_sealed(tmp_path, "s", [span(1, trace=1), span(2, trace=2, duration_ms=9), span(3, trace=2, parent=2)])
    with engine(tmp_path) as found:
        rows = query.slowest_traces(found).dicts()
    assert [(row["trace_id"], row["span_count"]) for row in rows] == [(hex_id(2, 32), 2), (hex_id(1, 32), 1)]


def test_percentiles_from_rollup(tmp_path: Path) -> None:
    """The histogram gives percentiles to within 2 %, counts and totals exactly, in steps of 10 s."""
    durations = [1.07**i for i in range(200)]
    spans = [span(i + 1, "a", duration_ms=d) for i, d in enumerate(durations)]
    spans.append(span(999, "b", duration_ms=5, start_ms=60_000, error="E"))
    write_sealed(tmp_path, "s", spans)
    with engine(tmp_path) as found:
        a, b = query.percentiles_from_rollup(found).dicts()
        exact = query.top(found).dicts()[0]
        later = only(query.percentiles_from_rollup(found, since_ns=START_NS + 30_000 * MS))
        earlier = only(query.percentiles_from_rollup(found, until_ns=START_NS + 30_000 * MS))
        cut = query.percentiles_from_rollup(found, limit=1)
        with pytest.raises(QueryError, match="component, layer, service"):
            query.percentiles_from_rollup(found, "name")
    assert (a["count"], a["total_ns"]) == (200, exact["total_ns"])
    for name, share in (("p50_ns", 0.5), ("p95_ns", 0.95), ("p99_ns", 0.99)):
        least = sorted(durations)[math.ceil(share * 200) - 1] * MS
        assert a[name] == pytest.approx(least, rel=0.02)
    assert (b["count"], b["error_rate"]) == (1, 1.0)
    assert (later["component"], earlier["component"]) == ("b", "a")
    assert cut.left_out == 1


# Traces


def tree(trace: query.Trace) -> list[tuple[int, str, str]]:
    """Return depth, name and mark of the spans shown."""
    return [(s.depth, s.name, s.mark) for s in trace.spans]


def read_trace(base_path: Path, spans: Sequence[SpanRecord], limit: int = 1000) -> query.Trace:
    write_sealed(base_path, "s", spans)
    with engine(base_path) as found:
        return query.trace(found, hex_id(1, 32), limit)


def test_trace_is_a_tree(work: query.DuckDBEngine) -> None:
    """Spans stand below their parents in order of start, with offsets, durations, self times and errors."""
    found = query.trace(work, hex_id(1, 32))
    assert tree(found) == [(0, "request", ""), (1, "parse", ""), (1, "parse", ""), (2, "store", "")]
    assert [s.offset_ns for s in found.spans] == [0, 10 * MS, 40 * MS, 50 * MS]
    assert [s.self_ns for s in found.spans] == [40 * MS, 20 * MS, 30 * MS, 10 * MS]
    assert [s.error for s in found.spans] == [None, None, "ValueError: it broke", None]
    assert (found.start_ns, found.duration_ns) == (START_NS, 100 * MS)
    assert (found.span_count, found.error_count, found.left_out) == (4, 1, 0)


def test_trace_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    """As much of the id as is unique will do, in any case of letters; less, nothing, or no id is an error."""
    ids = [0xABC0 << 112, 0xABD0 << 112]
    write_sealed(tmp_path, "s", [span(i + 1, f"t{i}", trace=trace) for i, trace in enumerate(ids)])
    with engine(tmp_path) as found:
        assert query.trace(found, "ABC").spans[0].name == "t0"
        assert query.trace(found, f"{ids[1]:032x}").spans[0].name == "t1"
        with pytest.raises(QueryError, match=r"Several traces begin with 'ab': abc0\w+, abd0"):
            query.trace(found, "ab")
        for absent in ("abe", "f" * 32):
            with pytest.raises(QueryError, match="No trace begins with"):
                query.trace(found, absent)
        for wrong in ("", "xyz", "a" * 33, "' OR ''='"):
            with pytest.raises(QueryError, match="is no trace id"):
                query.trace(found, wrong)


def test_orphans_stand_at_the_top(tmp_path: Path) -> None:
    """A span whose parent was not recorded is shown at the top, marked, with its children below it."""
    found = read_trace(tmp_path, [span(1, "root"), span(2, "lost", parent=77, start_ms=5), span(3, "child", parent=2)])
    assert tree(found) == [(0, "root", ""), (0, "lost", "orphan"), (1, "child", "")]


def test_circles_are_cut(tmp_path: Path) -> None:
    """Spans that are each other's ancestors are shown once each, from the earliest, which is marked."""
    spans = [
        span(1, "own parent", parent=1),
        span(2, "b", parent=4, start_ms=2),
        span(3, "a", parent=2, start_ms=1),
        span(4, "c", parent=3, start_ms=3),
        span(5, "below", parent=4, start_ms=4),
    ]
    found = read_trace(tmp_path, spans)
    assert tree(found) == [
        (0, "own parent", "cycle"),
        (0, "a", "cycle"),
        (1, "c", ""),
        (2, "b", ""),
        (2, "below", ""),
    ]


def test_two_spans_of_one_id_are_two(tmp_path: Path) -> None:
    """A span open at a fork ends in both processes: each keeps the children of its own process."""
    forked = [span(1, "root"), span(2, "open at fork", parent=1)]
    write_sealed(tmp_path, "s", [*forked, span(3, "in parent", parent=2)], pid=10)
    write_sealed(tmp_path, "s", [forked[1], span(4, "in child", parent=2)], pid=20)
    with engine(tmp_path) as found:
        shown = query.trace(found, hex_id(1, 32))
    assert shown.span_count == 5
    children = {s.name: shown.spans[i - 1].pid for i, s in enumerate(shown.spans) if s.depth == 2}
    assert children == {"in parent": 10, "in child": 20}


def test_a_large_trace_is_bounded(tmp_path: Path) -> None:
    """Beyond the limit the longest spans are shown with what is above them; the rest is counted."""
    spans = [span(1, "root", duration_ms=1000)]
    spans += [span(n, "group", parent=1, duration_ms=100) for n in (2, 3)]
    spans += [span(10 + n, "short", parent=2, duration_ms=1) for n in range(50)]
    spans += [span(100, "long", parent=3, duration_ms=90)]
    found = read_trace(tmp_path, spans, limit=4)
    assert sorted(s.name for s in found.spans) == ["group", "group", "long", "root"]
    assert (found.span_count, found.left_out) == (54, 50)
    assert {s.span_id: s.hidden for s in found.spans}[hex_id(2)] == 50
    assert found.spans[0].hidden == 50


def test_a_deep_trace(tmp_path: Path) -> None:
    """Thousands of spans one below the other are no problem."""
    found = read_trace(tmp_path, [span(n, parent=n - 1 or None, start_ms=n) for n in range(1, 3001)], limit=5000)
    assert [s.depth for s in found.spans] == list(range(3000))


@given(st.lists(st.tuples(st.integers(1, 6), st.none() | st.integers(1, 7)), max_size=12), st.integers(1, 14))
@settings(max_examples=25, deadline=None)
def test_every_span_has_one_place(
    tmp_path_factory: pytest.TempPathFactory, ids: list[tuple[int, int | None]], limit: int
) -> None:
    """Whatever ids and parents spans have, each is shown once or counted as left out, and none is lost."""
    spans = [span(99, "first")] + [span(i, str(n), parent=p, start_ms=n) for n, (i, p) in enumerate(ids)]
    found = read_trace(tmp_path_factory.mktemp("graph"), spans, limit)
    assert len(found.spans) == min(limit, len(spans))
    assert len(found.spans) + found.left_out == found.span_count == len(spans)
    assert len({s.name for s in found.spans}) == len(found.spans)
    roots = [s for s in found.spans if s.depth == 0]
    assert all(s.parent_id is None or s.mark for s in roots)


# Following


def test_following_shows_every_span_once(tmp_path: Path) -> None:
    """New spans come once, in the order in which they ended, also when they are sealed in between."""
    import time

    from otel_debugstore_exporters.seal import seal_if_idle
    from otel_debugstore_exporters.session import SessionPaths

    now = time.time_ns()
    write_journal(tmp_path, "s", [span(n, f"old {n}", start_ns=now, start_ms=n) for n in (1, 2, 3)])
    with engine(tmp_path, "s") as found:
        follower = query.Follower(found, last=2)
        assert [row["name"] for row in follower.poll().dicts()] == ["old 2", "old 3"]
        assert follower.poll().rows == []
        later = [span(4, "long", start_ns=now, duration_ms=50), span(5, "short", start_ns=now, start_ms=2)]
        write_journal(tmp_path, "s", later)
        assert [row["name"] for row in follower.poll().dicts()] == ["short", "long"]
        seal_if_idle(SessionPaths(tmp_path, "s"))
        assert follower.poll().rows == []
        write_journal(tmp_path, "s", [span(6, "sealed at once", start_ns=now)])
        seal_if_idle(SessionPaths(tmp_path, "s"))
        assert [row["name"] for row in follower.poll().dicts()] == ["sealed at once"]
