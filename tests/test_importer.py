"""Files into a session: all of a file or nothing, once, whatever else happens."""

from __future__ import annotations

import fcntl
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
import zstandard

from otel_debugstore.errors import ConfigurationError, CorruptDataError, DebugStoreError, MalformedInputError
from otel_debugstore_exporters.archive import archive_session
from otel_debugstore_exporters.importer import ImportReport, Progress, import_files
from otel_debugstore_exporters.session import SessionPaths, list_sessions
from stored import stored_spans

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"
NEZHA = SHARED / "nezha" / "boutique-2022-08-22-a.otlp.jsonl.gz"
BASELINE = SHARED / "nezha" / "boutique-baseline-2022-08-23.otlp.jsonl.gz"


def line(number: int, spans: int = 1) -> bytes:
    some = [
        {
            "traceId": f"{number:032x}",
            "spanId": f"{index + 1:016x}",
            "name": f"line {number}",
            "startTimeUnixNano": "1700000000000000000",
            "endTimeUnixNano": "1700000000000001000",
        }
        for index in range(spans)
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": some}]}]}).encode()


def lines(count: int, spans: int = 1) -> bytes:
    return b"".join(line(number, spans) + b"\n" for number in range(1, count + 1))


@pytest.fixture
def paths(tmp_path: Path) -> SessionPaths:
    return SessionPaths(tmp_path / "data", "imported")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "traces.jsonl"
    path.write_bytes(lines(10, spans=3))
    return path


def stored(paths: SessionPaths) -> list[str]:
    """The names of all spans of a session, read from its files as any DuckDB client would."""
    found: list[str] = []
    for path in paths.segments():
        with duckdb.connect(str(path), read_only=True) as connection:
            found += [name for (name,) in connection.execute("SELECT name FROM spans").fetchall()]
    return sorted(found)


def leftovers(paths: SessionPaths) -> list[str]:
    """What lies below the base path and is no segment."""
    return sorted(path.name for path in paths.base_path.rglob("*") if path.suffix != ".duckdb")


def imported(paths: SessionPaths, *files: Path, **options: Any) -> ImportReport:
    report = import_files(files, paths, **options)
    assert leftovers(paths) == []
    return report


def needs(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"shared/data/{path.name} is not beside the project")
    return path


def test_a_file_becomes_a_sealed_segment(paths: SessionPaths, file: Path) -> None:
    """Everything in it is there, the report says so, and nothing else lies around."""
    report = imported(paths, file)
    assert stored(paths) == sorted(f"line {number}" for number in range(1, 11) for _ in range(3))
    assert (report.spans, report.complete, report.malformed_lines, report.skipped) == (30, True, [], [])
    assert paths.segments() == [paths.main_segment]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.jsonl.zst", "odd name.txt"])
def test_names_do_not_matter(paths: SessionPaths, tmp_path: Path, name: str) -> None:
    """Compression and format are found by content."""
    for index, content in enumerate([lines(2), gzip.compress(lines(3)), zstandard.compress(lines(4))]):
        (tmp_path / str(index)).mkdir()
        (tmp_path / str(index) / name).write_bytes(content)
    report = imported(paths, *[tmp_path / str(index) / name for index in range(3)])
    assert [one.spans for one in report.files] == [2, 3, 4]
    assert len(stored(paths)) == 9


def test_real_files(paths: SessionPaths) -> None:
    """Traces of all formats go into one session."""
    files = [
        BASELINE,
        SHARED / "otlp" / "trace.json",
        SHARED / "crisp" / "12.json",
        SHARED / "jaeger-ui" / "genaiTestTrace.json",
    ]
    report = imported(paths, *map(needs, files))
    assert [one.spans for one in report.files] == [22_969, 1, 4, 57]
    assert report.complete
    assert len(stored(paths)) == report.spans


def test_a_file_is_imported_once(paths: SessionPaths, file: Path, tmp_path: Path) -> None:
    """The same bytes under another name are skipped and said so, in one call or the next; `again` adds them."""
    copy = tmp_path / "copy"
    copy.write_bytes(file.read_bytes())
    report = imported(paths, file, copy)
    assert [(one.spans, one.skipped) for one in report.files] == [(30, False), (0, True)]
    assert report.complete
    assert [one.name for one in imported(paths, copy).skipped] == [str(copy)]
    assert len(stored(paths)) == 30
    assert imported(paths, copy, again=True).spans == 30
    assert len(stored(paths)) == 60
    assert imported(SessionPaths(paths.base_path, "other"), file).spans == 30


@pytest.mark.parametrize("remove", [True, False])
def test_a_file_that_is_archived_is_not_imported_again(paths: SessionPaths, file: Path, remove: bool) -> None:
    """The session holds it, with its segments or without; others go in beside the archive, once."""
    other = file.with_name("other.jsonl")
    other.write_bytes(lines(5))
    import_files([file], paths)
    archive_session(paths, remove=remove)
    report = import_files([file, other, other], paths)
    assert [(one.spans, one.skipped) for one in report.files] == [(0, True), (5, False), (0, True)]
    assert len(stored_spans(paths.base_path)) == 35
    assert import_files([file], paths, again=True).spans == 30
    assert len(stored_spans(paths.base_path)) == 65


def test_an_archive_that_can_not_be_read_keeps_files_out(paths: SessionPaths, file: Path) -> None:
    """Whether it holds the file is not known: nothing is imported."""
    import_files([file], paths)
    archive_session(paths, remove=True)
    (paths.archive / "segment.parquet").write_bytes(b"garbage")
    with pytest.raises(CorruptDataError):
        import_files([file], paths)
    assert paths.segments() == []


def test_malformed_lines_are_reported_and_the_rest_goes_in(paths: SessionPaths, tmp_path: Path) -> None:
    """Each with the file, the line's number and what is wrong."""
    path = tmp_path / "some.jsonl"
    path.write_bytes(b"\n".join([line(1), b"", b"{broken", line(2), line(3).replace(b'"name"', b'"spanId"'), line(4)]))
    report = imported(paths, path)
    assert stored(paths) == ["line 1", "line 2", "line 4"]
    assert [(name, number) for name, number, _ in report.malformed_lines] == [(str(path), 3), (str(path), 5)]
    assert "span id 'line 3'" in report.malformed_lines[1][2]
    assert (report.spans, report.complete) == (3, False)


def test_many_malformed_lines_are_counted(paths: SessionPaths, tmp_path: Path) -> None:
    """Memory is bounded: of each file the first thousand are kept, all are counted."""
    path = tmp_path / "some.jsonl"
    path.write_bytes(line(1) + b"\n" + b"{broken\n" * 5000)
    (one,) = imported(paths, path).files
    assert (one.spans, len(one.malformed), one.malformed_count) == (1, 1000, 5000)


def test_a_truncated_file_yields_its_whole_lines(paths: SessionPaths, tmp_path: Path) -> None:
    """A compressed file that ends early is an error at the line where it ends."""
    path = tmp_path / "some.jsonl.gz"
    path.write_bytes(gzip.compress(lines(500, spans=2), compresslevel=0)[:-3000])
    (one,) = imported(paths, path).files
    assert one.malformed == [(one.spans // 2 + 1, "the gzip data ends early")]
    assert 0 < one.spans < 1000
    assert len(stored(paths)) == one.spans


def test_a_file_without_a_good_line_is_an_error(paths: SessionPaths, tmp_path: Path) -> None:
    """Nothing is published, not even a session."""
    path = tmp_path / "some.jsonl"
    path.write_bytes(b'{"resourceSpans": 5}\n')
    report = imported(paths, path)
    assert report.files[0].error == "nothing in it could be read"
    assert not report.complete
    assert list_sessions(paths.base_path) == []


def test_a_file_without_spans_is_no_error(paths: SessionPaths, tmp_path: Path) -> None:
    """A Collector's file may hold logs and metrics only."""
    path = tmp_path / "some.jsonl"
    path.write_bytes(b'{"resourceLogs": []}\n')
    report = imported(paths, path)
    assert (report.complete, report.spans) == (True, 0)
    assert list_sessions(paths.base_path) == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello", "format is not known"),
        (b"\x1f\x8bgarbage", "gzip data is damaged"),
        (None, "No such file"),
    ],
)
def test_a_file_that_can_not_be_imported_stops_everything_before_it_begins(
    paths: SessionPaths, tmp_path: Path, file: Path, content: bytes | None, message: str
) -> None:
    """The error names the file, and the good files beside it are not imported either."""
    path = tmp_path / "bad"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MalformedInputError, match=message) as raised:
        import_files([file, path], paths)
    assert str(path) in str(raised.value)
    assert not paths.base_path.exists()


