"""Classes of a program whose values are captured; in a module of their own, since restoring looks them up by name."""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

from pydantic import BaseModel


class Color(enum.Enum):
    RED = 1
    GREEN = "g"


class Level(enum.IntEnum):
    LOW = 1


class Permission(enum.Flag):
    READ = 1
    WRITE = 2


class Point(NamedTuple):
    x: int
    y: float


@dataclass
class Job:
    name: str
    tags: list[str] = field(default_factory=list)
    kind: ClassVar[str] = "job"


@dataclass(frozen=True, slots=True)
class Login:
    user: str
    password: str


class Held:
    __slots__ = ("hidden",)


@dataclass
class Made(Held):
    """Whatever else it may hold than its fields."""

    name: str
    start: InitVar[int] = 0

    def __post_init__(self, start: int) -> None:
        if start == 1:
            self.started = True
        if start == 2:
            self.hidden = True

    @cached_property
    def upper(self) -> str:
        return self.name.upper()


@dataclass
class Queue(deque[int]):
    """Its items are where nobody sees them."""

    name: str


class Pair(Point):
    """It has room for more than its fields."""


class Model(BaseModel):
    a: int
    b: list[str] = []
    inner: Model | None = None

    @cached_property
    def double(self) -> int:
        return 2 * self.a


CALLS: list[str] = []
"""What was called of hostile classes."""


def _fail(name: str) -> Any:
    def method(*args: Any, **kwargs: Any) -> Any:
        CALLS.append(name)
        raise RuntimeError(name)

    return method


_DUNDERS = """
    repr str len iter eq hash bool getattribute getattr setattr delattr getitem contains int float index format
    dir sizeof reduce reduce_ex getstate copy deepcopy next call enter exit fspath bytes complex array lt reversed
"""
_PROPERTIES = "__class__ __dict__ shape dtype items keys args name"

Hostile: Any = type(
    "Hostile",
    (),
    {"__module__": "captured"}
    | {f"__{name}__": _fail(name) for name in _DUNDERS.split()}
    | {name: property(_fail(name)) for name in _PROPERTIES.split()},
)
"""Whatever is done with it fails, and is noted."""


class HostileMeta(type):
    """The same for a class."""

    def __getattribute__(cls, name: str) -> Any:
        CALLS.append(f"meta {name}")
        raise RuntimeError(name)

    __hash__ = _fail("meta hash")
    __eq__ = _fail("meta eq")
    __instancecheck__ = _fail("meta instancecheck")
    __subclasscheck__ = _fail("meta subclasscheck")


class OfHostileMeta(metaclass=HostileMeta):
    pass


def _subclass(base: type) -> type:
    body = {f"__{name}__": _fail(f"{base.__name__}.{name}") for name in _DUNDERS.split()}
    body |= {name: _fail(f"{base.__name__}.{name}") for name in ("items", "keys", "encode", "isascii", "decode")}
    return type(f"Hostile{base.__name__.title()}", (base,), {"__module__": "captured", **body})


HOSTILE_SUBCLASSES: dict[type, Any] = {
    base: _subclass(base) for base in (dict, list, tuple, set, frozenset, str, bytes, int, float)
}
