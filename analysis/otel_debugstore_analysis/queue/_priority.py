"""What to do first: an item's priority, with the terms that it is made of.

    priority = (1 + saved_ns_per_s / 1e6) * excess / (1 + rejections)

saved_ns_per_s: what reaching the target can be expected to save in each second of observation: the saving times the
confidence. The 1 (a millisecond) gives a place to what saves no time, such as memory, and to what was not estimated.
excess: how many times over its limit the worst measure is, from 1 to 10 (10 also over a limit of 0); 0 of what keeps
its limits by now.
rejections: how many candidates failed since the code last changed: what was tried in vain comes later.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from otel_debugstore_analysis.queue._item import QueueItem

_NS_A_MS: Final = 1e6


def prioritised(item: QueueItem) -> QueueItem:
    """Return an item with the priority that its values give it."""
    terms = {
        "saved_ns_per_s": item.expected_saving_ns_per_s * item.confidence,
        "excess": max((violation.excess for violation in item.violations), default=0.0),
        "rejections": float(item.rejections),
    }
    priority = (1 + terms["saved_ns_per_s"] / _NS_A_MS) * terms["excess"] / (1 + terms["rejections"])
    return replace(item, priority=priority, priority_terms=terms)
