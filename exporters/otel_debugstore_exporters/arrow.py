"""Batches as one Arrow struct array: what DuckDB takes spans in from.

Built from raw buffers with nanoarrow: pyarrow would cost the observed program 40 MB and 0.2 s.
Missing values are sentinels that `schema.staged_expression` turns into NULL: '' for text, the
smallest 64-bit integer for numbers.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from operator import sub
from typing import Any, Final

import msgspec
import nanoarrow as na  # type: ignore[import-untyped]

from otel_debugstore import attributes as names
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import (
    UNKNOWN_TIME,
    Attributes,
    Resource,
    Scope,
    SpanBatch,
    batch_from_records,
)

MISSING: Final = -(2**63)
_EXACT_TYPES: Final = frozenset((str, int, bool, type(None), float))
_json = msgspec.json.Encoder().encode

_TEXT_FROM_ATTRIBUTE: Final = {"layer": names.LAYER, "variant": names.VARIANT}
_NUMBER_FROM_ATTRIBUTE: Final = {
    "thread_id": names.THREAD_ID,
    "cpu_ns": names.CPU_TIME_NS,
    "memory_peak_bytes": names.MEMORY_PEAK_BYTES,
    "memory_net_bytes": names.MEMORY_NET_BYTES,
    "io_read_bytes": names.IO_READ_BYTES,
    "io_write_bytes": names.IO_WRITE_BYTES,
}
_EXTRACTED: Final = frozenset(
    (*_TEXT_FROM_ATTRIBUTE.values(), *_NUMBER_FROM_ATTRIBUTE.values(), names.COMPONENT, names.ERROR_TYPE)
)

_IDS: Final = ("trace_id", "span_id", "parent_id")
_TEXT: Final = (
    "name",
    "status_message",
    "exception_type",
    "exception_message",
    "service",
    "session",
    "layer",
    "component",
    "variant",
    "trace_state",
    "resource_id",
    "scope_id",
    "links",
    "events",
    "attributes",
)
_INTEGERS: Final = (
    "kind",
    "start_ns",
    "duration_ns",
    "status",
    "pid",
    *_NUMBER_FROM_ATTRIBUTE,
    "flags",
    "dropped_attributes",
    "dropped_events",
    "dropped_links",
)


class StagedSpans:
    """An Arrow table of spans that DuckDB can scan (by the Arrow PyCapsule interface), any number of times."""

    def __init__(self, array: Any) -> None:
        self._array = array

    def __len__(self) -> int:
        return len(self._array)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._array.__arrow_c_stream__(requested_schema)


class Stager:
    """Collects batches as columns, and gives them out as one `StagedSpans`.

    Also collects the distinct resources and scopes, by the 64-bit hash that identifies them in the tables.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self.resources: dict[str, Resource] = {}
        self.scopes: dict[str, Scope] = {}
        self._clear()

    def __len__(self) -> int:
        return len(self._columns["kind"])

    def add(self, batch: SpanBatch) -> None:
        """Append the spans of a batch."""
        count, columns = len(batch), self._columns
        inexact: dict[int, None] = {}
        self._ids["trace_id"].append(batch.trace_ids)
        self._ids["span_id"].append(batch.span_ids)
        self._ids["parent_id"].append(batch.parent_ids)
        columns["kind"] += batch.kinds
        columns["status"] += batch.status_codes
        columns["flags"] += batch.flags
        columns["start_ns"] += batch.start_ns
        columns["duration_ns"] += _durations(batch, inexact)
        row_names = [batch.names[i] for i in batch.name_index]
        columns["name"] += row_names
        columns["session"] += [self._session] * count
        self._add_shared(batch, count)
        texts = [_attributes_text(a, i, inexact) if a else "" for i, a in enumerate(batch.attributes)]
        self.characters += sum(map(len, texts))
        columns["attributes"] += texts
        self._add_sparse("status_message", batch.status_messages, count)
        self._add_sparse("trace_state", batch.trace_states, count)
        self._add_events_and_links(batch, count, inexact)
        self._add_extracted(batch, row_names)
        columns["sample_weight"] += _weights(batch.trace_states, count)
        self._add_exact(batch, inexact)

    def take(self) -> StagedSpans:
        """Return everything added since the last call."""
        columns, count = self._columns, len(self)
        children = [_hex_array(b"".join(self._ids[name]), count) for name in _IDS]
        children += [_text_array(columns[name]) for name in _TEXT]
        children += [_array(na.int64(), array("q", columns[name])) for name in _INTEGERS]
        children.append(_array(na.float64(), columns["sample_weight"]))
        children.append(_binary_array(columns["exact"]))
        fields = [*_IDS, *_TEXT, *_INTEGERS, "sample_weight", "exact"]
        types = [na.string()] * (len(_IDS) + len(_TEXT)) + [na.int64()] * len(_INTEGERS)
        types += [na.float64(), na.binary()]
        schema = na.struct(dict(zip(fields, types, strict=True)))
        staged = StagedSpans(na.Array(na.c_array_from_buffers(schema, count, [None], children=children)))
        self._clear()
        return staged

    def _clear(self) -> None:
        self.characters = 0
        self._ids: dict[str, list[bytes]] = {name: [] for name in _IDS}
        self._columns: dict[str, Any] = {name: [] for name in _TEXT}
        self._columns |= {name: array("q") for name in _INTEGERS}
        self._columns |= {"sample_weight": array("d"), "exact": []}
        self._columns |= {name: [] for name in ("kind", "status", "flags")}  # lists take bytes and arrays alike

    def _add_shared(self, batch: SpanBatch, count: int) -> None:
        resource_ids = [_remember(self.resources, r) for r in batch.resources]
        scope_ids = [_remember(self.scopes, s) for s in batch.scopes]
        services = [_text(r.attributes.get(names.SERVICE_NAME)) for r in batch.resources]
        pids = [_number(r.attributes.get(names.PROCESS_PID)) for r in batch.resources]
        columns = self._columns
        columns["resource_id"] += [resource_ids[i] for i in batch.resource_index]
        columns["scope_id"] += [scope_ids[i] for i in batch.scope_index]
        columns["service"] += [services[i] for i in batch.resource_index]
        if batch.pid is not None:
            columns["pid"].extend([batch.pid] * count)
        else:
            columns["pid"].extend([pids[i] for i in batch.resource_index])

    def _add_sparse(self, name: str, values: dict[int, str], count: int) -> None:
        column = [""] * count
        for row, value in values.items():
            column[row] = value
        self._columns[name] += column

    def _add_events_and_links(self, batch: SpanBatch, count: int, inexact: dict[int, None]) -> None:
        events, links = [""] * count, [""] * count
        for row, some in batch.events.items():
            events[row] = _sequence_text(some, _event_value, row, inexact)
        for row, some_links in batch.links.items():
            links[row] = _sequence_text(some_links, _link_value, row, inexact)
        self._columns["events"] += events
        self._columns["links"] += links
        for name, position in (("dropped_attributes", 0), ("dropped_events", 1), ("dropped_links", 2)):
            column = array("q", bytes(8 * count))
            for row, counts in batch.dropped.items():
                column[row] = counts[position]
            self._columns[name] += column

    def _add_extracted(self, batch: SpanBatch, row_names: list[str]) -> None:
        count, columns = len(batch), self._columns
        present = set().union(*batch.attributes) & _EXTRACTED
        missing = array("q", [MISSING]) * count
        for column, key in _TEXT_FROM_ATTRIBUTE.items():
            found = [_text(a.get(key)) for a in batch.attributes] if key in present else [""] * count
            columns[column] += found
        for column, key in _NUMBER_FROM_ATTRIBUTE.items():
            columns[column] += array(
                "q", [_number(a.get(key)) for a in batch.attributes] if key in present else missing
            )
        if names.COMPONENT in present:
            row_names = [_text(a.get(names.COMPONENT)) or n for a, n in zip(batch.attributes, row_names, strict=True)]
        columns["component"] += row_names
        types, messages = [""] * count, [""] * count
        if names.ERROR_TYPE in present:
            types = [_text(a.get(names.ERROR_TYPE)) for a in batch.attributes]
        for row, some in batch.events.items():
            for event in some:
                if event.name == names.EXCEPTION_EVENT:
                    types[row] = _text(event.attributes.get(names.EXCEPTION_TYPE)) or types[row]
                    messages[row] = _text(event.attributes.get(names.EXCEPTION_MESSAGE))
        columns["exception_type"] += types
        columns["exception_message"] += messages

    def _add_exact(self, batch: SpanBatch, inexact: dict[int, None]) -> None:
        """Keep rows that the columns can't hold exactly as blobs of their own."""
        base = len(self) - len(batch)
        for name in _TEXT:
            column = self._columns[name]
            try:
                "".join(column[base:]).encode()
            except UnicodeEncodeError:
                for row in range(len(batch)):
                    text = column[base + row]
                    if (clean := text.encode(errors="replace").decode()) != text:
                        column[base + row] = clean
                        inexact[row] = None
        exact = [b""] * len(batch)
        for row in inexact:
            exact[row] = codec.encode(batch_from_records([batch.record(row)], batch.pid), 0)
        self._columns["exact"] += exact


