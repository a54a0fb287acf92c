"""`SignalsHeld`: what would stop this process waits until a command was ended."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Final

_STOPPING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(BaseException):
    """A signal that stops this process has come."""


class SignalsHeld:
    """Has a signal that stops this process wait until the command was ended."""

    def __init__(self) -> None:
        self.caught: int | None = None
        self._former: dict[int, Any] = {}

    def __enter__(self) -> SignalsHeld:
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                former = signal.getsignal(number)
                if former in (signal.SIG_DFL, signal.default_int_handler):
                    self._former[number] = former
                    signal.signal(number, self._catch)
        return self

    def _catch(self, number: int, frame: FrameType | None) -> None:
        self.caught = number

    def check(self) -> None:
        """Raise if one has come."""
        if self.caught is not None:
            raise Stopped

    def __exit__(self, *_: object) -> None:
        for number, former in self._former.items():
            signal.signal(number, former)
        if self.caught is not None:
            signal.raise_signal(self.caught)
