"""The histogram that segments carry: of whole segments, and of ten seconds where a window cuts one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from first_version import make_first_version, make_first_version_archive
from otel_debugstore_analysis import query
from otel_debugstore_exporters.archive import archive_session
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths
from sessions import MS, START_NS, span, write_journal, write_sealed

_TEN_SECONDS_NS = 10_000_000_000
_SHARES = {"p50_ns": 0.5, "p95_ns": 0.95, "p99_ns": 0.99}

spans = st.lists(
    st.builds(
        lambda name, start, duration, error: (name, start, duration, error),
        st.sampled_from(["a", "b", "c"]),
        st.integers(0, 90_000),
        st.floats(0.001, 100_000, allow_nan=False),
        st.sampled_from(["", "E"]),
    ),
    max_size=25,
)


def records(drawn: Sequence[tuple[str, int, float, str]], first_id: int) -> list[SpanRecord]:
    return [
        span(first_id + number, name, trace=1 + number, start_ms=start, duration_ms=duration, error=error)
        for number, (name, start, duration, error) in enumerate(drawn)
    ]


@contextmanager
def engine(base_path: Path) -> Iterator[query.DuckDBEngine]:
    with SessionReader(base_path) as reader:
        yield query.DuckDBEngine(reader)


def expected(spans: Sequence[SpanRecord], since_ns: int | None, until_ns: int | None) -> dict[str, list[SpanRecord]]:
    """Return the spans in the tens of seconds of a window, by component."""
    found = defaultdict(list)
    for record in spans:
        ten = (record.start_ns or 0) // _TEN_SECONDS_NS
        if (since_ns is None or ten >= since_ns // _TEN_SECONDS_NS) and (
            until_ns is None or ten <= until_ns // _TEN_SECONDS_NS
        ):
            found[record.name].append(record)
    return found


def check(table: query.Table, spans: dict[str, list[SpanRecord]]) -> None:
    rows = {row["component"]: row for row in table.dicts()}
    assert rows.keys() == spans.keys()
    for component, some in spans.items():
        durations = sorted((record.end_ns or 0) - (record.start_ns or 0) for record in some)
        row = rows[component]
        assert (row["count"], row["total_ns"]) == (len(some), sum(durations))
        assert row["error_rate"] == pytest.approx(sum(record.status_code == 2 for record in some) / len(some))
        for name, share in _SHARES.items():
            assert row[name] == pytest.approx(durations[math.ceil(share * len(durations)) - 1], rel=0.0101, abs=1)


@pytest.mark.slow
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.generate],
)
@given(st.lists(spans, min_size=1, max_size=3), spans, st.lists(st.integers(-20_000, 110_000), min_size=2, max_size=2))
def test_histogram_equals_spans(
    tmp_path_factory: pytest.TempPathFactory,
    sealed: list[list[tuple[str, int, float, str]]],
    tail: list[tuple[str, int, float, str]],
    window: list[int],
) -> None:
    """Counts and totals are those of the spans, percentiles within a bucket of them: with any window over any
    segments, of this format and the first, and the journal."""
    base_path, everything = tmp_path_factory.mktemp("histogram"), []
    for number, drawn in enumerate(sealed):
        some = records(drawn, 1 + 100 * number)
        if some:
            write_sealed(base_path, f"s{number}", some)
            everything += some
            if number == 1:
                make_first_version(SessionPaths(base_path, f"s{number}").main_segment)
    some = records(tail, 1000)
    write_journal(base_path, "live", some)
    everything += some
    since_ns, until_ns = (START_NS + edge * MS for edge in sorted(window))
    with engine(base_path) as found:
        for since, until in ((None, None), (since_ns, None), (None, until_ns), (since_ns, until_ns)):
            table = query.percentiles_from_rollup(found, since_ns=since, until_ns=until)
            check(table, expected(everything, since, until))


def test_window_around_everything(tmp_path: Path) -> None:
    """A window in which all spans lie gives what no window gives."""
    write_sealed(tmp_path, "s", [span(n, "a", start_ms=n * 9_000, duration_ms=n) for n in range(1, 20)])
    with engine(tmp_path) as found:
        whole = query.percentiles_from_rollup(found)
        last_ns = START_NS + 19 * 9_000 * MS
        assert query.percentiles_from_rollup(found, since_ns=START_NS, until_ns=last_ns).rows == whole.rows


def test_archive_of_the_first_version(tmp_path: Path) -> None:
    """An archive that an older version wrote gives the same histogram and traces as the session."""
    write_sealed(tmp_path, "s", [span(n, "a", trace=n, start_ms=n * 9_000, duration_ms=n) for n in range(1, 9)])
    since_ns = START_NS + 40_000 * MS
    with engine(tmp_path) as found:
        before = query.percentiles_from_rollup(found).rows, query.percentiles_from_rollup(found, since_ns=since_ns).rows
        traces = query.slowest_traces(found).rows
    archive = archive_session(SessionPaths(tmp_path, "s"), remove=True)
    make_first_version_archive(archive)
    with engine(tmp_path) as found:
        after = query.percentiles_from_rollup(found).rows, query.percentiles_from_rollup(found, since_ns=since_ns).rows
        assert (after, query.slowest_traces(found).rows) == (before, traces)


@pytest.mark.parametrize("first_part", ["early", "late"])
def test_root_of_a_trace_in_several_parts(tmp_path: Path, first_part: str) -> None:
    """The root of a trace is the first span without a parent, whichever part holds it."""
    late = [span(1, "child", trace=7, parent=9, start_ms=0), span(2, "late", trace=7, start_ms=20, duration_ms=3)]
    early = [span(3, "early", trace=7, start_ms=5, duration_ms=8)]
    sealed, journal = (early, late) if first_part == "early" else (late, early)
    write_sealed(tmp_path, "s", sealed)
    write_journal(tmp_path, "s", journal)
    with SessionReader(tmp_path) as reader:
        sql = "SELECT root_name, root_start_ns, root_duration_ns, start_ns FROM traces"
        assert reader.query(sql).rows == [("early", START_NS + 5 * MS, 8 * MS, START_NS)]


def test_root_without_a_duration(tmp_path: Path) -> None:
    """The duration of a root is its own, also where it is not known; never that of another root."""
    open_root = replace(span(1, "open", trace=7, start_ms=0), end_ns=None)
    write_sealed(tmp_path, "s", [open_root, span(2, "ended", trace=7, start_ms=9, duration_ms=4)])
    with SessionReader(tmp_path) as reader:
        assert reader.query("SELECT root_name, root_duration_ns FROM traces").rows == [("open", None)]
