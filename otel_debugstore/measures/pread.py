"""`PREAD`: `os.pread`, or the same without letting go of the interpreter where that would be dear.

`os.pread` lets other threads run, and where one of them computes, it may take 5 ms, or as long as there are such
threads, until the caller's turn comes again, for a read that takes 1 us. So when that is seen, reads go through
`ctypes` and keep the interpreter: 0.5 us more for each. From time to time it is tried again. (`ctypes` is used if
the process has it, as it has when something is recorded: to import it among such threads would take long.)
Threads: any, and signal handlers: no locks.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Final

from otel_debugstore.guard import swallow

SLOW_SECONDS: Final = 0.001
"""A few reads that took longer than this were kept waiting."""

_BUFFER_BYTES: Final = 1024
_FIRST_REST_SECONDS: Final = 1.0
_LAST_REST_SECONDS: Final = 64.0

Pread = Callable[[int, int, int], bytes]


class Reader:
    """See the module's first lines."""

    def __init__(self) -> None:
        self.pread: Pread = os.pread
        self.retry_at = float("inf")
        """When to call `retry`, by the monotonic clock."""
        self._rest_seconds = _FIRST_REST_SECONDS

    def was_slow(self, now: float) -> None:
        """Keep the interpreter from now on, for 1 s, and twice as long each time, up to 64 s."""
        if self.pread is not os.pread or "ctypes" not in sys.modules:
            return
        try:
            self.pread = _keeping_pread()
            self.retry_at = now + self._rest_seconds
            self._rest_seconds = min(2 * self._rest_seconds, _LAST_REST_SECONDS)
        except Exception as error:  # noqa: BLE001  # no ctypes, or a libc of another kind
            swallow(error)
            self.retry_at = float("inf")

    def retry(self) -> None:
        """Use `os.pread` again."""
        self.pread = os.pread
        self.retry_at = float("inf")


@functools.cache
def _keeping_pread() -> Pread:
    import ctypes

    real: Any = ctypes.PyDLL(None).pread
    real.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_long]
    real.restype = ctypes.c_ssize_t

    class Buffer(threading.local):
        def __init__(self) -> None:
            self.memory: Final = ctypes.create_string_buffer(_BUFFER_BYTES)
            self.address: Final = ctypes.addressof(self.memory)

    buffer = Buffer()

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        count = real(descriptor, buffer.address, min(size, _BUFFER_BYTES), offset)
        if count < 0:
            raise OSError
        return buffer.memory[:count]  # type: ignore[return-value]  # bytes, whatever ctypes' types say

    return pread


PREAD: Final = Reader()
