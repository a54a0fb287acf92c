"""`SpanBatch`: spans as columns, the one form in which spans move through this package.

Everything that brings spans in makes batches (the SDK exporter, OTLP, Jaeger, `write_record`);
everything that keeps or shows them takes batches (journal, segments, exports). `SpanRecord` is
one row of a batch, for code that wants to look at single spans.

Numbers are OTLP's: kind 0 unspecified, 1 internal, 2 server, 3 client, 4 producer, 5 consumer;
status 0 unset, 1 ok, 2 error; flags are OTLP's span flags (W3C trace flags in the low byte,
0x100 "remoteness known", 0x200 "parent is remote"). Times are nanoseconds since 1970-01-01 UTC.

A batch also carries what goes into the store beside spans (`otel_debugstore.outbox`); one may hold no spans at all.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from otel_debugstore.outbox import CallCount, Code, Payload

UNKNOWN_TIME: Final = -(2**63)
"""What stands in `start_ns` or `end_ns` for a time that is not known."""

MAX_TIME: Final = 2**63 - 1
ROOT: Final = b"\0" * 8
"""The parent id of a span that has no parent."""

KIND_NAMES: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
STATUS_NAMES: Final = ("UNSET", "OK", "ERROR")

Attributes = Mapping[str, Any]
"""Values are None, bool, int, float, str, bytes, sequences of these, or mappings of str to these."""


_NO_ATTRIBUTES: Final[Attributes] = {}


class Event(NamedTuple):
    """Something that happened at a moment within a span."""

    time_ns: int
    name: str
    attributes: Attributes = _NO_ATTRIBUTES
    dropped_attributes: int = 0


class Link(NamedTuple):
    """A reference to another span; ids are raw bytes (16 and 8)."""

    trace_id: bytes
    span_id: bytes
    trace_state: str = ""
    flags: int = 0
    attributes: Attributes = _NO_ATTRIBUTES
    dropped_attributes: int = 0


class Resource(NamedTuple):
    """What produced the spans: a service, a process, a host."""

    attributes: Attributes = _NO_ATTRIBUTES
    schema_url: str = ""
    dropped_attributes: int = 0


class Scope(NamedTuple):
    """The instrumentation library that made the spans."""

    name: str = ""
    version: str = ""
    schema_url: str = ""
    attributes: Attributes = _NO_ATTRIBUTES
    dropped_attributes: int = 0


_NO_RESOURCE: Final = Resource()
_NO_SCOPE: Final = Scope()


@dataclass(frozen=True, slots=True)
class SpanRecord:
    """One span, every field of it. Ids are raw bytes; `parent_id` is None for a root."""

    trace_id: bytes
    span_id: bytes
    name: str
    start_ns: int | None
    end_ns: int | None
    parent_id: bytes | None = None
    kind: int = 1
    status_code: int = 0
    status_message: str = ""
    trace_state: str = ""
    flags: int = 0
    attributes: Attributes = field(default_factory=dict)
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    dropped_attributes: int = 0
    dropped_events: int = 0
    dropped_links: int = 0
    resource: Resource = _NO_RESOURCE
    scope: Scope = _NO_SCOPE
    pid: int | None = None


class CallValues(NamedTuple):
    """What the attributes of calls are made of (see `call_attributes`), row by row; its form in the journal.

    Attributes:
        kinds: Of each kind of call the attributes, the parameters, how many of those are positional, and whether
            results are kept (see `CallKind`).
        kind_index: 32-bit unsigned integers.
        cpu_ns: 64-bit integers, less than 0 for none.
        contents: MessagePack of an array: arguments by place, arguments by name by row, results, and further
            attributes by row.
    """

    kinds: Sequence[Sequence[Any]]
    kind_index: bytes
    cpu_ns: bytes
    contents: bytes


@dataclass(slots=True)
class SpanBatch:
    """`len(batch)` spans in columns; row i of every column belongs to one span.

    Fixed-width columns are packed (`trace_ids` 16 bytes a span, `span_ids` and `parent_ids` 8, zeros
    for a root); names, resources and scopes are dictionary-encoded (`*_index` points into the list).
    What most spans lack is sparse: a dict from row to value. `pid` is that of the process that
    recorded the batch, None where it is not known. `layers` holds what `layer_mapping` made of the
    attributes of spans that name no layer themselves. `payloads`, `code` and `counts` belong to no row.
    `call_values` stands for the attributes of spans of calls, and for payloads, on the way into the journal
    (`call_attributes`): such a batch has no `attributes`. Decoding puts them there.
    """

    trace_ids: bytes = b""
    span_ids: bytes = b""
    parent_ids: bytes = b""
    start_ns: array[int] = field(default_factory=lambda: array("q"))
    end_ns: array[int] = field(default_factory=lambda: array("q"))
    kinds: bytes = b""
    status_codes: bytes = b""
    flags: array[int] = field(default_factory=lambda: array("I"))
    names: list[str] = field(default_factory=list)
    name_index: array[int] = field(default_factory=lambda: array("I"))
    resources: list[Resource] = field(default_factory=list)
    resource_index: array[int] = field(default_factory=lambda: array("I"))
    scopes: list[Scope] = field(default_factory=list)
    scope_index: array[int] = field(default_factory=lambda: array("I"))
    attributes: list[Attributes] = field(default_factory=list)
    status_messages: dict[int, str] = field(default_factory=dict)
    trace_states: dict[int, str] = field(default_factory=dict)
    events: dict[int, Sequence[Event]] = field(default_factory=dict)
    links: dict[int, Sequence[Link]] = field(default_factory=dict)
    dropped: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    layers: dict[int, str] = field(default_factory=dict)
    payloads: list[Payload] = field(default_factory=list)
    code: list[Code] = field(default_factory=list)
    counts: list[CallCount] = field(default_factory=list)
    call_values: CallValues | None = None
    pid: int | None = None

    def __len__(self) -> int:
        return len(self.start_ns)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing in it, neither spans nor anything beside them."""
        return not (self.start_ns or self.payloads or self.code or self.counts)

    @property
    def content_bytes(self) -> int:
        """How many bytes payloads and code take, texts taken for ASCII."""
        return sum([len(one.content) for one in self.payloads]) + sum([len(one.source or "") for one in self.code])

    def record(self, row: int) -> SpanRecord:
        """Return the span at `row`."""
        parent = self.parent_ids[8 * row : 8 * row + 8]
        start, end = self.start_ns[row], self.end_ns[row]
        dropped = self.dropped.get(row, (0, 0, 0))
        return SpanRecord(
            trace_id=self.trace_ids[16 * row : 16 * row + 16],
            span_id=self.span_ids[8 * row : 8 * row + 8],
            name=self.names[self.name_index[row]],
            start_ns=None if start == UNKNOWN_TIME else start,
            end_ns=None if end == UNKNOWN_TIME else end,
            parent_id=None if parent == ROOT else parent,
            kind=self.kinds[row],
            status_code=self.status_codes[row],
            status_message=self.status_messages.get(row, ""),
            trace_state=self.trace_states.get(row, ""),
            flags=self.flags[row],
            attributes=self.attributes[row],
            events=tuple(self.events.get(row, ())),
            links=tuple(self.links.get(row, ())),
            dropped_attributes=dropped[0],
            dropped_events=dropped[1],
            dropped_links=dropped[2],
            resource=self.resources[self.resource_index[row]],
            scope=self.scopes[self.scope_index[row]],
            pid=self.pid,
        )

    def records(self) -> Iterator[SpanRecord]:
        """Yield the spans one by one."""
        return map(self.record, range(len(self)))


