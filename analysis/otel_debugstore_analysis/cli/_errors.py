"""Exit codes, and what commands raise for them besides `DebugStoreError`."""

from __future__ import annotations

from typing import Final

EXIT_CODES: Final = {
    0: "done",
    1: "done, and there is something to look at: malformed lines in an import, problems doctor found, "
    "secrets scan found, limits that audit found not to be kept, a candidate that benchmark, replay or optimize "
    "did not find right and good enough, no item for queue claim",
    2: "not done: wrong usage, bad input, or something could not be read or written; stderr says what",
    130: "stopped by Ctrl-C",
}


class Findings(Exception):  # noqa: N818  not an error: the command did its work
    """The command is done and has shown something to look at: exit code 1."""


def os_error_line(error: OSError) -> str:
    """Return an operating system's error as one line: what, why, and what to do."""
    what = f"{error.filename}: " if error.filename else ""
    return f"{what}{error.strerror or error}; check the path, the access rights and the free space."


def is_interrupt(error: BaseException) -> bool:
    """Whether this is what DuckDB makes of Ctrl-C while a query runs."""
    return type(error).__name__ == "InterruptException" or str(error) == "Query interrupted"
