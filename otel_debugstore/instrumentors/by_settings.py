"""What `configure()` switches on: the instrumentors that the settings ask for.

Under `opentelemetry-instrument` every instrumentor is on that is not disabled. A program that sets the recorder up in
its own code gets those it named in a setting: targets, hooks whose modules are named, thread pools.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from otel_debugstore.log import warn_once

if TYPE_CHECKING:
    from otel_debugstore.instrumentors.base import Instrumentor  # 80 ms, which nobody pays who asks for none

_DISABLED: Final = "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"


def instrument_by_settings() -> None:
    """Switch on what the settings ask for, and what is neither on already nor disabled."""
    disabled = {name.strip() for name in os.environ.get(_DISABLED, "").split(",")}
    if "*" in disabled:
        return
    for name, instrumentor in _asked_for():
        if name in disabled or instrumentor.is_instrumented_by_opentelemetry:
            continue
        try:
            instrumentor.instrument(skip_dep_check=True)
        except Exception as error:  # noqa: BLE001  # the program goes on without it
            warn_once(f"instrument {name}", f"Instrumentor {name} can't be switched on: {error!r}.")


def _asked_for() -> Iterator[tuple[str, Instrumentor]]:
    """Yield the instrumentors that a setting names, as entry points are called."""
    from otel_debugstore.recording_settings import recording_settings

    settings = recording_settings()
    if settings.targets:
        from otel_debugstore.instrumentors.targets import TargetInstrumentor

        yield "debugstore_targets", TargetInstrumentor()
    if settings.thread_pools:
        from otel_debugstore.instrumentors.thread_pools import ThreadPoolInstrumentor

        yield "debugstore_thread_pools", ThreadPoolInstrumentor()
    if settings.hooks:
        from otel_debugstore.instrumentors.hooks import HOOKS

        yield from ((f"debugstore_{kind.hook}", kind()) for kind in HOOKS if kind.hook in settings.hooks)
