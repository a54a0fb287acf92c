"""The optimization queue: what an audit found too slow, who works on it, and the proof that closes it.

Names are imported when they are first used.
"""

from typing import TYPE_CHECKING

from otel_debugstore_analysis.lazy import lazy_names

if TYPE_CHECKING:
    from otel_debugstore_analysis.queue._errors import ClaimedError, NotProvenError, QueueError
    from otel_debugstore_analysis.queue._evidence import Evidence
    from otel_debugstore_analysis.queue._item import (
        STATES,
        Code,
        Event,
        Finding,
        ItemState,
        Lease,
        Proposal,
        QueueItem,
        Violation,
    )
    from otel_debugstore_analysis.queue._package import package
    from otel_debugstore_analysis.queue._queue import OptimizationQueue

_MODULES = {
    "STATES": "_item",
    "ClaimedError": "_errors",
    "Code": "_item",
    "Event": "_item",
    "Evidence": "_evidence",
    "Finding": "_item",
    "ItemState": "_item",
    "Lease": "_item",
    "NotProvenError": "_errors",
    "OptimizationQueue": "_queue",
    "Proposal": "_item",
    "QueueError": "_errors",
    "QueueItem": "_item",
    "Violation": "_item",
    "package": "_package",
}

__all__ = [
    "STATES",
    "ClaimedError",
    "Code",
    "Event",
    "Evidence",
    "Finding",
    "ItemState",
    "Lease",
    "NotProvenError",
    "OptimizationQueue",
    "Proposal",
    "QueueError",
    "QueueItem",
    "Violation",
    "package",
]

__getattr__, __dir__ = lazy_names(__name__, _MODULES)
