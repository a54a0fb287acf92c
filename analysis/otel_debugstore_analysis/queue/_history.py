"""What happened to an item, as its events say it: a bounded number of them, the first one always there."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from otel_debugstore_analysis.queue._item import MAX_TEXT, Event, ItemState, QueueItem

MAX_EVENTS: Final = 50
AUDITED: Final = "audited"
_VARIANT_DIGITS: Final = 12


def happened(item: QueueItem, state: ItemState, at_ns: int, by: str, what: str) -> QueueItem:
    """Return the item in a state, with what brought it there; of audits in a row the last is kept."""
    events = list(item.history)
    if what.startswith(AUDITED) and len(events) > 1 and events[-1].what.startswith(AUDITED) and item.state == state:
        events.pop()
    events.append(Event(at_ns, state, by[:MAX_TEXT], what))
    too_many = max(len(events) - MAX_EVENTS, 0)
    return replace(
        item,
        state=state,
        updated_ns=max(at_ns, item.updated_ns),
        history=(events[0], *events[1 + too_many :]),
        history_left_out=item.history_left_out + too_many,
    )


def short(variant: str | None) -> str:
    """Return how a version of code is named in an event."""
    return variant[:_VARIANT_DIGITS] if variant else "unknown code"
