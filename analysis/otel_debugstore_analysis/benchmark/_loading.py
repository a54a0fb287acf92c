"""Functions by name, two versions of a project side by side. Runs in the processes that measure: standard library only.

A function that comes with `paths` has a world of its own: these come first in `sys.path` while it is loaded and while
it runs, and modules that were found below them are in `sys.modules` only then. So a project and a scratch copy of it
don't meet, nor does what they import later.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import runpy
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from otel_debugstore_analysis.benchmark.model import SCRIPT, FunctionRef

_RECORDED = ("otel_debugstore.calls.recorded", "RecordedFunction")


class LoadError(Exception):
    """A function can't be had; the text says why."""


class World:
    """The modules that one of the two functions sees."""

    active: World | None = None
    """The one whose modules are in `sys.modules`."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self.paths = tuple(os.path.realpath(path) for path in paths)
        self._modules: dict[str, ModuleType] = {}
        self._seen = 0

    def enter(self) -> None:
        """Have this world's modules, and no other world's, imported."""
        if World.active is self:
            return
        if World.active is not None:
            World.active.leave()
        sys.path[:0] = self.paths
        sys.modules.update(self._modules)
        self._seen = len(sys.modules)
        importlib.invalidate_caches()
        World.active = self

    def leave(self) -> None:
        """Put this world's modules aside."""
        if self.paths and (len(sys.modules) != self._seen or not self._modules):
            own = {name: module for name, module in sys.modules.items() if self._is_own(module)}
            self._modules |= own
        for name in self._modules:
            sys.modules.pop(name, None)
        for path in self.paths:
            with contextlib.suppress(ValueError):  # the program took it out
                sys.path.remove(path)
        World.active = None

    def _is_own(self, module: ModuleType) -> bool:
        places = [getattr(module, "__file__", None), *list(getattr(module, "__path__", ()))]
        return any(
            os.path.realpath(place).startswith(path + os.sep) for place in places if place for path in self.paths
        )


def worlds_of(baseline: FunctionRef, candidate: FunctionRef) -> tuple[World, World]:
    """Return the worlds of the two: one, where both have the same paths."""
    first = World(baseline.paths)
    return (first, first) if baseline.paths == candidate.paths else (first, World(candidate.paths))


def load(reference: FunctionRef) -> Callable[..., Any]:
    """Return the function, without what records it.

    Raises:
        LoadError: It can't be imported, or is nothing that can be called.
    """
    found: Any = reference.function if reference.function is not None else named(reference.target, reference.file)
    if not callable(found):
        raise LoadError(f"{reference.target} is no function, but a {type(found).__name__}")
    plain: Callable[..., Any] = unrecorded(found)
    return plain


def unrecorded(function: Any) -> Any:
    """Return what `@tool` and the like record; nothing else that is around a function is taken off."""
    kind = type(function)
    while (kind.__module__, kind.__qualname__) == _RECORDED:
        function = function.__wrapped__
        kind = type(function)
    return function


def named(target: str, file: str | None = None) -> Any:
    """Return what a name stands for.

    Args:
        target: "package.module:qualified.name".
        file: The module's file, where it is a script.

    Raises:
        LoadError: There is no such thing, or its module can't be imported.
    """
    module_name, colon, qualified_name = target.partition(":")
    if not colon or not module_name or not qualified_name:
        raise LoadError(f"{target!r} names no function: write package.module:function")
    try:
        module: Any = _script(file) if file is not None and module_name == SCRIPT else _module(module_name, file)
    except BaseException as error:  # the module's own code ran
        text = f": {error}" if str(error) else ""
        raise LoadError(f"{module_name} can't be imported ({type(error).__name__}{text})") from error
    for name in qualified_name.split("."):
        try:
            module = getattr(module, name)
        except AttributeError:
            raise LoadError(f"{module_name} has no {qualified_name}") from None
    return module


def _module(name: str, file: str | None) -> ModuleType:
    if file is None or name in sys.modules:
        return importlib.import_module(name)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError:
        spec = importlib.util.spec_from_file_location(name, file)
        if spec is None or spec.loader is None:
            raise
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def _script(file: str) -> ModuleType:
    """Run a script as multiprocessing does: under a name by which it does not start its work."""
    module = sys.modules.get("__mp_main__")
    if module is None or getattr(module, "__file__", None) != file:
        module = ModuleType("__mp_main__")
        sys.path.insert(0, os.path.dirname(os.path.abspath(file)))  # noqa: PTH100, PTH120
        module.__dict__.update(runpy.run_path(file, run_name="__mp_main__"))
        sys.modules["__mp_main__"] = module
    return module
