"""Findings, proofs and a clock for the tests of the optimization queue."""

from __future__ import annotations

from typing import Any, Final

from otel_debugstore_analysis.queue import Finding, QueueItem, Violation
from sessions import START_NS

SECOND: Final = 1_000_000_000
SLOW: Final = Violation("p95_ns", 8e8, 5e8, 7e8, 9e8, "p95 is over its limit")
FASTER: Final[dict[str, Any]] = {
    "verdict": "faster",
    "ratio": 0.5,
    "low": 0.45,
    "high": 0.55,
    "pairs": 40,
    "checked": 12,
    "component": "parse",
}


class Clock:
    """A time that tests set."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns


def found(component: str = "parse", variant: str | None = "v1", **rest: Any) -> Finding:
    return Finding(component, rest.pop("layer", "tool"), variant, rest.pop("violations", [SLOW]), **rest)


def said(item: QueueItem) -> list[str]:
    """Return the states that an item went through."""
    return [event.state for event in item.history]
