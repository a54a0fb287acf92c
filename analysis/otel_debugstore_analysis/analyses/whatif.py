"""What a workflow would gain if a component were faster: its runs replayed with the component's self times scaled.

For each workflow and component: the median and the 95th percentile of the runs as they were, and what each would be
less if every call of the component took 25, 50 or 100 % less time of its own; what all runs together would save, and
per second of observation (between sessions nothing is observed), by which the answer is ordered. A component that is
not waited for, or beside which something as slow runs, saves nothing however fast it is. `_replay` says how a run is
replayed: at 0 % every run takes exactly as long as it did, savings only rise with the share, and never exceed it times
the component's own time.

What a replay can't know: whether calls would still wait for the same others, and whether what runs beside one another
would get in each other's way less. It assumes that the structure stays.

Sources: CRISP (USENIX ATC 2022), "what-if" of latencies; Curtsinger and Berger, "Coz: Finding Code that Counts with
Causal Profiling" (SOSP 2015), for what the answer is good for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses._quantiles import Floats, quantiles
from otel_debugstore_analysis.analyses._replay import own_times, savings
from otel_debugstore_analysis.analyses._runs import Runs, no_runs, observed_s, slowest
from otel_debugstore_analysis.analyses._structure import Ints, Structure, structure
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, Table
from otel_debugstore_analysis.query._frame import MAX_SPANS, MAX_TRACES, SpanFrame, frame

FASTER: Final = (0.25, 0.5, 1.0)
_QUANTILES: Final = (0.5, 0.95)
_AT_ONCE: Final = 16
"""Components of a workflow that are replayed at once."""
_MAX_TURNS: Final = 8
_COLUMNS: Final = (
    "workflow",
    "component",
    "faster_share",
    "runs",
    "p50_ns",
    "p95_ns",
    "p50_saved_ns",
    "p95_saved_ns",
    "saved_ns",
    "saved_share",
    "saved_ns_per_s",
    "observations",
    "own_ns",
    "trace_ids",
)


def whatif(
    engine: Engine,
    *,
    selection: Selection = EVERYTHING,
    workflow: str | None = None,
    layer: str | None = None,
    component: str | None = None,
    faster: Sequence[float] = FASTER,
    limit: int = 20,
    max_traces: int = MAX_TRACES,
    max_spans: int = MAX_SPANS,
) -> Table:
    """Return a row a workflow, component and share: what the workflow would save if the component were faster by it.

    Args:
        engine: Where the spans lie.
        selection: Which traces: those that have a selected span.
        workflow: The component whose spans are the runs; without it and `layer` the roots are.
        layer: The layer whose spans are the runs.
        component: The component that gets faster; without it each of those that save most.
        faster: By how much of its own time, as shares up to 1.
        limit: How many components at most; each has a row a share.
        max_traces: How many traces are looked at, at most.
        max_spans: How many spans are looked at, at most.

    Raises:
        QueryError: A share can't be used, or the engine refused the query.
    """
    _checked(faster)
    spans = frame(engine, selection=selection, max_traces=max_traces, max_spans=max_spans)
    return whatif_of(spans, workflow, layer, component, faster, limit)


def whatif_of(
    spans: SpanFrame,
    workflow: str | None = None,
    layer: str | None = None,
    component: str | None = None,
    faster: Sequence[float] = FASTER,
    limit: int = 20,
) -> Table:
    """Return what `whatif` does, of these spans."""
    shares = _checked(faster)
    found = structure(spans, workflow, layer)
    runs = Runs.of(spans, found)
    pairs = _Pairs.of(spans, found, runs, component)
    best = _replayed(found, runs, pairs, np.array(shares), limit)
    notes = (*spans.notes, *found.notes, *no_runs(runs, workflow, layer))
    if len(runs.workflow) and not len(pairs.bound_ns):
        notes += ("No run waited for a call of that component." if component is not None else "No run took any time.",)
    if best.is_cut:
        notes += ("Components that save much may be missing: there are too many that could.",)
    rows = [row for pair in best.pairs[:limit] for row in _rows(spans, runs, pairs, best, pair, shares)]
    left_out = len(pairs.bound_ns) * len(shares) - len(rows)
    return Table(_COLUMNS, rows, left_out, notes)


def _checked(faster: Sequence[float]) -> list[float]:
    shares = sorted(set(faster)) if isinstance(faster, Sequence) else []
    if not shares or not all(0 <= share <= 1 for share in shares):
        raise QueryError(
            f"A component can be faster by shares from 0 to 1 of its own time, such as (0.25, 0.5), not by {faster!r}."
        )
    return shares


class _Pairs(NamedTuple):
    """Workflows and components in them that took time of their own."""

    workflow: Ints
    component: Ints
    bound_ns: Floats
    """What making the component as fast as can be may save at most: all its own time."""
    rank: Ints
    """The pair's place among those of its workflow, the largest bound first."""
    place: Ints
    """The places of spans with own time, and of each its pair."""
    pair: Ints
    size: int

    @staticmethod
    def of(spans: SpanFrame, found: Structure, runs: Runs, component: str | None) -> _Pairs:
        """Return the pairs in a structure, of one component if it is given."""
        own_ns = own_times(found)
        codes = spans.component[found.rows].astype(np.int64)
        is_wanted = own_ns > 0
        if component is not None:
            is_wanted &= codes == (spans.components.index(component) if component in spans.components else -1)
        place = np.flatnonzero(is_wanted)
        width = max(len(spans.components), 1)
        keys, pair = np.unique(runs.workflow[found.run[place]] * width + codes[place], return_inverse=True)
        weighted: Floats = own_ns[place] * runs.weight[found.run[place]]
        bound_ns = np.bincount(pair, weighted, len(keys)).astype(np.float64, copy=False)
        workflow, code = keys // width, keys % width
        order = np.lexsort((code, -bound_ns, workflow))  # codes are in the order of names
        is_first = np.diff(workflow[order], prepend=-1) != 0
        begin = np.maximum.accumulate(np.where(is_first, np.arange(len(order)), 0))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - begin
        return _Pairs(workflow, code, bound_ns, rank, place, pair, len(found.rows))