def resource_row(resource_id: str, resource: Resource) -> tuple[Any, ...]:
    """Return a row of `resources`; attributes as JSON text."""
    url, text, exact = _shared_texts(resource, resource.schema_url)
    return (resource_id, url, text, resource.dropped_attributes, exact)


def scope_row(scope_id: str, scope: Scope) -> tuple[Any, ...]:
    """Return a row of `scopes`; attributes as JSON text."""
    name, version, url, text, exact = _shared_texts(scope, scope.name, scope.version, scope.schema_url)
    return (scope_id, name, version, url, text, scope.dropped_attributes, exact)


def attributes_json(attributes: Attributes) -> tuple[str, bool]:
    """Return attributes as JSON text, and whether that text says everything.

    Where it does not, bytes are base64, NaN and infinities are null, lone surrogates are `?`.
    """
    if all(map(_is_exact, attributes.values())):
        try:
            text = _json(attributes).decode()
        except (UnicodeEncodeError, TypeError, OverflowError):
            pass
        else:
            return text, "\\u0000" not in text  # DuckDB cuts the keys of nested maps at a NUL
    return _json(_jsonable(attributes)).decode(), False


def _shared_texts(value: Resource | Scope, *texts: str) -> tuple[Any, ...]:
    """The texts and the attributes as the tables can hold them, and the value itself where that is not all."""
    attributes, is_exact = attributes_json(value.attributes)
    cleaned = [_clean(text) for text in texts]
    is_exact = is_exact and all(exact for _, exact in cleaned)
    return (*(text for text, _ in cleaned), attributes, None if is_exact else codec.pack_value(list(value)))


