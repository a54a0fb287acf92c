"""What all commands share: help, exit codes, errors of one line, and where the sessions are looked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import duckdb
import pytest

from commands import DEBUGSTORE, environment, refused, run, run_well, start
from otel_debugstore_analysis.cli import COMMANDS, main
from otel_debugstore_analysis.cli._errors import EXIT_CODES
from otel_debugstore_exporters.session import SessionPaths
from sessions import span, write_journal, write_sealed

CLI = (Path(__file__).parents[1] / "docs" / "cli.md").read_text()


def files(folder: Path) -> dict[str, bytes]:
    """Return everything below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_help_names_commands_and_exit_codes() -> None:
    """`debugstore --help` lists every command with what it does, and every exit code with what it means."""
    shown = run_well("--help")
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", shown, re.MULTILINE)
    for code in EXIT_CODES:
        assert re.search(rf"^ +{code}  ", shown, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command_teaches_by_example(name: str) -> None:
    """Each command's help has an example of itself, and says the same as the list in `debugstore --help`."""
    assert f"  debugstore {name}" in run_well(name, "--help")


@pytest.mark.parametrize("name", COMMANDS)
def test_commands_and_options_are_documented(name: str) -> None:
    """docs/cli.md has a section for each command, and every option of it is there."""
    section = re.search(rf"^## `debugstore {name}.*?(?=^## |\Z)", CLI, re.MULTILINE | re.DOTALL)
    assert section, f"docs/cli.md has no section on {name}"
    command = main.get_command(click.Context(main), name)
    assert command is not None
    shared = re.search(r"^## Options that many commands share.*?(?=^## )", CLI, re.MULTILINE | re.DOTALL)
    assert shared
    documented = section[0] + shared[0]
    for parameter in command.params:
        for flag in parameter.opts if isinstance(parameter, click.Option) else ():
            assert f"`{flag}" in documented, f"docs/cli.md does not mention {flag} of {name}"


def test_exit_codes_are_documented() -> None:
    """docs/cli.md says what every exit code means."""
    assert set(re.findall(r"^\| (\d+) \|", CLI, re.MULTILINE)) == {str(code) for code in EXIT_CODES}


def test_help_imports_no_engine() -> None:
    """`debugstore --help` does not pay for DuckDB, Ibis or Rich."""
    program = (
        "import sys; from otel_debugstore_analysis.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'duckdb', 'ibis', 'rich', 'pyarrow', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")


def test_the_command_line_that_is_named_records(tmp_path: Path) -> None:
    """What `debugstore --help`, and a command that finds no session, say is to be done does it as it is written."""
    shown = re.search(r"opentelemetry-instrument .*?python app\.py", run_well("--help"), re.DOTALL)
    hint = re.search(r"opentelemetry-instrument .*? python app\.py", refused("top", "--data-dir", tmp_path))
    assert shown
    assert hint
    (tmp_path / "app.py").write_text(
        "from opentelemetry import trace\ntrace.get_tracer('t').start_span('seen').end()\n"
    )
    path = f"{DEBUGSTORE.parent}{os.pathsep}{os.environ['PATH']}"
    for line in (shown[0], hint[0]):
        subprocess.run(line, shell=True, cwd=tmp_path, env=environment(PATH=path), check=True, capture_output=True)
        sql = ("sql", "SELECT name FROM spans", "--data-dir", tmp_path / "debug_data", "--format", "json")
        assert json.loads(run_well(*sql)) == [{"name": "seen"}]


def test_version() -> None:
    """`debugstore --version` names the version."""
    assert re.fullmatch(r"otel-debugstore \d+\.\d+\.\d+\S*\n", run_well("--version"))


def test_the_data_directory_is_taken_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before or after the command, or from OTEL_DEBUGSTORE_PATH; by default it is debug_data."""
    for folder in ("debug_data", "a", "b"):
        write_sealed(tmp_path / folder, f"in-{folder}", [span(1)])
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OTEL_DEBUGSTORE_PATH", raising=False)
    assert "in-debug_data" in run_well("sessions")
    assert "in-a" in run_well("--data-dir", "a", "sessions")
    assert "in-b" in run_well("--data-dir", "a", "sessions", "--data-dir", "b")
    monkeypatch.setenv("OTEL_DEBUGSTORE_PATH", "b")
    assert "in-b" in run_well("sessions")
    assert "in-a" in run_well("sessions", "--data-dir", "a")
    assert "in-a" in run_well("--data-dir", "a", "sessions")


def test_the_newest_session_is_the_default(tmp_path: Path) -> None:
    """Without `--session` it is the newest that `benchmark` did not make; several or all can be named."""
    for number, name in enumerate(("first", "second", "third", "debugstore-benchmark_1")):
        write_sealed(tmp_path, name, [span(1, name)])
        import os

        os.utime(SessionPaths(tmp_path, name).main_segment, (number + 1, number + 1))

    def names(*options: str) -> str:
        sql = "SELECT string_agg(name, ' ' ORDER BY name) AS names FROM spans"
        return run_well("sql", sql, "--data-dir", tmp_path, "--format", "csv", *options).splitlines()[1]

    assert names() == "third"
    assert names("--session", "first", "-s", "second") == "first second"
    assert names("--all-sessions") == "debugstore-benchmark_1 first second third"
    assert names("--session", "debugstore-benchmark_1") == "debugstore-benchmark_1"
    assert run("top", "--data-dir", tmp_path, "-s", "first", "--all-sessions").exit_code == 2


@pytest.mark.parametrize("command", ["top", "trace", "sql", "tail", "export", "seal", "archive"])
@pytest.mark.parametrize("session", ["../evil", "a/b", "", ".hidden", "white space", "nul\0", "é", "x" * 129, "*"])
def test_session_ids_that_can_not_be_ones(tmp_path: Path, command: str, session: str) -> None:
    """Path parts and odd characters are refused, and nothing is changed."""
    write_sealed(tmp_path / "data", "s", [span(1)])
    before = files(tmp_path)
    arguments = {"trace": ["ab"], "sql": ["SELECT 1"]}.get(command, [])
    message = refused(command, *arguments, "--data-dir", tmp_path / "data", "--session", session)
    assert "can't be used" in message
    assert files(tmp_path) == before


def test_a_session_that_is_not_there(tmp_path: Path) -> None:
    """The error names those that are there; where there is none it says how to make one."""
    assert "record one" in refused("top", "--data-dir", tmp_path)
    write_sealed(tmp_path, "here", [span(1)])
    assert re.search(r"No session 'there'.*here", refused("top", "--data-dir", tmp_path, "-s", "there"))


def test_a_file_that_is_not_a_session(tmp_path: Path) -> None:
    """A segment that is no DuckDB file, a DuckDB file of somebody else, a journal of garbage: one line each."""
    (tmp_path / "garbage.duckdb").write_bytes(b"not a database" * 100)
    duckdb.connect(str(tmp_path / "foreign.duckdb")).execute("CREATE TABLE t AS SELECT 1").close()
    (tmp_path / "journal.lmdb").mkdir()
    (tmp_path / "journal.lmdb" / "data.mdb").write_bytes(b"\xff" * 20_000)
    before = {name: content for name, content in files(tmp_path).items() if not name.endswith(".lock")}
    for session in ("garbage", "foreign", "journal"):
        assert session in refused("top", "--data-dir", tmp_path, "--session", session)
    after = {name: content for name, content in files(tmp_path).items() if not name.endswith((".lock", "lock.mdb"))}
    assert after == before


def test_a_version_from_the_future(tmp_path: Path) -> None:
    """A segment that a newer version wrote is not touched, and the error says to upgrade."""
    write_sealed(tmp_path, "s", [span(1)])
    path = SessionPaths(tmp_path, "s").main_segment
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE segment SET version = 99")
    before = files(tmp_path)
    assert re.search(r"version 99.*upgrade", refused("top", "--data-dir", tmp_path))
    assert files(tmp_path) == before


def test_wrong_usage() -> None:
    """A command, an option or a format that does not exist is wrong usage: exit code 2, nothing on stdout."""
    for arguments in (["frobnicate"], ["top", "--nonsense"], ["top", "--format", "xml"], ["trace"], ["top", "x"]):
        assert "--help`" in refused(*arguments)


@pytest.mark.parametrize("closed", ["stdin", "stdout", "stderr"])
def test_a_closed_standard_stream(tmp_path: Path, closed: str) -> None:
    """A stream that is closed reads as empty, and what is written to it is gone."""
    write_sealed(tmp_path, "s", [span(1)])
    redirection = {"stdin": "<&-", "stdout": ">&-", "stderr": "2>&-"}[closed]
    line = f'"$0" --data-dir "$1" top {redirection}; "$0" --data-dir "$1" import - {redirection} </dev/null'
    done = subprocess.run(
        ["sh", "-c", line, str(DEBUGSTORE), str(tmp_path)], capture_output=True, text=True, env=environment()
    )
    assert "Traceback" not in done.stderr
    assert ("(stdin) can't be imported" in done.stderr) == (closed != "stderr")
    assert ("work" in done.stdout) == (closed != "stdout")
    assert done.returncode == 2


@pytest.mark.parametrize("output_format", ["table", "json", "csv", "markdown"])
def test_an_output_that_can_not_hold_every_character(tmp_path: Path, output_format: str) -> None:
    """What the encoding of standard output does not have is escaped; JSON stays JSON."""
    write_sealed(tmp_path, "s", [span(1, "日本")])
    line = [str(DEBUGSTORE), "--data-dir", str(tmp_path), "top", "--format", output_format]
    done = subprocess.run(line, capture_output=True, check=True, env=environment(PYTHONIOENCODING="latin-1"))
    shown = done.stdout.decode("latin-1")
    if output_format == "json":
        assert json.loads(shown)[0]["component"] == "日本"
    else:
        assert r"u65e5" in shown


def test_a_directory_that_may_not_be_read(tmp_path: Path) -> None:
    """A base path that is a file is wrong usage."""
    (tmp_path / "file").write_text("")
    assert run("top", "--data-dir", tmp_path / "file").exit_code == 2


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    """`debugstore ... | head -1` ends quietly."""
    write_sealed(tmp_path, "s", [span(n, "x" * 200) for n in range(1, 3000)])
    process = start("sql", "SELECT * FROM spans", "--data-dir", tmp_path, "--limit", "0", "--format", "csv")
    assert process.stdout is not None
    assert process.stdout.readline().startswith("trace_id,")
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait(60) == 0


def test_reading_seals_what_is_left_unless_told_not_to(tmp_path: Path) -> None:
    """A command that reads an idle session seals it first; `--no-seal` writes nothing."""
    write_journal(tmp_path, "s", [span(1)])
    segment = SessionPaths(tmp_path, "s").main_segment
    run_well("top", "--data-dir", tmp_path, "--no-seal")
    assert not segment.exists()
    run_well("top", "--data-dir", tmp_path)
    assert segment.exists()


def test_an_unwritable_directory_can_be_read(tmp_path: Path) -> None:
    """Reading works where nothing can be written."""
    write_sealed(tmp_path, "s", [span(1)])
    tmp_path.chmod(0o555)
    try:
        assert "work" in run_well("top", "--data-dir", tmp_path)
    finally:
        tmp_path.chmod(0o755)


def test_the_command_is_installed() -> None:
    """`debugstore` and `python -m otel_debugstore_analysis.cli` are the same."""
    done = subprocess.run(
        [sys.executable, "-m", "otel_debugstore_analysis.cli", "--version"],
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert done.stdout == run_well("--version")
