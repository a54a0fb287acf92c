"""`RecordingSettings`: how calls are recorded, from the environment and `[tool.otel-debugstore]` of pyproject.toml.

The environment comes first. What can't be used costs one log line, and the default is taken: the program that is
observed did not ask to fail. Where it may have said what must not be kept, no arguments and results are kept.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from otel_debugstore import environment_variables
from otel_debugstore.log import warn_once
from otel_debugstore.setting_values import PARSERS, Capture, Child, Rules
from otel_debugstore.settings_file import settings_files, settings_table

__all__ = ["Capture", "RecordingSettings", "Rules", "recording_settings"]

_PREFIX: Final = "OTEL_DEBUGSTORE_"
_OF_OTHERS: Final = frozenset({"thresholds"})
"""What the auditor reads of the table."""
_PRIVATE: Final = frozenset({"capture", "mask_keys", "mask_patterns", "mask_emails"})
_STRICTEST: Final = ("none", "digest", "full")
_OF_KUBERNETES: Final = _PREFIX + r"(?:SERVICE_HOST|(?:SERVICE_)?PORT(?:_.*)?)"
"""Set in every container beside a Service that is named otel-debugstore."""


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
    def read(cls, environ: Mapping[str, str] = os.environ, *pyprojects: Path) -> RecordingSettings:
        """Return what the environment and files say.

        Args:
            environ: The variables.
            pyprojects: The files, a later one before an earlier one; there need not be any. What any of them wants
                masked is.
        """
        tables = [settings_table(path) for path in pyprojects]
        is_unclear = _may_be_private(environ, {key: None for table in tables for key in table or ()})
        is_clear = None not in tables and not is_unclear
        values: dict[str, Any] = {}
        for name, parse in PARSERS.items():
            source = _PREFIX + name.upper()
            said: list[Any] = [text] if (text := environ.get(source, "").strip()) else []
            if not said:
                source = name.replace("_", "-")
                said = [table[source] for table in tables if table and source in table]
            for value in said if name in _PRIVATE else said[-1:]:
                try:
                    parsed = parse(value)
                    values[name] = _joined(name, values[name], parsed) if name in values else parsed
                except (ValueError, TypeError, AttributeError) as error:
                    is_clear = is_clear and name not in _PRIVATE
                    so = "No arguments and results are kept." if name in _PRIVATE else "The default is used."
                    warn_once(f"setting {source}", f"{source} can't be {value!r}: {error} {so}")
        if not is_clear:
            values["capture"] = Rules("none")
        return cls(**values)


@functools.cache
def recording_settings() -> RecordingSettings:
    """Return the settings of this process, read when they are first asked for."""
    return RecordingSettings.read(os.environ, *settings_files())


def _joined(name: str, earlier: Any, later: Any) -> Any:
    """Return what two files together say of a private setting: what either wants masked is."""
    if name == "mask_emails":
        return earlier or later
    if name != "capture":
        return tuple(dict.fromkeys((*earlier, *later)))
    is_plain = earlier == Rules(earlier.default) and later == Rules(later.default)
    return min(earlier, later, key=lambda rules: _STRICTEST.index(rules.default)) if is_plain else later


def _may_be_private(environ: Mapping[str, str], keys: Iterable[str]) -> bool:
    """Return whether what is no setting, such as a misspelt one, may say what must not be kept; a line says of each."""
    variables, known = vars(environment_variables), [name.replace("_", "-") for name in PARSERS]
    unknown = {
        name: _is_like_private(name.removeprefix(_PREFIX).upper())
        for name in environ
        if name.startswith(_PREFIX) and name not in variables and not re.fullmatch(_OF_KUBERNETES, name)
    }
    unknown |= {key: True for key in keys if key not in known and key not in _OF_OTHERS}
    for name, is_private in unknown.items():
        so = " It may say what must not be kept, so no arguments and results are." if is_private else ""
        warn_once(f"setting {name}", f"There is no setting {name}; there are {', '.join(known)}.{so}")
    return any(unknown.values())


def _is_like_private(name: str) -> bool:
    from difflib import get_close_matches

    is_named = "CAPTURE" in name or "MASK" in name
    return is_named or bool(get_close_matches(name, [private.upper() for private in _PRIVATE]))
