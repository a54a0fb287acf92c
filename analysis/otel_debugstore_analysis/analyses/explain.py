"""What tells slow calls of a component, or failing ones, from its others.

Slow calls are those that take at least as long as nine tenths of the component's calls do; where so many take equally
long that these would be more than half of the calls, those that take longer. `slow_ns` sets another bound.

Compared with the others are

- `features`: attributes (numbers by quarters), the resource they come from, process, session, variant, inputs, callers,
  and which children there are and how many. For each value its share among the slow and among the others, the lift (how
  much likelier a call with it is slow than any call), and whether that can be chance: see `_features`.
- `suspects`: where slow calls spend more time: self times and gaps between clients and servers of all that lies below
  them, against the same below the others; see `root_cause`.

Looked at are the last calls only, and of the traces of these a sample: notes say so. Whether a feature is the cause, or
goes with it, no recording can tell.

Sources: the comparison is that of Honeycomb's BubbleUp and of Bhagwan et al., "Adtributor" (NSDI 2014); Fisher's exact
test; Benjamini and Hochberg (1995).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from otel_debugstore import attributes as names
from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.analyses._calls import Bools, Floats, Ints, Part
from otel_debugstore_analysis.analyses._features import (
    SAYS_THAT_IT_FAILED,
    Feature,
    Units,
    attribute_features,
    telling,
    tests,
)
from otel_debugstore_analysis.analyses._points import PROCESS
from otel_debugstore_analysis.analyses._quantiles import quantiles
from otel_debugstore_analysis.analyses._resources import resource_features
from otel_debugstore_analysis.analyses.root_cause import COLUMNS, ranking
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, SpanFrame, Table, frame, tables
from otel_debugstore_analysis.query._columns import numpy_of
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import ALL_ATTRIBUTES, INSTANCE, Filter, attributes_among

if TYPE_CHECKING:
    import ibis.expr.types as ir

WHATS: Final = ("slow", "failing")
SLOW_SHARE: Final = 0.9
MAX_CALLS: Final = 2_000
MAX_TRACES: Final = 200
MAX_SPANS: Final = 30_000
_FEATURES: Final = (
    "kind", "key", "value", "share", "other_share", "lift", "calls", "q_value", "unit", "trace_ids",
)  # fmt: skip
_SUMMARY: Final = ("component", "what", "bound_ns", "calls", "hits", "p50_ns", "hits_p50_ns", "trace_ids")
_READ: Final = (
    "trace_id", "span_id", "start_ns", "duration_ns", "status", "service", "session", "pid", "thread_id", "layer",
    "kind", "variant", "resource_id", "sample_weight", ALL_ATTRIBUTES,
)  # fmt: skip
_PLAIN: Final = ("service", "session", "pid", "thread_id", "layer", "kind", "variant")
_INPUTS: Final = (names.INPUT_DIGEST,)
_OF_INSTANCE: Final = ("resource_id", "service", "pid")
_MAX_INSTANCES: Final = 10_000
_OWN: Final = (names.COMPONENT, names.LAYER, names.VARIANT, names.THREAD_ID, names.SERVICE_NAME, names.PROCESS_PID)


class Explanation(NamedTuple):
    """Why some calls are slow, or fail.

    Attributes:
        summary: One row: the component, the bound, how many calls there are and how many of them are slow or fail.
        features: A row a value, the most telling first.
        suspects: A row a service or component below the calls, the most suspect first.
    """

    summary: Table
    features: Table
    suspects: Table


def explain(
    engine: Engine,
    *,
    selection: Selection = EVERYTHING,
    what: str = "slow",
    component: str | None = None,
    slow_ns: int | None = None,
    limit: int = 20,
    max_calls: int = MAX_CALLS,
    max_traces: int = MAX_TRACES,
    max_spans: int = MAX_SPANS,
) -> Explanation:
    """Return what tells slow or failing calls of a component from the others.

    Args:
        engine: Where the spans lie.
        selection: Which calls, of those of the component.
        what: slow or failing.
        component: Whose calls; without it the one with most time of its own, or most errors.
        slow_ns: Calls that take so long or longer are slow.
        limit: How many rows of each table at most.
        max_calls: How many calls are looked at, the last ones.
        max_traces: Of how many of the slow calls, and of the others, the traces are looked at.
        max_spans: How many spans of these.

    Raises:
        QueryError: `what` is none of both, or the engine refused the query.
    """
    if what not in WHATS:
        raise QueryError(f"{what!r} can't be explained; take slow or failing.")
    if component is None:
        component, found = _most(engine, selection, what)
        if not found:
            return _nothing(what, component, ("No call failed.",) if what == "failing" else ("There are no spans.",))
    calls, more = _calls_of(engine, selection, component, max_calls)
    if not calls.num_rows:
        return _nothing(what, component, (f"No span there is of component {str(component)[:80]!r}.",))
    duration_ns = numpy_of(calls["duration_ns"].fill_null(0)).astype(np.float64)
    weight = numpy_of(calls["sample_weight"].fill_null(1.0))
    bound = _bound(duration_ns, weight, slow_ns)
    errors = np.array([status == "ERROR" for status in calls["status"].to_pylist()], np.bool_)
    is_hit = errors if what == "failing" else duration_ns >= bound
    notes = [f"The last {calls.num_rows:,} of {more + calls.num_rows:,} calls are looked at."] if more else []
    summary = _summary(component, what, bound, calls, is_hit, duration_ns, weight, notes)
    if is_hit.all() or not is_hit.any():
        who = "No call" if not is_hit.any() else "Every call"
        does = "failed" if what == "failing" else "took so long"
        note = f"{who} of {str(component)[:80]!r} {does}: there is nothing to tell apart."
        return Explanation(summary, Table(_FEATURES, [], 0, (note,)), _no_suspects(note))
    around = _around(engine, calls, is_hit, max_traces, max_spans)
    own = {*_OWN, *(SAYS_THAT_IT_FAILED if what == "failing" else ())}
    features = _features(engine, calls, is_hit, weight, around, own, limit)
    return Explanation(summary, features, _suspects(around, is_hit, limit))


def _nothing(what: str, component: str | None, notes: tuple[str, ...]) -> Explanation:
    return Explanation(Table(_SUMMARY, [], 0, notes), Table(_FEATURES, [], 0, notes), _no_suspects(*notes))


def _no_suspects(*notes: str) -> Table:
    return Table(("component", *COLUMNS), [], 0, notes)


def _most(engine: Engine, selection: Selection, what: str) -> tuple[str | None, bool]:
    rows = tables.run(engine, _components, selection.filter, what, **selection.parameters)
    return (rows[0][0], True) if rows else (None, False)


def _components(shape: Filter, what: str) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among(shape.fields)))
    if what == "failing":
        spans = spans.filter(spans.status == "ERROR")
        groups = spans.group_by("component").aggregate(measure=spans.count())
    else:
        groups = spans.group_by("component").aggregate(measure=spans.self_ns.sum())
    return groups.order_by(ibis.desc("measure", nulls_first=False), "component").limit(1).select("component")


def _calls_of(engine: Engine, selection: Selection, component: str | None, limit: int) -> tuple[pa.Table, int]:
    """Return the last calls of a component, by begin, and how many further ones there are."""
    chosen = Selection(selection.since_ns, selection.until_ns, {**selection.where, "component": component or ""})
    (count,) = tables.run(engine, _count, chosen.filter, **chosen.parameters)[0]
    query = tables.compiled(engine.dialect, _last, chosen.filter, limit)
    found = engine.fetch_arrow(query, chosen.parameters, further=True)
    return found, max(int(count) - found.num_rows, 0)


def _count(shape: Filter) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among(shape.fields)))
    return spans.aggregate(count=spans.count())


def _last(shape: Filter, limit: int) -> ir.Table:
    spans = shape.apply(tables.spans((ALL_ATTRIBUTES, *attributes_among(shape.fields))))
    rows = spans.order_by(ibis.desc("start_ns", nulls_first=False), "trace_id", "span_id", "pid").limit(limit)
    return rows.select(*_READ)


def _bound(duration_ns: Floats, weight: Floats, slow_ns: int | None) -> float:
    """Return from which duration on calls are slow."""
    if slow_ns is not None:
        return float(slow_ns)
    bound = float(quantiles(duration_ns, weight, (SLOW_SHARE,))[0])
    longer = duration_ns[duration_ns > bound]
    are_many = weight[duration_ns >= bound].sum() > weight.sum() / 2
    return float(longer.min()) if are_many and len(longer) else bound


def _summary(
    component: str | None,
    what: str,
    bound: float,
    calls: pa.Table,
    is_hit: Bools,
    duration_ns: Floats,
    weight: Floats,
    notes: list[str],
) -> Table:
    medians = [
        float(quantiles(duration_ns[rows], weight[rows], (0.5,))[0]) if rows.any() else None
        for rows in (np.ones(len(is_hit), np.bool_), is_hit)
    ]
    order = np.lexsort((np.arange(len(is_hit)), -duration_ns))
    slowest = [calls["trace_id"][int(row)].as_py() for row in order if is_hit[row]][:3]
    counts = round(float(weight.sum())), round(float(weight[is_hit].sum()))
    shown = bound if what == "slow" else None
    row = (component, what, shown, *counts, *medians, tuple(dict.fromkeys(slowest)))
    return Table(_SUMMARY, [row], 0, tuple(notes))


class _Around(NamedTuple):
    """Traces of some of the calls: by call its row in the frame, -1 where its trace isn't there; and what is said."""

    spans: SpanFrame
    row: Ints
    notes: tuple[str, ...]