class _Best(NamedTuple):
    """What the pairs save that were replayed.

    Attributes:
        pairs: Those that save most first.
        saved_ns: By pair, with the largest share, in all runs together; negative if it was not replayed.
        by_run: By turn of pairs: by run, column and share.
        is_cut: Whether pairs were not replayed that may save more.
    """

    pairs: list[int]
    saved_ns: Floats
    by_run: list[Floats]
    is_cut: bool

    def of_runs(self, pairs: _Pairs, pair: int, runs: Ints) -> Floats:
        """Return what a pair saves in some runs, by run and share."""
        turn, column = divmod(int(pairs.rank[pair]), _AT_ONCE)
        found: Floats = self.by_run[turn][runs, column]
        return found


def _replayed(found: Structure, runs: Runs, pairs: _Pairs, shares: Floats, limit: int) -> _Best:
    """Return the pairs that save most.

    They are replayed in turns, those that may save most first, until no other can save more than those found.
    """
    saved_ns = np.full(len(pairs.bound_ns), -1.0)
    by_run: list[Floats] = []
    while True:
        least = np.sort(saved_ns)[-limit] if 0 < limit <= len(saved_ns) else -1.0
        may_save = pairs.bound_ns * shares[-1] >= max(least, 0.0)
        chosen = np.flatnonzero((pairs.rank // _AT_ONCE == len(by_run)) & may_save)
        if not len(chosen) or len(by_run) == _MAX_TURNS:
            break
        column = np.full(len(pairs.bound_ns), -1)
        column[chosen] = pairs.rank[chosen] % _AT_ONCE
        by_run.append(_saved_by_run(found, pairs, column, shares))
        weighted = by_run[-1][:, :, -1] * runs.weight[:, None]
        of_workflow = np.zeros((int(runs.workflow.max()) + 1, weighted.shape[1]))
        np.add.at(of_workflow, runs.workflow, weighted)
        saved_ns[chosen] = of_workflow[pairs.workflow[chosen], column[chosen]]
    order = np.lexsort((pairs.component, pairs.workflow, -saved_ns))
    return _Best([int(pair) for pair in order if saved_ns[pair] >= 0], saved_ns, by_run, len(chosen) > 0)


def _saved_by_run(found: Structure, pairs: _Pairs, column: Ints, shares: Floats) -> Floats:
    by_place = np.full(len(found.rows), -1)
    by_place[pairs.place] = column[pairs.pair]
    return savings(found, by_place, int(column.max()) + 1, shares)


def _rows(
    spans: SpanFrame, runs: Runs, pairs: _Pairs, best: _Best, pair: int, shares: Sequence[float]
) -> list[tuple[Any, ...]]:
    """Return the rows of a pair, one a share."""
    workflow, component = int(pairs.workflow[pair]), int(pairs.component[pair])
    mine = np.flatnonzero(runs.workflow == workflow)
    duration_ns, weight = runs.duration_ns[mine].astype(np.float64), runs.weight[mine]
    saved_ns = best.of_runs(pairs, pair, mine)
    now = quantiles(duration_ns, weight, _QUANTILES)
    then = quantiles(duration_ns[:, None] - saved_ns, weight, _QUANTILES)
    whole = float((duration_ns * weight).sum())
    evidence = slowest(spans, runs.trace[mine], saved_ns[:, -1])
    seconds, stands_for = observed_s(spans, runs.row), _stands_for(spans)
    rows = []
    for number, share in enumerate(shares):
        saved = float(saved_ns[:, number] @ weight)
        row = (spans.components[workflow], spans.components[component], share, round(float(weight.sum())))
        p50, p95 = map(float, now)
        gain = (float(p50 - then[0, number]), float(p95 - then[1, number]))
        rate = saved * stands_for / seconds if seconds else None
        seen = int(np.count_nonzero(saved_ns[:, number] > 0))
        rows.append((*row, p50, p95, *gain, saved, saved / whole, rate, seen, float(pairs.bound_ns[pair]), evidence))
    return rows


def _stands_for(spans: SpanFrame) -> float:
    """Return how many traces each that was looked at stands for."""
    return (len(spans.trace_ids) + spans.left_out_traces) / len(spans.trace_ids)
