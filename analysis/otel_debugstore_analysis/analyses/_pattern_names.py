"""The names of the patterns, for whoever needs no more than these."""

from __future__ import annotations

from typing import Final

PATTERNS: Final = (
    "n_plus_one",
    "serial_calls",
    "retry",
    "repeated_call",
    "lockstep_wait",
    "cold_start",
    "growing_input",
)
