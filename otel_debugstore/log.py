"""What this project tells the people who run an observed program: one line for each kind of trouble.

The line goes to standard error and nowhere else, whatever logging the program has set up, because
its own output must not change: a root handler may well write to standard output. A program that
wants the lines gives the logger "otel_debugstore" a handler, and then that one gets them.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

LOGGER_NAME: Final = "otel_debugstore"

_said: set[str] = set()


class _StandardError(logging.Handler):
    """Writes to what `sys.stderr` is now; a closed or missing one is no trouble."""

    def emit(self, record: logging.LogRecord) -> None:
        if sys.stderr is not None:
            sys.stderr.write(f"otel-debugstore: {record.getMessage()}\n")
            sys.stderr.flush()


_standard_error: Final = _StandardError()


def warn_once(kind: str, message: str) -> None:
    """Log `message` as one line, unless something of the same `kind` was logged in this process.

    Never raises and never prints a traceback. Not to be called where a span ends: a handler takes a
    lock that an interrupted frame may hold.
    """
    if kind in _said:
        return
    _said.add(kind)
    try:
        _logger().warning("%s", " ".join(message.split()))
    except Exception:  # noqa: BLE001  # a broken stderr or handler must not reach the program
        return


def forget() -> None:
    """Let everything be said again; for tests."""
    _said.clear()


def _logger() -> logging.Logger:
    logger = logging.getLogger(LOGGER_NAME)
    if not logger.handlers:
        logger.addHandler(_standard_error)
        logger.propagate = False
    elif logger.handlers != [_standard_error]:
        logger.removeHandler(_standard_error)
    return logger
