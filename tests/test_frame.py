"""`query.frame`: whole traces as columns, with parents, self times and a sample that is the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis import query
from otel_debugstore_analysis.query import _links
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.reader import SessionReader
from sessions import MS, START_NS, hex_id, span, write_sealed


@contextmanager
def engine(base_path: Path) -> Iterator[query.DuckDBEngine]:
    with SessionReader(base_path) as reader:
        yield query.DuckDBEngine(reader)


def framed(base_path: Path, spans: Sequence[SpanRecord], **limits: Any) -> query.SpanFrame:
    write_sealed(base_path, "s", spans)
    with engine(base_path) as found:
        return query.frame(found, **limits)


def test_columns(tmp_path: Path) -> None:
    """A row a span, by trace and start, of those that start together the longest first, with texts as codes."""
    frame = framed(
        tmp_path,
        [
            span(9, "b", trace=2, start_ms=5, error="E"),
            span(2, "b", parent=1, start_ms=20, duration_ms=60, service="web", attributes={"k": "v"}),
            span(3, "c", parent=1, start_ms=20, duration_ms=40, trace_state="ot=th:8"),
            span(1, "a", duration_ms=100, service="web", attributes={"debugstore.cpu.time_ns": 7}),
        ],
        columns=("cpu_ns", "k", "name"),
    )
    assert len(frame) == 4
    assert frame.trace_ids == (hex_id(1, 32), hex_id(2, 32))
    assert frame.span_ids.tolist() == [hex_id(n) for n in (1, 2, 3, 9)]
    assert frame.trace.tolist() == [0, 0, 0, 1]
    assert frame.bounds.tolist() == [0, 3, 4]
    assert frame.parent.tolist() == [-1, 0, 0, -1]
    assert (frame.start_ns - START_NS).tolist() == [0, 20 * MS, 20 * MS, 5 * MS]
    assert frame.duration_ns.tolist() == [100 * MS, 60 * MS, 40 * MS, MS]
    assert frame.self_ns.tolist() == [40 * MS, 60 * MS, 40 * MS, MS]
    assert [frame.components[code] for code in frame.component] == ["a", "b", "c", "b"]
    assert [frame.services[code] for code in frame.service] == ["web", "web", None, None]
    assert frame.layers == (None,)
    assert frame.sessions == ("s",)
    assert frame.kinds == ("INTERNAL",)
    assert frame.is_error.tolist() == [False, False, False, True]
    assert frame.weight.tolist() == [1, 1, 2, 1]
    cpu, attribute, name = (frame.extra[column] for column in ("cpu_ns", "k", "name"))
    assert isinstance(cpu, np.ndarray)
    assert isinstance(attribute, query.Coded)
    assert isinstance(name, query.Coded)
    np.testing.assert_array_equal(cpu, [7, np.nan, np.nan, np.nan])
    assert [attribute.values[code] for code in attribute.codes] == [None, "v", None, None]
    assert name.values == ("a", "b", "c")
    assert (frame.left_out_traces, frame.left_out_spans, frame.notes) == (0, 0, ())


def test_nothing(tmp_path: Path) -> None:
    """An empty session, and a selection that takes nothing, make an empty frame with all columns."""
    frame = framed(tmp_path, [span(1)], selection=query.Selection(where={"name": "other"}), columns=("cpu_ns", "k"))
    assert (len(frame), frame.trace_ids, frame.bounds.tolist(), frame.components) == (0, (), [0], ())
    assert len(frame.parent) == len(frame.self_ns) == len(frame.span_ids) == 0
    assert frame.extra.keys() == {"cpu_ns", "k"}
    with engine(tmp_path) as found, pytest.raises(QueryError, match="no field"):
        query.frame(found, columns=("attributes.",))


def test_a_selection_takes_whole_traces(tmp_path: Path) -> None:
    """Of a trace with one selected span every span comes."""
    write_sealed(tmp_path, "s", [span(1, "a"), span(2, "b", parent=1, start_ms=3), span(3, "a", trace=2)])
    with engine(tmp_path) as found:
        for selection in (query.Selection(where={"name": "b"}), query.Selection(since_ns=START_NS + MS)):
            assert query.frame(found, selection=selection).span_ids.tolist() == [hex_id(1), hex_id(2)]


def test_more_traces_than_there_is_room_for(tmp_path: Path) -> None:
    """The least by the last 16 digits of their ids come, whole, and a note says how many did not."""
    ids = [(1 << 64) + 5, (9 << 64) + 1, (2 << 64) + 3, (3 << 64) + 3]
    write_sealed(tmp_path, "s", [span(n * 10 + k, trace=trace) for n, trace in enumerate(ids, 1) for k in range(1, 3)])
    with engine(tmp_path) as found:
        frame = query.frame(found, max_traces=2)
        assert frame.trace_ids == (hex_id(ids[2], 32), hex_id(ids[1], 32))
        assert (frame.left_out_traces, frame.left_out_spans, len(frame)) == (2, 4, 4)
        assert frame.notes[0].startswith("2 of 4 traces are looked at")
        by_spans = query.frame(found, max_spans=7)
        assert by_spans.trace_ids == tuple(sorted(hex_id(ids[n], 32) for n in (1, 2, 3)))
        assert (by_spans.left_out_traces, by_spans.left_out_spans) == (1, 2)
        none = query.frame(found, max_spans=1)
        assert (len(none), none.left_out_traces, none.left_out_spans) == (0, 4, 8)


def test_odd_times(tmp_path: Path) -> None:
    """Spans without a start are left out and counted; one that ends before it starts, or never, takes no time."""
    frame = framed(
        tmp_path,
        [
            span(1, start_ns=None),
            span(2, parent=1, duration_ms=-4),
            replace(span(3, parent=2, start_ms=1), end_ns=None),
            span(4, parent=3, start_ns=2**63 - 10, duration_ms=0),
        ],
    )
    assert frame.duration_ns.tolist() == [0, 0, 0]
    assert frame.self_ns.tolist() == [0, 0, 0]
    assert frame.parent.tolist() == [-1, 0, 1]
    assert frame.is_orphan.tolist() == [True, False, False]
    assert frame.left_out_spans == 1
    assert "1 spans without a start are left out." in frame.notes


def test_circles_are_cut_at_the_earliest_span(tmp_path: Path) -> None:
    """No row is its own ancestor; what hangs below a circle stays below it."""
    frame = framed(
        tmp_path,
        [
            span(1, parent=3, start_ms=5),
            span(2, parent=1, start_ms=2),
            span(3, parent=2, start_ms=3),
            span(4, parent=3, start_ms=1),
            span(5, parent=5, trace=2),
        ],
    )
    names = dict(enumerate(frame.span_ids))
    parents = {names[row]: names.get(int(parent)) for row, parent in enumerate(frame.parent)}
    assert parents == {
        hex_id(2): None,
        hex_id(3): hex_id(2),
        hex_id(1): hex_id(3),
        hex_id(4): hex_id(3),
        hex_id(5): None,
    }
    assert not frame.is_orphan.any()
    assert "2 circles" in frame.notes[0]


def test_spans_that_share_an_id(tmp_path: Path) -> None:
    """A child belongs to the span of its own process, else to the first; self times count it for each of them."""
    write_sealed(tmp_path, "s", [span(1, duration_ms=100), span(2, parent=1, start_ms=10, duration_ms=10)], pid=1)
    write_sealed(tmp_path, "s", [span(1, start_ms=5, duration_ms=90), span(3, parent=1, start_ms=30)], pid=2)
    write_sealed(tmp_path, "s", [span(4, parent=1, start_ms=40)], pid=3)
    with engine(tmp_path) as found:
        frame = query.frame(found)
        assert frame.span_ids.tolist() == [hex_id(n) for n in (1, 1, 2, 3, 4)]
        assert frame.parent.tolist() == [-1, -1, 0, 1, 0]
        assert frame.self_ns.tolist() == [88 * MS, 78 * MS, 10 * MS, MS, MS]
        stored = found.execute("SELECT self_ns FROM spans ORDER BY start_ns, span_id", {})
        assert frame.self_ns.tolist() == [row[0] for row in stored]


def test_ids_that_differ_in_their_first_digits_only(tmp_path: Path) -> None:
    """Ids are told apart by all of their digits, also in very many traces."""
    spans = [span(1 + (n << 60), f"p{n}", trace=t, duration_ms=9) for n in range(4) for t in (1, 2, 10**6)]
    spans += [span(2 + (n << 40), f"c{n}", trace=t, parent=1 + (n << 60)) for n in range(4) for t in (1, 2, 10**6)]
    frame = framed(tmp_path, spans)
    for row, parent in enumerate(frame.parent):
        name = frame.components[frame.component[row]] or ""
        above = frame.components[frame.component[parent]] if parent >= 0 else None
        assert above == (f"p{name[1:]}" if name[0] == "c" else None)


def test_very_many_spans_of_one_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every pair of parent and child would be too many, each child counts for one parent, and a note says so."""
    write_sealed(tmp_path, "s", [span(1, parent=1, start_ms=n, duration_ms=2) for n in range(50)])
    with engine(tmp_path) as found:
        assert not any("share ids" in note for note in query.frame(found).notes)
        monkeypatch.setattr(_links, "_MAX_EDGES", 49 * 50)
        frame = query.frame(found)
    assert "Very many spans share ids" in frame.notes[-1]
    assert set(frame.parent.tolist()) == {-1, 0}
    assert frame.self_ns.tolist()[2:] == [2 * MS] * 48


