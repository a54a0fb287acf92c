"""What the doctor says, and what mends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from otel_debugstore_exporters.session import SET_ASIDE, SessionPaths

Severity = Literal["note", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know about a session, or about `state`. A `problem` makes `debugstore doctor` exit with 1."""

    session: str
    severity: Severity
    subject: str
    what: str
    remedy: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Repairable:
    """A finding, and what mends it, if anything does."""

    finding: Finding
    mend: Callable[[], None] | None = None


def foreign(paths: SessionPaths, path: Path) -> Repairable:
    """Return the problem of a file of somebody else, which is not renamed."""
    return Repairable(problem(paths, path.name, "otel-debugstore did not write it", "move it elsewhere"))


def set_aside(path: Path) -> None:
    """Rename a file or folder that can't be read, so that recording and reading go on without it."""
    path.rename(path.with_name(f"{path.name}{SET_ASIDE}{time.time_ns()}"))


def problem(paths: SessionPaths, subject: str, what: str, remedy: str) -> Finding:
    """Return something that has to be seen to."""
    return Finding(paths.session_id, "problem", subject, what, remedy)


def note(paths: SessionPaths, subject: str, what: str, remedy: str) -> Finding:
    """Return something that is good to know."""
    return Finding(paths.session_id, "note", subject, what, remedy)