def test_a_directory_and_an_unknown_format_are_errors(paths: SessionPaths, tmp_path: Path, file: Path) -> None:
    """With what is wrong."""
    with pytest.raises(MalformedInputError, match="directory"):
        import_files([tmp_path], paths)
    with pytest.raises(ConfigurationError, match="zipkin"):
        import_files([file], paths, format="zipkin")
    assert not paths.base_path.exists()


def test_standard_input_and_pipes(paths: SessionPaths, tmp_path: Path) -> None:
    """What can be read only once is known by its bytes all the same."""
    report = import_files(["-"], paths, stdin=io.BytesIO(gzip.compress(lines(5), mtime=0)))
    assert [(one.name, one.spans) for one in report.files] == [("(stdin)", 5)]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(gzip.compress(lines(5), mtime=0)))
    writer.start()
    assert import_files([pipe], paths).skipped
    writer.join()
    assert len(stored(paths)) == 5


def test_progress(paths: SessionPaths, file: Path) -> None:
    """The last word is that all bytes and spans are done."""
    seen: list[Progress] = []
    import_files([file], paths, progress=seen.append)
    size = file.stat().st_size
    assert seen[-1] == Progress(str(file), size, size, 30)


def test_a_file_that_changes_while_it_is_read_is_not_imported(paths: SessionPaths, file: Path) -> None:
    """Else it would be taken for another file later, and its spans come in twice."""

    def append(_: Progress) -> None:
        with file.open("ab") as growing:
            growing.write(lines(1))

    report = imported(paths, file, progress=append)
    assert "changed while it was read" in (report.files[0].error or "")
    assert (report.spans, list_sessions(paths.base_path)) == (0, [])


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_import_shows_nothing(paths: SessionPaths, file: Path, error: type[BaseException]) -> None:
    """Ctrl-C leaves neither a session nor a file behind, and the import can be repeated."""

    def interrupt(_: Progress) -> None:
        raise error

    with pytest.raises(error):
        import_files([file], paths, progress=interrupt)
    assert leftovers(paths) == []
    assert list_sessions(paths.base_path) == []
    assert imported(paths, file).spans == 30


