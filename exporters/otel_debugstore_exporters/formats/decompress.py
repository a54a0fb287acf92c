"""Streaming decompression with bounded memory that notices damaged and truncated input.

The readers of the standard library and of `zstandard` differ in what they do at a truncated end (the
latter takes it for the end), so both formats go through one small reader here. What was decompressed
before the damage is delivered first, then `MalformedInputError` is raised.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Literal

import zstandard

from otel_debugstore.errors import MalformedInputError

Compression = Literal["gzip", "zstd"]

_READ_BYTES: Final = 64 << 10
_PIECE_BYTES: Final = 1 << 20
_ZSTD_FEED_BYTES: Final = 2 << 10
"""zstd has no bound on its output: a block of 4 bytes makes up to 128 KiB, so this makes up to 64 MiB."""

_GZIP_WBITS: Final = 31
_ZLIB_WBITS: Final = 15
_RAW_DEFLATE_WBITS: Final = -15


def gunzip(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what the gzip members in `chunks` decompress to, in pieces of at most 1 MiB.

    Raises:
        MalformedInputError: The data is damaged or ends early.
    """
    return _inflate(chunks, "gzip", lambda _: zlib.decompressobj(_GZIP_WBITS))


def inflate(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what the data of HTTP's coding `deflate` decompresses to, in pieces of at most 1 MiB.

    That is the zlib format (RFC 9110, 8.4.1.2); raw deflate, which some clients send, is taken too.

    Raises:
        MalformedInputError: The data is damaged or ends early.
    """
    return _inflate(chunks, "deflate", lambda data: zlib.decompressobj(_deflate_wbits(data)))


def _deflate_wbits(data: bytes) -> int:
    is_zlib = data[0] & 15 == 8 and (len(data) < 2 or int.from_bytes(data[:2], "big") % 31 == 0)
    return _ZLIB_WBITS if is_zlib else _RAW_DEFLATE_WBITS


def _inflate(chunks: Iterable[bytes], name: str, start: Callable[[bytes], zlib._Decompress]) -> Iterator[bytes]:
    inflater: zlib._Decompress | None = None
    members = 0
    for chunk in chunks:
        data, full = chunk, False
        while data or full:
            if inflater is None:
                data = data.lstrip(b"\0") if members else data  # gzip files may be padded
                if not data:
                    break
                inflater = start(data)
                members += 1
            try:
                piece = inflater.decompress(data, _PIECE_BYTES)
            except zlib.error as error:
                raise MalformedInputError(f"the {name} data is damaged ({error})") from error
            if piece:
                yield piece
            full = len(piece) == _PIECE_BYTES
            data = inflater.unconsumed_tail
            if inflater.eof:
                data, full, inflater = inflater.unused_data, False, None
    if inflater is not None or not members:
        raise MalformedInputError(f"the {name} data ends early")


def unzstd(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what the zstd frames in `chunks` decompress to.

    Raises:
        MalformedInputError: The data is damaged or ends early.
    """
    frame: zstandard.ZstdDecompressionObj | None = None
    for chunk in chunks:
        for first in range(0, len(chunk), _ZSTD_FEED_BYTES):
            data = chunk[first : first + _ZSTD_FEED_BYTES]
            while data:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                try:
                    piece = frame.decompress(data)
                except zstandard.ZstdError as error:
                    raise MalformedInputError(f"the zstd data is damaged ({error})") from error
                if piece:
                    yield piece
                data = b""
                if frame.eof:
                    data, frame = frame.unused_data, None
    if frame is not None:
        raise MalformedInputError("the zstd data ends early")


class DecompressingReader(io.RawIOBase):
    """The decompressed content of a file, to be wrapped in `io.BufferedReader`."""

    def __init__(self, source: io.RawIOBase | io.BufferedIOBase, compression: Compression) -> None:
        super().__init__()
        chunks = iter(lambda: source.read(_READ_BYTES) or b"", b"")
        self._pieces = {"gzip": gunzip, "zstd": unzstd}[compression](chunks)
        self._rest = memoryview(b"")
        self._error: MalformedInputError | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]  # any writable buffer
        """Fill the buffer as far as possible; raise `MalformedInputError` once all that was good is read."""
        target = memoryview(buffer)
        filled = 0
        while filled < len(target) and self._more():
            part = self._rest[: len(target) - filled]
            target[filled : filled + len(part)] = part
            self._rest = self._rest[len(part) :]
            filled += len(part)
        if self._error is not None and not filled:
            raise self._error
        return filled

    def _more(self) -> bool:
        if not self._rest and self._error is None:
            try:
                self._rest = memoryview(next(self._pieces, b""))
            except MalformedInputError as error:
                self._error = error
        return bool(self._rest)
