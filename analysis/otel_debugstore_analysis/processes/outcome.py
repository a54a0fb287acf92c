"""How a command ended, and what it wrote."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Status = Literal["ok", "failed", "timeout", "not_found", "killed"]


@dataclass(frozen=True)
class Output:
    """What a command wrote to a stream.

    Attributes:
        head: The first bytes; all of them if none were left out.
        tail: The last bytes, if some were left out.
        left_out_bytes: How many bytes between them were not kept.
    """

    head: bytes = b""
    tail: bytes = b""
    left_out_bytes: int = 0

    @property
    def text(self) -> str:
        """The output as text, with a line that says how much was left out; what is no UTF-8 is replaced."""
        head, tail = (part.decode("utf-8", "replace") for part in (self.head, self.tail))
        return f"{head}\n[... {self.left_out_bytes:,} bytes left out ...]\n{tail}" if self.left_out_bytes else head

    @property
    def is_whole(self) -> bool:
        """Whether nothing was left out."""
        return not self.left_out_bytes


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        argv: The command.
        status: "ok" (exit code 0), "failed" (another), "timeout", "not_found" (it could not be started) or "killed"
            (by a signal that was not ours).
        cause: One sentence that says so, for a person.
        exit_code: None where there is none: it was not started, or a signal ended it.
        signal: The number of the signal that ended it, ours included; None where none did.
        seconds: How long it ran.
        stdout, stderr: What it wrote.
        left_running: How many processes it had left behind, or had when its time was up; all were ended.
    """

    argv: tuple[str, ...]
    status: Status
    cause: str
    exit_code: int | None = None
    signal: int | None = None
    seconds: float = 0.0
    stdout: Output = field(default_factory=Output)
    stderr: Output = field(default_factory=Output)
    left_running: int = 0

    @property
    def is_ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.status == "ok"
