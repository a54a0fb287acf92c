"""How values of Python's own types are captured, by exact type; subclasses are reduced to what they inherit.

Only methods of the base types are called (`dict.items(value)`), never those a subclass may have put in their place.
"""

from __future__ import annotations

import datetime
import functools
import io
import os
import pathlib
import re
import types
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque
from typing import Any, Final

from otel_debugstore.payload.introspect import exact_text, field, library_class, mro, type_name
from otel_debugstore.payload.walk import Handler, Plain, Walk, first

ByType = dict[int, Handler]
"""Handlers by the identity of a type: its hash may be code of a metaclass."""


_FOREIGN_PATH: Final = pathlib.PurePosixPath if os.name == "nt" else pathlib.PureWindowsPath
"""Paths of the other kind of system."""


def _list(walk: Walk, value: list[Any]) -> Plain:
    return walk.sequence("list", value, list.__len__(value), lambda count: list.__getitem__(value, slice(count)))


def _tuple(walk: Walk, value: tuple[Any, ...]) -> Plain:
    return walk.sequence("tuple", value, tuple.__len__(value), lambda count: tuple.__getitem__(value, slice(count)))


def _dict(walk: Walk, value: dict[Any, Any]) -> Plain:
    return walk.mapping("dict", value, dict.__len__(value), dict.items(value))


def _set(walk: Walk, value: set[Any]) -> Plain:
    return walk.unordered("set", value, set.__len__(value), lambda: set.__iter__(value))


def _frozenset(walk: Walk, value: frozenset[Any]) -> Plain:
    return walk.unordered("frozenset", value, frozenset.__len__(value), lambda: frozenset.__iter__(value))


def _ordered_dict(walk: Walk, value: OrderedDict[Any, Any]) -> Plain:
    return _marked(walk, "$ordereddict", walk.mapping("dict", value, len(value), OrderedDict.items(value)))


def _counter(walk: Walk, value: Counter[Any]) -> Plain:
    return _marked(walk, "$counter", _dict(walk, value))


def _deque(walk: Walk, value: deque[Any]) -> Plain:
    items = walk.sequence("list", value, len(value), lambda count: first(lambda: value, count))
    return _marked(walk, "$deque", {"items": items, "maxlen": value.maxlen})


def _marked(walk: Walk, tag: str, content: Plain) -> Plain:
    return walk.tagged(tag, content)


def _bytearray(walk: Walk, value: bytearray) -> Plain:
    if bytearray.__len__(value) > walk.room():
        head = walk.binary(bytes(bytearray.__getitem__(value, slice(walk.limits.head_text))))
        return walk.cut("bytearray", bytearray.__len__(value), head)
    return walk.tagged("$bytearray", walk.binary(bytes(memoryview(value))))


def _memoryview(walk: Walk, value: memoryview) -> Plain:
    return walk.summary(
        "$memoryview", {"format": value.format, "shape": list(value.shape or ()), "bytes": value.nbytes}
    )


def _range(walk: Walk, value: range) -> Plain:
    return walk.tagged("$range", [walk.integer(part) for part in (value.start, value.stop, value.step)])


def _slice(walk: Walk, value: slice) -> Plain:
    return walk.tagged("$slice", [walk.value(part) for part in (value.start, value.stop, value.step)])


def _complex(walk: Walk, value: complex) -> Plain:
    return walk.tagged("$complex", [value.real, value.imag])


def _datetime(walk: Walk, value: datetime.datetime) -> Plain:
    zone = value.tzinfo
    if zone is None and not value.fold:
        return walk.tagged("$datetime", datetime.datetime.isoformat(value))
    content = {"at": value.replace(tzinfo=None, fold=0).isoformat(), "zone": _zone(walk, zone), "fold": value.fold}
    return walk.tagged("$datetime", content)


def _time(walk: Walk, value: datetime.time) -> Plain:
    zone = value.tzinfo
    if zone is None and not value.fold:
        return walk.tagged("$time", value.isoformat())
    content = {"at": value.replace(tzinfo=None, fold=0).isoformat(), "zone": _zone(walk, zone), "fold": value.fold}
    return walk.tagged("$time", content)


