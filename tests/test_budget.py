"""The overhead budget: what is sampled, what is always recorded, and that counts stay exact."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from time import perf_counter_ns

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from commands import run, run_well
from otel_debugstore import configure, function, instrument, tool
from otel_debugstore.recording_settings import recording_settings
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.reader import SessionReader
from stored import stored_spans

THREADS, CALLS, FAIL_EVERY = 3, 20_000, 1_000


@pytest.fixture
def base_path(tmp_path: Path) -> Path:
    configure(session_id="s", base_path=tmp_path)
    return tmp_path


def nothing() -> None: ...


def flushed(base_path: Path) -> list[SpanRecord]:
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.shutdown()
    return stored_spans(base_path)


def counted(base_path: Path, component: str) -> tuple[int, int, int, int]:
    """Return calls and errors that are not spans, their time, and the calls that are."""
    with SessionReader(base_path, ["s"]) as reader:
        (row,) = reader.query(
            "SELECT sum(call_count), sum(error_count), sum(duration_ns), sum(recorded_count) FROM counters "
            "WHERE component = ?",
            [component],
        ).rows
    calls, errors, duration, recorded = map(int, row)
    return calls, errors, duration, recorded


def test_counts_are_exact(base_path: Path) -> None:
    """A function called very often is sampled; spans and counted calls make all calls, from several threads."""

    @function(name="often")
    def often(number: int) -> int:
        if number % FAIL_EVERY == 0:
            raise LookupError(number)
        return number

    def call_often() -> None:
        for number in range(1, CALLS + 1):
            try:
                often(number)
            except LookupError:
                continue

    threads = [threading.Thread(target=call_often) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    spans = flushed(base_path)
    calls, errors, duration, recorded = counted(base_path, "often")
    assert recorded == len(spans) < THREADS * CALLS / 2
    assert calls + recorded == THREADS * CALLS
    assert errors + sum(span.status_code == 2 for span in spans) == THREADS * CALLS // FAIL_EVERY
    assert duration > 0


def test_top_shows_what_the_program_counted(base_path: Path) -> None:
    """Calls and errors are those of the program; their time is more than it measured inside, and less than outside."""
    inside_ns = outside_ns = errors = 0

    @function(name="often")
    def often(number: int) -> int:
        nonlocal inside_ns
        began = perf_counter_ns()
        try:
            if number % FAIL_EVERY == 0:
                raise LookupError(number)
            return sum(range(number % 50))
        finally:
            inside_ns += perf_counter_ns() - began

    for number in range(1, CALLS + 1):
        began = perf_counter_ns()
        try:
            often(number)
        except LookupError:
            errors += 1
        outside_ns += perf_counter_ns() - began
    assert len(flushed(base_path)) < CALLS / 2
    for grouping in ("component", "layer", "name", "session", "pid"):
        (row,) = json.loads(run_well("top", "--data-dir", base_path, "--by", grouping, "--format", "json"))
        assert row["count"] == CALLS
        assert row["error_rate"] == errors / CALLS
        assert inside_ns < row["total_ns"] < outside_ns
        assert 0 < row["recording_ns"] < outside_ns
    assert "Recording these calls took" in run("top", "--data-dir", base_path).stderr
    estimated = run("top", "--data-dir", base_path, "--by", "thread_id")
    assert "estimated" in estimated.stderr


def test_calls_that_a_sampler_drops_are_counted(tmp_path: Path) -> None:
    """With a sampler of the program's, spans and counted calls still make all calls, errors included."""
    trace.set_tracer_provider(TracerProvider(sampler=TraceIdRatioBased(0.25)))
    configure(session_id="s", base_path=tmp_path)

    @tool(name="work")
    def work(number: int) -> None:
        if number % 10 == 0:
            raise LookupError(number)

    for number in range(1, 401):
        try:
            work(number)
        except LookupError:
            continue
    spans = flushed(tmp_path)
    calls, errors, duration, recorded = counted(tmp_path, "work")
    assert (recorded, calls) == (len(spans), 400 - len(spans))
    assert 0 < recorded < 400
    assert errors == 40 - sum(span.status_code == 2 for span in spans)
    assert duration > 0


def test_sampled_spans_say_so(base_path: Path) -> None:
    """Their trace state holds the probability, which children do not inherit; late ones have weight 1."""

    @tool(name="child")
    def child() -> None: ...

    @function(name="parent")
    def parent(number: int) -> None:
        if number % 500 == 0:
            child()
        if number % 20_000 == 0:
            raise LookupError(number)

    for number in range(1, 200_001):
        try:
            parent(number)
        except LookupError:
            continue
    spans = flushed(base_path)
    assert not any(span.trace_state for span in spans if span.name == "child")
    assert sum(span.name == "child" for span in spans) == 400
    sampled = [span for span in spans if span.name == "parent" and span.trace_state]
    assert sampled
    for span in sampled:
        parts = dict(part.split(":") for part in span.trace_state.removeprefix("ot=").split(";"))
        assert int(parts["rv"], 16) >= int(parts["th"].ljust(14, "0"), 16) > 0
    failed = [span for span in spans if span.status_code == 2]
    assert failed
    assert not any(span.trace_state for span in failed)
    late = [span for span in failed if span.attributes.get("debugstore.late")]
    assert late
    with SessionReader(base_path, ["s"]) as reader:
        (row,) = reader.query(
            "SELECT min(sample_weight), max(sample_weight) FROM spans WHERE attributes['debugstore.late']::BOOL"
        ).rows
    assert row == (1.0, 1.0)


def test_what_is_always_recorded(base_path: Path) -> None:
    """Tools are never sampled unless asked for, and no function within its first 1,000 calls."""
    every, few = tool(name="every")(nothing), function(name="few")(nothing)
    for _ in range(3_000):
        every()
    for _ in range(900):
        few()
    names = [span.name for span in flushed(base_path)]
    assert (names.count("every"), names.count("few")) == (3_000, 900)


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`off` records every call; a component can have a budget of its own, whatever its layer; blocks count, too."""
    monkeypatch.setenv("OTEL_DEBUGSTORE_OVERHEAD_BUDGET", "off, bounded=0.1%")
    recording_settings.cache_clear()
    try:
        configure(session_id="s", base_path=tmp_path)
        unbounded = function(name="unbounded")(nothing)
        for _ in range(3_000):
            unbounded()
            with instrument("step", "bounded"):
                pass
        names = [span.name for span in flushed(tmp_path)]
    finally:
        recording_settings.cache_clear()
    calls, _, _, recorded = counted(tmp_path, "bounded")
    assert names.count("unbounded") == 3_000
    assert names.count("bounded") == recorded < 3_000
    assert calls + recorded == 3_000
