"""`Limits`: how much of a value is captured, and so how long capturing may take.

Time is bounded by bounding the work, not by a clock: so that equal values give equal digests on a busy machine too.
With the defaults a large value of the usual kinds takes well under 1 ms, 4,096 dataclasses take about 12 ms, and the
worst that could be built, thousands of secrets to be masked, took 20 ms.
"""

from __future__ import annotations

import functools
from typing import Final, NamedTuple

from otel_debugstore.recording_settings import recording_settings


class Limits(NamedTuple):
    """Caps of one payload.

    Attributes:
        max_bytes: Of its content, about. 64 KiB hold a long prompt; 256 of them fill the outbox.
        max_text: Characters of one text, or bytes of binary data or of an array; what is longer keeps its head.
        max_items: Items in all containers together. A JSON document of 64 KiB has about as many.
        max_depth: Containers in one another. It bounds the recursion; nested data of people is rarely half as deep.
        head_text: Characters or bytes that are kept of what is cut.
        head_items: Items that are kept of what is cut, and columns of a table.
        head_rows: Rows that are kept of a table.
    """

    max_bytes: int = 64 << 10
    max_text: int = 32 << 10
    max_items: int = 4096
    max_depth: int = 20
    head_text: int = 2048
    head_items: int = 32
    head_rows: int = 5


DEFAULT_LIMITS: Final = Limits()


@functools.cache
def limits_of_settings() -> Limits:
    """Return the caps that the settings say; one text may have half of the bytes."""
    settings = recording_settings()
    limits = Limits(settings.payload_bytes, settings.payload_bytes // 2, settings.payload_items, settings.payload_depth)
    return DEFAULT_LIMITS if limits == DEFAULT_LIMITS else limits
