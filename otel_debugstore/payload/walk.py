"""`Walk`: turns one value into what MessagePack can hold, within the limits.

Plain values (None, numbers, text, bytes, lists, maps with names as keys) stand for themselves. Every other kind is a
map with one key: `{"$tuple": [...]}`. Maps that could be mistaken for those, or whose keys are no text, are
`{"$map": [[key, value], ...]}`.
What is too much is `{"$cut": {"kind": ..., "length": ..., "head": ...}}`. Containers are never gone through before
their length was looked at, and copied in one step that no other thread can come between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Final, TypeVar

import msgpack

from otel_debugstore.guard import swallow
from otel_debugstore.masking import Masker
from otel_debugstore.payload.introspect import type_name
from otel_debugstore.payload.limits import Limits

Plain = Any
Handler = Callable[["Walk", Any], Plain]

PACK: Final[Callable[[Any], bytes]] = msgpack.Packer(strict_types=True).pack
"""One for all: it runs no Python code, so no other thread and no signal handler comes between."""

_NUMBER_BYTES: Final = 9
_CUT_BYTES: Final = 32
_SHORT: Final = 256
_ATTEMPTS: Final = 8
_T = TypeVar("_T")
_MIN_INT: Final = -(1 << 63)
_MAX_INT: Final = (1 << 64) - 1


class Walk:
    """The state of capturing one value.

    Attributes:
        replayable: Whether what was captured so far is enough to make the value again.
    """

    __slots__ = (
        "_bytes_left",
        "_cuts",
        "_handler",
        "_items_left",
        "_masker",
        "_open",
        "_short",
        "limits",
        "replayable",
    )

    def __init__(self, limits: Limits, masker: Masker, handler: Callable[[type], Handler]) -> None:
        """Begin with the whole of the limits.

        Args:
            limits: Caps.
            masker: Used for texts that are cut, where a secret may lie across the cut.
            handler: Returns the way to capture values of a type.
        """
        self.limits = limits
        self.replayable = True
        self._handler = handler
        self._masker = masker
        self._items_left = limits.max_items
        self._bytes_left = limits.max_bytes
        self._cuts = 0
        self._short = min(_SHORT, limits.max_text)
        self._open: list[int] = []

    def value(self, value: Any) -> Plain:
        """Return the plain form of any value."""
        if self._bytes_left <= 0:
            return self.cut(type_name(type(value)))
        if type(value) is str and len(value) <= self._short and value.isascii():  # most keys and many values
            self._bytes_left -= len(value) + 3
            return value
        try:
            return self._handler(type(value))(self, value)
        except Exception as error:  # noqa: BLE001  # whatever is wrong with this value, the others are captured
            swallow(error)
            return self.object(value)

    def object(self, value: Any) -> Plain:
        """Return what is said of a value that isn't looked into: its type."""
        return self.summary("$object", type_name(type(value)))

    def summary(self, tag: str, content: Plain) -> Plain:
        """Return a tagged value that can't be made again from this."""
        self.replayable = False
        return self.tagged(tag, content)

    def tagged(self, tag: str, content: Plain) -> Plain:
        """Return a tagged value."""
        self._bytes_left -= len(tag) + (len(content) if type(content) is str else _NUMBER_BYTES)
        return {tag: content}

    def cut(self, kind: str, length: int | None = None, head: Plain = None) -> Plain:
        """Return what stands for something that is too large."""
        self._cuts += 1
        self._bytes_left -= _CUT_BYTES
        content = {"kind": kind, "length": length, "head": head}
        return self.summary("$cut", {name: item for name, item in content.items() if item is not None})

    def number(self, value: Any) -> Plain:
        """Return None, a boolean or a float."""
        self._bytes_left -= _NUMBER_BYTES
        return value

    def integer(self, value: int) -> Plain:
        """Return an integer of any size."""
        if _MIN_INT <= value <= _MAX_INT:
            self._bytes_left -= _NUMBER_BYTES
            return value
        if value.bit_length() > 4 * self.room():
            return self.cut("int", value.bit_length())
        return self.tagged("$int", hex(value))  # decimal digits would take quadratic time

    def text(self, value: str) -> Plain:
        """Return a text, or its masked head."""
        if len(value) > self.room():
            head = self._masker.mask_head(value, max(0, min(self.limits.head_text, self._bytes_left)))
            return self.cut("str", len(value), self._sized(head.encode("utf-8", "backslashreplace").decode()))
        try:
            return self._sized(value)
        except UnicodeEncodeError:
            return self.tagged("$str", self._sized(value.encode("utf-8", "surrogatepass")))

    def binary(self, value: bytes) -> Plain:
        """Return bytes, or their masked head."""
        if len(value) <= self.room():
            return self._sized(value)
        text = value[: 2 * self.limits.head_text].decode("latin-1")
        head = self._masker.mask_head(text, max(0, min(self.limits.head_text, self._bytes_left)))
        return self.cut("bytes", len(value), self._sized(head.encode("latin-1", "replace")))

    def room(self) -> int:
        """Return how many characters or bytes one text, binary or array may have here."""
        return min(self.limits.max_text, max(0, self._bytes_left))

    def data(self, value: bytes) -> bytes:
        """Return binary data that was found to fit."""
        self._bytes_left -= len(value)
        return value

    def sequence(self, kind: str, value: Any, length: int, items: Callable[[int], Sequence[Any]]) -> Plain:
        """Return the items of an ordered container: a list, tagged if `kind` is another.

        Args:
            kind: What the container is called.
            value: The container, by whose identity cycles are found.
            length: How many items it has.
            items: Returns the first so many of them, in one step.
        """
        stand_in = self._enter(kind, value, length)
        if stand_in is not None:
            return stand_in
        try:
            count = self._take(length)
            copied = items(count)
            length -= max(0, count - len(copied))  # another thread took some out meanwhile
            found = self._values(copied)
        finally:
            self._open.pop()
        if len(found) < length:
            return self.cut(kind, length, found)
        return found if kind == "list" else self.tagged(f"${kind}", found)

    def mapping(self, kind: str, value: Any, length: int, items: Iterable[tuple[Any, Any]]) -> Plain:
        """Return the pairs of a mapping: a map, tagged if `kind` is not "dict"."""
        stand_in = self._enter(kind, value, length)
        if stand_in is not None:
            return stand_in
        try:
            count = self._take(length)
            copied = list(items)[:count] if count == length else first(lambda: items, count)  # the former is one step
            length -= max(0, count - len(copied))  # another thread took some out meanwhile
            pairs = []
            for key, item in copied:
                if self._bytes_left <= 0:
                    break
                pairs.append([self.value(key), self.value(item)])
        finally:
            self._open.pop()
        found = as_map(pairs)
        if len(pairs) < length:
            return self.cut(kind, length, found)
        return found if kind == "dict" else self.tagged(f"${kind}", found)

    def unordered(self, kind: str, value: Any, length: int, iterate: Callable[[], Iterable[Any]]) -> Plain:
        """Return the items of a set, which `iterate` begins to go through, in the order of their bytes.

        The order of a set differs between processes: what part of it would fit is chance, so none of it is kept
        if it doesn't fit as a whole.
        """
        stand_in = self._enter(kind, value, length)
        if stand_in is not None:
            return stand_in
        left = self._bytes_left, self._items_left, self._cuts
        try:
            is_whole = self._take(length) == length
            copied = first(iterate, length) if is_whole else []
            found = self._values(copied)
        finally:
            self._open.pop()
        if not is_whole or len(found) < len(copied) or self._cuts > left[2]:
            self._bytes_left, self._items_left = left[0] // 2, left[1] // 2  # what was used is chance as well
            return self.cut(kind, length)
        return self.tagged(f"${kind}", sorted(found, key=PACK))

    def contained(self, kind: str, value: Any, capture: Callable[[], Plain]) -> Plain:
        """Return what `capture` makes of a container, unless that is in itself, or too deep."""
        stand_in = self._enter(kind, value)
        if stand_in is not None:
            return stand_in
        try:
            return capture()
        finally:
            self._open.pop()

    def fields(self, tag: str, value: Any, cls: type, pairs: list[tuple[str, Any]], **more: Plain) -> Plain:
        """Return an object with named fields."""
        content = self.mapping("dict", value, len(pairs), pairs)
        return self.tagged(tag, {"type": type_name(cls), "fields": content, **more})

    def _enter(self, kind: str, value: Any, length: int | None = None) -> Plain | None:
        """Open a container; return what stands for it if that can't be done."""
        if id(value) in self._open:
            return self.summary("$cycle", len(self._open) - self._open.index(id(value)))
        if len(self._open) >= self.limits.max_depth:
            return self.cut(kind, length)
        self._open.append(id(value))
        self._bytes_left -= 3
        return None

    def _take(self, length: int) -> int:
        """Return how many of so many items may be captured, and count them."""
        left = max(0, self._items_left)
        count = length if length <= left else min(self.limits.head_items, left)
        self._items_left -= count
        return count

    def _values(self, items: Iterable[Any]) -> list[Plain]:
        found = []
        for item in items:
            if self._bytes_left <= 0:
                break
            found.append(self.value(item))
        return found

    def _sized(self, value: Any) -> Any:
        self._bytes_left -= 3 + (len(value) if type(value) is bytes or value.isascii() else len(value.encode()))
        return value


def first(iterate: Callable[[], Iterable[_T]], count: int) -> list[_T]:
    """Return the first items of a container; tried again where another thread changed it since `iterate`."""
    for _ in range(_ATTEMPTS):
        with contextlib.suppress(RuntimeError):
            return list(islice(iterate(), count))
    return list(islice(iterate(), count))


def as_map(pairs: list[list[Plain]]) -> Plain:
    """Return a map, as pairs where keys are no names or could be taken for tags."""
    found = {key: item for key, item in pairs if type(key) is str and not key.startswith("$")}
    return found if len(found) == len(pairs) else {"$map": pairs}
