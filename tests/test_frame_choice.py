"""Which traces `query.frame` takes: the ways to find them say the same."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from engines import Engines, assert_equal, assert_same
from otel_debugstore_analysis import query
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.reader import SessionReader
from sessions import START_NS, hex_id, span, write_sealed

FAR_NS = 4_000_000_000_000_000_000
times = st.integers(0, 20)
spans = st.lists(
    st.builds(
        lambda trace, number, start, duration: (trace, number, start, duration),
        st.integers(1, 8),
        st.integers(1, 5),
        st.none() | times | st.just(FAR_NS),
        st.integers(-10, 10) | st.just(FAR_NS),
    ),
    min_size=1,
    max_size=20,
)


def record(trace: int, number: int, start: int | None, duration: int) -> SpanRecord:
    made = span(number, trace=trace, start_ns=None if start is None else START_NS)
    if start is None:
        return made
    begin = start if start == FAR_NS else START_NS + start
    return replace(made, start_ns=begin, end_ns=begin + duration)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(made=spans, since=st.none() | times, until=st.none() | times, limit=st.integers(1, 9), cut=st.booleans())
def test_traces_in_a_range_of_time(
    made: list[Any], since: int | None, until: int | None, limit: int, cut: bool
) -> None:
    """Of one session they are found by their traces' times, else by their spans; also where ends are before begins."""
    assume(since is None or until is None or since <= until)
    bounds = [None if bound is None else START_NS + bound for bound in (since, until)]
    selection = query.Selection(since_ns=bounds[0], until_ns=bounds[1])
    with tempfile.TemporaryDirectory() as folder:
        half = len(made) // 2 if cut else 0
        for part in filter(None, (made[:half], made[half:])):
            write_sealed(Path(folder), "s", [record(*one) for one in part])
        with SessionReader(Path(folder)) as every, SessionReader(Path(folder), ["s"]) as one:
            engines = query.DuckDBEngine(every), query.DuckDBEngine(one)
            assert [engine.has_unique_traces for engine in engines] == [False, True]
            frames = [query.frame(engine, selection=selection, max_traces=limit) for engine in engines]
            assert_equal(frames[0], frames[1])
    wanted = {
        hex_id(trace, 32)
        for trace, _, start, _ in made
        if (start is None and since is None and until is None)
        or (
            start is not None
            and (since is None or since <= start)
            and (until is None or (start < until and start != FAR_NS))
        )
    }
    assert len(frames[0].trace_ids) + frames[0].left_out_traces == len(wanted) or None in {one[2] for one in made}


def test_traces_of_ids(engines: Engines) -> None:
    """Those that are there, with all their spans; a limit cuts them as it does others."""
    ids = [hex_id(number, 32) for number in (1, 2, 4, 99)]
    found = assert_same(engines, lambda engine: query.frame(engine, trace_ids=ids, columns=("name",)))
    assert found.trace_ids == tuple(ids[:3])
    selected = [query.frame(engines["duckdb"], selection=query.Selection(where={"trace_id": one})) for one in ids[:3]]
    assert len(found) == sum(map(len, selected))
    assert assert_same(engines, lambda engine: query.frame(engine, trace_ids=ids, max_traces=2)).left_out_traces == 1
    assert len(assert_same(engines, lambda engine: query.frame(engine, trace_ids=[]))) == 0
