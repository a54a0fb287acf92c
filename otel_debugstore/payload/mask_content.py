"""Masks what was captured: the plain form of a payload, at any depth.

It works on contents and not on values, so it can also be done to what an older version stored.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import msgpack

from otel_debugstore.masking import Masker
from otel_debugstore.payload.walk import PACK, Plain, as_map

_NO_SECRETS: Final = frozenset({"$enum", "$type", "$callable", "$object", "$module", "$generator", "$file", "$masked"})
"""What these say is not the value of a secret, even where its name says so."""

_SHORTEST_SECRET: Final = 12
"""Shorter keys are names, and not secrets themselves."""


def mask_content(content: bytes, masker: Masker) -> bytes:
    """Return a content without secrets; the same object if it has none.

    Raises:
        ValueError: It isn't what `capture` writes.
    """
    try:
        plain = msgpack.unpackb(content)
        masked = mask_plain(plain, masker)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"This is not the content of a payload: {error}.") from error
    return content if masked is plain else PACK(masked)


def mask_plain(plain: Plain, masker: Masker) -> Plain:
    """Return a plain value without secrets; the same object if it has none."""
    kind = type(plain)
    if kind is str:
        return masker.mask_text(plain)
    if kind is bytes:
        return masker.mask_bytes(plain)
    if kind is list:
        return _list(plain, masker)
    if kind is dict:
        return _tagged(plain, masker) if len(plain) == 1 else _map(plain, masker)
    return plain


def _tagged(plain: dict[str, Any], masker: Masker) -> Plain:
    (tag, content), *_ = plain.items()
    if tag == "$map":
        pairs = [_pair(pair, masker) for pair in content]
        return plain if _same(pairs, content) else {"$map": pairs}
    if tag == "$dataframe":
        return _table(plain, content, masker)
    if tag == "$series" and (kind := masker.key_kind(content.get("name"))) is not None:
        is_secret = _can_be_secret(kind, content["head"], masker)
        return {tag: {**content, "head": {"$masked": kind}}} if is_secret else plain
    if tag == "$ndarray":  # numbers, in which letters are chance
        items = {name: mask_plain(content[name], masker) for name in ("items", "head") if name in content}
        return plain if all(items[name] is content[name] for name in items) else {tag: {**content, **items}}
    if tag.startswith("$"):
        masked = mask_plain(content, masker)
        return plain if masked is content else {tag: masked}
    return _map(plain, masker)


def _map(plain: dict[str, Any], masker: Masker) -> Plain:
    if (named := masker.pair_kind(plain)) is not None and _can_be_secret(named[1], plain[named[0]], masker):
        plain = plain | {named[0]: {"$masked": named[1]}}
        return _map(plain, masker)
    pairs = [(key, value, *_pair([key, value], masker)) for key, value in plain.items()]
    if all(key is new_key and value is new_value for key, value, new_key, new_value in pairs):
        return plain
    masked = [[key, value] for _, _, key, value in pairs]
    return as_map(masked)


def _pair(pair: list[Any], masker: Masker) -> list[Any]:
    """Return a key and its value; the same object if there is no secret in them."""
    key, value = pair
    kind = masker.key_kind(key)
    if kind is not None and _can_be_secret(kind, value, masker):
        return [key, {"$masked": kind}]
    is_name = type(key) is str and len(key) < _SHORTEST_SECRET
    masked = [key if is_name else mask_plain(key, masker), mask_plain(value, masker)]
    return pair if _same(masked, pair) else masked


def _list(plain: list[Any], masker: Masker) -> list[Any]:
    if len(plain) == 2 and all(type(item) in (str, bytes) for item in plain):  # a header, as servers write them
        return _pair(plain, masker)
    masked = [mask_plain(item, masker) for item in plain]
    for place, (flag, item) in enumerate(pairwise(plain), 1):
        kind = masker.flag_kind(flag, item) if masked[place] is item else None
        if kind is not None and _can_be_secret(kind, item, masker):
            masked[place] = {"$masked": kind}
    return plain if _same(masked, plain) else masked


def _table(plain: dict[str, Any], content: dict[str, Any], masker: Masker) -> Plain:
    kinds = [_column_kind(name, masker) for name, _ in content["columns"]]
    rows = [
        [
            mask_plain(item, masker) if kind is None or not _can_be_secret(kind, item, masker) else {"$masked": kind}
            for kind, item in zip(kinds, row, strict=True)
        ]
        for row in content["rows"]
    ]
    if all(_same(new, old) for new, old in zip(rows, content["rows"], strict=True)):
        return plain
    return {"$dataframe": {**content, "rows": rows}}


def _column_kind(name: Plain, masker: Masker) -> str | None:
    """Return which secret a column holds by its name, or by a part of it, where columns have several levels."""
    parts = name.get("$tuple", ()) if type(name) is dict else (name,)
    return next((kind for part in parts if (kind := masker.key_kind(part)) is not None), None)


def _can_be_secret(kind: str, value: Plain, masker: Masker) -> bool:
    if type(value) is dict and len(value) == 1 and _NO_SECRETS.intersection(value):
        return False
    return masker.is_secret(kind, value)


def _same(new: list[Any], old: list[Any]) -> bool:
    return all(map(lambda one, other: one is other, new, old))
