"""Every format that comes in and goes out, as batches of spans.

`open_input` finds out what a file is, `decode` yields what is in it: spans in batches, and for each unit
(line, message, document) that is malformed the error that says why. A unit is all or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from io import BufferedIOBase, BufferedReader
from typing import Any, Final, NamedTuple, TypeVar

from otel_debugstore.errors import MalformedInputError
from otel_debugstore_exporters.batch import SpanBatch, batch_from_records
from otel_debugstore_exporters.formats import jaeger_json, otlp_json, otlp_proto
from otel_debugstore_exporters.formats.detect import FORMATS, Format, Input, check_format, detect, open_input
from otel_debugstore_exporters.formats.framing import Unit, json_units

__all__ = [
    "FORMATS",
    "Decoded",
    "Format",
    "Input",
    "check_format",
    "decode",
    "detect",
    "open_input",
]


_GROUP_BYTES: Final = 128 << 10
_T = TypeVar("_T")
_R = TypeVar("_R")


class Decoded(NamedTuple):
    """Units of a file: the number (of the line, or message) of the first, and the spans or what is wrong."""

    number: int
    result: SpanBatch | MalformedInputError


class _Decoder(NamedTuple):
    """How a format is read.

    Attributes:
        units: Cuts a stream into units.
        parse: A unit's bytes -> its messages. Raises `MalformedInputError`.
        build: Messages of one unit or several -> their spans. Raises `MalformedInputError`.
    """

    units: Callable[[BufferedIOBase], Iterator[Unit]]
    parse: Callable[[bytes], Sequence[Any]]
    build: Callable[[Sequence[Any]], SpanBatch]


def decode(stream: BufferedReader, format: Format) -> Iterator[Decoded]:
    """Yield what is in a decompressed stream, in order, in bounded memory.

    Small units that follow each other come as one batch: a batch costs more than a span. One that is
    malformed comes by itself, as an error. Damage to the compression or the framing ends the stream, with
    an error as the last unit.
    """
    decoder = _DECODERS[format]
    if format == "otlp-proto" and otlp_proto.is_delimited(stream.peek()):
        decoder = _DELIMITED
    group: list[tuple[int, Sequence[Any]]] = []
    size = 0
    for number, content in decoder.units(stream):
        parsed = content if isinstance(content, MalformedInputError) else _tried(decoder.parse, content)
        if isinstance(parsed, MalformedInputError):
            yield from _built(decoder, group)
            yield Decoded(number, parsed)
            group, size = [], 0
            continue
        group.append((number, parsed))
        size += len(content) if isinstance(content, bytes) else 0
        if size >= _GROUP_BYTES:
            yield from _built(decoder, group)
            group, size = [], 0
    yield from _built(decoder, group)


def _built(decoder: _Decoder, group: Sequence[tuple[int, Sequence[Any]]]) -> Iterator[Decoded]:
    """The units as one batch, or one by one if something is wrong with one of them."""
    if not group:
        return
    batch = _tried(decoder.build, [message for _, messages in group for message in messages])
    if isinstance(batch, SpanBatch) or len(group) == 1:
        yield Decoded(group[0][0], batch)
    else:
        for number, messages in group:
            yield Decoded(number, _tried(decoder.build, messages))


def _tried(work: Callable[[_T], _R], argument: _T) -> _R | MalformedInputError:
    try:
        return work(argument)
    except MalformedInputError as error:
        return error


_DECODERS: Final[dict[str, _Decoder]] = {
    "otlp-json": _Decoder(json_units, otlp_json.parse, otlp_json.build),
    "otlp-proto": _Decoder(otlp_proto.field_units, otlp_proto.parse_resource_spans, otlp_proto.build),
    "jaeger-json": _Decoder(json_units, jaeger_json.parse, batch_from_records),
}
_DELIMITED: Final = _Decoder(otlp_proto.message_units, otlp_proto.parse, otlp_proto.build)
