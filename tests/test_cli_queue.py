"""`debugstore queue`: items are listed, shown, claimed, proposed, proven and rejected from the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Final

import pytest

from commands import refused, run, run_well
from otel_debugstore_analysis.benchmark import record_comparison
from otel_debugstore_analysis.benchmark.results import Comparison
from otel_debugstore_analysis.queue import Finding, OptimizationQueue, Violation
from otel_debugstore_analysis.report.tokens import count
from otel_debugstore_exporters.state import State
from reports import HOSTILE
from sessions import START_NS, span, write_sealed

FASTER: Final = {"verdict": "faster", "ratio": 0.5, "low": 0.45, "high": 0.55, "checked": 12}


@pytest.fixture
def queue(tmp_path: Path) -> OptimizationQueue:
    """Two items: `parse` saves most."""
    queue = OptimizationQueue(tmp_path)
    slow = Violation("p95_ns", 8e8, 5e8, 7e8, 9e8)
    queue.put(Finding("parse", "tool", "v1", [slow], expected_saving_ns_per_s=5e6, seen_ns=START_NS))
    queue.put(Finding("load", "function", None, [Violation("error_rate", 0.2, 0.0)]))
    return queue


def on(queue: OptimizationQueue, command: str, *rest: str) -> tuple[str, ...]:
    return ("queue", command, *rest, "--data-dir", str(queue.base_path))


def evidence(tmp_path: Path, **changes: Any) -> str:
    path = tmp_path / "outcome.json"
    path.write_text(json.dumps(FASTER | changes))
    return str(path)


def test_items_are_listed(queue: OptimizationQueue) -> None:
    """The most urgent first, with what the priority is made of, in every format."""
    lines = run_well(*on(queue, "list")).splitlines()
    assert [line.split()[0] for line in lines[1:]] == [item.id for item in queue.items()]
    assert "5.00 ms/s" in next(line for line in lines if "parse" in line)
    rows = list(csv.DictReader(io.StringIO(run_well(*on(queue, "list", "--format", "csv")))))
    assert [(row["component"], row["measure"], float(row["limit"])) for row in rows] == [
        ("load", "error_rate", 0.0),
        ("parse", "p95_ns", 5e8),
    ]
    assert json.loads(run_well(*on(queue, "list", "--format", "json"))) == [item.to_json() for item in queue.items()]
    assert run_well(*on(queue, "list", "--format", "markdown")).startswith("| id | state | priority |")


def test_items_are_chosen(queue: OptimizationQueue) -> None:
    """By state and priority; where none is left, that is said beside the output."""
    queue.claim("load", "ann")
    assert "parse" not in run_well(*on(queue, "list", "--state", "claimed"))
    assert "load" in run_well(*on(queue, "list", "--min-priority", "9.7"))
    result = run(*on(queue, "list", "--state", "proven"))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "debugstore audit" in result.stderr
    assert json.loads(run_well(*on(queue, "list", "--state", "stale", "--format", "json"))) == []
    assert "is no state" in refused(*on(queue, "list", "--state", "done"))


def test_an_empty_queue_makes_no_file(tmp_path: Path) -> None:
    """Looking creates nothing."""
    assert run("queue", "list", "--data-dir", str(tmp_path / "data")).exit_code == 0
    assert "No item 'x'" in refused("queue", "show", "x", "--data-dir", str(tmp_path / "data"))
    assert list(tmp_path.iterdir()) == []


def test_an_item_is_shown(queue: OptimizationQueue) -> None:
    """As the package for an agent, within a number of tokens, or with all that is known of it."""
    item = queue.get("parse")
    assert run_well(*on(queue, "show", "parse")).startswith("# Make `parse` faster\n")
    short = run_well(*on(queue, "show", item.id[:5], "--max-tokens", "120"))
    assert count(short) <= 120
    assert json.loads(run_well(*on(queue, "show", "parse", "--format", "json"))) == item.to_json()
    assert "p95_ns 800 ms, limit 500 ms" in run_well(*on(queue, "show", "parse", "--format", "table"))
    assert item.id in run_well(*on(queue, "show", "parse", "--format", "csv"))


def test_the_way_to_a_proof(queue: OptimizationQueue, tmp_path: Path) -> None:
    """Claim, propose and prove: each says what it did beside the output."""
    assert "# Make `load` faster" in run_well(*on(queue, "claim", "--by", "ann", "--lease", "30m"))
    lease = queue.get("load").lease
    assert lease is not None
    assert lease.by == "ann"
    assert "claimed by 'ann'" in refused(*on(queue, "claim", "load", "--by", "bob"))
    run_well(*on(queue, "propose", "load", "--candidate", "fast:load", "--by", "ann"))
    result = run(*on(queue, "prove", "load", "--evidence", evidence(tmp_path, component="load"), "--by", "ann"))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "is closed" in result.stderr
    assert queue.get("load").state == "proven"


def test_nothing_is_left_to_claim(queue: OptimizationQueue) -> None:
    """The exit code says so, for programs that go on as long as there is something."""
    for name in ("ann", "bob"):
        run_well(*on(queue, "claim", "--by", name))
    result = run(*on(queue, "claim", "--by", "cleo"))
    assert (result.exit_code, result.stdout) == (1, "")
    run_well(*on(queue, "claim", "parse", "--release", "--by", "bob"))
    assert "parse" in run_well(*on(queue, "claim", "--by", "cleo"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verdict": "slower"}, "'slower', not 'faster'"),
        ({"verdict": "wrong", "cause": "line 1\nline 2"}, "'wrong', not 'faster'"),
        ({"checked": 0}, "no output was compared"),
        ({"high": 1.2}, "does not lie below 1"),
        ({"component": "load"}, "about 'load'"),
        ({}, "neither which component"),
        ({"verdict": None}, "no 'verdict'"),
    ],
)
def test_what_is_no_proof(queue: OptimizationQueue, tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    """It is refused in a line, and the item stays as it is."""
    assert said in refused(*on(queue, "prove", "parse", "--evidence", evidence(tmp_path, **changes)))
    assert queue.get("parse").state == "open"


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b'"faster"', b"[" * 100_000])
def test_evidence_that_is_none(queue: OptimizationQueue, content: bytes) -> None:
    """What is not the JSON of a comparison is refused by its name."""
    assert "evidence in standard input" in refused(*on(queue, "prove", "parse", "--evidence", "-"), input=content)


def test_how_a_proof_is_given(queue: OptimizationQueue, tmp_path: Path) -> None:
    """By a file or a session, and one of them."""
    assert "--evidence FILE or --session ID" in refused(*on(queue, "prove", "parse"))
    both = on(queue, "prove", "parse", "--evidence", evidence(tmp_path), "--session", "s")
    assert "--evidence FILE or --session ID" in refused(*both)
    named = on(queue, "prove", "parse", "--evidence", evidence(tmp_path), "--benchmark", "b")
    assert "goes with --session" in refused(*named)


def test_a_recorded_benchmark_is_a_proof(queue: OptimizationQueue) -> None:
    """The newest of the session, or the newest of a name; its trace is pinned."""
    better = Comparison("faster", "it is", 0.5, 0.4, 0.6, pairs=20, checked=5, baseline_variant="v1", seconds=1.0)
    worse = Comparison("slower", "it is not", 2.0, 1.9, 2.1, pairs=20, checked=5)
    trace_id = record_comparison(queue.base_path, "bench", "good", better)
    record_comparison(queue.base_path, "bench", "bad", worse)
    assert "No benchmark 'none'" in refused(*on(queue, "prove", "parse", "-s", "bench", "--benchmark", "none"))
    assert "'slower'" in refused(*on(queue, "prove", "parse", "--session", "bench"))
    assert "No session" in refused(*on(queue, "prove", "parse", "--session", "nowhere"))
    run_well(*on(queue, "prove", "parse", "--session", "bench", "--benchmark", "good"))
    assert queue.get("parse").state == "proven"
    assert State(queue.base_path).pinned() == {trace_id}


def test_a_candidate_is_rejected(queue: OptimizationQueue, tmp_path: Path) -> None:
    """With the reason, and the outcome where there is one; the item can be claimed again."""
    wrong = evidence(tmp_path, verdict="wrong", ratio=None, low=None, high=None)
    run_well(*on(queue, "reject", "parse", "--why", "other result", "--evidence", wrong, "--by", "ann"))
    item = queue.get("parse")
    assert (item.state, item.evidence and item.evidence.verdict) == ("rejected", "wrong")
    assert "other result" in run_well(*on(queue, "claim", "parse", "--by", "bob"))
    assert "needs a reason" in refused(*on(queue, "reject", "parse", "--why", "", "--by", "bob"))


def test_code_that_changed_is_found_when_looking(queue: OptimizationQueue) -> None:
    """An item about code that no longer runs is stale; unless that was not to be looked for, or can't be."""
    attributes = {"debugstore.layer": "tool", "debugstore.component": "parse", "debugstore.variant": "v2"}
    write_sealed(queue.base_path, "s", [span(1, "parse", start_ms=1000, attributes=attributes)])
    assert "stale" not in run_well(*on(queue, "list", "--no-refresh"))
    (queue.base_path / "s.duckdb").rename(queue.base_path / "aside")
    (queue.base_path / "s.duckdb").write_bytes(b"nonsense" * 1_000)
    result = run(*on(queue, "list"))
    assert result.exit_code == 0
    assert "could not be found out" in result.stderr
    (queue.base_path / "aside").replace(queue.base_path / "s.duckdb")
    result = run(*on(queue, "list"))
    assert "its code changed" in result.stderr
    assert queue.get("parse").state == "stale"
    assert "debugstore audit" in refused(*on(queue, "claim", "parse"))


