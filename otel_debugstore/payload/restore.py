"""`restore`: makes the value again that a replayable content was captured from.

No module is imported, nothing is unpickled and no constructor of the program is called: classes are looked up among
what is loaded, and their instances are filled field by field. Import the program before its payloads are restored.
"""

from __future__ import annotations

import datetime
import pathlib
import re
import sys
import types
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from typing import Any, Final

import msgpack

from otel_debugstore.errors import NotReplayableError
from otel_debugstore.payload.describe import describe
from otel_debugstore.payload.introspect import library_class, mro

__all__ = ["describe", "restore"]


def restore(content: bytes) -> Any:
    """Return the value that was captured; of the arguments of a call, the map of them.

    Raises:
        NotReplayableError: The content is a summary, was cut or masked, needs a class that is not loaded, or is no
            content of a payload.
    """
    try:
        return _value(msgpack.unpackb(content))
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, LookupError) as error:
        if isinstance(error, NotReplayableError):
            raise
        raise NotReplayableError(f"This is not the content of a payload that can be made again: {error}.") from error


def _value(plain: Any) -> Any:
    if type(plain) is list:
        return [_value(item) for item in plain]
    if type(plain) is not dict:
        return plain
    if len(plain) == 1:
        (tag, content), *_ = plain.items()
        if tag.startswith("$"):
            return _tagged(tag, content)
    return {key: _value(item) for key, item in plain.items()}


def _tagged(tag: str, content: Any) -> Any:
    make = _MAKERS.get(tag)
    if make is None:
        raise NotReplayableError(
            f"The payload holds {tag} in the place of a value, so it can't be made again. "
            "Choose one that is marked as replayable."
        )
    return make(content)


def _at(content: Any, kind: Any) -> Any:
    """Return a date and time, or a time of the day, with its zone."""
    if type(content) is str:
        return kind.fromisoformat(content)
    zone = content["zone"]
    if type(zone) is str:
        import zoneinfo

        tzinfo: Any = zoneinfo.ZoneInfo(zone)
    else:
        tzinfo = None if zone is None else datetime.timezone(datetime.timedelta(seconds=zone))
    return kind.fromisoformat(content["at"]).replace(tzinfo=tzinfo, fold=content["fold"])


def _class(name: str, attribute: str) -> Any:
    """Return a loaded class that has what its kind of class has."""
    module, _, path = name.partition(":")
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type) or not hasattr(found, attribute):
        raise NotReplayableError(
            f"The payload holds a {name}, which is not loaded here, or is something else now. Import {module} first."
        )
    return found


def _filled(content: dict[str, Any], attribute: str) -> Any:
    cls = _class(content["type"], attribute)
    made = object.__new__(cls)
    for name, item in _value(content["fields"]).items():
        object.__setattr__(made, name, item)
    return made


def _pydantic(content: dict[str, Any]) -> Any:
    cls = _class(content["type"], "__pydantic_fields__")
    if library_class("pydantic", "BaseModel") not in mro(cls):
        raise NotReplayableError(f"{content['type']} is no pydantic model any more. Take a payload of today's code.")
    made = object.__new__(cls)
    object.__setattr__(made, "__dict__", _value(content["fields"]))
    object.__setattr__(made, "__pydantic_fields_set__", set(content["set"]))
    object.__setattr__(made, "__pydantic_extra__", {} if cls.model_config.get("extra") == "allow" else None)
    object.__setattr__(made, "__pydantic_private__", None)
    return made


def _enum(content: dict[str, Any]) -> Any:
    members: Any = _class(content["type"], "__members__")
    return members.__members__[content["name"]]


def _named_tuple(content: dict[str, Any]) -> Any:
    cls = _class(content["type"], "_fields")
    return tuple.__new__(cls, _value(content["fields"]).values())


def _numpy() -> Any:
    import numpy

    return numpy


def _array(content: dict[str, Any]) -> Any:
    numpy = _numpy()
    if "type" in content or not ("data" in content or "items" in content):
        raise NotReplayableError("The payload holds the head of an array. Choose one that is marked as replayable.")
    dtype = numpy.dtype(content["dtype"])
    if "items" in content:
        values = numpy.array(_value(content["items"]), dtype=dtype)
    else:
        values = numpy.frombuffer(content["data"], dtype=dtype)
    return values.reshape(content["shape"]).copy(order=content.get("order", "C"))


def _scalar(content: dict[str, Any]) -> Any:
    numpy = _numpy()
    dtype, value = numpy.dtype(content["dtype"]), _value(content["value"])
    if dtype.kind in "mM":
        return numpy.array(value, "i8").view(dtype)[()]
    return numpy.array(value, dtype)[()]


def _decimal(content: str) -> Any:
    import decimal

    return decimal.Decimal(content)


def _fraction(content: str) -> Any:
    import fractions

    return fractions.Fraction(content)


def _uuid(content: str) -> Any:
    import uuid

    return uuid.UUID(content)


def _ip(name: str) -> Callable[[str], Any]:
    def make(content: str) -> Any:
        import ipaddress

        return getattr(ipaddress, name)(content)

    return make


_MAKERS: Final[dict[str, Callable[[Any], Any]]] = {
    "$map": lambda content: {_value(key): _value(item) for key, item in content},
    "$tuple": lambda content: tuple(_value(content)),
    "$set": lambda content: set(_value(content)),
    "$frozenset": lambda content: frozenset(_value(content)),
    "$ordereddict": lambda content: OrderedDict(_value(content)),
    "$counter": lambda content: Counter(_value(content)),
    "$deque": lambda content: deque(_value(content["items"]), content["maxlen"]),
    "$bytearray": bytearray,
    "$int": lambda content: int(content, 16),
    "$str": lambda content: content.decode("utf-8", "surrogatepass"),
    "$range": lambda content: range(*_value(content)),
    "$slice": lambda content: slice(*_value(content)),
    "$complex": lambda content: complex(*content),
    "$datetime": lambda content: _at(content, datetime.datetime),
    "$time": lambda content: _at(content, datetime.time),
    "$date": datetime.date.fromisoformat,
    "$timedelta": lambda content: datetime.timedelta(*content),
    "$path": lambda content: pathlib.Path(_value(content)),
    "$purepath": lambda content: pathlib.PurePath(_value(content)),
    "$pureposixpath": lambda content: pathlib.PurePosixPath(_value(content)),
    "$purewindowspath": lambda content: pathlib.PureWindowsPath(_value(content)),
    "$regex": lambda content: re.compile(_value(content[0]), content[1]),
    "$namespace": lambda content: types.SimpleNamespace(**_value(content)),
    "$constant": lambda content: {"Ellipsis": ..., "NotImplemented": NotImplemented}[content],
    "$decimal": _decimal,
    "$fraction": _fraction,
    "$uuid": _uuid,
    **{
        f"${name.lower()}": _ip(name)
        for v in (4, 6)
        for name in (f"IPv{v}Address", f"IPv{v}Network", f"IPv{v}Interface")
    },
    "$dataclass": lambda content: _filled(content, "__dataclass_fields__"),
    "$pydantic": _pydantic,
    "$enum": _enum,
    "$namedtuple": _named_tuple,
    "$ndarray": _array,
    "$scalar": _scalar,
}
