"""Results of benchmarks as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from otel_debugstore_analysis.text import human, printable

if TYPE_CHECKING:
    from otel_debugstore_analysis.benchmark.fixture import BenchmarkResult

_HEADINGS = ("implementation", "verdict", "time of a call", "ratio", "interval", "peak memory")


def comparison_report(results: Sequence[BenchmarkResult]) -> str:
    """Return the results by scenario, the fastest first; what is wrong or has failed is not ranked."""
    if not results:
        return "# Benchmarks\n\nNothing was measured.\n"
    lines = ["# Benchmarks", "", *_summary(results)]
    for scenario in dict.fromkeys(result.scenario for result in results):
        lines += ["", f"## {_cell(scenario)}", "", *_scenario([each for each in results if each.scenario == scenario])]
    measured = next((result for result in results if result.is_ranked), None)
    if measured is not None:
        lines += [
            "",
            f"Medians of {measured.processes} processes; the two of a pair in random order; the interval of the "
            f"ratio is the "
            "bootstrap's over processes. Times are those of the function alone.",
        ]
    return "\n".join(lines) + "\n"


def _summary(results: Sequence[BenchmarkResult]) -> list[str]:
    """Return a line for each implementation: how often it was what."""
    lines = []
    for name in dict.fromkeys(result.implementation for result in results):
        verdicts = [result.verdict for result in results if result.implementation == name]
        counted = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in dict.fromkeys(verdicts))
        lines.append(f"- **{_cell(name)}**: {counted} of {len(verdicts)}")
    return lines


def _scenario(results: Sequence[BenchmarkResult]) -> list[str]:
    ranked = sorted((each for each in results if each.is_ranked), key=lambda each: each.median_ns or 0.0)
    lines = []
    if ranked:
        lines += [f"| {' | '.join(_HEADINGS)} |", "| --- | --- | ---: | ---: | ---: | ---: |"]
        lines += [f"| {' | '.join(_row(each))} |" for each in ranked]
    others = [each for each in results if not each.is_ranked]
    if others:
        lines += ["", "Not ranked:", ""] if ranked else ["Nothing could be ranked:", ""]
        lines += [f"- **{_cell(each.implementation)}** {each.verdict}: {_cell(each.cause)}" for each in others]
    notes = list(dict.fromkeys(note for each in results for note in each.notes))
    return [*lines, "", *(f"*{_cell(note)}*" for note in notes)] if notes else lines


def _row(result: BenchmarkResult) -> tuple[str, ...]:
    interval = "-" if result.ratio_low is None else f"{result.ratio_low:.3f} to {result.ratio_high:.3f}"
    return (
        _cell(result.implementation),
        result.verdict,
        human("median_ns", result.median_ns),
        "-" if result.ratio is None else f"{result.ratio:.3f}",
        interval,
        human("peak_bytes", result.memory_peak_bytes),
    )


def _cell(text: str) -> str:
    return printable(text).translate(_MARKUP)


_MARKUP = str.maketrans({character: f"\\{character}" for character in "\\|`*_[]<>#"} | {"&": "&amp;"})
"""What Markdown or HTML would take for markup."""
