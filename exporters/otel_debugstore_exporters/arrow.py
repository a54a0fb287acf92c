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
from itertools import accumulate, chain
from operator import sub
from typing import Any, Final

import msgspec
import nanoarrow as na  # type: ignore[import-untyped]

from otel_debugstore import attributes as names
from otel_debugstore.layers import LAYERS
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.arrow_columns import StagedRows
from otel_debugstore_exporters.batch import (
    UNKNOWN_TIME,
    Attributes,
    Resource,
    Scope,
    SpanBatch,
    batch_from_records,
)
from otel_debugstore_exporters.side_tables import SideTables

MISSING: Final = -(2**63)
_EXACT_TYPES: Final = frozenset((str, int, bool, type(None), float))
_JSON: Final = msgspec.json.Encoder()
_json = _JSON.encode
_ANY_DIGIT: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER: Final = b"0" * 19

_NUMBER_FROM_ATTRIBUTE: Final = {
    "thread_id": names.THREAD_ID,
    "cpu_ns": names.CPU_TIME_NS,
    "memory_peak_bytes": names.MEMORY_PEAK_BYTES,
    "memory_net_bytes": names.MEMORY_NET_BYTES,
    "io_read_bytes": names.IO_READ_BYTES,
    "io_write_bytes": names.IO_WRITE_BYTES,
}
_EXTRACTED: Final = frozenset(
    (names.LAYER, names.VARIANT, *_NUMBER_FROM_ATTRIBUTE.values(), names.COMPONENT, names.ERROR_TYPE)
)

