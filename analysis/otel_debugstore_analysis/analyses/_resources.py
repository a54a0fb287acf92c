"""What is known of the resources that spans come from: services, processes, hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from otel_debugstore_analysis.analyses._features import Feature, attribute_features
from otel_debugstore_analysis.query import Engine, tables
from otel_debugstore_analysis.query._selection import ALL_ATTRIBUTES

if TYPE_CHECKING:
    import ibis.expr.types as ir

_MAX_RESOURCES: Final = 1_000


def resource_features(engine: Engine, ids: Sequence[str | None]) -> list[Feature]:
    """Return a feature an attribute of resources, by their ids, one a call."""
    wanted = sorted({one for one in ids if one is not None})[:_MAX_RESOURCES]
    if not wanted:
        return []
    values = {f"resource_{place}": one for place, one in enumerate(wanted)}
    rows = dict(tables.run(engine, _resources, len(wanted), **values))
    return attribute_features("resource", [rows.get(one) for one in ids])


def _resources(count: int) -> ir.Table:
    resources = tables.resources()
    wanted = [tables.parameter(f"resource_{place}") for place in range(count)]
    return resources.filter(resources.resource_id.isin(wanted)).select("resource_id", ALL_ATTRIBUTES)
