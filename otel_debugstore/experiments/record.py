"""`Record`: what is kept of an experiment, by all processes together.

Evidence belongs to code: the hash of the code that ran is part of its key, so a changed implementation starts anew, and
so does the comparison with a changed control. A stop belongs to the code that was stopped, too; one by hand to the arm.
Of each kind the evidence that was added to last is kept, 16 at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Self

from otel_debugstore.experiments.evidence import Pairs, Tally

VERSION: Final = 1
BY_HAND: Final = "hand"
MAX_KEYS: Final = 4096
"""Keys that are remembered to have counted."""
_MAX_KEPT: Final = 16


@dataclass(frozen=True, slots=True)
class Stop:
    """That an arm gets no calls any more.

    Attributes:
        by: The guard rail, or "hand".
        cause: One sentence.
        code: The hash of the code that was stopped; None for any.
        at_ns: When.
    """

    by: str
    cause: str
    code: str | None
    at_ns: int

    def applies_to(self, code: str) -> bool:
        """Return whether the arm is stopped that runs such code."""
        return self.code is None or self.code == code


@dataclass(slots=True)
class Record:
    """An experiment. Arms are known by their names, with their code as `arm_key` and `pair_key` have it.

    Attributes:
        control: The name of the arm that the others are compared with.
        codes: The hashes of the code of the arms, as who wrote last knew them.
        weights, rails, min_effect, is_keyed: What it was set up with by who wrote last.
        tallies, pairs: What was seen.
        stops: By arm.
        restarts: By arm how often its evidence was put aside; what a process saw before does not count then.
        keys: Hashes of keys that counted.
    """

    control: str = ""
    codes: dict[str, str] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    rails: dict[str, float] = field(default_factory=dict)
    min_effect: float = 0.0
    is_keyed: bool = False
    tallies: dict[str, Tally] = field(default_factory=dict)
    pairs: dict[str, Pairs] = field(default_factory=dict)
    stops: dict[str, Stop] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    keys: list[int] = field(default_factory=list)

    def tally(self, arm: str) -> Tally:
        """Return what was seen of an arm's present code."""
        return self.tallies.get(arm_key(arm, self.codes.get(arm, ""))) or Tally()

    def pairs_of(self, arm: str) -> Pairs:
        """Return what was seen of an arm's present code beside the control's."""
        key = pair_key(arm, self.codes.get(arm, ""), self.codes.get(self.control, ""))
        return self.pairs.get(key) or Pairs()

    def stop_of(self, arm: str) -> Stop | None:
        """Return why an arm's present code gets no calls; None if it does."""
        stop = self.stops.get(arm)
        return stop if stop is not None and stop.applies_to(self.codes.get(arm, "")) else None

    def add(self, key: str, tally: Tally) -> None:
        """Add what was seen of an arm since; `key` as of `arm_key`."""
        self.tallies.setdefault(key, Tally()).add(tally)
        self.tallies = _newest(self.tallies)

    def add_pairs(self, key: str, pairs: Pairs) -> None:
        """Add what was seen of an arm beside the control since; `key` as of `pair_key`."""
        self.pairs.setdefault(key, Pairs()).merge(pairs)
        self.pairs = _newest(self.pairs)

    def add_keys(self, keys: Iterable[int]) -> None:
        """Add keys that counted, as long as there is room for them."""
        self.keys = list(dict.fromkeys([*self.keys, *keys]))[:MAX_KEYS]

    def restart(self, arm: str) -> None:
        """Let an arm have calls again, and forget what was seen of it."""
        self.stops.pop(arm, None)
        self.restarts[arm] = self.restarts.get(arm, 0) + 1
        beginning = arm_key(arm, "")
        for found in (self.tallies, self.pairs):
            for key in [key for key in found if key.startswith(beginning)]:
                del found[key]

    def to_plain(self) -> dict[str, Any]:
        """Return it as values that can be kept."""
        return {
            "version": VERSION,
            "control": self.control,
            "codes": self.codes,
            "weights": self.weights,
            "rails": self.rails,
            "min_effect": self.min_effect,
            "is_keyed": self.is_keyed,
            "tallies": {key: tally.to_plain() for key, tally in self.tallies.items()},
            "pairs": {key: pairs.to_plain() for key, pairs in self.pairs.items()},
            "stops": {arm: asdict(stop) for arm, stop in self.stops.items()},
            "restarts": self.restarts,
            "keys": self.keys,
        }

    @classmethod
    def of(cls, plain: Mapping[str, Any] | None) -> Self:
        """Return what `to_plain` did; an empty one of None."""
        if not plain:
            return cls()
        if plain["version"] > VERSION:
            raise ValueError(f"it was written by a newer version (format {plain['version']})")
        return cls(
            control=plain["control"],
            codes=dict(plain["codes"]),
            weights=dict(plain["weights"]),
            rails=dict(plain["rails"]),
            min_effect=plain["min_effect"],
            is_keyed=plain["is_keyed"],
            tallies={key: Tally.of(tally) for key, tally in plain["tallies"].items()},
            pairs={key: Pairs.of(pairs) for key, pairs in plain["pairs"].items()},
            stops={arm: Stop(**stop) for arm, stop in plain["stops"].items()},
            restarts=dict(plain["restarts"]),
            keys=list(plain["keys"]),
        )


def arm_key(arm: str, code: str) -> str:
    """Return under which name the tally of an arm is kept."""
    return f"{arm}@{code}"


def pair_key(arm: str, code: str, control_code: str) -> str:
    """Return under which name the pairs of an arm and the control are kept."""
    return f"{arm}@{code}/{control_code}"


def _newest(found: dict[str, Any]) -> dict[str, Any]:
    if len(found) <= _MAX_KEPT:
        return found
    return dict(sorted(found.items(), key=lambda item: item[1].last_ns)[-_MAX_KEPT:])
