"""Looks at types and objects without running a line of their code.

`obj.x`, `type(obj).x`, `isinstance(obj, X)` and `hash(type(obj))` may all call what a class or metaclass defines.
What is used here is the interpreter's own: slots of `type`, and descriptors that are written in C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import Any, Final

MISSING: Final = object()

mro: Final[Any] = type.__dict__["__mro__"].__get__
"""The classes a class inherits from, itself first."""

_class_dict: Final[Any] = type.__dict__["__dict__"].__get__
_qualified_name: Final[Any] = type.__dict__["__qualname__"].__get__
_module: Final[Any] = type.__dict__["__module__"].__get__
_CODE_OF_C: Final = (GetSetDescriptorType, MemberDescriptorType)
_ONLY_TEXT: Final = frozenset({id(str)})


def type_name(cls: type) -> str:
    """Return `module:qualified.name`, or the name alone for builtins."""
    module, name = module_of(cls), exact_text(_qualified_name(cls))
    return name if module == "builtins" else f"{module}:{name}"


def module_of(cls: type) -> str:
    """Return the name of a class's module, "?" if it has none."""
    return exact_text(_module(cls))


def exact_text(value: object) -> str:
    """Return a name as it is, or "?" if it is no plain text."""
    return value if type(value) is str else "?"


def class_attribute(cls: type, name: str) -> Any:
    """Return what a class or one it inherits from has under a name, unbound, or MISSING."""
    for base in mro(cls):
        found = _class_dict(base).get(name, MISSING)
        if found is not MISSING:
            return found
    return MISSING


def field(value: object, name: str) -> Any:
    """Return what an instance itself holds under a name, or MISSING; properties are not asked."""
    held = class_attribute(type(value), name)
    if type(held) in _CODE_OF_C:
        try:
            return held.__get__(value)
        except AttributeError:  # a slot that was never filled
            return MISSING
    if held is not MISSING and class_attribute(type(held), "__get__") is not MISSING:
        return instance_dict(value).get(name, MISSING)
    try:
        return object.__getattribute__(value, name)
    except AttributeError:
        return MISSING


def is_importable(cls: type) -> bool:
    """Return whether another process may find a class by its name."""
    return module_of(cls) not in ("__main__", "?", "builtins") and "<locals>" not in type_name(cls)


def library_class(module: str, name: str) -> Any:
    """Return a class of a library if the program has imported that, else None."""
    return getattr(sys.modules.get(module), name, None)


def holds_only(cls: type, names: Iterable[str]) -> Callable[[Any], bool]:
    """Return what tells of instances of a class whether nothing is in them but what they hold under these names.

    Of a class that inherits from one written in C nobody can tell.
    """
    known = frozenset(names)
    bases = [_class_dict(base) for base in mro(cls) if base is not object]
    slots = [
        item
        for base in bases
        for name, item in base.items()
        if type(item) is MemberDescriptorType and name not in known
    ]
    if any(type(base.get("__new__")) is BuiltinFunctionType for base in bases):
        return lambda value: False
    held = _dict_slot(cls)

    def is_all(value: Any) -> bool:
        found = () if held is None else held(value)
        if not _ONLY_TEXT.issuperset(map(id, map(type, found))):  # then looking them up may be code of the program
            return False
        return known.issuperset(found) and not (slots and any(_is_filled(slot, value) for slot in slots))

    return is_all


def _is_filled(slot: Any, value: object) -> bool:
    try:
        slot.__get__(value)
    except AttributeError:
        return False
    return True


def instance_dict(value: object) -> dict[str, Any]:
    """Return the attributes of an instance that are in no slot."""
    held = _dict_slot(type(value))
    found = None if held is None else held(value)
    return found if type(found) is dict else {}


def _dict_slot(cls: type) -> Callable[[Any], Any] | None:
    """Return what gives the attributes of a class's instances, None if they have none but slots."""
    for base in mro(cls):
        slot = _class_dict(base).get("__dict__")
        if slot is not None:
            return slot.__get__ if type(slot) is GetSetDescriptorType else None
    return None
