"""Items that are worked on: by one at a time, and given back whatever ends the work."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator

from otel_debugstore.errors import DebugStoreError
from otel_debugstore_analysis.queue import OptimizationQueue


def own_name(name: str) -> str:
    """Return the name that one run of an optimizer claims by: two runs of it exclude each other."""
    return f"{name} ({socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)})"


@contextlib.contextmanager
def given_back(queue: OptimizationQueue, item_id: str, by: str) -> Iterator[None]:
    """Give an item back when something goes wrong, also by Ctrl-C, SIGTERM and SIGHUP."""
    try:
        with _stoppable():
            yield
    except BaseException:
        with contextlib.suppress(DebugStoreError):
            queue.release(item_id, by)
        raise


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Have SIGTERM and SIGHUP do what Ctrl-C does, where the program has no handlers of its own."""
    former = {}
    if threading.current_thread() is threading.main_thread():
        numbers = (signal.SIGTERM, signal.SIGHUP)
        former = {number: signal.SIG_DFL for number in numbers if signal.getsignal(number) is signal.SIG_DFL}
    for number in former:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
