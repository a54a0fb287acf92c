"""Which code ran last: an item about other code is stale."""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_debugstore_analysis.query import DuckDBEngine, Selection, tables
from otel_debugstore_analysis.query._ibis import ibis
from otel_debugstore_analysis.queue._item import QueueItem
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths, list_sessions

if TYPE_CHECKING:
    import ibis.expr.types as ir

    from otel_debugstore_analysis.query._selection import Filter

_MAX_ROWS: Final = 100_000
_NS_A_SECOND: Final = 1e9


def newest_variants(base_path: Path, items: Collection[QueueItem]) -> dict[str, str]:
    """Return by the ids of items the variant that ran last, of those that ran after the item was audited.

    Args:
        base_path: Where the sessions lie.
        items: Whose code is looked at.
    """
    known = [item for item in items if item.variant is not None]
    if not known:
        return {}
    since_ns = min(item.seen_ns for item in known)
    sessions = [session_id for session_id in list_sessions(base_path) if _has_changed(base_path, session_id, since_ns)]
    if not sessions:
        return {}
    selection = Selection(since_ns=since_ns)
    with SessionReader(base_path, sessions) as reader:
        rows = tables.run(DuckDBEngine(reader), _newest, selection.filter, _MAX_ROWS, **selection.parameters)
    found = {(component, layer): (variant, last_ns) for component, layer, variant, last_ns in rows}
    newest = {item.id: found.get((item.recorded_name, item.layer)) for item in known}
    return {item.id: one[0] for item in known if (one := newest[item.id]) is not None and one[1] > item.seen_ns}


def _has_changed(base_path: Path, session_id: str, since_ns: int) -> bool:
    """Whether something was written into a session since; a span is written after it began."""
    paths = SessionPaths(base_path, session_id)
    for path in (paths.journal / "data.mdb", paths.archive, *paths.segments()):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime * _NS_A_SECOND >= since_ns:
                return True
    return False


def _newest(shape: Filter, limit: int) -> ir.Table:
    spans = shape.apply(tables.spans())
    spans = spans.filter(spans.variant.notnull(), spans.component.notnull(), spans.layer.notnull())
    groups = spans.group_by("component", "layer").aggregate(
        variant=spans.variant.argmax(spans.start_ns), last_ns=spans.start_ns.max()
    )
    return groups.order_by(ibis.desc("last_ns")).limit(limit)
