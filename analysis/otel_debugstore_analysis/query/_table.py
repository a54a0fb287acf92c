"""`Table`: what an analysis answers, bounded, with the number of rows it left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under named columns; the names carry the units (`_ns`, `_bytes`, `_share`, `_rate`).

    Attributes:
        columns: Names, in order.
        rows: Values; None where there is none.
        left_out: How many further rows there are that a limit cut off; None when that was not counted.
        notes: What has to be known of the values, such as that some are estimated; a sentence each.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    left_out: int | None = 0
    notes: tuple[str, ...] = ()

    def dicts(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]
