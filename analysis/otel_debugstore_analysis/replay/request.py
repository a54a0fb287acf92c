"""What a replay asks of the processes that do it, and how that is written down.

The processes that run the program's code import this module: standard library and MessagePack only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import msgpack

SCRIPT: Final = "__main__"
"""The module of a function that stands in the file which was run."""


@dataclass(frozen=True)
class Side:
    """A version of a function.

    Attributes:
        target: "package.module:qualified.name", or with dots alone.
        paths: Where modules are looked for first.
        file: The file of a function of `__main__`.
        variant, source: The code that is to run: where the file says something else by now, `source` runs among the
            names of its module. Without them what the file says.
    """

    target: str
    paths: tuple[str, ...] = ()
    file: str | None = None
    variant: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Wanted:
    """One input, and what was recorded of its call.

    Attributes:
        label: Its class.
        content: The arguments, as `payload.capture` wrote them.
        output_digest, output: What it returned; None where that is not known. `output` only if it holds the whole.
        error: The type of the exception that left it.
    """

    label: str
    content: bytes
    output_digest: str | None
    output: bytes | None
    error: str | None


@dataclass(frozen=True)
class Request:
    """Everything that the processes of a replay need to know."""

    baseline: Side
    candidate: Side
    inputs: tuple[Wanted, ...]
    sequence: tuple[int, ...]
    setup: str | None = None
    teardown: str | None = None
    relative: float | None = None
    """The tolerance of numbers in outputs; None for equality."""
    timeout_s: float = 10.0
    max_seconds: float = 60.0
    processes: int = 8
    pairs: int = 10
    seed: int = 0
    check_only: bool = False
    """Whether nothing is timed."""
    always_sequence: bool = False
    """Whether the sequence is timed though nothing remembers."""

    def write(self, path: Path) -> None:
        """Write it to a file."""
        path.write_bytes(msgpack.packb(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> Request:
        """Read it from a file."""
        found: dict[str, Any] = msgpack.unpackb(path.read_bytes())
        for name in ("baseline", "candidate"):
            side = found[name]
            found[name] = Side(**(side | {"paths": tuple(side["paths"])}))
        found["inputs"] = tuple(Wanted(**wanted) for wanted in found["inputs"])
        found["sequence"] = tuple(found["sequence"])
        return cls(**found)
