"""`performance`: the same figures as `top`, with histogram and history, on both engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines import Engines, assert_same, both
from otel_debugstore.errors import QueryError
from otel_debugstore_analysis import query
from otel_debugstore_analysis.analyses.performance import EDGES, performance
from otel_debugstore_exporters.reader import SessionReader
from sessions import MS, START_NS, hex_id, span, write_journal, write_sealed

WORK = [
    span(
        n,
        "load",
        start_ms=n * 100,
        duration_ms=n,
        attributes={"kind": "a" if n % 2 else "b"},
        error="E" if n == 5 else None,
    )
    for n in range(1, 11)
]
USED = {"debugstore.cpu.time_ns": 7, "debugstore.memory.peak_bytes": 8, "debugstore.io.read_bytes": 9}


def one(base_path: Path, **arguments: Any) -> Any:
    with SessionReader(base_path) as reader:
        return performance(query.DuckDBEngine(reader), **arguments)


def test_groups(tmp_path: Path) -> None:
    """Count, rate, total, percentiles, maximum and error rate of known spans."""
    write_sealed(tmp_path, "s", WORK)
    (row,) = one(tmp_path).groups.dicts()
    assert (row["count"], row["total_ns"], row["max_ns"]) == (10, 55 * MS, 10 * MS)
    assert row["rate_per_s"] == pytest.approx(10 / 0.910)  # from 100 ms to the end of the last, at 1,010 ms
    assert [row[name] for name in ("p50_ns", "p90_ns")] == pytest.approx([5.5 * MS, 9.1 * MS])
    assert (row["error_count"], row["error_rate"], row["cpu_ns"]) == (1, 0.1, None)


def test_evidence_is_the_longest_call(tmp_path: Path) -> None:
    """A trace of it for each group, the same one on both engines, also where several took as long."""
    spans = [span(n, "load", trace=n, duration_ms=min(n, 4)) for n in range(1, 8)]
    spans += [span(n, "save", trace=n, start_ms=5, duration_ms=7 - n % 3) for n in range(10, 16)]
    write_sealed(tmp_path, "s", spans)
    with both(tmp_path) as found:
        rows = assert_same(found, lambda engine: performance(engine, detailed=0)).groups.dicts()
    assert {row["component"]: row["trace_ids"] for row in rows} == {"load": (hex_id(4, 32),), "save": (hex_id(12, 32),)}


def test_what_was_used(tmp_path: Path) -> None:
    """CPU time and bytes are summed up by weights, of memory the highest peak is shown."""
    write_sealed(tmp_path, "s", [span(1, attributes=USED), span(2, attributes=USED, trace_state="ot=th:c")])
    (row,) = one(tmp_path).groups.dicts()
    assert (row["count"], row["cpu_ns"], row["memory_peak_bytes"], row["io_read_bytes"]) == (5, 35, 8, 45)


def test_histogram_and_history_hold_every_call(tmp_path: Path) -> None:
    """Each call is in one bucket and in one interval; bounds are those that people use."""
    write_sealed(tmp_path, "s", [*WORK, span(20, "none", duration_ms=0), span(21, "back", duration_ms=-3)])
    found = one(tmp_path, intervals=5)
    for table in (found.histogram, found.over_time):
        counts: dict[str, int] = {}
        for row in table.dicts():
            counts[row["component"]] = counts.get(row["component"], 0) + row["count"]
        assert counts == {"load": 10, "none": 1, "back": 1}
    for row in found.histogram.dicts():
        assert row["to_ns"] in EDGES
        inside = [
            s
            for s in WORK
            if row["from_ns"] is not None and row["from_ns"] < (s.end_ns or 0) - (s.start_ns or 0) <= row["to_ns"]
        ]
        assert row["component"] != "load" or row["count"] == len(inside)
    lengths = {row["end_ns"] - row["start_ns"] for row in found.over_time.dicts()}
    assert lengths == {500 * MS}
    assert all(row["start_ns"] % (500 * MS) == 0 for row in found.over_time.dicts())


@pytest.mark.parametrize(
    "by", ["component", "service", "session", "layer", "variant", "kind", "pid", ("component", "status")]
)
def test_equal_on_both_engines_and_to_top(engines: Engines, by: Any) -> None:
    """Odd spans, sampled ones and counted calls included."""
    found = assert_same(engines, lambda engine: performance(engine, by, limit=None))
    top = query.top(engines["duckdb"], by, limit=None)
    shared = [name for name in top.columns if name in found.groups.columns]
    assert len(shared) >= len(top.columns) - 1
    ours = [{name: row[name] for name in shared} for row in found.groups.dicts()]
    assert ours == [{name: row[name] for name in shared} for row in top.dicts()]


def test_equal_on_real_spans(nezha: Engines) -> None:
    """On a real shop's."""
    found = assert_same(nezha, performance)
    assert len(found.groups.rows) == 20
    assert found.groups.left_out


def test_nothing_selected(tmp_path: Path) -> None:
    """A sentence says so."""
    write_journal(tmp_path, "s", [])
    found = one(tmp_path)
    assert found.groups.rows == found.histogram.rows == found.over_time.rows == []
    assert found.groups.notes == ("No span is selected.",)


def test_far_times(tmp_path: Path) -> None:
    """Times at the ends of 64 bits overflow nothing."""
    far = [span(n, start_ns=time) for n, time in enumerate((-(2**62), 0, START_NS, 2**62 + 2**61), 1)]
    write_sealed(tmp_path, "s", [*far, span(9, start_ns=None)])
    (row,) = one(tmp_path).groups.dicts()
    assert row["count"] == 5


def test_an_order_that_there_is_not(tmp_path: Path) -> None:
    """The error names those that there are."""
    write_sealed(tmp_path, "s", WORK)
    with pytest.raises(QueryError, match="memory"):
        one(tmp_path, order="size")


def test_names_are_never_part_of_sql(tmp_path: Path) -> None:
    """Components of any text come back as they are."""
    names = ["'; DROP TABLE spans; --", 'a"b', "x" * 10_000, "{p:String}", "$1", "\\"]
    write_sealed(tmp_path, "s", [span(n, name) for n, name in enumerate(names, 1)])
    with both(tmp_path) as engines:
        found = assert_same(engines, performance)
    assert {row["component"] for row in found.histogram.dicts()} == set(names)
