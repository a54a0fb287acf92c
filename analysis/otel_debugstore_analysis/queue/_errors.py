"""What the queue refuses.

QueueError
├── ClaimedError    somebody else works on the item
└── NotProvenError  the evidence does not prove that the candidate is faster and right
"""

from __future__ import annotations

from otel_debugstore.errors import DebugStoreError


class QueueError(DebugStoreError):
    """An item is not there, or its state does not allow what was asked."""


class ClaimedError(QueueError):
    """Somebody else has claimed the item."""


class NotProvenError(QueueError):
    """The evidence does not prove that the candidate is faster and right."""
