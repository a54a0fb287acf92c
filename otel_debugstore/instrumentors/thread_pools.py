"""OpenTelemetry's context in the threads of `ThreadPoolExecutor`: everywhere, or where a host's hook asks for it.

Not where `opentelemetry-instrumentation-threading` carries it already.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Final, TypeVar

from opentelemetry.context import Context, attach, detach, get_current

from otel_debugstore.guard import swallow
from otel_debugstore.instrumentors.base import Instrumentor
from otel_debugstore.instrumentors.on_import import WATCHER, Watch

_MODULE: Final = "concurrent.futures.thread"
_OTHER: Final = "opentelemetry.instrumentation.threading"
_T = TypeVar("_T")

_is_asked_for: ContextVar[bool] = ContextVar("otel_debugstore_carry", default=False)


class _Carrier:
    """Patches `ThreadPoolExecutor.submit` while somebody uses it."""

    def __init__(self) -> None:
        self.users: set[object] = set()
        self.is_everywhere = False
        self._watch = Watch(_MODULE.__eq__, self._patch, (_MODULE,))
        self._patches: Any = None

    def use(self, user: object) -> None:
        """Carry for somebody."""
        if not self.users:
            self.users.add(user)
            WATCHER.add(self._watch)
        self.users.add(user)
        self.is_everywhere = ThreadPoolInstrumentor in self.users

    def release(self, user: object) -> None:
        """Do not carry for somebody any more."""
        self.users.discard(user)
        self.is_everywhere = ThreadPoolInstrumentor in self.users
        if not self.users:
            WATCHER.remove(self._watch)
            if self._patches is not None:
                self._patches.undo()
                self._patches = None

    def _patch(self, module: ModuleType) -> None:
        from otel_debugstore.instrumentors.patching import Patches

        self._patches = self._patches or Patches()
        self._patches.wrap(module.ThreadPoolExecutor, "submit", lambda original: self._submit)

    def _submit(self, wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        context = None
        if args and (self.is_everywhere or _is_asked_for.get()):
            try:
                context = None if _another_carries() else get_current()
            except Exception as error:  # noqa: BLE001  # it would reach the program
                swallow(error)
        if context:
            return wrapped(functools.partial(_run_in, context, args[0]), *args[1:], **kwargs)
        return wrapped(*args, **kwargs)


_CARRIER: Final = _Carrier()


class ThreadPoolInstrumentor(Instrumentor):
    """Carries context into every `ThreadPoolExecutor`."""

    def _instrument(self, **kwargs: Any) -> None:
        _CARRIER.use(ThreadPoolInstrumentor)

    def _uninstrument(self, **kwargs: Any) -> None:
        _CARRIER.release(ThreadPoolInstrumentor)


class OptionalThreadPoolInstrumentor(Instrumentor):
    """What `opentelemetry-instrument` finds: does it if the settings ask for it."""

    def _instrument(self, **kwargs: Any) -> None:
        from otel_debugstore.recording_settings import recording_settings

        if recording_settings().thread_pools:
            ThreadPoolInstrumentor().instrument(skip_dep_check=True)

    def _uninstrument(self, **kwargs: Any) -> None:
        if ThreadPoolInstrumentor().is_instrumented_by_opentelemetry:
            ThreadPoolInstrumentor().uninstrument()


def carry_where_asked(patches: Any) -> None:
    """Carry context out of what runs in `carrying`, until the patches are undone."""
    _CARRIER.use(patches)
    patches.also_undo(lambda: _CARRIER.release(patches))


def carrying(function: Callable[..., _T], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> _T:
    """Call a function; the tasks that it gives to thread pools get its context."""
    token = _is_asked_for.set(True)
    try:
        return function(*args, **kwargs)
    finally:
        _is_asked_for.reset(token)


def _another_carries() -> bool:
    module = sys.modules.get(_OTHER)
    instance = getattr(getattr(module, "ThreadingInstrumentor", None), "_instance", None)
    return bool(getattr(instance, "is_instrumented_by_opentelemetry", False))


def _run_in(context: Context, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
    token = attach(context)
    try:
        return function(*args, **kwargs)
    finally:
        detach(token)
