"""Context in the threads of pools."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.threading import ThreadingInstrumentor

from instrumented import run_instrumented
from otel_debugstore.instrumentors.thread_pools import ThreadPoolInstrumentor
from recording import Memory
from stored import stored_spans


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def carried() -> Iterator[None]:
    ThreadPoolInstrumentor().instrument()
    yield
    ThreadPoolInstrumentor().uninstrument()


def work(name: str, *, error: bool = False) -> str:
    trace.get_tracer("t").start_span(name).end()
    if error:
        raise LookupError(name)
    return name


def run() -> None:
    """Use a pool in every way, from within a span."""
    with ThreadPoolExecutor(2) as pool, trace.get_tracer("t").start_as_current_span("outer"):
        assert pool.submit(work, "submitted").result() == "submitted"
        assert list(pool.map(work, ["mapped", "mapped too"])) == ["mapped", "mapped too"]
        with pytest.raises(LookupError, match="failing"):
            pool.submit(work, "failing", error=True).result()


def test_context_goes_along(carried: None, memory: Memory) -> None:
    """What a pool runs hangs below what submitted it; arguments, results and errors are as without."""
    run()
    assert memory.paths() == sorted(
        ["outer", *(f"outer > {name}" for name in ("submitted", "mapped", "mapped too", "failing"))]
    )


def test_a_wrong_call_is_wrong(carried: None) -> None:
    """What Python refuses, it still refuses."""
    with ThreadPoolExecutor(1) as pool, pytest.raises(TypeError):
        pool.submit()  # type: ignore[call-arg]


def test_a_task_leaves_nothing_behind(carried: None, memory: Memory) -> None:
    """The thread's next task has the context of its own submitter."""
    with ThreadPoolExecutor(1) as pool:
        with trace.get_tracer("t").start_as_current_span("outer"):
            pool.submit(work, "first").result()
        pool.submit(work, "second").result()
    assert memory.paths() == ["outer", "outer > first", "second"]


def test_only_when_asked(memory: Memory) -> None:
    """Without the instrumentor, and after `uninstrument`, a pool is Python's own."""
    before = ThreadPoolExecutor.submit
    run()
    ThreadPoolInstrumentor().instrument()
    assert ThreadPoolExecutor.submit is not before
    ThreadPoolInstrumentor().uninstrument()
    assert ThreadPoolExecutor.submit is before
    assert "outer > submitted" not in memory.paths()


def test_beside_the_instrumentation_of_others(carried: None, memory: Memory) -> None:
    """Where OpenTelemetry's instrumentation of threads carries context, ours does not."""
    ThreadingInstrumentor().instrument()
    try:
        run()
    finally:
        ThreadingInstrumentor().uninstrument()
    assert "outer > submitted" in memory.paths()


APP = """
from concurrent.futures import ThreadPoolExecutor
from opentelemetry import trace
tracer = trace.get_tracer("app")
with ThreadPoolExecutor(1) as pool, tracer.start_as_current_span("outer"):
    pool.submit(lambda: tracer.start_span("inner").end()).result()
"""


@pytest.mark.parametrize("setting", ["true", "false"])
def test_without_code(setting: str, tmp_path: Path) -> None:
    """Under `opentelemetry-instrument` a setting switches it on."""
    (tmp_path / "app.py").write_text(APP)
    done = run_instrumented(
        "app.py", folder=tmp_path, debugstore_thread_pools=setting, disabled_instrumentations="threading"
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    spans = {span.name: span for span in stored_spans(tmp_path / "debug_data")}
    assert (spans["inner"].parent_id == spans["outer"].span_id) is (setting == "true")
