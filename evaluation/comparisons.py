"""False alarms of `compare`, and what it finds: sessions drawn from one distribution, which differ from each other.

A session's median is a base times a factor of its own, log-normal with a standard deviation of 3 or 10 %: what
repeated runs of a program show. The draws decide as `compare` does, by its `decide`. Some are besides made into
sessions of spans, which `compare` reads, and have to give the same verdicts. What it says of the structure of traces is
in `structures`.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from evaluation import structures
from evaluation.result import Options, Result
from otel_debugstore_analysis.analyses.compare import compare, decide

Floats = npt.NDArray[np.float64]

DRAWS: Final = 500
END_TO_END: Final = 20
SESSIONS: Final = (5, 10, 20)
SPREADS: Final = (0.03, 0.10)
_BASE_NS: Final = 10_000_000
_SEED: Final = 1


def results(options: Options) -> list[Result]:
    """Return the false alarms, what is found of steps, and how many whole comparisons agree with `decide`."""
    chance = np.random.default_rng(_SEED)
    found = []
    for step, spread, sessions in itertools.product((1.0, 1.05, 1.10), SPREADS, SESSIONS):
        draws = options.draws(DRAWS)
        alarms = sum(_verdict(*_medians(chance, sessions, spread, step)) in _wanted(step) for _ in range(draws))
        of = f"{sessions} sessions a side that differ by {spread:.0%}"
        if step == 1.0:
            found.append(Result(f"compare: false alarms, A/A of {of}", alarms, draws, 0.05))
        else:
            found.append(Result(f"compare: +{step - 1:.0%} found, {of}", alarms, draws))
    return [*found, _end_to_end(chance, options), *structures.results(options)]


def _wanted(step: float) -> tuple[str, ...]:
    return ("slower", "faster") if step == 1.0 else ("slower",)


def _medians(chance: np.random.Generator, sessions: int, spread: float, step: float) -> tuple[Floats, Floats]:
    factors = np.exp(chance.normal(0, spread, (2, sessions)))
    return np.round(_BASE_NS * factors[0]), np.round(_BASE_NS * step * factors[1])


def _verdict(before: Floats, after: Floats) -> str:
    return decide([(before, after)])[0].verdict


def _end_to_end(chance: np.random.Generator, options: Options) -> Result:
    draws = options.draws(10 * END_TO_END) // 10
    same = sum(
        _same_from_sessions(*_medians(chance, 5, spread, step))
        for _, (step, spread) in zip(
            range(draws), itertools.cycle(itertools.product((1.0, 1.1), SPREADS)), strict=False
        )
    )
    what = "compare: verdict and interval from stored sessions are those of the draws"
    return Result(what, same, draws, 1.0, "at least")


def _same_from_sessions(before: Floats, after: Floats) -> bool:
    """Store a session a median, whose calls lie around it, and return whether `compare` says what `decide` does."""
    from otel_debugstore_analysis.query import DuckDBEngine
    from otel_debugstore_exporters.reader import SessionReader

    with tempfile.TemporaryDirectory(prefix="otel-debugstore-eval-") as folder:
        sides = []
        for side, medians in (("a", before), ("b", after)):
            sides.append([f"{side}{number}" for number in range(len(medians))])
            for session, median_ns in zip(sides[-1], medians, strict=True):
                _write(Path(folder), session, int(median_ns))
        with SessionReader(Path(folder)) as reader:
            found = compare(DuckDBEngine(reader), sides[0], sides[1], max_traces=0).components.dicts()[0]
    expected = decide([(before, after)])[0]
    return (found["verdict"], found["ratio"], found["ratio_low"], found["ratio_high"]) == (
        expected.verdict,
        *expected.ratio,
    )


def _write(base_path: Path, session: str, median_ns: int) -> None:
    from otel_debugstore_exporters import codec
    from otel_debugstore_exporters.batch import SpanRecord, batch_from_records
    from otel_debugstore_exporters.journal import Journal
    from otel_debugstore_exporters.session import SessionPaths

    start_ns = 1_700_000_000_000_000_000
    spans = [
        SpanRecord(
            trace_id=number.to_bytes(16, "big"),
            span_id=number.to_bytes(8, "big"),
            parent_id=None,
            name="work",
            start_ns=start_ns + number * 1_000_000_000,
            end_ns=start_ns + number * 1_000_000_000 + median_ns + (number - 6) * 1_000,
        )
        for number in range(1, 12)
    ]
    base_path.mkdir(exist_ok=True)
    with Journal.open(SessionPaths(base_path, session).journal) as journal:
        journal.append([codec.encode(batch_from_records(spans, 1), start_ns)])
