"""What a process that ends has only counted, or has still open: it is written all the same, however it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from commands import run_well
from instrumented import run_instrumented
from otel_debugstore_exporters.doctor import examine
from stored import stored_spans

ENDINGS = {
    "terminated": "os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)",
    "terminated long after": "time.sleep(2.5); os.kill(os.getpid(), signal.SIGTERM); time.sleep(30)",
    "terminated where Python can't see it": """
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        """,
    "os._exit": "os._exit(5)",
    "exec": "os.execv('/bin/sh', ['sh', '-c', 'exit 5'])",
    "normal": "sys.exit(5)",
}
TRACKER = """
    class WorkflowTracker:
        def __init__(self, workflow_id, description="", context=None): pass
        def add_step(self, step_id, tool_name, description="", inputs=None): pass
        def start_step(self, step_id): pass
        def complete_step(self, step_id, output=None, metadata=None): pass
        def fail_step(self, step_id, error=None): pass
        def finish(self): pass
    """
WORKFLOWS = """
    from workflow_tracker import WorkflowTracker
    finished, unfinished = WorkflowTracker("finished"), WorkflowTracker("open")
    for step in ("first", "second"):
        unfinished.add_step(step, "tool")
        unfinished.start_step(step)
    unfinished.complete_step("first")
    finished.finish()
    """
COUNTED = """
    from otel_debugstore import function
    @function(name="often")
    def often(): pass
    for _ in range(20_000):
        often()
    time.sleep(2.5)
    for _ in range(3):
        often()
    """


UNFINISHED = """
    import asyncio
    from otel_debugstore import tool
    class Never:
        def __await__(self):
            yield
    @tool(name="generator")
    def numbers():
        yield 1
        yield 2
    @tool(name="coroutine")
    async def waits():
        await Never()
    @tool(name="task")
    async def sleeps():
        await asyncio.sleep(1000)
    @tool(name="asynchronous generator")
    async def items():
        yield 1
        yield 2
    generator, coroutine, several = numbers(), waits(), items()
    next(generator)
    coroutine.send(None)
    loop = asyncio.new_event_loop()
    task = loop.create_task(sleeps())
    task._log_destroy_pending = False  # Python would say so
    loop.run_until_complete(anext(several))
    assert list(numbers()) == [1, 2]
    """
LATE = """
    from opentelemetry import trace
    from otel_debugstore import tool
    class Thing:
        @tool(name="method")
        def close(self): pass
        def __del__(self): self.close()
    thing = Thing()
    Thing()
    @tool(name="generator")
    def numbers():
        yield 1
        yield 2
    generator = numbers()
    next(generator)
    trace.get_tracer_provider().shutdown()
    """

SLOW_IMPORT = """
    from opentelemetry import trace
    from otel_debugstore_exporters import sync
    sync._INTERRUPT_SECONDS = 0.1
    class Slow:
        def find_spec(self, name, path=None, target=None):
            if name == "otel_debugstore_exporters.seal":
                time.sleep(4)
    sys.meta_path.insert(0, Slow())
    trace.get_tracer("app").start_span("work").end()
    """


def program(folder: Path, work: str, ending: str) -> Path:
    path = folder / "app.py"
    parts = ["import os, signal, sys, threading, time", textwrap.dedent(work), textwrap.dedent(ENDINGS[ending])]
    path.write_text("\n".join(parts))
    return path


def assert_ended(run: subprocess.CompletedProcess[str], ending: str) -> None:
    """Check the exit status, and that nothing was printed."""
    assert (run.stdout, run.stderr) == ("", "")
    assert run.returncode == (-signal.SIGTERM if ending.startswith("terminated") else 5)


@pytest.mark.parametrize("ending", ENDINGS)
def test_open_workflows_are_recorded(ending: str, tmp_path: Path) -> None:
    """What a tracker has open when the process ends is closed then, and says how; what was finished does not."""
    (tmp_path / "workflow_tracker.py").write_text(textwrap.dedent(TRACKER))
    run = run_instrumented(program(tmp_path, WORKFLOWS, ending), folder=tmp_path)
    assert_ended(run, ending)
    spans = stored_spans(tmp_path / "debug_data")
    is_error = ending.startswith("terminated")
    how = "terminated" if is_error else "exit"
    assert {span.name: (span.attributes.get("debugstore.outcome"), span.status_code == 2) for span in spans} == {
        "first": (None, False),
        "second": (how, is_error),
        "finished": (None, False),
        "open": (how, is_error),
    }
    assert len(spans) == 4


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_was_not_finished_is_recorded(ending: str, tmp_path: Path) -> None:
    """A generator, a coroutine or a task that waits when the process ends is ended then, and says how."""
    run = run_instrumented(program(tmp_path, UNFINISHED, ending), folder=tmp_path)
    assert_ended(run, ending)
    spans = stored_spans(tmp_path / "debug_data")
    is_error = ending.startswith("terminated")
    how = ("terminated" if is_error else "exit", is_error)
    found = Counter((span.name, span.attributes.get("debugstore.outcome"), span.status_code == 2) for span in spans)
    waiting = [(name, *how) for name in ("asynchronous generator", "coroutine", "generator", "task")]
    assert found == Counter([("generator", None, False), *waiting])


FAILED_EXEC = """
    import asyncio
    from otel_debugstore import step, workflow
    @step(name="inner")
    async def inner():
        for program in ("/no/such/program", ".", "app.py"):
            try:
                os.execv(program, ["program"])
            except OSError:
                await asyncio.sleep(0)
    @workflow(name="outer")
    async def outer():
        await inner()
    asyncio.run(outer())
    """


def test_an_exec_that_fails_ends_nothing(tmp_path: Path) -> None:
    """What is open where there is nothing to execute stays open, and ends when it ends."""
    assert_ended(run_instrumented(program(tmp_path, FAILED_EXEC, "normal"), folder=tmp_path), "normal")
    spans = stored_spans(tmp_path / "debug_data")
    assert sorted((span.name, span.attributes.get("debugstore.outcome")) for span in spans) == [
        ("inner", None),
        ("outer", None),
    ]


def test_what_ends_after_shutdown_is_counted_and_shows_nothing(tmp_path: Path) -> None:
    """A generator that was open at the shutdown is counted; a call while Python takes itself apart prints nothing."""
    assert_ended(run_instrumented(program(tmp_path, LATE, "normal"), folder=tmp_path), "normal")
    assert [span.name for span in stored_spans(tmp_path / "debug_data")] == ["method"]
    (finding,) = examine(tmp_path / "debug_data")
    assert finding.what == "1 spans were dropped (after_shutdown)"


def test_sealing_that_does_not_end_in_time_shows_nothing(tmp_path: Path) -> None:
    """Where the machine is so busy that an import outlives the program, DuckDB does not speak of what it leaks."""
    assert_ended(run_instrumented(program(tmp_path, SLOW_IMPORT, "normal"), folder=tmp_path), "normal")
    assert [span.name for span in stored_spans(tmp_path / "debug_data")] == ["work"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_counts_are_not_lost(ending: str, tmp_path: Path) -> None:
    """Calls that were counted just before the end are in the store, though no span has ended for long."""
    run = run_instrumented(program(tmp_path, COUNTED, ending), folder=tmp_path)
    assert_ended(run, ending)
    (row,) = json.loads(run_well("top", "--data-dir", tmp_path / "debug_data", "--format", "json"))
    assert (row["component"], row["count"]) == ("often", 20_003)


@pytest.mark.parametrize("ending", ["terminated", "os._exit", "normal"])
def test_counts_without_any_span(ending: str, tmp_path: Path) -> None:
    """Calls of which a sampler lets no span through are counted, also where no span ever ends."""
    work = COUNTED[: COUNTED.index("for _")] + "for _ in range(40): often()"
    run = run_instrumented(program(tmp_path, work, ending), folder=tmp_path, traces_sampler="always_off")
    assert_ended(run, ending)
    assert stored_spans(tmp_path / "debug_data") == []
    (row,) = json.loads(run_well("top", "--data-dir", tmp_path / "debug_data", "--format", "json"))
    assert (row["component"], row["count"], row["p50_ns"]) == ("often", 40, None)
    assert row["total_ns"] > 0
