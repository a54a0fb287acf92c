"""The program's own account of what it called: one JSON line a call, from every process, in one file.

A line is written when a call ends, so a process that is killed leaves no half of one. Who called whom is kept in a
context variable; threads and child processes are told by hand (`below`).
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FILE_VARIABLE = "EVOLVER_AUDIT"

_caller: ContextVar[str | None] = ContextVar("caller", default=None)


@dataclass
class Entry:
    """One call: of what kind, of what, by whom, and how it ended."""

    kind: str
    name: str
    caller: str | None
    outcome: str = "ok"
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    pid: int = field(default_factory=os.getpid)

    def write(self) -> None:
        """Append this call to the account, if the program keeps one."""
        if path := os.environ.get(FILE_VARIABLE):
            line = json.dumps(vars(self)) + "\n"
            descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, line.encode())
            finally:
                os.close(descriptor)


def caller() -> str | None:
    """Return the id of the call that is running here."""
    return _caller.get()


@contextmanager
def below(caller_id: str | None) -> Iterator[None]:
    """Have the calls made here counted as those of another call: of another thread, or another process."""
    token = _caller.set(caller_id)
    try:
        yield
    finally:
        _caller.reset(token)


@contextmanager
def call(kind: str, name: str) -> Iterator[Entry]:
    """Account for a call; an exception that leaves it makes its outcome an error."""
    entry = Entry(kind, name, caller())
    with below(entry.id):
        try:
            yield entry
        except BaseException:
            entry.outcome = "error"
            raise
        finally:
            entry.write()


def read(path: Path) -> list[dict[str, Any]]:
    """Return all calls of an account."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
