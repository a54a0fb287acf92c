"""Thresholds of `[tool.otel-debugstore.thresholds]` in pyproject.toml.

    [tool.otel-debugstore.thresholds.layer.tool]
    max-p95-ms = 500
    [tool.otel-debugstore.thresholds.component."shop.*"]
    max-duration-ms = "auto"
    max-memory-mb = false           # no limit
    max-sums = { "gen_ai.usage.output_tokens" = 2000 }
    [tool.otel-debugstore.thresholds.attribute."http.route"."/api/*"]
    max-p99-ms = 250

Here a value that can't be used is an error: an audit that overlooks a limit is worth less than none.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from otel_debugstore.errors import ConfigurationError
from otel_debugstore.layers import LAYERS
from otel_debugstore_analysis.auditor._threshold import DEFAULT_THRESHOLDS, PerformanceThreshold, Thresholds

PYPROJECT: Final = "pyproject.toml"
_SECTION: Final = "tool.otel-debugstore.thresholds"
_KINDS: Final = ("layer", "component", "attribute")
_SUMS: Final = "max_sums"
_NAMES: Final = tuple(one.name for one in fields(PerformanceThreshold))


def read_thresholds(path: Path | None = None) -> Thresholds:
    """Return the default thresholds with what a pyproject.toml says.

    Args:
        path: The file; by default that of the working directory, if there is one.

    Raises:
        ConfigurationError: A file that was named can't be read, or it says something that is no threshold.
    """
    return parse_thresholds(_section(path), str(path or PYPROJECT))


def parse_thresholds(section: Mapping[str, Any], source: str = PYPROJECT) -> Thresholds:
    """Return the default thresholds with what the section says; its `defaults = false` leaves these out.

    Raises:
        ConfigurationError: It says something that is no threshold.
    """
    try:
        has_defaults = section.get("defaults", True)
        if not isinstance(has_defaults, bool):
            raise ConfigurationError("defaults has to be true or false.")
        unknown = set(section) - {*_KINDS, "defaults"}
        if unknown:
            raise ConfigurationError(f"there is no {min(unknown)!r}; take {', '.join(_KINDS)} or defaults.")
        return Thresholds(
            _by_layer(_table(section, "layer"), has_defaults),
            tuple((glob, _changes(one, glob)) for glob, one in _table(section, "component").items()),
            tuple(_by_attribute(_table(section, "attribute"))),
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"[{_SECTION}] of {source} can't be used: {error}") from error


def _by_layer(table: Mapping[str, Any], has_defaults: bool) -> Mapping[str, PerformanceThreshold]:
    found = dict(DEFAULT_THRESHOLDS) if has_defaults else {}
    for layer, values in table.items():
        if layer not in LAYERS:
            raise ConfigurationError(f"{layer!r} is no layer: there are {', '.join(LAYERS)}.")
        found[layer] = found.get(layer, PerformanceThreshold()).with_values(_changes(values, layer))
    return found


def _by_attribute(table: Mapping[str, Any]) -> Iterator[tuple[str, str, PerformanceThreshold]]:
    for key in table:
        for glob, values in _table(table, key).items():
            yield key, glob, PerformanceThreshold().with_values(_changes(values, f"{key} {glob}"))


def _changes(values: Any, of: str) -> dict[str, Any]:
    """Return values by the names that thresholds have; false is None, which is no limit."""
    if not isinstance(values, dict):
        raise ConfigurationError(f"{of!r} is {values!r}, and not a table of limits.")
    found = {}
    for key, value in values.items():
        name = key.replace("-", "_")
        if name not in _NAMES:
            raise ConfigurationError(
                f"there is no limit {key!r} (of {of!r}); take {', '.join(name.replace('_', '-') for name in _NAMES)}."
            )
        found[name] = _limits(value, key) if name == _SUMS else _limit(value)
    PerformanceThreshold().with_values(found)  # refuses what is none
    return found


def _limits(values: Any, key: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigurationError(f"{key} is {values!r}; it takes limits by attribute.")
    return {str(attribute): _limit(value) for attribute, value in values.items()}


def _limit(value: Any) -> Any:
    return None if value is False else value


def _table(table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = table.get(key, {})
    if not isinstance(found, dict):
        raise ConfigurationError(f"{key!r} is {found!r}, and not a table.")
    return found


def _section(path: Path | None) -> Mapping[str, Any]:
    file = path or Path(PYPROJECT)
    try:
        table: Any = tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        if path is None:
            return {}
        raise ConfigurationError(f"There is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{file} can't be read: {error}") from error
    for name in _SECTION.split("."):
        table = table.get(name, {})
        if not isinstance(table, dict):
            raise ConfigurationError(f"[{_SECTION}] of {file} is no table.")
    section: Mapping[str, Any] = table
    return section