def _around(engine: Engine, calls: pa.Table, is_hit: Bools, max_traces: int, max_spans: int) -> _Around:
    traces, ids = calls["trace_id"].to_pylist(), calls["span_id"].to_pylist()
    chosen: dict[str, None] = {}
    counts: list[int] = []
    for wanted in (True, False):
        of_side = {trace for trace, hit in zip(traces, is_hit.tolist(), strict=True) if bool(hit) is wanted}
        chosen |= dict.fromkeys(sorted(of_side, key=lambda trace: (trace[-16:], trace))[:max_traces])
        counts.append(len(of_side))
    spans = frame(engine, trace_ids=tuple(chosen), max_traces=2 * max_traces, max_spans=max_spans)
    number = {trace: place for place, trace in enumerate(spans.trace_ids)}
    places: dict[tuple[int, str, int], int] = {}
    wanted_ids = set(ids)
    span_ids = spans.span_ids
    for place in range(len(spans)):
        if span_ids[place] in wanted_ids:
            places.setdefault((int(spans.trace[place]), span_ids[place], int(spans.start_ns[place])), place)
    starts = calls["start_ns"].to_pylist()
    rows = [
        places.get((number.get(trace, -1), span, start or 0), -1)
        for trace, span, start in zip(traces, ids, starts, strict=True)
    ]
    return _Around(spans, np.array(rows, np.int64), (*_sampled(counts, max_traces), *spans.notes))


