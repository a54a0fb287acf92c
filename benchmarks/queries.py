"""Figure 7: questions to a million spans, by the query layer that the command line uses.

Warm: one reader, each question asked once before it is measured; every time includes looking for new spans.
"""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import datasets
from benchmarks.measure import Figure, Options, environment, executable, in_process, interleaved, median

_TEN_MILLION: Final = "ten-million"
_SHIFT_SECONDS: Final = 7 * 24 * 3600

_QUESTIONS: Final[tuple[tuple[str, str, float | None], ...]] = (
    # name, what it is, the target in milliseconds
    ("trace", "a trace by its id", 5),
    ("percentiles", "p50, p95 and p99 by component", 40),
    ("slowest", "the 20 slowest spans", 10),
    ("totals", "the 20 components with the largest total time, without percentiles", None),
    ("attribute", "group by an attribute", 20),
    ("rollup", "p50, p95 and p99 by component over 10M spans, from the histogram", 50),
)


def figures(options: Options) -> list[Figure]:
    """Measure figure 7, but for the exit."""
    nezha, generated = datasets.nezha_million(), datasets.generated_million()
    in_process(grow, base_path=str(nezha.base_path), session=nezha.session)
    found = in_process(
        ask,
        base_path=str(nezha.base_path),
        nezha=nezha.session,
        generated=generated.session,
        repeats=options.repeats(40),
    )
    measured = [
        Figure(
            "7",
            f"{'1M spans: ' if name != 'rollup' else ''}{what}",
            median(found[name]),
            target,
            "ms",
            detail=f"{min(found[name]):.1f} to {max(found[name]):.1f} ms",
        )
        for name, what, target in _QUESTIONS
    ]
    return [*measured, _shell(options, nezha)]


def grow(base_path: str, session: str) -> None:
    """Make a session of ten segments with the histogram of a million spans each, a week apart.

    The spans themselves are left out: what is asked of this session reads the histogram only.
    """
    from otel_debugstore_exporters import schema
    from otel_debugstore_exporters.segment import attached, connect, quoted
    from otel_debugstore_exporters.session import SessionPaths

    paths = SessionPaths(Path(base_path), _TEN_MILLION)
    (source,) = SessionPaths(Path(base_path), session).segments()
    with connect() as connection, attached(connection, source) as original:
        for number in range(10):
            path = paths.further_segment(f"{number:016x}")
            connection.execute(f"ATTACH {quoted(path)} AS made")
            schema.create_tables(connection, "made")
            for table in ("rollup", "rollup_total"):
                times = [column for column in schema.TABLES[table] if column.endswith("_s")]
                shifted = ", ".join(f"{time} + {number * _SHIFT_SECONDS} AS {time}" for time in times)
                connection.execute(f"INSERT INTO made.{table} SELECT * REPLACE ({shifted}) FROM {original}.{table}")
            connection.execute(
                f"INSERT INTO made.segment SELECT * REPLACE ('{number:032x}' AS source_id) FROM {original}.segment"
            )
            connection.execute("CHECKPOINT made")
            connection.execute("DETACH made")


def ask(base_path: str, nezha: str, generated: str, repeats: int) -> dict[str, list[float]]:
    """Return by question the milliseconds that its answers took."""
    from otel_debugstore_analysis import query
    from otel_debugstore_exporters.reader import SessionReader

    def engine(session: str) -> query.DuckDBEngine:
        return query.DuckDBEngine(SessionReader(Path(base_path), [session]))

    real, made, histogram = engine(nezha), engine(generated), engine(_TEN_MILLION)
    trace_ids = [row[0] for row in real.reader.query("SELECT trace_id FROM traces ORDER BY trace_id").rows]
    chance = random.Random(0)
    questions: dict[str, Callable[[], Any]] = {
        "trace": lambda: query.trace(real, chance.choice(trace_ids)),
        "percentiles": lambda: query.top(real),
        "slowest": lambda: query.slowest(real),
        "totals": lambda: query.top(real, percentiles=False),
        "attribute": lambda: query.top(made, "http.request.method", percentiles=False),
        "rollup": lambda: query.percentiles_from_rollup(histogram),
    }
    for question in questions.values():
        question()
    return interleaved(lambda name: _milliseconds(questions[name]), tuple(questions), repeats)


def _milliseconds(question: Callable[[], Any]) -> float:
    began = time.perf_counter()
    question()
    return (time.perf_counter() - began) * 1000


def _shell(options: Options, data: datasets.Dataset) -> Figure:
    line = [executable("debugstore"), "--data-dir", str(data.base_path), "top", "--session", data.session]

    def run() -> None:
        subprocess.run(line, env=environment(), capture_output=True, check=True)

    run()
    seconds = [_milliseconds(run) / 1000 for _ in range(options.repeats(7))]
    return Figure(
        "7",
        "1M spans: `debugstore top` from the shell",
        median(seconds),
        1.5,
        "s",
        detail=f"{min(seconds):.2f} to {max(seconds):.2f} s",
    )
