"""An item of the queue and what it is made of, as values that don't change; and their JSON form."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, NamedTuple, get_args

from otel_debugstore_analysis.queue._evidence import Evidence

ItemState = Literal["open", "claimed", "proposed", "proven", "rejected", "stale"]
PROVEN: Final = "proven: "
"""How the event of a proof begins; the state of an audit after it is proven, too."""
STATES: Final[tuple[ItemState, ...]] = get_args(ItemState)

MAX_SOURCE: Final = 100_000
"""Characters of code that are kept."""
MAX_TEXT: Final = 2_000
MAX_TRACES: Final = 20
MAX_VIOLATIONS: Final = 50
_MAX_EXCESS: Final = 10.0
_ID_DIGITS: Final = 12


class Violation(NamedTuple):
    """A limit that a component does not keep.

    Attributes:
        measure: What is limited, with its unit in the name: `p95_ns`, `error_rate`, `memory_peak_bytes`.
        measured: What it was.
        limit: What it may be at most (of a `success_rate`: at least).
        low: The lower end of the interval of `measured`; None where there is none.
        high: The upper end.
        cause: A sentence that says it.
    """

    measure: str
    measured: float
    limit: float
    low: float | None = None
    high: float | None = None
    cause: str = ""

    @property
    def excess(self) -> float:
        """How many times over the limit it is, from 1 to 10; of a lower limit, how many times what is missing."""
        measured, limit = self.measured, self.limit
        if measured < limit:
            measured, limit = 1 - measured, 1 - limit
        if limit <= 0 or not math.isfinite(measured / limit):
            return _MAX_EXCESS
        return min(max(measured / limit, 1.0), _MAX_EXCESS)


class Code(NamedTuple):
    """The code of a component. None is what is not known."""

    source: str
    qualified_name: str | None = None
    file_path: str | None = None
    line_number: int | None = None


class _Named:
    """A component by its name, and by that of its recorded calls."""

    __slots__ = ()

    component: str
    recorded_as: str | None

    @property
    def recorded_name(self) -> str:
        """What its calls are recorded as."""
        return self.recorded_as or self.component

    @property
    def has_own_name(self) -> bool:
        """Whether its name is one of the user's own: its calls are recorded as another."""
        return self.recorded_name != self.component


@dataclass(frozen=True, slots=True)
class Finding(_Named):
    """What an audit found of a component that does not keep its limits.

    Attributes:
        component: Its name.
        layer: What it is: tool, workflow, step, node or function.
        variant: The hash of the code that ran; None where it is not known.
        violations: The limits that it does not keep.
        measured: What was measured, by measure.
        target: What it has to reach, by measure.
        trace_ids: Traces that show it, which retention spares while the item is not closed.
        code: Its code.
        tests: The command that tests it, as words.
        expected_saving_ns_per_s: What reaching the target would save in each second of observation.
        confidence: How sure that is, from 0 to 1.
        seen_ns: The newest start of the calls that were audited, nanoseconds since 1970; None is now.
        recorded_as: The component that its calls are recorded as, if that is another name than `component`.
        kept: The measures whose limits were looked at as well, and are kept.
        undecided: The limits that were looked at as well, and of which nothing can be said, by measure.
    """

    component: str
    layer: str
    variant: str | None = None
    violations: Sequence[Violation] = ()
    measured: Mapping[str, float] = field(default_factory=dict)
    target: Mapping[str, float] = field(default_factory=dict)
    trace_ids: Sequence[str] = ()
    code: Code | None = None
    tests: Sequence[str] = ()
    expected_saving_ns_per_s: float = 0.0
    confidence: float = 1.0
    seen_ns: int | None = None
    recorded_as: str | None = None
    kept: Sequence[str] = ()
    undecided: Mapping[str, float] = field(default_factory=dict)


class Lease(NamedTuple):
    """Who works on an item, and until when (nanoseconds since 1970)."""

    by: str
    until_ns: int


class Proposal(NamedTuple):
    """A candidate: what it is (a patch, a path, `package.module:function`), whose, and the hash of its code."""

    candidate: str
    by: str
    variant: str | None = None


