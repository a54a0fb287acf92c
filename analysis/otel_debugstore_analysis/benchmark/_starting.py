"""How processes that measure are started: fresh interpreters, or forks of this one."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pickle
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_analysis.benchmark._loading import unrecorded
from otel_debugstore_analysis.benchmark.model import SCRIPT, BenchmarkOptions, Case, Check, FunctionRef

Function = FunctionRef | Callable[..., Any] | str


def function_ref(function: Function) -> FunctionRef:
    """Return the reference of a function.

    Raises:
        ConfigurationError: It is none.
    """
    if isinstance(function, str):
        function = FunctionRef(function)
    if isinstance(function, FunctionRef):
        if function.function is None and not (function.module and function.qualified_name):
            raise ConfigurationError(f"{function.target!r} names no function; write package.module:function.")
        return function
    if not callable(function):
        raise ConfigurationError(f"{function!r} can't be measured: it can't be called.")
    plain = unrecorded(function)
    name = getattr(plain, "__qualname__", None) or type(plain).__qualname__
    return FunctionRef(f"{getattr(plain, '__module__', None) or SCRIPT}:{name}", function=plain)


def how_started(
    references: Sequence[FunctionRef], inputs: Sequence[Case], options: BenchmarkOptions, check: Check
) -> tuple[bool, list[str]]:
    """Return whether processes are forked, and what is to be said of it.

    Raises:
        ConfigurationError: They can't be started as is wanted.
    """
    why = _why_not_fresh(references, inputs, options, check)
    if options.start == "fork" and not hasattr(os, "fork"):
        raise ConfigurationError("This system can't fork; take start='fresh', and functions that can be imported.")
    if options.start == "fresh" and why is not None:
        raise ConfigurationError(f"Fresh interpreters can't measure this: {why}. Take start='fork'.")
    if options.start == "fork" or why is None:
        return options.start == "fork", []
    if not hasattr(os, "fork"):
        raise ConfigurationError(f"This can't be measured, as this system can't fork and {why}.")
    return True, [f"Processes are forks of this one: {why}."]


def _why_not_fresh(
    references: Sequence[FunctionRef], inputs: Sequence[Case], options: BenchmarkOptions, check: Check
) -> str | None:
    for reference in references:
        if reference.function is not None and not _is_importable(reference):
            return f"{reference.qualified_name} can't be imported by name"
    for what, hook in (("check", check.function), ("setup", options.setup), ("teardown", options.teardown)):
        if callable(hook) and not _is_importable(function_ref(hook)):
            return f"the {what} can't be imported by name"
    try:
        pickle.dumps((inputs, check, options.setup, options.teardown))
    except Exception as error:  # noqa: BLE001  # whatever the classes of inputs raise
        return f"the inputs can't be sent to another process ({type(error).__name__}: {error})"
    return None


def _is_importable(reference: FunctionRef) -> bool:
    """Return whether a fresh interpreter finds this very function under its name."""
    name, module = reference.module, sys.modules.get(reference.module)
    if name == SCRIPT or module is None or "<" in reference.qualified_name:
        return False
    found: Any = module
    for part in reference.qualified_name.split("."):
        found = getattr(found, part, None)
    if unrecorded(found) is not reference.function:
        return False
    with contextlib.suppress(ImportError, ValueError, AttributeError):
        spec = importlib.util.find_spec(name)
        where = getattr(module, "__file__", None)
        return (
            spec is not None and (spec.origin == where or spec.origin == "built-in" or where is None) and _on_path(name)
        )
    return False


def _on_path(name: str) -> bool:
    """Return whether a module is found by the path, and not only because it was loaded here in another way."""
    from importlib.machinery import BuiltinImporter, PathFinder

    path: Any = None
    for part in _parents(name):
        spec = BuiltinImporter.find_spec(part) or PathFinder.find_spec(part, path) or _by_finders(part, path)
        if spec is None:
            return False
        path = spec.submodule_search_locations
    return True


def _by_finders(name: str, path: Any) -> Any:
    """Ask finders that editable installations put there: a fresh interpreter has them, too."""
    for finder in sys.meta_path:
        if getattr(finder, "__module__", "").startswith("__editable__"):
            spec = finder.find_spec(name, path)
            if spec is not None:
                return spec
    return None


def _parents(name: str) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[: number + 1]) for number in range(len(parts)))
