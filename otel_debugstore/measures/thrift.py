"""`Thrift`: of a component whose calls are too short to be worth measuring, only every eighth is.

Reading memory and I/O costs some 11 us, most of it in the kernel. A component is measured at every call until 32 calls
in a row took less than 0.1 ms and moved nothing; then at every eighth, and at every one again when a call took longer
or moved something. What is not measured is not known: None, never 0.
Threads: any; a count that is off by a few does no harm.
"""

from __future__ import annotations

from typing import Final

SHORT_NS: Final = 100_000
_ENOUGH: Final = 32
_EVERY: Final = 8


class Thrift:
    """Decides for one component."""

    __slots__ = ("_quiet",)

    def __init__(self) -> None:
        self._quiet = 0  # calls since one was long or moved something

    def looks(self) -> bool:
        """Return whether to measure the call that begins now."""
        quiet = self._quiet
        return quiet < _ENOUGH or quiet % _EVERY == 0

    def saw(self, duration_ns: int, has_moved: bool) -> None:
        """Note how a call ended, measured or not.

        Args:
            duration_ns: How long it took.
            has_moved: Whether memory or I/O was other than 0, as far as it was measured.
        """
        if has_moved or duration_ns >= SHORT_NS:
            self._quiet = 0
        else:
            self._quiet += 1
