"""`Kept`: the beginning and the end of what a command writes."""

from __future__ import annotations

from otel_debugstore_analysis.processes.outcome import Output


class Kept:
    """The beginning and the end of a stream."""

    def __init__(self, max_bytes: int) -> None:
        self._half = max(max_bytes // 2, 1)
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def add(self, data: bytes) -> None:
        """Take in what was read."""
        room = self._half - len(self._head)
        self._head += data[:room]
        self._tail += data[room:]
        if len(self._tail) > 2 * self._half:
            self._trim()

    def _trim(self) -> None:
        over = max(len(self._tail) - self._half, 0)
        self._left_out += over
        del self._tail[:over]

    def output(self) -> Output:
        """Return what was kept."""
        self._trim()
        if self._left_out:
            return Output(bytes(self._head), bytes(self._tail), self._left_out)
        return Output(bytes(self._head + self._tail))
