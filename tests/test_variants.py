"""Versions of code: what changed between them, and whether it made a difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engines import Engines, assert_same, both
from otel_debugstore.outbox import Code
from otel_debugstore_analysis.analyses.variants import MAX_DIFF_LINES, diff, variants
from otel_debugstore_analysis.query import DuckDBEngine, Selection, Table
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths
from sessions import START_NS, span, write_journal

OLD, NEW = "def work():\n    return slow()\n", "def work():\n    return fast()\n"


def record(
    base_path: Path,
    session: str,
    variant: str,
    source: str,
    *,
    start_ms: float,
    duration_ms: float,
    component: str = "work",
    function: str | None = None,
) -> None:
    """Write a session, of a process of its own, with ten calls of a version."""
    attributes = {"debugstore.variant": variant}
    spans = [
        span(n, component, trace=n, start_ms=start_ms + n, duration_ms=duration_ms + n / 100, attributes=attributes)
        for n in range(1, 11)
    ]
    batch = batch_from_records(spans, 1)
    batch.code = [Code(variant, function or f"module.{component}", "/app/module.py", 7, f"c0ffee-{variant}", source)]
    base_path.mkdir(parents=True, exist_ok=True)
    with Journal.open(SessionPaths(base_path, session).journal) as journal:
        journal.append([codec.encode(batch, START_NS)])


def record_two(base_path: Path, sessions: int = 6) -> None:
    """Record sessions of an old version, and then of a new one that takes half the time."""
    for n in range(sessions):
        record(base_path, f"old{n}", "aaa", OLD, start_ms=n * 1_000, duration_ms=20 + n / 10)
        record(base_path, f"new{n}", "bbb", NEW, start_ms=(n + 100) * 1_000, duration_ms=10 + n / 10)


def ask(base_path: Path, **options: Any) -> Table:
    with SessionReader(base_path) as reader:
        return variants(DuckDBEngine(reader), **options)


def test_versions_in_order_with_what_changed(tmp_path: Path) -> None:
    """Source, commit, times and counts of each; the diff and the ratio to the version before."""
    record_two(tmp_path)
    old, new = ask(tmp_path, component="work").dicts()
    assert (old["variant"], old["previous"], old["verdict"], old["diff"]) == ("aaa", None, None, None)
    assert (new["variant"], new["previous"], new["verdict"]) == ("bbb", "aaa", "faster")
    assert (new["source"], new["git_commit"], new["line_number"]) == (NEW, "c0ffee-bbb", 7)
    assert (new["count"], new["units"], new["first_ns"]) == (60, 6, START_NS + 100_001_000_000)
    assert new["last_ns"] == START_NS + 105_010_000_000
    assert "-    return slow()\n+    return fast()" in new["diff"]
    assert new["ratio_low"] <= new["ratio"] <= new["ratio_high"] < 0.6


def test_verdicts_do_not_depend_on_how_many_are_shown(tmp_path: Path) -> None:
    """Of ten components that changed, one is slower by what chance makes of ten: so it is undecided, also alone."""
    for side, variant in enumerate(("aaa", "bbb")):
        for n in range(3):
            calls = [
                span(
                    10 * number + 1,
                    f"c{number}",
                    trace=number + 1,
                    start_ms=1_000 * (3 * side + n),
                    duration_ms=(100 - number) * (1.15 if side and not number else 1.0) * (1 + 0.06 * n),
                    attributes={"debugstore.variant": variant},
                )
                for number in range(10)
            ]
            write_journal(tmp_path, f"{variant}{n}", calls)
    with SessionReader(tmp_path) as reader:
        engine = DuckDBEngine(reader)
        alone = variants(engine, component="c0").dicts()
        few, all_of_them = (variants(engine, limit=limit) for limit in (2, 100))
    assert (alone[1]["component"], alone[1]["verdict"]) == ("c0", "slower")
    assert few.rows == all_of_them.rows[:2]
    assert few.dicts()[1]["verdict"] == "undecided"
    assert (few.left_out, len(all_of_them.rows)) == (18, 20)


def test_few_processes_decide_nothing(tmp_path: Path) -> None:
    """However many calls there are; a sentence says so."""
    record_two(tmp_path, sessions=1)
    table = ask(tmp_path)
    new = table.dicts()[1]
    assert (new["verdict"], new["ratio_low"]) == ("undecided", None)
    assert new["ratio"] == pytest.approx(0.5, rel=0.01)
    assert "can't be told" in table.notes[0]


def test_components_that_changed_come_first(tmp_path: Path) -> None:
    """Those of one version only come after, however long they take; what is cut off is counted."""
    record_two(tmp_path, sessions=1)
    record(tmp_path, "other", "ccc", "def other(): ...", start_ms=0, duration_ms=9_000, component="other")
    assert [row[1] for row in ask(tmp_path).rows] == ["aaa", "bbb", "ccc"]
    table = ask(tmp_path, limit=2)
    assert ([row[1] for row in table.rows], table.left_out) == (["aaa", "bbb"], 1)


def test_functions_of_one_name_are_no_versions_of_each_other(tmp_path: Path) -> None:
    """Where both run; each has its own versions. One that began when the other had ended is that one, moved."""
    for n in range(4):
        record(tmp_path, f"a{n}", f"a{n // 2}", OLD, start_ms=n * 1_000, duration_ms=20, function="a.work")
        record(tmp_path, f"b{n}", f"b{n // 2}", NEW, start_ms=n * 1_000 + 100, duration_ms=10, function="b.work")
    record(tmp_path, "c", "c", NEW, start_ms=90_000, duration_ms=10, function="c.work")
    rows = ask(tmp_path).dicts()
    found = [(row["variant"], row["previous"]) for row in rows]
    assert found == [("a0", None), ("a1", "a0"), ("c", "a1"), ("b0", None), ("b1", "b0")]


def test_a_version_that_came_back_ran_last(tmp_path: Path) -> None:
    """It is one row, where it was first seen; its last call is after that of the version between."""
    for n, variant in enumerate(("aaa", "bbb", "aaa")):
        record(tmp_path, f"s{n}", variant, OLD, start_ms=n * 1_000, duration_ms=10)
    first, second = ask(tmp_path).dicts()
    assert (first["variant"], second["variant"], second["previous"]) == ("aaa", "bbb", "aaa")
    assert first["last_ns"] > second["last_ns"]


def test_a_selection_of_calls(tmp_path: Path) -> None:
    """Only versions that it has are there."""
    record_two(tmp_path, sessions=1)
    assert [row[1] for row in ask(tmp_path, selection=Selection(where={"session": "new0"})).rows] == ["bbb"]


def test_without_versions_there_is_a_sentence(tmp_path: Path) -> None:
    """Spans of other programs don't say which code ran."""
    write_journal(tmp_path, "s", [span(1)])
    assert "which version of the code" in ask(tmp_path).notes[0]
    assert "'nothing'" in ask(tmp_path, component="nothing").notes[0]


def test_long_diffs_are_cut(tmp_path: Path) -> None:
    """And say how many lines there are."""
    text = diff("", "\n".join(map(str, range(1_000))))
    assert text is not None
    assert (text.count("\n"), text.splitlines()[-1]) == (MAX_DIFF_LINES, "... 603 more lines")


@pytest.mark.slow
def test_both_engines_say_the_same(tmp_path: Path, engines: Engines) -> None:
    """Of versions, and of spans of every kind."""
    record_two(tmp_path)
    with both(tmp_path) as found:
        assert len(assert_same(found, variants).rows) == 2
    assert_same(engines, variants)
