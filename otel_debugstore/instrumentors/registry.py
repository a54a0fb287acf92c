"""What is recorded of a `Registry`: each call that reads or writes it is a function."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Final

from otel_debugstore.instrumentors.observed import Arguments, What, recording
from otel_debugstore.instrumentors.patching import Patches

METHODS: Final = (
    "create_node",
    "get_node",
    "list_nodes",
    "save_metrics",
    "get_metrics",
    "save_evaluation",
    "save_run_log",
    "update_index",
)


def is_hook(module: ModuleType) -> bool:
    """Return whether a module called `registry` is one of nodes; many programs have one of something else."""
    kind = getattr(module, "Registry", None)
    return isinstance(kind, type) and sum(hasattr(kind, method) for method in METHODS) > 1


def patch(module: ModuleType, patches: Patches) -> None:
    """Record what the registry is asked to do."""
    for method in METHODS:
        patches.wrap(module.Registry, method, recording(What("function", _named(method), has_code=True)))


def _named(method: str) -> Callable[[Arguments], str]:
    return lambda arguments: f"Registry.{method}"
