"""`patterns`: habits that cost time are found where they are, with what they would save, and not where they are not."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines import Engines, assert_same, both
from otel_debugstore.errors import QueryError
from otel_debugstore.outbox import Payload
from otel_debugstore.payload import capture
from otel_debugstore_analysis import query
from otel_debugstore_analysis.analyses.patterns import PATTERNS, patterns
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import SpanRecord, batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths
from sessions import MS, START_NS, hex_id, span, write_journal, write_sealed
from waiting import Call, traces

INPUT, OUTPUT = "debugstore.input.digest", "debugstore.output.digest"


@contextmanager
def stored(spans: Sequence[SpanRecord]) -> Iterator[query.DuckDBEngine]:
    with tempfile.TemporaryDirectory() as folder:
        write_journal(Path(folder), "s", spans)
        with SessionReader(Path(folder)) as reader:
            yield query.DuckDBEngine(reader)


def found(spans: Sequence[SpanRecord], *only: str, **options: Any) -> list[tuple[Any, ...]]:
    """Return pattern, parent, component, occurrences, calls, and what it saves in milliseconds."""
    with stored(spans) as engine:
        rows = patterns(engine, only=only or PATTERNS, **options).dicts()
    shown = ("pattern", "parent", "component", "occurrences", "calls")
    return [(*(row[name] for name in shown), row["saved_ns"] / MS) for row in rows]


def below(
    names: Sequence[str], *, trace: int = 1, gap_ms: float = 0, each_ms: Sequence[float] = (10,), **options: Any
) -> list[SpanRecord]:
    """Return a job with calls below it, one after the other; options are lists of what each call is given."""
    spans, at = [], 0.0
    for number, name in enumerate(names):
        duration_ms = each_ms[number % len(each_ms)]
        given = {key: values[number] for key, values in options.items()}
        spans.append(span(number + 2, name, parent=1, trace=trace, start_ms=at, duration_ms=duration_ms, **given))
        at += duration_ms + gap_ms
    return [span(1, "job", trace=trace, duration_ms=max(at, 1)), *spans]


def inputs(*digests: str) -> list[dict[str, str]]:
    return [{INPUT: digest} for digest in digests]


def test_n_plus_one() -> None:
    """Five calls of a component below one parent in turn are N+1; all but the longest would be saved."""
    spans = below(["query"] * 6, each_ms=(10, 20))
    assert found(spans, "n_plus_one") == [("n_plus_one", "job", "query", 1, 6, 70)]
    assert found(below(["query"] * 4), "n_plus_one") == []


def test_n_plus_one_beside_one_another() -> None:
    """Calls that overlap are not one after the other."""
    spans = [span(1, "job", duration_ms=100)]
    spans += [span(number, "query", parent=1, start_ms=number, duration_ms=10) for number in range(2, 10)]
    assert found(spans, "n_plus_one", "serial_calls") == []


def test_n_plus_one_among_others() -> None:
    """Other calls between those of a component do not hide them."""
    spans = below(["query", "parse"] * 5)
    assert found(spans, "n_plus_one") == [
        ("n_plus_one", "job", "parse", 1, 5, 40),
        ("n_plus_one", "job", "query", 1, 5, 40),
    ]


def test_serial_calls() -> None:
    """Calls of several components in turn could be made side by side, as far as is known."""
    with stored([*below(["a", "b", "c"], each_ms=(10, 30, 20)), *below(["b", "c", "a"], trace=2)]) as engine:
        table = patterns(engine, only=["serial_calls"])
    (row,) = table.dicts()
    assert (row["parent"], row["component"], row["occurrences"], row["calls"]) == ("job", "a, b, c", 2, 6)
    assert row["saved_ns"] == (30 + 20) * MS
    assert "in 50% they come in another order" in row["detail"]
    assert (row["proofs"], row["observations"]) == (1, 1)
    assert "known only where" in table.notes[-1]


def test_a_call_that_needs_the_one_before() -> None:
    """A call whose input is what the one before it returned has to wait for it."""
    given = [{INPUT: "i", OUTPUT: "x"}, {INPUT: "x", OUTPUT: "y"}, {INPUT: "z"}]
    spans = below(["a", "b", "c"], attributes=given)
    assert found(spans, "serial_calls") == [("serial_calls", "job", "b, c", 1, 2, 10)]


def test_a_call_that_needs_one_further_back() -> None:
    """What a call takes may have been returned by any call before it below the parent, for which it has to wait."""
    given = [{INPUT: "i", OUTPUT: "x"}, {INPUT: "k", OUTPUT: "y"}, {INPUT: "x"}]
    assert found(below(["a", "b", "c"], attributes=given), "serial_calls") == [
        ("serial_calls", "job", "a, b", 1, 2, 10)
    ]
    given.append({INPUT: "y"})
    rows = found(below(["a", "b", "c", "d"], attributes=given), "serial_calls")
    assert rows == [("serial_calls", "job", "a, b", 1, 2, 10), ("serial_calls", "job", "c, d", 1, 2, 10)]


def test_what_was_not_returned_yet_is_not_needed() -> None:
    """A call needs nothing of one that comes after it, nor of one below another parent, nor if it takes nothing."""
    later = [{INPUT: "x"}, {INPUT: "i", OUTPUT: "x"}]
    assert found(below(["a", "b"], attributes=later), "serial_calls") == [("serial_calls", "job", "a, b", 1, 2, 10)]
    nothing = capture({}).digest
    given = [{INPUT: nothing, OUTPUT: nothing}, {INPUT: nothing, OUTPUT: nothing}]
    assert found(below(["a", "b"], attributes=given), "serial_calls") == [("serial_calls", "job", "a, b", 1, 2, 10)]
    elsewhere = [
        *below(["a"], attributes=[{INPUT: "i", OUTPUT: "x"}]),
        *below(["b", "c"], trace=2, attributes=inputs("x", "k")),
    ]
    assert found(elsewhere, "serial_calls") == [("serial_calls", "job", "b, c", 1, 2, 10)]


@pytest.mark.parametrize("names", [["page"], ["page", "parse"]], ids=["itself", "through another"])
def test_n_plus_one_of_pages(names: list[str]) -> None:
    """Calls of which each takes what the one before returned, itself or through others, can't be made at once."""
    count = 8 * len(names)
    chain = [{INPUT: f"cursor {n}", OUTPUT: f"cursor {n + 1}"} for n in range(count)]
    assert found(below(names * 8, attributes=chain), "n_plus_one", "serial_calls") == []
    apart = [{INPUT: f"key {n}", OUTPUT: f"value {n}"} for n in range(count)]
    assert [row[2] for row in found(below(names * 8, attributes=apart), "n_plus_one")] == sorted(names)


