"""The commands of analyses: on real data, on next to nothing, and on what is meant to do harm."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from pathlib import Path
from typing import Any, Final

import pytest

from commands import on_terminal, refused, run, run_well
from otel_debugstore import DebugStore
from otel_debugstore_analysis.report import tokens
from reports import hostile, shop
from sessions import span, write_journal, write_sealed

NEZHA: Final = Path(__file__).parents[2] / "shared" / "data" / "nezha" / "boutique-baseline-2022-08-23.otlp.jsonl.gz"
COMMANDS: Final = {
    "candidates": [],
    "compare": ["component=fetch", "component=parse"],
    "critical-path": [],
    "errors": [],
    "explain": [],
    "patterns": [],
    "performance": [],
    "regressions": [],
    "thresholds": [],
    "variants": [],
    "whatif": [],
}
FORMATS: Final = ("table", "json", "csv", "markdown")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sessions of a workflow, of hostile names, of one span and of none."""
    folder = tmp_path_factory.mktemp("data")
    write_sealed(folder, "shop", shop())
    write_sealed(folder, "hostile", hostile())
    write_sealed(folder, "one", [span(1, duration_ms=0)])
    write_journal(folder, "empty", [])
    return folder


@pytest.fixture(scope="module")
def nezha(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of a real shop."""
    if not NEZHA.exists():
        pytest.skip(f"the public traces are not at {NEZHA}")
    folder = tmp_path_factory.mktemp("nezha")
    run_well("import", NEZHA, "--session", "nezha", "--data-dir", folder)
    return folder


def as_json(name: str, folder: Path, session: str, *options: str) -> dict[str, Any]:
    """Return what a command answers, its tables by name."""
    text = run_well(name, *COMMANDS[name], "--data-dir", folder, "-s", session, "--format", "json", *options)
    answer = json.loads(text)
    assert answer["analysis"] == name.replace("-", "_")
    for table in answer["tables"].values():
        assert set(table) == {"rows", "left_out", "notes"}
    tables: dict[str, Any] = answer["tables"]
    return tables


@pytest.mark.parametrize("name", COMMANDS)
def test_on_real_data(nezha: Path, name: str) -> None:
    """Each answers, in every format, with the same rows."""
    arguments = [name, *(["service=cartservice", "service=frontend"] if COMMANDS[name] else [])]
    arguments += ["--data-dir", str(nezha), "--limit", "5"]
    answer = json.loads(run_well(*arguments, "--format", "json"))
    main = answer["tables"].get("features") or next(iter(answer["tables"].values()))
    assert len(main["rows"]) <= 15
    rows = list(csv.DictReader(io.StringIO(run_well(*arguments, "--format", "csv"))))
    assert len(rows) == len(main["rows"])
    shown = run(*arguments)
    assert shown.exit_code == 0
    assert bool(shown.stdout.strip()) == any(table["rows"] for table in answer["tables"].values())
    assert (main["left_out"] or 0) == 0 or "more rows are not shown" in shown.stderr


@pytest.mark.parametrize("session", ["empty", "one", "hostile"])
@pytest.mark.parametrize("name", COMMANDS)
def test_on_next_to_nothing_and_on_harm(data: Path, name: str, session: str) -> None:
    """An answer or a sentence; and nothing recorded steers a terminal, in any format."""
    for output_format in FORMATS:
        result = run(name, *COMMANDS[name], "--data-dir", data, "-s", session, "--format", output_format)
        assert result.exit_code == 0, result.output
        assert {c for c in result.output if c != "\n" and unicodedata.category(c) in ("Cc", "Cf", "Cs")} == set()
        if session == "empty" and output_format == "table":
            assert result.stdout == ""
            assert result.stderr


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("name", COMMANDS)
def test_within_so_many_tokens(data: Path, name: str, output_format: str) -> None:
    """`--max-tokens` is a limit on all that is printed; JSON stays JSON, and says how much is left out."""
    for session in ("shop", "hostile"):
        for budget in (100, 400):
            arguments = [name, *COMMANDS[name], "--data-dir", str(data), "-s", session, "--format", output_format]
            result = run(*arguments, "--max-tokens", str(budget))
            assert result.exit_code == 0, result.output
            assert tokens.count(result.stdout + result.stderr) <= budget
            if output_format == "json":
                assert json.loads(result.stdout)["analysis"] == name.replace("-", "_")
            if output_format != "csv":
                assert result.stderr == ""


def test_what_tokens_leave_out_is_counted(data: Path) -> None:
    """In a line that names the command, and in JSON as a number, with the command if there is room for it."""
    arguments = ["performance", "--data-dir", str(data), "-s", "shop"]
    whole = json.loads(run_well(*arguments, "--format", "json"))["tables"]["groups"]
    answer = json.loads(run_well(*arguments, "--format", "json", "--max-tokens", "450"))
    cut = answer["tables"]["groups"]
    assert answer["command"].startswith("debugstore performance --limit 0 ")
    assert "command" not in json.loads(run_well(*arguments, "--format", "json", "--max-tokens", "100000"))
    assert len(cut["rows"]) + cut["left_out"] == len(whole["rows"]) + whole["left_out"]
    assert cut["left_out"]
    assert "rows of groups are left out: debugstore performance --limit 0" in run_well(
        *arguments, "--max-tokens", "180"
    )


def test_options_select_spans(data: Path) -> None:
    """A component, a time, a value: each command has the same options for that."""
    for name, options in (
        ("performance", ["--component", "parse"]),
        ("performance", ["--where", "component=parse"]),
        ("errors", ["--component", "parse"]),
    ):
        (table, *_) = as_json(name, data, "shop", *options).values()
        assert table["rows"]
        assert "fetch" not in json.dumps(table["rows"])
    assert as_json("performance", data, "shop", "--since", "1h")["groups"]["rows"] == []
    assert {row["component"] for row in as_json("whatif", data, "shop", "--component", "parse")["whatif"]["rows"]} == {
        "parse"
    }


def test_performance(data: Path) -> None:
    """A row a component with a line of bars; by other fields; what was used."""
    shown = run_well("performance", "--data-dir", data, "-s", "shop").splitlines()
    assert shown[0].split()[:2] == ["component", "count"]
    assert re.match(r"workflow +12 .*[▁-█]+", shown[1])
    by_status = run_well("performance", "--data-dir", data, "-s", "shop", "--by", "status", "--by", "component")
    assert "ERROR" in by_status
    assert "memory peak" in run_well("performance", "--data-dir", data, "-s", "shop", "--use")


def test_critical_path_of_a_trace(data: Path) -> None:
    """From begin to end, without gaps."""
    trace_id = f"{3:032x}"
    rows = as_json("critical-path", data, "shop", "--trace", trace_id)["segments"]["rows"]
    assert [row["from_ns"] for row in rows[1:]] == [row["to_ns"] for row in rows[:-1]]
    assert sum(row["duration_ns"] for row in rows) == 103_000_000
    assert "fetch" in run_well("critical-path", "--data-dir", data, "-s", "shop", "--trace", trace_id)


def test_critical_path_of_a_trace_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    """Tables show the first digits; what begins so in no trace, or in several, is said."""
    for number, trace in enumerate((0xED94E119 << 96, (0xED94 << 112) + 1)):
        write_sealed(tmp_path, "s", [span(number + 1, f"work {number}", trace=trace)])
    (row,) = as_json("critical-path", tmp_path, "s", "--trace", "ed94e119")["segments"]["rows"]
    assert row["component"] == "work 0"
    options = ["--data-dir", str(tmp_path), "--trace"]
    assert "No trace begins with 'abc'" in refused("critical-path", *options, "abc")
    assert "Several traces begin with 'ed94'" in refused("critical-path", *options, "ed94")
    assert "is no trace id" in refused("critical-path", *options, "nope")


def test_sets_that_are_compared(data: Path, tmp_path: Path) -> None:
    """Sessions, values and times; anything else is wrong usage."""
    for number in range(6):
        slow = 2 if number >= 3 else 1
        write_sealed(
            tmp_path, f"s{number}", [span(n, trace=n, duration_ms=slow * (10 + number % 3)) for n in range(1, 9)]
        )
    found = json.loads(run_well("compare", "s0,s1,s2", "s3,s4,s5", "--data-dir", tmp_path, "--format", "json"))
    (row,) = found["tables"]["components"]["rows"]
    assert row["verdict"] == "slower"
    assert row["ratio"] == pytest.approx(2)
    for sides in (("..2023-11-14T22:13:25", "2023-11-14T22:13:25.."), ("status=ERROR", "status=UNSET")):
        both = json.loads(run_well("compare", *sides, "--data-dir", data, "-s", "shop", "--format", "json"))
        assert [side["side"] for side in both["tables"]["sides"]["rows"]] == ["before", "after"]
    refused("compare", "soon..later", "s0", "--data-dir", tmp_path)
    refused("compare", "s0", "nothing", "--data-dir", tmp_path)
    refused("compare", "s0", ",", "--data-dir", tmp_path)
    assert "was at commit" in refused("compare", "commit=abc", "s0", "--data-dir", tmp_path)


def test_versions_of_code(tmp_path: Path) -> None:
    """A row a version, each against the one before; what changed is for tables, JSON has it anyway."""
    with DebugStore("s", tmp_path, auto_sync=False) as store:
        for number, source in enumerate(("def f():\n    return 1\n", "def f():\n    return 2\n")):
            for call in range(3):
                store.write_record("tool", f"{number}-{call}", "f", duration_ms=5, code_snapshot=source)
    rows = as_json("variants", tmp_path, "s")["variants"]["rows"]
    assert [row["count"] for row in rows] == [3, 3]
    assert len({row["variant"] for row in rows}) == 2
    shown = run_well("variants", "--data-dir", tmp_path, "--diff")
    assert re.search(r"^-    return 1\n\+    return 2$", shown, re.MULTILINE)
    refused("variants", "--data-dir", tmp_path, "--diff", "--format", "json")


@pytest.mark.parametrize("session", ["empty", "one", "hostile", "shop"])
def test_report(data: Path, session: str, tmp_path: Path) -> None:
    """Markdown on standard output, pages and JSON in files; a second time the same bytes."""
    arguments = ["report", "--data-dir", str(data), "-s", session]
    text = run_well(*arguments)
    assert text.startswith("# Report")
    assert text == run_well(*arguments)
    for budget in (100, 1_000):
        assert tokens.count(run_well(*arguments, "--max-tokens", str(budget))) <= budget
    for name, begin in (("r.html", "<!DOCTYPE html>"), ("r.json", "{"), ("r.md", "# Report")):
        result = run(*arguments, "-o", tmp_path / name)
        assert (result.exit_code, result.stdout) == (0, "")
        assert (tmp_path / name).read_text().startswith(begin)
    assert "for people" in refused(*arguments, "--format", "html", "--max-tokens", "1000")


def test_report_on_real_data(nezha: Path) -> None:
    """It names the shop's front end, and what it waits for."""
    text = run_well("report", "--data-dir", nezha)
    assert "`hipstershop.Frontend/Recv.`" in text
    assert "## Recommendations" in text


@pytest.mark.parametrize("name", ["performance", "critical-path", "patterns"])
def test_tables_fit_the_terminal(data: Path, name: str) -> None:
    """No line of a table is wider than it, also of names of 10 KB."""
    for session in ("shop", "hostile"):
        shown = on_terminal(name, *COMMANDS[name], "--data-dir", data, "-s", session, columns=100)
        plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
        assert max(len(line) for line in plain.splitlines() if "  " in line) <= 100