def _zone(walk: Walk, zone: datetime.tzinfo | None) -> Plain:
    """Return a fixed offset in seconds, or the key of a zone; nothing is computed by a class of the program."""
    if zone is None:
        return None
    if type(zone) is datetime.timezone:
        return zone.utcoffset(None).total_seconds()
    key = getattr(zone, "key", None) if type(zone) is library_class("zoneinfo", "ZoneInfo") else None
    return key if type(key) is str else walk.object(zone)


def _date(walk: Walk, value: datetime.date) -> Plain:
    return walk.tagged("$date", value.isoformat())


def _timedelta(walk: Walk, value: datetime.timedelta) -> Plain:
    return walk.tagged("$timedelta", [value.days, value.seconds, value.microseconds])


def _path(walk: Walk, value: pathlib.PurePath) -> Plain:
    if type(value) is _FOREIGN_PATH:
        return _written(walk, value)
    kind = "$path" if isinstance(value, pathlib.Path) else "$purepath"
    return walk.tagged(kind, walk.text(str(value)))


def _regex(walk: Walk, value: re.Pattern[Any]) -> Plain:
    return walk.tagged("$regex", [walk.value(value.pattern), value.flags])


def _written(walk: Walk, value: Any) -> Plain:
    """A number or identifier of the standard library, as it writes itself."""
    return walk.tagged(f"${type(value).__name__.lower()}", walk.text(str(value)))


def _callable(walk: Walk, value: Any) -> Plain:
    is_builtin = type(value) is types.BuiltinFunctionType  # asked for more, it asks the type it belongs to
    name = exact_text(value.__name__ if is_builtin else value.__qualname__)
    return walk.summary("$callable", f"{exact_text(value.__module__)}:{name}")


def _method(walk: Walk, value: types.MethodType) -> Plain:
    function: Any = value.__func__
    if type(function) is types.FunctionType:
        return _callable(walk, function)
    return walk.summary("$callable", type_name(type(function)))


def _partial(walk: Walk, value: functools.partial[Any]) -> Plain:
    content = {
        "function": walk.value(value.func),
        "args": walk.value(value.args),
        "keywords": walk.value(value.keywords),
    }
    return walk.summary("$partial", content)


def _type(walk: Walk, value: type) -> Plain:
    return walk.summary("$type", type_name(value))


def _module(walk: Walk, value: types.ModuleType) -> Plain:
    name = types.ModuleType.__getattribute__(value, "__name__")
    return walk.summary("$module", exact_text(name))


def _generator(walk: Walk, value: Any) -> Plain:
    return walk.summary("$generator", exact_text(value.__qualname__))


def _view(walk: Walk, value: Any) -> Plain:
    """Keys, values or items of a dict."""
    found = walk.sequence("list", value, len(value), lambda count: first(lambda: value, count))
    return walk.summary("$view", {"type": type_name(type(value)), "items": found})


def _mapping_proxy(walk: Walk, value: types.MappingProxyType[Any, Any]) -> Plain:
    """What is behind it may be any mapping, with any code: the type is all there is to say."""
    return walk.object(value)


def _namespace(walk: Walk, value: types.SimpleNamespace) -> Plain:
    return _marked(walk, "$namespace", _dict(walk, value.__dict__))


def _chain_map(walk: Walk, value: ChainMap[Any, Any]) -> Plain:
    return walk.summary("$chainmap", walk.value(value.maps))


def _default_dict(walk: Walk, value: defaultdict[Any, Any]) -> Plain:
    return walk.summary("$defaultdict", {"factory": walk.value(value.default_factory), "items": _dict(walk, value)})


def _file(walk: Walk, value: Any) -> Plain:
    """An open file: its name and mode, which only files of the operating system are asked for."""
    raw, name, mode = value, None, None
    if type(raw) is io.TextIOWrapper:
        raw = raw.buffer
    if type(raw) in (io.BufferedReader, io.BufferedWriter, io.BufferedRandom):
        raw = raw.raw
    if type(raw) is io.FileIO:
        name, mode = field(raw, "name"), raw.mode
    found = {"type": type_name(type(value)), "name": name if type(name) in (str, int) else None, "mode": mode}
    return walk.summary("$file", found)


