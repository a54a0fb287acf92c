"""A batch as bytes and back: the journal's blob format.

A blob is a header (`HEADER`) and one zstd frame that holds one msgpack map: a key a column of
`SpanBatch`. Fixed-width columns are little-endian binary. Integers beyond 64 bits are msgpack
extension 1 (decimal text); strings may hold lone surrogates. Later versions may add keys, which
readers ignore; a change that readers can't ignore raises `BLOB_VERSION`. A blob may hold no spans,
only what goes into the store beside them; its times are then those of the counts in it, or when it was written.
Version 2 has, in the place of attributes, what those of spans of calls are made of (`call_attributes`).
"""

from __future__ import annotations

import contextlib
import struct
import sys
from array import array
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgpack
import zstandard

from otel_debugstore.errors import CorruptDataError, FormatVersionError
from otel_debugstore.outbox import CallCount, Code, Payload
from otel_debugstore_exporters.batch import CallValues, Event, Link, Resource, Scope, SpanBatch

BLOB_VERSION: Final = 2
"""The newest that can be read; blobs say the oldest that they are."""

_PLAIN_VERSION: Final = 1
HEADER: Final = struct.Struct("<BxHIIqqq")
"""version, header length, span count, writer pid (0: unknown), min start, max end, written at."""

_ZSTD_LEVEL: Final = 1
_MAX_RAW_BYTES: Final = 1 << 30
_BIG_INTEGER: Final = 1
_MAX_DEPTH: Final = 64

if sys.byteorder != "little":
    raise ImportError("otel-debugstore keeps little-endian columns and has not been ported to this machine.")


class BlobHeader(NamedTuple):
    """What can be known of a blob without decompressing it. Times in nanoseconds since 1970."""

    span_count: int
    pid: int | None
    min_start_ns: int
    max_end_ns: int
    written_ns: int


def encode(batch: SpanBatch, written_ns: int) -> bytes:
    """Return the batch as one blob.

    Args:
        batch: Spans, what belongs beside them, or both.
        written_ns: The time of writing, nanoseconds since 1970.
    """
    header = HEADER.pack(
        BLOB_VERSION if batch.call_values else _PLAIN_VERSION,
        HEADER.size,
        len(batch),
        batch.pid or 0,
        *_times(batch, written_ns),
        written_ns,
    )
    columns = _columns(batch)
    try:
        raw = _pack(columns)
    except (OverflowError, ValueError, TypeError):
        raw = _pack(plain(columns))
    return header + zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True).compress(raw)


def read_header(blob: bytes | memoryview) -> BlobHeader:
    """Return what the header says.

    Raises:
        FormatVersionError: A newer version wrote the blob.
        CorruptDataError: It is too short to be a blob.
    """
    if len(blob) < HEADER.size:
        raise CorruptDataError(f"A journal blob of {len(blob)} bytes is too short to be one; run `debugstore doctor`.")
    version, _, count, pid, start, end, written = HEADER.unpack_from(blob)
    if version > BLOB_VERSION:
        raise FormatVersionError(
            f"A journal blob has format version {version}, this otel-debugstore reads up to {BLOB_VERSION}: "
            "upgrade it (pip install -U otel-debugstore)."
        )
    return BlobHeader(count, pid or None, start, end, written)


def decode(blob: bytes | memoryview) -> SpanBatch:
    """Return the batch that `encode` made a blob of.

    Raises:
        FormatVersionError: A newer version wrote the blob.
        CorruptDataError: The blob is damaged.
    """
    header = read_header(blob)
    length = HEADER.unpack_from(blob)[1]
    try:
        raw = zstandard.ZstdDecompressor().decompress(bytes(blob[length:]), max_output_size=_MAX_RAW_BYTES)
        batch = _batch(_unpack_columns(raw), header.pid)
    except (zstandard.ZstdError, ValueError, TypeError, LookupError, OverflowError, msgpack.UnpackException) as error:
        raise CorruptDataError(f"A journal blob can't be decoded ({error}); run `debugstore doctor`.") from error
    if len(batch) != header.span_count:
        raise CorruptDataError("A journal blob holds another number of spans than it says; run `debugstore doctor`.")
    return batch


def pack_value(value: Any) -> bytes:
    """Return a value of the attribute kinds as msgpack, exactly (see the module's first lines)."""
    try:
        return _pack(value)
    except (OverflowError, ValueError, TypeError):
        return _pack(plain(value))


def _unpack_columns(raw: bytes) -> Any:
    """Return what `unpack_value` does, in half the time, but for text that msgspec can't read: lone surrogates."""
    import msgspec  # here: most processes only encode

    try:
        return msgspec.msgpack.decode(raw, ext_hook=_read_extension)
    except (msgspec.MsgspecError, ValueError):
        return unpack_value(raw)


def unpack_value(data: bytes) -> Any:
    """Return the value that `pack_value` packed; sequences come back as lists."""
    return msgpack.unpackb(
        data, raw=False, unicode_errors="surrogatepass", ext_hook=_read_extension, strict_map_key=False
    )


