"""`Draws`: which arm the next call goes to, and what it is a half of.

Capacity: 16,384 keys are remembered; of more the older half is forgotten, and such a key may count again.
Threads: any; no locks. Two threads may draw the two calls of a pair.
Fork: a child draws by a coin of its own, and does not go on with its parent's pairs.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Sequence
from random import Random
from typing import Final

from otel_debugstore.experiments.arm import Slot
from otel_debugstore.experiments.assignment import Key, Shares, hash_of
from otel_debugstore.experiments.record import MAX_KEYS

_MAX_KNOWN: Final = 16_384
_WINDOW_CALLS: Final = 64
"""Of one key, guard rails count one call among so many."""


class Draws:
    """See the module's first lines. Arms are numbered; 0 is the control."""

    def __init__(self, name: str) -> None:
        """Make what draws for the experiment `name`; before it is weighed, only the control is drawn."""
        self._name = name
        self._known: dict[Key, int] = {}  # keys, and the numbers of their arms
        self._counted: set[int] = set()  # hashes of keys that others have counted
        self.after_fork_in_child()
        self.weigh((1.0,))

    def after_fork_in_child(self) -> None:
        """Begin new pairs."""
        self._random = Random(os.urandom(16)).random  # not the program's generator, nor the parent's
        self._halves: deque[tuple[int, Slot | None]] = deque()  # second calls of two
        self._open: deque[Slot] = deque()  # slots that wait for a second key
        self._window: dict[Key, None] = {}
        self._window_calls = 0
        self._new_keys: list[int] = []

    def weigh(self, weights: Sequence[float]) -> None:
        """Draw by other weights from now on."""
        self._shares = Shares(weights if any(weights) else [1.0, *weights[1:]])
        self._halves.clear()
        self._known = {}

    def by_chance(self) -> tuple[int, Slot | None]:
        """Return the arm of a call, and the slot it shares with another one; None if it stands alone."""
        try:
            if self._halves:
                return self._halves.pop()
        except IndexError:  # another thread was faster
            pass
        one, other = self._shares.of_two(self._random)
        slot = Slot() if one != other else None
        self._halves.append((other, slot))
        return one, slot

    def by_key(self, key: Key) -> tuple[int, Slot | None]:
        """Return the arm of a key, and for the first call of a key the slot it shares with that of another one.

        Raises:
            TypeError: The key can't be one.
        """
        known = self._known.get(key)
        if known is not None:
            return known, None
        number = hash_of(self._name, key)
        arm = self._shares.of_hash(number)
        if len(self._known) >= _MAX_KNOWN:
            self._known = dict(list(self._known.items())[_MAX_KNOWN // 2 :])
        self._known[key] = arm
        if number in self._counted:
            return arm, None
        if len(self._counted) < MAX_KEYS:
            self._counted.add(number)
            self._new_keys.append(number)
        try:
            return arm, self._open.pop()
        except IndexError:
            slot = Slot()
            self._open.append(slot)
            return arm, slot

    def counts(self, key: Key) -> bool:
        """Return whether guard rails count this call: one key is not to decide alone."""
        self._window_calls += 1
        if self._window_calls > _WINDOW_CALLS:
            self._window, self._window_calls = {}, 1
        if key in self._window:
            return False
        self._window[key] = None
        return True

    def take_keys(self) -> list[int]:
        """Return the hashes of keys that counted since the last time."""
        keys, self._new_keys = self._new_keys, []
        return keys

    def put_back_keys(self, keys: list[int]) -> None:
        """Return them the next time, too."""
        self._new_keys = [*keys, *self._new_keys]

    def learn_keys(self, keys: Iterable[int]) -> None:
        """Have keys count no more that others have counted."""
        self._counted.update(keys)
