"""What was seen of an experiment, in few numbers that add up over processes: `Tally` of an arm, `Pairs` of two.

A pair is a call of the control and one of another arm, side by side in random order; its value is the logarithm of the
ratio of their durations. Values are kept as means of blocks of equally many: when there are 512, neighbours are joined
and a block is twice as large. `sequence` is what they say by now. The share of wrong answers that may be given is spent
on these sizes of blocks, one after the other, so that it holds at all looks, at all sizes together.

Threads: one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

from otel_debugstore.sequential import ConfidenceSequence

MAX_VALUES: Final = 512
_FIRST_SHARE: Final = 0.8
"""Of the error that may be made, so much is spent on the first block size, where the most is decided."""


@dataclass(slots=True)
class Tally:
    """Calls of an arm.

    Attributes:
        call_count, error_count: All of them, and those that failed.
        unit_count, failed_count, slow_count: Of those that count as evidence: how many, how many of these failed, and
            how many took longer than the guard rail. A key counts once in a while.
        last_ns: When the last one was taken down.
    """

    call_count: int = 0
    error_count: int = 0
    unit_count: int = 0
    failed_count: int = 0
    slow_count: int = 0
    last_ns: int = 0

    def add(self, other: Tally) -> None:
        """Add what another process, or another second, has seen."""
        for field in fields(self):
            if field.name != "last_ns":
                setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))
        self.last_ns = max(self.last_ns, other.last_ns)

    def to_plain(self) -> dict[str, int]:
        """Return it as values that can be kept."""
        return asdict(self)

    @classmethod
    def of(cls, plain: Mapping[str, Any] | None) -> Self:
        """Return what `to_plain` did."""
        return cls(**{field.name: int((plain or {}).get(field.name, 0)) for field in fields(cls)})


class Pairs:
    """Log-ratios of pairs; see the module's first lines.

    Attributes:
        level: A block is 2 to the power of this many pairs.
        values: The means of the blocks that are full, in their order.
        last_ns: When the last one was taken down.
    """

    __slots__ = ("_open_count", "_open_sum", "last_ns", "level", "values")

    def __init__(self, level: int = 0) -> None:
        self.level = level
        self.values: list[float] = []
        self.last_ns = 0
        self._open_sum = 0.0
        self._open_count = 0

    def __bool__(self) -> bool:
        return bool(self.values or self._open_count)

    @property
    def count(self) -> int:
        """About how many pairs there were."""
        return (len(self.values) << self.level) + self._open_count

    def add(self, log_ratio: float) -> None:
        """Take one pair."""
        if self.level or self._open_count or len(self.values) >= MAX_VALUES - 1:
            self._put(log_ratio, 1)
        else:
            self.values.append(log_ratio)

    def merge(self, other: Pairs) -> None:
        """Take the pairs of another process, or of another second, as coming after these."""
        while self.level < other.level:
            self._coarsen()
        for value in other.values:
            self._put(value * (1 << other.level), 1 << other.level)
        self._put(other._open_sum, other._open_count)
        self.last_ns = max(self.last_ns, other.last_ns)

    def copy(self) -> Pairs:
        """Return the same pairs, to go on with."""
        return Pairs.of(self.to_plain())

    def sequence(self, alpha: float) -> ConfidenceSequence:
        """Return what the pairs say, such that at most a share `alpha` of all experiments is ever told wrong."""
        spent = _FIRST_SHARE if not self.level else (1 - _FIRST_SHARE) / (self.level * (self.level + 1))
        return ConfidenceSequence.of(self.values, confidence=1 - alpha * spent)

    def to_plain(self) -> dict[str, Any]:
        """Return it as values that can be kept."""
        return {
            "level": self.level,
            "values": list(self.values),
            "open": [self._open_sum, self._open_count],
            "last_ns": self.last_ns,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any] | None) -> Pairs:
        """Return what `to_plain` did."""
        found = cls()
        if plain:
            found.level, found.last_ns = int(plain["level"]), int(plain["last_ns"])
            found.values = [float(value) for value in plain["values"]]
            found._open_sum, found._open_count = float(plain["open"][0]), int(plain["open"][1])
        return found

    def _put(self, total: float, count: int) -> None:
        self._open_sum += total
        self._open_count += count
        if self._open_count >= 1 << self.level:
            self.values.append(self._open_sum / self._open_count)
            self._open_sum, self._open_count = 0.0, 0
            if len(self.values) >= MAX_VALUES:
                self._coarsen()

    def _coarsen(self) -> None:
        """Join neighbours; one without a neighbour is the beginning of the next block."""
        size = 1 << self.level
        values = self.values
        if len(values) % 2:
            self._open_sum += values[-1] * size
            self._open_count += size
        self.values = [(one + other) / 2 for one, other in zip(values[::2], values[1::2], strict=False)]
        self.level += 1
