"""What recording runs on, and must not record: it would have no end.

A call is recorded by code of ours, of OpenTelemetry and of Python's library. The first two are never targets. Functions
of the third can be, and are recorded when the program calls them: not when recording does. (What libraries compute for
captured values is kept out by `suppressed`.)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Final

RECORDERS: Final = frozenset(
    ("opentelemetry", "otel_debugstore", "otel_debugstore_analysis", "otel_debugstore_exporters", "wrapt")
)

_CALLERS_OF_THE_PROGRAM: Final = (
    "opentelemetry.instrumentation",
    "otel_debugstore.calls.recorded",
    "otel_debugstore.calls.steps",
    "otel_debugstore.experiments.arm",
    "otel_debugstore.instrumentors.thread_pools",
)
"""What calls functions that it was given, for the program."""


def is_of_python(module: str) -> bool:
    """Return whether a module is one of Python's library, or has its name."""
    return module.partition(".")[0] in sys.stdlib_module_names


def is_called_by_the_program(is_on: Callable[[], bool]) -> bool:
    """Return whether a patch is in place, and not recording calls the function, be it by way of Python's library.

    To be called right by what stands in front of that function.

    Args:
        is_on: Says whether the patch is.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        package = module.partition(".")[0]
        if package in RECORDERS:
            if module.startswith(_CALLERS_OF_THE_PROGRAM):
                break
            if package != "wrapt":
                return False
        elif package not in sys.stdlib_module_names:
            break
        frame = frame.f_back
    return is_on()
