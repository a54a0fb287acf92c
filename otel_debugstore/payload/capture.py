"""`capture` and `capture_arguments`: turn values of the program into content that can be stored.

They run in the program's threads, before and after its calls. They never raise, change no value, consume no
iterator and call no code of the program: no `__repr__`, `__len__`, `__iter__`, `__getattr__`, `__eq__` or `__hash__`,
no property and no metaclass. So what they cost is bounded by `Limits`, without a timer. The one way to have an object
describe itself is `summarize_with`.

Loss: what is beyond the limits; it is named in the content. Two references to one list become two lists.
Equal values give equal contents, and so equal digests, in every process: maps keep their order, sets are sorted.
Threads: any, also signal handlers; there are no locks. A list that another thread changes meanwhile is captured as it
was at one moment between.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

from otel_debugstore.digest import blake2b
from otel_debugstore.guard import swallow
from otel_debugstore.masking import Masker
from otel_debugstore.masking import masker as default_masker
from otel_debugstore.payload.introspect import type_name
from otel_debugstore.payload.limits import DEFAULT_LIMITS, Limits, limits_of_settings
from otel_debugstore.payload.mask_content import mask_content
from otel_debugstore.payload.objects import handler_of
from otel_debugstore.payload.walk import PACK, Walk

MEDIA_TYPE: Final = "application/vnd.otel-debugstore+msgpack"
REST, REST_BY_NAME = "*", "**"
"""The keys of arguments beyond the parameters that have names."""

_FEW: Final = 8
_SHORT: Final = 1024
_TINY: Final = 32
"""Characters of a text that is taken for ASCII, as `span_size` takes most."""
_LARGE: Final = 1 << 63
_SMALL_BYTES: Final = 128
_REMEMBERED: Final = 4096
"""So many digests of small contents are kept: most results, and many arguments, are those of an earlier call."""
_BETWEEN: Final = b"\xff"
"""Stands between contents that are searched together: in no text, and no part of what a search may pass over."""
_SCALAR: Final = frozenset(map(id, (type(None), bool, int, float, str)))
_TEXT, _DICT, _LIST = id(str), id(dict), id(list)
_TAG_LIKE: Final = re.compile(rb"[\xa1-\xbf]\$|\xd9.\$|\xda..\$|\xdb....\$", re.DOTALL)
"""A text that begins with "$", and so might be a key that looks like a tag."""
_ONLY_TEXT: Final = frozenset({_TEXT})
_PLAIN: Final = _SCALAR | {_DICT, _LIST}


class Captured(NamedTuple):
    """What was captured of a value.

    Attributes:
        content: MessagePack; see `walk` for what it may hold.
        digest: 32 hexadecimal digits that stand for the content.
        replayable: Whether `restore` makes an equal value from the content.
        media_type: What the content is.
    """

    content: bytes
    digest: str
    replayable: bool
    media_type: str = MEDIA_TYPE


def capture(value: Any, masker: Masker | None = None, limits: Limits | None = None) -> Captured:
    """Return what is to be kept of a value.

    Args:
        value: Anything.
        masker: Says what is secret; by default that of the settings.
        limits: Caps on the content; by default those of the settings.
    """
    try:
        masker, limits = masker or default_masker(), limits or limits_of_settings()
        content = _plain_content(value, limits)
        if content is not None:
            return _captured(content, True, masker)
        walk = Walk(limits, masker, handler_of)
        return _captured(PACK(walk.value(value)), walk.replayable, masker)
    except Exception as error:  # noqa: BLE001  # the program did not ask for this
        swallow(error)
        return _unknown(value)


def capture_arguments(
    names: Sequence[str],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    masker: Masker | None = None,
    limits: Limits | None = None,
    positional: int | None = None,
) -> Captured:
    """Return what is to be kept of the arguments of a call: a map from parameters to values, in their order.

    Whether an argument was given by its place or by its name makes no difference. Defaults are not filled in.

    Args:
        names: The names of the parameters, those that are keyword-only last.
        args: Arguments by place; those beyond the positional parameters become `"*": [...]`.
        kwargs: Arguments by name; those that are no parameter become `"**": {...}`.
        masker: Says what is secret; by default that of the settings.
        limits: Caps on the content; by default those of the settings.
        positional: How many parameters take arguments by place; by default all.
    """
    try:
        limits = limits or limits_of_settings()
        values = bound(names, args, kwargs, len(names) if positional is None else positional)
        content = _few_scalars(values) if limits is DEFAULT_LIMITS else None
        if content is None:
            return capture(values, masker, limits)
        return _captured(content, True, masker or default_masker())
    except Exception as error:  # noqa: BLE001
        swallow(error)
        return _unknown(args)


def capture_waited(value: Any) -> Captured:
    """Return what `capture` does of a value that could wait (see `waiting_bytes`), or of a map of names to such."""
    try:
        content = PACK(value)
        fits = len(content) <= DEFAULT_LIMITS.max_bytes  # names of arguments may be of any length
        if fits and b"$" not in content and limits_of_settings() is DEFAULT_LIMITS:
            return _captured(content, True, default_masker())
    except Exception as error:  # noqa: BLE001  # such as a lone surrogate; `capture` deals with it
        swallow(error)
    return capture(value)


def digests_of_waited(contents: set[bytes]) -> dict[bytes, str]:
    """Return by content the digests of values that could wait, and were packed: of many at once, which is quicker.

    What `capture_waited` would change, or not take as it is, is left out.
    """
    if limits_of_settings() is not DEFAULT_LIMITS:
        return {}
    masker, max_bytes = default_masker(), DEFAULT_LIMITS.max_bytes
    joined = _BETWEEN.join(contents)
    if b"$" in joined or len(joined) > max_bytes:
        contents = {content for content in contents if b"$" not in content and len(content) <= max_bytes}
    known = masker.digests
    new = contents.difference(known)
    found = {content: known[content] for content in contents - new}
    if masker.may_hold_secret_bytes(_BETWEEN.join(new)):
        new = {content for content in new if not masker.may_hold_secret_bytes(content)}
    for content in new:
        found[content] = blake2b(content, digest_size=16).hexdigest()
    _remember({content: found[content] for content in new if len(content) <= _SMALL_BYTES}, masker)
    return found


def bound(names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any], positional: int) -> dict[str, Any]:
    """Return arguments by the names of the parameters, as `capture_arguments` captures them."""
    if not kwargs and len(args) <= positional:
        return dict(zip(names, args))  # noqa: B905  # to ask for the same lengths costs
    values = dict(zip(names[:positional], args, strict=False))
    keywords = {name: kwargs[name] for name in names[len(values) :] if name in kwargs}
    by_place = {name: item for name, item in keywords.items() if name in names[:positional]}
    values.update(by_place)
    if len(args) > positional:
        values[REST] = list(args[positional:])
    values.update(keywords)
    if len(values) - (len(args) > positional) < min(len(args), positional) + len(kwargs):
        values[REST_BY_NAME] = {name: item for name, item in kwargs.items() if name not in keywords}
    return values


def waiting_bytes(values: Collection[Any]) -> int:
    """Return about how many bytes the texts in a few short and simple values take, as most calls' arguments are.

    Such values can't change, so that they may be captured later. Of others -1.
    """
    if len(values) > _FEW:
        return -1
    size = 0
    for value in values:
        kind = type(value)
        if kind is str:
            length = len(value)
            size += length if length < _TINY or value.isascii() else 4 * length
        elif kind is int:
            if not -_LARGE < value < _LARGE:
                return -1
        elif kind is not bool and kind is not float and value is not None:
            return -1
    return size if size <= _SHORT else -1


def _few_scalars(values: dict[str, Any]) -> bytes | None:
    """Return the content of values that could wait, None of others."""
    if waiting_bytes(values.values()) < 0:
        return None
    try:
        content = PACK(values)
    except (TypeError, ValueError, OverflowError):  # large integers, lone surrogates
        return None
    return None if b"$" in content and _TAG_LIKE.search(content) else content


def _plain_content(value: Any, limits: Limits) -> bytes | None:
    """Return the content of a value that can be packed as it is, None if it has to be walked through."""
    try:
        if not _is_plain(value, limits):
            return None
        content = PACK(value)
    except (TypeError, ValueError, OverflowError):  # large integers, lone surrogates
        return None
    except RuntimeError:  # another thread changes it
        return None
    if len(content) > limits.max_bytes or (b"$" in content and _TAG_LIKE.search(content)):
        return None
    return content


def _is_plain(value: Any, limits: Limits) -> bool:
    """Return whether a value is made of plain lists, maps and scalars only, and is within the limits.

    Containers are looked at by functions written in C, and the values in them by their types alone: this takes a
    fifth of the time of walking through them.
    """
    items_left, chars_left = limits.max_items, limits.max_bytes
    if id(type(value)) in _SCALAR and (type(value) is not str or len(value) <= limits.max_text):
        return True
    level: list[Any] = [value]
    for _ in range(limits.max_depth + 1):
        types = set(map(id, map(type, level)))
        if not types <= _PLAIN:
            return False
        if _TEXT in types:
            lengths = [len(item) for item in level if type(item) is str]
            chars_left -= sum(lengths)
            if max(lengths) > limits.max_text:
                return False
        containers: list[Any] = (
            [item for item in level if type(item) is dict or type(item) is list] if types - _SCALAR else []
        )
        if not containers:
            return chars_left >= 0
        items_left -= sum(map(len, containers))
        if items_left < 0 or chars_left < 0:
            return False
        level = []
        for container in containers:
            if type(container) is list:
                level += container
            elif _ONLY_TEXT.issuperset(map(id, map(type, container))):
                chars_left -= sum(map(len, container))
                level += container.values()
            else:
                return False
    return False


def _captured(content: bytes, replayable: bool, masker: Masker) -> Captured:
    digest = masker.digests.get(content)
    if digest is None:
        is_clean = not masker.may_hold_secret_bytes(content)
        if not is_clean:
            masked = mask_content(content, masker)
            content, replayable = masked, replayable and masked is content
        digest = blake2b(content, digest_size=16).hexdigest()
        if is_clean and len(content) <= _SMALL_BYTES:
            _remember({content: digest}, masker)
    return tuple.__new__(Captured, (content, digest, replayable, MEDIA_TYPE))


def _remember(digests: dict[bytes, str], masker: Masker) -> None:
    """Keep digests of small contents in which nothing was found."""
    if len(masker.digests) + len(digests) > _REMEMBERED:
        masker.digests = {}
    masker.digests |= digests


def _unknown(value: object) -> Captured:
    content = PACK({"$object": type_name(type(value))})
    return Captured(content, blake2b(content, digest_size=16).hexdigest(), False)
