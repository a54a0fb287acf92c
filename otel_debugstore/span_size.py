"""How much memory an ended span takes: the estimate by which the queue is bounded.

The constants were measured with tracemalloc on CPython 3.11 (a test holds them to it): an ended span is
an object, its context, two bounded lists with a deque each, and a dict of attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from sys import getsizeof
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan

SPAN_BYTES: Final = 2760
"""A span with neither attributes nor events nor links, its place in the queue included."""

_ATTRIBUTE_BYTES: Final = 64
_EVENT_BYTES: Final = 520
_LINK_BYTES: Final = 600
_LARGE: Final = SPAN_BYTES + 2048
_FIXED: Final = frozenset((int, float, bool, type(None)))


def span_size(span: ReadableSpan) -> int:
    """Return about how many bytes of memory an ended span takes.

    Runs for every span in the thread that ended it, so it looks at each attribute once, does not count
    names (most are literals of the program), and takes texts for ASCII unless they are long.
    """
    # Private slots: the public properties copy (1 us and more). A span without them is taken for small.
    try:
        values = span._attributes._dict.values()  # type: ignore[union-attr]
        size = SPAN_BYTES + _ATTRIBUTE_BYTES * len(values)
        for value in values:
            if (kind := type(value)) is str:
                size += len(value)
            elif kind not in _FIXED:
                size += _value_size(value)
        if size > _LARGE:
            size += _beyond_ascii(values)
        if events := span._events._dq:  # type: ignore[attr-defined]
            size += sum([_EVENT_BYTES + _mapping_size(event.attributes) for event in events])
        if links := span._links._dq:  # type: ignore[attr-defined]
            size += sum([_LINK_BYTES + _mapping_size(link.attributes) for link in links])
    except (AttributeError, TypeError):  # not `Exception`: a time limit by SIGALRM may raise here, for the program
        return SPAN_BYTES
    return size


def _beyond_ascii(values: Iterable[Any]) -> int:
    """Return how many bytes texts take beyond one a character."""
    return sum([getsizeof(value) - len(value) for value in values if type(value) is str])


def _mapping_size(mapping: Mapping[str, Any] | None) -> int:
    return sum([_ATTRIBUTE_BYTES + _value_size(value) for value in mapping.values()]) if mapping else 0


def _value_size(value: Any) -> int:
    if isinstance(value, Mapping):
        return getsizeof(value) + sum([getsizeof(key) for key in value]) + _mapping_size(value)
    if isinstance(value, (tuple, list)):
        return getsizeof(value) + sum([_value_size(item) for item in value])
    return getsizeof(value)