def test_retry() -> None:
    """A failed call followed by another of its component; saved is the time to that, with the pause between."""
    spans = below(["fetch"] * 3, gap_ms=5, error=["Timeout", "Timeout", None])
    assert found(spans, "retry") == [("retry", "job", "fetch", 2, 2, 30)]
    assert found(below(["fetch"] * 2, error=[None, "Timeout"]), "retry") == []
    assert found(below(["fetch", "other"], error=["Timeout", None]), "retry") == []


def test_retry_has_the_same_input() -> None:
    """A loop in which one call fails is no retry: the next has another input. Where others come between it is one."""
    failed = [None, "Timeout", None, None]
    assert found(below(["item"] * 4, attributes=inputs("a", "b", "c", "d"), error=failed), "retry") == []
    again = below(["item"] * 4, attributes=inputs("a", "b", "c", "b"), error=failed)
    assert found(again, "retry") == [("retry", "job", "item", 1, 1, 20)]


def test_repeated_call() -> None:
    """The same component with the same input in a trace: all but the longest call could be left out."""
    spans = below(["f", "g", "f", "f"], each_ms=(10, 5, 30, 20), attributes=inputs("x", "x", "x", "y"))
    assert found(spans, "repeated_call") == [("repeated_call", "job", "f", 1, 2, 10)]


@pytest.mark.parametrize(
    "options",
    [
        {"attributes": [{INPUT: "x", OUTPUT: "1"}, {INPUT: "x", OUTPUT: "2"}]},
        {"attributes": inputs("x", "x"), "error": ["ValueError", None]},
        {"attributes": inputs("x", "y")},
        {"attributes": [{}, {}]},
    ],
    ids=["other output", "failed", "other input", "not known"],
)
def test_no_repeated_call(options: dict[str, Any]) -> None:
    """Calls that return something else, fail, or whose inputs differ or are not known, repeat nothing."""
    assert found(below(["f", "f"], **options), "repeated_call") == []


def test_repeated_call_in_another_process(tmp_path: Path) -> None:
    """What another process did is not at hand: the same call there repeats nothing."""
    for pid in (1, 2):
        write_sealed(tmp_path, "s", [span(pid, "f", duration_ms=10, attributes={INPUT: "x"})], pid=pid)
    with SessionReader(tmp_path) as reader:
        assert patterns(query.DuckDBEngine(reader), only=["repeated_call"]).rows == []


