"""The five layers of work: what a recorded call is, from the whole to the smallest part."""

from __future__ import annotations

from typing import Final, Literal, get_args

from otel_debugstore.errors import ConfigurationError

Layer = Literal["workflow", "step", "node", "tool", "function"]

LAYERS: Final[tuple[Layer, ...]] = get_args(Layer)


def check_layer(layer: object) -> Layer:
    """Return `layer` if it is one.

    Raises:
        ConfigurationError: It is none.
    """
    for known in LAYERS:
        if layer == known:
            return known
    raise ConfigurationError(f"{layer!r} is no layer: there are {', '.join(LAYERS)}.")
