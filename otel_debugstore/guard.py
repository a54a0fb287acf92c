"""What may be swallowed: errors of ours, and not what the program wanted to be raised where we happened to be.

A time limit by SIGALRM raises wherever the main thread is, and so does one that sets an exception in another
thread; were that swallowed, it would never come.
"""

from __future__ import annotations

import signal
from types import TracebackType
from typing import Final

_OUR_PACKAGES: Final = ("otel_debugstore", "opentelemetry")
_LIBRARIES: Final = frozenset(
    ("builtins", "duckdb", "_duckdb", "lmdb", "msgpack", "struct", "wrapt", "zstandard", "zstd")
)


def is_meant_for_the_program(error: BaseException) -> bool:
    """Return whether an exception caught in our code is none of ours: a signal handler, or a thread, raised it."""
    handlers = _handler_codes()
    place: TracebackType | None = error.__traceback__
    innermost = place
    while place is not None:
        if place.tb_frame.f_code in handlers:
            return True
        innermost, place = place, place.tb_next
    module = innermost.tb_frame.f_globals.get("__name__", "") if innermost is not None else ""
    is_raised_in_ours = str(module).partition(".")[0].startswith(_OUR_PACKAGES)
    return is_raised_in_ours and not _is_of_a_library(type(error))


def swallow(error: BaseException) -> None:
    """Do nothing with an error that was caught in our code, unless it is meant for the program: raise it again."""
    if is_meant_for_the_program(error):
        raise error


def _is_of_a_library(kind: type[BaseException]) -> bool:
    """Whether our code, or what it calls in C, raises such exceptions."""
    package = kind.__module__.partition(".")[0]
    return package in _LIBRARIES or package.startswith(_OUR_PACKAGES)


def _handler_codes() -> set[object]:
    found: set[object] = set()
    for number in signal.valid_signals():
        handler = signal.getsignal(number)
        handler = getattr(handler, "__func__", handler)
        if (code := getattr(handler, "__code__", None)) is not None:
            found.add(code)
    return found
