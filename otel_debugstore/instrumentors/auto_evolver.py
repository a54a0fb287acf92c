"""What is recorded of an `AutoEvolver`: each evolution of a node is a tool, what it asks and notes are functions."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Final

from otel_debugstore.instrumentors.arguments import text
from otel_debugstore.instrumentors.observed import Arguments, What, recording
from otel_debugstore.instrumentors.patching import Patches

EVOLVE: Final = "evolve_node"
FUNCTIONS: Final = ("should_evolve", "record_performance")


def is_hook(module: ModuleType) -> bool:
    """Return whether the class is there."""
    return hasattr(getattr(module, "AutoEvolver", None), EVOLVE)


def patch(module: ModuleType, patches: Patches) -> None:
    """Record evolutions, and what is asked and noted."""
    patches.wrap(module.AutoEvolver, EVOLVE, recording(What("tool", _evolution, has_code=True)))
    for method in FUNCTIONS:
        patches.wrap(module.AutoEvolver, method, recording(What("function", _named(method), has_code=True)))


def _evolution(arguments: Arguments) -> str:
    return f"{EVOLVE}:{text(arguments['node_id'], 'unnamed node')}"


def _named(method: str) -> Callable[[Arguments], str]:
    return lambda arguments: f"AutoEvolver.{method}"
