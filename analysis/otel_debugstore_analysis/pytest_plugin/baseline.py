"""Baselines: what tests did in earlier runs, and whether they do more, or take longer, now.

The unit is the run. Of each test a baseline keeps the durations of up to 20 runs in which it passed, and of each
component the least and the most calls and failed calls. What a run does with calls is exact: more than ever before is
more. Durations are compared with how much earlier runs differ from each other: the logarithm of the new one lies
outside of where one more of the same normal distribution would (a prediction interval: Hahn and Meeker 1991,
"Statistical Intervals", 4.7), corrected for the number of tests (Benjamini and Hochberg 1995), and by 10 % at least.
With fewer than five runs nothing is said of durations.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from otel_debugstore.errors import FormatVersionError
from otel_debugstore_exporters.state import State

VERSION: Final = 1
MIN_RUNS: Final = 5
MAX_RUNS: Final = 20
MIN_EFFECT: Final = 0.10
SIGNIFICANT: Final = 0.05
_LEAST_SIGMA: Final = 0.01
"""Of the logarithms of durations: runs that differ by less did so by luck."""
_TABLE: Final = "test_baselines"

Results = Mapping[str, Mapping[str, Any]]
"""By test what it did in this run: see `RecordedTest.result`."""


class Change(NamedTuple):
    """A count of this run that is not among those of the baseline's runs."""

    test: str
    what: str
    component: str
    least: int
    most: int
    now: int


class Timing(NamedTuple):
    """A test that takes another time than in the baseline's runs."""

    test: str
    verdict: str
    median_ns: float
    now_ns: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A run against a baseline.

    Attributes:
        run_count: The most runs that the baseline has of a test.
        timings: Tests that are slower, or faster.
        changes: Counts that are other than before.
        equal_count: Tests of which nothing is different.
        undecided_count: Tests of which the baseline has fewer than five runs, and nothing is different.
        new_count: Tests that the baseline does not know.
    """

    run_count: int
    timings: list[Timing] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    equal_count: int = 0
    undecided_count: int = 0
    new_count: int = 0

    @property
    def is_worse(self) -> bool:
        """Whether a test is slower, calls more, or more of its calls fail."""
        return any(one.verdict == "slower" for one in self.timings) or any(one.now > one.most for one in self.changes)


def compare(baseline: Mapping[str, Any], results: Results) -> Comparison:
    """Return what is different in a run.

    Args:
        baseline: What `load` returned.
        results: The tests that passed.
    """
    known = {test: baseline["tests"][test] for test in results if test in baseline["tests"]}
    timings = _timings(known, results)
    changes = [change for test, before in known.items() for change in _changes(test, before, results[test])]
    same = set(known) - {one.test for one in timings} - {one.test for one in changes}
    undecided = {test for test in same if len(known[test]["durations_ns"]) < MIN_RUNS}
    return Comparison(
        run_count=max((len(before["durations_ns"]) for before in known.values()), default=0),
        timings=timings,
        changes=changes,
        equal_count=len(same) - len(undecided),
        undecided_count=len(undecided),
        new_count=len(results) - len(known),
    )


def load(base_path: str | os.PathLike[str], name: str) -> dict[str, Any] | None:
    """Return a baseline; None if there is none of that name.

    Raises:
        FormatVersionError: A newer version wrote it.
        StateError, CorruptDataError: It can't be read.
    """
    return _checked(name, State(base_path).get(_TABLE, name))


def save(base_path: str | os.PathLike[str], name: str, results: Results) -> int:
    """Add a run to a baseline, and return how many runs it has at most of a test.

    Args:
        base_path: Where sessions lie.
        name: The baseline.
        results: The tests that passed.

    Raises:
        FormatVersionError, StateError, CorruptDataError: As `load`, or it can't be written.
    """

    def add(found: Any) -> dict[str, Any]:
        baseline = _checked(name, found) or {"version": VERSION, "tests": {}}
        for test, result in results.items():
            baseline["tests"][test] = _added(baseline["tests"].get(test), result)
        return baseline | {"saved_ns": time.time_ns()}

    saved = State(base_path).update(_TABLE, name, add)
    return max((len(test["durations_ns"]) for test in saved["tests"].values()), default=0)


def _checked(name: str, found: Any) -> dict[str, Any] | None:
    if found is not None and found.get("version", 0) > VERSION:
        raise FormatVersionError(f"Baseline {name!r} was written by a newer version; install that one to read it.")
    return found  # type: ignore[no-any-return]


def _added(before: dict[str, Any] | None, result: Mapping[str, Any]) -> dict[str, Any]:
    durations = [*(before["durations_ns"] if before else ()), result["duration_ns"]][-MAX_RUNS:]
    ranges = {
        what: {
            component: _wider((before or {}).get(what, {}).get(component, None if before is None else [0, 0]), count)
            for component, count in _counts(result[what], (before or {}).get(what, {})).items()
        }
        for what in ("calls", "errors")
    }
    return {"durations_ns": durations, **ranges}


def _wider(before: list[int] | None, count: int) -> list[int]:
    return [count, count] if before is None else [min(before[0], count), max(before[1], count)]


def _counts(now: Mapping[str, int], before: Mapping[str, Any]) -> dict[str, int]:
    """Return the counts of this run, 0 of what only the baseline has."""
    return {component: now.get(component, 0) for component in dict.fromkeys([*before, *now])}


def _changes(test: str, before: Mapping[str, Any], result: Mapping[str, Any]) -> list[Change]:
    found = []
    for what in ("calls", "errors"):
        for component, now in _counts(result[what], before[what]).items():
            least, most = before[what].get(component, (0, 0))
            if not least <= now <= most:
                found.append(Change(test, what, component, least, most, now))
    return found


def _timings(known: Mapping[str, Any], results: Results) -> list[Timing]:
    tests = [test for test, before in known.items() if len(before["durations_ns"]) >= MIN_RUNS]
    if not tests:
        return []
    import numpy as np  # takes 0.1 s: where there is something to compare
    from scipy.special import stdtr

    from otel_debugstore_analysis.analyses.statistics import benjamini_hochberg

    p_values, medians = [], []
    for test in tests:
        earlier = np.log(np.maximum(np.array(known[test]["durations_ns"], dtype=float), 1.0))
        sigma = max(float(earlier.std(ddof=1)), _LEAST_SIGMA)
        distance = abs(np.log(max(results[test]["duration_ns"], 1)) - earlier.mean())
        t = distance / (sigma * np.sqrt(1 + 1 / len(earlier)))
        p_values.append(2 * float(stdtr(len(earlier) - 1, -t)))
        medians.append(float(np.median(known[test]["durations_ns"])))
    found = []
    for test, q_value, median_ns in zip(tests, benjamini_hochberg(p_values), medians, strict=True):
        now_ns = results[test]["duration_ns"]
        if q_value <= SIGNIFICANT and not 1 / (1 + MIN_EFFECT) < now_ns / median_ns < 1 + MIN_EFFECT:
            found.append(Timing(test, "slower" if now_ns > median_ns else "faster", median_ns, now_ns))
    return sorted(found, key=lambda one: one.median_ns - one.now_ns)
