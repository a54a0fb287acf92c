"""`TargetInstrumentor`: functions recorded because a setting names them, not because the program says so.

`OTEL_DEBUGSTORE_TARGETS="pkg.mod:Class.method=tool, pkg.tools.*:*=tool"`: wrapped when their module is imported, or at
once. Names that a module has imported from elsewhere are not its own, and no match. What is not found is said in
one line: when the module was imported and has no such function, or, by the process that began the session, at exit.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from types import FunctionType, ModuleType
from typing import Any

from otel_debugstore.errors import ConfigurationError
from otel_debugstore.instrumentors.base import Instrumentor
from otel_debugstore.instrumentors.module_names import WILDCARDS
from otel_debugstore.instrumentors.on_import import WATCHER, Watch
from otel_debugstore.log import warn_once


class TargetInstrumentor(Instrumentor):
    """Wraps the functions that targets name."""

    def _instrument(self, **kwargs: Any) -> None:
        """Wrap, and watch for modules to come.

        Args:
            kwargs: `targets`, instead of those of the settings.

        Raises:
            ConfigurationError: One of `targets` can't be parsed. (One of the settings costs a line, and is left out.)
        """
        given = kwargs.get("targets")
        self._targets: Sequence[Any] = _parsed(given) if given is not None else _of_settings()
        if self._targets:
            from otel_debugstore.instrumentors.patching import Patches

            self._patches: Any = Patches()
            self._missing = {target.text for target in self._targets}
            modules = [target.module for target in self._targets]
            is_plain = all(WILDCARDS.isdisjoint(module) for module in modules)
            self._watch = Watch(self._is_wanted, self._found, modules if is_plain else None)
            WATCHER.add(self._watch)
            atexit.register(self._say_what_is_missing)

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._targets:
            WATCHER.remove(self._watch)
            atexit.unregister(self._say_what_is_missing)
            self._patches.undo()

    def _is_wanted(self, module: str) -> bool:
        return any(target.is_in(module) for target in self._targets)

    def _found(self, module: ModuleType) -> None:
        for target in self._targets:
            if not target.is_in(module.__name__):
                continue
            reasons: list[str] = []
            count = sum(self._wrap(module, owner, name, target, reasons) for owner, name in _functions(module, target))
            if count:
                self._missing.discard(target.text)
            elif not target.is_glob:
                self._missing.discard(target.text)
                why = "".join(reasons) or _why_not(module, target)
                warn_once(f"target {target.text}", f"Target {target.text} was not found: {why}.")

    def _wrap(self, module: ModuleType, owner: Any, name: str, target: Any, reasons: list[str]) -> bool:
        """Wrap one function, if it is one of the module's own; what can't be looked at, as some proxies, is none."""
        try:
            return self._wrap_own(module, owner, name, target, reasons)
        except Exception as error:  # noqa: BLE001  # the module's others are to be wrapped
            reasons.append(f"{name} can't be replaced ({error!r})")
            return False

    def _wrap_own(self, module: ModuleType, owner: Any, name: str, target: Any, reasons: list[str]) -> bool:
        found = vars(owner)[name]
        if _is_class(found):
            reasons.append(f"{name} is a class; name one of its methods")
            return False
        function = getattr(found, "__func__", found)
        home = getattr(function, "__module__", None)
        if home not in (None, module.__name__):
            if owner is module:
                reasons.append(f"{name} is of {home}; name it there")
            return False
        is_function = isinstance(found, FunctionType | staticmethod | classmethod)
        if home is not None and (is_function or (callable(found) and _is_plain(found, target))):
            self._record(owner, name, found, target)
            return True
        if not is_function:
            reasons.append(f"{name} is of the type {type(found).__name__}, and no function")
        return False

    def _record(self, owner: Any, name: str, found: Any, target: Any) -> None:
        """Replace a function by one that is recorded, unless it is recorded already."""
        from otel_debugstore.calls.decorators import instrument
        from otel_debugstore.calls.recorded import RecordedFunction
        from otel_debugstore.instrumentors.patching import OurWrapper, TargetFunction
        from otel_debugstore.instrumentors.recorders import is_called_by_the_program, is_of_python

        if not isinstance(found, (RecordedFunction, OurWrapper)):
            recorded: Any = instrument(target.layer, replayable=target.replayable, pure=target.pure)(found)
            is_on: Callable[[], bool] = self._patches.is_on
            if is_of_python(recorded.__module__):
                is_on = partial(is_called_by_the_program, is_on)
            self._patches.replace(owner, name, TargetFunction(recorded, is_on))

    def _say_what_is_missing(self) -> None:
        try:
            from otel_debugstore.active_session import is_first_process

            is_said = self._missing and is_first_process()  # what is missing here may be there in a child
        except Exception:  # noqa: BLE001  # the program has taken our modules away; it would be printed
            return
        if is_said:
            names = ", ".join(sorted(self._missing))
            warn_once(
                "targets",
                f"Targets not found in this process: {names}. It imported no such module, or none with it; what its "
                "children found it does not know.",
            )


def _functions(module: ModuleType, target: Any) -> Iterator[tuple[Any, str]]:
    """Yield whatever a target's path may stand for, as what holds it and its name there."""
    from otel_debugstore.instrumentors.target_names import is_named

    owners: list[Any] = [module]
    for glob in target.path[:-1]:
        owners = [
            found
            for owner in owners
            for name, found in list(vars(owner).items())
            if _is_class(found) and is_named(name, glob) and found.__module__ == module.__name__
        ]
    for owner in owners:
        for name in list(vars(owner)):
            if is_named(name, target.path[-1]):
                yield owner, name


def _is_class(found: Any) -> bool:
    """Return whether it is a class, without a word to it: a proxy may raise when it is asked for its class."""
    return issubclass(type(found), type)


def _why_not(module: ModuleType, target: Any) -> str:
    """Return why nothing of a module is what a target without wildcards names."""
    path = ".".join(target.path)
    if module.__name__ == "__main__":
        return "functions of the script itself can't be targets; put it into a module that the script imports"
    owner: Any = module
    for name in target.path[:-1]:
        owner = vars(owner).get(name)
        if not isinstance(owner, type):
            break
    else:
        for base in type.mro(owner)[1:] if isinstance(owner, type) else ():
            if target.path[-1] in vars(base):
                return f"{path} is inherited; name it as {base.__module__}:{base.__qualname__}.{target.path[-1]}"
    return f"{module.__name__} has no {path} of its own"


def _is_plain(found: Any, target: Any) -> bool:
    """Return whether a callable that is no Python function is meant: by its very name, or as a wrapper of one."""
    return not target.is_glob or isinstance(getattr(found, "__wrapped__", None), FunctionType)


def _parsed(texts: Iterable[str]) -> list[Any]:
    from otel_debugstore.instrumentors.target_names import parse_target

    return [parse_target(text) for text in texts]


def _of_settings() -> list[Any]:
    from otel_debugstore.recording_settings import recording_settings

    found = []
    for text in recording_settings().targets:
        try:
            found += _parsed([text])
        except ConfigurationError as error:
            warn_once(f"target {text}", f"{error} It is left out.")
    return found
