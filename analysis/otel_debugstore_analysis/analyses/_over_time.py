"""Patterns over the calls of a component: first calls that are slow, and inputs that grow. See `patterns`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from otel_debugstore import attributes as names
from otel_debugstore_analysis.analyses._found import Finding, Found
from otel_debugstore_analysis.analyses._points import PROCESS
from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses._structure import Ints
from otel_debugstore_analysis.query import Engine, Selection, tables
from otel_debugstore_analysis.query._columns import numpy_of
from otel_debugstore_analysis.query._frame import Coded, SpanFrame
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import Filter, attributes_among

if TYPE_CHECKING:
    import ibis.expr.types as ir

SIZES: Final = (
    "items",
    "size",
    "http.request.body.size",
    "http.response.body.size",
    "messaging.message.body.size",
    "messaging.batch.message_count",
    "db.response.returned_rows",
    "gen_ai.usage.input_tokens",
)
"""Attributes that say how much a call had to do with."""
_PAYLOAD: Final = "the size of its input"
_MAX_PAYLOADS: Final = 200_000
_MANY_CALLS: Final = 5
_TIMES_SLOWER: Final = 3.0
_LEAST_NS: Final = 1_000_000
_CALLS_THAT_GROW: Final = 8
_GROWS: Final = 0.5
_COSTS: Final = 0.7
_EVIDENCE: Final = 3
_TASK: Final = (*PROCESS, "task")
"""What tells first calls apart: of each process the calls of each component."""


def cold_starts(engine: Engine, selection: Selection, limit: int) -> Found:
    """Return the components whose first call in a process took much longer than others."""
    rows = tables.run(engine, _first_calls, selection.filter, **selection.parameters)
    by_component: dict[str | None, list[tuple[Any, ...]]] = {}
    for component, *row in rows:
        by_component.setdefault(component, []).append(tuple(row))
    findings = []
    for component, processes in by_component.items():
        total_ns = sum(first_ns for first_ns, _, _, _ in processes)
        saved_ns = sum(first_ns - median_ns for first_ns, median_ns, _, _ in processes)
        slowest = sorted(processes, key=lambda row: (row[1] - row[0], row[3]))
        traces = tuple(dict.fromkeys(trace_id for *_, trace_id in slowest))[:_EVIDENCE]
        first_ns, median_ns, calls, _ = slowest[0]
        detail = f"first call of a process {first_ns / max(median_ns, 1):,.1f} times the median of {calls:,} there"
        count = len(processes)
        sums = (count, count, total_ns, saved_ns, count)
        findings.append(Finding("cold_start", None, component, *sums, detail, traces, is_sampled=False))
    return Found(sorted(findings, key=lambda one: one.order)[:limit], len(findings))


def _first_calls(selected: Filter) -> ir.Table:
    """Return component, first duration, median, calls and trace, a row a process whose first call was slow."""
    timed = _timed(selected)  # not those that are joined, by columns: Ibis would make them a common table
    groups = timed.group_by(*_TASK).aggregate(
        calls=timed.count(), begin_ns=timed.start_ns.min(), median_ns=timed.duration_ns.quantile(0.5)
    )
    groups = groups.filter(groups.calls >= _MANY_CALLS)
    spans = _timed(selected, "component", "trace_id")
    both = spans.join(groups, [*(spans[name] == groups[name] for name in _TASK), spans.start_ns == groups.begin_ns])
    slower_ns = both.duration_ns - both.median_ns
    both = both.filter(both.duration_ns >= both.median_ns * _TIMES_SLOWER, slower_ns >= _LEAST_NS)
    firsts = both.group_by(*_TASK).aggregate(
        component=both.component.max(),
        first_ns=both.duration_ns.max(),
        median_ns=both.median_ns.max(),
        calls=both.calls.max(),
        trace_id=both.trace_id.min(),
    )
    return firsts.select("component", "first_ns", "median_ns", "calls", "trace_id").order_by(
        ibis.desc("first_ns"), "trace_id"
    )


def _timed(selected: Filter, *columns: str) -> ir.Table:
    spans = selected.apply(tables.spans(attributes_among((*selected.fields, *PROCESS))))
    key = {"pid": spans.pid.fill_null(-1), "task": spans.component.fill_null("")}
    found = spans.mutate(**key).select(*_TASK, "start_ns", "duration_ns", *columns)
    return found.filter(found.start_ns.notnull(), found.duration_ns >= 0)


def growing_inputs(engine: Engine, spans: SpanFrame, limit: int) -> Found:
    """Return the components whose inputs get larger from call to call, and whose calls take longer with them."""
    findings = []
    for name, size in _sizes(engine, spans).items():
        rows = np.flatnonzero(~np.isnan(size))
        order = rows[np.lexsort((rows, spans.start_ns[rows], spans.component[rows]))]
        bounds = np.flatnonzero(np.diff(spans.component[order], prepend=-1, append=-1) != 0)
        for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            found = _growing(spans, order[first:last], size, name)
            if found is not None:
                findings.append(found)
    best: dict[str | None, Finding] = {}
    for one in sorted(findings, key=lambda one: (*one.order, one.detail)):
        best.setdefault(one.component, one)
    ranked = sorted(best.values(), key=lambda one: one.order)
    return Found(ranked[:limit], len(ranked))


def _growing(spans: SpanFrame, row: Ints, size: Floats, name: str) -> Finding | None:
    if len(row) < _CALLS_THAT_GROW:
        return None
    sizes, duration_ns = size[row], (spans.end_ns - spans.start_ns)[row].astype(np.float64)
    grows = _rank_correlation(np.arange(len(row), dtype=np.float64), sizes)
    costs = _rank_correlation(sizes, duration_ns)
    if not (grows >= _GROWS and costs >= _COSTS):
        return None
    before_ns = float(np.median(duration_ns[: len(row) // 4]))
    beyond_ns = np.maximum(duration_ns - before_ns, 0.0)
    weight = spans.weight[row]
    detail = f"{name} from {sizes[0]:,.0f} to {sizes[-1]:,.0f}; rank correlation with the duration {costs:.2f}"
    slowest = np.argsort(-beyond_ns, kind="stable")[: 8 * _EVIDENCE]
    traces = tuple(dict.fromkeys(spans.trace_ids[int(number)] for number in spans.trace[row[slowest]]))[:_EVIDENCE]
    component = spans.components[int(spans.component[row[0]])]
    calls, saved_ns = float(weight.sum()), float(beyond_ns @ weight)
    sums = (1, calls, float(duration_ns @ weight), saved_ns, 1)
    return Finding("growing_input", None, component, *sums, detail, traces)


def _rank_correlation(one: Floats, other: Floats) -> float:
    """Return Spearman's rank correlation; 0 where one of both does not vary."""
    ranks = [_ranks(values) for values in (one, other)]
    ranks = [values - values.mean() for values in ranks]
    scale = float(np.sqrt((ranks[0] @ ranks[0]) * (ranks[1] @ ranks[1])))
    return float(ranks[0] @ ranks[1]) / scale if scale else 0.0


