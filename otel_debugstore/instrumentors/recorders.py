"""What recording runs on, and must not record: it would have no end.

A call is recorded by code of ours, of OpenTelemetry and of Python's library. The first two are never targets. Functions
of the third can be, and are recorded when the program calls them: not when recording does.
"""

from __future__ import annotations

import sys
from typing import Final

RECORDERS: Final = frozenset(
    ("opentelemetry", "otel_debugstore", "otel_debugstore_analysis", "otel_debugstore_exporters", "wrapt")
)
_CALLERS_OF_THE_PROGRAM: Final = (
    "opentelemetry.instrumentation",
    "otel_debugstore.calls.recorded",
    "otel_debugstore.calls.steps",
)
"""What calls functions that it has wrapped, for the program."""


def is_of_python(module: str) -> bool:
    """Return whether a module is one of Python's library."""
    return module.partition(".")[0] in sys.stdlib_module_names


def is_called_by_the_program() -> bool:
    """Return whether it is not recording that calls a function, be it by way of Python's library.

    To be called by what stands in front of that function.
    """
    frame = sys._getframe(2)
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(_CALLERS_OF_THE_PROGRAM):
            return True
        package = module.partition(".")[0]
        if package in RECORDERS and package != "wrapt":
            return False
        if package != "wrapt" and package not in sys.stdlib_module_names:
            return True
        frame = frame.f_back  # type: ignore[assignment]  # None at the end
    return True
