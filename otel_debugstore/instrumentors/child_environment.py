"""The environment of a node's process: the span it belongs to, and how much of OpenTelemetry it starts with.

Only the child sees it: the program's own environment, which other threads' children inherit, stays as it is.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from otel_debugstore.instrumentors import light_start
from otel_debugstore.instrumentors.hooks import HOOKS, hook_names
from otel_debugstore.instrumentors.parent_context import TRACEPARENT, carry
from otel_debugstore.log import QUIET
from otel_debugstore.recording_settings import recording_settings
from otel_debugstore.settings_file import hand_down

_PYTHONPATH: Final = "PYTHONPATH"
_AUTO: Final = "opentelemetry.instrumentation.auto_instrumentation"
_LIGHT: Final = str(Path(__file__).with_name("light"))


def environment_of_child(given: Mapping[Any, Any] | None) -> dict[Any, Any]:
    """Return the environment for a child, from the one that the program gives it (None: its own)."""
    environ = dict(os.environ if given is None else given)
    if given is None or given.get(TRACEPARENT) in (None, os.environ.get(TRACEPARENT)):
        carry(environ)
    environ[QUIET] = "1"
    hand_down(environ)
    if recording_settings().child == "light":
        _lighten(environ)
    return environ


def _lighten(environ: dict[Any, Any]) -> None:
    """Have the child load OpenTelemetry when it needs it, where it would load it at its start."""
    module = sys.modules.get(_AUTO)
    path = environ.get(_PYTHONPATH)
    if module is None or not module.__file__ or not isinstance(path, str):
        return
    folder = str(Path(module.__file__).parent)
    folders = path.split(os.pathsep)
    if folder in folders:
        environ[_PYTHONPATH] = os.pathsep.join(_LIGHT if found == folder else found for found in folders)
        environ[light_start.VARIABLE] = light_start.SEPARATOR.join((",".join(_hooks()), ",".join(_target_modules())))


def _hooks() -> list[str]:
    instances = [(kind, kind._instance) for kind in HOOKS]
    return [
        name
        for kind, instance in instances
        if instance is not None and instance.is_instrumented_by_opentelemetry
        for name in hook_names(kind.hook)
    ]


def _target_modules() -> list[str]:
    return [target.partition(":")[0].strip() for target in recording_settings().targets]