class Event(NamedTuple):
    """Something that happened to an item: when, the state it had then, by whom, and what."""

    at_ns: int
    state: ItemState
    by: str
    what: str


@dataclass(frozen=True, slots=True)
class QueueItem(_Named):
    """What is to be made faster, and how far that is. The fields that `Finding` has are the newest audit's.

    Attributes:
        id: Twelve hexadecimal digits, made of the component and layer that it was first found as.
        priority: What items are sorted by; see `priority_terms`.
        priority_terms: What `priority` is made of; `docs/queue.md` has the formula.
        state: How far it is. A claim, or a proof on its way, whose lease is over counts as open.
        lease: Who works on it.
        proposal: The newest candidate.
        evidence: What proved it, or what the newest candidate was rejected for.
        rejections: How many candidates were rejected since the code last changed.
        history: What happened, oldest first: the first event and the newest ones.
        history_left_out: How many events between them were dropped.
        recorded_as: As `Finding` has it.
    """

    id: str
    component: str
    layer: str
    variant: str | None
    violations: tuple[Violation, ...]
    measured: Mapping[str, float]
    target: Mapping[str, float]
    trace_ids: tuple[str, ...]
    code: Code | None
    tests: tuple[str, ...]
    expected_saving_ns_per_s: float
    confidence: float
    seen_ns: int
    created_ns: int
    updated_ns: int
    priority: float = 0.0
    priority_terms: Mapping[str, float] = field(default_factory=dict)
    state: ItemState = "open"
    lease: Lease | None = None
    proposal: Proposal | None = None
    evidence: Evidence | None = None
    rejections: int = 0
    history: tuple[Event, ...] = ()
    history_left_out: int = 0
    recorded_as: str | None = None

    @property
    def is_closed(self) -> bool:
        """Whether it was proven: nothing else closes an item."""
        return self.state == "proven"

    @property
    def keeps_limits(self) -> bool:
        """Whether the newest audit found nothing wrong any more: there is nothing to work on."""
        return not self.violations

    @property
    def is_unapplied(self) -> bool:
        """Whether it was proven, and an audit found that its old code was still called after that."""
        proofs = [event.at_ns for event in self.history if event.what.startswith(PROVEN)]
        return self.is_closed and bool(proofs) and proofs[-1] < self.seen_ns

    def to_json(self) -> dict[str, Any]:
        """Return it as what JSON knows."""
        plain = {one.name: _plain(getattr(self, one.name)) for one in fields(self)}
        return plain | {"is_unapplied": self.is_unapplied}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> QueueItem:
        """Return what `to_json` made the value of; names that are not known are ignored.

        Raises:
            KeyError, TypeError, ValueError: It is no item.
        """
        known = {one.name: value[one.name] for one in fields(cls) if one.name in value}
        for name, kind in _PARTS.items():
            if known.get(name) is not None:
                known[name] = _made(kind, known[name])
        for name, kind in _LISTS.items():
            known[name] = tuple(_made(kind, one) for one in known.get(name, ()))
        for name in ("trace_ids", "tests"):
            known[name] = tuple(known[name])
        if known.get("evidence") is not None:
            known["evidence"] = Evidence.from_json(known["evidence"])
        return cls(**known)


_PARTS: Final[Mapping[str, Any]] = {"code": Code, "lease": Lease, "proposal": Proposal}
_LISTS: Final[Mapping[str, Any]] = {"violations": Violation, "history": Event}


def _made(kind: Any, value: Mapping[str, Any]) -> Any:
    """Return a named tuple of what a mapping has of its fields."""
    return kind(**{name: value[name] for name in kind._fields if name in value})


def _plain(value: Any) -> Any:
    if isinstance(value, Evidence):
        return value.to_json()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple):
        return value._asdict() if hasattr(value, "_asdict") else [_plain(one) for one in value]
    return value


def item_id(component: str, layer: str) -> str:
    """Return the id of a component's item."""
    key = f"{layer}\0{component}".encode(errors="surrogatepass")
    return hashlib.sha256(key).hexdigest()[:_ID_DIGITS]
