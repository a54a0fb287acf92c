"""Items as they stand in the state: read, written, and found by what a person says."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Final

from otel_debugstore.errors import CorruptDataError
from otel_debugstore_analysis.queue._changes import current
from otel_debugstore_analysis.queue._errors import QueueError
from otel_debugstore_analysis.queue._item import QueueItem
from otel_debugstore_exporters.state import Changes, is_trace_id

TABLE: Final = "queue"
_LEAST_DIGITS: Final = 4


def read_items(stored: Iterable[tuple[str, Any]], now_ns: int) -> list[QueueItem]:
    """Return the items that stand in the table, as of now.

    Raises:
        CorruptDataError: One of them is none.
    """
    return [current(_item(value), now_ns) for _, value in stored]


def write_item(changes: Changes, item: QueueItem) -> QueueItem:
    """Write an item, and pin what shows it."""
    if item.is_closed:
        evidence = item.evidence.trace_ids if item.evidence else ()
    else:
        evidence = () if item.state == "stale" else item.trace_ids
    changes.put(TABLE, item.id, item.to_json())
    changes.pin(f"{TABLE}/{item.id}", filter(is_trace_id, evidence))
    return item


def urgency(item: QueueItem) -> tuple[float, str]:
    """Return what items are sorted by, the most urgent first."""
    return -item.priority, item.id


def meant(items: Collection[QueueItem], which: str) -> QueueItem:
    """Return the item that is meant: by its id, its component, what its calls are recorded as, or its first digits.

    Raises:
        QueueError: None is, or several could be.
    """
    found = (
        [item for item in items if item.id == which]
        or [item for item in items if item.component == which]
        or [item for item in items if item.recorded_name == which]
    )
    if not found and len(which) >= _LEAST_DIGITS:
        found = [item for item in items if item.id.startswith(which)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise QueueError(
            f"No item {which!r:.80} is in the queue; `debugstore queue list` shows them, `debugstore audit` adds some."
        )
    several = ", ".join(f"{item.id} ({item.layer})" for item in found[:5])
    raise QueueError(f"{which!r:.80} could be one of {len(found)} items: {several}; give an id.")


def _item(value: Any) -> QueueItem:
    try:
        return QueueItem.from_json(value)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CorruptDataError(
            f"An item of the queue can't be read ({error!r:.80}); run `debugstore doctor`, or upgrade otel-debugstore."
        ) from error