def test_a_trace_as_deep_as_it_is_long(tmp_path: Path) -> None:
    """Ten thousand spans one below the other, and as many in a circle, are linked at once."""
    count = 10_000
    chain = [span(n, parent=n - 1 or None, start_ms=n, duration_ms=count - n) for n in range(1, count + 1)]
    ring = [span(n, parent=n % count + 1, trace=2) for n in range(1, count + 1)]
    write_sealed(tmp_path, "s", [*chain, *ring])
    with engine(tmp_path) as found:
        frame = query.frame(found)
    assert frame.parent[:count].tolist() == list(range(-1, count - 1))
    assert int((frame.parent[count:] == -1).sum()) == 1


spans_of_a_trace = st.lists(
    st.tuples(
        st.integers(1, 12),
        st.none() | st.integers(1, 14),
        st.integers(-20, 60),
        st.integers(-5, 60),
        st.sampled_from([1, 1, 2**36]),
    ),
    max_size=24,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(traces=st.lists(spans_of_a_trace, max_size=3), split=st.booleans())
@example(traces=[[(1, None, 1, 1, 1), (1, 1, 1, 0, 1)]], split=False)
@example(traces=[[(1, 1, 1, 0, 1), (1, None, 1, 0, 1)]], split=False)
def test_parents_and_self_times_as_they_are_defined(
    tmp_path_factory: pytest.TempPathFactory, traces: list[list[tuple[int, ...]]], split: bool
) -> None:
    """Of any spans: self times are those of the segments, and parents those of `trace`."""
    base_path = tmp_path_factory.mktemp("frame")
    spans = [
        span(number, parent=parent, trace=t + 1, start_ms=start, duration_ms=duration * factor)
        for t, some in enumerate(traces)
        for number, parent, start, duration, factor in some
    ]
    half = len(spans) // 2 if split else len(spans)
    write_sealed(base_path, "s", spans[:half], pid=1)
    write_sealed(base_path, "s", spans[half:], pid=2)
    with engine(base_path) as found:
        frame = query.frame(found)
        assert sorted(zip(frame.span_ids, frame.self_ns.tolist(), strict=True)) == sorted(
            found.execute("SELECT span_id, greatest(self_ns, 0) FROM spans", {})
        )
        for number, trace_id in enumerate(frame.trace_ids):
            rows = range(*frame.bounds[number : number + 2].tolist())
            depths = {row: _depth(frame, row) for row in rows}
            shown = query.trace(found, trace_id, 1_000).spans
            tops = sum(1 for s in shown if s.depth == 0)
            assert sum(1 for depth in depths.values() if depth == 0) == tops
            assert int(frame.is_orphan[rows.start : rows.stop].sum()) == sum(1 for s in shown if s.mark == "orphan")


def _depth(frame: query.SpanFrame, row: int) -> int:
    depth, seen = 0, {row}
    while (row := int(frame.parent[row])) >= 0:
        assert row not in seen, "a row is its own ancestor"
        seen.add(row)
        depth += 1
    return depth
