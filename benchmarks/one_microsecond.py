"""A function of about a microsecond; as a program, it is measured by pyperf, whose options are the arguments."""

from __future__ import annotations

from typing import Final

NUMBERS: Final = list(range(120))


def work(numbers: list[int]) -> int:
    """Return the sum."""
    return sum(numbers)


if __name__ == "__main__":
    import pyperf

    pyperf.Runner().bench_func("work", work, NUMBERS)
