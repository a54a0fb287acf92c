"""Calls of a program's functions, recorded: what every wrapper of the host's hooks does.

The program's function is called with the arguments it was given, and its result or exception goes on unchanged. What
fails in recording costs a log line, once, and the record.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_debugstore.calls.call import Call, begin
from otel_debugstore.calls.component import Component
from otel_debugstore.calls.unsampled import count_unsampled
from otel_debugstore.guard import is_meant_for_the_program
from otel_debugstore.instrumentors.arguments import Parameters
from otel_debugstore.instrumentors.components import component
from otel_debugstore.instrumentors.patching import Wrapper
from otel_debugstore.layers import Layer
from otel_debugstore.log import warn_once

_T = TypeVar("_T")

Judge = Callable[[Call, Any], None]
"""Looks at what a call returned and says on the call what that means."""


class Arguments(NamedTuple):
    """The arguments of one call, by the names of the parameters."""

    parameters: Parameters
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __getitem__(self, name: Any) -> Any:
        return self.parameters.value(name, self.args, self.kwargs)

    def all(self) -> dict[str, Any]:
        """Return those that were given."""
        return self.parameters.bind(self.args, self.kwargs)


class What(NamedTuple):
    """What a hook records a call as."""

    layer: Layer
    name: Callable[[Arguments], str]
    judge: Judge | None = None
    attributes: Callable[[Arguments], Mapping[str, Any]] | None = None
    has_code: bool = False
    """Whether the code of what is called is the function's own, and not that of the tool or node that it runs."""


class Observed:
    """One call, recorded while it is entered. `result` is to be set to what the call returned."""

    def __init__(self, function: Any, what: What, arguments: Arguments) -> None:
        self.result: Any = None
        self._function = function
        self._what = what
        self._arguments = arguments
        self.call: Call | None = None
        self._skipped: Component | None = None  # by the overhead budget: it is counted only
        self._began_ns = 0

    def __enter__(self) -> Observed:
        self.call = guarded(self._begin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.call is not None:
            if error is not None:
                guarded(self.call.fail, error)
            else:
                guarded(self._judge)
                guarded(self.call.end, self.result)
        elif self._skipped is not None:
            guarded(count_unsampled, self._skipped, perf_counter_ns() - self._began_ns, error)

    def _begin(self) -> Call | None:
        what, called = self._what, self._component()
        if called.meter.skip > 0:
            called.meter.skip -= 1
            self._skipped, self._began_ns = called, perf_counter_ns()
            return None
        call = begin(called, self._arguments.all())
        if call is not None and what.attributes is not None:
            for key, value in what.attributes(self._arguments).items():
                call.set_attribute(key, value)
        return call

    def _component(self) -> Component:
        what = self._what
        return component(what.layer, what.name(self._arguments), self._function if what.has_code else None)

    def _judge(self) -> None:
        if self._what.judge is not None and self.call is not None:
            self._what.judge(self.call, self.result)


def guarded(function: Callable[..., _T], *args: Any) -> _T | None:
    """Call a function of ours; None if it fails."""
    try:
        return function(*args)
    except Exception as error:
        if is_meant_for_the_program(error):
            raise
        warn_once("instrumentors", f"A call could not be recorded: {error!r}.")
        return None


def recording(what: What, *, is_method: bool = True) -> Callable[[Any], Wrapper]:
    """Return what makes a wrapper that records every call as `what`, for `Patches.wrap`."""

    def make(original: Any) -> Wrapper:
        parameters = Parameters(original, is_method=is_method)
        function = getattr(original, "__func__", original)

        def observe(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Observed:
            return Observed(function, what, Arguments(parameters, args, kwargs))

        def call(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not is_instrumentation_enabled():
                return wrapped(*args, **kwargs)
            with observe(args, kwargs) as observed:
                observed.result = wrapped(*args, **kwargs)
            return observed.result

        async def call_async(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if not is_instrumentation_enabled():
                return await wrapped(*args, **kwargs)
            with observe(args, kwargs) as observed:
                if observed.call is not None:
                    observed.call.without_cpu()  # other tasks run in this thread before it ends
                observed.result = await wrapped(*args, **kwargs)
            return observed.result

        return call_async if inspect.iscoroutinefunction(function) else call

    return make
