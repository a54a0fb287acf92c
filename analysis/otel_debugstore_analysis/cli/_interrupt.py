"""Ctrl-C while a query runs: DuckDB's client does not look at signals before its query ends."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Final, Protocol

_AGAIN_SECONDS: Final = 0.05


class Interruptible(Protocol):
    """What a DuckDB connection is here."""

    def interrupt(self) -> None: ...


@contextlib.contextmanager
def interruptible(connection: Interruptible) -> Iterator[None]:
    """Let Ctrl-C end what a connection runs within the block; `KeyboardInterrupt` comes as ever.

    Python's own handler waits until the query is over, so a thread hears of the signal and ends the query.
    """
    if threading.current_thread() is not threading.main_thread():  # others get no signals
        yield
        return
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    over = threading.Event()
    thread = threading.Thread(target=_interrupt, args=(ours, over, connection), daemon=True)
    thread.start()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        over.set()
        theirs.close()
        thread.join()
        ours.close()


def _interrupt(signals: socket.socket, over: threading.Event, connection: Interruptible) -> None:
    """Wait for Ctrl-C; then interrupt until the block is left: the query may be about to begin."""
    while received := signals.recv(64):
        while signal.SIGINT in received and not over.is_set():
            connection.interrupt()
            over.wait(_AGAIN_SECONDS)