class _Index:
    """Gives equal values one number, in order of appearance."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, value: Any, key: Any) -> int:
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.values)
            self.values.append(value)
        return number


def batch_from_records(records: Iterable[SpanRecord], pid: int | None = None) -> SpanBatch:
    """Return the records as one batch. Resources and scopes are shared by identity, not by value."""
    rows = list(records)
    names, resources, scopes = _Index(), _Index(), _Index()
    batch = SpanBatch(
        trace_ids=b"".join(r.trace_id for r in rows),
        span_ids=b"".join(r.span_id for r in rows),
        parent_ids=b"".join(r.parent_id or ROOT for r in rows),
        start_ns=array("q", (UNKNOWN_TIME if r.start_ns is None else r.start_ns for r in rows)),
        end_ns=array("q", (UNKNOWN_TIME if r.end_ns is None else r.end_ns for r in rows)),
        kinds=bytes(r.kind for r in rows),
        status_codes=bytes(r.status_code for r in rows),
        flags=array("I", (r.flags for r in rows)),
        name_index=array("I", (names.number(r.name, r.name) for r in rows)),
        resource_index=array("I", (resources.number(r.resource, id(r.resource)) for r in rows)),
        scope_index=array("I", (scopes.number(r.scope, id(r.scope)) for r in rows)),
        attributes=[r.attributes for r in rows],
        pid=pid,
    )
    batch.names, batch.resources, batch.scopes = names.values, resources.values, scopes.values
    for row, r in enumerate(rows):
        if r.status_message:
            batch.status_messages[row] = r.status_message
        if r.trace_state:
            batch.trace_states[row] = r.trace_state
        if r.events:
            batch.events[row] = r.events
        if r.links:
            batch.links[row] = r.links
        if r.dropped_attributes or r.dropped_events or r.dropped_links:
            batch.dropped[row] = (r.dropped_attributes, r.dropped_events, r.dropped_links)
    return batch
