"""`describe`: writes a payload for a person or an agent, in at most so many characters.

It looks like Python where that says it best; other things are in angle brackets: `<cut str of 1000000: "abc">`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import msgpack

_FORMATS: Final = {
    "<i2": "h",
    "<i4": "i",
    "<i8": "q",
    "<u2": "H",
    "<u4": "I",
    "<u8": "Q",
    "<f2": "e",
    "<f4": "f",
    "<f8": "d",
    "|b1": "?",
    "|i1": "b",
    "|u1": "B",
}
"""How to read values of an array without numpy."""

_MAX_DEPTH: Final = 64
_BRACKETS: Final = {
    "$tuple": ("(", ")"),
    "$set": ("{", "}"),
    "$frozenset": ("frozenset({", "})"),
    "$range": ("range(", ")"),
    "$slice": ("slice(", ")"),
}


def describe(content: bytes, max_chars: int = 2000) -> str:
    """Return a payload as text of at most `max_chars` characters; "…" stands for what is left out."""
    try:
        plain = msgpack.unpackb(content, strict_map_key=False)
    except (ValueError, TypeError):
        return "<unreadable payload>"[:max_chars]
    parts: list[str] = []
    left = max_chars
    for part in _pieces(plain, max_chars, 0):
        if len(part) > left:
            text = "".join([*parts, part])
            return text[: max_chars - 1] + "…" if max_chars > 0 else ""
        parts.append(part)
        left -= len(part)
    return "".join(parts)


def _pieces(plain: Any, room: int, depth: int) -> Iterator[str]:
    """Write a plain value piece by piece, so that no more is written than is read."""
    if depth > _MAX_DEPTH:
        yield "…"
    elif type(plain) is list:
        yield from _enclosed("[", plain, "]", room, depth)
    elif type(plain) is dict:
        tag = next(iter(plain)) if len(plain) == 1 else None
        if type(tag) is str and tag.startswith("$"):
            yield from _tagged(tag, plain[tag], room, depth)
        else:
            yield from _map(plain.items(), room, depth)
    elif type(plain) in (str, bytes):
        yield repr(plain[: room + 1])
    else:
        yield repr(plain)


def _enclosed(begin: str, items: Any, end: str, room: int, depth: int) -> Iterator[str]:
    yield begin
    for index, item in enumerate(items):
        if index:
            yield ", "
        yield from _pieces(item, room, depth + 1)
    yield end


def _map(pairs: Any, room: int, depth: int) -> Iterator[str]:
    yield "{"
    for index, (key, item) in enumerate(pairs):
        if index:
            yield ", "
        yield from _pieces(key, room, depth + 1)
        yield ": "
        yield from _pieces(item, room, depth + 1)
    yield "}"


def _tagged(tag: str, content: Any, room: int, depth: int) -> Iterator[str]:
    try:
        if tag == "$map":
            yield from _map(content, room, depth)
        elif tag in _BRACKETS:
            begin, end = _BRACKETS[tag]
            yield from _enclosed(
                begin, content, "," + end if tag == "$tuple" and len(content) == 1 else end, room, depth
            )
        elif tag == "$masked":
            yield f"(masked: {content})"
        elif tag in ("$object", "$callable", "$type", "$module", "$generator"):
            yield f"<{tag[1:]} {content}>"
        elif tag == "$cut":
            yield from _cut(content, room, depth)
        elif tag == "$enum" and "name" in content:
            yield f"{_short(content['type'])}.{content['name']}"
        elif tag in ("$dataclass", "$attrs", "$struct", "$pydantic", "$namedtuple"):
            yield _short(content["type"])
            yield from _arguments(content["fields"], room, depth)
        elif tag == "$exception":
            yield _short(content["type"])
            yield from _pieces({"$tuple": content["args"]["$tuple"]}, room, depth)
        elif tag == "$ndarray":
            yield from _array(content, room, depth)
        else:
            yield f"<{tag[1:]} "
            yield from _pieces(content, room, depth + 1)
            yield ">"
    except (KeyError, TypeError, ValueError, AttributeError):  # not as `capture` writes it
        yield f"<{tag[1:]}>"


def _cut(content: dict[str, Any], room: int, depth: int) -> Iterator[str]:
    yield f"<cut {content['kind']}"
    if "length" in content:
        yield f" of {content['length']}"
    if "head" in content:
        yield ": "
        yield from _pieces(content["head"], room, depth + 1)
    yield ">"


def _arguments(fields: Any, room: int, depth: int) -> Iterator[str]:
    if type(fields) is not dict or "$cut" in fields or "$map" in fields:
        yield from _pieces(fields, room, depth + 1)
        return
    yield "("
    for index, (name, item) in enumerate(fields.items()):
        yield f"{', ' if index else ''}{name}="
        yield from _pieces(item, room, depth + 1)
    yield ")"


def _array(content: dict[str, Any], room: int, depth: int) -> Iterator[str]:
    shape = "x".join(str(length) for length in content["shape"]) or "scalar"
    yield f"<ndarray {content['dtype']} {shape}"
    code = _FORMATS.get(content["dtype"])
    values = content.get("items", content.get("head"))
    if code is not None and "data" in content:
        size = struct.calcsize(code)
        data = content["data"][: size * (room + 1)]
        values = [value for (value,) in struct.iter_unpack(f"<{code}", data[: len(data) // size * size])]
    if values:
        yield ": "
        yield from _pieces(values, room, depth + 1)
    yield ">"


def _short(name: str) -> str:
    return name.rpartition(":")[2]