def test_the_queue_is_exported(queue: OptimizationQueue, tmp_path: Path) -> None:
    """Into optimization_queue.json, or another file; it is said where."""
    path = Path(run_well(*on(queue, "export")).strip())
    assert path == queue.base_path / "optimization_queue.json"
    other = tmp_path / "elsewhere" / "q.json"
    run_well(*on(queue, "export", "-o", str(other)))
    assert json.loads(other.read_text())["items"] == json.loads(path.read_text())["items"]


def test_hostile_text_steers_no_terminal(queue: OptimizationQueue) -> None:
    """Names and reasons are shown without what a terminal would obey."""
    for number, text in enumerate(HOSTILE):
        plain = text.encode(errors="replace").decode()
        item = queue.put(Finding(plain, "tool", f"v{number}", [Violation(plain or "m", 2, 1)]))
        queue.reject(item.id, f"why {plain}", by=f"by {plain}")
    for command in ("list", "show"):
        which = [item.id for item in queue.items()] if command == "show" else [None]
        for item_id in which:
            for output_format in ("table", "markdown", "csv", "json"):
                arguments = [command, *([item_id] if item_id else []), "--format", output_format]
                shown = run_well(*on(queue, *arguments))
                assert not set(shown) & set("\x1b\x07\u202e\u200b")


def test_wrong_usage(queue: OptimizationQueue) -> None:
    """It is said in a line, and where help is."""
    for arguments in (("claim", "--release"), ("claim", "--lease", "soon"), ("propose", "parse"), ("reject", "parse")):
        assert "--help" in refused(*on(queue, *arguments))
    assert "queue --help" in refused("queue", "nonsense")


@pytest.mark.parametrize("command", ["list", "show", "claim", "propose", "prove", "reject", "export"])
def test_help_teaches(command: str) -> None:
    """Every command has an example that names it."""
    assert f"debugstore queue {command}" in run_well("queue", command, "--help")
