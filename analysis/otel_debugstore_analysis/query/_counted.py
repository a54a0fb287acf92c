"""Calls that were counted and not recorded, by the groups and selections of an analysis.

Counts and sums are exact: what is recorded, and what `counters` hold beside it. A counter knows a call's component,
layer, session and process, and the interval in which it was counted (about a second; ten in a segment). So

- where spans are grouped or selected by anything else, counted calls can only be estimated, from the weights of the
  spans that were sampled;
- of an interval that a time range cuts, the calls are taken in proportion to the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._engine import Engine
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._selection import Filter

if TYPE_CHECKING:
    import ibis.expr.types as ir

COUNTED_FIELDS: Final = {
    "component": "component",
    "name": "component",  # the spans of a component are named after it
    "layer": "layer",
    "session": "session",
    "pid": "pid",
}
"""Fields of spans that are known of counted calls, and the columns of `counters` that hold them."""

SUMS: Final = ("call_count", "error_count", "duration_ns", "recording_ns")
_IDENTITY: Final = ("session", "component", "layer")


def is_counted_by(fields: Iterable[str]) -> bool:
    """Return whether counted calls can be told apart by these fields."""
    return set(fields) <= COUNTED_FIELDS.keys()


def counted(columns: Iterable[str], shape: Filter) -> ir.Table:
    """Return a row a group with the `SUMS` of the calls that a selection takes, and what `within` adds.

    Args:
        columns: What to group by, all of `COUNTED_FIELDS`.
        shape: The selection; its fields are of `COUNTED_FIELDS` too.
    """
    counters = shape.where(tables.counters(), COUNTED_FIELDS)
    since = tables.parameter("since_ns", "int64") if shape.since else None
    until = tables.parameter("until_ns", "int64") if shape.until else None
    groups = {column: counters[COUNTED_FIELDS[column]] for column in columns}
    return within(counters, since, until, groups)


def within(counters: ir.Table, since: ir.Value | None, until: ir.Value | None, groups: dict[str, ir.Value]) -> ir.Table:
    """Return a row a group with the `SUMS` of what was counted from `since` up to `until`.

    `cut_count` is how many of the calls are a share of an interval that lies in that range only in part; the first
    interval began at `began_ns`, the last one ended at `ended_ns`.
    """
    began = counters.start_ns if since is None else ibis.greatest(counters.start_ns, since)
    ended = counters.end_ns if until is None else ibis.least(counters.end_ns, until)
    if since is None and until is None:
        whole = {name: counters[name].sum() for name in SUMS} | {"began_ns": began.min(), "ended_ns": ended.max()}
        return counters.group_by(**groups).aggregate(**whole).mutate(cut_count=ibis.literal(0, "int64"))
    length = ibis.greatest(counters.end_ns - counters.start_ns, 1)
    share = ibis.least(ibis.greatest(ended - began, 1) / length, 1.0)
    touched = counters.mutate(share=share, began_ns=began, ended_ns=ended, **groups)
    touched = touched.filter(touched.ended_ns >= touched.began_ns)
    sums = {name: (touched[name] * touched.share).sum().round().cast("int64") for name in SUMS}
    cut = (touched.call_count * touched.share).sum(where=touched.share < 1.0).round().cast("int64")
    times = {"began_ns": touched.began_ns.min(), "ended_ns": touched.ended_ns.max()}
    return touched.group_by(*groups).aggregate(**sums, **times, cut_count=cut.fill_null(0))


def with_unit_weights(spans: ir.Table) -> ir.Table:
    """Return spans with `stands_for`: how many calls beside itself each stands for that are counted nowhere.

    None where the spans' component has counters: these hold the others.
    """
    counters = tables.counters()
    known = counters.filter(counters.call_count > 0).select(*_IDENTITY).distinct().mutate(is_counted=True)
    joined = spans.left_join(known, _IDENTITY).drop(*(f"{name}_right" for name in _IDENTITY))
    others = ibis.ifelse(joined.is_counted.fill_null(False), 0.0, joined.sample_weight - 1.0)
    return joined.mutate(stands_for=others).drop("is_counted")


def has_counted(engine: Engine) -> bool:
    """Return whether calls were counted and not recorded."""
    return bool(tables.run(engine, _any_counted)[0][0])


def _any_counted() -> ir.Table:
    return tables.counters().aggregate(call_count=tables.counters().call_count.sum())
