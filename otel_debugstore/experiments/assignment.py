"""Which arm a call goes to: by chance in pairs, or by a key.

By chance: calls are taken two by two. Two calls that stand side by side are either of the same arm, or they are a pair:
one of the control and one of another arm, in an order that a coin decides. So whatever else makes calls slow or fail
(load, caches, the hour, calls that depend on each other) meets both sides of a pair alike, and for two equal arms the
log-ratio of a pair is symmetric about 0, given all that was before: random permuted blocks of two, as clinical trials
have them, and the justification by the design alone (Fisher 1935; Ham, Bojinov, Lindon and Tingley 2022, "Design-based
confidence sequences").

By a key: a hash of the experiment's name and the key is a point between 0 and 1; arms have their shares of it. It is
the same in every process, on every machine. When weights change only keys move that have to. As hashes know nothing of
each other, two new keys, one after the other, of which one went to the control and one to another arm, are a pair, too.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Final

from otel_debugstore.digest import blake2b

Key = str | bytes | int
_HASH_BYTES: Final = 8
_HASHES: Final = 1 << (8 * _HASH_BYTES)


def hash_of(name: str, key: Key) -> int:
    """Return 64 bits that stand for a key in an experiment.

    Raises:
        TypeError: The key is no text, bytes or whole number: others may look different in every process.
    """
    if isinstance(key, str):
        data = b"s" + key.encode("utf-8", "surrogatepass")
    elif isinstance(key, int):
        data = b"i%d" % key
    elif isinstance(key, bytes):
        data = b"b" + key
    else:
        raise TypeError(f"a key has to be a str, bytes or int, and not {type(key).__qualname__}")
    salt = name.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(b"%d:%b%b" % (len(salt), salt, data), digest_size=_HASH_BYTES).digest())


class Shares:
    """What share of the calls goes to which arm; arms are numbered, and 0 is the control.

    Args:
        weights: By arm.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        total = sum(weights)
        shares = [weight / total for weight in weights]
        others = list(range(1, len(shares)))
        self._ends = list(accumulate(shares[1:]))  # what lies beyond belongs to the control
        control, rest = shares[0], sum(shares[1:])
        # Of two neighbouring calls: a pair of the control and `arm`, both of `arm`, or both of the control.
        paired = [2 * share * min(1.0, control / rest) if rest else 0.0 for share in shares[1:]]
        alone = [share - pair / 2 for share, pair in zip(shares[1:], paired, strict=True)]
        self._kinds = [*[(0, arm) for arm in others], *[(arm, arm) for arm in others], (0, 0)]
        self._kind_ends = list(accumulate([*paired, *alone]))

    def of_hash(self, number: int) -> int:
        """Return the arm of a key's hash."""
        found = bisect(self._ends, number / _HASHES)
        return found + 1 if found < len(self._ends) else 0

    def of_two(self, random: Callable[[], float]) -> tuple[int, int]:
        """Return the arms of two neighbouring calls."""
        found = bisect(self._kind_ends, random())
        one, other = self._kinds[min(found, len(self._kinds) - 1)]
        return (one, other) if one == other or random() < 0.5 else (other, one)
