"""Which spans a workflow's time has to be answered for by: its critical path.

At every instant of a run exactly one span is answerable, so that the times of all add up to the run's. From the end of
the run's span the way leads back through the child that finished last, from the begin of that one through the child
that had finished last before it began, and so on to the begin; between these the span itself is answerable. The same
holds within each of these children. Of children that end together the one that was recorded to end last is taken, then
the one that began first. What ran beside (concurrent, asynchronous, detached) is not on the path; `_structure` says
which children count and how they are clipped.

Since a child on the path is always entered at its end, whether it is chosen is a matter between it and its
siblings alone: all parents of all traces are decided at once, and a span is on the path if it and all above it are
chosen.

Sources: CRISP (USENIX ATC 2022); Jaeger's user interface.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses._quantiles import quantiles
from otel_debugstore_analysis.analyses._runs import Runs, no_runs, slowest
from otel_debugstore_analysis.analyses._structure import Bools, Ints, Structure, along, structure
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, Table
from otel_debugstore_analysis.query._frame import MAX_SPANS, MAX_TRACES, SpanFrame, frame
from otel_debugstore_analysis.query._trace import whole_id

if TYPE_CHECKING:
    import numpy.typing as npt

GROUPS: Final = ("component", "layer", "service")
MAX_SEGMENTS: Final = 200
_MAX_NS: Final = 2**63 - 1
_SHARES: Final = (0.5, 0.95)
_WORKFLOW_COLUMNS: Final = ("workflow", "runs", "total_ns", "p50_ns", "p95_ns", "spans", "trace_ids")
_SEGMENT_COLUMNS: Final = ("trace_id", "span_id", "component", "layer", "service", "from_ns", "to_ns", "duration_ns")


class CriticalPath(NamedTuple):
    """What is answerable, of all runs and of one.

    Attributes:
        components: A row a workflow and component (or layer, or service): `critical_ns` of its spans on the critical
            path of all runs, its share of the runs' time, the runs that it is on the path of, median and 95th
            percentile of its time in these, and traces in which it took longest.
        workflows: A row a workflow: runs, their durations, spans that took part, and the slowest traces.
        segments: The path of one trace: who is answerable from when to when, in nanoseconds from the begin of its
            first run; by run, and in it by time.
    """

    components: Table
    workflows: Table
    segments: Table


class Path(NamedTuple):
    """The critical paths of a structure, by place.

    Attributes:
        is_on: Whether the span is on the path of its run.
        before: The sibling that had finished last when the span began; -1 if none had.
        last: The child that finished last; -1 without children.
        own_ns: How long the span itself is answerable; 0 where it is not on the path.
    """

    is_on: Bools
    before: Ints
    last: Ints
    own_ns: Ints


def critical_path(
    engine: Engine,
    *,
    selection: Selection = EVERYTHING,
    workflow: str | None = None,
    layer: str | None = None,
    by: str = "component",
    trace_id: str | None = None,
    limit: int = 20,
    max_segments: int = MAX_SEGMENTS,
    max_traces: int = MAX_TRACES,
    max_spans: int = MAX_SPANS,
) -> CriticalPath:
    """Return who is answerable for the time of workflows, and the path of one trace.

    Args:
        engine: Where the spans lie.
        selection: Which traces: those that have a selected span.
        workflow: The component whose spans are the runs; without it and `layer` the roots are.
        layer: The layer whose spans are the runs.
        by: What time is added up by: component, layer or service.
        trace_id: The trace whose path is shown, or the beginning of its id; without it the slowest of the workflow that
            took most time.
        limit: How many rows of components, and of workflows, at most.
        max_segments: How many segments at most: the longest.
        max_traces: How many traces are looked at, at most.
        max_spans: How many spans are looked at, at most.

    Raises:
        QueryError: There is nothing like `by`, no such trace, or the engine refused the query.
    """
    if by not in GROUPS:
        raise QueryError(f"A critical path can't be added up by {by!r}; take one of {', '.join(GROUPS)}.")
    trace_id = whole_id(engine, trace_id) if trace_id is not None else None
    spans = frame(engine, selection=selection, max_traces=max_traces, max_spans=max_spans)
    found = structure(spans, workflow, layer)
    way = path(found)
    runs = Runs.of(spans, found)
    notes = (*spans.notes, *found.notes, *no_runs(runs, workflow, layer))
    components = _components(spans, found, way, runs, by, limit, notes)
    workflows = _workflows(spans, found, runs, limit, notes)
    if trace_id is None:
        return CriticalPath(components, workflows, _slowest_path(spans, found, way, runs, max_segments))
    alone = frame(engine, trace_ids=(trace_id,), max_traces=1, max_spans=max_spans)
    of_one = structure(alone, workflow, layer)
    segments = _segments(alone, of_one, path(of_one), np.arange(len(of_one.tops)), max_segments)
    if not segments.rows:
        segments = Table(_SEGMENT_COLUMNS, [], 0, (f"Trace {trace_id!r} has no run that lasted.", *alone.notes))
    return CriticalPath(components, workflows, segments)


def path(found: Structure) -> Path:
    """Return the critical paths of all runs."""
    count = len(found.rows)
    child, is_end = found.events
    before, last = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    if len(child):
        group = found.parent[child]
        is_first = np.concatenate([[True], group[1:] != group[:-1]])
        first = np.maximum.accumulate(np.where(is_first, np.arange(len(child)), 0))
        latest = np.maximum.accumulate(np.where(is_end, np.arange(len(child)), -1))
        begins = np.flatnonzero(~is_end)
        ended = latest[begins]
        before[child[begins]] = np.where(ended >= first[begins], child[ended], -1)
        final = np.flatnonzero(np.concatenate([is_first[1:], [True]]))
        last[group[final]] = child[final]
    is_chosen = _reached(before, np.concatenate([last[last >= 0], np.flatnonzero(found.parent < 0)]))
    is_on = is_chosen.copy()

    def and_above(ancestor: Ints) -> None:
        is_on[:] &= is_on[ancestor]

    along(np.where(found.parent >= 0, found.parent, np.arange(count)), and_above)
    own_ns = np.where(is_on, found.end_ns - found.start_ns, 0)
    children = np.flatnonzero(is_on & (found.parent >= 0))
    np.subtract.at(own_ns, found.parent[children], (found.end_ns - found.start_ns)[children])
    return Path(is_on, before, last, own_ns)


def _reached(following: Ints, heads: Ints) -> Bools:
    """Return which places lie on the ways that begin at the heads, -1 being the end of each."""
    is_reached = np.zeros(len(following) + 1, np.bool_)
    is_reached[heads] = True
    jump = np.append(np.where(following >= 0, following, len(following)), len(following))
    while True:
        places = np.flatnonzero(is_reached[:-1] & (jump[:-1] < len(following)))
        if not len(places):
            return is_reached[:-1]
        is_reached[jump[places]] = True
        jump = jump[jump]


def _components(
    spans: SpanFrame, found: Structure, way: Path, runs: Runs, by: str, limit: int, notes: Sequence[str]
) -> Table:
    columns = ("workflow", by, "critical_ns", "critical_share", "runs", "p50_ns", "p95_ns", "trace_ids")
    values: tuple[str | None, ...] = getattr(spans, f"{by}s")
    cells = _cells(getattr(spans, by)[found.rows], len(values), found, way)
    weighted = cells.own_ns * runs.weight[cells.run]
    width = max(len(values), 1)
    groups, group = np.unique(runs.workflow[cells.run] * width + cells.value, return_inverse=True)
    critical_ns = np.bincount(group, weighted, len(groups))
    total_ns = np.bincount(runs.workflow, runs.duration_ns * runs.weight, len(spans.components))
    named = [(spans.components[int(key) // width], values[int(key) % width]) for key in groups]
    order = sorted(range(len(groups)), key=lambda number: (-critical_ns[number], *map(_name, named[number])))
    by_group = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[by_group], np.arange(len(groups) + 1))
    rows: list[tuple[Any, ...]] = []
    for number in order[:limit]:
        mine = by_group[bounds[number] : bounds[number + 1]]
        own_ns, run = cells.own_ns[mine], cells.run[mine]
        p50, p95 = quantiles(own_ns.astype(np.float64), runs.weight[run], _SHARES)
        share = critical_ns[number] / total_ns[int(groups[number]) // width]
        count = _whole(runs.weight[run].sum())
        evidence = slowest(spans, runs.trace[run], own_ns)
        rows.append(
            (*named[number], _whole(critical_ns[number]), float(share), count, float(p50), float(p95), evidence)
        )
    return Table(columns, rows, len(groups) - len(rows), tuple(notes))


class _Cells(NamedTuple):
    """Time on the path by run and value of a field, where there is any."""

    run: Ints
    value: Ints
    own_ns: Ints


def _cells(codes: npt.NDArray[np.int32], width: int, found: Structure, way: Path) -> _Cells:
    places = np.flatnonzero(way.own_ns)
    key = found.run[places] * max(width, 1) + codes[places]
    order = np.argsort(key, kind="stable")
    key = key[order]
    first = np.flatnonzero(np.concatenate([[True], key[1:] != key[:-1]])) if len(key) else np.empty(0, np.int64)
    own_ns = np.add.reduceat(way.own_ns[places][order], first) if len(key) else np.empty(0, np.int64)
    return _Cells(key[first] // max(width, 1), key[first] % max(width, 1), own_ns)


def _workflows(spans: SpanFrame, found: Structure, runs: Runs, limit: int, notes: Sequence[str]) -> Table:
    weighted = runs.duration_ns * runs.weight
    total_ns = np.bincount(runs.workflow, weighted, len(spans.components))
    took_part = np.bincount(found.run, minlength=len(runs.workflow))
    rows: list[tuple[Any, ...]] = []
    codes = np.unique(runs.workflow)
    order = sorted(map(int, codes), key=lambda code: (-total_ns[code], _name(spans.components[code])))
    for code in order[:limit]:
        mine = np.flatnonzero(runs.workflow == code)
        duration_ns, weight = runs.duration_ns[mine], runs.weight[mine]
        p50, p95 = quantiles(duration_ns.astype(np.float64), weight, _SHARES)
        evidence = slowest(spans, runs.trace[mine], duration_ns)
        count, span_count = _whole(weight.sum()), int(took_part[mine].sum())
        row = (spans.components[code], count, _whole(total_ns[code]), float(p50), float(p95), span_count, evidence)
        rows.append(row)
    return Table(_WORKFLOW_COLUMNS, rows, len(codes) - len(rows), tuple(notes))


def _slowest_path(spans: SpanFrame, found: Structure, way: Path, runs: Runs, limit: int) -> Table:
    if not len(runs.workflow):
        return Table(_SEGMENT_COLUMNS, [])
    total_ns = np.bincount(runs.workflow, runs.duration_ns * runs.weight)
    mine = np.flatnonzero(runs.workflow == np.argmax(total_ns))
    return _segments(spans, found, way, mine[[np.argmax(runs.duration_ns[mine])]], limit)


def _segments(spans: SpanFrame, found: Structure, way: Path, runs: Ints, limit: int) -> Table:
    """Return who is answerable when, in these runs."""
    is_wanted = np.zeros(len(found.tops) + 1, np.bool_)
    is_wanted[runs] = True
    on = np.flatnonzero(way.is_on & is_wanted[found.run])
    child = on[found.parent[on] >= 0]
    # Before each child on the path its parent is answerable, from the end of the child before or its own begin on.
    parent, before = found.parent[child], way.before[child]
    since = np.where(before >= 0, found.end_ns[before], found.start_ns[parent])
    last = way.last[on]
    tail = np.where(last >= 0, found.end_ns[last], found.start_ns[on])
    place = np.concatenate([parent, on])
    begin = np.concatenate([since, tail])
    end = np.concatenate([found.start_ns[child], found.end_ns[on]])
    lasts = end > begin
    place, begin, end = place[lasts], begin[lasts], end[lasts]
    order = np.lexsort((begin, found.run[place]))
    longest = np.argsort(-(end - begin)[order], kind="stable")[:limit]
    chosen = order[np.sort(longest)]
    place, begin, end = place[chosen], begin[chosen], end[chosen]
    row, zero = found.rows[place], int(found.start_ns[on].min(initial=_MAX_NS))
    rows = [
        (
            spans.trace_ids[int(spans.trace[number])],
            str(spans.span_ids[number]),
            spans.components[int(spans.component[number])],
            spans.layers[int(spans.layer[number])],
            spans.services[int(spans.service[number])],
            from_ns,
            to_ns,
            to_ns - from_ns,
        )
        for number, from_ns, to_ns in zip(row.tolist(), (begin - zero).tolist(), (end - zero).tolist(), strict=True)
    ]
    return Table(_SEGMENT_COLUMNS, rows, len(order) - len(rows))


def _name(text: str | None) -> str:
    return text or ""


def _whole(value: float) -> int:
    return round(float(value))
