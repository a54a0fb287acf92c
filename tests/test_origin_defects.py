"""What went wrong in the system that this one replaces: each defect, as a user met it, and what fails if it comes back.

`ELSEWHERE` names the tests that show the others: it is checked that they are there.
"""

from __future__ import annotations

import ast
import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any, Final

import pytest

from otel_debugstore import DebugAnalyzer, DebugStore, configure, function, tool
from otel_debugstore_exporters import segment
from stored import stored_spans

ELSEWHERE: Final = {
    "the decorator recorded nothing, and every example completed over an empty store": (
        "test_collector.py::test_the_first_usage_pattern",
        "test_examples.py::test_every_tool_of_every_module_is_recorded",
        "test_code_evolver.py::test_every_call_is_recorded",
    ),
    "the examples of its guide did not run": (
        "test_collector.py::test_the_first_usage_pattern",
        "test_performance_auditor.py::test_the_second_usage_pattern",
        "test_benchmark_fixture.py::test_the_pattern_of_the_guide",
    ),
    "rows were inserted one by one, and never removed": ("test_seal.py::test_sealing_moves_everything",),
    "there was no fork handling": ("test_fork.py::test_os_fork", "test_store.py::test_forks"),
    "one connection was shared by all threads": (
        "test_store.py::test_threads",
        "test_journal.py::test_threads_share_a_journal",
    ),
    "memory was the difference of the whole process": (
        "test_measures.py::test_freed_memory_is_a_net_below_zero",
        "test_measures.py::test_a_peak_that_the_process_never_had_before_is_exact",
        "test_measures.py::test_a_peak_below_an_earlier_one_is_seen_while_it_lasts",
    ),
    "CPU and I/O were the whole process's": (
        "test_measures.py::test_only_the_thread_that_works_has_used_time",
        "test_measures.py::test_what_the_call_moved_is_counted_and_what_we_read_is_not",
    ),
    "children were measured when they were started": (
        "test_child_use.py::test_cpu_time_and_exit_code_are_those_of_the_child",
        "test_child_use.py::test_peak_memory_is_the_childs_and_not_the_parents",
    ),
    "the audit read the wrong column": ("test_performance_auditor.py::test_it_reads_the_durations",),
    "tests ran through a shell, and never against the tracked version": (
        "test_audit_command.py::test_they_meet_the_recorded_function",
        "test_processes.py::test_what_is_no_command",
    ),
    "thresholds of zero were ignored": ("test_auditor.py::test_zero_is_a_limit",),
    "auditing again doubled the queue": (
        "test_performance_auditor.py::test_auditing_again_updates",
        "test_queue.py::test_auditing_again_updates",
    ),
    "the queue file was not written as a whole": ("test_queue.py::test_the_export_is_there_as_a_whole",),
    "benchmarks timed the recording": ("test_benchmark.py::test_recording_is_outside_the_timed_region",),
    "there was no warm-up": ("test_benchmark.py::test_warm_up_is_found_and_dropped",),
    "outputs were not compared, and a failing implementation won": (
        "test_benchmark.py::test_candidates_that_are_not_to_be_ranked",
        "test_benchmark_fixture.py::test_what_fails_or_is_wrong_is_never_ranked",
    ),
    "there were no statistics": ("test_benchmark.py::test_few_processes_decide_nothing",),
    "token budgets cut the recommendations first": ("test_report_budget.py::test_what_matters_most_is_kept",),
    "budgets under 50 broke": ("test_report_budget.py::test_budgets_below_the_least",),
    "tokens were counted by a library from the network": ("test_report_budget.py::test_tokens_are_those_of_tiktoken",),
}

RECORDS: Final = 1_501


@pytest.mark.parametrize("defect", ELSEWHERE)
def test_the_tests_of_the_others_are_there(defect: str) -> None:
    """Each of these tests exists under its name."""
    for name in ELSEWHERE[defect]:
        file, _, wanted = name.partition("::")
        tree = ast.parse((Path(__file__).parent / file).read_text())
        assert wanted in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}, name


def test_sealing_skipped_every_other_row(tmp_path: Path) -> None:
    """Every row is sealed, once, and the journal has none of them any more."""
    with DebugStore("s", tmp_path, auto_sync=False) as store:
        for number in range(RECORDS):
            store.write_record("tool", f"id {number}", "work", duration_ms=1.0)
        assert store.sync_to_duckdb() == RECORDS
        found = store.query_analytics("SELECT context_id FROM records")
        assert sorted(row["context_id"] for row in found) == sorted(f"id {number}" for number in range(RECORDS))
        stats = store.get_stats()
        assert (stats["sealed_record_count"], stats["journal_record_count"]) == (RECORDS, 0)