_TEXT: Final = (
    "trace_id",
    "span_id",
    "parent_id",
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


class Stager:
    """Collects batches as columns, and gives their spans out as one Arrow table.

    Also collects the distinct resources and scopes, by the 64-bit hash that identifies them in the tables,
    and in `beside` what batches carry beside spans.
    """

    def __init__(self, session: str) -> None:
        self._session = session.encode()
        self.resources: dict[str, Resource] = {}
        self.scopes: dict[str, Scope] = {}
        self.beside = SideTables(session)
        self._clear()

    def __len__(self) -> int:
        return len(self._numbers["kind"])

    @property
    def characters(self) -> int:
        """The length of the staged attributes, as JSON, and of payloads: most of what is staged of memory."""
        return self._texts["attributes"].size + self.beside.size_bytes

    def add(self, batch: SpanBatch) -> None:
        """Append the spans of a batch, and what it carries beside them."""
        self.beside.add(batch)
        if not len(batch):
            return
        count, numbers, texts = len(batch), self._numbers, self._texts
        inexact: dict[int, None] = {}
        texts["trace_id"].add_fixed(batch.trace_ids.hex().encode(), count)
        texts["span_id"].add_fixed(batch.span_ids.hex().encode(), count)
        texts["parent_id"].add_fixed(batch.parent_ids.hex().encode(), count)
        texts["session"].add_fixed(self._session * count, count)
        numbers["kind"].extend(batch.kinds)
        numbers["status"].extend(batch.status_codes)
        numbers["flags"].extend(batch.flags.tolist())
        numbers["start_ns"] += batch.start_ns
        numbers["duration_ns"] += _durations(batch, inexact)
        row_names = [batch.names[i] for i in batch.name_index]
        self._add_texts("name", row_names, inexact)
        self._add_shared(batch, inexact)
        self._add_attributes(batch.attributes, inexact)
        self._add_sparse("status_message", batch.status_messages, count, inexact)
        self._add_sparse("trace_state", batch.trace_states, count, inexact)
        self._add_events_and_links(batch, inexact)
        self._add_extracted(batch, row_names, inexact)
        self._weights += _weights(batch)
        self._add_exact(batch, inexact)

    def take(self) -> StagedRows:
        """Return all spans added since the last call."""
        children = [self._texts[name].array() for name in _TEXT]
        children += [_array(na.int64(), self._numbers[name]) for name in _INTEGERS]
        children.append(_array(na.float64(), self._weights))
        children.append(_binary_array(self._exact))
        fields = [*_TEXT, *_INTEGERS, "sample_weight", "exact"]
        types = [na.string()] * len(_TEXT) + [na.int64()] * len(_INTEGERS)
        types += [na.float64(), na.binary()]
        schema = na.struct(dict(zip(fields, types, strict=True)))
        staged = StagedRows(na.Array(na.c_array_from_buffers(schema, len(self), [None], children=children)))
        self._clear()
        return staged

    def _clear(self) -> None:
        self._texts = {name: _TextColumn() for name in _TEXT}
        self._numbers = {name: array("q") for name in _INTEGERS}
        self._weights = array("d")
        self._exact: list[bytes] = []

    def _add_texts(self, name: str, values: Sequence[str], inexact: dict[int, None]) -> None:
        """Append to a text column; lone surrogates, which it can't hold, become `?`."""
        try:
            self._texts[name].add(values)
        except UnicodeEncodeError:
            cleaned = [_clean(value) for value in values]
            inexact.update(dict.fromkeys(row for row, (_, exact) in enumerate(cleaned) if not exact))
            self._texts[name].add([text for text, _ in cleaned])

    def _add_sparse(self, name: str, values: dict[int, str], count: int, inexact: dict[int, None]) -> None:
        if values:
            self._add_texts(name, [values.get(row, "") for row in range(count)], inexact)
        else:
            self._texts[name].add_fixed(b"", count)

    def _add_shared(self, batch: SpanBatch, inexact: dict[int, None]) -> None:
        resource_ids = [_remember(self.resources, r) for r in batch.resources]
        scope_ids = [_remember(self.scopes, s) for s in batch.scopes]
        services = [_text(r.attributes.get(names.SERVICE_NAME)) for r in batch.resources]
        pids = [_number(r.attributes.get(names.PROCESS_PID)) for r in batch.resources]
        for name, ids, index in (
            ("resource_id", resource_ids, batch.resource_index),
            ("scope_id", scope_ids, batch.scope_index),
        ):
            self._texts[name].add_fixed("".join([ids[i] for i in index]).encode(), len(batch))
        self._add_texts("service", [services[i] for i in batch.resource_index], inexact)
        if batch.pid is not None:
            self._numbers["pid"] += array("q", [batch.pid]) * len(batch)
        else:
            self._numbers["pid"].extend([pids[i] for i in batch.resource_index])

    def _add_attributes(self, attributes: Sequence[Attributes], inexact: dict[int, None]) -> None:
        if not any(attributes):
            self._texts["attributes"].add_fixed(b"", len(attributes))
        elif lines := _json_lines(attributes):
            self._texts["attributes"].add_encoded(lines)
        else:
            texts = [_attributes_text(a, i, inexact) if a else "" for i, a in enumerate(attributes)]
            self._add_texts("attributes", texts, inexact)

    def _add_events_and_links(self, batch: SpanBatch, inexact: dict[int, None]) -> None:
        count = len(batch)
        events = {row: _sequence_text(some, _event_value, row, inexact) for row, some in batch.events.items()}
        links = {row: _sequence_text(some, _link_value, row, inexact) for row, some in batch.links.items()}
        self._add_sparse("events", events, count, inexact)
        self._add_sparse("links", links, count, inexact)
        for name, position in (("dropped_attributes", 0), ("dropped_events", 1), ("dropped_links", 2)):
            column = array("q", bytes(8 * count))
            for row, counts in batch.dropped.items():
                column[row] = counts[position]
            self._numbers[name] += column

    def _add_extracted(self, batch: SpanBatch, row_names: list[str], inexact: dict[int, None]) -> None:
        count, attributes = len(batch), batch.attributes
        present = set().union(*attributes) & _EXTRACTED
        missing = array("q", [MISSING]) * count
        layers = _layers_of(attributes) if names.LAYER in present else {}
        self._add_sparse("layer", {**batch.layers, **layers} if batch.layers else layers, count, inexact)
        variants = _texts_of(attributes, names.VARIANT) if names.VARIANT in present else {}
        self._add_sparse("variant", variants, count, inexact)
        for column, key in _NUMBER_FROM_ATTRIBUTE.items():
            self._numbers[column] += (
                array("q", [_number(a.get(key)) for a in attributes]) if key in present else missing
            )
        if names.COMPONENT in present:
            row_names = [_text(a.get(names.COMPONENT)) or n for a, n in zip(attributes, row_names, strict=True)]
        self._add_texts("component", row_names, inexact)
        types = _texts_of(attributes, names.ERROR_TYPE) if names.ERROR_TYPE in present else {}
        messages = dict[int, str]()
        for row, some in batch.events.items():
            for event in some:
                if event.name == names.EXCEPTION_EVENT:
                    types[row] = _text(event.attributes.get(names.EXCEPTION_TYPE)) or types.get(row, "")
                    messages[row] = _text(event.attributes.get(names.EXCEPTION_MESSAGE))
        self._add_sparse("exception_type", types, count, inexact)
        self._add_sparse("exception_message", messages, count, inexact)

    def _add_exact(self, batch: SpanBatch, inexact: dict[int, None]) -> None:
        """Keep rows that the columns can't hold exactly as blobs of their own."""
        exact = [b""] * len(batch)
        for row in inexact:
            exact[row] = codec.encode(batch_from_records([batch.record(row)], batch.pid), 0)
        self._exact += exact


class _TextColumn:
    """Text as Arrow lays it out: all values in one buffer, and where each of them ends."""

    __slots__ = ("_data", "_offsets")

    def __init__(self) -> None:
        self._data = bytearray()
        self._offsets = array("i", [0])

    @property
    def size(self) -> int:
        """Bytes of text."""
        return len(self._data)

    def add(self, values: Sequence[str]) -> None:
        """Append values.

        Raises:
            UnicodeEncodeError: One holds a lone surrogate; nothing was appended.
        """
        joined = "".join(values)
        data = joined.encode()
        lengths: Iterable[int] = map(len, values) if len(data) == len(joined) else (len(v.encode()) for v in values)
        self._append(data, lengths)

    def add_encoded(self, values: Sequence[bytes]) -> None:
        """Append values that are UTF-8 already."""
        self._append(b"".join(values), map(len, values))

    def add_fixed(self, data: bytes, count: int) -> None:
        """Append `count` values of equal length, which `data` holds one after the other."""
        start = len(self._data)
        if data:
            width = len(data) // count
            self._offsets.extend(range(start + width, start + len(data) + 1, width))
            self._data += data
        else:
            self._offsets += array("i", [start]) * count

    def array(self) -> Any:
        """Return all values as an Arrow array, which takes over the buffers."""
        return na.c_array_from_buffers(na.string(), len(self._offsets) - 1, [None, self._offsets, self._data])

    def _append(self, data: bytes, lengths: Iterable[int]) -> None:
        self._offsets += array("i", accumulate(lengths, initial=len(self._data)))[1:]
        self._data += data


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


def _json_lines(attributes: Sequence[Attributes]) -> list[bytes]:
    """Return what `attributes_json` does for each, at a third of its cost; nothing where one needs its care."""
    if not _EXACT_TYPES.issuperset(map(type, chain.from_iterable([some.values() for some in attributes]))):
        return []
    try:
        lines = _JSON.encode_lines(attributes)
    except (UnicodeEncodeError, TypeError, OverflowError):
        return []
    if (b"\\" in lines and b"\\u0000" in lines) or b"null" in lines or _LONG_NUMBER in lines.translate(_ANY_DIGIT):
        return []  # there may be integers beyond 64 bits, NaN (null in JSON) or what else needs a look
    split = lines.split(b"\n")[:-1]
    return split if all(attributes) else [b"" if line == b"{}" else line for line in split]


def _layers_of(attributes: Sequence[Attributes]) -> dict[int, str]:
    """The layers that spans name; a foreign span's attribute of that name may hold anything."""
    return {row: layer for row, some in enumerate(attributes) if (layer := some.get(names.LAYER)) in LAYERS}


def _texts_of(attributes: Sequence[Attributes], key: str) -> dict[int, str]:
    return {row: _text(some[key]) for row, some in enumerate(attributes) if key in some}


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
        # DuckDB gives a map with an empty key back as a list of pairs, where it lies in a list beside other kinds.
        return "" not in value and all(map(_is_exact, value.values())) and all(type(key) is str for key in value)
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


def _weights(batch: SpanBatch) -> array[float]:
    weights = array("d", [1.0]) * len(batch)
    for row, state in batch.trace_states.items():
        if batch.attributes[row].get(names.LATE) is not True:
            weights[row] = sample_weight(state)
    return weights


def sample_weight(trace_state: str) -> float:
    """Return how many spans one with this trace state stands for: 1/p of its sampling probability p.

    p = 1 - T / 2**56 with T the rejection threshold `ot=th:` (hexadecimal, trailing zeros left out), as
    OpenTelemetry's "TraceState: Probability Sampling" defines it. Without one the answer is 1. (A span that
    was recorded because of how it ended, `debugstore.late`, stands for itself alone, whatever this says.)
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


def _binary_array(values: Sequence[bytes]) -> Any:
    return na.c_array_from_buffers(na.binary(), len(values), [None, _offsets(map(len, values)), b"".join(values)])


def _offsets(lengths: Iterable[int]) -> array[int]:
    return array("i", accumulate(lengths, initial=0))
