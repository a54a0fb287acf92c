"""`errors`: groups by masked messages, and what failing calls have in common."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from engines import Engines, assert_same, both
from otel_debugstore_analysis import query
from otel_debugstore_analysis.analyses.errors import errors
from otel_debugstore_exporters.batch import Event, Resource, SpanRecord
from otel_debugstore_exporters.reader import SessionReader
from sessions import hex_id, span, write_sealed


def failing(number: int, message: str, kind: str = "ValueError", **rest: object) -> SpanRecord:
    made = span(number, trace=number, start_ms=number, error=kind, **rest)  # type: ignore[arg-type]
    event = Event(made.start_ns or 0, "exception", {"exception.type": kind, "exception.message": message})
    return replace(made, events=(event,))


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        (["line 3 of 17", "line 4 of 1,700.5"], "line <number> of <number>"),
        (["can't open '/a/b'", "can't open 'x y'"], "can't open <text>"),
        (["no /var/lib/a.txt", "no C:\\x\\y.txt"], "no <path>"),
        (["at 0xdeadbeef", "at https://a.b/c?d=1", "at 10.1.2.3:80", "at me@a.org"], "at <address>"),
        (["job 8f3a9c2d1e", "job 123e4567-e89b-12d3-a456-426614174000", "job a1b2c3d4"], "job <id>"),
        (["of [1, 2, 3]", "of [1, 2]"], "of [<numbers>]"),
        (["two\n  lines", "two lines"], "two lines"),
    ],
)
def test_messages_that_differ_by_data_are_one_group(tmp_path: Path, messages: list[str], expected: str) -> None:
    """Numbers, quoted texts, paths, addresses, ids and lists are masked, the same on both engines."""
    write_sealed(tmp_path, "s", [failing(n, message) for n, message in enumerate(messages, 1)])
    with both(tmp_path) as engines:
        found = assert_same(engines, errors)
    assert [(row["message"], row["count"]) for row in found.groups.dicts()] == [(expected, len(messages))]


def test_groups(tmp_path: Path) -> None:
    """Count, share, first and last seen, components, and the latest traces."""
    spans = [failing(n, f"no {n}", name="a" if n < 4 else "b") for n in range(1, 6)]
    write_sealed(tmp_path, "s", [*spans, failing(9, "no 9", "KeyError"), span(10, "fine")])
    with SessionReader(tmp_path) as reader:
        first, second = errors(query.DuckDBEngine(reader)).groups.dicts()
    assert (first["exception_type"], first["message"], first["count"]) == ("ValueError", "no <number>", 5)
    assert (first["share"], first["components"]) == (5 / 6, ("a", "b"))
    assert (first["first_ns"], first["last_ns"]) == (spans[0].start_ns, spans[4].start_ns)
    assert first["trace_ids"] == tuple(hex_id(n, 32) for n in (5, 4, 3))
    assert (second["exception_type"], second["count"]) == ("KeyError", 1)


def test_what_failing_calls_have_in_common(tmp_path: Path) -> None:
    """A value that failing calls have more often is named, with its lift; one that all have alike isn't."""
    spans = []
    for n in range(1, 201):
        attributes = {"model": "b" if n % 4 == 0 else "a", "zone": f"z{n % 3}"}
        spans.append(failing(n, "x", attributes=attributes) if n % 8 == 0 else span(n, trace=n, attributes=attributes))
    write_sealed(tmp_path, "s", spans)
    with both(tmp_path) as engines:
        found = assert_same(engines, errors)
    (row,) = found.common.dicts()
    assert (row["field"], row["value"], row["share"], row["traces"]) == ("model", "b", 1.0, 25)
    assert row["lift"] == pytest.approx(175 / 25)
    assert row["q_value"] < 1e-6


def test_retries_of_one_trace_are_one_case(tmp_path: Path) -> None:
    """A hundred failing calls in one trace are no evidence of what they have in common."""
    retried = [replace(failing(n, "x", attributes={"model": "b"}), trace_id=b"r" * 16) for n in range(1, 101)]
    fine = [span(n, trace=n, attributes={"model": "a"}) for n in range(200, 230)]
    write_sealed(tmp_path, "s", [*retried, *fine])
    with SessionReader(tmp_path) as reader:
        found = errors(query.DuckDBEngine(reader))
    assert found.groups.dicts()[0]["count"] == 100
    assert [row for row in found.common.dicts() if row["field"] == "model" and row["q_value"] < 0.01] == []


def test_equal_on_both_engines(engines: Engines, nezha: Engines) -> None:
    """Odd spans and sampled ones; and a shop in which nothing fails."""
    found = assert_same(engines, errors)
    assert {row["exception_type"] for row in found.groups.dicts()} >= {"ValueError", "KeyError"}
    assert assert_same(nezha, errors).groups.notes == ("No call failed.",)


def test_long_messages(tmp_path: Path) -> None:
    """Messages of a megabyte are looked at up to a length."""
    write_sealed(tmp_path, "s", [failing(1, "'" * 10**6), failing(2, "ü" * 10**5)])
    with both(tmp_path) as engines:
        assert len(assert_same(engines, errors).groups.rows) == 2


def test_of_all_attributes_the_few_that_tell(tmp_path: Path) -> None:
    """Numbers by quarters, attributes of the resource, names as they are; not what says that it failed, nor ids."""
    spans = []
    for n in range(1, 201):
        attributes = {"size": n, "request.id": f"r{n}", "name": f"n{n % 2}", "error.type": "ValueError"}
        made = failing(n, "x", attributes=attributes) if n > 150 else span(n, trace=n, attributes={"size": n})
        host = {"host.name": "bad" if n > 140 else "good"}
        spans.append(replace(made, resource=Resource(host)))
    write_sealed(tmp_path, "s", spans)
    with both(tmp_path) as engines:
        found = assert_same(engines, errors)
    rows = {(row["field"], row["value"]): row for row in found.common.dicts()}
    assert set(rows) == {
        ("size", "150.25 or more"),
        ("host.name", "bad"),
        ("attributes.name", "n0"),
        ("attributes.name", "n1"),
    }
    assert rows["size", "150.25 or more"]["lift"] is None
    assert rows["host.name", "bad"]["lift"] == pytest.approx(15)


def test_a_rare_error_has_an_example(tmp_path: Path) -> None:
    """Also where the sample holds none of its calls."""
    often = [failing(n, "often") for n in range(1, 200)]
    write_sealed(tmp_path, "s", [*often, failing(0xFFFF, "seldom", "KeyError")])
    with both(tmp_path) as engines:
        found = assert_same(engines, lambda engine: errors(engine, max_sample=20))
    assert [len(row["trace_ids"]) for row in found.groups.dicts()] == [3, 1]
    assert "a sample" in found.common.notes[0]
