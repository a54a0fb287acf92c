"""What can happen to an item: functions from an item to the item as it is then, which know no store and no clock.

    open -> claimed -> proposed -> proven
                          |  ^
                          v  |
                        rejected          any but proven -> stale -> open (with the next audit)

Only a proof closes an item. A claim whose lease is over counts as none, and so does a candidate that was proposed with
one. A proof may come before a claim and a proposal, but never for a stale item, nor past somebody else's lease.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

from otel_debugstore_analysis.queue._errors import ClaimedError, NotProvenError, QueueError
from otel_debugstore_analysis.queue._evidence import Evidence
from otel_debugstore_analysis.queue._history import happened, short
from otel_debugstore_analysis.queue._item import MAX_TEXT, PROVEN, Lease, Proposal, QueueItem
from otel_debugstore_analysis.queue._priority import prioritised
from otel_debugstore_analysis.text import instant

GAVE_UP: Final = "gave up the claim"
_NS_A_SECOND: Final = 1_000_000_000


def current(item: QueueItem, now_ns: int) -> QueueItem:
    """Return the item as of now: a claim, or a proof that is on its way, ends with its lease."""
    if item.lease is not None and item.lease.until_ns <= now_ns:
        whose = f"the lease of {item.lease.by} is over"
        return happened(replace(item, lease=None), "open", item.lease.until_ns, "", whose)
    if item.state == "claimed" and item.lease is None:
        return happened(item, "open", now_ns, "", "the claim has no lease")
    return item


def claimed(item: QueueItem, by: str, now_ns: int, lease_s: float) -> QueueItem:
    """Return the item with a lease; who holds one gets a new one.

    Raises:
        ClaimedError: Somebody else holds it.
        QueueError: It is proven, stale, or waits for a proof; or the lease is none.
    """
    lease = _lease(by, now_ns, lease_s)
    _require_open(item, by)
    if item.state == "proposed":
        raise QueueError(f"Item {item.id} waits for a proof of its candidate; prove or reject that first.")
    what = f"claimed until {instant(lease.until_ns)} UTC"
    return happened(replace(item, lease=lease), "claimed", now_ns, by, what)


def released(item: QueueItem, by: str, now_ns: int) -> QueueItem:
    """Return the item without its claim, and without the candidate that was proposed with one.

    Raises:
        ClaimedError: Somebody else holds it.
        QueueError: Nobody holds it.
    """
    if item.lease is None:
        raise QueueError(f"Item {item.id} is {item.state}: there is no claim to give up.")
    _require_open(item, by)
    return happened(replace(item, lease=None), "open", now_ns, by, GAVE_UP)


def proposed(item: QueueItem, proposal: Proposal, now_ns: int, lease_s: float | None = None) -> QueueItem:
    """Return the item with a candidate that waits for a proof; with a lease, nobody else decides while that lasts.

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
    lease = None if lease_s is None else _lease(proposal.by, now_ns, lease_s)
    found = replace(item, lease=lease, proposal=kept, evidence=None)
    return happened(found, "proposed", now_ns, proposal.by, f"proposed {kept.candidate}")


def proven(item: QueueItem, evidence: Evidence, by: str, now_ns: int) -> QueueItem:
    """Return the item closed.

    Raises:
        NotProvenError: The evidence does not prove it, or is about something else.
        ClaimedError: Somebody else holds it.
        QueueError: It is proven already, or stale.
    """
    if item.is_closed:
        raise QueueError(f"Item {item.id} is proven already.")
    _require_open(item, by)
    proposal = item.proposal if item.state == "proposed" else None
    why = (
        evidence.refusal()
        or evidence.other_component((item.component, item.recorded_name), item.variant)
        or (evidence.other_candidate(proposal.candidate, proposal.variant) if proposal else None)
    )
    if why is not None:
        raise NotProvenError(f"Item {item.id} stays {item.state}: {why}.")
    return happened(replace(item, lease=None, evidence=evidence), "proven", now_ns, by, f"{PROVEN}{_outcome(evidence)}")


def rejected(item: QueueItem, why: str, evidence: Evidence | None, by: str, now_ns: int) -> QueueItem:
    """Return the item with its candidate turned down; it can be claimed again.

    Raises:
        ClaimedError: Somebody else holds it.
        QueueError: It is proven or stale, or no reason was given.
    """
    if not why.strip():
        raise QueueError("A rejection needs a reason: whoever tries next should know it.")
    _require_open(item, _who(by))
    outcome = f" ({_outcome(evidence)})" if evidence else ""
    found = replace(item, lease=None, evidence=evidence, rejections=item.rejections + 1)
    return prioritised(happened(found, "rejected", now_ns, by, f"rejected: {why[:MAX_TEXT]}{outcome}"))


def stale(item: QueueItem, newest_variant: str, now_ns: int) -> QueueItem:
    """Return the item stale, if other code ran than it is about.

    Not while somebody holds it, nor where it is the candidate that ran: both wait for a proof.
    """
    is_candidate = item.proposal is not None and item.proposal.variant == newest_variant
    is_held = item.lease is not None or is_candidate
    if item.variant in (None, newest_variant) or item.state in ("proven", "stale") or is_held:
        return item
    what = f"the code changed from {short(item.variant)} to {short(newest_variant)}; audit it again"
    return happened(item, "stale", now_ns, "", what)


def _require_open(item: QueueItem, by: str) -> None:
    """Refuse what is closed or stale, and what somebody else holds."""
    if item.is_closed:
        raise QueueError(f"Item {item.id} is proven: it is closed.")
    if item.state == "stale":
        raise QueueError(f"Item {item.id} is stale: its code changed. Audit the component again (debugstore audit).")
    if item.lease is not None and item.lease.by != by:
        until = instant(item.lease.until_ns)
        raise ClaimedError(f"Item {item.id} is claimed by {item.lease.by!r} until {until} UTC; take another one.")


def _lease(by: str, now_ns: int, lease_s: float) -> Lease:
    if not 0 < lease_s < math.inf:
        raise QueueError(f"A lease of {lease_s} s is none; take a number of seconds above 0.")
    return Lease(_who(by), now_ns + round(lease_s * _NS_A_SECOND))


def _who(by: str) -> str:
    if not by.strip():
        raise QueueError("It has to be said who does it: a name, which is the same for claim, propose and reject.")
    return by[:MAX_TEXT]


def _outcome(evidence: Evidence) -> str:
    if evidence.ratio is None:
        return evidence.verdict
    ends = (evidence.low, evidence.high)
    interval = ", {:.3g} to {:.3g}".format(*ends) if None not in ends else ""
    return f"{evidence.verdict}, {evidence.ratio:.3g} of the time before{interval}"