def _ellipsis(walk: Walk, value: object) -> Plain:
    return walk.tagged("$constant", "Ellipsis" if value is ... else "NotImplemented")


_HANDLERS: Final[tuple[tuple[Handler, tuple[Any, ...]], ...]] = (
    (Walk.number, (type(None), bool, float)),
    (Walk.integer, (int,)),
    (Walk.text, (str,)),
    (Walk.binary, (bytes,)),
    (_list, (list,)),
    (_tuple, (tuple,)),
    (_dict, (dict,)),
    (_set, (set,)),
    (_frozenset, (frozenset,)),
    (_ordered_dict, (OrderedDict,)),
    (_default_dict, (defaultdict,)),
    (_counter, (Counter,)),
    (_chain_map, (ChainMap,)),
    (_deque, (deque,)),
    (_bytearray, (bytearray,)),
    (_memoryview, (memoryview,)),
    (_range, (range,)),
    (_slice, (slice,)),
    (_complex, (complex,)),
    (_datetime, (datetime.datetime,)),
    (_date, (datetime.date,)),
    (_time, (datetime.time,)),
    (_timedelta, (datetime.timedelta,)),
    (_path, (pathlib.PurePosixPath, pathlib.PureWindowsPath, type(pathlib.Path()))),
    (_regex, (re.Pattern,)),
    (_callable, (types.FunctionType, types.BuiltinFunctionType)),
    (_method, (types.MethodType,)),
    (_partial, (functools.partial,)),
    (_type, (type,)),
    (_module, (types.ModuleType,)),
    (_generator, (types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType)),
    (_view, (type({}.keys()), type({}.values()), type({}.items()))),
    (_mapping_proxy, (types.MappingProxyType,)),
    (_namespace, (types.SimpleNamespace,)),
    (_ellipsis, (type(...), type(NotImplemented))),
    (
        _file,
        (
            io.TextIOWrapper,
            io.BufferedReader,
            io.BufferedWriter,
            io.BufferedRandom,
            io.FileIO,
            io.BytesIO,
            io.StringIO,
        ),
    ),
)

BY_TYPE: Final[ByType] = {id(kind): handler for handler, kinds in _HANDLERS for kind in kinds}
"""Types written in C or in the standard library: they live as long as the interpreter, so their identities hold."""

_WRITTEN: Final = frozenset(
    {
        ("decimal", "Decimal"),
        ("fractions", "Fraction"),
        ("uuid", "UUID"),
        *(("ipaddress", f"IPv{v}{kind}") for v in (4, 6) for kind in ("Address", "Network", "Interface")),
    }
)


def written_handler(cls: type) -> Handler | None:
    """Return the way to capture types of modules that a program may not have imported."""
    for module, name in _WRITTEN:
        if cls is library_class(module, name):
            return _written
    return None


def _exact_text(walk: Walk, value: str) -> Plain:
    return walk.text(str.__str__(value))


_BASES: Final[tuple[tuple[type, Handler], ...]] = (
    (str, _exact_text),
    (bytes, lambda walk, value: walk.binary(bytes.__getitem__(value, slice(None)))),
    (int, lambda walk, value: walk.integer(int.__int__(value))),
    (float, lambda walk, value: walk.number(float.__float__(value))),
    (list, _list),
    (tuple, _tuple),
    (OrderedDict, lambda walk, value: _dict(walk, value)),
    (dict, _dict),
    (set, _set),
    (frozenset, _frozenset),
)


def subclass_handler(cls: type) -> Handler | None:
    """Return the way to capture instances of a class that inherits from a builtin container or scalar."""
    inherited = mro(cls)
    for base, handler in _BASES:
        if any(found is base for found in inherited):
            return lambda walk, value: walk.summary(
                "$subclass", {"type": type_name(type(value)), "value": handler(walk, value)}
            )
    if any(found is type for found in inherited):
        return _type
    if any(found is types.ModuleType for found in inherited):
        return _module
    return None