def _remember(known: dict[str, Any], value: Any) -> str:
    digest = hashlib.blake2b(codec.pack_value(list(value)), digest_size=8).hexdigest()
    known.setdefault(digest, value)
    return digest


def _durations(batch: SpanBatch, inexact: dict[int, None]) -> array[int]:
    if UNKNOWN_TIME not in batch.start_ns and UNKNOWN_TIME not in batch.end_ns:
        try:
            return array("q", map(sub, batch.end_ns, batch.start_ns))
        except OverflowError:
            pass
    times = enumerate(zip(batch.start_ns, batch.end_ns, strict=True))
    return array("q", [_duration(row, start, end, inexact) for row, (start, end) in times])


def _duration(row: int, start: int, end: int, inexact: dict[int, None]) -> int:
    if start == UNKNOWN_TIME and end == UNKNOWN_TIME:
        return MISSING
    if start == UNKNOWN_TIME or end == UNKNOWN_TIME or not -(2**63) < end - start < 2**63:
        inexact[row] = None  # the end can't be told from start and duration
        return MISSING
    return end - start


def _attributes_text(attributes: Attributes, row: int, inexact: dict[int, None]) -> str:
    text, exact = attributes_json(attributes)
    if not exact:
        inexact[row] = None
    return text


def _sequence_text(
    values: Sequence[Any],
    convert: Callable[[Any], tuple[dict[str, Any], bool]],
    row: int,
    inexact: dict[int, None],
) -> str:
    converted = [convert(value) for value in values]
    if not all(exact for _, exact in converted):
        inexact[row] = None
    return _json([value for value, _ in converted]).decode()


