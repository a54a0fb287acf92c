"""Finds a function by name in a process of its own, and calls it with recorded arguments.

Runs in the processes that run the program's code.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Sequence
from types import FunctionType, ModuleType
from typing import Any, Final

from otel_debugstore.code_identity import underlying_function, variant_of
from otel_debugstore.payload import restore
from otel_debugstore.payload.capture import REST, REST_BY_NAME
from otel_debugstore_analysis.replay.request import SCRIPT, Side

_LOCALS: Final = "<locals>"
_SPAWNED: Final = "__mp_main__"
"""What multiprocessing calls the script that was run, in its children."""
_MAX_WRAPPED: Final = 16
_RECORDED: Final = "otel_debugstore.calls.recorded"
"""Imported by programs that have recorded functions: 0.2 s that others need not pay."""


class LoadError(Exception):
    """A function can't be found, or not be replayed; the text is one sentence."""


class Loaded:
    """A function and how recorded arguments are given to it."""

    def __init__(self, function: Callable[..., Any], target: str, is_recorded: bool) -> None:
        self.function = function
        self.target = target
        """Its name, as "package.module:qualified.name"."""
        self.is_recorded = is_recorded
        """Whether it is recorded code, and the file says something else by now."""
        self.parameters = _parameters(function)
        self.is_coroutine = inspect.iscoroutinefunction(function)

    def call(self, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Call the function; if it is asynchronous, run it to its end."""
        if self.is_coroutine:
            return asyncio.run(self.function(*args, **kwargs))
        return self.function(*args, **kwargs)


def load(side: Side) -> Loaded:
    """Return the function of a side; modules are imported for it.

    Raises:
        LoadError: There is none, or it can't be replayed.
    """
    sys.path[:0] = side.paths
    module, names = _module(side)
    owner, found = _found(module, names)
    function = without_recording(found)
    is_recorded = side.source is not None and side.variant != variant_of(function)
    if is_recorded:
        function, owner = without_recording(_recorded(module, names, side.source or "")), module
    _take_off_recording(module)
    if not callable(function):
        raise LoadError(f"{side.target} is no function.")
    if isinstance(owner, type) and isinstance(function, FunctionType) and not _is_static(owner, names[-1]):
        raise LoadError(f"{side.target} is a method, and what it was called on is not recorded.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise LoadError(f"{side.target} is a generator; what it yields is not recorded.")
    return Loaded(function, f"{_name_of(module)}:{'.'.join(names)}", is_recorded)


def without_recording(function: Any) -> Any:
    """Return what our decorators were put around, and nothing else: a cache of the program's stays."""
    recorded: Any = sys.modules.get(_RECORDED)
    for _ in range(_MAX_WRAPPED):
        if recorded is None or not isinstance(function, (recorded.RecordedFunction, recorded._BoundRecordedFunction)):
            break
        function = function.__wrapped__
    return function


def _name_of(module: ModuleType) -> str:
    return SCRIPT if module.__name__ == _SPAWNED else module.__name__


def _take_off_recording(module: ModuleType) -> None:
    """Have the functions of a module call each other, and themselves, without being recorded."""
    for name, value in list(vars(module).items()):
        plain = without_recording(value)
        if plain is not value:
            setattr(module, name, plain)


def arguments(content: bytes, parameters: Sequence[str]) -> tuple[list[Any], dict[str, Any]]:
    """Return recorded arguments by place and by name, made anew."""
    values: dict[str, Any] = restore(content)
    rest, by_name = values.pop(REST, []), values.pop(REST_BY_NAME, {})
    args: list[Any] = []
    for name in parameters:
        if name not in values:
            break
        args.append(values.pop(name))
    return [*args, *rest], {**values, **by_name}


def hook(name: str | None) -> Callable[[], Any]:
    """Return a setup or teardown by its name; without one, what does nothing.

    Raises:
        LoadError: There is none of that name.
    """
    if name is None:
        return lambda: None
    module, names = _module(Side(name))
    found = without_recording(_found(module, names)[1])
    if not callable(found):
        raise LoadError(f"{name} is no function.")
    return lambda: _finished(found())


def _finished(result: Any) -> Any:
    return asyncio.run(result) if inspect.iscoroutine(result) else result


def _module(side: Side) -> tuple[ModuleType, list[str]]:
    """Import the module of a target; return it and the names within it."""
    head, separator, tail = side.target.partition(":")
    parts = head.split(".")
    if _LOCALS in side.target:
        raise LoadError(f"{side.target} is made inside of another function, and can't be found by its name.")
    if parts[0] == SCRIPT and side.file is not None:
        return _script(side.file), tail.split(".") if separator else parts[1:]
    if separator:
        return _imported(head), tail.split(".")
    for count in range(len(parts) - 1, 0, -1):
        name = ".".join(parts[:count])
        if _exists(name):
            return _imported(name), parts[count:]
    raise LoadError(f"No module of {side.target} can be found; say where it lies (--path).")


def _exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, AttributeError, ValueError):
        return False


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except BaseException as error:  # whatever a module does when it is imported, sys.exit() too
        raise LoadError(f"{name} can't be imported ({type(error).__name__}: {error}).") from error


def _script(path: str) -> ModuleType:
    """Load the script that was run, as multiprocessing does in its children: not as the main program."""
    spec = importlib.util.spec_from_file_location(_SPAWNED, path)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[_SPAWNED] = sys.modules[SCRIPT] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        raise LoadError(f"{path} can't be imported ({type(error).__name__}: {error}).") from error
    return module


def _found(module: ModuleType, names: Sequence[str]) -> tuple[Any, Any]:
    owner: Any = None
    found: Any = module
    for name in names:
        owner, found = found, getattr(found, name, None)
        if found is None:
            raise LoadError(f"{module.__name__} ({module.__file__}) has no {'.'.join(names)}.")
    return owner, found


def _recorded(module: ModuleType, names: Sequence[str], source: str) -> Any:
    """Return what recorded source makes among the names of its module."""
    if len(names) != 1:
        raise LoadError(f"The recorded code of {'.'.join(names)} can't be run without its class.")
    namespace = dict(vars(module))
    try:
        exec(compile(source, f"<recorded {names[0]}>", "exec"), namespace)  # what the user asked for
    except BaseException as error:
        raise LoadError(f"The recorded code of {names[0]} can't be run ({type(error).__name__}: {error}).") from error
    made = namespace.get(names[0])
    namespace[names[0]] = without_recording(made)  # for where it calls itself
    return made


def _is_static(owner: type, name: str) -> bool:
    found = inspect.getattr_static(owner, name)
    found = getattr(found, "__wrapped__", found)
    return isinstance(found, (staticmethod, classmethod))


def _parameters(function: Any) -> tuple[str, ...]:
    """Return the names of positional parameters; without what a bound method is called on."""
    plain = underlying_function(function)
    if plain is None:
        return ()
    names = plain.__code__.co_varnames[: plain.__code__.co_argcount]
    return names[1:] if inspect.ismethod(function) else names
