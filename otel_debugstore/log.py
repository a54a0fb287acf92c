"""What this project tells the people who run an observed program: one line for each kind of trouble.

The line goes to standard error and nowhere else, whatever logging the program has set up, because its
own output must not change: a root handler may well write to standard output. A program that wants the
lines gives the logger "otel_debugstore" a handler; then that one gets them. A process in whose environment
`QUIET` is set, such as that of a node, to which standard error means failure, says nothing.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Final

LOGGER_NAME: Final = "otel_debugstore"
QUIET: Final = "_OTEL_DEBUGSTORE_QUIET"

_said: set[str] = set()


def warn_once(kind: str, message: str) -> None:
    """Log `message` as one line, unless something of the same `kind` was logged in this process.

    Never raises and never prints a traceback. Not to be called where a span ends: a handler takes a
    lock that an interrupted frame may hold.
    """
    if kind in _said:
        return
    _said.add(kind)
    line = " ".join(message.split())
    try:
        logger = logging.getLogger(LOGGER_NAME)
        if logger.handlers:
            logger.warning("%s", line)
        elif logger.isEnabledFor(logging.WARNING) and sys.stderr is not None and not os.environ.get(QUIET):
            # Not through `logging`: it would list our thread among those of the program.
            sys.stderr.write(f"otel-debugstore: {line}\n")
            sys.stderr.flush()
    except Exception:  # noqa: BLE001  # a broken stderr or handler must not reach the program
        return


def quiet_opentelemetry() -> None:
    """Where `QUIET` is set, keep what OpenTelemetry logs from standard error; handlers of the program get it."""
    if os.environ.get(QUIET):
        logging.getLogger("opentelemetry").addHandler(logging.NullHandler())


def forget() -> None:
    """Let everything be said again; for tests."""
    _said.clear()
