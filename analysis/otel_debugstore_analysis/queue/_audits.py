"""What an audit makes of the queue: an item that is new, one with the newest values, or one that keeps its limits.

One component is one item, whatever an audit calls it. `PerformanceAuditor.audit_component` may be given a name of the
user's own, and `debugstore audit` finds the same calls under the name that they are recorded as.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from otel_debugstore_analysis.queue._history import AUDITED, happened, short
from otel_debugstore_analysis.queue._item import (
    MAX_SOURCE,
    MAX_TEXT,
    MAX_TRACES,
    MAX_VIOLATIONS,
    Finding,
    QueueItem,
    Violation,
    item_id,
)
from otel_debugstore_analysis.queue._priority import prioritised
from otel_debugstore_analysis.text import human
from otel_debugstore_exporters.state import is_trace_id

_CODE: Final = "code"
_SAID_VIOLATIONS: Final = 3
_MAX_WORDS: Final = 100


class KnownItems:
    """The items that there are, found by what an audit says of them.

    Args:
        items: The items.
        findings: All that the audit found.
    """

    def __init__(self, items: Iterable[QueueItem], findings: Iterable[Finding]) -> None:
        self._items: dict[Hashable, dict[str, QueueItem]] = {}
        self._audited = {(one.layer, one.recorded_name) for one in findings}
        for item in items:
            self.add(item)

    def add(self, item: QueueItem, instead_of: QueueItem | None = None) -> None:
        """Take in an item, or what became of one."""
        if instead_of is not None:
            self._audited.add((instead_of.layer, instead_of.recorded_name))
            for key in (("id", instead_of.id), *_keys(instead_of, instead_of.has_own_name)):
                del self._items[key][instead_of.id]
        for key in (("id", item.id), *_keys(item, item.has_own_name)):
            self._items.setdefault(key, {})[item.id] = item

    def of(self, finding: Finding) -> QueueItem | None:
        """Return the item of a finding; None if there is none.

        It is that of its component and layer. Else it is that of the calls, or of the code, if one of both has a name
        of the user's own: of two that have none, or two that have, each is an item. It is that of the code only where
        the audit found no calls of the name that the item's are recorded as: else these are two components of equal
        code, and that item is of the other one.
        """
        by_id = "id", item_id(finding.component, finding.layer)
        for key in (by_id, *_keys(finding, not finding.has_own_name)):
            for item in self._items.get(key, {}).values():
                if key[0] != _CODE or (item.layer, item.recorded_name) not in self._audited:
                    return item
        return None


def _keys(one: Finding | QueueItem, has_own_name: bool) -> Iterator[tuple[Hashable, ...]]:
    yield "component", one.layer, one.component
    yield "recorded as", one.layer, one.recorded_name, has_own_name
    if one.variant is not None:
        yield _CODE, one.layer, one.variant, has_own_name


def audited(before: QueueItem | None, finding: Finding, now_ns: int) -> QueueItem:
    """Return the item of a finding: a new one, or the one that is there with the newest values.

    Of the same code it keeps the violations of limits that this audit did not decide, and what shows them. An audit of
    older calls than the last one's changes nothing if other code made them.
    """
    values = _values(finding, now_ns)
    what = _sentence(values["violations"])
    if before is None:
        found = QueueItem(
            id=item_id(finding.component, finding.layer),
            component=finding.component,
            layer=finding.layer,
            created_ns=now_ns,
            updated_ns=now_ns,
            recorded_as=finding.recorded_as,
            **values,
        )
        return prioritised(happened(found, "open", now_ns, "", what))
    is_other_code = before.variant != values["variant"]
    if is_other_code and values["seen_ns"] < before.seen_ns:
        return before
    if not is_other_code:
        values |= _undecided(before, finding, values)
    found = replace(before, **values)
    if finding.has_own_name or not before.has_own_name:
        found = replace(found, component=finding.component, recorded_as=finding.recorded_as)
    if is_other_code:
        found = replace(found, lease=None, proposal=None, evidence=None, rejections=0)
        what = f"the code changed from {short(before.variant)} to {short(found.variant)}; {what}"
        return prioritised(happened(found, "open", now_ns, "", what))
    what = _sentence(found.violations)
    is_open_again = before.state == "stale" or (before.state == "proven" and found.variant is None)
    return prioritised(happened(found, "open" if is_open_again else before.state, now_ns, "", what))


def kept(before: QueueItem, finding: Finding, now_ns: int) -> QueueItem:
    """Return the item after an audit by which its component keeps the limits: without their violations, and not closed.

    If other code does so, the item goes stale. Older calls than those of the last audit say nothing, and nothing is
    said of limits that were not looked at.
    """
    values = _values(finding, now_ns)
    if before.is_closed or values["seen_ns"] < before.seen_ns:
        return before
    if before.variant != values["variant"]:
        state = "stale" if before.state in ("open", "rejected") else before.state
        what = f"{AUDITED}: {short(values['variant'])} keeps its limits; this is about {short(before.variant)}"
        return happened(before, state, now_ns, "", what)
    others = tuple(one for one in before.violations if one.measure not in values["target"])
    if others:
        measured, target = {**before.measured, **values["measured"]}, {**before.target, **values["target"]}
        found = replace(before, measured=measured, target=target, violations=others)
        what = f"{AUDITED}: it keeps its limits of {', '.join(values['target'])}; {_said(others)}"
        return prioritised(happened(found, before.state, now_ns, "", what))
    newest = {name: values[name] for name in ("measured", "target", "seen_ns")}
    found = replace(before, **newest, violations=(), trace_ids=(), expected_saving_ns_per_s=0.0)
    return prioritised(happened(found, before.state, now_ns, "", f"{AUDITED}: it keeps its limits"))


def _undecided(before: QueueItem, finding: Finding, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not the newest audit's alone: it says not all that is known of the same code."""
    known = {"code": values["code"] or before.code, "tests": values["tests"] or before.tests}
    decided = {*finding.kept, *(one.measure for one in finding.violations)}
    others = tuple(
        one
        for one in before.violations
        if one.measure not in decided and finding.undecided.get(one.measure, one.limit) == one.limit
    )
    if not others or before.is_closed:
        return known
    of_others = {one.measure for one in others}
    return known | {
        "violations": (*values["violations"], *others)[:MAX_VIOLATIONS],
        "measured": {name: before.measured[name] for name in of_others & before.measured.keys()} | values["measured"],
        "target": {name: before.target[name] for name in of_others & before.target.keys()} | values["target"],
        "trace_ids": tuple(dict.fromkeys((*values["trace_ids"], *before.trace_ids)))[:MAX_TRACES],
        **{name: max(values[name], getattr(before, name)) for name in ("expected_saving_ns_per_s", "confidence")},
    }


