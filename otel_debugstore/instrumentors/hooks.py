"""The instrumentors of a code evolver's modules, by the names that `opentelemetry-instrument` knows.

A hook is a module of a certain name, below whatever package, that has a certain class: `registry`, `src.registry`
and `pkg.src.registry` with a class `Registry`. Both names and what is recorded of each are in the module that
`_recorder` names, which is imported when such a module is. So a program without them pays for a test of the name
of every module that it imports, and for nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

from otel_debugstore.instrumentors.base import Instrumentor
from otel_debugstore.instrumentors.module_names import WILDCARDS, is_called, is_matched
from otel_debugstore.instrumentors.on_import import WATCHER, Watch


class HookInstrumentor(Instrumentor):
    """Patches one kind of module when it is imported, or at once."""

    hook: ClassVar[str]
    """What the module is called, and the key of `RecordingSettings.hooks` that names it otherwise."""

    def _instrument(self, **kwargs: Any) -> None:
        """Watch for the module.

        Args:
            kwargs: `module_names`, instead of those of the settings.
        """
        names = tuple(kwargs.get("module_names") or hook_names(self.hook))
        self._patches: Any = None
        globs = tuple(name for name in names if not WILDCARDS.isdisjoint(name))
        self._watch = Watch(
            lambda module: is_called(module, names) or is_matched(module, globs), self._found, None if globs else names
        )
        WATCHER.add(self._watch)

    def _uninstrument(self, **kwargs: Any) -> None:
        WATCHER.remove(self._watch)
        if self._patches is not None:
            self._patches.undo()

    def _found(self, module: ModuleType) -> None:
        recorder = import_module(f"otel_debugstore.instrumentors.{self.hook}")
        if recorder.is_hook(module):
            if self._patches is None:
                from otel_debugstore.instrumentors.patching import Patches

                self._patches = Patches()
            recorder.patch(module, self._patches)


def hook_names(hook: str) -> Iterable[str]:
    """Return the names that the module of a hook may have."""
    from otel_debugstore.recording_settings import recording_settings

    return recording_settings().hooks.get(hook) or (hook,)


class RegistryInstrumentor(HookInstrumentor):
    """`Registry`: its nodes, metrics, evaluations and logs."""

    hook = "registry"


class NodeRunnerInstrumentor(HookInstrumentor):
    """`NodeRunner`: nodes, and what their processes record below them."""

    hook = "node_runner"


class NodeRuntimeInstrumentor(HookInstrumentor):
    """`NodeRuntime`: calls of tools and models, also those in its thread pool."""

    hook = "node_runtime"


class ToolsManagerInstrumentor(HookInstrumentor):
    """`ToolsManager`: invocations of tools."""

    hook = "tools_manager"


class WorkflowTrackerInstrumentor(HookInstrumentor):
    """`WorkflowTracker`: workflows and their steps."""

    hook = "workflow_tracker"


class AutoEvolverInstrumentor(HookInstrumentor):
    """`AutoEvolver`: evolutions of nodes, and what it asks and notes."""

    hook = "auto_evolver"


HOOKS: tuple[type[HookInstrumentor], ...] = (
    RegistryInstrumentor,
    NodeRunnerInstrumentor,
    NodeRuntimeInstrumentor,
    ToolsManagerInstrumentor,
    WorkflowTrackerInstrumentor,
    AutoEvolverInstrumentor,
)
