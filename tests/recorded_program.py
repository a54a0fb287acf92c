"""A program that uses all of recording, in parts, each of which returns what the program got."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_debugstore import function, instrument, tool, workflow
from otel_debugstore.recording_settings import recording_settings

HOST = """
import subprocess
from concurrent.futures import ThreadPoolExecutor


class Registry:
    def get_node(self, node_id): return {"node_id": node_id}
    def list_nodes(self): raise LookupError("no nodes")


class NodeRunner:
    def __init__(self, nodes_dir): self.nodes_dir = nodes_dir
    def save_code(self, node_id, code): return node_id
    def run_node(self, node_id, input_payload, timeout_ms=600000, filename="main.py"):
        done = subprocess.run(input_payload, capture_output=True)
        return "", "", {"success": not done.returncode, "exit_code": done.returncode, "error": "it failed"}


class NodeRuntime:
    def call_tool(self, tool_name, prompt, **kw):
        if prompt != "bad": return prompt
        return "Traceback (most recent call last):\\n  File \\"x\\", line 1\\nKeyError: 1"
    def call_llm(self, model, prompt, **kw): return prompt
    def call_tools_parallel(self, calls):
        with ThreadPoolExecutor(2) as pool:
            return list(pool.map(lambda call: self.call_tool(*call), calls))


def call_tool(tool_name, prompt, **kw): return NodeRuntime().call_tool(tool_name, prompt, **kw)
def call_tools_parallel(calls): return NodeRuntime().call_tools_parallel(calls)


class ToolsManager:
    def invoke_executable_tool(self, tool_id, source_file=None, **kw): return {"success": False, "error": "no"}
    async def invoke_llm_tool(self, tool_id, prompt): return ""
    def invoke_llm_tool_with_fallback(self, tool_id, prompt): return prompt


class WorkflowTracker:
    def __init__(self, workflow_id, description="", context=None): self.workflow_id = workflow_id
    def add_step(self, step_id, tool_name="", description="", inputs=None): pass
    def start_step(self, step_id): pass
    def complete_step(self, step_id, output=None, metadata=None): pass
    def fail_step(self, step_id, error): pass
    def finish(self): pass


class AutoEvolver:
    def should_evolve(self, node_id): return True
    def evolve_node(self, node_id): return None
"""
TARGETED = """
import functools
def plain(value): return value
@functools.lru_cache
def cached(value): return value
class Thing:
    def method(self): return 1
"""

_numbers = itertools.count()


@dataclasses.dataclass
class Point:
    x: int
    names: tuple[str, ...]


class Plain:
    """Says of itself only what its attributes are."""

    def __init__(self) -> None:
        self.api_key = "sk-1234567890abcdefghij"


@tool
def parse(text: str, *, base: int = 10) -> int:
    return int(text, base)


@function
def fails(text: str) -> None:
    raise LookupError(text)


@tool
async def later(value: int) -> int:
    await asyncio.sleep(0)
    return value


@tool
def numbers(count: int) -> Generator[int]:
    yield from range(count)


@tool
async def numbers_later(count: int) -> AsyncGenerator[int]:
    for number in range(count):
        yield number


def caught(call: Callable[[], object]) -> object:
    """Return what a call returns, or raises."""
    try:
        return call()
    except (ArithmeticError, LookupError, OSError, ValueError) as error:
        return repr(error)


def current() -> bool:
    """Return whether a span is the current one."""
    return trace.get_current_span() is not trace.INVALID_SPAN


def calls() -> list[object]:
    """Functions, blocks and errors."""
    found = [parse("12"), parse("ff", base=16), caught(lambda: parse("x")), caught(lambda: fails("here"))]
    with workflow("block", inputs={"a": 1, "url": "https://a:secretpass@example.org"}) as block:
        block.set_result(found).set_attribute("a", 1).set_outcome("retry", "again")
        found.append(parse("1"))
    found.append(caught(_failing_block))
    return [*found, current()]


def _failing_block() -> None:
    with tool("failing"):
        raise TimeoutError(
            "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG " * 40
        )


def steps() -> list[object]:
    """Coroutines, generators, asynchronous generators, and lambdas that return one."""

    async def main() -> list[object]:
        found: list[object] = [number async for number in numbers_later(3)]
        one = numbers_later(2)
        found += [await anext(one), await one.asend(None), await one.aclose()]  # type: ignore[func-returns-value]
        with contextlib.suppress(LookupError):
            await numbers_later(2).athrow(LookupError())
        async with tool("block"):
            found.append(await asyncio.gather(later(1), later(2)))
        return found

    made: Callable[[int], Iterator[int]] = tool(name="made")(lambda count: _generated(count))
    one = numbers(3)
    other = numbers(3)
    found: list[object] = [list(numbers(3)), asyncio.run(main()), list(made(2)), next(one), one.send(None)]
    one.close()
    found.append(caught(lambda: other.throw(KeyError(1))))
    return [*found, current()]


def payloads() -> list[object]:
    """Arguments of many kinds, secrets among them."""

    @tool(name="take")
    def take(*values: Any, **named: Any) -> Any:
        return values[0]

    cyclic: list[object] = [1]
    cyclic.append(cyclic)
    values = [
        {"password": "hunter22", "list": ["--token", "abcdefgh12345678"], "text": "password=hunter22"},
        Point(1, ("a", "b")),
        Plain(),
        Path("/tmp"),
        2**70,
        b"\\0" * 100,
        cyclic,
        {1, 2, 3},
        ValueError("x"),
        "x" * 100_000,
        {(1, 2): 3, "$tag": 4},
        ["AKIAIOSFODNN7EXAMPLE", "mail me at someone@example.org"],
        print,
        int,
    ]
    return [bool(take(value, key=value) is value) for value in values]


def sampled() -> list[object]:
    """A function that is called so often that only some calls are recorded; some fail, some take long."""
    often = function(name=f"often {next(_numbers)}")(_often)
    generated = function(name=f"generated {next(_numbers)}")(_generated)
    found: list[object] = [
        sum(often(number % 9) for number in range(2_500)),
        sum(sum(generated(1)) for _ in range(1_500)),
        sum(numbers(1_024)),  # whose steps are counted
    ]
    looking = function(name=f"looking {next(_numbers)}")(_looking)
    found += [sum(looking(1) for _ in range(2_500))]
    found += [caught(lambda: often(-1)) for _ in range(3)]
    return [*found, often(99)]


def _often(number: int) -> int:
    if number < 0:
        raise LookupError(number)
    if number == 99:
        time.sleep(0.003)
    return number


def _looking(number: int) -> int:
    trace.get_current_span().set_attribute("number", number)
    return number


def _generated(number: int) -> Iterator[int]:
    yield number


def decorating() -> list[object]:
    """Functions and blocks that are recorded under names not known so far."""
    number = next(_numbers)

    class Thing:
        @tool(name=f"method {number}", pure=True)
        def method(self, value: int) -> int:
            return value

        @function(name=f"class method {number}")
        @classmethod
        def make(cls) -> str:
            return cls.__name__

    def closed(value: int, offset: int = 1) -> int:
        return value + offset + number * 0

    def outer(value: int) -> int:
        return closed(value)

    new: Callable[[int], int] = eval(f"lambda value: value - {number}")  # code that was not recorded yet
    found: list[object] = [Thing().method(2), Thing.make(), instrument("step")(new)(number)]
    recorded = tool(name=f"closing {number}")(outer)
    found += [recorded(1), recorded(2)]
    with tool(f"block {number}") as block:
        block.set_result(1)
    return found


def dropped() -> list[object]:
    """Calls that the provider's sampler is against."""
    parent = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=True))
    with trace.use_span(parent):
        return calls()[:-1]


