"""What can happen to an item: functions from an item to the item as it is then, which know no store and no clock.

    open -> claimed -> proposed -> proven
                          |  ^
                          v  |
                        rejected          any but proven -> stale -> open (with the next audit)

Only a proof closes an item. A claim whose lease is over counts as none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from otel_debugstore_analysis.queue._errors import ClaimedError, NotProvenError, QueueError
from otel_debugstore_analysis.queue._evidence import Evidence
from otel_debugstore_analysis.queue._item import (
    MAX_SOURCE,
    MAX_TEXT,
    MAX_TRACES,
    MAX_VIOLATIONS,
    Event,
    Finding,
    ItemState,
    Lease,
    Proposal,
    QueueItem,
    Violation,
    item_id,
)
from otel_debugstore_analysis.queue._priority import prioritised
from otel_debugstore_analysis.text import human, instant
from otel_debugstore_exporters.state import is_trace_id

MAX_EVENTS: Final = 50
AUDITED: Final = "audited"
_SAID_VIOLATIONS: Final = 3
_MAX_WORDS: Final = 100
_NS_A_SECOND: Final = 1_000_000_000


def current(item: QueueItem, now_ns: int) -> QueueItem:
    """Return the item as of now: a claim ends with its lease."""
    if item.state == "claimed" and (item.lease is None or item.lease.until_ns <= now_ns):
        whose = f"the lease of {item.lease.by} is over" if item.lease else "the claim has no lease"
        at_ns = item.lease.until_ns if item.lease else now_ns
        return _happened(replace(item, lease=None), "open", at_ns, "", whose)
    return item


def audited(before: QueueItem | None, finding: Finding, now_ns: int) -> QueueItem:
    """Return the item of a finding: a new one, or the one that is there with the newest values.

    An audit of older calls than the last one's changes nothing if other code made them.
    """
    values = _values(finding, now_ns)
    what = _audit_sentence(values["violations"])
    if before is None:
        found = QueueItem(
            id=item_id(finding.component, finding.layer),
            component=finding.component,
            layer=finding.layer,
            created_ns=now_ns,
            updated_ns=now_ns,
            **values,
        )
        return prioritised(_happened(found, "open", now_ns, "", what))
    is_other_code = before.variant != values["variant"]
    if is_other_code and values["seen_ns"] < before.seen_ns:
        return before
    found = replace(before, **values)
    if is_other_code:
        found = replace(found, lease=None, proposal=None, evidence=None, rejections=0)
        what = f"the code changed from {_short(before.variant)} to {_short(found.variant)}; {what}"
        return prioritised(_happened(found, "open", now_ns, "", what))
    is_open_again = before.state == "stale" or (before.state == "proven" and found.variant is None)
    return prioritised(_happened(found, "open" if is_open_again else before.state, now_ns, "", what))


def claimed(item: QueueItem, by: str, now_ns: int, lease_s: float) -> QueueItem:
    """Return the item with a lease; who holds one gets a new one.

    Raises:
        ClaimedError: Somebody else holds it.
        QueueError: It is proven, stale, or waits for a proof; or the lease is none.
    """
    if not 0 < lease_s < math.inf:
        raise QueueError(f"A lease of {lease_s} s is none; take a number of seconds above 0.")
    if item.state == "proposed":
        raise QueueError(f"Item {item.id} waits for a proof of its candidate; prove or reject that first.")
    _require_open(item, by)
    until_ns = now_ns + round(lease_s * _NS_A_SECOND)
    what = f"claimed until {instant(until_ns)} UTC"
    return _happened(replace(item, lease=Lease(_who(by), until_ns)), "claimed", now_ns, by, what)


def released(item: QueueItem, by: str, now_ns: int) -> QueueItem:
    """Return the item without its claim.

    Raises:
        ClaimedError: Somebody else holds it.
        QueueError: Nobody holds it.
    """
    if item.state != "claimed":
        raise QueueError(f"Item {item.id} is {item.state}: there is no claim to give up.")
    _require_open(item, by)
    return _happened(replace(item, lease=None), "open", now_ns, by, "gave up the claim")


def proposed(item: QueueItem, proposal: Proposal, now_ns: int) -> QueueItem:
    """Return the item with a candidate that waits for a proof.

    Raises:
        ClaimedError: Somebody else holds it, or proposed something that is not decided.
        QueueError: It is proven or stale, or the candidate is not named.
    """
    if not proposal.candidate.strip():
        raise QueueError("A candidate is named: a patch, a path, or package.module:function.")
    _require_open(item, proposal.by)
    if item.state == "proposed" and item.proposal and item.proposal.by != proposal.by:
        raise ClaimedError(f"Item {item.id} has a candidate of {item.proposal.by!r}; prove or reject that first.")
    kept = Proposal(proposal.candidate[:MAX_TEXT], _who(proposal.by), proposal.variant)
    found = replace(item, lease=None, proposal=kept, evidence=None)
    return _happened(found, "proposed", now_ns, proposal.by, f"proposed {kept.candidate}")


def proven(item: QueueItem, evidence: Evidence, by: str, now_ns: int) -> QueueItem:
    """Return the item closed.

    Raises:
        NotProvenError: The evidence does not prove it.
        QueueError: It is proven already.
    """
    if item.is_closed:
        raise QueueError(f"Item {item.id} is proven already.")
    why = evidence.refusal(item.component, item.variant)
    if why is not None:
        raise NotProvenError(f"Item {item.id} stays {item.state}: {why}.")
    return _happened(
        replace(item, lease=None, evidence=evidence), "proven", now_ns, by, f"proven: {_outcome(evidence)}"
    )


def rejected(item: QueueItem, why: str, evidence: Evidence | None, by: str, now_ns: int) -> QueueItem:
    """Return the item with its candidate turned down; it can be claimed again.

    Raises:
        ClaimedError: Somebody else holds it.
        QueueError: It is proven or stale, or no reason was given.
    """
    if not why.strip():
        raise QueueError("A rejection needs a reason: whoever tries next should know it.")
    _require_open(item, by)
    outcome = f" ({_outcome(evidence)})" if evidence else ""
    found = replace(item, lease=None, evidence=evidence, rejections=item.rejections + 1)
    return prioritised(_happened(found, "rejected", now_ns, by, f"rejected: {why[:MAX_TEXT]}{outcome}"))


def stale(item: QueueItem, newest_variant: str, now_ns: int) -> QueueItem:
    """Return the item stale, if other code ran than it is about.

    Not while somebody holds it, nor where it is the candidate that ran: both wait for a proof.
    """
    is_candidate = item.proposal is not None and item.proposal.variant == newest_variant
    if item.variant in (None, newest_variant) or item.state in ("proven", "stale", "claimed") or is_candidate:
        return item
    what = f"the code changed from {_short(item.variant)} to {_short(newest_variant)}; audit it again"
    return _happened(item, "stale", now_ns, "", what)


def _require_open(item: QueueItem, by: str) -> None:
    """Refuse what is closed or stale, and what somebody else holds."""
    _who(by)
    if item.is_closed:
        raise QueueError(f"Item {item.id} is proven: it is closed.")
    if item.state == "stale":
        raise QueueError(f"Item {item.id} is stale: its code changed. Audit the component again (debugstore audit).")
    if item.lease is not None and item.lease.by != by:
        until = instant(item.lease.until_ns)
        raise ClaimedError(f"Item {item.id} is claimed by {item.lease.by!r} until {until} UTC; take another one.")


def _who(by: str) -> str:
    if not by.strip():
        raise QueueError("It has to be said who does it: a name, which is the same for claim, propose and reject.")
    return by[:MAX_TEXT]


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


def _audit_sentence(violations: Sequence[Violation]) -> str:
    said = [
        f"{name} {human(name, measured)}, limit {human(name, limit)}"
        for name, measured, limit, *_ in violations[:_SAID_VIOLATIONS]
    ]
    more = f"; {len(violations) - len(said)} more" if len(violations) > len(said) else ""
    return f"{AUDITED}: {'; '.join(said) or 'no violation'}{more}"


def _outcome(evidence: Evidence) -> str:
    if evidence.ratio is None:
        return evidence.verdict
    ends = (evidence.low, evidence.high)
    interval = ", {:.3g} to {:.3g}".format(*ends) if None not in ends else ""
    return f"{evidence.verdict}, {evidence.ratio:.3g} of the time before{interval}"


def _short(variant: str | None) -> str:
    return variant[:12] if variant else "unknown code"


def _happened(item: QueueItem, state: ItemState, at_ns: int, by: str, what: str) -> QueueItem:
    """Return the item in a state, with what brought it there; of audits in a row the last is kept."""
    events = list(item.history)
    if what.startswith(AUDITED) and len(events) > 1 and events[-1].what.startswith(AUDITED) and item.state == state:
        events.pop()
    events.append(Event(at_ns, state, by[:MAX_TEXT], what))
    too_many = max(len(events) - MAX_EVENTS, 0)
    return replace(
        item,
        state=state,
        updated_ns=max(at_ns, item.updated_ns),
        history=(events[0], *events[1 + too_many :]),
        history_left_out=item.history_left_out + too_many,
    )
