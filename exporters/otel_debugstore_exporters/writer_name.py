"""Names of processes, in the names of files that they write: whether one that left a file still lives.

A process id alone says nothing on a volume that machines or containers share, nor after a restart of the machine,
and it is given out again. So the name says also where the process ran and when it began.
"""

from __future__ import annotations

import contextlib
import os
from binascii import crc32
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_START_FIELD: Final = 19
"""The start time among what follows the command in `/proc/{pid}/stat`, in ticks since the machine started."""


def writer_name() -> str:
    """Return the name of this process: where it runs, its id, and when it began, with hyphens between."""
    return f"{_place()}-{os.getpid()}-{_started(os.getpid()) or 0}"


def has_ended(name: str) -> bool | None:
    """Return whether the process of that name has ended; None if it ran where we can't know.

    That is on another machine, in another container, or before this machine was started.
    """
    place, _, process = name.partition("-")
    pid, _, started = process.partition("-")
    if place != _place() or not (pid.isdecimal() and started.isdecimal()):
        return None
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        pass  # somebody else's, alive
    now_started = _started(int(pid))
    return now_started is not None and now_started != int(started)


def _place() -> str:
    """Say within what a process id means one process: this start of this machine, and the namespace of ids."""
    machine, namespace = os.uname().nodename, ""
    with contextlib.suppress(OSError):  # there is no /proc, or less of it
        machine = (_PROC / "sys/kernel/random/boot_id").read_text()
        namespace = str((_PROC / "self/ns/pid").readlink())
    return f"{crc32(f'{machine} {namespace}'.encode()):08x}"


def _started(pid: int) -> int | None:
    """Return when a process began, None where that can't be told."""
    try:
        text = (_PROC / str(pid) / "stat").read_text(errors="replace")
        return int(text.rpartition(")")[2].split()[_START_FIELD])
    except (OSError, IndexError, ValueError):
        return None
