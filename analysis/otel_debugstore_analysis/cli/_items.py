"""How items of the optimization queue are shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from otel_debugstore_analysis.cli._output import show, show_json
from otel_debugstore_analysis.text import human, instant

if TYPE_CHECKING:
    from otel_debugstore_analysis.queue import QueueItem

_DATA: Final = (
    *("id", "state", "priority", "saved_ns_per_s", "excess", "rejections", "layer", "component", "variant"),
    *("measure", "measured", "limit", "low", "high", "violation_count", "by", "until_ns", "created_ns", "updated_ns"),
)
_PEOPLE: Final = (
    *("id", "state", "priority", "saves", "over limit", "rejections", "layer", "component", "worst", "by"),
)
_KEPT: Final = "none: it keeps its limits"


def show_items(items: Sequence[QueueItem], output_format: str) -> None:
    """Print items, a row each; as JSON all of them."""
    from otel_debugstore_analysis.query import Table

    if output_format == "json":
        show_json([item.to_json() for item in items])
    elif output_format == "csv":
        show(Table(_DATA, [_data_row(item) for item in items]), "csv")
    else:
        show(Table(_PEOPLE, [_row(item) for item in items]), output_format)


def show_item(item: QueueItem, output_format: str, max_tokens: int) -> None:
    """Print an item: as Markdown the package for whoever works on it, as JSON all of it."""
    from otel_debugstore_analysis.query import Table
    from otel_debugstore_analysis.queue import package

    if output_format == "markdown":
        click.echo(package(item, max_tokens), nl=False)
    elif output_format == "json":
        show_json(item.to_json())
    elif output_format == "csv":
        show(Table(_DATA, [_data_row(item)]), "csv")
    else:
        show(Table(("field", "value"), _fields(item)), "table")


def _worst(item: QueueItem) -> Any:
    return max(item.violations, key=lambda violation: violation.excess, default=None)


def _state(item: QueueItem) -> str:
    return f"{item.state}, not applied" if item.is_unapplied else item.state


def _said(violation: Any) -> str:
    name = violation.measure
    return f"{name} {human(name, violation.measured)}, limit {human(name, violation.limit)}"


def _row(item: QueueItem) -> tuple[Any, ...]:
    worst, terms = _worst(item), item.priority_terms
    return (
        item.id,
        _state(item),
        item.priority,
        human("saved_ns_per_s", terms.get("saved_ns_per_s", 0.0)),
        f"x {human('excess', terms.get('excess', 1.0))}",
        item.rejections,
        item.layer,
        item.component,
        _said(worst) if worst else _KEPT,
        item.lease.by if item.lease else None,
    )


def _data_row(item: QueueItem) -> tuple[Any, ...]:
    worst, terms = _worst(item), item.priority_terms
    return (
        *(item.id, item.state, item.priority, terms.get("saved_ns_per_s"), terms.get("excess"), item.rejections),
        *(item.layer, item.component, item.variant),
        *(worst[:5] if worst else (None,) * 5),
        len(item.violations),
        *(item.lease if item.lease else (None, None)),
        *(item.created_ns, item.updated_ns),
    )


def _fields(item: QueueItem) -> list[tuple[str, Any]]:
    """Return what is known of an item, a line each."""
    terms = ", ".join(f"{name} {human(name, value)}" for name, value in item.priority_terms.items())
    rows: list[tuple[str, Any]] = [
        ("id", item.id),
        ("state", _state(item)),
        *((name, getattr(item, name)) for name in ("layer", "component", "variant")),
        ("priority", f"{human('priority', item.priority)} ({terms})"),
        *(("violation", _said(violation)) for violation in item.violations),
        *((f"target {name}", human(name, value)) for name, value in item.target.items()),
        *(("trace", trace_id) for trace_id in item.trace_ids),
    ]
    if item.has_own_name:
        rows.append(("recorded as", item.recorded_name))
    if item.keeps_limits:
        rows.append(("violation", _KEPT))
    if item.tests:
        rows.append(("tests", " ".join(item.tests)))
    if item.lease:
        rows.append(("claimed by", f"{item.lease.by}, until {instant(item.lease.until_ns)} UTC"))
    if item.proposal:
        rows.append(("candidate", item.proposal.candidate))
    rows += [(instant(event.at_ns), f"{event.state}: {event.what}") for event in item.history]
    return rows
