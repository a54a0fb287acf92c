"""A stream of JSON cut into units: lines, or the one document that a pretty-printed file is.

A unit is what is imported or refused as a whole. Memory is bounded by the largest unit allowed.
"""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedIOBase
from itertools import chain
from typing import Final, NamedTuple

import msgspec

from otel_debugstore.errors import MalformedInputError

MAX_UNIT_BYTES: Final = 256 << 20
"""A longer line, document or message is malformed."""

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_OPEN: Final = (b"{", b"[", b",", b":")


class Unit(NamedTuple):
    """The number of a line or message, from 1, and its bytes or what is wrong with it."""

    number: int
    content: bytes | MalformedInputError


def json_units(stream: BufferedIOBase, limit: int = MAX_UNIT_BYTES) -> Iterator[Unit]:
    """Yield the lines of JSON Lines (blank ones left out), or the whole of a pretty-printed file as line 1.

    The first line tells which: one that is no JSON by itself and goes on in the next begins a document.
    """
    lines = _lines(stream, limit)
    head = [unit for _, unit in zip(range(3), lines, strict=False)]
    if _begins_document(head):
        yield _document(head, stream, limit)
    else:
        yield from chain(head, lines)


def _lines(stream: BufferedIOBase, limit: int) -> Iterator[Unit]:
    number = 0
    while True:
        number += 1
        try:
            line = stream.readline(limit + 1)
            too_long = len(line) > limit
            if too_long:
                _skip_line(stream, line)
        except MalformedInputError as error:  # compressed data that is damaged or cut short
            yield Unit(number, error)
            return
        if not line:
            return
        if too_long:
            yield Unit(number, MalformedInputError(f"a line of more than {limit} bytes"))
            continue
        line = line.strip()
        if number == 1:
            line = line.removeprefix(_BYTE_ORDER_MARK)
        if line:
            yield Unit(number, line)


def _skip_line(stream: BufferedIOBase, line: bytes) -> None:
    while line and not line.endswith(b"\n"):
        line = stream.readline(1 << 20)


def _begins_document(head: list[Unit]) -> bool:
    lines = [unit.content for unit in head if isinstance(unit.content, bytes)]
    if len(lines) < 2 or len(lines) < len(head) or _is_json(lines[0]):
        return False
    first, second, *third = lines
    if first.startswith(b"[") or not second.startswith(b"{"):
        return first.startswith((b"{", b"["))
    if not first.startswith(b"{") or not first.endswith(_OPEN):
        return False
    # `{"data": [` and an object: of the document if that goes on after the object, or else lines of which
    # the first is cut short.
    return not _is_json(second) or not all(line.startswith(b"{") for line in third)


def _is_json(line: bytes) -> bool:
    try:
        msgspec.json.decode(line, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _document(head: list[Unit], stream: BufferedIOBase, limit: int) -> Unit:
    begun = b"\n".join(unit.content for unit in head if isinstance(unit.content, bytes))
    try:
        rest = stream.read(limit + 1)
    except MalformedInputError as error:
        return Unit(1, error)
    if len(begun) + len(rest) > limit:
        return Unit(1, MalformedInputError(f"a document of more than {limit} bytes"))
    return Unit(1, begun + b"\n" + rest)
