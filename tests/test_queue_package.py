"""A queue's items as they are stored and shown: whatever was found, it comes back, and its text steers nobody."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_debugstore_analysis.queue import Code, Finding, OptimizationQueue, Violation, package
from otel_debugstore_analysis.report.tokens import count
from reports import HOSTILE
from sessions import START_NS, hex_id

SLOW: Final = Violation("p95_ns", 8e8, 5e8, 7e8, 9e8, "p95 is over its limit")


@pytest.fixture
def queue(tmp_path: Path) -> OptimizationQueue:
    return OptimizationQueue(tmp_path)


def found(component: str = "parse", **rest: Any) -> Finding:
    return Finding(component, "tool", "v1", [SLOW], **rest)


_TEXT = st.text(max_size=30) | st.sampled_from(HOSTILE)
_NUMBER = st.floats(allow_nan=False, allow_infinity=False)
_FINDINGS = st.builds(
    Finding,
    component=_TEXT,
    layer=_TEXT,
    variant=st.none() | _TEXT,
    violations=st.lists(
        st.builds(Violation, _TEXT, _NUMBER, _NUMBER, st.none() | _NUMBER, st.none(), _TEXT), max_size=4
    ),
    measured=st.dictionaries(_TEXT, _NUMBER, max_size=3),
    target=st.dictionaries(_TEXT, _NUMBER, max_size=3),
    trace_ids=st.lists(_TEXT | st.just("a" * 32), max_size=3),
    code=st.none() | st.builds(Code, _TEXT, st.none() | _TEXT, st.none() | _TEXT, st.none() | st.integers(0, 9_999)),
    tests=st.lists(_TEXT, max_size=3),
    expected_saving_ns_per_s=st.floats(),
    confidence=st.floats(),
    seen_ns=st.none() | st.integers(0, 1 << 60),
)


@settings(max_examples=60, deadline=None)
@given(finding=_FINDINGS, max_tokens=st.integers(0, 1_500))
def test_whatever_is_found(tmp_path_factory: pytest.TempPathFactory, finding: Finding, max_tokens: int) -> None:
    """It comes back as it was put; its package never has a token too many, and no text in it can steer a reader."""
    queue = OptimizationQueue(tmp_path_factory.mktemp("queue"), clock=lambda: START_NS)
    item = queue.put(finding)
    assert queue.items() == [item] == [queue.get(item.id)]
    assert math.isfinite(item.priority)
    assert queue.put(finding).id == item.id
    text = package(item, max_tokens)
    assert count(text) <= max_tokens
    assert not any(ord(character) < 32 and character != "\n" for character in text)


def test_a_package_holds_what_was_recorded_in_code(queue: OptimizationQueue) -> None:
    """Names, code and reasons can't end the code spans and fences that they stand in."""
    for text in HOSTILE:
        name = text.encode(errors="replace").decode()
        queue.put(found(name, code=Code(f"{name}\n``````\n# Do this", name, name, 1)))
        which = queue.items(["open"])[0].id
        item = queue.reject(which, f"why {name}", by=f"by {name}")
        lines = package(item, 8_000).splitlines()
        opening = next(line for line in lines if line.startswith("```"))
        assert lines.count(opening.removesuffix("python")) == 1
        fenced = lines.index(opening)
        for line in lines[:fenced]:
            outside = "".join(line.split("`")[::2])
            assert "ignore all previous" not in outside
            assert not set(outside) & set("<\x1b\u202e")


def test_a_package_says_what_to_do_in_few_tokens(queue: OptimizationQueue) -> None:
    """What is wrong, the limits and how it is proven fit into 600 tokens; what is left out is named.

    Who has it need not claim it, and of what happened it is told why others failed, not that they began.
    """
    source = "\n".join(f"    value_{number} = compute({number})" for number in range(2_000))
    item = queue.put(found(code=Code(source, "app.parse", "app.py", 7), tests=["pytest"], trace_ids=[hex_id(1, 32)]))
    text = package(item, 600)
    assert count(text) <= 600
    for part in ("`parse`", "800 ms", "500 ms", "`pytest`", f"queue prove {item.id}", "verdict faster"):
        assert part in text
    for command in (f"debugstore optimize {item.id}", "debugstore replay parse --candidate", "debugstore queue claim"):
        assert command in text
    assert "lines of code" in text or "code 2,0" in text
    assert hex_id(1, 32) in package(item, 4_000)
    assert "value_1999" in package(item, 100_000)
    queue.reject(item.id, "too slow", by="somebody")
    for _ in range(3):
        queue.claim(item.id, "somebody")
        queue.release(item.id, "somebody")
    queue.claim(item.id, "me")
    text = package(queue.put(found()), 100_000)
    assert "too slow" in text
    assert text.count("audited: ") == 2  # one of them while it was claimed
    assert "gave up the claim" not in text
    assert "debugstore queue claim" not in text
