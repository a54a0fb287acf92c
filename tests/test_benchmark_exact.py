"""`exact`: instructions are counted instead of time."""

from __future__ import annotations

import shutil

import pytest

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.benchmark import BenchmarkOptions, Case, compare_functions

EXACT = BenchmarkOptions(exact=True)
NUMBERS = [Case("numbers", (list(range(500)),))]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_instructions_are_counted() -> None:
    """A slower function takes more of them, an equal one takes as many, and a wrong one is wrong."""
    slower = compare_functions("benchmarked:total", "benchmarked:slow_total", NUMBERS, options=EXACT)
    assert (slower.verdict, slower.unit) == ("slower", "instructions"), slower.cause
    assert slower.ratio > 3
    assert slower.checked == 2
    equal = compare_functions("benchmarked:total", "benchmarked:total", NUMBERS, options=EXACT)
    assert equal.verdict == "equal", equal.cause
    assert abs(equal.ratio - 1) < 0.005
    wrong = compare_functions("benchmarked:total", "benchmarked:wrong_total", NUMBERS, options=EXACT)
    assert (wrong.verdict, wrong.failed_side) == ("wrong", "candidate")


@pytest.mark.skipif(shutil.which("valgrind") is None, reason="valgrind is not installed")
def test_what_cannot_be_counted() -> None:
    """Functions that change their input, and such that only a fork has."""
    found = compare_functions("benchmarked:sorts", "benchmarked:sorts_too", [Case("a", ([2, 1],))], options=EXACT)
    assert found.verdict == "failed"
    assert "change their input" in found.cause
    with pytest.raises(ConfigurationError, match="importable by name"):
        compare_functions(lambda numbers: sum(numbers), "benchmarked:total", NUMBERS, options=EXACT)


def test_without_valgrind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigurationError, match="apt install valgrind"):
        compare_functions("benchmarked:total", "benchmarked:total", NUMBERS, options=EXACT)
