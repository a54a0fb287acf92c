"""Programs that end in every way there is: nothing is lost, and nobody can tell that we were there."""

from __future__ import annotations

import signal
import subprocess
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from instrumented import run_instrumented, run_python
from stored import stored_spans

WORK = """
import os, signal, sys, time
from opentelemetry import trace
tracer = trace.get_tracer("app")
for i in range(700):
    with tracer.start_as_current_span(f"span {i}", attributes={"i": i}):
        pass
print("worked", flush=True)
"""

ENDINGS = {
    "normal": "",
    "exit": "sys.exit(3)",
    "exception": "raise RuntimeError('broken')",
    "interrupt": "signal.raise_signal(signal.SIGINT)",
    "os._exit": "os._exit(5)",
    "terminated": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)",
    "terminated twice": "os.kill(os.getpid(), signal.SIGTERM); os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)",
    "own handler": """
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
    "own handler, chained": """
        def handle(number, frame):
            print("handled", callable(previous), previous == signal.SIG_DFL)
            if callable(previous):
                previous(number, frame)
            sys.exit(8)
        previous = signal.signal(signal.SIGTERM, handle)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
    "handler, default again, signal again": """
        def handle(number, frame):
            with tracer.start_as_current_span("late"):
                pass
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        signal.signal(signal.SIGTERM, handle)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
    "ignored, then default": """
        print(signal.signal(signal.SIGTERM, signal.SIG_IGN))
        os.kill(os.getpid(), signal.SIGTERM)
        print(signal.signal(signal.SIGTERM, signal.SIG_DFL), signal.getsignal(signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
    "terminated in a thread's work": """
        import threading
        def work():
            while True:
                with tracer.start_as_current_span("more"):
                    pass
        threading.Thread(target=work, daemon=True).start()
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
    "terminated while the main thread can't see it": """
        import threading
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
    "terminated long after the last span": """
        time.sleep(2.5)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
    "terminated when recording again": """
        time.sleep(2.5)
        with tracer.start_as_current_span("late"):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
    "exec": "os.execv('/bin/sh', ['sh', '-c', 'echo replaced; exit 9'])",
    "a shell's child": "sys.exit(os.system('exit 4') >> 8)",
    "asyncio handler": """
        import asyncio
        async def main():
            loop = asyncio.get_running_loop()
            done = asyncio.Event()
            loop.add_signal_handler(signal.SIGTERM, done.set)
            os.kill(os.getpid(), signal.SIGTERM)
            await done.wait()
            loop.remove_signal_handler(signal.SIGTERM)
        asyncio.run(main())
        print(signal.getsignal(signal.SIGTERM))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
}


def program(folder: Path, ending: str) -> Path:
    path = folder / "app.py"
    path.write_text(WORK + textwrap.dedent(ending))
    return path


def assert_same(run: subprocess.CompletedProcess[str], plain: subprocess.CompletedProcess[str]) -> None:
    """Check that a run shows what the run without us showed."""
    assert run.returncode == plain.returncode, run.stderr
    assert run.stdout == plain.stdout
    assert run.stderr == plain.stderr


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_ending_loses_nothing_and_shows_nothing(ending: str, tmp_path: Path) -> None:
    """Output and exit status are those of a run without us, and every span is found once."""
    path = program(tmp_path, ENDINGS[ending])
    run = run_instrumented(path, folder=tmp_path)
    assert_same(run, run_python(path, folder=tmp_path))
    names = [span.name for span in stored_spans(tmp_path / "debug_data") if span.name != "more"]
    expected = [f"span {i}" for i in range(700)] + ["late"] * ('"late"' in ENDINGS[ending])
    assert sorted(names) == sorted(expected)
    if ending.startswith("terminated"):
        assert run.returncode == -signal.SIGTERM


def test_what_the_program_sees_of_itself(tmp_path: Path) -> None:
    """Signal handlers, signatures and exit functions look as they do without us."""
    path = program(
        tmp_path,
        """
        import inspect, pickle
        print([signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)])
        print(repr(signal.signal(signal.SIGTERM, signal.SIG_DFL)), repr(signal.getsignal(signal.SIGTERM)))
        print(inspect.signature(os._exit), os._exit.__name__, os._exit.__doc__)
        print(inspect.signature(signal.signal), inspect.signature(os.execve))
        print([pickle.loads(pickle.dumps(it)) is it for it in (os._exit, os.execv, os.execve, signal.signal)])
        try:
            signal.signal(signal.SIGTERM, "nonsense")
        except TypeError as error:
            print(error)
        """,
    )
    run = run_instrumented(path, folder=tmp_path)
    assert_same(run, run_python(path, folder=tmp_path))
    assert "Handlers.SIG_DFL" in run.stdout


def test_spans_that_end_after_shutdown_are_counted(tmp_path: Path) -> None:
    """What ends when the provider has shut down is dropped, and the count is in the store."""
    path = program(
        tmp_path,
        """
        provider = trace.get_tracer_provider()
        provider.shutdown()
        for _ in range(5):
            tracer.start_span("late").end()
        """,
    )
    run = run_instrumented(path, folder=tmp_path)
    assert (run.returncode, run.stdout) == (0, "worked\n")
    assert len(stored_spans(tmp_path / "debug_data")) == 700
    assert drops(tmp_path / "debug_data") == {"after_shutdown": 5}


NO_ROOM_LATER = """
    import resource
    trace.get_tracer_provider().force_flush() if hasattr(trace.get_tracer_provider(), "force_flush") else None
    resource.setrlimit(resource.RLIMIT_FSIZE, ({0}, {0}))
    for i in range(30_000):
        with tracer.start_as_current_span(f"span {{os.urandom(30)}}"):
            pass
    """
TROUBLES = {
    "a file in the way": "",
    "a read-only file system": "",
    "no room": """
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        """,
    "no room later": NO_ROOM_LATER.format(40_000),
    "a value that can't be encoded": """
        tracer.start_span("bad").end("yesterday")
        """,
    "a garbage journal": "",
    "a bad variable": "",
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_trouble_costs_one_line(trouble: str, tmp_path: Path) -> None:
    """The program's output and exit status stay, and standard error has at most one line of ours."""
    path = program(tmp_path, textwrap.dedent(TROUBLES[trouble]) + "\nsys.exit(3)")
    base_path = tmp_path / "data"
    settings: dict[str, Any] = {"debugstore_session": "s", "debugstore_path": base_path}
    if trouble == "a file in the way":
        base_path.write_text("")
    elif trouble == "a read-only file system":
        settings["debugstore_path"] = "/proc/debug_data"
    elif trouble == "a garbage journal":
        (base_path / "s.lmdb").mkdir(parents=True)
        (base_path / "s.lmdb" / "data.mdb").write_bytes(b"garbage" * 10_000)
    elif trouble == "a bad variable":
        settings["debugstore_durability"] = "sometimes"
    run = run_instrumented(path, folder=tmp_path, **settings)
    plain = run_python(path, folder=tmp_path)
    assert (run.returncode, run.stdout) == (plain.returncode, plain.stdout) == (3, "worked\n")
    assert plain.stderr == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("otel-debugstore: ")
    if trouble == "a value that can't be encoded":
        assert len(stored_spans(base_path)) == 700
        assert drops(base_path) == {"unencodable": 1}
    if trouble == "a bad variable":
        assert len(stored_spans(base_path)) == 700


FAILED_EXEC = """
    import resource
    def run(function, *arguments):
        try:
            function(*arguments)
        except OSError:
            pass
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, limit[1]))
    for i in range(3_000):
        tracer.start_span(f"span {os.urandom(30)}").end()
    run(os.execvp, "no-such-program", ["no-such-program"])
    open("broken", "w").write("no program")
    os.chmod("broken", 0o700)
    run(os.execv, "broken", ["broken"])
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    tracer.start_span("last").end()
    """


def test_an_exec_that_fails_loses_nothing(tmp_path: Path) -> None:
    """Of what a full disk refuses at that moment either: the program goes on, and may find room."""
    run = run_instrumented(program(tmp_path, textwrap.dedent(FAILED_EXEC)), folder=tmp_path)
    assert (run.returncode, run.stdout) == (0, "worked\n")
    assert len(stored_spans(tmp_path / "debug_data")) == 3_701
    assert drops(tmp_path / "debug_data") == {}


@pytest.mark.parametrize("ending", ["normal", "os._exit", "terminated"])
def test_what_a_full_disk_refuses_is_counted(ending: str, tmp_path: Path) -> None:
    """A program that ends while its disk is full: every span is found or counted, whichever way it ends."""
    path = program(tmp_path, textwrap.dedent(NO_ROOM_LATER.format(400_000)) + textwrap.dedent(ENDINGS[ending]))
    base_path = tmp_path / "debug_data"
    run = run_instrumented(path, folder=tmp_path)
    (line,) = run.stderr.splitlines()
    assert line.startswith("otel-debugstore: ")
    found, counted = len(stored_spans(base_path)), drops(base_path)
    assert (700 < found < 30_700, list(counted)) == (True, ["disk"])
    assert found + counted["disk"] == 30_700


def drops(base_path: Path) -> dict[str, int]:
    from otel_debugstore_exporters.journal import Journal

    (path,) = base_path.glob("*.lmdb")
    with Journal.open(path) as journal:
        return {drop.reason: drop.count for drop in journal.drops()}


CLOSING = {
    "all files": """
        time.sleep(1.6)  # the journal is open
        os.closerange(3, 200)
        mine = [os.open(f"mine{i}", os.O_RDWR | os.O_CREAT) for i in range(12)]
        for descriptor in mine:
            os.write(descriptor, b"mine")
        end_spans("more", 700)
        time.sleep(1.6)
        end_spans("last", 700)
        time.sleep(1.6)
        os.write(200, repr([os.fstat(descriptor).st_size for descriptor in mine]).encode())
        """,
    "standard files": """
        for descriptor in (0, 1, 2):
            os.close(descriptor)
        end_spans("first", 10)
        time.sleep(1.6)
        mine = os.open("mine", os.O_RDWR | os.O_CREAT)
        for descriptor in (0, 1, 2):
            os.dup2(mine, descriptor)
        end_spans("more", 700)
        time.sleep(1.6)
        end_spans("last", 700)
        time.sleep(1.6)
        os.write(200, repr([os.fstat(mine).st_size]).encode())
        """,
}


@pytest.mark.parametrize("closed", CLOSING)
def test_a_program_that_closes_our_descriptors(closed: str, tmp_path: Path) -> None:
    """Its own files, which have the numbers then, stay as they are, and every span is kept."""
    report = tmp_path / "report"
    path = tmp_path / "app.py"
    path.write_text(
        "import os, time\n"
        "from opentelemetry import trace\n"
        "def end_spans(name, count):\n"
        "    for _ in range(count):\n"
        "        trace.get_tracer('app').start_span(name).end()\n"
        f"os.dup2(os.open({str(report)!r}, os.O_RDWR | os.O_CREAT), 200)\n"
        "end_spans('first', 10)\n" + textwrap.dedent(CLOSING[closed])
    )
    assert run_instrumented(path, folder=tmp_path).returncode == 0
    assert report.read_text() == str([4] * 12 if closed == "all files" else [0])
    counted = Counter(span.name for span in stored_spans(tmp_path / "debug_data"))
    assert (counted["more"], counted["last"]) == (700, 700)


@pytest.mark.slow
def test_a_program_that_joins_all_threads(tmp_path: Path) -> None:
    """It meets none of ours, and ends."""
    path = program(
        tmp_path,
        """
        import threading
        time.sleep(2.5)  # all our threads run
        print([thread.name for thread in threading.enumerate()], threading.active_count())
        for thread in threading.enumerate():
            if thread is not threading.current_thread():
                thread.join()
        """,
    )
    assert_same(run_instrumented(path, folder=tmp_path), run_python(path, folder=tmp_path))