def plain(value: Any, depth: int = 0) -> Any:
    """Return `value` with what msgpack can't hold replaced: big integers exactly, other types by text."""
    if value is None or isinstance(value, (bool, float, str, bytes)):
        return value
    if isinstance(value, int):
        if -(2**63) <= value < 2**64:
            return int(value)
        return msgpack.ExtType(_BIG_INTEGER, b"%x" % value if value >= 0 else b"-%x" % -value)
    if depth >= _MAX_DEPTH:
        return "(nested too deep)"
    if isinstance(value, Mapping):
        return {plain_key(k): plain(v, depth + 1) for k, v in value.items()}
    if isinstance(value, Sequence):
        return [plain(v, depth + 1) for v in value]
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    return f"({type(value).__module__}.{type(value).__qualname__})"


def plain_key(key: Any) -> str | bytes | int:
    """Return a mapping key that msgpack can hold (the sparse columns' keys are row numbers)."""
    return key if isinstance(key, (str, bytes, int)) else str(plain(key))


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True, unicode_errors="surrogatepass")
    return packed


def _read_extension(code: int, data: bytes | memoryview) -> Any:
    if code == _BIG_INTEGER:
        return int(bytes(data), 16)
    return msgpack.ExtType(code, bytes(data))


def _times(batch: SpanBatch, written_ns: int) -> tuple[int, int]:
    """The first start and the last end."""
    if len(batch):
        return min(batch.start_ns), max(batch.end_ns)
    starts, ends = [count.start_ns for count in batch.counts], [count.end_ns for count in batch.counts]
    return min(starts, default=written_ns), max(ends, default=written_ns)


def _columns(batch: SpanBatch) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "trace_ids": batch.trace_ids,
        "span_ids": batch.span_ids,
        "parent_ids": batch.parent_ids,
        "start_ns": batch.start_ns.tobytes(),
        "end_ns": batch.end_ns.tobytes(),
        "kinds": batch.kinds,
        "status_codes": batch.status_codes,
        "flags": batch.flags.tobytes(),
        "names": batch.names,
        "name_index": batch.name_index.tobytes(),
        "resources": batch.resources,
        "resource_index": batch.resource_index.tobytes(),
        "scopes": batch.scopes,
        "scope_index": batch.scope_index.tobytes(),
    }
    if not batch.call_values:
        columns["attributes"] = batch.attributes
    for name in _OPTIONAL:
        if value := getattr(batch, name):
            columns[name] = value
    return columns


_OPTIONAL: Final = (
    "status_messages",
    "trace_states",
    "events",
    "links",
    "dropped",
    "layers",
    "payloads",
    "code",
    "counts",
    "call_values",
)
"""What most batches lack, and blobs of older versions too."""


def _batch(columns: dict[str, Any], pid: int | None) -> SpanBatch:
    batch = SpanBatch(
        trace_ids=columns["trace_ids"],
        span_ids=columns["span_ids"],
        parent_ids=columns["parent_ids"],
        start_ns=array("q", columns["start_ns"]),
        end_ns=array("q", columns["end_ns"]),
        kinds=columns["kinds"],
        status_codes=columns["status_codes"],
        flags=array("I", columns["flags"]),
        names=list(map(_name, columns["names"])),
        name_index=array("I", columns["name_index"]),
        resources=[Resource(*value) for value in columns["resources"]],
        resource_index=array("I", columns["resource_index"]),
        scopes=[Scope(*value) for value in columns["scopes"]],
        scope_index=array("I", columns["scope_index"]),
        attributes=columns.get("attributes", []),
        status_messages=columns.get("status_messages", {}),
        trace_states=columns.get("trace_states", {}),
        events={row: list(map(_event, events)) for row, events in columns.get("events", {}).items()},
        links={row: [Link(*e) for e in links] for row, links in columns.get("links", {}).items()},
        dropped={row: tuple(counts) for row, counts in columns.get("dropped", {}).items()},
        layers=columns.get("layers", {}),
        payloads=[Payload(*fields) for fields in columns.get("payloads", ())],
        code=[Code(*fields) for fields in columns.get("code", ())],
        counts=[CallCount(*fields) for fields in columns.get("counts", ())],
        pid=pid,
    )
    if of_calls := columns.get("call_values"):
        from otel_debugstore_exporters.call_attributes import restored  # here: most processes only encode

        values = CallValues(*of_calls)
        found = restored(values, _unpack_columns(values.contents))
        batch.attributes, batch.payloads = found.attributes, [*batch.payloads, *found.payloads]
    count = len(batch.attributes)
    if (len(batch.trace_ids), len(batch.span_ids), len(batch.start_ns)) != (16 * count, 8 * count, count):
        raise ValueError("columns differ in length")
    return batch


def _name(value: Any) -> str:
    return value if isinstance(value, str) else str(value)  # nothing keeps a program from naming a span 5


def _event(fields: Sequence[Any]) -> Event:
    event = Event(*fields)
    if type(event.time_ns) is int and type(event.name) is str:
        return event
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        return event._replace(time_ns=int(event.time_ns), name=_name(event.name))
    return event._replace(time_ns=0, name=_name(event.name))
