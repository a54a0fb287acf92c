"""What fails: errors in groups, and what the failing calls of a group have in common.

A group are the spans with status ERROR, one exception type and one message after numbers, ids, paths, quoted texts and
addresses in it were masked (see `_masking`). The message is the exception's, else the status's. Counts are by weights.

`common` compares a sample of a group's calls with one of calls of the same components that did not fail. For a field
with a value, `share` is the part of the failing calls that have it, `other_share` that of the others, where each
component counts as much as among the failing ones; `lift` is the one by the other. Significance is of traces and not of
calls, since a retried call fails again for the same reason: Fisher's exact or the z-test where one component fails,
Mantel and Haenszel's where several do; corrected for the number of values looked at (Benjamini and Hochberg).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import ibis
import ibis.expr.types as ir

from otel_debugstore_analysis.analyses._masking import masked, masked_array
from otel_debugstore_analysis.analyses.statistics import benjamini_hochberg, two_shares
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, Table, tables
from otel_debugstore_analysis.query._selection import Filter, attributes_among, column_of

if TYPE_CHECKING:
    import pyarrow as pa

FIELDS: Final = ("service", "session", "pid", "thread_id", "layer", "kind", "name", "variant")
MAX_SAMPLE: Final = 1_000
MAX_GROUPS: Final = 5_000
EVIDENCE: Final = 3
_COMPONENTS: Final = 10
_VALUES: Final = 10
"""Of each field so many values are looked at: those that most failing calls have."""
_SIGNIFICANT: Final = 0.05
_LEAST_LIFT: Final = 1.2
_DIGITS: Final = 4
GROUP_COLUMNS: Final = (
    "exception_type",
    "message",
    "count",
    "share",
    "first_ns",
    "last_ns",
    "components",
    "trace_ids",
)
COMMON_COLUMNS: Final = (
    "exception_type",
    "message",
    "field",
    "value",
    "share",
    "other_share",
    "lift",
    "q_value",
    "traces",
    "other_traces",
)
Group = tuple[str | None, str]


class Errors(NamedTuple):
    """What fails.

    Attributes:
        groups: A row a group, the most frequent first; `components` are those with most of its errors.
        common: A row a group and a value of a field that failing calls have more often than others.
    """

    groups: Table
    common: Table


def errors(
    engine: Engine,
    *,
    selection: Selection = EVERYTHING,
    limit: int = 20,
    attributes: Sequence[str] = (),
    max_sample: int = MAX_SAMPLE,
) -> Errors:
    """Return the errors in groups, and what the calls that fail have in common.

    Args:
        engine: Where the spans lie.
        selection: Which spans count.
        limit: How many rows of each table at most.
        attributes: Keys of attributes that are looked at, beside `FIELDS`. Each takes time: most one that no span has.
        max_sample: How many failing calls, and how many others, are compared.

    Raises:
        QueryError: A field can't be used.
    """
    rows = tables.run(engine, _groups, selection.filter, MAX_GROUPS, **selection.parameters)
    if not rows:
        return Errors(Table(GROUP_COLUMNS, [], 0, ("No call failed.",)), Table(COMMON_COLUMNS, []))
    groups = _Groups.of(rows)
    shown = groups.order[:limit]
    fields = tuple(dict.fromkeys(map(column_of, (*FIELDS, *attributes))))
    components = sorted({name for group in shown for name in groups.components[group] if name is not None})
    failing = _failing(engine, selection, fields, max_sample)
    others = _others(engine, selection, fields, components, max_sample) if components else []
    of_group = {group: [call for call in failing if call.group == group] for group in shown}
    whole = sum(groups.calls.values())
    found = [
        (
            *group,
            round(groups.calls[group]),
            groups.calls[group] / whole,
            *groups.times[group],
            tuple(name for name in groups.components[group] if name is not None)[:_COMPONENTS],
            _evidence(of_group[group]),
        )
        for group in shown
    ]
    notes = (f"More than {MAX_GROUPS:,} groups: the rarest are left out.",) if len(rows) >= MAX_GROUPS else ()
    common = [row for group in shown for row in _common(group, of_group[group], others, fields)]
    sampled: tuple[str, ...] = ()
    if sum(groups.spans.values()) > max_sample:
        sampled = (f"{len(failing):,} failing calls are looked at of {sum(groups.spans.values()):,}, a sample.",)
    return Errors(
        Table(GROUP_COLUMNS, found, len(groups.order) - len(shown), notes),
        Table(COMMON_COLUMNS, common[:limit], max(len(common) - limit, 0), sampled),
    )


class _Groups(NamedTuple):
    """What is so of all spans of a group."""

    order: list[Group]
    calls: dict[Group, float]
    spans: dict[Group, int]
    times: dict[Group, tuple[int | None, int | None]]
    components: dict[Group, list[str | None]]

    @staticmethod
    def of(rows: Sequence[tuple[Any, ...]]) -> _Groups:
        count: defaultdict[Group, float] = defaultdict(float)
        spans: defaultdict[Group, int] = defaultdict(int)
        times: dict[Group, tuple[int | None, int | None]] = {}
        components: dict[Group, list[tuple[float, str | None]]] = defaultdict(list)
        for kind, message, component, calls, span_count, first_ns, last_ns in rows:
            group = kind, message
            count[group] += calls
            spans[group] += span_count
            known = [time for time in (*times.get(group, ()), first_ns, last_ns) if time is not None]
            times[group] = min(known, default=None), max(known, default=None)
            components[group].append((-calls, component))
        order = sorted(count, key=lambda group: (-count[group], group[0] or "", group[1]))
        named = {
            group: [name for _, name in sorted(found, key=lambda pair: (pair[0], pair[1] or ""))]
            for group, found in components.items()
        }
        return _Groups(order, count, spans, times, named)


class _Call(NamedTuple):
    group: Group
    component: str | None
    trace_id: str
    start_ns: int | None
    weight: float
    values: tuple[Any, ...]


def _failed(shape: Filter, fields: tuple[str, ...] = ()) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among((*shape.fields, *fields))))
    spans = spans.filter(spans.status == "ERROR")
    return spans.mutate(message=ibis.coalesce(spans.exception_message, spans.status_message))


def _groups(shape: Filter, limit: int) -> ir.Table:
    spans = _failed(shape).mutate(masked=lambda failed: masked(failed.message))
    groups = spans.group_by("exception_type", "masked", "component").aggregate(
        count=spans.sample_weight.sum(),
        spans=spans.count(),
        first_ns=spans.start_ns.min(),
        last_ns=spans.start_ns.max(),
    )
    return groups.order_by(ibis.desc("count"), "exception_type", "masked", "component").limit(limit)


_READ: Final = ("exception_type", "message", "component", "trace_id", "start_ns", "sample_weight")


def _failing(engine: Engine, selection: Selection, fields: tuple[str, ...], limit: int) -> list[_Call]:
    query = tables.compiled(engine.dialect, _failing_sample, selection.filter, fields, limit)
    return _calls(engine.fetch_arrow(query, selection.parameters, further=True))


def _failing_sample(shape: Filter, fields: tuple[str, ...], limit: int) -> ir.Table:
    return _sample(_failed(shape, fields), fields, limit)


def _others(
    engine: Engine, selection: Selection, fields: tuple[str, ...], components: Sequence[str], limit: int
) -> list[_Call]:
    """Return a sample of the calls of components that did not fail: those whose ids end in the least digits."""
    parameters = selection.parameters | {f"component_{place}": name for place, name in enumerate(components)}
    ((count,),) = tables.run(engine, _count_others, selection.filter, len(components), **parameters)
    whole = 16**_DIGITS
    below = min(math.ceil(whole * limit / max(count, 1)), whole - 1)
    query = tables.compiled(engine.dialect, _other_sample, selection.filter, fields, len(components), limit)
    return _calls(engine.fetch_arrow(query, parameters | {"below": f"{below:0{_DIGITS}x}"}, further=True))


def _not_failed(shape: Filter, count: int, fields: tuple[str, ...] = ()) -> ir.Table:
    spans = shape.apply(tables.spans(attributes_among((*shape.fields, *fields))))
    among = [tables.parameter(f"component_{place}") for place in range(count)]
    return spans.filter(spans.component.isin(among), spans.status != "ERROR")


def _count_others(shape: Filter, count: int) -> ir.Table:
    spans = _not_failed(shape, count)
    return spans.aggregate(count=spans.count())


def _other_sample(shape: Filter, fields: tuple[str, ...], count: int, limit: int) -> ir.Table:
    spans = _not_failed(shape, count, fields)
    spans = spans.filter(spans.span_id.right(_DIGITS) <= tables.parameter("below"))
    return _sample(spans.mutate(message=ibis.null("string")), fields, limit)


def _sample(spans: ir.Table, fields: tuple[str, ...], limit: int) -> ir.Table:
    """Return the spans whose ids end in the least digits: random ones, and the same on every engine."""
    spans = spans.mutate(order=spans.span_id.right(8)).order_by("order", "span_id", "trace_id", "start_ns", "pid")
    named = {f"field_{place}": spans[name].cast("string") for place, name in enumerate(fields)}
    return spans.select(*_READ, **named).limit(limit)


def _calls(rows: pa.Table) -> list[_Call]:
    messages = masked_array(rows["message"])
    columns = [rows[name].to_pylist() for name in rows.column_names]
    return [
        _Call((kind, message), component, trace_id, start_ns, weight, tuple(values))
        for message, kind, _, component, trace_id, start_ns, weight, *values in zip(messages, *columns, strict=True)
    ]


def _evidence(calls: Sequence[_Call]) -> tuple[str, ...]:
    """Return the traces of the latest calls."""
    latest = sorted(calls, key=lambda call: (-(call.start_ns or 0), call.trace_id))
    return tuple(dict.fromkeys(call.trace_id for call in latest))[:EVIDENCE]


def _common(
    group: Group, failing: Sequence[_Call], others: Sequence[_Call], fields: tuple[str, ...]
) -> Iterator[tuple[Any, ...]]:
    """Yield the values that failing calls have significantly more often, the largest lift first."""
    affected = {call.component for call in failing}
    beside = [call for call in others if call.component in affected]
    strata = _strata(failing, beside)
    seen = [
        (field, value, _Comparison.of(number, value, strata))
        for number, field in enumerate(fields)
        for value in _most(failing, number)
        if len({call.values[number] for call in (*failing, *beside)}) > 1
    ]
    q_values = benjamini_hochberg([comparison.p_value for *_, comparison in seen])
    rows = []
    for (field, value, found), q in zip(seen, q_values, strict=True):
        lift = found.share / found.other_share if found.other_share else None
        if q <= _SIGNIFICANT and (lift is None or lift >= _LEAST_LIFT):
            name = field.removeprefix("attributes.")
            row = (*group, name, value, found.share, found.other_share, lift, q, found.traces, found.other_traces)
            rows.append(row)
    rows.sort(key=lambda row: (-row[4] if row[6] is None else 0.0, -(row[6] or math.inf), -row[4], row[2], row[3]))
    yield from rows


def _most(calls: Sequence[_Call], number: int) -> list[Any]:
    """Return the values of a field that most calls have."""
    counts = Counter(call.values[number] for call in calls if call.values[number] is not None)
    return sorted(counts, key=lambda value: (-counts[value], value))[:_VALUES]


class _Comparison(NamedTuple):
    """How many of the failing calls have a value, and how many of the others."""

    share: float
    other_share: float
    traces: int
    other_traces: int
    p_value: float

    @staticmethod
    def of(number: int, value: Any, strata: Sequence[_Stratum]) -> _Comparison:
        """Compare how many have this value of the field of this number."""
        counts = []
        share = other_share = 0.0
        whole = sum(stratum.failing.weight for stratum in strata)
        for stratum in strata:
            part = stratum.failing.weight / whole
            having = [[call for call in side.calls if call.values[number] == value] for side in stratum]
            share += part * stratum.failing.share(having[0])
            other_share += part * stratum.others.share(having[1])
            counts.append([(_traces(some), side.traces) for some, side in zip(having, stratum, strict=True)])
        traces, other_traces = (sum(both[side][0] for both in counts) for side in range(2))
        return _Comparison(share, other_share, traces, other_traces, _p_value(counts))


class _Side(NamedTuple):
    """Calls of one component, all of which failed or none."""

    calls: list[_Call]
    weight: float
    traces: int

    def share(self, some: Sequence[_Call]) -> float:
        """Return how much of the weight some of the calls have."""
        return sum(call.weight for call in some) / self.weight if self.weight else 0.0


class _Stratum(NamedTuple):
    """The calls of one component."""

    failing: _Side
    others: _Side


def _strata(failing: Sequence[_Call], others: Sequence[_Call]) -> list[_Stratum]:
    """Return calls by component."""
    components = sorted({call.component for call in failing}, key=lambda name: name or "")
    sides: list[dict[str | None, list[_Call]]] = [{name: [] for name in components} for _ in range(2)]
    for side, calls in zip(sides, (failing, others), strict=True):
        for call in calls:
            side[call.component].append(call)
    return [_Stratum(*(_side(side[name]) for side in sides)) for name in components]


def _side(calls: list[_Call]) -> _Side:
    return _Side(calls, sum(call.weight for call in calls), _traces(calls))


def _traces(calls: Sequence[_Call]) -> int:
    return len({call.trace_id for call in calls})


def _p_value(strata: Sequence[Sequence[tuple[int, int]]]) -> float:
    """Return how likely such differences are by chance: of strata with (hits, count) of both sides each."""
    told = [(one, other) for one, other in strata if one[1] and other[1]]
    if len(told) == 1:
        return two_shares(*told[0][0], *told[0][1])
    difference = variance = 0.0
    for (hits, count), (other_hits, other_count) in told:
        whole, both = count + other_count, hits + other_hits
        difference += hits - count * both / whole
        variance += count * other_count * both * (whole - both) / (whole**2 * max(whole - 1, 1))
    return math.erfc(abs(difference) / math.sqrt(2 * variance)) if variance > 0 else 1.0
