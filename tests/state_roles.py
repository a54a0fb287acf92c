"""What processes of `workers.py` do with the state below a base path, and with the queue in it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

from otel_debugstore.errors import DebugStoreError
from otel_debugstore_analysis.queue import Finding, OptimizationQueue, Violation
from otel_debugstore_exporters.session import SessionPaths
from otel_debugstore_exporters.state import Changes, State

Say = Callable[[object], None]


def change_state(say: Say, paths: SessionPaths, count: int = 1 << 30) -> None:
    """Add one to two counters, both or none, again and again; say how far they are."""

    def add(changes: Changes) -> int:
        for key in ("first", "second"):
            changes.put("counters", key, (changes.get("counters", key) or 0) + 1)
        return int(changes.get("counters", "second"))

    for _ in range(count):
        say(State(paths.base_path).change(add))


def fill_state(say: Say, paths: SessionPaths, value_bytes: int = 100_000) -> None:
    """Write values until one is refused."""
    try:
        for number in range(1 << 30):
            State(paths.base_path).put("values", str(number), os.urandom(value_bytes))
            say(number)
    except DebugStoreError as error:
        say(f"{type(error).__name__}: {error}")


def use_state(say: Say, paths: SessionPaths) -> None:
    """Do everything that can be done with a state, and say how it went."""
    try:
        state = State(paths.base_path)
        say(f"found {len(state.items('values'))}")
        state.update("values", "new", lambda value: bytes(100_000))
        state.pin("me", ["a" * 32])
        state.check()
        state.delete("values", "new")
        say(f"used, {len(state.items('values'))} left")
    except DebugStoreError as error:
        say(f"{type(error).__name__}: {error}")


def fork_while_changing(say: Say, paths: SessionPaths, forks: int) -> None:
    """Change in a thread while forking; each child changes, too."""
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            change_state(lambda _: None, paths, 1)

    thread = threading.Thread(target=change)
    thread.start()
    for _ in range(forks):
        pid = os.fork()
        if not pid:
            change_state(say, paths, 1)
            sys.exit(0)
        say(f"status {os.waitpid(pid, 0)[1]}")
    done.set()
    thread.join()


def fork_while_state_is_locked(say: Say, paths: SessionPaths) -> None:
    """Fork while another thread changes for longer than a fork waits."""
    inside, leave = threading.Event(), threading.Event()

    def stay(changes: Changes) -> None:
        inside.set()
        leave.wait(20)
        changes.put("values", "slow", 1)

    thread = threading.Thread(target=lambda: State(paths.base_path).change(stay))
    thread.start()
    inside.wait()
    pid = os.fork()
    if not pid:
        use_state(say, paths)
        os._exit(0)
    say(f"status {os.waitpid(pid, 0)[1]}")
    leave.set()
    thread.join()
    use_state(say, paths)


def audit_again(say: Say, paths: SessionPaths, components: int, times: int) -> None:
    """Put the same components into the queue again and again."""
    violation = Violation("p95_ns", 2e8, 1e8)
    for _ in range(times):
        found = [Finding(f"component {number}", "tool", "v1", [violation]) for number in range(components)]
        OptimizationQueue(paths.base_path).put_all(found)
        say("put")


def claim_all(say: Say, paths: SessionPaths, by: str) -> None:
    """Claim items until there is none."""
    queue = OptimizationQueue(paths.base_path)
    while item := queue.claim_next(by):
        say(item.id)
