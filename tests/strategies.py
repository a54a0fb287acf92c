"""Hypothesis strategies for everything a span can hold, and a form in which spans can be compared.

`Shape` says which corners are included: text with lone surrogates and integers beyond 64 bits exist in
Python's attributes, and not in OTLP; times outside what OTLP can say likewise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from typing import Any

from hypothesis import strategies as st

from otel_debugstore.outbox import CallCount, Code, Payload
from otel_debugstore_exporters.batch import (
    MAX_TIME,
    ROOT,
    UNKNOWN_TIME,
    Event,
    Link,
    Resource,
    Scope,
    SpanBatch,
    SpanRecord,
    batch_from_records,
)


@dataclass(frozen=True)
class Shape:
    """What the strategies may draw.

    Attributes:
        surrogates: Text may hold lone surrogates.
        big_integers: Integers may have more than 64 bits.
        min_time_ns: The earliest time of spans and events.
        unknown_times: Start and end may be None.
    """

    surrogates: bool = False
    big_integers: bool = False
    min_time_ns: int = UNKNOWN_TIME + 1
    unknown_times: bool = True


ANYTHING = Shape(surrogates=True, big_integers=True)
OTLP_JSON = Shape(min_time_ns=0)
OTLP_PROTOBUF = Shape(min_time_ns=1)


@cache
def texts(shape: Shape = Shape(), max_size: int = 20) -> st.SearchStrategy[str]:
    """Any text, with characters of every plane and NUL."""
    if shape.surrogates:
        return st.text(st.characters(), max_size=max_size)
    return st.text(st.characters(exclude_categories=["Cs"]), max_size=max_size)


@cache
def values(shape: Shape = Shape()) -> st.SearchStrategy[Any]:
    """Attribute values of all kinds, nested some levels deep."""
    bound = 2**80 if shape.big_integers else 2**63
    scalars = st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-bound, bound - 1),
        st.sampled_from([0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63)]),
        st.floats(),
        texts(shape),
        st.binary(max_size=20),
    )
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts(shape), inner, max_size=4),
        max_leaves=8,
    )


@cache
def attributes(shape: Shape = Shape()) -> st.SearchStrategy[dict[str, Any]]:
    """Attributes of a span, an event, a link, a resource or a scope."""
    return st.dictionaries(texts(shape), values(shape), max_size=4)


@cache
def counts() -> st.SearchStrategy[int]:
    """What OTLP has as uint32: dropped counts and flags."""
    return st.one_of(st.just(0), st.integers(0, 2**32 - 1))


@cache
def trace_ids() -> st.SearchStrategy[bytes]:
    return st.binary(min_size=16, max_size=16)


@cache
def span_ids() -> st.SearchStrategy[bytes]:
    return st.binary(min_size=8, max_size=8)


@cache
def times(shape: Shape = Shape()) -> st.SearchStrategy[int]:
    """Nanoseconds since 1970, the extreme ones often."""
    usual = st.integers(1_600_000_000_000_000_000, 1_800_000_000_000_000_000)
    extreme = st.sampled_from([shape.min_time_ns, 1, MAX_TIME])
    return st.one_of(usual, extreme, st.integers(shape.min_time_ns, MAX_TIME))


@cache
def events(shape: Shape = Shape()) -> st.SearchStrategy[Event]:
    return st.builds(Event, times(shape), texts(shape), attributes(shape), counts())


@cache
def links(shape: Shape = Shape()) -> st.SearchStrategy[Link]:
    return st.builds(Link, trace_ids(), span_ids(), texts(shape), counts(), attributes(shape), counts())


@cache
def resources(shape: Shape = Shape()) -> st.SearchStrategy[Resource]:
    return st.builds(Resource, attributes(shape), texts(shape), counts())


@cache
def scopes(shape: Shape = Shape()) -> st.SearchStrategy[Scope]:
    return st.builds(Scope, texts(shape), texts(shape), texts(shape), attributes(shape), counts())


@cache
def maybe_times(shape: Shape = Shape()) -> st.SearchStrategy[int | None]:
    return times(shape) | st.none() if shape.unknown_times else times(shape)


@cache
def parent_ids() -> st.SearchStrategy[bytes | None]:
    return st.none() | span_ids().filter(lambda parent: parent != ROOT)


@st.composite
def span_records(draw: st.DrawFn, shape: Shape = Shape()) -> SpanRecord:
    """One span, all fields of it drawn."""
    start, end = draw(maybe_times(shape)), draw(maybe_times(shape))
    if shape.min_time_ns >= 0 and start and end == 0:
        end = None  # OTLP's way to say so
    return SpanRecord(
        trace_id=draw(trace_ids()),
        span_id=draw(span_ids()),
        name=draw(texts(shape)),
        start_ns=start,
        end_ns=end,
        parent_id=draw(parent_ids()),
        kind=draw(st.integers(0, 5)),
        status_code=draw(st.integers(0, 2)),
        status_message=draw(texts(shape)),
        trace_state=draw(texts(shape)),
        flags=draw(counts()),
        attributes=draw(attributes(shape)),
        events=draw(st.lists(events(shape), max_size=2)),
        links=draw(st.lists(links(shape), max_size=2)),
        dropped_attributes=draw(counts()),
        dropped_events=draw(counts()),
        dropped_links=draw(counts()),
    )


@st.composite
def span_batches(
    draw: st.DrawFn,
    shape: Shape = Shape(),
    max_size: int = 5,
    pids: st.SearchStrategy[int] | None = None,
) -> SpanBatch:
    """At least one span, in a batch whose spans share resources and scopes."""
    some_resources = draw(st.lists(resources(shape), min_size=1, max_size=2))
    some_scopes = draw(st.lists(scopes(shape), min_size=1, max_size=2))
    records = [
        _with(record, resource=draw(st.sampled_from(some_resources)), scope=draw(st.sampled_from(some_scopes)))
        for record in draw(st.lists(span_records(shape), min_size=1, max_size=max_size))
    ]
    return batch_from_records(records, draw(pids) if pids else None)


@cache
def payloads() -> st.SearchStrategy[Payload]:
    """What a digest stands for: equal digests have equal contents."""
    return st.builds(
        lambda content, replayable: Payload(content.hex() or "none", "application/msgpack", replayable, content),
        st.binary(max_size=4),
        st.just(True),
    )


@cache
def code() -> st.SearchStrategy[Code]:
    """The code of a function; equal variants have equal code."""
    some = st.none() | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
    return st.builds(
        lambda number, path, line, commit, source: Code(f"{number:016x}", f"m.f{number}", path, line, commit, source),
        st.integers(0, 3),
        some,
        st.none() | st.integers(0, 10**6),
        some,
        some,
    )


@cache
def call_counts() -> st.SearchStrategy[CallCount]:
    """Counts of a few components, over some minutes."""
    number = st.integers(0, 10**9)
    return st.builds(
        lambda start, length, component, *sums: CallCount(start, start + length, "function", component, *sums),
        st.integers(1_700_000_000_000_000_000, 1_700_000_100_000_000_000),
        number,
        st.sampled_from(["a", "b", "\ud800"]),
        *[number] * 5,
    )


@st.composite
def batches_beside(draw: st.DrawFn) -> SpanBatch:
    """What goes into the store beside spans, and maybe a span."""
    batch = batch_from_records(draw(st.lists(span_records(), max_size=1)), draw(st.none() | st.integers(1, 3)))
    batch.payloads = draw(st.lists(payloads(), max_size=3))
    batch.code = list({code.variant: code for code in draw(st.lists(code(), max_size=3))}.values())
    batch.counts = draw(st.lists(call_counts(), max_size=3))
    batch.layers = {0: "tool"} if len(batch) and draw(st.booleans()) else {}
    return batch


def _with(record: SpanRecord, **changes: Any) -> SpanRecord:
    return SpanRecord(**{field.name: getattr(record, field.name) for field in fields(record)} | changes)


def comparable(value: Any) -> Any:
    """Return a record, or anything in it, as values that are equal if and only if every field is.

    Unlike `==`, this tells True from 1 and 1 from 1.0, 0.0 from -0.0, finds NaN equal to itself, and does not
    care whether a sequence is a list or a tuple.
    """
    if isinstance(value, SpanRecord):
        return {field.name: comparable(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, float):
        return ("float", repr(value))
    if isinstance(value, (bool, int)):
        return (type(value).__name__, int(value))
    if isinstance(value, Mapping):
        return {key: comparable(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [comparable(item) for item in value]
    return value


def same_spans(one: SpanBatch, other: SpanBatch) -> bool:
    """Say whether two batches hold equal spans, in whatever order."""
    return sorted(map(_text, one.records())) == sorted(map(_text, other.records()))


def _text(record: SpanRecord) -> str:
    return repr(_sorted(comparable(record)))


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return sorted((key, _sorted(item)) for key, item in value.items())
    return [_sorted(item) for item in value] if isinstance(value, list) else value
