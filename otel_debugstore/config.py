"""`Settings`: what can be set, from arguments, from the environment, or by default.

A bad argument raises; a bad variable of the environment costs the observed program one log line,
and the default is used.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, Self

from otel_debugstore import environment_variables as variables
from otel_debugstore.errors import ConfigurationError
from otel_debugstore.log import warn_once
from otel_debugstore.session_id import check_session_id

Durability = Literal["sync", "interval"]

_MEASURE: Final = re.compile(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)\s*")
_BYTES: Final = {
    "": 1,
    "b": 1,
    "k": 1000,
    "kb": 1000,
    "kib": 1 << 10,
    "m": 1000**2,
    "mb": 1000**2,
    "mib": 1 << 20,
    "g": 1000**3,
    "gb": 1000**3,
    "gib": 1 << 30,
    "t": 1000**4,
    "tb": 1000**4,
    "tib": 1 << 40,
}
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Settings(NamedTuple):
    """How to record and keep. `None` for an age or a size means without limit."""

    base_path: Path = Path("debug_data")
    session_id: str | None = None
    durability: Durability = "sync"
    schedule_delay_millis: int = 1000
    queue_max_bytes: int = 64 << 20
    segment_spans: int = 122_880
    retention_age_seconds: float | None = None
    retention_size_bytes: int | None = None
    map_size_bytes: int | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ, **overrides: Any) -> Self:
        """Return the settings of `environ`, with `overrides` before them.

        Args:
            environ: The variables; a bad one is logged once and the default taken.
            overrides: Values by field name, as they are or as text; one that is None counts as not given.

        Raises:
            ConfigurationError: An override is no setting, or can't be used.
            InvalidSessionIdError: The session id among the overrides can't be one.
        """
        values = _from_variables(environ)
        for name, value in overrides.items():
            if value is not None:
                values[name] = _parse(name, value, f"Setting {name}")
        return cls(**values)

    @classmethod
    def tolerant(cls, environ: Mapping[str, str] = os.environ, **overrides: Any) -> Self:
        """Return what `from_environment` does; a bad override is logged once and left out."""
        good: dict[str, Any] = {}
        for name, value in overrides.items():
            try:
                cls.from_environment({}, **{name: value})
            except ValueError as error:
                warn_once(f"setting {name}", f"{error} It is ignored.")
            else:
                good[name] = value
        return cls.from_environment(environ, **good)


def parse_bytes(text: str) -> int:
    """Return the number of bytes that `text` says, such as "64MiB", "10 GB" or "1048576".

    Raises:
        ValueError: It says none.
    """
    return int(_measure(text, _BYTES))


def parse_seconds(text: str) -> float:
    """Return the number of seconds that `text` says, such as "30d", "12h" or "90".

    Raises:
        ValueError: It says none.
    """
    return _measure(text, _SECONDS)


def _measure(text: str, units: Mapping[str, int]) -> float:
    found = _MEASURE.fullmatch(text)
    if found is None or found[2].lower() not in units:
        raise ValueError(text)
    number = float(found[1]) * units[found[2].lower()]
    if number == float("inf"):
        raise ValueError(text)
    return number


def _path(value: Any) -> Path:
    if not os.fspath(value) or "\0" in str(value):
        raise ValueError(value)
    return Path(value).expanduser()


def _session(value: Any) -> str:
    return check_session_id(str(value))


def _durability(value: Any) -> Durability:
    word = str(value).strip().lower()
    if word == "sync":
        return "sync"
    if word == "interval":
        return "interval"
    raise ValueError(value)


def _count(value: Any) -> int:
    number = int(value)
    if not 1 <= number <= sys.maxsize or number != float(value):
        raise ValueError(value)
    return number


def _size(value: Any) -> int:
    return _count(parse_bytes(value) if isinstance(value, str) else value)


def _age(value: Any) -> float:
    seconds = parse_seconds(value) if isinstance(value, str) else float(value)
    if not 0 < seconds < float("inf"):
        raise ValueError(value)
    return seconds


class _Setting(NamedTuple):
    """One setting: the variable it is read from, how its value is read, and what it has to be."""

    variable: str | None
    read: Callable[[Any], Any]
    expected: str


_SIZE_EXPECTED: Final = "a size such as 64MiB or 10GB"
_SETTINGS: Final = {
    "base_path": _Setting(variables.OTEL_DEBUGSTORE_PATH, _path, "the path of a directory"),
    "session_id": _Setting(variables.OTEL_DEBUGSTORE_SESSION, _session, "a session id"),
    "durability": _Setting(variables.OTEL_DEBUGSTORE_DURABILITY, _durability, "'sync' or 'interval'"),
    "schedule_delay_millis": _Setting(
        variables.OTEL_DEBUGSTORE_SCHEDULE_DELAY, _count, "whole milliseconds, 1 or more"
    ),
    "queue_max_bytes": _Setting(variables.OTEL_DEBUGSTORE_QUEUE_SIZE, _size, _SIZE_EXPECTED),
    "segment_spans": _Setting(variables.OTEL_DEBUGSTORE_SEGMENT_SPANS, _count, "a whole number, 1 or more"),
    "retention_age_seconds": _Setting(variables.OTEL_DEBUGSTORE_RETENTION_AGE, _age, "a time such as 30d or 12h"),
    "retention_size_bytes": _Setting(variables.OTEL_DEBUGSTORE_RETENTION_SIZE, _size, _SIZE_EXPECTED),
    "map_size_bytes": _Setting(None, _size, _SIZE_EXPECTED),
}


def _from_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, setting in _SETTINGS.items():
        text = environ.get(setting.variable, "") if setting.variable else ""
        if not text.strip():
            continue
        try:
            values[name] = _parse(name, text, str(setting.variable))
        except ValueError as error:
            message = str(error) if str(setting.variable) in str(error) else f"{setting.variable}: {error}"
            warn_once(f"variable {setting.variable}", f"{message} The default is used.")
    return values


def _parse(name: str, value: Any, what: str) -> Any:
    setting = _SETTINGS.get(name)
    if setting is None:
        raise ConfigurationError(f"{what} does not exist; there are {', '.join(sorted(_SETTINGS))}.")
    try:
        return setting.read(value)
    except ConfigurationError:
        raise
    except (ValueError, TypeError, OverflowError, RuntimeError) as error:  # the last: ~nobody has no home
        if name == "session_id" and isinstance(error, ValueError):
            raise
        raise ConfigurationError(f"{what} can't be {value!r}: it has to be {setting.expected}.") from error