def _sampled(counts: list[int], max_traces: int) -> tuple[str, ...]:
    """Return a sentence if not all traces are looked at, of so many with slow or failing calls, and with others."""
    if max(counts) <= max_traces:
        return ()
    looked_at = [f"{min(count, max_traces):,} of {count:,}" for count in counts]
    return (
        f"Callers, children and suspects are those of {looked_at[0]} traces with such calls and {looked_at[1]} with "
        "others, samples by their ids.",
    )


def _features(
    engine: Engine, calls: pa.Table, is_hit: Bools, weight: Floats, around: _Around, own: Set[str], limit: int
) -> Table:
    """Return the features; attributes that are among `own` are none."""
    features = [Feature("span", name, _texts(calls[name])) for name in _PLAIN]
    attributes = attribute_features("attribute", calls[ALL_ATTRIBUTES].to_pylist())
    for one in attributes:
        if one.key not in own:
            features.append(one._replace(kind="input") if one.key in _INPUTS or "input" in one.key else one)
    features += resource_features(engine, calls["resource_id"].to_pylist())
    units = Units(_coded(calls["trace_id"].to_pylist()), _coded(_processes(engine, calls)))
    hit_share = float(weight[is_hit].sum() / weight.sum())
    found = tests(features, is_hit, weight, units, hit_share)
    near = np.flatnonzero(around.row >= 0)
    if is_hit[near].any() and not is_hit[near].all():
        of_near = Units(units.trace[near], units.process[near])
        beside = tests(_beside(around, near), is_hit[near], weight[near], of_near, hit_share)
        found += [(one._replace(example=int(near[one.example])), p_value) for one, p_value in beside]
    told = telling(found)
    rows = [(*one[:7], q_value, one.unit, (calls["trace_id"][one.example].as_py(),)) for one, q_value in told[:limit]]
    notes = () if rows else ("Nothing that is known of the calls tells them apart.",)
    return Table(_FEATURES, rows, len(told) - len(rows), (*around.notes, *notes))


