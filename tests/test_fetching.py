"""What is left out is fetched by the commands that are given for it: of the same spans, in the same sessions."""

from __future__ import annotations

import csv
import html
import io
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from commands import DEBUGSTORE, environment, refused, run, run_well
from otel_debugstore import Analysis, DebugAnalyzer, DebugStore
from otel_debugstore_analysis.query import Selection
from otel_debugstore_analysis.report.findings import find
from otel_debugstore_analysis.report.json import json_report
from otel_debugstore_analysis.report.sections import markdown_report
from reports import shop
from sessions import span, write_sealed

EVIL: Final = '-it\'s; $(touch owned) "$HOME" & '
SINCE: Final = "2023-11-14T22:13:22"
"""Two seconds after the first span."""
COMMANDS: Final = (
    ["critical-path", "--by", "component", "--workflow", "workflow"],
    ["errors"],
    ["explain", "failing", "--component", EVIL],
    ["patterns", "--only", "n_plus_one", "--only", "serial_calls"],
    ["performance", "--by", "component", "--by", "trace_id", "--order", "p99"],
    ["performance", "--by", "trace_id", "--component", EVIL],
    ["compare", "..2023-11-14T22:13:25", "2023-11-14T22:13:25..", "--by", "name", "--min-effect", "5"],
    ["compare", "--by", "trace_id", "--", "-x=1", f"component={EVIL}"],
    ["thresholds", "--by", "trace_id"],
    ["whatif", "--faster", "20", "--faster", "60"],
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session of a workflow and many components, one with a name that a shell would run, and a newer session."""
    folder = tmp_path_factory.mktemp("it's data")
    spans = []
    for n in range(36):
        name, error = (EVIL, f"Error{n % 2}" if n % 4 else None) if n % 3 == 0 else (f"component {n}", None)
        attributes = {"-x": "1", "zone": f"{error}", "fails": str(error is not None)}
        start = 2_100 + n
        spans.append(span(10_000 + n, name, trace=500 + n, start_ms=start, error=error, attributes=attributes))
    write_sealed(folder, "older", [*shop(), *spans])
    write_sealed(folder, "newer", [span(1, "other", trace=900, start_ms=3_000)])
    return folder


def answered(command: str) -> dict[str, Any]:
    """Return the tables that a command answers as JSON."""
    words = shlex.split(command)
    assert words[0] == "debugstore"
    found = json.loads(run_well(words[1], "--format", "json", *words[2:]))
    tables: dict[str, Any] = found["tables"]
    return tables


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda words: " ".join(words)[:40])
def test_of_an_analysis(data: Path, arguments: list[str]) -> None:
    """The command for all rows has those that were shown and as many more as were counted, of the same spans."""
    name, *rest = arguments
    given = [name, "--data-dir", str(data), "-s", "older", "--since", SINCE, "--limit", "1", *rest]
    cut = json.loads(run_well(*given[:3], "--format", "json", *given[3:]))["tables"]
    text = run_well(*given[:3], "--max-tokens", "3000", *given[3:])
    listed = dict(re.findall(r"^[\d,]+ rows of (\w+) are left out: (debugstore .*)$", text, re.MULTILINE))
    assert listed
    for table, command in listed.items():
        whole = answered(command)[table]
        assert whole["left_out"] == 0
        assert len(whole["rows"]) == len(cut[table]["rows"]) + cut[table]["left_out"]
        assert all(row in whole["rows"] for row in cut[table]["rows"])


@pytest.mark.slow
def test_of_a_report(data: Path) -> None:
    """Each command of each section, in Markdown and in JSON, has the rows of the report and those that it left out."""
    options = ["--data-dir", str(data), "-s", "older", "--since", SINCE, "--until", "2033-01-01", "--where", "pid=1"]
    full = json.loads(run_well("report", *options, "--format", "json"))
    cut = json.loads(run_well("report", *options, "--format", "json", "--max-tokens", "3000"))
    tables = {one["name"]: one for one in cut["left_out"]}
    assert {"performance.groups", "candidates", "whatif", "critical_path.segments"} <= set(tables)
    for name, left_out in tables.items():
        if name.startswith("trace "):
            trace = json.loads(run_well(*shlex.split(left_out["command"])[1:]))
            assert (trace["trace_id"], trace["left_out"]) == (name.removeprefix("trace "), 0)
            continue
        analysis, _, table = name.partition(".")
        whole = answered(left_out["command"])[table or analysis]
        shown = full["tables"][name]
        assert len(whole["rows"]) == len(shown["rows"]) + shown["left_out"]
        keys = [key for key, value in (shown["rows"] or [{}])[0].items() if isinstance(value, str)]
        known = {tuple(row[key] for key in keys) for row in whole["rows"]}
        assert all(tuple(row[key] for key in keys) in known for row in shown["rows"])
    in_markdown = run_well("report", *options, "--max-tokens", "3000")
    listed = re.findall(r"^- [\d,]+ \w+ of [\w-]+: `(debugstore [^`]+)`$", in_markdown, re.MULTILINE)
    assert {shlex.split(command)[1] for command in listed} > {"performance", "candidates", "report", "trace"}
    for command in listed:
        assert run_well(*shlex.split(command)[1:])


def test_of_a_report_that_has_no_room_for_them(data: Path) -> None:
    """One command then makes a longer report of the same spans, which has the others."""
    options = ["--data-dir", str(data), "-s", "older", "--component", EVIL]
    for budget in (300, 500):
        short = run_well("report", *options, "--max-tokens", str(budget))
        (command,) = re.findall(r"^Left out: .*`(debugstore report [^`]+)`\.$", short, re.MULTILINE)
        longer = run_well(*shlex.split(command)[1:])
        assert len(longer) > len(short)
        assert "12 spans of 12 traces in 1 session" in longer


def test_of_a_page(data: Path) -> None:
    """A page names the commands as well."""
    page = run_well("report", "--data-dir", data, "-s", "older", "--format", "html")
    commands = re.findall(r"<p class=\"note\">[\d,]+ more rows: <code>(.*?)</code></p>", page)
    assert commands
    for command in commands:
        assert any(table["rows"] for table in answered(html.unescape(command)).values())


def test_a_shell_runs_nothing_that_was_recorded(data: Path, tmp_path: Path) -> None:
    """A name in a command is one word of it, whatever it is made of."""
    options = ["--component", EVIL, "--by", "trace_id", "--limit", "1", "--max-tokens", "2000"]
    text = run_well("performance", "--data-dir", data, "-s", "older", *options)
    (command,) = re.findall(r"left out: (debugstore .*)$", text, re.MULTILINE)
    found = subprocess.run(
        ["sh", "-c", f"{command} --format csv"],
        cwd=tmp_path,
        env=environment(PATH=f"{DEBUGSTORE.parent}:/usr/bin:/bin"),
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(list(csv.DictReader(io.StringIO(found.stdout)))) == 12
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a`b", "a\x1b[2Jb", "a\u202eb", "a\nb"])
def test_no_command_shows_what_it_is_not(data: Path, name: str) -> None:
    """Where a name would steer a terminal or end a code span, it is counted without a command."""
    with Analysis(base_path=data) as analysis:
        several = find(analysis.engine, selection=Selection(where={"component": ("fetch", name)}))
        one = find(analysis.engine, selection=Selection(where={"session": "older"}), scope=("--data-dir", name))
    for findings, subcommands in ((several, {"trace"}), (one, set())):
        left_out = json.loads(json_report(findings, 3_000))["left_out"]
        assert {one["command"].split()[1] for one in left_out if one["command"]} == subcommands
        for budget in (400, 1_500):
            report = markdown_report(findings, budget)
            assert "Left out" in report
            assert set(re.findall(r"`debugstore (\w+) --", report)) <= subcommands


def test_the_newest_session_is_named(data: Path) -> None:
    """When the command is run, another one may be the newest."""
    text = run_well("performance", "--data-dir", data, "--by", "trace_id", "--max-tokens", "300", "--all-sessions")
    assert "--all-sessions" in text
    report = run_well("report", "--data-dir", data, "--max-tokens", "300")
    assert "--session newer" in report


def test_of_a_context(tmp_path: Path) -> None:
    """The commands of a package ask its store's session, and have its records."""
    with DebugStore("s", tmp_path, auto_sync=False) as store:
        for number in range(30):
            store.write_record("tool", f"c{number}", f"tool {number}", duration_ms=5 + number)
        with DebugAnalyzer(store) as analyzer:
            report = analyzer.analyze_context(context_type="tool", max_samples=20).to_markdown(4_000)
    DebugStore("t", tmp_path).close()
    listed = dict(re.findall(r"^- [\d,]+ \w+ of ([\w-]+): `(debugstore [^`]+)`$", report, re.MULTILINE))
    assert len(answered(listed["performance"])["groups"]["rows"]) == 30
    records = json.loads(run_well(*shlex.split(listed["slow_records"])[1:], "--format", "json"))
    assert {row["context_name"] for row in records} == {f"tool {number}" for number in range(30)}


def test_a_password_is_not_shown() -> None:
    """Of a database's URL; where it is needed, it comes from the environment."""
    from otel_debugstore_analysis.query._connect import without_password

    assert without_password("clickhouse://me:se%40cret@host:1/db?a=1") == "clickhouse://me@host:1/db?a=1"
    assert without_password("chdb:///tmp/x") == "chdb:///tmp/x"


def test_a_range_that_ends_before_it_begins(data: Path) -> None:
    """It is said, and not that nothing was found."""
    assert "ends before it begins" in refused("performance", "--data-dir", data, "--since", "1m", "--until", "5m")
    assert "ends before it begins" in refused("compare", "--data-dir", data, "1h..2h", "2h..1h")


def test_not_one_row_fits(data: Path) -> None:
    """How many rows there are is said in every format; of CSV, beside it."""
    arguments = ["performance", "--data-dir", str(data), "-s", "older", "--max-tokens", "100", "--format"]
    found = json.loads(run_well(*arguments, "json"))
    assert (found["analysis"], found["tables"]) == ("performance", {})
    assert found["left_out"] > 28
    table = run(*arguments, "csv")
    assert (table.stdout, table.stderr) == ("", "Nothing fits into so few tokens: 28 rows are left out.\n")


def test_rows_that_csv_leaves_out(data: Path) -> None:
    """They are counted beside it, with the command that has them."""
    arguments = ["performance", "--data-dir", str(data), "-s", "older", "--format", "csv"]
    cut = run(*arguments, "--max-tokens", "600")
    found = re.fullmatch(r"(\d+) rows of groups are left out: (debugstore .*)\n", cut.stderr)
    assert found
    whole = run_well(*shlex.split(found[2])[1:], "--format", "csv").splitlines()
    assert len(cut.stdout.splitlines()) + int(found[1]) == len(whole) == 29
    assert set(cut.stdout.splitlines()) <= set(whole)
