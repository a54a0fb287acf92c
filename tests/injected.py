"""Functions of ours that fail when they are called, whoever holds them and under whatever name."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import mmap
from collections.abc import Iterator, Mapping
from types import CodeType, FunctionType
from typing import Any

_REACHED = 987_654_321


class InjectedError(RuntimeError):
    """What is raised in place of what a function of ours does."""


class Reached:
    """Whether a function was called while it failed, here or in a forked child."""

    def __init__(self) -> None:
        self._shared = mmap.mmap(-1, 1)

    def __call__(self) -> None:
        self._shared[0] = 1
        raise InjectedError("injected")

    def __bool__(self) -> bool:
        return bool(self._shared[0])


@contextlib.contextmanager
def failing(function: FunctionType) -> Iterator[Reached]:
    """Have a function fail, and note whether it is called. Its code is replaced, and so what others hold is, too."""
    code, reached = function.__code__, Reached()
    function.__code__ = _failing_code(code, reached)
    try:
        yield reached
    finally:
        function.__code__ = code


def _template(*args: object, **kwargs: object) -> None:
    reached: Any = 987_654_321
    reached()


def _generator_template(*args: object, **kwargs: object) -> Iterator[None]:
    reached: Any = 987_654_321
    reached()
    yield


def _failing_code(code: CodeType, reached: Reached) -> CodeType:
    """Return code of the same kind, since Python warns where a generator's is replaced by a function's."""
    template = (_generator_template if code.co_flags & inspect.CO_GENERATOR else _template).__code__
    constants = tuple(reached if constant == _REACHED else constant for constant in template.co_consts)
    return template.replace(co_consts=constants, co_freevars=code.co_freevars, co_name=code.co_name)


def functions_of(module: str) -> Mapping[str, FunctionType]:
    """Return the functions and methods that a module defines, by qualified name; special methods are left out."""
    found: dict[str, FunctionType] = {}
    loaded = importlib.import_module(module)
    kinds = [value for value in vars(loaded).values() if isinstance(value, type) and value.__module__ == module]
    for holder in (loaded, *kinds):
        for name, value in vars(holder).items():
            function = _function(value)
            is_special = name.startswith("__") and name != "__init__"
            if function is not None and function.__module__ == module and not is_special:
                found[function.__qualname__] = function
    return found


def _function(value: Any) -> FunctionType | None:
    """Return the function behind what a module or class holds: a property, a cache, a context manager."""
    for _ in range(3):
        if isinstance(value, FunctionType) and not hasattr(value, "__wrapped__"):
            return value
        value = next(
            (made for name in ("fget", "__func__", "__wrapped__") if (made := getattr(value, name, None))), None
        )
    return None