def test_a_directory_that_can_not_be_written(tmp_path: Path, file: Path) -> None:
    """The error names the session and what to do."""
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(DebugStoreError, match="can't be written"):
        import_files([file], SessionPaths(tmp_path / "taken", "s"))


PROGRAM = """
import sys
from pathlib import Path
from otel_debugstore_exporters.importer import import_files
from otel_debugstore_exporters.segment import connect
from otel_debugstore_exporters.session import SessionPaths
# A program without a file, as this one: DuckDB would print a bar into it after two seconds.
assert connect().execute("SELECT current_setting('enable_progress_bar')").fetchall() == [(False,)]
slow = (lambda _: (print("reading", flush=True), sys.stdin.read())) if sys.argv[1] == "slow" else None
report = import_files(sys.argv[3:], SessionPaths(Path(sys.argv[2]), "imported"), progress=slow)
print(report.spans, len(report.skipped), report.complete)
"""


def process(*arguments: str | Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture
def slow_import(paths: SessionPaths, file: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that stands still in the middle of importing `file`, until its input ends."""
    with process("slow", paths.base_path, file) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "reading\n"
        yield running
        running.kill()


def output(running: subprocess.Popen[str]) -> list[str]:
    return running.communicate(timeout=60)[0].split()


def test_two_processes_importing_one_file_give_its_spans_once(
    paths: SessionPaths, file: Path, slow_import: subprocess.Popen[str]
) -> None:
    """The second waits for the first and then skips; of another file it does not wait."""
    with process("fast", paths.base_path, file) as second:
        other = file.with_name("other")
        other.write_bytes(lines(2))
        assert import_files([other], paths).spans == 2
        assert second.poll() is None
        assert output(slow_import)[-3:] == ["30", "0", "True"]
        assert output(second) == ["0", "1", "True"]
    assert len(stored(paths)) == 32
    assert leftovers(paths) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_import_shows_nothing_and_holds_no_lock(
    paths: SessionPaths, file: Path, slow_import: subprocess.Popen[str], number: int
) -> None:
    """What it left behind is no session, and the next import does not wait for it."""
    slow_import.send_signal(number)
    slow_import.wait(60)
    assert list_sessions(paths.base_path) == []
    assert import_files([file], paths).spans == 30
    assert len(stored(paths)) == 30


def test_imports_of_one_file_run_one_after_another(paths: SessionPaths, file: Path) -> None:
    """However many wait for the lock, and though its file is unlinked each time."""
    threads: list[threading.Thread] = []
    inside: list[int] = []
    most: list[int] = []

    def meet(_: Progress) -> None:
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.01)
        inside.pop()

    for _ in range(6):
        arguments: Sequence[Any] = ([file], paths)
        threads.append(threading.Thread(target=import_files, args=arguments, kwargs={"again": True, "progress": meet}))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert len(stored(paths)) == 6 * 30
    assert leftovers(paths) == []


def test_the_lock_is_beside_the_session(paths: SessionPaths, slow_import: subprocess.Popen[str]) -> None:
    """So that an import which fails does not leave an empty session."""
    (lock,) = paths.base_path.glob("*.lock")
    with lock.open() as held, pytest.raises(BlockingIOError):
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert list_sessions(paths.base_path) == []


def test_two_processes_importing_a_real_file(paths: SessionPaths) -> None:
    """All 148,168 spans are there, 1,035 of which repeat an id, though a second process imports them too."""
    with (
        process("fast", paths.base_path, needs(NEZHA)) as one,
        process("fast", paths.base_path, NEZHA) as other,
    ):
        assert sorted([output(one), output(other)]) == [["0", "1", "True"], ["148168", "0", "True"]]
    assert len(stored(paths)) == 148_168


def test_a_file_whose_name_is_no_text(paths: SessionPaths, tmp_path: Path) -> None:
    """A name with bytes that are not UTF-8 is kept with escapes."""
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/not-utf-8-\xff.jsonl"))
    file.write_bytes(lines(1))
    assert import_files([file], paths).spans == 1
    assert stored(paths) == ["line 1"]
