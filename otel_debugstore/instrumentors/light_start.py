"""How a light child starts: OpenTelemetry is loaded when the child imports it, a host's hook, or a target.

Until then the child has one more finder on `sys.meta_path`, and nothing else. It imports nothing that Python has not
imported when it starts, and never writes anything.
"""

from __future__ import annotations

import os

from otel_debugstore.instrumentors.module_names import is_called, is_matched
from otel_debugstore.instrumentors.on_import import WATCHER, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

VARIABLE = "_OTEL_DEBUGSTORE_LIGHT"
"""In the environment of a light child: names of hooks, "|", globs of the modules of targets."""
SEPARATOR = "|"

_API = "opentelemetry."


class LightStart:
    """Waits for the first module that is to be recorded."""

    def __init__(self, hooks: tuple[str, ...], targets: tuple[str, ...]) -> None:
        self._hooks = hooks
        self._targets = targets
        self._watch = Watch(self._is_wanted, self._found)
        self._is_started = False
        WATCHER.add(self._watch)

    def _is_wanted(self, name: str) -> bool:
        return (
            name.startswith(_API) or is_called(name, self._hooks) or is_matched(name, self._targets)
        ) and not self._is_started

    def _found(self, module: ModuleType) -> None:
        """Start, unless a module of OpenTelemetry is only half imported: then when that one is there."""
        if self._is_started or _is_importing_api():
            return
        self._is_started = True
        WATCHER.remove(self._watch)
        from opentelemetry.instrumentation.auto_instrumentation import initialize

        initialize()


def start() -> None:
    """Wait, if this is a light child."""
    hooks, _, targets = os.environ.get(VARIABLE, SEPARATOR).partition(SEPARATOR)
    LightStart(_names(hooks), _names(targets))


def _names(text: str) -> tuple[str, ...]:
    return tuple(name for name in text.split(",") if name)


def _is_importing_api() -> bool:
    return any(name.startswith(_API) for name in WATCHER.executing)