def test_repeated_call_within_itself() -> None:
    """A call below one with the same input is a part of it."""
    spans = [
        span(1, "f", duration_ms=10, attributes={INPUT: "x"}),
        span(2, "f", parent=1, duration_ms=5, attributes={INPUT: "x"}),
    ]
    assert found(spans, "repeated_call") == []


@pytest.mark.parametrize(("cpu_ms", "saves"), [(10, 70), (50, None), (None, None)])
def test_lockstep_wait(cpu_ms: int | None, saves: float | None) -> None:
    """A parent that used no CPU between its children waited; where CPU time is not known nothing is."""
    attributes = {} if cpu_ms is None else {"debugstore.cpu.time_ns": cpu_ms * MS}
    spans = [
        span(1, "poll", duration_ms=100, attributes=attributes),
        span(2, "ask", parent=1, duration_ms=10),
        span(3, "ask", parent=1, start_ms=50, duration_ms=10),
    ]
    expected = [] if saves is None else [("lockstep_wait", None, "poll", 1, 1, saves)]
    assert found(spans, "lockstep_wait") == expected
    assert found(spans[:2], "lockstep_wait") == []


def test_cold_start(tmp_path: Path) -> None:
    """The first call of a process that takes three times the median is a cold start, in each process."""
    for pid, first_ms in ((1, 100), (2, 50), (3, 20)):
        spans = [
            span(100 * pid + n, "load", trace=100 * pid + n, start_ms=n, duration_ms=10 if n else first_ms)
            for n in range(6)
        ]
        write_sealed(tmp_path, "s", spans, pid=pid)
    with SessionReader(tmp_path) as reader:
        (row,) = patterns(query.DuckDBEngine(reader), only=["cold_start"]).dicts()
    assert (row["component"], row["occurrences"], row["saved_ns"]) == ("load", 2, (90 + 40) * MS)
    assert row["trace_ids"] == (hex_id(100, 32), hex_id(200, 32))


def sized(sizes: Sequence[float], durations_ms: Sequence[float], first_trace: int = 1) -> list[SpanRecord]:
    return [
        span(number, "f", trace=number, start_ms=number, duration_ms=duration_ms, attributes={"items": size})
        for number, (size, duration_ms) in enumerate(zip(sizes, durations_ms, strict=True), first_trace)
    ]


def test_growing_input() -> None:
    """Inputs that grow from call to call, and durations with them; saved is what is beyond the first calls' median."""
    spans = sized([1, 2, 3, 4, 5, 6, 7, 8], [1, 1, 2, 3, 4, 5, 6, 7])
    assert found(spans, "growing_input") == [("growing_input", None, "f", 1, 8, 21)]


@pytest.mark.parametrize(
    ("sizes", "durations_ms"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8], [5] * 8),
        ([4, 8, 1, 5, 2, 7, 6, 3], [4, 8, 1, 5, 2, 7, 6, 3]),
        ([8, 7, 6, 5, 4, 3, 2, 1], [8, 7, 6, 5, 4, 3, 2, 1]),
        ([1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7]),
    ],
    ids=["no slower", "no larger", "smaller", "few calls"],
)
def test_no_growing_input(sizes: list[float], durations_ms: list[float]) -> None:
    """Inputs that do not grow, or cost nothing, are no habit."""
    assert found(sized(sizes, durations_ms), "growing_input") == []


@pytest.mark.slow
def test_growing_payload(tmp_path: Path) -> None:
    """The sizes of recorded inputs are known by their digests, on both engines."""
    spans = [span(n, "f", trace=n, start_ms=n, duration_ms=n, attributes={INPUT: f"{n:032x}"}) for n in range(1, 11)]
    batch = batch_from_records(spans, 1)
    batch.payloads = [Payload(f"{n:032x}", "application/msgpack", True, b"x" * 100 * n) for n in range(1, 11)]
    with Journal.open(SessionPaths(tmp_path, "s").journal) as journal:
        journal.append([codec.encode(batch, START_NS)])
    with both(tmp_path) as engines:
        (row,) = assert_same(engines, lambda engine: patterns(engine, only=["growing_input"])).dicts()
    assert "the size of its input from 100 to 1,000" in row["detail"]


def test_order_and_limit() -> None:
    """What saves most comes first, whatever the habit; what the limit cuts off is counted."""
    spans = [*below(["query"] * 6), *below(["fetch"] * 2, trace=2, each_ms=(40,), error=["Timeout", None])]
    assert [row[0] for row in found(spans)] == ["n_plus_one", "retry"]
    with stored(spans) as engine:
        table = patterns(engine, limit=1)
    assert (len(table.rows), table.left_out) == (1, 1)


