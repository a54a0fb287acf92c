"""Self times: the duration less the union of the children's intervals."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from faults import seal_and_merge
from otel_debugstore_exporters import schema
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths
from sessions import span, write_journal, write_sealed


@st.composite
def traces(draw: st.DrawFn) -> list[SpanRecord]:
    """Spans of two traces: overlapping, longer than their parents, sharing ids, without times, in rings."""
    spans = []
    for _ in range(draw(st.integers(1, 14))):
        start = draw(st.integers(0, 30))
        record = span(
            draw(st.integers(1, 6)),
            trace=draw(st.integers(1, 2)),
            parent=draw(st.none() | st.integers(1, 7)),
            start_ms=start,
            duration_ms=draw(st.integers(0, 20)),
        )
        if draw(st.integers(0, 9)) == 0:
            record = replace(record, start_ns=draw(st.sampled_from([None, record.start_ns])), end_ns=None)
        spans.append(record)
    return spans


def self_ns(record: SpanRecord, among: Sequence[SpanRecord]) -> int | None:
    """The duration less the milliseconds in which a child runs, counted one by one."""
    if record.start_ns is None or record.end_ns is None:
        return None
    ms = 1_000_000
    busy = {
        moment
        for child in among
        if child.trace_id == record.trace_id and child.parent_id == record.span_id
        if child.start_ns is not None and child.end_ns is not None
        for moment in range(max(child.start_ns, record.start_ns), min(child.end_ns, record.end_ns), ms)
    }
    return record.end_ns - record.start_ns - ms * len(busy)


def _shown(reader: SessionReader) -> list[tuple[object, ...]]:
    sql = "SELECT trace_id, span_id, parent_id, start_ns, duration_ns, self_ns FROM spans"
    return sorted(reader.query(sql).rows, key=repr)


def _expected(spans: Sequence[SpanRecord]) -> list[tuple[object, ...]]:
    rows = []
    for record in spans:
        own = self_ns(record, spans)
        duration = None if record.start_ns is None or record.end_ns is None else record.end_ns - record.start_ns
        parent = record.parent_id and record.parent_id.hex()
        rows.append((record.trace_id.hex(), record.span_id.hex(), parent, record.start_ns, duration, own))
    return sorted(rows, key=repr)


def _split(draw: st.DataObject, spans: Sequence[SpanRecord]) -> Iterator[list[SpanRecord]]:
    parts: list[list[SpanRecord]] = [[] for _ in range(3)]
    for record in spans:
        parts[draw.draw(st.integers(0, 2))].append(record)
    yield from parts


@pytest.mark.slow
@given(spans=traces(), data=st.data())
@settings(
    deadline=None,
    max_examples=10,
    phases=[Phase.explicit, Phase.generate],  # shrinking would take minutes
    suppress_health_check=[HealthCheck.too_slow],
)
def test_self_times(spans: list[SpanRecord], data: st.DataObject) -> None:
    """Self time is the duration less the union of the children's intervals, however a trace is spread over parts."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        first, second, tail = _split(data, spans)
        for part in (first, second):
            if part:
                write_sealed(base, "s", part)
        write_journal(base, "s", tail)
        expected = _expected(spans)
        with SessionReader(base, ["s"]) as reader:
            assert _shown(reader) == expected
            seal_and_merge(SessionPaths(base, "s"))
            assert _shown(reader) == expected


@given(spans=traces())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_self_times_in_sql(spans: list[SpanRecord]) -> None:
    """The same, of the SQL alone, where the times of all spans are known."""
    known = [record for record in spans if record.start_ns is not None and record.end_ns is not None]
    rows = [
        (key, r.trace_id.hex(), r.span_id.hex(), r.parent_id and r.parent_id.hex(), r.start_ns, r.end_ns - r.start_ns)
        for key, r in enumerate(known)
        if r.start_ns is not None and r.end_ns is not None
    ]
    _CONNECTION.execute(
        "CREATE OR REPLACE TABLE edge (key BIGINT, trace_id VARCHAR, span_id VARCHAR, parent_id VARCHAR, "
        "start_ns BIGINT, duration_ns BIGINT)"
    )
    for row in rows:
        _CONNECTION.execute("INSERT INTO edge VALUES (?, ?, ?, ?, ?, ?)", row)
    found = dict(_CONNECTION.execute(schema.self_times("edge")).fetchall())
    for key, record in enumerate(known):
        own = self_ns(record, known)
        assert found.get(key, rows[key][-1]) == own


def test_many_spans_with_one_id() -> None:
    """Where sixty thousand spans share one id, half of them its children, no pair of them is looked at by itself."""
    _CONNECTION.execute(
        "CREATE OR REPLACE TABLE edge AS SELECT range AS key, 't' AS trace_id, 'a' AS span_id, "
        "CASE WHEN range % 2 = 1 THEN 'a' END AS parent_id, 1000 * range AS start_ns, 1500 AS duration_ns "
        "FROM range(60000)"
    )
    found = dict(_CONNECTION.execute(schema.self_times("edge")).fetchall())
    assert {found[key] for key in range(1, 60000, 2)} == {0}
    assert {found[key] for key in range(2, 60000, 2)} == {500}
    assert found[0] == 1000


_CONNECTION = duckdb.connect()
