"""`WATCHER`: says when modules have been imported, and which are there already.

It stands first on `sys.meta_path` while somebody watches. For a module that nobody watches it costs one test of its
name; for others it finds the spec as Python would, and has the spec's loader say when the module was executed.
The module sees its own loader, as ever. Reloaded modules are said again. It imports nothing that Python has not
imported when it starts: a light child uses it too.

Threads: any. An error of a watcher never reaches the import.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class Watch:
    """Somebody's interest in modules."""

    def __init__(
        self,
        is_wanted: Callable[[str], bool],
        found: Callable[[ModuleType], object],
        names: Iterable[str] | None = None,
    ) -> None:
        """Make one.

        Args:
            is_wanted: Whether a module of this name is.
            found: Called with each that was imported, in the thread that imported it.
            names: What modules that are wanted are called, whatever their packages; None if that is not known. Then
                `is_wanted` is asked at every import, which takes longer.
        """
        self._is_wanted = is_wanted
        self.found = found
        self.names = None if names is None else frozenset(name.rpartition(".")[2] for name in names)

    def is_wanted(self, module: str) -> bool:
        """Return whether a module of this name is; whatever goes wrong stays here."""
        try:
            return (self.names is None or module.rpartition(".")[2] in self.names) and self._is_wanted(module)
        except Exception as error:  # noqa: BLE001  # it would make the program's import fail
            _say(module, error)
            return False

    def tell(self, module: ModuleType) -> None:
        """Call back; whatever goes wrong stays here."""
        try:
            self.found(module)
        except Exception as error:  # noqa: BLE001  # it would make the program's import fail
            _say(module.__name__, error)


def _say(module: str, error: Exception) -> None:
    from otel_debugstore.log import warn_once

    warn_once(f"patch {module}", f"Module {module} can't be instrumented: {error!r}.")


class ImportWatcher:
    """A finder of `sys.meta_path`; see the module's first lines."""

    def __init__(self) -> None:
        self._watch_all(())
        self.executing: set[str] = set()
        """Watched modules that are imported right now."""

    def add(self, watch: Watch) -> None:
        """Watch from now on; modules that are imported already are told at once."""
        self._watch_all((*self._watches, watch))
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        there, names = list(sys.modules.items()), watch.names
        if names is not None:  # first what a thousand modules are not called: each start does this for every hook
            there = [item for item in there if type(item[0]) is not str or item[0].rpartition(".")[2] in names]
        for name, module in there:
            if module is not None and name not in self.executing and watch.is_wanted(name):
                watch.tell(module)

    def remove(self, watch: Watch) -> None:
        """Watch no more."""
        self._watch_all(tuple(other for other in self._watches if other is not watch))
        if not self._watches and self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders have of a watched module, None for others."""
        if self._is_any or name.rpartition(".")[2] in self._names:
            for watch in self._watches:
                if watch.is_wanted(name):
                    return self._watched(name, path, target)
        return None

    def loaded(self, name: str, module: ModuleType) -> None:
        """Tell those who watch it that a module was executed."""
        module = sys.modules.get(name, module)
        for watch in self._watches:
            if watch.is_wanted(name):
                watch.tell(module)

    def _watch_all(self, watches: tuple[Watch, ...]) -> None:
        self._watches = watches
        self._is_any = any(watch.names is None for watch in watches)
        self._names = frozenset().union(*[watch.names for watch in watches if watch.names is not None])

    def _watched(self, name: str, path: Sequence[str] | None, target: ModuleType | None) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            find_spec = getattr(finder, "find_spec", None)
            if find_spec is None or finder is self:
                continue
            spec: ModuleSpec | None = find_spec(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module") and not isinstance(spec.loader, _TellingLoader):
                    spec.loader = _TellingLoader(spec.loader, self)  # type: ignore[assignment]
                return spec
        return None


class _TellingLoader:
    """A module's loader, that says when it has executed the module."""

    def __init__(self, loader: Any, watcher: ImportWatcher) -> None:
        self._loader = loader
        self._watcher = watcher

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Do what the loader does."""
        module: ModuleType | None = self._loader.create_module(spec)
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Do what the loader does, under its own name, and tell."""
        spec = module.__spec__
        for holder, name in ((spec, "loader"), (module, "__loader__")):
            if getattr(holder, name, None) is self:
                setattr(holder, name, self._loader)
        name, executing = module.__name__, self._watcher.executing
        executing.add(name)
        try:
            self._loader.exec_module(module)
        finally:
            executing.discard(name)
        self._watcher.loaded(name, module)


WATCHER = ImportWatcher()
