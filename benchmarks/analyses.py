"""Figure U1: the analyses over a million spans, and a report from the shell.

Warm: one reader, each analysis asked once before it is measured. Most are asked the generator's spans (one session,
some 154,000 traces, 32 components, ten attributes each); the critical path and what-if 10,000 traces of 100 spans each
whose children overlap, the report the sessions of the Nezha data.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import datasets
from benchmarks.measure import Figure, Options, environment, executable, in_process, interleaved, median

_ANALYSIS_MS: Final = 250.0
_STRUCTURE_MS: Final = 3_000.0
_REPORT_SECONDS: Final = 3.0
_BASELINE: Final = "boutique-baseline-2022-08-23.otlp.jsonl.gz"
_GENERATED: Final = (
    # name, what is asked
    ("performance", "performance by component"),
    ("performance of an attribute", "performance by an attribute"),
    ("errors", "errors"),
    ("compare", "compare, the first half with the second"),
    ("variants", "variants"),
    ("explain slow", "explain, slow calls"),
    ("explain failing", "explain, failing calls"),
    ("root cause", "root causes, the second half against the first"),
    ("regressions", "regressions"),
    ("patterns", "patterns"),
    ("thresholds", "thresholds"),
    ("candidates", "candidates"),
)
_WIDE: Final = (
    ("critical path", "critical path"),
    ("whatif", "what-if"),
    ("whatif of a layer", "what-if of the runs of a layer"),
)


def figures(options: Options) -> list[Figure]:
    """Measure figure U1."""
    generated, wide = datasets.generated_million(), datasets.wide_million()
    asked = {
        **in_process(ask, base_path=str(generated.base_path), session=generated.session, repeats=options.repeats(9)),
        **in_process(ask_wide, base_path=str(wide.base_path), session=wide.session, repeats=options.repeats(5)),
    }
    found = [_figure(f"1M spans: {what}", asked[name], _ANALYSIS_MS) for name, what in _GENERATED]
    found += [_figure(f"10,000 traces with 1M spans: {what}", asked[name], _STRUCTURE_MS) for name, what in _WIDE]
    try:
        found.append(_report(options))
    except datasets.UnavailableError as error:
        print(f"without the report: {error}", file=sys.stderr)
    return found


def _figure(what: str, milliseconds: list[float], target: float) -> Figure:
    detail = f"{min(milliseconds):.0f} to {max(milliseconds):.0f} ms"
    return Figure("U1", what, median(milliseconds), target, "ms", detail=detail)


def ask(base_path: str, session: str, repeats: int) -> dict[str, list[float]]:
    """Return by question the milliseconds that the answers took."""
    from otel_debugstore_analysis.analysis import Analysis
    from otel_debugstore_analysis.query import DuckDBEngine, Selection
    from otel_debugstore_exporters.reader import SessionReader

    reader = SessionReader(Path(base_path), [session])
    analysis = Analysis(DuckDBEngine(reader))
    ((middle_ns,),) = reader.query("SELECT median(start_ns)::BIGINT FROM spans").rows
    first, second = Selection(until_ns=middle_ns), Selection(since_ns=middle_ns)
    return _timed(
        {
            "performance": analysis.performance,
            "performance of an attribute": lambda: analysis.performance("http.request.method"),
            "errors": analysis.errors,
            "compare": lambda: analysis.compare(first, second),
            "variants": analysis.variants,
            "explain slow": analysis.explain,
            "explain failing": lambda: analysis.explain(what="failing"),
            "root cause": lambda: analysis.root_cause(selection=second, baseline=first),
            "regressions": analysis.regressions,
            "patterns": analysis.patterns,
            "thresholds": analysis.thresholds,
            "candidates": analysis.candidates,
        },
        repeats,
    )


def ask_wide(base_path: str, session: str, repeats: int) -> dict[str, list[float]]:
    """Return by question to whole traces the milliseconds that the answers took."""
    from otel_debugstore_analysis.analysis import Analysis

    analysis = Analysis(base_path=base_path, sessions=[session])
    return _timed(
        {
            "critical path": analysis.critical_path,
            "whatif": analysis.whatif,
            "whatif of a layer": lambda: analysis.whatif(layer="workflow"),
        },
        repeats,
    )


def _timed(questions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    for question in questions.values():
        question()
    return interleaved(lambda name: _milliseconds(questions[name]), tuple(questions), repeats)


def _milliseconds(question: Callable[[], Any]) -> float:
    began = time.perf_counter()
    question()
    return (time.perf_counter() - began) * 1000


def _report(options: Options) -> Figure:
    base_path = datasets.directory() / "report"
    in_process(import_sessions, base_path=str(base_path))
    line = [executable("debugstore"), "report", "--data-dir", str(base_path), "--all-sessions"]

    def run() -> None:
        subprocess.run(line, env=environment(), capture_output=True, check=True)

    run()
    seconds = [_milliseconds(run) / 1000 for _ in range(options.repeats(7))]
    shutil.rmtree(base_path)
    detail = f"{min(seconds):.2f} to {max(seconds):.2f} s"
    what = "the three Nezha sessions: `debugstore report` from the shell"
    return Figure("U1", what, median(seconds), _REPORT_SECONDS, "s", detail=detail)


def import_sessions(base_path: str) -> None:
    """Import the Nezha files, each as a session."""
    from otel_debugstore_exporters.importer import import_files
    from otel_debugstore_exporters.session import SessionPaths

    for path in (*datasets.nezha_files(), datasets.NEZHA / _BASELINE):
        import_files([path], SessionPaths(Path(base_path), path.name.partition(".")[0]))
