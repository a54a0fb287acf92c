"""How objects with named fields are captured: dataclasses, attrs, msgspec, pydantic, enums, named tuples, exceptions.

Their fields are read where they lie; properties, `__getattr__` and `__repr__` are never called. An object of any
other class is captured as the name of its class, unless `summarize_with` says how to describe it.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from otel_debugstore.payload.introspect import (
    MISSING,
    class_attribute,
    field,
    holds_only,
    instance_dict,
    is_importable,
    library_class,
    mro,
    type_name,
)
from otel_debugstore.payload.kinds import BY_TYPE, subclass_handler, written_handler
from otel_debugstore.payload.tables import table_handler
from otel_debugstore.payload.walk import Handler, Plain, Walk

MAX_SUMMARY_NS: Final = 5_000_000
"""A user's summary that took longer is not called again in this process: it can't be interrupted."""

_args_of: Final[Any] = vars(BaseException)["args"].__get__
_cause_of: Final[Any] = vars(BaseException)["__cause__"].__get__
_OF_PYDANTIC: Final = ("__pydantic_fields_set__", "__pydantic_extra__", "__pydantic_private__")
_MAX_KNOWN: Final = 4096
_known: dict[int, tuple[weakref.ref[type], Handler]] = {}
_summaries: dict[int, tuple[type, Callable[[Any], Any]]] = {}


def handler_of(cls: type) -> Handler:
    """Return the way to capture instances of exactly this class."""
    handler = BY_TYPE.get(id(cls))
    if handler is not None:
        return handler
    known = _known.get(id(cls))
    if known is not None and known[0]() is cls:
        return known[1]
    handler = _find(cls)
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    _known[id(cls)] = weakref.ref(cls), handler
    return handler


def summarize_with(cls: type, describe: Callable[[Any], Any]) -> None:
    """Have instances of a class, and of those that inherit from it, captured as what `describe` returns for them.

    `describe` runs in the program's threads wherever such an object is an argument or a result: it must not
    change anything or wait for anything. What it raises is dropped; after a call of more than 5 ms it is not called
    again.
    """
    _summaries[id(cls)] = cls, describe
    _known.clear()


def _find(cls: type) -> Handler:
    for base in mro(cls):
        if id(base) in _summaries:
            return _summary_handler(*_summaries[id(base)])
    for find in (_enum, written_handler, table_handler, _exception, _named_tuple, subclass_handler, _pydantic, _fields):
        handler = find(cls)
        if handler is not None:
            return handler
    return Walk.object


def _summary_handler(cls: type, describe: Callable[[Any], Any]) -> Handler:
    def capture(walk: Walk, value: Any) -> Plain:
        if _summaries.get(id(cls), (None, None))[1] is not describe:
            return walk.object(value)
        from otel_debugstore.suppressed import suppressed  # who captures only needs no OpenTelemetry

        start = time.perf_counter_ns()
        with suppressed():  # it may be recorded itself
            described = describe(value)
        if time.perf_counter_ns() - start > MAX_SUMMARY_NS:
            _summaries.pop(id(cls), None)
        return walk.summary("$summary", {"type": type_name(type(value)), "summary": walk.value(described)})

    return capture


def _enum(cls: type) -> Handler | None:
    enum = library_class("enum", "Enum")
    if not any(base is enum for base in mro(cls)):
        return None

    def capture(walk: Walk, value: Any) -> Plain:
        name, members = field(value, "_name_"), class_attribute(cls, "_member_map_")
        if type(name) is not str or type(members) is not dict or members.get(name) is not value:
            # A combination of flags. Some versions of Python name it "X|Y", but not as a member.
            return walk.summary("$enum", {"type": type_name(cls), "value": walk.value(field(value, "_value_"))})
        walk.replayable &= is_importable(cls)
        return walk.tagged("$enum", {"type": type_name(cls), "name": name})

    return capture


def _exception(cls: type) -> Handler | None:
    if not any(base is BaseException for base in mro(cls)):
        return None

    def capture(walk: Walk, value: Any) -> Plain:
        content = {"type": type_name(cls), "args": walk.value(_args_of(value))}
        cause = _cause_of(value)
        if cause is not None:
            content["cause"] = walk.sequence("list", value, 1, lambda count: [cause][:count])
        return walk.summary("$exception", content)

    return capture


def _named_tuple(cls: type) -> Handler | None:
    names = class_attribute(cls, "_fields")
    if not (any(base is tuple for base in mro(cls)) and type(names) is tuple and _are_names(names)):
        return None

    def capture(walk: Walk, value: Any) -> Plain:
        values = tuple.__getitem__(value, slice(None))
        walk.replayable &= len(values) == len(names) and not instance_dict(value) and is_importable(cls)
        return walk.fields("$namedtuple", value, cls, list(zip(names, values, strict=False)))

    return capture


def _pydantic(cls: type) -> Handler | None:
    names = class_attribute(cls, "__pydantic_fields__")
    if type(names) is not dict or not any(base is library_class("pydantic", "BaseModel") for base in mro(cls)):
        return None
    is_all = holds_only(cls, [*names, *_OF_PYDANTIC])

    def capture(walk: Walk, value: Any) -> Plain:
        pairs = _pairs(value, list(names))
        extra, private = field(value, "__pydantic_extra__"), field(value, "__pydantic_private__")
        if type(extra) is dict:
            pairs += [(name, item) for name, item in dict.items(extra) if type(name) is str]
        is_whole = not private and not extra and len(pairs) == len(names) and is_all(value)
        walk.replayable &= is_whole and is_importable(cls)
        set_names = field(value, "__pydantic_fields_set__")
        return walk.fields("$pydantic", value, cls, pairs, set=sorted(name for name in set_names if type(name) is str))

    return capture


def _fields(cls: type) -> Handler | None:
    """Dataclasses, and classes of attrs and msgspec."""
    tag, names = "$dataclass", _dataclass_names(cls)
    if names is None:
        tag, names = "$attrs", _attrs_names(cls)
    if names is None:
        tag, names = "$struct", _struct_names(cls)
    if names is None:
        return None
    expected, is_all = names, holds_only(cls, names)

    def capture(walk: Walk, value: Any) -> Plain:
        pairs = _pairs(value, expected)
        is_whole = tag == "$dataclass" and len(pairs) == len(expected) and is_all(value)
        walk.replayable &= is_whole and is_importable(cls)
        return walk.fields(tag, value, cls, pairs)

    return capture


def _dataclass_names(cls: type) -> list[str] | None:
    found, kind = class_attribute(cls, "__dataclass_fields__"), library_class("dataclasses", "Field")
    if type(found) is not dict or kind is None:
        return None
    plain = library_class("dataclasses", "_FIELD")  # the others are class variables and arguments of __init__
    return [name for name, item in found.items() if type(item) is kind and item._field_type is plain]


def _attrs_names(cls: type) -> list[str] | None:
    found, kind = class_attribute(cls, "__attrs_attrs__"), library_class("attr", "Attribute")
    if kind is None or found is MISSING or not any(base is tuple for base in mro(type(found))):
        return None
    return [item.name for item in tuple.__iter__(found) if type(item) is kind]


def _struct_names(cls: type) -> list[str] | None:
    base = library_class("msgspec", "Struct")
    found = class_attribute(cls, "__struct_fields__")
    if base is None or not any(item is base for item in mro(cls)):
        return None
    return list(found) if type(found) is tuple and _are_names(found) else None


def _pairs(value: Any, names: list[str]) -> list[tuple[str, Any]]:
    found = [(name, field(value, name)) for name in names]
    return [(name, item) for name, item in found if item is not MISSING]


def _are_names(names: tuple[Any, ...]) -> bool:
    return all(type(name) is str for name in names)
