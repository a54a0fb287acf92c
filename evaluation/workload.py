"""Functions of which it is known how much slower they are: what `benchmarks` evaluates with.

They run in processes of their own, so this module imports nothing. `work` and `same` are equal; `more_5` and `more_10`
do the same work, and 5 or 10 % of it again.
"""

from __future__ import annotations


def work(count: int) -> int:
    """Return a checksum of `count` numbers."""
    total = 0
    for number in range(count):
        total = (total * 31 + number) & 0xFFFF
    return total


def same(count: int) -> int:
    """Return what `work` returns, in the same way."""
    total = 0
    for number in range(count):
        total = (total * 31 + number) & 0xFFFF
    return total


def more_5(count: int) -> int:
    """Return what `work` returns, after 5 % more work."""
    return _more(count, count // 20)


def more_10(count: int) -> int:
    """Return what `work` returns, after 10 % more work."""
    return _more(count, count // 10)


def _more(count: int, extra: int) -> int:
    total = spare = 0
    for number in range(count):
        total = (total * 31 + number) & 0xFFFF
    for number in range(extra):
        spare = (spare * 31 + number) & 0xFFFF
    return total
