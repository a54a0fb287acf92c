"""What is so of all groups together, and what that makes of each: its rate, and its share of all self time.

Windows over an aggregate of percentiles take a fifth of the query's time, so that this is done with the rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

FLAGS: Final = ("first_ns", "last_ns", "cut_count", "weighted")
"""Columns at the end of rows of groups that say something of the whole."""
_NS: Final = 1e9


class Whole(NamedTuple):
    """What is so of all groups together."""

    self_ns: int | None
    first_ns: int | None
    last_ns: int | None
    cut_count: int
    groups: int
    is_weighted: bool

    @staticmethod
    def of(rows: Sequence[tuple[Any, ...]], width: int) -> Whole:
        """Return what all rows make; they begin with so many columns that they are grouped by."""
        self_ns = [row[width + 2] for row in rows if row[width + 2] is not None]
        first_ns = min((row[-4] for row in rows if row[-4] is not None), default=None)
        last_ns = max((row[-3] for row in rows if row[-3] is not None), default=None)
        is_weighted = any(row[-1] for row in rows)
        return Whole(sum(self_ns) or None, first_ns, last_ns, sum(row[-2] for row in rows), len(rows), is_weighted)

    def completed(self, row: tuple[Any, ...], width: int, *, has_rate: bool) -> tuple[Any, ...]:
        """Return a row with rate and share, and without flags."""
        count, total_ns, self_ns = row[width : width + 3]
        known = self.first_ns is not None and self.last_ns is not None
        seconds = (self.last_ns - self.first_ns) / _NS if known else 0  # type: ignore[operator]
        rate = ((count / seconds if seconds else None),) if has_rate else ()
        share = self_ns / self.self_ns if self_ns is not None and self.self_ns else None
        return (*row[:width], count, *rate, total_ns, self_ns, share, *row[width + 3 : -len(FLAGS)])
