"""What happens where recording a call fails: it is said once, and the program goes on."""

from __future__ import annotations

from otel_debugstore.guard import swallow
from otel_debugstore.log import warn_once


def trouble(error: Exception) -> None:
    """Swallow an error of ours. What is meant for the program goes on."""
    swallow(error)
    warn_once("calls", f"A call could not be recorded ({error!r}); the program goes on.")
