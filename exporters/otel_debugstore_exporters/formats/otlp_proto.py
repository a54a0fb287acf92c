"""OTLP in its protobuf encoding, by the messages of `opentelemetry-proto`.

A file holds either one `TracesData` (`ExportTraceServiceRequest` has the same shape, and files of
either may be concatenated), or a sequence of them, each after its length as a varint, as protobuf's
`SerializeDelimited` writes them. `is_delimited` tells the two apart by their first bytes. The unit
that is taken or refused as a whole is a message in the second case, and one `ResourceSpans` in the
first, so that a file of any size is read in bounded memory.

Protobuf can't tell a time of 0 from a missing one: both are a time that is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from io import BufferedIOBase
from itertools import count
from typing import Any, Final

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, TracesData

from otel_debugstore.errors import MalformedInputError
from otel_debugstore_exporters.batch import ROOT, Attributes, SpanBatch
from otel_debugstore_exporters.formats.anyvalue import MAX_DEPTH
from otel_debugstore_exporters.formats.framing import MAX_UNIT_BYTES, Unit
from otel_debugstore_exporters.formats.otlp_columns import Encoding, batch_from_otlp

_RESOURCE_SPANS_TAG: Final = 0x0A
_RESOURCE_SPANS_FIELDS: Final = (0x0A, 0x12, 0x1A)
_LENGTH_DELIMITED: Final = 2
_FIXED_WIDTHS: Final = {1: 8, 5: 4}


def decode(message: bytes) -> SpanBatch:
    """Return the spans of one `TracesData` (or `ExportTraceServiceRequest`) message.

    Raises:
        MalformedInputError: It can't be parsed, or an id or a time is not one.
    """
    return build(parse(message))


def parse(message: bytes) -> Sequence[Any]:
    """Return the `ResourceSpans` of one `TracesData`, for `build`; raises as `decode` does."""
    resource_spans: Sequence[Any] = _parsed(TracesData, message).resource_spans
    return resource_spans


def parse_resource_spans(message: bytes) -> Sequence[Any]:
    """Return the one `ResourceSpans` that the message is, for `build`; raises as `decode` does."""
    return [_parsed(ResourceSpans, message)]


def build(resource_spans: Iterable[Any]) -> SpanBatch:
    """Return the spans of what `parse` returned, for one message or several; raises as `decode` does."""
    return batch_from_otlp(resource_spans, _PROTOBUF)


def _parsed(kind: Any, message: bytes) -> Any:
    try:
        return kind.FromString(message)
    except DecodeError as error:
        raise MalformedInputError(f"not OTLP protobuf: {error}") from error


def _ids(ids: Sequence[bytes], width: int, what: str) -> bytes:
    if not {width}.issuperset(map(len, ids)):
        row, wrong = next((row, one) for row, one in enumerate(ids) if len(one) != width)
        raise MalformedInputError(
            f"not OTLP protobuf: the {what} of span {row + 1} has {len(wrong)} bytes instead of {width}"
        )
    return b"".join(ids)


def _attributes(pairs: Any, depth: int = 0) -> Attributes:
    return {pair.key: _value(pair.value, depth) for pair in pairs}


def _value(value: Any, depth: int) -> Any:
    kind = value.WhichOneof("value")
    if kind is None or kind == "string_value_strindex":
        return None
    content = getattr(value, kind)
    if kind not in ("array_value", "kvlist_value"):
        return content
    if depth >= MAX_DEPTH:
        raise MalformedInputError(f"an attribute value is nested deeper than {MAX_DEPTH} levels")
    if kind == "array_value":
        return [_value(element, depth + 1) for element in content.values]
    return _attributes(content.values, depth + 1)


_PROTOBUF: Final = Encoding(ids=_ids, no_parent=ROOT, attributes=_attributes, zero_is_unknown=True)


def is_protobuf(head: bytes) -> bool:
    """Say whether a file that begins with `head` can be OTLP protobuf."""
    return _is_plain(head) or is_delimited(head)


def is_delimited(head: bytes) -> bool:
    """Say whether `head` begins a sequence of messages, each after its length."""
    if _is_plain(head):
        return False
    position = 0
    seen = False
    while position < len(head):
        try:
            length, position = _varint(head, position)
        except IndexError:
            break
        message = head[position : position + length]
        if message and not _is_plain(message, whole=position + length <= len(head)):
            return False
        seen = seen or bool(message)
        position += length
    return seen


def _is_plain(data: bytes, whole: bool = False) -> bool:
    """Say whether `data` begins (or `whole`: is) a sequence of `resource_spans` fields."""
    position = 0
    while position < len(data):
        if data[position] != _RESOURCE_SPANS_TAG:
            return position > 0  # a field of a later version
        try:
            length, position = _varint(data, position + 1)
        except (IndexError, ValueError):
            return not whole and position > 0
        if length and position < len(data) and data[position] not in _RESOURCE_SPANS_FIELDS:
            return False
        position += length
    return bool(data) and (position == len(data) or not whole)


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a varint and the position behind it. Raises IndexError at the end of the data."""
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a varint of more than ten bytes")


