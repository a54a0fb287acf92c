"""`Thrift`: of a component whose calls move nothing, only some are measured.

Reading memory and I/O costs 12 us in a busy loop, and ten times as much after milliseconds of other work, when the
kernel's code for it is in no cache any more. A component is measured at every call until 32 calls in a row took less
than 20 ms and moved nothing: then at every eighth, after 28 of those at every 32nd, and at every one again when
a call took longer or one that was measured moved something. What is not measured is not known: None, never 0.
Threads: any; a count that is off by a few does no harm.
"""

from __future__ import annotations

from typing import Final

SHORT_NS: Final = 20_000_000
"""Shorter calls have no peak by sampling either; of longer ones the cost is no matter."""

NOISE_BYTES: Final = 256 << 10
"""Resident memory moves by less all the time, whatever a call does."""

_ENOUGH: Final = 32
_EVERY: Final = 8
_MANY: Final = 60
_EVERY_OF_MANY: Final = 32


class Thrift:
    """Decides for one component."""

    __slots__ = ("_quiet", "skip")

    def __init__(self) -> None:
        self._quiet = 0  # calls that were measured since one was long or moved something
        self.skip = 0
        """How many calls are not measured before the next one that is. Who ends a short one of them may lower it
        itself, instead of calling `saw`.
        """

    @property
    def is_sure(self) -> bool:
        """Whether all of the last calls were short and moved nothing, so that the next one is taken for such a one."""
        return self._quiet >= _ENOUGH

    def saw(self, duration_ns: int, has_moved: bool) -> None:
        """Note how a call ended, measured or not.

        Args:
            duration_ns: How long it took.
            has_moved: Whether it read or wrote, or memory moved by `NOISE_BYTES`, as far as that was measured.
        """
        if has_moved or duration_ns >= SHORT_NS:
            self._quiet = self.skip = 0
        elif self.skip > 0:
            self.skip -= 1
        else:
            self._quiet += 1
            if self._quiet >= _ENOUGH:
                self.skip = (_EVERY if self._quiet < _MANY else _EVERY_OF_MANY) - 1