def _ranks(values: Floats) -> Floats:
    """Return ranks; equal values share the mean of theirs."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks: Floats = (last - (count - 1) / 2.0)[place]
    return ranks


def _sizes(engine: Engine, spans: SpanFrame) -> dict[str, Floats]:
    """Return the sizes that are known, by what they are; NaN where a span has none."""
    found = {}
    for name in SIZES:
        column = spans.extra.get(name)
        if isinstance(column, Coded):
            found[name] = np.array([_number(text) for text in column.values])[column.codes]
    digest = spans.extra.get(names.INPUT_DIGEST)
    if isinstance(digest, Coded):
        found[_PAYLOAD] = _payload_sizes(engine, digest)[digest.codes]
    return found


def _number(text: str | None) -> float:
    try:
        value = float(text) if text is not None else float("nan")
    except ValueError:
        return float("nan")
    return value if abs(value) < float("inf") else float("nan")


def _payload_sizes(engine: Engine, digest: Coded) -> Floats:
    """Return the sizes of payloads in bytes; NaN where it is not known."""
    query = tables.compiled(engine.dialect, _payloads)
    payloads = engine.fetch_arrow(query, {}, further=True)
    place = pc.index_in(pa.array(digest.values, pa.string()), value_set=payloads["digest"].combine_chunks())
    sizes = payloads["size_bytes"].cast(pa.float64()).take(place)
    return np.asarray(numpy_of(sizes.fill_null(float("nan"))), dtype=np.float64)


def _payloads() -> ir.Table:
    payloads = tables.payloads()
    return payloads.select("digest", "size_bytes").order_by("digest").limit(_MAX_PAYLOADS)