def field_units(stream: BufferedIOBase) -> Iterator[Unit]:
    """Yield the `ResourceSpans` of one message (or several, put together) with their numbers, from 1.

    What breaks the sequence itself, a field cut short or a length out of bounds, ends it with an error.
    """
    return _units(stream, _read_field)


def message_units(stream: BufferedIOBase) -> Iterator[Unit]:
    """Yield the messages of a delimited sequence with their numbers, from 1; see `field_units`."""
    return _units(stream, _read_message)


def _units(stream: BufferedIOBase, read: Callable[[BufferedIOBase], bytes | None]) -> Iterator[Unit]:
    for number in count(1):
        try:
            message = read(stream)
        except MalformedInputError as error:
            yield Unit(number, error)
            return
        if message is None:
            return
        yield Unit(number, message)


def _read_message(stream: BufferedIOBase) -> bytes | None:
    length = _read_varint(stream)
    return None if length is None else _read_exactly(stream, length)


def _read_field(stream: BufferedIOBase) -> bytes | None:
    """Return the next `resource_spans`; other fields, which a later OTLP may add, are skipped."""
    while (tag := _read_varint(stream)) is not None:
        wire_type = tag & 7
        if wire_type == _LENGTH_DELIMITED:
            content = _read_exactly(stream, _required_varint(stream))
            if tag == _RESOURCE_SPANS_TAG:
                return content
        elif wire_type in _FIXED_WIDTHS:
            _read_exactly(stream, _FIXED_WIDTHS[wire_type])
        elif wire_type == 0:
            _required_varint(stream)
        else:
            raise MalformedInputError(f"not OTLP protobuf: a field of wire type {wire_type}")
    return None


def _read_varint(stream: BufferedIOBase) -> int | None:
    value = 0
    for shift in range(0, 70, 7):
        byte = stream.read(1)
        if not byte:
            if shift == 0:
                return None
            raise MalformedInputError("not OTLP protobuf: it ends within a number")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise MalformedInputError("not OTLP protobuf: a number of more than ten bytes")


def _required_varint(stream: BufferedIOBase) -> int:
    value = _read_varint(stream)
    if value is None:
        raise MalformedInputError("not OTLP protobuf: it ends within a field")
    return value


def _read_exactly(stream: BufferedIOBase, length: int) -> bytes:
    if length > MAX_UNIT_BYTES:
        raise MalformedInputError(f"not OTLP protobuf: a message of {length} bytes, the limit is {MAX_UNIT_BYTES}")
    content = stream.read(length)
    if len(content) < length:
        raise MalformedInputError(f"not OTLP protobuf: it ends after {len(content)} of a message's {length} bytes")
    return content
