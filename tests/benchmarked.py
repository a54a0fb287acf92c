"""Functions that tests measure: processes that measure import them from here."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from otel_debugstore import function as recorded

_calls: list[int] = []


def total(numbers: list[int]) -> int:
    """Return the sum."""
    return sum(numbers)


def slow_total(numbers: list[int]) -> int:
    """Return the sum, some ten times slower."""
    result = 0
    for _ in range(3):
        result = 0
        for number in numbers:
            result += number
    return result


def wrong_total(numbers: list[int]) -> int:
    """Return a sum that lacks the last number."""
    return sum(numbers[:-1])


def wrong_later(numbers: list[int]) -> int:
    """Return the right sum, the first five times."""
    _calls.append(1)
    return sum(numbers) + (len(_calls) > 5)


def raises(numbers: list[int]) -> int:
    """Raise."""
    raise ValueError(f"can't add {len(numbers)} numbers")


def raises_too(numbers: list[int]) -> int:
    """Raise the same type of exception, with another text."""
    raise ValueError("no")


def hangs(numbers: list[int]) -> int:
    """Never return."""
    while True:
        time.sleep(60)


def exits(numbers: list[int]) -> int:
    """End the program."""
    sys.exit(3)


def ends_its_process(numbers: list[int]) -> int:
    """End the process at once."""
    os._exit(5)


def prints(numbers: list[int]) -> int:
    """Print, and return the sum."""
    print("adding", numbers)
    return sum(numbers)


def float_total(numbers: list[int]) -> Any:
    """Return the sum, as a float."""
    return float(sum(numbers))


def writes_to_what_is_open(numbers: list[int]) -> int:
    """Write what looks like an answer into descriptors that were there before."""
    for descriptor in range(3, 40):
        with contextlib.suppress(OSError):
            os.write(descriptor, b'{"rounds": [], "notes": [], "loops": [], "round_ns": 1}\n')
    return sum(numbers)


def forks(numbers: list[int]) -> int:
    """Return twice: from the process that is asked, and from a fork of it."""
    os.fork()
    return sum(numbers)


def leaves_running(numbers: list[int]) -> int:
    """Have a program hang in a session of its own, without a parent and the environment; it says which it is."""
    left = os.environ["LEFT"]
    subprocess.run(
        ["sh", "-c", f"env -i setsid sh -c 'echo $$ >> {left}; exec sleep 600' > /dev/null 2>&1 &"], check=True
    )
    while not Path(left).read_text():
        time.sleep(0.01)
    return sum(numbers)


def leaves_running_and_ends(numbers: list[int]) -> int:
    """Do so, and end the process."""
    leaves_running(numbers)
    os._exit(5)


def sorts(numbers: list[int]) -> list[int]:
    """Return the list, sorted in place."""
    numbers.sort()
    return numbers


def sorts_too(numbers: list[int]) -> list[int]:
    """Do as `sorts`."""
    numbers.sort(key=None)
    return numbers


def sorted_copy(numbers: list[int]) -> list[int]:
    """Return a sorted copy."""
    return sorted(numbers)


def items(numbers: list[int]) -> Iterator[int]:
    """Yield the numbers."""
    yield from numbers


def opaque(numbers: list[int]) -> object:
    """Return something of which nothing can be said."""
    return object()


async def coroutine(numbers: list[int]) -> int:
    """Return the sum to whoever waits for it."""
    return sum(numbers)


def random_number(numbers: list[int]) -> bytes:
    """Return something else each time."""
    return os.urandom(8)


@recorded
def recorded_total(numbers: list[int]) -> int:
    """Return the sum; calls are recorded."""
    return sum(numbers)


def warm(numbers: list[int]) -> int:
    """Return the sum: slowly, for the first calls."""
    _calls.append(1)
    if len(_calls) < 12:
        time.sleep(0.004)
    return sum(numbers)


def millisecond() -> int:
    """Return a checksum after about a millisecond."""
    result = 0
    for number in range(12_000):
        result = (result * 31 + number) & 0xFFFF
    return result


def doubled_length(text: str) -> int:
    """Return twice the length."""
    return 2 * len(text)


def inputs() -> list[tuple[Any, ...]]:
    """Return inputs for `total`."""
    return [([1, 2, 3],), ([4],)]


def made(data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the input that some bytes stand for."""
    return (list(data),), {}


def same_parity(one: int, other: int) -> bool:
    """Return whether both are even or both are odd."""
    return one % 2 == other % 2


def fail_setup() -> None:
    """Raise."""
    raise RuntimeError("no database")
