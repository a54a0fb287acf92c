"""The runs of workflows, as what is said of them: which workflow, how long, how many each stands for; and of how many
seconds of observation they are."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses._structure import Ints, Structure
from otel_debugstore_analysis.query._frame import SpanFrame

EVIDENCE: Final = 3


class Runs(NamedTuple):
    """The runs of a structure: which workflow each is of, how long it took, and how many it stands for."""

    row: Ints
    """Of the run's span in the frame."""
    workflow: Ints
    """The code of its component."""
    duration_ns: Ints
    weight: Floats
    trace: npt.NDArray[np.int32]

    @staticmethod
    def of(spans: SpanFrame, found: Structure) -> Runs:
        """Return the runs of a structure."""
        tops = found.tops
        duration_ns = spans.end_ns[tops] - spans.start_ns[tops]
        return Runs(tops, spans.component[tops].astype(np.int64), duration_ns, spans.weight[tops], spans.trace[tops])


def no_runs(runs: Runs, workflow: str | None, layer: str | None) -> tuple[str, ...]:
    """Return a sentence if there is nothing to look at."""
    if len(runs.workflow):
        return ()
    if workflow is None and layer is None:
        return ("There are no spans.",)
    chosen = [f"component {workflow[:80]!r}" if workflow is not None else "", f"layer {layer[:80]!r}" if layer else ""]
    return (f"No span there is of {' and '.join(filter(None, chosen))}.",)


def observed_s(spans: SpanFrame, rows: Ints | slice = slice(None)) -> float:
    """Return for how many seconds spans were observed.

    Each session from the first begin to the last end in it, and what several sessions share of that time once: between
    sessions nothing was observed.
    """
    session, starts, ends = spans.session[rows], spans.start_ns[rows], spans.end_ns[rows]
    if not len(session):
        return 0.0
    there, number = np.unique(session, return_inverse=True)
    begin, end = np.full(len(there), np.iinfo(np.int64).max), np.full(len(there), np.iinfo(np.int64).min)
    np.minimum.at(begin, number, starts)
    np.maximum.at(end, number, ends)
    order = np.argsort(begin)
    begin, reached = begin[order], np.maximum.accumulate(end[order])
    gaps = np.maximum(begin[1:].astype(np.float64) - reached[:-1], 0.0)
    return (float(reached[-1]) - float(begin[0]) - float(gaps.sum())) / 1e9


def slowest(spans: SpanFrame, trace: npt.NDArray[np.int32], measure: Ints | Floats) -> tuple[str, ...]:
    """Return the ids of the traces with the largest measures, the largest first."""
    order = np.argsort(-measure, kind="stable")[: 4 * EVIDENCE]
    return tuple(dict.fromkeys(spans.trace_ids[int(number)] for number in trace[order]))[:EVIDENCE]