def measured() -> list[object]:
    """Calls that are long enough for all measures, and others beside them."""

    @tool(name=f"slow {next(_numbers)}")
    def slow(number: int) -> int:
        kept = bytearray(1 << 20)
        time.sleep(0.04)
        return len(kept) + number

    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(slow(1))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [sum(found)]


def hosts() -> list[object]:
    """What the instrumentors of a host's modules record."""
    sys.modules.pop("host", None)
    host: Any = importlib.import_module("host")
    registry, runtime, manager, evolver = host.Registry(), host.NodeRuntime(), host.ToolsManager(), host.AutoEvolver()
    found = [
        registry.get_node("n"),
        caught(registry.list_nodes),
        runtime.call_tool("t", "bad"),
        runtime.call_llm("m", ""),
        host.call_tool("t", "fine"),
        host.call_tools_parallel([("a", "b"), ("c", "d")]),
        manager.invoke_executable_tool("e"),
        asyncio.run(manager.invoke_llm_tool("l", "p")),
        manager.invoke_llm_tool_with_fallback("l", "p"),
        evolver.should_evolve("n"),
        evolver.evolve_node("n"),
    ]
    tracker = host.WorkflowTracker(f"flow {next(_numbers)}")
    for step in ("one", "two", "three"):
        tracker.add_step(step)
        tracker.start_step(step)
    tracker.start_step("three")
    tracker.complete_step("one", 1)
    tracker.fail_step("two", "broken")
    tracker.finish()
    host.WorkflowTracker("dropped")
    return found


def nodes() -> list[object]:
    """Nodes, which are processes."""
    runner = importlib.import_module("host").NodeRunner(Path.cwd())
    Path("node").mkdir(exist_ok=True)
    Path("node/main.py").write_text("pass")
    found = [runner.run_node("node", [command]) for command in ("true", "false")]
    process = subprocess.Popen(["sleep", "0.05"])
    while process.poll() is None:
        time.sleep(0.01)
    return [*found, runner.save_code("node", "pass"), process.returncode]


def imports() -> list[object]:
    """Modules that are imported, whose functions are targets."""
    sys.modules.pop("targeted", None)
    import targeted  # type: ignore[import-not-found]

    return [targeted.plain(1), targeted.cached(2), targeted.Thing().method()]


def pools() -> list[object]:
    """Context that is carried into a pool."""
    with ThreadPoolExecutor(1) as pool, workflow("pool"):
        return [pool.submit(parse, "7").result()]


def settings() -> list[object]:
    """Settings that are read anew."""
    recording_settings.cache_clear()
    return decorating()


def written() -> list[object]:
    """What is recorded is written, and the processor told so in every way."""
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    found = [*calls(), parse("1"), tool(name="tell")(lambda text: text)("password=hunter22")]
    provider.force_flush(300)
    previous = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, previous)
    return found


def forked() -> list[object]:
    """A child that records, has a generator open, and ends in the way of workers."""
    child = os.fork()
    if not child:
        try:
            one = numbers(3)
            next(one)
            os._exit(7 if calls() else 8)
        finally:
            os._exit(9)
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


PARTS = (
    calls,
    steps,
    payloads,
    decorating,
    dropped,
    imports,
    pools,
    hosts,
    settings,
    nodes,
    measured,
    written,
    forked,
    sampled,
)
