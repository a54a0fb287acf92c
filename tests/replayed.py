"""A small project whose calls are recorded by a program of its own, for the tests of replay and optimizers."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from instrumented import run_python
from otel_debugstore_analysis.query import DuckDBEngine
from otel_debugstore_analysis.queue import Finding, OptimizationQueue, QueueItem, Violation
from otel_debugstore_analysis.replay import Recorded, ReplayOptions, recorded_calls
from otel_debugstore_exporters.reader import SessionReader

QUICK: Final = ReplayOptions(max_seconds=3)
"""Options that time little."""
NO_TIME: Final = ReplayOptions(check_only=True)


SHOP = """
    import asyncio
    import functools
    import os
    import sys
    import time
    from dataclasses import dataclass, field
    from pathlib import Path
    import numpy as np
    from pydantic import BaseModel
    from otel_debugstore import tool

    @dataclass
    class Job:
        name: str
        values: list = field(default_factory=list)

    class Order(BaseModel):
        name: str
        count: int = 1

    @tool(pure=True)
    def unique(values):
        found = []
        for value in values:
            if value not in found:
                found.append(value)
        return found

    @tool(replayable=True)
    def work(job: Job, *rest, scale=1, **more):
        if not job.values:
            raise ValueError(f"{job.name} has nothing")
        values = [value * scale for value in unique(job.values)]
        return Job(job.name.upper(), values + list(rest) + sorted(more.values()))

    @tool(replayable=True)
    def ordered(order: Order, path: Path, weights):
        return {order.name: order.count, "path": path / "x", "weights": weights * 2}

    @tool
    def undeclared(a):
        return a

    @tool(replayable=False)
    def send(a):
        with open("sent", "a") as file:
            file.write("x")

    @tool(replayable=True)
    async def later(a):
        await asyncio.sleep(0)
        return a + 1

    @tool(replayable=True)
    def clock(a):
        return time.time_ns()

    @tool(replayable=True)
    def append(values, item):
        values.append(item)
        return len(values)

    @tool(replayable=True)
    def secret(password):
        return 1

    @tool(replayable=True)
    def given(a):
        return 1

    @tool(replayable=True)
    def counted(values):
        for value in values:
            yield value

    class Client:
        @tool(replayable=True)
        def get(self, a):
            return a

        @tool(replayable=True)
        @staticmethod
        def parse(a):
            return a + 1

    def outer():
        @tool(replayable=True)
        def inner(a):
            return a
        return inner

    READY = []

    def setup():
        READY.append(True)

    def teardown():
        assert READY.pop()
"""

CHANGED = """
    import asyncio
    import functools
    import os
    import sys
    import time
    import shop

    def unique(values):
        return list(dict.fromkeys(values))

    def sorted_unique(values):
        return sorted(set(values))

    def raising_unique(values):
        if len(values) > 10:
            raise KeyError("long")
        return shop.unique(values)

    def work(job, *rest, scale=1, **more):
        if not job.values:
            raise ValueError("another text")
        values = [value * scale for value in unique(job.values)]
        return shop.Job(job.name.upper(), values + list(rest) + sorted(more.values()))

    def quiet_work(job, *rest, scale=1, **more):
        return shop.Job(job.name.upper(), [value * scale for value in unique(job.values)])

    def ordered(order, path, weights):
        return {order.name: order.count, "path": path / "x", "weights": weights + weights}

    def rounded(order, path, weights):
        return {order.name: order.count, "path": path / "x", "weights": weights * 2.0000001}

    async def later(a):
        return 1 + a

    def copied_append(values, item):
        return len([*values, item])

    def exits(values):
        os._exit(3)

    def leaves(values):
        sys.exit(3)

    def hangs(values):
        time.sleep(100)

    def forks(values):
        if os.fork() == 0:
            pass
        return list(dict.fromkeys(values))

    def reads(values):
        sys.stdin.read()
        print("noise")
        os.write(1, b"more noise")
        return list(dict.fromkeys(values))

    def needs_setup(values):
        assert shop.READY
        return list(dict.fromkeys(values))

    def parse(a):
        return 1 + a
"""

PROGRAM = """
    import asyncio
    import random
    from pathlib import Path
    import numpy as np
    import shop
    chance = random.Random(1)
    for number in range(12):
        shop.unique([chance.randrange(300) for _ in range((3, 300, 900)[number % 3])])
    for number in range(4):
        shop.work(shop.Job(f"job {number}", [number, number, 7]), 5, scale=2, extra=number)
    for name in ("first", "second"):
        try:
            shop.work(shop.Job(name))
        except ValueError:
            pass
    shop.ordered(shop.Order(name="o", count=2), Path("/tmp/a"), np.arange(3.0))
    shop.undeclared(1)
    shop.send(1)
    asyncio.run(shop.later(1))
    shop.clock(1)
    shop.append([1], 2)
    shop.secret("hunter2")
    shop.given([shop.Client(), 65, "$cut"])
    shop.given(3)
    list(shop.counted([1]))
    shop.Client().get(1)
    shop.Client.parse(1)
    shop.outer()(1)
"""


def write(folder: Path, **sources: str) -> None:
    """Write modules into a folder."""
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(source).lstrip())


def record(folder: Path, program: str) -> Path:
    """Run a program that is recorded into the folder, and return where the sessions lie."""
    program = "from otel_debugstore import configure\nconfigure('s')\n" + textwrap.dedent(program)
    (folder / "run.py").write_text(program)
    done = run_python("run.py", folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "debug_data"


def recorded(base_path: Path, component: str) -> Recorded:
    """Return what is known of a component."""
    with SessionReader(base_path) as reader:
        return recorded_calls(DuckDBEngine(reader), component)


def queued(base_path: Path, component: str, tests: Iterable[str] = (), layer: str = "tool") -> QueueItem:
    """Put a component into the queue, as an audit does."""
    finding = Finding(component, layer, violations=(Violation("p95_ns", 2e6, 1e6),), tests=tuple(tests))
    return OptimizationQueue(base_path).put(finding)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a project, without sessions and caches."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {"debug_data", "__pycache__", ".pytest_cache"} & set(path.parts)
    }
