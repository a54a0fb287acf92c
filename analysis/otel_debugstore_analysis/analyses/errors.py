"""What fails: errors in groups, and what the failing calls of a group have in common.

A group are the spans with status ERROR, one exception type and one message after numbers, ids, paths, quoted texts and
addresses in it were masked (see `_masking`). The message is the exception's, else the status's. Counts are by weights.

`common` compares a sample of a group's calls with one of calls of the same components that did not fail, by the fields
of spans, their attributes and those of their resources: see `_in_common`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from otel_debugstore import attributes as names
from otel_debugstore_analysis.analyses._error_calls import FIELDS, Group, Sample, failed, of_groups, sample, seen
from otel_debugstore_analysis.analyses._features import SAYS_THAT_IT_FAILED, Feature, attribute_features, binned
from otel_debugstore_analysis.analyses._in_common import Calls
from otel_debugstore_analysis.analyses._masking import masked
from otel_debugstore_analysis.analyses._resources import resource_features
from otel_debugstore_analysis.query import EVERYTHING, Engine, Selection, Table, tables
from otel_debugstore_analysis.query._columns import coded, numpy_of
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import ALL_ATTRIBUTES, Filter

if TYPE_CHECKING:
    import ibis.expr.types as ir

MAX_SAMPLE: Final = 500
MAX_GROUPS: Final = 5_000
EVIDENCE: Final = 3
PER_GROUP: Final = 5
"""So many values of a group are shown, those that most tell its calls from the others."""
_COMPONENTS: Final = 10
_COMPARED: Final = 100
_MAX_COMPONENTS: Final = 200
_TOLD_ALREADY: Final = frozenset(
    {
        names.COMPONENT,
        names.LAYER,
        names.VARIANT,
        names.THREAD_ID,
        names.SERVICE_NAME,
        names.SESSION_ID,
        names.PROCESS_PID,
        names.RECORD_CODE,
    }
)
"""Attributes that fields of spans are made of."""
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


class Errors(NamedTuple):
    """What fails.

    Attributes:
        groups: A row a group, the most frequent first; `components` are those with most of its errors.
        common: A row a group and a value of a field that failing calls have more often than others.
    """

    groups: Table
    common: Table


def errors(
    engine: Engine, *, selection: Selection = EVERYTHING, limit: int = 20, max_sample: int = MAX_SAMPLE
) -> Errors:
    """Return the errors in groups, and what the calls that fail have in common.

    Args:
        engine: Where the spans lie.
        selection: Which spans count.
        limit: How many rows of each table at most.
        max_sample: How many failing calls, and how many others, are compared, about.

    Raises:
        QueryError: A field can't be used.
    """
    rows = tables.run(engine, _groups, selection.filter, MAX_GROUPS, **selection.parameters)
    if not rows:
        return Errors(Table(GROUP_COLUMNS, [], 0, ("No call failed.",)), Table(COMMON_COLUMNS, []))
    groups = _Groups.of(rows)
    shown = groups.order[:limit]
    compared = shown[:_COMPARED]
    drawn = sample(engine, selection, groups.components_of(compared), sum(groups.spans.values()), max_sample)
    evidence = _evidence(engine, selection, groups, compared, drawn)
    whole = sum(groups.calls.values())
    found = [
        (
            *group,
            round(groups.calls[group]),
            groups.calls[group] / whole,
            *groups.times[group],
            tuple(name for name in groups.components[group] if name is not None)[:_COMPONENTS],
            evidence.get(group, ()),
        )
        for group in shown
    ]
    notes = (f"More than {MAX_GROUPS:,} groups: the rarest are left out.",) if len(rows) >= MAX_GROUPS else ()
    return Errors(
        Table(GROUP_COLUMNS, found, len(groups.order) - len(shown), notes),
        _common(engine, drawn, compared, sum(groups.spans.values()), limit),
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

    def components_of(self, some: Sequence[Group]) -> list[str]:
        """Return the components of some groups, if there are too many those of the most frequent."""
        found = dict.fromkeys(name for group in some for name in self.components[group] if name is not None)
        return sorted(list(found)[:_MAX_COMPONENTS])


def _groups(shape: Filter, limit: int) -> ir.Table:
    spans = failed(shape).mutate(masked=lambda failed: masked(failed.message))
    groups = spans.group_by("exception_type", "masked", "component").aggregate(
        count=spans.sample_weight.sum(),
        spans=spans.count(),
        first_ns=spans.start_ns.min(),
        last_ns=spans.start_ns.max(),
    )
    return groups.order_by(ibis.desc("count"), "exception_type", "masked", "component").limit(limit)


def _evidence(
    engine: Engine, selection: Selection, groups: _Groups, compared: Sequence[Group], drawn: Sample
) -> dict[Group, tuple[str, ...]]:
    """Return by group the traces of the latest calls of the sample; of those that are not in it, of the last call."""
    calls = seen(drawn.failing)
    rare = set(compared).difference(drawn.groups)
    times = sorted({last_ns for group in rare if (last_ns := groups.times[group][1]) is not None})
    if times:
        calls += of_groups(engine, selection, times)
    found: defaultdict[Group, dict[str, None]] = defaultdict(dict)
    for call in sorted(calls, key=lambda call: (-(call.start_ns or 0), call.trace_id)):
        found[call.group][call.trace_id] = None
    return {group: tuple(traces)[:EVIDENCE] for group, traces in found.items()}


def _common(engine: Engine, drawn: Sample, shown: Sequence[Group], span_count: int, limit: int) -> Table:
    both = pa.concat_tables([drawn.failing, drawn.others])
    calls = Calls.of(
        coded(both["component"]).codes.astype(np.int64),
        coded(both["trace_id"]).codes.astype(np.int64),
        numpy_of(both["sample_weight"]),
        list(_features(engine, both, drawn.failing.num_rows)),
    )
    others = np.arange(drawn.failing.num_rows, both.num_rows)
    rows, left_out = [], 0
    for group in shown:
        failing = np.array([place for place, one in enumerate(drawn.groups) if one == group], np.int64)
        found = calls.in_common(failing, others) if len(failing) else []
        rows += [(*group, *one) for one in found[:PER_GROUP]]
        left_out += len(found[PER_GROUP:])
    sampled: tuple[str, ...] = ()
    if span_count > drawn.failing.num_rows:
        sampled = (f"{drawn.failing.num_rows:,} failing calls are looked at of {span_count:,}, a sample.",)
    return Table(COMMON_COLUMNS, rows[:limit], left_out + len(rows[limit:]), sampled)


def _features(engine: Engine, calls: pa.Table, failing: int) -> Iterator[Feature]:
    """Yield what is known of calls, of which so many, the first, failed; a name that fields have is one of these."""
    for place, name in enumerate(FIELDS):
        yield Feature("span", name, calls[f"field_{place}"].to_pylist())
    attributes = attribute_features("attribute", calls[ALL_ATTRIBUTES].to_pylist(), failing)
    resources = resource_features(engine, calls["resource_id"].to_pylist())
    for one in (*attributes, *resources):
        if one.key not in _TOLD_ALREADY | SAYS_THAT_IT_FAILED:
            key = f"{ALL_ATTRIBUTES}.{one.key}" if one.key in FIELDS else one.key
            yield binned(one._replace(key=key))
