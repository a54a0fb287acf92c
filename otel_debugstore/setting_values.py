"""How the values of settings are read: from a text of the environment, or from what stands in pyproject.toml.

Each function raises a ValueError (or a TypeError, or an AttributeError) that says what the value has to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar, get_args

from otel_debugstore.config import parse_bytes
from otel_debugstore.layers import LAYERS

Capture = Literal["full", "digest", "none"]
Child = Literal["full", "light"]

HOOK_NAMES: Final = ("registry", "node_runner", "node_runtime", "tools_manager", "workflow_tracker", "auto_evolver")
"""The hooks of `instrumentors.hooks`, which is not imported to read settings."""

_T = TypeVar("_T")


class Rules(NamedTuple, Generic[_T]):
    """A value for every component: `default`, unless a layer or, before that, a glob of components has its own."""

    default: _T
    by_layer: Mapping[str, _T] = {}  # nobody changes it
    by_component: tuple[tuple[str, _T], ...] = ()
    """Globs and their values; the last one that matches counts."""

    def value(self, layer: str, component: str) -> _T:
        """Return the value for a component of a layer."""
        for glob, value in reversed(self.by_component):
            if fnmatchcase(component, glob):
                return value
        return self.by_layer.get(layer, self.default)

    def is_set_for(self, component: str) -> bool:
        """Return whether the component has a value of its own."""
        return any(fnmatchcase(component, glob) for glob, _ in self.by_component)


def _list(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple)):
        raise ValueError("it has to be a list.")
    return tuple(str(part).strip() for part in parts if str(part).strip())


def _pairs(value: Any) -> dict[str, str]:
    """`a=b,c=d`, or a table."""
    if isinstance(value, dict):
        return {str(key): str(item) for key, item in value.items()}
    pairs = [part.rpartition("=") for part in _list(value)]
    if not all(separator and key.strip() and item.strip() for key, separator, item in pairs):
        raise ValueError("it has to be NAME=VALUE, NAME=VALUE, ...")
    return {key.strip(): item.strip() for key, _, item in pairs}


def _targets(value: Any) -> tuple[str, ...]:
    """Read `NAME=LAYER, ...`, or a table of `NAME = "LAYER"` and of `NAME = {layer = ..., pure = true}`."""
    if not isinstance(value, dict):
        return _list(value)
    return tuple(f"{key}={_target(item) if isinstance(item, dict) else item}" for key, item in value.items())


def _target(table: dict[str, Any]) -> str:
    said = {name: _boolean(value) for name, value in table.items() if name in ("pure", "replayable")}
    if other := set(table) - set(said) - {"layer"}:
        raise ValueError(f"it has no {min(other)}; it may have layer, pure and replayable.")
    words = [name if value else f"not-{name}" for name, value in said.items() if value or name == "replayable"]
    return " ".join([str(table.get("layer", "function")), *words])


def _hooks(value: Any) -> dict[str, tuple[str, ...]]:
    pairs = value if isinstance(value, dict) else _pairs(value)
    return {
        _one_of(HOOK_NAMES, hook): _list(names.replace("|", ",") if isinstance(names, str) else names)
        for hook, names in pairs.items()
    }


def _patterns(value: Any) -> tuple[str, ...]:
    patterns = (value,) if isinstance(value, str) else _list(value)
    for pattern in patterns:
        try:
            re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            raise ValueError(f"{pattern!r} is no regular expression: {error}.") from error
    return patterns


def _boolean(value: Any) -> bool:
    word = str(value).strip().lower()
    if word in ("1", "true", "yes", "on"):
        return True
    if word in ("0", "false", "no", "off"):
        return False
    raise ValueError("it has to be true or false.")


def _child(value: Any) -> str:
    return _one_of(get_args(Child), value)


def _capture(value: Any) -> str:
    return _one_of(get_args(Capture), value)


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        try:
            number = parse_bytes(str(value))
        except ValueError:
            number = -1
        if not least <= number <= most:
            raise ValueError(f"it has to be a whole number from {least} to {most}.")
        return number

    return read


def _budget(value: Any) -> float | None:
    word = str(value).strip().lower()
    if word == "off":
        return None
    is_percent = word.endswith("%")
    share = float(word.removesuffix("%")) / (100 if is_percent else 1)
    if not 0 < share <= 1 or (share == 1 and not is_percent):  # who writes 1 hardly means all of the time
        raise ValueError("it has to be a share such as 1% or 0.01, or off.")
    return share


def _layers(value: Any) -> dict[str, str]:
    """`attribute=value:layer`, or a table of `"attribute=value" = "layer"`."""
    pairs = value.items() if isinstance(value, dict) else [part.rpartition(":")[::2] for part in _list(value)]
    return {str(condition): _one_of(LAYERS, layer) for condition, layer in pairs}


def _one_of(choices: tuple[str, ...], value: Any) -> str:
    word = str(value).strip().lower()
    if word not in choices:
        raise ValueError(f"it has to be one of {', '.join(choices)}.")
    return word


def _rules(parse: Callable[[Any], _T], default: _T) -> Callable[[Any], Rules[_T]]:
    """Read `VALUE, LAYER=VALUE, GLOB=VALUE, ...`, or a table with these names and `default`."""

    def read(value: Any) -> Rules[_T]:
        items = value.items() if isinstance(value, dict) else [part.rpartition("=")[::2] for part in _list(value)]
        plain, by_component = default, list[tuple[str, _T]]()
        by_layer: dict[str, _T] = {}
        for selector, text in items:
            name = str(selector).strip()
            if name in ("", "default"):
                plain = parse(text)
            elif name in LAYERS:
                by_layer[name] = parse(text)
            else:
                by_component.append((name, parse(text)))
        return Rules(plain, by_layer, tuple(by_component))

    return read


PARSERS: Final[dict[str, Callable[[Any], Any]]] = {
    "capture": _rules(_capture, "full"),
    "overhead_budget": _rules(_budget, 0.01),
    "targets": _targets,
    "child": _child,
    "hooks": _hooks,
    "thread_pools": _boolean,
    "payload_bytes": _whole(256, 4 << 20),
    "payload_items": _whole(1, 1_000_000),
    "payload_depth": _whole(1, 60),
    "mask_keys": _list,
    "mask_patterns": _patterns,
    "mask_emails": _boolean,
    "layers": _layers,
    "export_payloads": _boolean,
    "memory_reset": _boolean,
}