def test_writers_stalled_while_rows_were_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While rows go into DuckDB, others are written, durably."""
    wrote, sealing = threading.Event(), threading.Event()
    publish = segment.SegmentWriter.publish

    def slowly(self: Any, *args: Any) -> Any:
        sealing.set()
        assert wrote.wait(20), "a writer waited for the sealing to end"
        return publish(self, *args)

    with DebugStore("s", tmp_path, auto_sync=False) as store:
        store.write_record("tool", "1", "before")
        store.flush()
        monkeypatch.setattr(segment.SegmentWriter, "publish", slowly)
        sealer = threading.Thread(target=store.sync_to_duckdb)
        sealer.start()
        assert sealing.wait(20)
        with DebugStore("s", tmp_path, auto_sync=False) as other:
            other.write_record("tool", "2", "meanwhile")
            other.flush()
            wrote.set()
            sealer.join(30)
            names = {row["context_name"] for row in other.query_analytics("SELECT context_name FROM records")}
    assert names == {"before", "meanwhile"}


def test_one_value_of_bytes_stopped_syncing_for_good(tmp_path: Path) -> None:
    """Values that JSON does not know are kept, and so is what is written after them."""
    with DebugStore("s", tmp_path, auto_sync=False) as store:
        store.write_record(
            "tool", "1", "bytes", request_data={"raw": b"\xff\x00", "set": {1}, "not a number": float("nan")}
        )
        store.sync_to_duckdb()
        store.write_record("tool", "2", "after")
        store.sync_to_duckdb()
        assert len(store.query_analytics("SELECT * FROM records")) == 2


def test_a_second_process_could_not_open_a_live_session(tmp_path: Path) -> None:
    """It reads what is there, and writes into it, while the first one goes on."""
    program = """
        import sys
        from otel_debugstore import DebugStore
        with DebugStore("s", sys.argv[1]) as store:
            store.write_record("tool", "2", "second process")
            print(len(store.query_analytics("SELECT * FROM records")))
    """
    with DebugStore("s", tmp_path) as store:
        store.write_record("tool", "1", "first process")
        store.flush()
        command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stdout == "2\n"
        store.write_record("tool", "3", "first process")
        assert len(store.query_analytics("SELECT * FROM records")) == 3


def test_calls_were_not_what_they_seemed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coroutine lasts until it is done, an interrupt is no success, and arguments of any kind are taken."""
    monkeypatch.chdir(tmp_path)
    provider = configure("s", schedule_delay_millis=50)

    @tool(name="slow")
    async def slow() -> None:
        await asyncio.sleep(0.05)

    @tool(name="interrupted")
    def interrupted() -> None:
        raise KeyboardInterrupt

    @function(name="any")
    def anything(value: Any) -> Any:
        return value

    asyncio.run(slow())
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    odd = [threading.Lock(), object(), iter([1]), {1: {2: b"\xff"}}, sys.modules, float("nan"), 1 << 200]
    assert [anything(value) for value in odd] == odd
    provider.force_flush()
    spans = {span.name: span for span in stored_spans(tmp_path / "debug_data")}
    slow_span = spans["slow"]
    assert (slow_span.end_ns or 0) - (slow_span.start_ns or 0) >= 50_000_000
    assert spans["interrupted"].attributes["debugstore.outcome"] == "interrupted"
    assert spans["interrupted"].status_code == 2
    assert "any" in spans


@pytest.mark.parametrize("name", ["it's", 'a "name"', "x'; DROP TABLE spans; --", "100%", "a_b", "back\\slash"])
def test_sql_was_made_of_names(name: str, tmp_path: Path) -> None:
    """A name is data: it is found by itself, and nothing else happens."""
    with DebugStore("s", tmp_path, auto_sync=False) as store:
        store.write_record("tool", "1", name, duration_ms=5000.0, status="error", error=name)
        store.write_record("tool", "2", "other")
        package = DebugAnalyzer(store).analyze_context("tool", context_name=name)
        assert store.get_stats()["record_count"] == 2
        assert [row["context_name"] for row in store.get_error_records()] == [name]
    assert "other" not in package.to_markdown().replace("others", "")


def test_names_with_the_same_beginning_matched_each_other(tmp_path: Path) -> None:
    """An analysis of `fetch` is not about `fetch_all`."""
    with DebugStore("s", tmp_path, auto_sync=False) as store:
        for number in range(3):
            store.write_record("tool", f"{number}", "fetch", duration_ms=1.0)
            store.write_record("tool", f"all {number}", "fetch_all", duration_ms=9000.0)
        text = DebugAnalyzer(store).analyze_context("tool", context_name="fetch").to_markdown()
    assert "fetch" in text
    assert "fetch_all" not in text


def test_a_limit_picked_at_random(tmp_path: Path) -> None:
    """The newest errors, and the slowest operations, come first, whatever their ids are."""
    now = time.time()
    with DebugStore("s", tmp_path, auto_sync=False) as store:
        for number in range(40):
            fields: dict[str, Any] = {"duration_ms": 1000.0 + number * 7 % 40, "timestamp": now + number}
            store.write_record("tool", f"{number * 7919 % 40}", f"work {number}", status="error", error="x", **fields)
        newest = [row["context_name"] for row in store.get_error_records(limit=3)]
        slowest = [row["duration_ms"] for row in store.get_slow_operations(1000.0, limit=3)]
    assert newest == ["work 39", "work 38", "work 37"]
    assert slowest == pytest.approx([1039.0, 1038.0, 1037.0])