def test_weights_and_sample() -> None:
    """A sampled trace stands for as many as its probability says, and those looked at for all that there are."""
    sampled = below(["query"] * 5, trace_state=["ot=th:c"] * 5)
    assert found(sampled, "n_plus_one") == [("n_plus_one", "job", "query", 4, 20, 160)]
    with stored(sampled) as engine:
        assert [row["observations"] for row in patterns(engine).dicts()] == [1]
    spans = [one for trace in range(1, 5) for one in below(["query"] * 5, trace=trace)]
    with stored(spans) as engine:
        table = patterns(engine, only=["n_plus_one"], max_traces=2)
    (row,) = table.dicts()
    assert (row["occurrences"], row["calls"], row["saved_ns"], len(row["trace_ids"])) == (4, 20, 160 * MS, 2)
    assert row["observations"] == 2
    assert "2 of 4 traces" in table.notes[0]


def test_a_trace_larger_than_the_sample() -> None:
    """A single trace is looked at as a whole, however large."""
    assert found(below(["query"] * 50), "n_plus_one", max_spans=10) == [("n_plus_one", "job", "query", 1, 50, 490)]


def test_nonsense() -> None:
    """A habit that there is not is refused, with those that there are."""
    with stored([]) as engine, pytest.raises(QueryError, match="take one of n_plus_one"):
        patterns(engine, only=["nonsense"])


def test_nothing() -> None:
    """Where there are no spans, a sentence says so."""
    with stored([]) as engine:
        table = patterns(engine)
    assert (table.rows, table.notes) == ([], ("There are no spans.",))


@settings(max_examples=30, deadline=None)
@given(calls=traces(), digests=st.lists(st.sampled_from("xyz"), min_size=14, max_size=14))
def test_any_trace(calls: list[Call], digests: list[str]) -> None:
    """Whatever the trace, nothing saves more than its calls and the pauses between them took, and some call stays."""
    spans = []
    for call, digest in zip(calls, digests, strict=False):
        spans.append(replace(call.record(), attributes={INPUT: digest}))
    with stored(spans) as engine:
        table = patterns(engine, limit=1000)
    total_ns = sum(call.duration for call in calls) * 1000
    for row in table.dicts():
        assert row["saved_ns"] > 0
        assert row["total_ns"] <= total_ns
        assert row["pattern"] == "retry" or row["saved_ns"] < row["total_ns"]
        assert row["trace_ids"] == (hex_id(1, 32),)


def test_odd_spans(tmp_path: Path) -> None:
    """Spans without a start, circles, negative durations, and a deep and a wide trace, are answered."""
    odd = [
        span(1, "f", parent=2, duration_ms=-5),
        span(2, "f", parent=1),
        span(3, "x" * 10_000, start_ns=None, parent=2),
        *(span(n, "deep", trace=2, parent=n - 1 if n > 10 else None, duration_ms=1) for n in range(10, 20_000)),
        *(span(n, f"c{n}", trace=3, parent=1 if n > 1 else None, start_ms=n, duration_ms=1) for n in range(1, 10_001)),
    ]
    write_sealed(tmp_path, "s", odd)
    with SessionReader(tmp_path) as reader:
        (row,) = patterns(query.DuckDBEngine(reader)).dicts()
    assert (row["pattern"], row["parent"], row["calls"]) == ("serial_calls", "c1", 9_999)
    assert row["component"] == "c2, c3, c4, ..."


def test_both_engines(engines: Engines, nezha: Engines) -> None:
    """DuckDB and ClickHouse give one answer, on odd spans and on those of a real shop."""
    assert_same(engines, patterns)
    assert assert_same(nezha, patterns).rows


def test_both_engines_on_habits(tmp_path: Path) -> None:
    """DuckDB and ClickHouse give one answer where there is something of each habit."""
    many = [span(n, "load", trace=n + 100, start_ms=n, duration_ms=10 if n > 20 else 90) for n in range(20, 30)]
    idle = {"debugstore.cpu.time_ns": MS}
    spans = [
        *below(["query"] * 6, attributes=inputs("x", "x", "y", "y", "z", "z")),
        *below(["fetch", "fetch", "a", "b"], trace=2, error=["Timeout", None, None, None]),
        span(1, "poll", trace=3, duration_ms=100, attributes=idle),
        *(span(n, "ask", trace=3, parent=1, start_ms=40 * n, duration_ms=1) for n in (2, 3)),
        *many,
        *sized(range(1, 11), range(1, 11), first_trace=50),
    ]
    write_sealed(tmp_path, "s", spans)
    with both(tmp_path) as engines:
        table = assert_same(engines, patterns)
    assert {row["pattern"] for row in table.dicts()} == set(PATTERNS)
