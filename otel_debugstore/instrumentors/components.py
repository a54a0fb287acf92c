"""The components of the host's hooks, each made once: their names come with the calls.

Capacity: 4,096 names. A program that names its workflows by the hour has those beyond counted as "(others)".
Threads: any; two that meet the same new name may both make it, and one is kept.
"""

from __future__ import annotations

from typing import Any, Final

from otel_debugstore.calls.component import Component
from otel_debugstore.layers import Layer

MAX_COMPONENTS: Final = 4_096
OTHERS: Final = "(others)"

_components: dict[tuple[Layer, str, int], tuple[Any, Component]] = {}
"""With the function, so that its identity stays its own."""


def component(layer: Layer, name: str, function: Any = None) -> Component:
    """Return the component of that layer and name whose code is the function's."""
    key = (layer, name, id(function))
    found = _components.get(key)
    if found is None:
        if len(_components) >= MAX_COMPONENTS and name != OTHERS:
            return component(layer, OTHERS)
        found = _components.setdefault(key, (function, Component(layer, name, function)))
    return found[1]