def _texts(column: pa.ChunkedArray) -> list[str | None]:
    return [None if value is None else str(value) for value in column.to_pylist()]


def _processes(engine: Engine, calls: pa.Table) -> list[Any]:
    """Return by call which process it is of."""
    then = Selection(since_ns=pc.min(calls["start_ns"]).as_py())
    rows = tables.run(engine, _instances, then.filter, _MAX_INSTANCES, **then.parameters)
    instances = {row[:-1]: row[-1] for row in rows}
    where = zip(*(calls[name].to_pylist() for name in _OF_INSTANCE), strict=True)
    others = zip(*(calls[name].to_pylist() for name in PROCESS if name != INSTANCE), strict=True)
    return list(zip(map(instances.get, where), others, strict=True))


def _instances(shape: Filter, limit: int) -> ir.Table:
    """Return where processes ran, a row a resource: as a column of the calls it would be found for all spans."""
    spans = shape.apply(tables.spans((INSTANCE,)))
    return spans.select(*_OF_INSTANCE, INSTANCE).distinct().order_by(*_OF_INSTANCE).limit(limit)


def _coded(values: list[Any]) -> Ints:
    numbers: dict[Any, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)


def _beside(around: _Around, near: Ints) -> list[Feature]:
    """Return callers, and the children of calls: which there are, and how many."""
    spans, rows = around.spans, around.row[near]
    parent = spans.parent[rows]
    callers = [spans.components[spans.component[one]] if one >= 0 else None for one in parent.tolist()]
    features = [Feature("caller", "component", callers)]
    place = np.full(len(spans) + 1, -1, np.int64)
    place[rows] = np.arange(len(rows))
    child = np.flatnonzero(place[spans.parent] >= 0)
    counts = Counter(zip(place[spans.parent[child]].tolist(), spans.component[child].tolist(), strict=True))
    kinds = sorted({code for _, code in counts})[:100]
    for code in kinds:
        numbers = [counts.get((call, code), 0) for call in range(len(rows))]
        name = spans.components[code] or ""
        features.append(Feature("child", name, ["present" if number else "absent" for number in numbers]))
        if max(numbers) > 1:
            features.append(Feature("number of children", name, [str(number) for number in numbers]))
    siblings = np.bincount(parent[parent >= 0], minlength=1) if len(parent) else np.zeros(1, np.int64)
    of_call = [str(int(siblings[one])) if one >= 0 else None for one in parent.tolist()]
    return [*features, Feature("number of siblings", "calls of the same parent", of_call)]


def _suspects(around: _Around, is_hit: Bools, limit: int) -> Table:
    parts = [_below(around.spans, around.row[(around.row >= 0) & (is_hit == wanted)]) for wanted in (True, False)]
    found = ranking(parts[0], parts[1], None, limit)
    return replace(found, notes=tuple(dict.fromkeys((*around.notes, *found.notes))))


def _below(spans: SpanFrame, calls: Ints) -> Part:
    """Return the calls with all that lies below them, a group a call."""
    group = np.full(len(spans) + 1, -1, np.int64)
    group[calls] = np.arange(len(calls))
    above = np.append(np.where(spans.parent >= 0, spans.parent, len(spans)), len(spans))
    while True:
        rows = np.flatnonzero((group < 0) & (above < len(spans)))
        if not len(rows):
            break
        found, further = group[above[rows]], above[above[rows]]
        group[rows] = found
        above[rows] = np.where(found < 0, further, len(spans))
    group = group[:-1]
    rows = np.flatnonzero(group >= 0)
    return Part(spans, rows, np.unique(group[rows], return_inverse=True)[1].astype(np.int64))