def _event_value(event: Any) -> tuple[dict[str, Any], bool]:
    text, exact = attributes_json(event.attributes)
    name, exact_name = _clean(event.name)
    in_range = MISSING < event.time_ns < 2**63
    value = {
        "time_ns": event.time_ns if in_range else 0,
        "name": name,
        "attributes": msgspec.Raw(text.encode()),
        "dropped_attributes": event.dropped_attributes,
    }
    return value, exact and exact_name and in_range


def _link_value(link: Any) -> tuple[dict[str, Any], bool]:
    text, exact = attributes_json(link.attributes)
    state, exact_state = _clean(link.trace_state)
    value = {
        "trace_id": link.trace_id.hex(),
        "span_id": link.span_id.hex(),
        "trace_state": state,
        "flags": link.flags,
        "attributes": msgspec.Raw(text.encode()),
        "dropped_attributes": link.dropped_attributes,
    }
    return value, exact and exact_state


def _clean(text: str) -> tuple[str, bool]:
    clean = text.encode(errors="replace").decode()
    return clean, clean == text


def _is_exact(value: Any) -> bool:
    """Whether JSON, and DuckDB's reading of it, holds the value as it is."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is int:
        return bool(-(2**63) <= value < 2**64)
    if kind in _EXACT_TYPES:
        return True
    if kind is list or kind is tuple:
        return all(map(_is_exact, value))
    if kind is dict:
        return all(map(_is_exact, value.values())) and all(type(key) is str for key in value)
    return False


def _jsonable(value: Any) -> Any:
    if isinstance(value, str):
        return _clean(value)[0]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {_clean(str(key))[0]: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**64:
        return float(value) if abs(value) < 1 << 1000 else str(value)
    return value if isinstance(value, (int, bytes, type(None))) else str(value)


def _weights(trace_states: dict[int, str], count: int) -> array[float]:
    weights = array("d", [1.0]) * count
    for row, state in trace_states.items():
        weights[row] = sample_weight(state)
    return weights


def sample_weight(trace_state: str) -> float:
    """Return how many spans one with this trace state stands for: 1/p of its sampling probability p.

    p = 1 - T / 2**56 with T the rejection threshold `ot=th:` (hexadecimal, trailing zeros left out), as
    OpenTelemetry's "TraceState: Probability Sampling" defines it. Without one the answer is 1.
    """
    for member in trace_state.split(","):
        key, _, value = member.strip().partition("=")
        if key == "ot":
            for part in value.split(";"):
                name, _, threshold = part.partition(":")
                if name == "th" and 0 < len(threshold) <= 14 and all(c in "0123456789abcdef" for c in threshold):
                    return 2**56 / (2**56 - int(threshold.ljust(14, "0"), 16))
    return 1.0


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int:
    return value if isinstance(value, int) and MISSING < value < 2**63 else MISSING


def _array(kind: Any, values: Any) -> Any:
    return na.c_array_from_buffers(kind, len(values), [None, values])


def _hex_array(ids: bytes, count: int) -> Any:
    data = ids.hex().encode()
    width = len(data) // count
    return na.c_array_from_buffers(na.string(), count, [None, array("i", range(0, len(data) + 1, width)), data])


def _text_array(values: Sequence[str]) -> Any:
    joined = "".join(values)
    if not joined:
        return na.c_array_from_buffers(na.string(), len(values), [None, bytes(4 * (len(values) + 1)), b""])
    data = joined.encode()
    lengths: Iterable[int] = map(len, values) if len(data) == len(joined) else (len(v.encode()) for v in values)
    return na.c_array_from_buffers(na.string(), len(values), [None, _offsets(lengths), data])


def _binary_array(values: Sequence[bytes]) -> Any:
    return na.c_array_from_buffers(na.binary(), len(values), [None, _offsets(map(len, values)), b"".join(values)])


def _offsets(lengths: Iterable[int]) -> array[int]:
    return array("i", accumulate(lengths, initial=0))
