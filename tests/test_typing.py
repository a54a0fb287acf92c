"""A program that uses the package type-checks, keeps the types of what it decorates, and is told of its mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

PROGRAM = """
import functools
from collections.abc import AsyncIterator, Iterator

from otel_debugstore import (
    DebugIntegration,
    DebugStore,
    GuardRails,
    PerformanceCollector,
    ab,
    configure,
    debug_track,
    function,
    init_debug_integration,
    instrument,
    node,
    step,
    tool,
    variant,
    workflow,
)


@tool(pure=True)
def plain(a: int, *, b: str = "") -> list[str]:
    return [b] * a


@workflow(name="named", capture_args=False)
async def coroutine(a: int) -> bytes:
    return bytes(a)


@step("called", replayable=False)
def generator(a: int) -> Iterator[float]:
    yield float(a)


@node()
async def async_generator(a: int) -> AsyncIterator[str]:
    yield str(a)


@instrument(layer="function", name="x", capture_result=False)
def instrumented(a: int) -> complex:
    return complex(a)


class Thing:
    @function
    def method(self, a: int) -> "Thing":
        return self

    @classmethod
    @tool(name="built")
    def build(cls, a: int) -> "Thing":
        return cls()

    @staticmethod
    @tool
    def static(a: int) -> str:
        return str(a)


compared = ab("compared", {"v1": plain, "v2": plain}, key="a", guard_rails=GuardRails(max_ratio=1.5))
awaited = ab("awaited", {"v1": coroutine}, weights={"v1": 1}, key=lambda a: str(a))


@variant("registered", "v1", weight=2)
def registered(a: int) -> str:
    return str(a)


increased = tool(functools.partial(pow, 2))
collector = PerformanceCollector(session_id="s", base_path="runs", queue_max_bytes="1MiB")
integration: DebugIntegration = init_debug_integration("s")


@collector.instrument(layer="tool", tool_name="collected")
def collected(a: int) -> int:
    return a


@integration.track_function("tracked")
def tracked(a: int) -> int:
    return a


@debug_track
def bare(a: int) -> int:
    return a


@debug_track("tool", "name", capture_args=False)
def given(a: int) -> int:
    return a


def blocks() -> None:
    with tool("block", inputs={"a": 1}) as call, collector.track_execution("step", "s"), integration.track_step("t"):
        call.set_result(1).set_attribute("k", "v").set_outcome("retry")
    with collector as same, integration, workflow("w"), instrument("node", "n"):
        report: str = same.generate_optimization_report(min_executions=1, max_tokens=100)
    tracker: Thing = integration.track_workflow(Thing())
    configure(session_id="s").force_flush()
    with DebugStore("s", base_path="runs") as store:
        store.close()
    print(report, tracker)


async def async_block() -> None:
    async with step("async") as call:
        call.set_result(await coroutine(1))
    async for item in async_generator(1):
        item.upper()
"""

TYPES = {
    "plain": "def (a: int, *, b: str =) -> list[str]",
    "coroutine": "def (a: int) -> Coroutine[Any, Any, bytes]",
    "generator": "def (a: int) -> Iterator[float]",
    "async_generator": "def (a: int) -> AsyncIterator[str]",
    "instrumented": "def (a: int) -> complex",
    "Thing().method": "def (a: int) -> Thing",
    "Thing.build": "def (a: int) -> Thing",
    "Thing.static": "def (a: int) -> str",
    "compared": "def (a: int, *, b: str =) -> list[str]",
    "awaited": "def (a: int) -> Coroutine[Any, Any, bytes]",
    "registered": "def (a: int) -> str",
    "increased": "partial[int]",
    "collected": "def (a: int) -> int",
    "tracked": "def (a: int) -> int",
    "bare": "def (a: int) -> int",
    "given": "def (a: int) -> int",
}
"""What is defined in the program, and its type."""

MISTAKES = (
    'plain("x")',
    "plain(1).append(2)",
    "Thing().method()",
    'instrument(layer="lever")',
    'collector.instrument(layer="tools")',
    'collector.track_execution("lever")',
    'integration.track_function(layer="lever")',
    'debug_track("lever", "x")',
    "tool(5)",
    'tool(pure="yes")',
    'tool(nam="x")',
    'tool("x").set_result(1)',
    "DebugStore(5)",
    'ab("x", {"v1": plain}, layer="lever")',
    'ab("x", {"v1": 5})',
    "GuardRails(max_p95=1)",
    'variant("x")',
)


@pytest.mark.slow
def test_a_program_is_checked(tmp_path: Path) -> None:
    """By mypy, strictly: every form of decorator and block is right, every mistake an error, and no other line."""
    reveals = [f"reveal_type({name})" for name in TYPES]
    lines = [*PROGRAM.splitlines(), *reveals, *MISTAKES]
    (tmp_path / "program.py").write_text("\n".join(lines) + "\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "program.py"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert not done.stderr
    said = re.findall(r"(?m)^program\.py:(\d+): (\w+): (.*)$", done.stdout)
    found = [re.sub(r"\b[a-z_]+\.", "", message) for _, _, message in said if message.startswith("Revealed")]
    assert found == [f'Revealed type is "{kind}"' for kind in TYPES.values()]
    wrong = [lines[int(number) - 1] for number, level, _ in said if level == "error"]
    assert wrong == list(MISTAKES), done.stdout
