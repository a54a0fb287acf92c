"""`HighMark`: the kernel's mark of the most memory that a process ever held at once (`VmHWM`), which can be reset.

Not `ru_maxrss`: a program that was started by a bigger one (with vfork, as `subprocess` and shells do) has that
one's there, for ever.
"""

from __future__ import annotations

from pathlib import Path

from otel_debugstore.guard import swallow
from otel_debugstore.measures.own_reads import OF_THREAD
from otel_debugstore.measures.proc_file import ProcFile

_STATUS_BYTES = 1024  # VmHWM is within the first 400, unless somebody is in very many groups
_NAME = b"\nVmHWM:"


class HighMark:
    """That of this process, or of another."""

    def __init__(self, pid: int | None = None) -> None:
        self._pid = "self" if pid is None else str(pid)
        self._status = ProcFile(f"/proc/{self._pid}/status", b"Name:")

    def read(self) -> int | None:
        """Return it in bytes, or None if it is not known: of a process that has ended, too."""
        content = self._status.read(_STATUS_BYTES) or b""
        OF_THREAD.reads.own_bytes += len(content)
        place = content.find(_NAME)
        try:
            return int(content[place + len(_NAME) :].split(None, 1)[0]) * 1024 if place >= 0 else None
        except (IndexError, ValueError):
            return None

    def reset(self) -> bool:
        """Lower it to what the process holds now, and return whether that could be done."""
        try:
            Path(f"/proc/{self._pid}/clear_refs").write_bytes(b"5")
            OF_THREAD.reads.own_written_bytes += 1
        except OSError as error:
            swallow(error)
            return False
        return True

    def close(self) -> None:
        """Let go of the descriptor."""
        self._status.close()
