"""`RecordingSettings`: how calls are recorded, from the environment and `[tool.otel-debugstore]` of pyproject.toml.

The environment comes first. A value that can't be used costs one log line, and the default is taken: the
program that is observed did not ask to fail.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar, get_args

from otel_debugstore.config import parse_bytes
from otel_debugstore.layers import LAYERS
from otel_debugstore.log import warn_once

Capture = Literal["full", "digest", "none"]
Child = Literal["full", "light"]

_PREFIX: Final = "OTEL_DEBUGSTORE_"
_MAX_PYPROJECT_BYTES: Final = 1 << 20
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


class RecordingSettings(NamedTuple):
    """How calls are recorded. The field `x_y` is read from `OTEL_DEBUGSTORE_X_Y`, and from `x-y` in pyproject.toml."""

    capture: Rules[Capture] = Rules("full")
    overhead_budget: Rules[float | None] = Rules(0.01)
    """Which share of the time recording may take; None records everything."""
    targets: tuple[str, ...] = ()
    """`module:qualified.name=layer`, with globs, and what is declared of them; see `instrumentors.targets`."""
    child: Child = "full"
    hooks: Mapping[str, tuple[str, ...]] = {}
    """By hook (`registry`, `node_runner`, ...) the names that its module may have."""
    thread_pools: bool = False
    """Whether context is carried into `ThreadPoolExecutor`."""
    payload_bytes: int = 64 << 10
    """Caps of one payload, as `payload.Limits` has them: the size of its content;"""
    payload_items: int = 4096
    """the items in all of its containers together;"""
    payload_depth: int = 20
    """and how many containers may be in one another."""
    mask_keys: tuple[str, ...] = ()
    mask_patterns: tuple[str, ...] = ()
    mask_emails: bool = False
    layers: Mapping[str, str] = {}
    """`attribute=value` -> layer, for spans of others."""
    export_payloads: bool = False
    """Whether other exporters get the content of payloads, as attributes."""
    memory_reset: bool = False
    """Whether the kernel's memory mark may be reset for exact peaks; it lowers the program's own `ru_maxrss`."""

    @classmethod
    def read(cls, environ: Mapping[str, str] = os.environ, pyproject: Path | None = None) -> RecordingSettings:
        """Return what the environment and a pyproject.toml say.

        Args:
            environ: The variables.
            pyproject: The file; by default that of the working directory, if there is one.
        """
        table = _table(pyproject or Path("pyproject.toml"))
        values: dict[str, Any] = {}
        for name, parse in _PARSERS.items():
            variable, key = _PREFIX + name.upper(), name.replace("_", "-")
            for source, value in ((key, table.get(key)), (variable, environ.get(variable, "").strip() or None)):
                if value is None:
                    continue
                try:
                    values[name] = parse(value)
                except (ValueError, TypeError, AttributeError) as error:
                    warn_once(f"setting {source}", f"{source} can't be {value!r}: {error} The default is used.")
        return cls(**values)


@functools.cache
def recording_settings() -> RecordingSettings:
    """Return the settings of this process, read when they are first asked for."""
    return RecordingSettings.read()


def _table(path: Path) -> Mapping[str, Any]:
    try:
        data = path.read_bytes() if path.stat().st_size <= _MAX_PYPROJECT_BYTES else b""
        if b"otel-debugstore" not in data:
            return {}
        import tomllib

        found = tomllib.loads(data.decode()).get("tool", {}).get("otel-debugstore", {})
    except (OSError, ValueError, AttributeError):  # no file, or one that is somebody else's concern
        return {}
    return found if isinstance(found, dict) else {}


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
    return {hook: _list(names.replace("|", ",") if isinstance(names, str) else names) for hook, names in pairs.items()}


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
    share = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    if not 0 < share <= 1:
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


_PARSERS: Final[dict[str, Callable[[Any], Any]]] = {
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
    "mask_patterns": lambda value: (value,) if isinstance(value, str) else _list(value),
    "mask_emails": _boolean,
    "layers": _layers,
    "export_payloads": _boolean,
    "memory_reset": _boolean,
}
