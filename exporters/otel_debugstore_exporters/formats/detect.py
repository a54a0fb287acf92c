"""What a file is, by its first bytes: its compression, and the format within. Names don't matter."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from otel_debugstore.errors import ConfigurationError, MalformedInputError
from otel_debugstore_exporters.formats.decompress import Compression, DecompressingReader
from otel_debugstore_exporters.formats.otlp_proto import is_protobuf

Format = Literal["otlp-json", "otlp-proto", "jaeger-json"]
FORMATS: Final[tuple[Format, ...]] = get_args(Format)

BUFFER_BYTES: Final = 1 << 20
_SNIFFED_BYTES: Final = 64 << 10
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_OTHER: Final = {
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"PK\x03\x04": "a zip archive",
    b"PAR1": "Parquet",
    b"\x04\x22\x4d\x18": "lz4",
}
_JSON_START: Final = re.compile(rb'(?:\xef\xbb\xbf)?\s*[{\[](?:\s*["{\[}\]]|\s*\Z)')
_JSON_LINE: Final = re.compile(rb'^\s*\{\s*"(?:resource(?:Spans|Metrics|Logs)|traceID|spans|processes|data)"', re.M)
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_KEY: Final = re.compile(rb'"(?:(?P<otlp>resource(?:Spans|Metrics|Logs))|traceID|spanID|processes|operationName|data)"')
_EMPTY: Final = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s*\{\s*\})+\s*")


@dataclass(frozen=True, slots=True)
class Input:
    """A file ready to be decoded: its decompressed content, and what that was taken for."""

    stream: io.BufferedReader
    format: Format
    compression: Compression | None


def open_input(source: io.RawIOBase | io.BufferedIOBase, format: str | None = None) -> Input:
    """Return the content of `source` with its format.

    Args:
        source: The file's bytes, at their beginning; it stays the caller's to close.
        format: One of `FORMATS`; None to look.

    Raises:
        ConfigurationError: There is no such format.
        MalformedInputError: The file is empty, or in no format that is known.
    """
    known = None if format is None else check_format(format)
    buffered = io.BufferedReader(_Borrowed(source), BUFFER_BYTES)
    compression = _compression(buffered.peek(len(_ZSTD)))
    stream: Any = buffered
    if compression:
        stream = io.BufferedReader(DecompressingReader(buffered, compression), BUFFER_BYTES)
    head = stream.peek(_SNIFFED_BYTES)[:_SNIFFED_BYTES]
    return Input(stream, known or detect(head), compression)


class _Borrowed(io.RawIOBase):
    """A source that stays open when the reader around it goes."""

    def __init__(self, source: io.RawIOBase | io.BufferedIOBase) -> None:
        super().__init__()
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._source.readinto(buffer)


def check_format(name: str) -> Format:
    """Return `name` if it is a format's.

    Raises:
        ConfigurationError: It is not.
    """
    for known in FORMATS:
        if name == known:
            return known
    raise ConfigurationError(f"There is no format {name!r}; choose one of {', '.join(FORMATS)}.")


def detect(head: bytes) -> Format:
    """Return the format of a file that begins with `head`, decompressed.

    Raises:
        MalformedInputError: It is none that is known.
    """
    if not head.strip():
        raise MalformedInputError("it is empty")
    for magic, name in _OTHER.items():
        if head.startswith(magic):
            raise MalformedInputError(f"it is {name}; decompress or convert it first")
    if _looks_like_json(head):
        return _json_format(head)
    if is_protobuf(head):
        return "otlp-proto"
    if line := _JSON_LINE.search(head):  # JSON Lines whose first line is broken
        return _json_format(head[line.start() :])
    raise MalformedInputError(
        f"its format is not known; it can be {', '.join(FORMATS)}, plain or compressed with gzip or zstd"
    )


def _compression(head: bytes) -> Compression | None:
    if head.startswith(_GZIP):
        return "gzip"
    return "zstd" if head.startswith(_ZSTD) else None


def _looks_like_json(head: bytes) -> bool:
    """JSON's first bytes: protobuf may begin with a newline and a brace, but has control characters."""
    return bool(_JSON_START.match(head)) and not _CONTROL.search(head[:256])


def _json_format(head: bytes) -> Format:
    key = _KEY.search(head)
    if key is None and not _EMPTY.fullmatch(head):
        raise MalformedInputError(
            "it is JSON, but neither OTLP (`resourceSpans`) nor Jaeger's (`data`, `spans`, `processes`); "
            "if it is one of them, name the format"
        )
    return "otlp-json" if key is None or key["otlp"] else "jaeger-json"
