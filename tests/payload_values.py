"""Values of all kinds that come back whole, and what was captured of a value, for the tests of payloads."""

from __future__ import annotations

import datetime
import math
import pathlib
from collections import OrderedDict, deque
from typing import Any

import msgpack
import numpy as np
from hypothesis import strategies as st

from captured import Color, Job, Level, Model, Point
from otel_debugstore.masking import Masker
from otel_debugstore.payload import Limits, capture

MASKER = Masker()


def plain(value: Any, limits: Limits | None = None) -> Any:
    """What was captured, as MessagePack holds it."""
    return msgpack.unpackb(capture(value, MASKER, limits or Limits()).content)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, of the same types, with NaN equal to NaN and dicts in the same order."""
    if type(one) is not type(other):
        return False
    if isinstance(one, float):
        return (one == other and math.copysign(1, one) == math.copysign(1, other)) or (one != one and other != other)
    if isinstance(one, complex):
        return same(one.real, other.real) and same(one.imag, other.imag)
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.ndarray):
        return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
    return bool(one == other)


_TEXTS = st.text(st.characters(), max_size=10) | st.sampled_from(["$tuple", "$", "password"])


_HASHABLE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | _TEXTS
    | st.binary(max_size=10)
    | st.dates()
    | st.uuids()
    | st.sampled_from([Color.RED, Level.LOW, ..., pathlib.PurePosixPath("a/b"), pathlib.Path("/x")])
)


_LEAVES = (
    _HASHABLE
    | st.floats()
    | st.complex_numbers()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.timedeltas()
    | st.datetimes(timezones=st.none() | st.just(datetime.UTC) | st.timezones(), allow_imaginary=True)
    | st.times(timezones=st.none() | st.just(datetime.UTC))
    | st.ip_addresses()
    | st.binary(max_size=9).map(bytearray)
    | st.builds(range, st.integers(), st.integers(), st.integers(min_value=1))
    | st.builds(slice, st.none() | st.integers(), st.integers())
    | st.builds(Point, st.integers(), st.floats(allow_nan=False))
    | st.builds(Model, a=st.integers(), b=st.lists(st.text(max_size=3), max_size=2))
)


VALUES = st.recursive(
    _LEAVES,
    lambda items: (
        st.lists(items, max_size=4)
        | st.lists(items, max_size=4).map(tuple)
        | st.dictionaries(_HASHABLE, items, max_size=4)
        | st.dictionaries(_TEXTS, items, max_size=4).map(OrderedDict)
        | st.sets(_HASHABLE, max_size=4)
        | st.frozensets(_HASHABLE, max_size=4)
        | st.lists(items, max_size=3).map(lambda found: deque(found, 3))
        | st.builds(Job, st.text(max_size=4), st.lists(st.text(max_size=3), max_size=2))
    ),
    max_leaves=12,
)


class NoMasker(Masker):
    """Masks nothing."""

    def may_hold_secret_bytes(self, data: bytes) -> bool:
        return False