def _values(finding: Finding, now_ns: int) -> dict[str, Any]:
    """Return the fields of an item that its newest audit says, within their bounds."""
    code = finding.code
    return {
        "variant": finding.variant,
        "violations": tuple(map(_plain_violation, finding.violations))[:MAX_VIOLATIONS],
        "measured": _finite(finding.measured),
        "target": _finite(finding.target),
        "trace_ids": tuple(filter(is_trace_id, dict.fromkeys(finding.trace_ids)))[:MAX_TRACES],
        "code": code._replace(source=code.source[:MAX_SOURCE]) if code else None,
        "tests": tuple(word[:MAX_TEXT] for word in finding.tests[:_MAX_WORDS]),
        "expected_saving_ns_per_s": max(_number(finding.expected_saving_ns_per_s) or 0.0, 0.0),
        "confidence": min(max(_number(finding.confidence) or 0.0, 0.0), 1.0),
        "seen_ns": now_ns if finding.seen_ns is None else finding.seen_ns,
    }


def _plain_violation(one: Violation) -> Violation:
    measured, limit = (float(value) for value in (one.measured, one.limit))
    return Violation(one.measure, measured, limit, _number(one.low), _number(one.high), one.cause[:MAX_TEXT])


def _finite(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): number for name, value in values.items() if (number := _number(value)) is not None}


def _number(value: Any) -> float | None:
    return float(value) if value is not None and math.isfinite(value) else None


def _sentence(violations: Sequence[Violation]) -> str:
    return f"{AUDITED}: {_said(violations) or 'no violation'}"


def _said(violations: Sequence[Violation]) -> str:
    said = [
        f"{name} {human(name, measured)}, limit {human(name, limit)}"
        for name, measured, limit, *_ in violations[:_SAID_VIOLATIONS]
    ]
    more = f"; {len(violations) - len(said)} more" if len(violations) > len(said) else ""
    return f"{'; '.join(said)}{more}"
