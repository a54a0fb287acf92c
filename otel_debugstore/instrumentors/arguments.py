"""The arguments of a call by the names of its parameters, without `inspect`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_VARARGS: Final = 0x04
_VARKEYWORDS: Final = 0x08
_UNKNOWN: Final = ("self",)


class Parameters:
    """The parameters of a function or method, as a caller of it sees them."""

    def __init__(self, function: Any, *, is_method: bool) -> None:
        """Read them.

        Args:
            function: What is called; functions that it wraps (`__wrapped__`) are asked for theirs.
            is_method: Whether the first one is bound.
        """
        function = getattr(function, "__func__", function)
        while hasattr(function, "__wrapped__"):
            function = function.__wrapped__
        code = getattr(function, "__code__", None)
        names: tuple[str, ...] = code.co_varnames[: code.co_argcount] if code else _UNKNOWN if is_method else ()
        self._names = names[1:] if is_method else names
        defaults = getattr(function, "__defaults__", None) or ()
        self._defaults = dict(zip(names[len(names) - len(defaults) :], defaults, strict=True)) if code else {}
        self._defaults |= getattr(function, "__kwdefaults__", None) or {}

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments in the order of the parameters; those beyond them are under "*"."""
        bound = dict(zip(self._names, args, strict=False))
        if len(args) > len(self._names):
            bound["*"] = args[len(self._names) :]
        return bound | dict(kwargs)

    def value(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Return one argument, or its default; None if there is neither."""
        if name in kwargs:
            return kwargs[name]
        if name in self._names and (place := self._names.index(name)) < len(args):
            return args[place]
        return self._defaults.get(name)


def text(value: object, default: str) -> str:
    """Return the name that an argument gives, or `default` if it is none."""
    return value if isinstance(value, str) and value else default
