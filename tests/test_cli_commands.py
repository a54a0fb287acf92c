"""Each command does its work, from files and sessions to what it prints and leaves behind."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from commands import DEBUGSTORE, environment, refused, run, run_well, start
from otel_debugstore import DebugStore
from otel_debugstore_exporters.session import SessionPaths, list_sessions
from sessions import MS, START_NS, hex_id, span, write_journal, write_sealed

SPANS = [
    span(1, "request", duration_ms=100),
    span(2, "parse", parent=1, start_ms=10, duration_ms=20, attributes={"kind": "json"}, error="ValueError"),
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A base path with one sealed session `s` of two spans."""
    write_sealed(tmp_path / "data", "s", SPANS)
    return tmp_path / "data"


def as_json(*arguments: str | Path) -> Any:
    return json.loads(run_well(*arguments, "--format", "json"))


def line(number: int) -> str:
    """Return a line of OTLP JSON with one span."""
    value = {
        "traceId": hex_id(number, 32),
        "spanId": hex_id(number),
        "name": f"span {number}",
        "kind": 1,
        "startTimeUnixNano": str(START_NS),
        "endTimeUnixNano": str(START_NS + number * MS),
    }
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [value]}]}]})


@contextmanager
def stopping(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """Leave no process and no pipe behind."""
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


# sessions, top, trace, sql


def test_sessions(data: Path) -> None:
    """Sessions with their times, counts and sizes, the newest first, bounded."""
    write_journal(data, "newer", [span(1)])
    newer, older = as_json("sessions", "--data-dir", data)
    assert (newer["session"], newer["span_count"]) == ("newer", 1)
    assert (older["session"], older["state"], older["span_count"], older["trace_count"]) == ("s", "ended", 2, 1)
    assert (older["start_ns"], older["duration_ns"], older["error_count"]) == (START_NS, 100 * MS, 1)
    assert older["size_bytes"] > 0
    cut = run("sessions", "--data-dir", data, "-n", "1")
    assert "1 older sessions are not shown" in cut.stderr


def test_sessions_of_nothing(tmp_path: Path) -> None:
    """No session is not an error; it is said, and no directory is made."""
    result = run("sessions", "--data-dir", tmp_path / "none")
    assert result.exit_code == 0
    assert "No session lies below" in result.stderr
    assert not (tmp_path / "none").exists()


def test_an_unreadable_session_does_not_hide_the_others(data: Path) -> None:
    """It is listed as unreadable."""
    (data / "broken.duckdb").write_bytes(b"x" * 5000)
    states = {row["session"]: row["state"] for row in as_json("sessions", "--data-dir", data)}
    assert states == {"s": "ended", "broken": "unreadable"}


def test_top(data: Path) -> None:
    """The same as the query layer says; the number of rows left out is on standard error."""
    rows = as_json("top", "--data-dir", data)
    assert [(row["component"], row["total_ns"], row["self_ns"]) for row in rows] == [
        ("request", 100 * MS, 80 * MS),
        ("parse", 20 * MS, 20 * MS),
    ]
    cut = run("top", "--data-dir", data, "--limit", "1")
    assert "1 more rows are not shown; --limit 0 shows all." in cut.stderr
    assert len(as_json("top", "--data-dir", data, "--limit", "0")) == 2


def test_top_of_a_selection(data: Path) -> None:
    """Conditions, times and groups are taken from options."""
    grouped = as_json("top", "--data-dir", data, "--by", "name", "--by", "kind", "--where", "status=ERROR")
    assert [(row["name"], row["kind"]) for row in grouped] == [("parse", "INTERNAL")]
    assert as_json("top", "--data-dir", data, "--since", "1h") == []
    assert len(as_json("top", "--data-dir", data, "--until", "2023-11-14T22:13:20.005")) == 1
    assert len(as_json("top", "--data-dir", data, "--since", str(START_NS + 1))) == 1
    slowest = as_json("top", "--data-dir", data, "--slowest", "-n", "1")
    assert [row["trace_id"] for row in slowest] == [hex_id(1, 32)]
    assert "No span is selected" in run("top", "--data-dir", data, "--where", "name=none").stderr


@pytest.mark.parametrize(
    "options",
    [["--since", "soon"], ["--where", "x"], ["--where", "=x"], ["--where", "a=1", "--where", "a=2"], ["--order", "x"]],
)
def test_top_with_wrong_options(data: Path, options: list[str]) -> None:
    """What can't be understood is wrong usage."""
    result = run("top", "--data-dir", data, *options)
    assert (result.exit_code, result.stdout) == (2, "")


def test_top_by_what_is_not_there(data: Path) -> None:
    """A field that is neither a column nor an attribute of any span is an error that lists the columns."""
    assert "columns are trace_id" in refused("top", "--data-dir", data, "--by", "nonsense")


def test_trace(data: Path) -> None:
    """A tree for people, spans with depth for programs."""
    heading, _, *rows = run_well("trace", "0000", "--data-dir", data).splitlines()
    assert heading.startswith(f"trace {hex_id(1, 32)}: 2 spans, 1 failed, 100 ms, began 2023-11-14 22:13:20.000 UTC")
    assert rows[0].split() == ["0", "ns", "100", "ms", "80.0", "ms", "request"]
    assert rows[1].endswith("    parse ERROR ValueError: it broke")
    spans = as_json("trace", hex_id(1, 32), "--data-dir", data)["spans"]
    assert [(s["name"], s["depth"], s["offset_ns"]) for s in spans] == [("request", 0, 0), ("parse", 1, 10 * MS)]
    assert "1 shorter spans are not shown" in run("trace", "00", "--data-dir", data, "-n", "1").stderr
    assert run_well("trace", "00", "--data-dir", data, "--format", "csv").count("\n") == 3
    assert "no trace id" in refused("trace", "xyz", "--data-dir", data)
    assert "No trace begins" in refused("trace", "ff", "--data-dir", data)


def test_sql(data: Path) -> None:
    """Rows of a SELECT, given as an argument or on standard input; bounded, and it says so."""
    sql = "SELECT name, duration_ns FROM spans ORDER BY start_ns"
    expected = [{"name": "request", "duration_ns": 100 * MS}, {"name": "parse", "duration_ns": 20 * MS}]
    assert as_json("sql", sql, "--data-dir", data) == expected
    assert json.loads(run_well("sql", "-", "--data-dir", data, "--format", "json", input=sql)) == expected
    cut = run("sql", sql, "--data-dir", data, "-n", "1")
    assert "Only the first 1 rows are shown" in cut.stderr
    assert run_well("sql", sql, "--data-dir", data, "--format", "csv").splitlines()[1] == f"request,{100 * MS}"


@pytest.mark.parametrize(
    "sql",
    [
        "SELEC 1",
        "SELECT nonsense FROM spans",
        "",
        "SELECT 1; SELECT 2",
        "DELETE FROM spans",
        "DROP VIEW spans",
        "CREATE TABLE t AS SELECT 1",
        "ATTACH 'other.duckdb'",
        "COPY (SELECT 1) TO 'out.csv'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_text('data/s.duckdb')",
        "SELECT * FROM read_parquet('https://example.com/x.parquet')",
        "SET enable_external_access = true",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "LOAD httpfs",
        "EXPORT DATABASE 'x'",
        "WITH x AS (SELECT 1) INSERT INTO spans SELECT * FROM x",
    ],
)
def test_sql_that_is_wrong_or_not_allowed(
    data: Path, sql: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Wrong SQL, writing, files and network are refused with one line, and nothing is changed."""
    monkeypatch.chdir(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    refused("sql", sql, "--data-dir", data)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_sql_that_takes_too_long(data: Path) -> None:
    """A query is stopped after its time."""
    endless = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range * b.range = 7"
    assert "took longer than 0.3 s" in refused("sql", endless, "--data-dir", data, "--timeout", "0.3")


# import, export, archive, seal, doctor


def test_import(tmp_path: Path) -> None:
    """Files go into the session named after the first; a second time they are skipped unless asked for again."""
    file = tmp_path / "night run.jsonl.gz"
    file.write_bytes(gzip.compress("\n".join(map(line, (1, 2, 3))).encode()))
    data = tmp_path / "data"
    (row,) = as_json("import", file, "--data-dir", data)
    assert (row["session"], row["result"], row["span_count"]) == ("night-run", "imported", 3)
    (again,) = as_json("import", file, "--data-dir", data)
    assert (again["result"], again["span_count"]) == ("skipped", 0)
    as_json("import", file, "--data-dir", data, "--again")
    assert as_json("sql", "SELECT count(*) AS n FROM spans", "--data-dir", data) == [{"n": 6}]


def test_import_from_standard_input(tmp_path: Path) -> None:
    """`-` is standard input."""
    run_well("import", "-", "--session", "in", "--data-dir", tmp_path, input=line(1).encode())
    assert as_json("sql", "SELECT name FROM spans", "--data-dir", tmp_path) == [{"name": "span 1"}]


def test_import_of_malformed_lines(tmp_path: Path) -> None:
    """The good lines go in, the bad ones are reported with their numbers, and the exit code is 1."""
    file = tmp_path / "mixed.jsonl"
    file.write_text("\n".join([line(1), "{broken", line(3), '{"resourceSpans": 7}']))
    result = run("import", file, "--data-dir", tmp_path / "data")
    assert result.exit_code == 1
    assert [text.split(": ")[0] for text in result.stderr.splitlines()] == [f"{file}:2", f"{file}:4"]
    rows = as_json("sql", "SELECT name FROM spans ORDER BY name", "--data-dir", tmp_path / "data")
    assert [row["name"] for row in rows] == ["span 1", "span 3"]


def test_imports_that_are_refused(tmp_path: Path) -> None:
    """A missing file, a directory, an unknown format, a file that is nothing of ours: nothing is imported."""
    data, good, bad = tmp_path / "data", tmp_path / "good.jsonl", tmp_path / "bad.bin"
    good.write_text(line(1))
    bad.write_bytes(os.urandom(2000))
    for files in ([tmp_path / "none"], [tmp_path], [bad], [good, bad], [good, "--from", "xml"]):
        refused("import", *files, "--data-dir", data)
        assert list_sessions(data) == []


def test_export_is_what_was_imported(tmp_path: Path) -> None:
    """OTLP in, OTLP out, into a file or standard output; an existing file is kept unless told otherwise."""
    file, out = tmp_path / "a.jsonl", tmp_path / "out.jsonl.gz"
    file.write_text(line(1))
    run_well("import", file, "--data-dir", tmp_path / "data")
    printed = run_well("export", "--data-dir", tmp_path / "data")
    assert json.loads(printed)["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"] == "span 1"
    run_well("export", "--data-dir", tmp_path / "data", "-o", out)
    assert gzip.decompress(out.read_bytes()).decode() == printed
    assert "is there already" in refused("export", "--data-dir", tmp_path / "data", "-o", out)
    run_well("export", "--data-dir", tmp_path / "data", "-o", out, "--overwrite")
    run_well("import", "--session", "back", out, "--data-dir", tmp_path / "data")
    assert run_well("export", "--session", "back", "--data-dir", tmp_path / "data") == printed


def test_export_as_parquet(data: Path, tmp_path: Path) -> None:
    """A folder with a Parquet file a table, whole or not at all; a folder with other files is not touched."""
    folder = tmp_path / "out" / "parquet"
    run_well("export", "--to", "parquet", "-o", folder, "--data-dir", data)
    found = duckdb.connect().execute(f"SELECT name FROM '{folder}/spans.parquet' ORDER BY start_ns").fetchall()
    assert found == [("request",), ("parse",)]
    assert "is there already" in refused("export", "--to", "parquet", "-o", folder, "--data-dir", data)
    run_well("export", "--to", "parquet", "-o", folder, "--data-dir", data, "--overwrite")
    (folder / "mine.txt").write_text("")
    refused("export", "--to", "parquet", "-o", folder, "--data-dir", data, "--overwrite")
    assert (folder / "mine.txt").exists()
    assert list(folder.parent.iterdir()) == [folder]
    assert run("export", "--to", "parquet", "--data-dir", data).exit_code == 2


def test_archive(data: Path) -> None:
    """An archive is read like a session, with and without the original."""
    before = as_json("top", "--data-dir", data)
    (row,) = as_json("archive", "--data-dir", data, "--remove")
    assert Path(row["archive"]).is_dir()
    assert not SessionPaths(data, "s").segments()
    assert as_json("top", "--data-dir", data) == before
    assert as_json("sessions", "--data-dir", data)[0]["state"] == "archived"
    assert "exists already" in refused("archive", "--data-dir", data)


def test_seal(data: Path) -> None:
    """What a journal holds goes into the session's one segment."""
    write_journal(data, "s", [span(3, "later")])
    (row,) = as_json("seal", "--data-dir", data, "--session", "s")
    assert (row["result"], row["segment_count"]) == ("sealed", 1)
    with duckdb.connect(str(SessionPaths(data, "s").main_segment), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM spans").fetchall() == [(3,)]


def test_seal_asks_the_program_that_records(data: Path) -> None:
    """It seals at once what it would else have kept in the journal, and goes on."""
    paths = SessionPaths(data, "live")

    def nobody_seals() -> bool:
        with paths.lock("seal") as mine:
            return mine

    with DebugStore("live", data) as store:
        store.write_record("tool", "a", "x")
        store.flush()
        deadline = time.monotonic() + 30
        while nobody_seals() and time.monotonic() < deadline:
            time.sleep(0.1)
        (row,) = as_json("seal", "--data-dir", data, "--session", "live")
        assert (row["result"], row["segment_count"]) == ("sealed by the program that records into it", 1)
        assert store.get_stats()["journal_record_count"] == 0


def test_doctor(data: Path) -> None:
    """Clean sessions are said to be so; a problem is shown with a remedy, exit code 1, until it is repaired.

    What was set aside is noted from then on.
    """
    assert "Nothing is wrong" in run("doctor", "--data-dir", data).stderr
    assert as_json("doctor", "--data-dir", data) == []
    (data / "broken.duckdb").write_bytes(b"x" * 5000)
    found = run("doctor", "--data-dir", data, "--format", "json")
    assert found.exit_code == 1
    (finding,) = json.loads(found.stdout)
    assert (finding["session"], finding["severity"], finding["repaired"]) == ("broken", "problem", False)
    repaired = run("doctor", "--repair", "--data-dir", data)
    assert repaired.exit_code == 0
    (aside,) = data.glob("broken.duckdb.corrupt-*")
    for arguments in ((), ("--session", "broken")):
        (note,) = as_json("doctor", "--data-dir", data, *arguments)
        assert (note["session"], note["severity"], note["subject"]) == ("broken", "note", aside.name)
    assert as_json("doctor", "--data-dir", data, "--session", "s") == []


def test_doctor_shows_drops(data: Path) -> None:
    """Dropped spans are notes: shown with the reason, and no reason for exit code 1."""
    from otel_debugstore_exporters.journal import Journal

    with Journal.open(SessionPaths(data, "s").journal) as journal:
        journal.append([], {"queue_full": 7})
    (finding,) = as_json("doctor", "--data-dir", data)
    assert finding["severity"] == "note"
    assert "7 spans were dropped (queue_full)" in finding["what"]
    assert as_json("sessions", "--data-dir", data)[0]["dropped_count"] == 7


# tail, serve, Ctrl-C


def test_tail(data: Path) -> None:
    """The last spans by their ends, in every format."""
    assert [row.split()[-1] for row in run_well("tail", "--data-dir", data, "-n", "1").splitlines()] == ["request"]
    rows = [json.loads(text) for text in run_well("tail", "--data-dir", data, "--format", "json").splitlines()]
    assert [row["name"] for row in rows] == ["parse", "request"]
    assert run_well("tail", "--data-dir", data, "--format", "csv").count("\n") == 3
    assert run_well("tail", "--data-dir", data, "--format", "markdown").count("\n") == 4
    assert run_well("tail", "--data-dir", data, "-n", "0") == ""


def test_tail_follows_sessions_that_begin_later(tmp_path: Path) -> None:
    """`tail -f` waits for the first session, shows spans as they come, and Ctrl-C ends it with 130."""
    with stopping(start("tail", "-f", "--format", "json", "--data-dir", tmp_path)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "waiting for one" in process.stderr.readline()
        now = time.time_ns()
        write_journal(tmp_path, "first", [span(1, "one", start_ns=now)])
        assert json.loads(process.stdout.readline())["name"] == "one"
        write_journal(tmp_path, "first", [span(2, "two", start_ns=now)])
        assert json.loads(process.stdout.readline())["name"] == "two"
        write_sealed(tmp_path, "second", [span(3, "three", start_ns=now)])
        assert json.loads(process.stdout.readline())["session"] == "second"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
        assert process.stderr.read().strip() == ""


def test_tail_follows_a_named_session_that_begins_later(tmp_path: Path) -> None:
    """`tail -f --session` waits for that one, and shows no other."""
    with stopping(start("tail", "-f", "--session", "mine", "--format", "json", "--data-dir", tmp_path)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "session mine; waiting for it" in process.stderr.readline()
        write_journal(tmp_path, "other", [span(1, "one", start_ns=time.time_ns())])
        write_journal(tmp_path, "mine", [span(2, "two", start_ns=time.time_ns())])
        assert json.loads(process.stdout.readline())["name"] == "two"


def test_serve(tmp_path: Path) -> None:
    """Spans sent by OTLP/HTTP are in the session; Ctrl-C ends it well."""
    with stopping(start("serve", "--port", "0", "--session", "in", "--data-dir", tmp_path)) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        url = re.search(r"http://127\.0\.0\.1:\d+/v1/traces", said)
        assert url, said
        request = urllib.request.Request(url[0], line(1).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=20) as response:
            assert response.status == 200
        assert as_json("sql", "SELECT name FROM spans", "--data-dir", tmp_path) == [{"name": "span 1"}]
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0


def test_serve_where_others_could_reach_it(tmp_path: Path) -> None:
    """Only a loopback address is listened on unless that is allowed."""
    assert "--allow-remote" in refused("serve", "--host", "0.0.0.0", "--data-dir", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_ctrl_c_during_an_import_leaves_nothing(tmp_path: Path) -> None:
    """An interrupted import ends with 130 and shows nothing."""
    file, data = tmp_path / "many.jsonl", tmp_path / "data"
    file.write_text("\n".join(map(line, range(1, 200_000))))
    with stopping(start("import", file, "--data-dir", data)) as process:
        deadline = time.monotonic() + 60
        while not list(data.glob(".many+*.tmp*")) and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr is not None
        assert process.stderr.read().strip() == ""
    assert list_sessions(data) == []
    assert not list(data.glob(".many+*"))


# demo


def test_demo(tmp_path: Path) -> None:
    """The demo records two packages' survey, sees spans arrive, and prints sessions, top, a trace and files."""
    command = [str(DEBUGSTORE), "demo", "asyncio", "json", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert (done.returncode, "Traceback" in done.stdout + done.stderr) == (0, False), done.stderr
    for heading in ("Recording", "debugstore sessions", "debugstore top", "debugstore trace", "Where it lies"):
        assert f"\n{heading}" in done.stdout
    (session,) = list_sessions(tmp_path)
    assert session.startswith("stdlib_survey_")
    assert str(SessionPaths(tmp_path, session).main_segment) in done.stdout
    count = as_json("sql", "SELECT count(*) AS n FROM spans", "--data-dir", tmp_path)[0]["n"]
    assert count > 100
