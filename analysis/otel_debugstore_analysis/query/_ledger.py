"""The overhead ledger: what recording cost, by component, as the program that was recorded measured it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._engine import Engine
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.query._table import Table

if TYPE_CHECKING:
    import ibis.expr.types as ir

COLUMNS: Final = (
    "component",
    "layer",
    "call_count",
    "recorded_count",
    "not_recorded_count",
    "recording_ns",
    "measured_ns",
    "recording_share",
)
_KEYS: Final = ("component", "layer")


def ledger(engine: Engine, *, limit: int | None = None) -> Table:
    """Return what recording cost, a row a component whose calls were measured, the most first.

    `call_count` is of all calls, `recorded_count` of those that became spans, `not_recorded_count` of those that were
    only counted. `recording_ns` is the time that recording took of all calls, `measured_ns` the time the calls
    themselves took, and `recording_share` the one of the other; None where that is 0.

    Args:
        engine: Where the counters and spans lie.
        limit: How many rows at most; None for all.
    """
    rows = tables.run(engine, _ledger, limit)
    components = rows[0][-1] if rows else 0
    return Table(COLUMNS, [row[:-1] for row in rows], components - len(rows))


def _ledger(limit: int | None) -> ir.Table:
    counters, spans = tables.counters(), tables.spans()
    counted = counters.group_by(*_KEYS).aggregate(
        recorded_count=counters.recorded_count.sum(),
        not_recorded_count=counters.call_count.sum(),
        recording_ns=counters.recording_ns.sum(),
        counted_ns=counters.duration_ns.sum(),
    )
    recorded = spans.filter(spans.component.isin(counters.component))
    recorded = recorded.group_by(*_KEYS).aggregate(
        recorded_ns=ibis.greatest(recorded.duration_ns, 0).sum().fill_null(0)
    )
    rows = counted.left_join(recorded, _KEYS)
    rows = rows.mutate(
        call_count=rows.recorded_count + rows.not_recorded_count,
        measured_ns=rows.counted_ns + rows.recorded_ns.fill_null(0),
        components=rows.count().over(ibis.window()),
    )
    rows = rows.mutate(recording_share=rows.recording_ns / rows.measured_ns.nullif(0))
    rows = rows.order_by(ibis.desc("recording_ns"), *_KEYS)
    if limit is not None:
        rows = rows.limit(limit)
    return rows.select(*COLUMNS, "components")
