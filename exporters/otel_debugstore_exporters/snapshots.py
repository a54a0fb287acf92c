"""The code that records came with, so that each version of it is written once.

Of the 16,384 versions written last it is remembered that they were; the store keeps one of equal ones anyway.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from otel_debugstore.outbox import Code
from otel_debugstore.source import MAX_SOURCE_CHARS

_REMEMBERED: Final = 16_384


class Snapshots:
    """Versions that are to be written, and which ones were. Its owner's lock guards it."""

    def __init__(self) -> None:
        self._waiting: dict[str, Code] = {}
        self._written: dict[str, None] = {}

    def put(self, variant: str, component: str, source: str) -> None:
        """Have a version written, unless it was; of one that is too long only that there is such a version."""
        if variant not in self._written and variant not in self._waiting:
            is_short = len(source) <= MAX_SOURCE_CHARS
            self._waiting[variant] = Code(variant, component, source=source if is_short else None)

    def waiting(self) -> list[Code]:
        """Return what is to be written now; `forget` it when it is."""
        return list(self._waiting.values())

    def forget(self, written: Sequence[Code]) -> None:
        """Say that these were written."""
        for code in written:
            self._waiting.pop(code.variant, None)
            self._written[code.variant] = None
        if len(self._written) > _REMEMBERED:
            self._written = dict.fromkeys(list(self._written)[_REMEMBERED // 2 :])
