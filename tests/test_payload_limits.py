"""What is too deep, too many or too large is cut, and says so."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_debugstore.payload import Limits, capture, capture_arguments, describe
from otel_debugstore.payload.limits import limits_of_settings
from otel_debugstore.recording_settings import recording_settings
from payload_values import MASKER, VALUES, plain


def test_cycles_and_depth() -> None:
    """A container in itself is named by how far up it is; beyond the depth the kind is told."""
    cyclic: list[Any] = [1]
    cyclic.append({"again": cyclic})
    assert plain(cyclic) == [1, {"again": {"$cycle": 2}}]
    nested: Any = "x"
    for _ in range(100):
        nested = [nested]
    found, depth = plain(nested), 0
    while isinstance(found, list):
        found, depth = found[0], depth + 1
    assert (depth, found) == (20, {"$cut": {"kind": "list", "length": 1}})
    assert not capture(cyclic).replayable
    deep: Any = ()
    for _ in range(100_000):
        deep = (deep,)
    assert not capture(deep).replayable
    while deep:
        (deep,) = deep


@pytest.mark.parametrize(
    ("value", "cut"),
    [
        ("a" * 50_000, {"kind": "str", "length": 50_000, "head": "a" * 2048}),
        (b"a" * 50_000, {"kind": "bytes", "length": 50_000, "head": b"a" * 2048}),
        (bytearray(b"a" * 50_000), {"kind": "bytearray", "length": 50_000, "head": b"a" * 2048}),
        (list(range(5000)), {"kind": "list", "length": 5000, "head": list(range(32))}),
        ((0,) * 5000, {"kind": "tuple", "length": 5000, "head": [0] * 32}),
        (
            dict.fromkeys(range(5000)),
            {"kind": "dict", "length": 5000, "head": {"$map": [[n, None] for n in range(32)]}},
        ),
        (set(range(5000)), {"kind": "set", "length": 5000}),
        (1 << 1_000_000, {"kind": "int", "length": 1_000_001}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_too_large_keeps_its_head(value: Any, cut: dict[str, Any]) -> None:
    """With its kind and length."""
    assert plain(value) == {"$cut": cut}
    assert not capture(value).replayable


@given(VALUES, st.integers(0, 300), st.integers(0, 30), st.integers(0, 5))
def test_content_stays_within_the_limits(value: Any, max_bytes: int, max_items: int, max_depth: int) -> None:
    """Whatever they are: about `max_bytes`, and the marks of what was cut."""
    limits = Limits(max_bytes, max_bytes // 2, max_items, max_depth, head_text=8, head_items=2)
    many = [value] * 200
    assert len(capture(many, MASKER, limits).content) <= max_bytes + 1000


def test_many_small_and_many_large_values() -> None:
    """Thousands of small containers, texts that fit one by one and not together, one list many times."""
    shared = [["x" * 100] * 10]
    for value in (
        [(n,) for n in range(100_000)],
        ["y" * 30_000] * 100,
        [shared] * 4000,
        {str(n): {n} for n in range(4000)},
    ):
        kept = capture(value, MASKER)
        assert len(kept.content) < 80_000
        assert not kept.replayable


def test_limits_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is captured keeps within the caps that variables set."""
    for name, value in (("BYTES", "4KiB"), ("ITEMS", "40"), ("DEPTH", "2")):
        monkeypatch.setenv(f"OTEL_DEBUGSTORE_PAYLOAD_{name}", value)
    recording_settings.cache_clear()
    limits_of_settings.cache_clear()
    try:
        assert describe(capture([[[1]]]).content) == "[[<cut list of 1>]]"
        assert describe(capture(list(range(41))).content).startswith("<cut list of 41: [0, 1")
        assert len(capture(["x" * 1000] * 40).content) < 5000
        kept = capture_arguments(("a", "b"), ("x" * 3000, 1), {})
        assert describe(kept.content, 30) == "{'a': <cut str of 3000: 'xxxx…"
    finally:
        monkeypatch.undo()
        recording_settings.cache_clear()
        limits_of_settings.cache_clear()
