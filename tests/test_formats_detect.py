"""What a file is: format and compression by content, and compressed data that is damaged."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from otel_debugstore.errors import ConfigurationError, MalformedInputError
from otel_debugstore_exporters.batch import SpanBatch
from otel_debugstore_exporters.formats import FORMATS, check_format, decode, detect, open_input
from otel_debugstore_exporters.formats.decompress import gunzip, inflate, unzstd
from otel_debugstore_exporters.formats.framing import json_units

LINE = b'{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"%032x","spanId":"%016x"}]}]}]}\n'
IDS = random.Random(1)
LINES = b"".join(LINE % (IDS.getrandbits(128), IDS.getrandbits(64)) for _ in range(2000))
MANY_LINES = b"".join(LINE % (IDS.getrandbits(128), IDS.getrandbits(64)) for _ in range(30_000))

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor(write_checksum=True).compress,  # as the command line tool does
}


def units(content: bytes) -> list[SpanBatch | MalformedInputError]:
    opened = open_input(io.BytesIO(content))
    assert opened.format == "otlp-json"
    return [unit.result for unit in decode(opened.stream, opened.format)]


def span_count(content: bytes) -> int:
    batches = units(content)
    assert all(isinstance(batch, SpanBatch) for batch in batches)
    return sum(len(batch) for batch in batches if isinstance(batch, SpanBatch))


def protobuf(name: str, count: int = 1) -> bytes:
    spans = [Span(trace_id=b"t" * 16, span_id=b"s" * 8, name=name)] * count
    data: Any = TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])
    return bytes(data.SerializeToString())


@pytest.mark.parametrize(
    ("head", "format"),
    [
        (b'{"resourceSpans":[]}', "otlp-json"),
        (b'\xef\xbb\xbf\n {\n\t"resourceSpans" : [', "otlp-json"),
        (b'{"resourceMetrics":[]}\n{"resourceSpans":[]}', "otlp-json"),
        (b'{"resourceSpans":[{"resource":{"attributes":[{"key":"traceID"}]}}]}', "otlp-json"),
        (b"{}\n{}\n", "otlp-json"),
        (b'{"resou\n{"resourceSpans":[]}', "otlp-json"),
        (b'\xff\xfe\x00\n {"resourceSpans":[]}', "otlp-json"),
        (b'{"data":[{"traceID":"a"}]}', "jaeger-json"),
        (b'{"_comment":"x","traceID":"a","spans":[]}', "jaeger-json"),
        (b'[{"traceID":"a"}]', "jaeger-json"),
        (b'{"processes":{},"spans":[{"operationName":"\\"resourceSpans\\""}]}', "jaeger-json"),
        (protobuf("a"), "otlp-proto"),
        (protobuf("a" * 91), "otlp-proto"),
        (protobuf('{"resourceSpans"'), "otlp-proto"),
        (protobuf("n", 10_000)[:4096], "otlp-proto"),
    ],
)
def test_format_is_found_by_content(head: bytes, format: str) -> None:
    """The first bytes tell, whatever the file is called."""
    assert detect(head) == format


@given(st.integers(0, 300))
def test_protobuf_is_not_taken_for_json_for_its_length(length: int) -> None:
    """A message begins with a newline and its length, which may be a brace or a bracket."""
    assert detect(protobuf("n" * length)) == "otlp-proto"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"", "it is empty"),
        (b" \n\t\n", "it is empty"),
        (b"hello", "format is not known"),
        (b"\x00" * 100, "format is not known"),
        (b"<trace/>", "format is not known"),
        (b'{"a": 1}', "neither OTLP"),
        (b'[{"name": "x", "ph": "X"}]', "neither OTLP"),
        (b"[]", "neither OTLP"),
        (bz2.compress(LINES), "bzip2"),
        (lzma.compress(LINES), "xz"),
        (b"PK\x03\x04....", "zip"),
        (b"PAR1....", "Parquet"),
    ],
)
def test_what_can_not_be_imported_is_named(head: bytes, message: str) -> None:
    """The error says what the file is, as far as that can be told."""
    with pytest.raises(MalformedInputError, match=message):
        detect(head)


def test_a_format_can_be_named() -> None:
    """A format that is given is not doubted; one that does not exist is an error that lists those that do."""
    assert open_input(io.BytesIO(b'{"a":1}'), "otlp-json").format == "otlp-json"
    for format in FORMATS:
        assert check_format(format) == format
    for attempt in (lambda: check_format("zipkin"), lambda: open_input(io.BytesIO(LINES), "zipkin")):
        with pytest.raises(ConfigurationError, match="otlp-json, otlp-proto, jaeger-json"):
            attempt()


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_compression_is_found_by_content(compression: str) -> None:
    """Compressed lines are the same lines."""
    opened = open_input(io.BytesIO(COMPRESSORS[compression](LINES)))
    assert (opened.compression, opened.format) == (compression, "otlp-json")
    assert opened.stream.read() == LINES
    assert open_input(io.BytesIO(LINES)).compression is None


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_several_streams_in_a_file_are_one(compression: str) -> None:
    """Files that were compressed one by one and put together are read through."""
    compress = COMPRESSORS[compression]
    assert span_count(compress(LINES) + compress(LINES) + compress(b"")) == 4000


def test_gzip_files_may_be_padded() -> None:
    """Zeros behind the last member, as tapes have them, are no data."""
    assert span_count(gzip.compress(LINES) + b"\0" * 10_000) == 2000


@pytest.mark.parametrize("compression", COMPRESSORS)
@pytest.mark.parametrize("keep", [0.5, 0.9, 0.999])
def test_a_truncated_stream_yields_its_whole_lines_and_one_error(compression: str, keep: float) -> None:
    """What is there before the cut comes in, and the cut is noticed."""
    compressed = COMPRESSORS[compression](MANY_LINES)
    *whole, last = units(compressed[: int(len(compressed) * keep)])
    assert all(isinstance(unit, SpanBatch) for unit in whole)
    assert whole
    assert isinstance(last, MalformedInputError)
    assert "ends early" in str(last)


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_every_truncation_of_a_small_file_is_noticed(compression: str) -> None:
    """No cut is taken for the end."""
    compressed = COMPRESSORS[compression](LINE % (1, 2))
    for end in range(4, len(compressed)):
        with pytest.raises(MalformedInputError, match="ends early"):
            open_input(io.BytesIO(compressed[:end]), "otlp-json").stream.read()


@pytest.mark.parametrize("compression", COMPRESSORS)
def test_damage_is_noticed(compression: str) -> None:
    """A flipped byte in the middle, or garbage behind the end, is an error and not an endless loop."""
    compressed = bytearray(COMPRESSORS[compression](MANY_LINES))
    assert "damaged" in str(units(bytes(compressed) + b"garbage garbage")[-1])
    compressed[len(compressed) // 2] ^= 0xFF
    assert any(isinstance(unit, MalformedInputError) for unit in units(bytes(compressed)))


@given(st.binary(max_size=3000), st.integers(1, 700), st.sampled_from(["gzip", "zlib", "deflate", "zstd"]))
def test_decompressors_do_not_care_how_the_data_is_cut(data: bytes, size: int, kind: str) -> None:
    """Chunks of any size give the same bytes."""
    raw = zlib.compressobj(wbits=-15)
    compressed, decompress = {
        "gzip": (gzip.compress(data), gunzip),
        "zlib": (zlib.compress(data), inflate),
        "deflate": (raw.compress(data) + raw.flush(), inflate),
        "zstd": (zstandard.compress(data), unzstd),
    }[kind]
    chunks = [compressed[first : first + size] for first in range(0, len(compressed), size)]
    assert b"".join(decompress(chunks)) == data


@pytest.mark.parametrize(
    ("compress", "decompress"),
    [(gzip.compress, gunzip), (zlib.compress, inflate), (zstandard.compress, unzstd)],
)
def test_highly_compressed_data_comes_in_pieces(compress: Any, decompress: Any) -> None:
    """What small data decompresses to is never in memory as a whole."""
    size = 200 << 20
    compressed = compress(bytes(size))
    pieces = [len(piece) for piece in decompress([compressed])]
    assert sum(pieces) == size
    assert max(pieces) <= 64 << 20


def test_a_line_that_is_too_long_is_skipped() -> None:
    """Memory is bounded: the long line is an error with its number, the next one comes in."""
    stream = io.BufferedReader(io.BytesIO(b"{}\n" + b"x" * 5000 + b"\n{}\n" + b"y" * 5000))
    found = [(number, isinstance(content, bytes)) for number, content in json_units(stream, limit=1000)]
    assert found == [(1, True), (2, False), (3, True), (4, False)]


def test_a_document_that_is_too_long_is_an_error() -> None:
    """So it is with a document."""
    document = json.dumps({"data": [{"traceID": "a"}] * 100}, indent=1).encode()
    ((number, content),) = json_units(io.BufferedReader(io.BytesIO(document)), limit=1000)
    assert (number, type(content)) == (1, MalformedInputError)
