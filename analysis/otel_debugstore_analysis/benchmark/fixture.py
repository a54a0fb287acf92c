"""`BenchmarkFixture`: implementations side by side over scenarios, under the names of the system this one replaces."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from otel_debugstore.config import Settings
from otel_debugstore.errors import ConfigurationError
from otel_debugstore.layers import Layer, check_layer
from otel_debugstore.session_id import check_session_id
from otel_debugstore_analysis.benchmark import scenarios as standard
from otel_debugstore_analysis.benchmark.method import compare_functions
from otel_debugstore_analysis.benchmark.model import BenchmarkOptions, Check, FunctionRef
from otel_debugstore_analysis.benchmark.results import Comparison
from otel_debugstore_analysis.benchmark.scenarios import BenchmarkScenario
from otel_debugstore_analysis.benchmark.storing import record_comparison
from otel_debugstore_analysis.closing import Closing

BASELINE: Final = "baseline"
"""The verdict of the implementation that others are held against."""
Implementation = Callable[..., Any] | FunctionRef | str


@dataclass(frozen=True)
class BenchmarkResult:
    """What one implementation did in one scenario.

    Attributes:
        implementation, scenario: Their names.
        layer: Of the implementation.
        verdict: "baseline", "faster", "slower", "equal", "undecided", "wrong" or "failed".
        cause: One sentence that says why.
        baseline: The implementation it was held against; itself, if it is the baseline.
        median_ns: The time of a call; None where it was not timed: it is wrong, or failed.
        ratio, ratio_low, ratio_high: Its time over the baseline's, and the interval of it; None where there is none.
        memory_peak_bytes: The most memory that a call allocated at once; None where that is not known.
        processes, pairs: How many were measured.
        trace_id: Of the span that holds the comparison; empty where there is none.
        notes: What else is to be known.
    """

    implementation: str
    scenario: str
    layer: str
    verdict: str
    cause: str
    baseline: str
    median_ns: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    memory_peak_bytes: int | None = None
    processes: int = 0
    pairs: int = 0
    trace_id: str = ""
    notes: tuple[str, ...] = ()

    @property
    def is_ranked(self) -> bool:
        """Whether it was timed: what is wrong or has failed never is."""
        return self.median_ns is not None

    @property
    def duration_ms(self) -> float | None:
        """The time of a call in milliseconds; None where it was not timed."""
        return None if self.median_ns is None else self.median_ns / 1e6


class BenchmarkFixture(Closing):
    """Compares implementations, and keeps what it finds in a session.

    Args:
        session_id: The session.
        base_path: Where sessions lie, by default "debug_data".
        options: How to measure.

    Raises:
        ConfigurationError: `base_path` can't be one.
        InvalidSessionIdError: `session_id` can't be one.
    """

    def __init__(
        self,
        session_id: str,
        base_path: str | os.PathLike[str] | None = None,
        options: BenchmarkOptions | None = None,
    ) -> None:
        self.session_id = check_session_id(session_id)
        self.base_path = Settings.from_environment(base_path=base_path, session_id=session_id).base_path
        self._options = options or BenchmarkOptions()

    def create_standard_scenarios(
        self, category: str = "mixed", iterations: int | None = None
    ) -> list[BenchmarkScenario]:
        """Return the standard scenarios of a category; see `scenarios.create_standard_scenarios`.

        Raises:
            ConfigurationError: There is no such category.
        """
        return standard.create_standard_scenarios(category, iterations)

    def benchmark(
        self,
        implementations: Mapping[str, Implementation],
        scenarios: Sequence[BenchmarkScenario],
        layer: Layer = "function",
        check: Check | None = None,
    ) -> list[BenchmarkResult]:
        """Measure implementations against the first of them, and return a result each and scenario.

        Where the first fails, the next one that does not is the baseline. A single one is measured against itself.

        Args:
            implementations: By name.
            scenarios: What they are called with.
            layer: Theirs.
            check: When an output is right; by default when it equals the baseline's.

        Raises:
            ConfigurationError: There is nothing to measure, or it can't be measured so.
            JournalError: The session can't be written.
        """
        if not implementations or not scenarios:
            raise ConfigurationError("There is nothing to measure: give at least one implementation and one scenario.")
        check_layer(layer)
        return [
            result
            for scenario in scenarios
            for result in _Scenario(self, scenario, layer, check or Check()).run(dict(implementations))
        ]

    def compare(
        self,
        names: tuple[str, str],
        functions: tuple[Implementation, Implementation],
        scenario: BenchmarkScenario,
        layer: Layer,
        check: Check,
    ) -> tuple[Comparison, str]:
        """Return the comparison of two implementations, and the id of its trace."""
        options = self._options
        if scenario.iterations is not None:
            options = dataclasses.replace(options, pairs=scenario.iterations)
        found = compare_functions(*functions, [scenario.case()], options=options, check=check)
        trace_id = record_comparison(
            self.base_path,
            self.session_id,
            scenario.name,
            found,
            baseline=names[0],
            candidate=names[1],
            layer=layer,
        )
        return found, trace_id

    def generate_comparison_report(
        self, results: Sequence[BenchmarkResult], output_path: str | os.PathLike[str] | None = None
    ) -> str:
        """Return results as Markdown, the fastest first; what is wrong or has failed stands apart, with its cause.

        Args:
            results: What `benchmark` returned.
            output_path: A file to write it to, too.
        """
        from otel_debugstore_analysis.benchmark.report import comparison_report

        report = comparison_report(results)
        if output_path is not None:
            Path(output_path).write_text(report, encoding="utf-8")
        return report

    def close(self) -> None:
        """Do nothing: every comparison is durable when it was made."""


class _Scenario:
    """A scenario, and who has failed in it so far."""

    def __init__(self, fixture: BenchmarkFixture, scenario: BenchmarkScenario, layer: Layer, check: Check) -> None:
        self._fixture = fixture
        self._scenario = scenario
        self._layer = layer
        self._check = check
        self._found: dict[str, BenchmarkResult] = {}

    def run(self, implementations: dict[str, Implementation]) -> list[BenchmarkResult]:
        """Return the results in the order of the implementations."""
        left = dict(implementations)
        while left:
            baseline, *others = left
            if not self._held_against(baseline, others or [baseline], implementations):
                del left[baseline]
                continue
            break
        return [self._found[name] for name in implementations]

    def _held_against(self, baseline: str, others: Sequence[str], functions: dict[str, Implementation]) -> bool:
        """Compare with a baseline; return False if that can't be one."""
        for name in others:
            found, trace_id = self._fixture.compare(
                (baseline, name), (functions[baseline], functions[name]), self._scenario, self._layer, self._check
            )
            if found.failed_side == "baseline" or (found.failed_side is None and not found.is_ranked):
                self._found[baseline] = self._result(baseline, baseline, found, trace_id, 0)
                if found.failed_side is None:
                    self._found |= {each: self._result(each, baseline, found, trace_id, 1) for each in others}
                    return True
                return False
            if found.is_ranked or baseline not in self._found:
                self._found[baseline] = self._result(baseline, baseline, found, trace_id, 0)
            if name != baseline:
                self._found[name] = self._result(name, baseline, found, trace_id, 1)
        if not self._found[baseline].is_ranked and others != [baseline]:  # all others failed before it was timed
            return self._held_against(baseline, [baseline], functions)
        return True

    def _result(self, name: str, baseline: str, found: Comparison, trace_id: str, side: int) -> BenchmarkResult:
        is_baseline = side == 0
        memory = found.memory
        peaks = (memory.baseline_peak_bytes, memory.candidate_peak_bytes) if memory else (None, None)
        blamed = not found.is_ranked and (found.failed_side != "candidate" or not is_baseline)
        return BenchmarkResult(
            name,
            self._scenario.name,
            self._layer,
            found.verdict if blamed or not is_baseline else BASELINE,
            found.cause if blamed or not is_baseline else "Others are held against it.",
            baseline,
            _known((found.baseline_ns, found.candidate_ns)[side]),
            *((_known(found.ratio), _known(found.low), _known(found.high)) if not is_baseline else (None,) * 3),
            peaks[side],
            found.processes,
            found.pairs,
            trace_id,
            found.notes,
        )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
