"""`Arm`: one implementation of an experiment, recorded and timed; `Slot`: what joins two calls to a pair.

The timing lies inside of the recording: what recording takes is not the implementation's. A coroutine is timed from its
first step to its last, awaiting included.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns
from typing import Any, Final, Protocol

from otel_debugstore import attributes as names
from otel_debugstore.calls.component import Component
from otel_debugstore.calls.quick import Wrapper
from otel_debugstore.calls.recorded import RecordedFunction, call_wrapper
from otel_debugstore.errors import ConfigurationError
from otel_debugstore.layers import Layer


class Slot:
    """Two calls side by side: what is known of the one that ended first."""

    number = -1
    """Of its arm; `TAKEN` once the pair was taken down."""
    log_ns = 0.0


TAKEN: Final = -2
MAX_OPEN: Final = 256
OpenCalls = dict[int, Slot | None]
"""Calls of an arm that began and have not ended, as far as guard rails count them, `MAX_OPEN` at most: by when they
began, what they are a half of."""


class Listener(Protocol):
    """Is told of every call that ended, and looks at open ones now and then. Never raises.

    Attributes:
        look_at_ns: When `look` is to be called again.
    """

    look_at_ns: int

    def look(self, now_ns: int, /) -> None:
        """Look at the calls that are open."""

    def add(
        self,
        number: int,
        began_ns: int,
        duration_ns: int,
        slot: Slot | None,
        counts: bool,
        error: BaseException | None,
        /,
    ) -> None:
        """Take down a call that ended."""


class Arm:
    """One implementation.

    Attributes:
        name: What it is called.
        number: Its place among the arms; 0 is the control.
        weight: Its share of the calls, relative to those of the others.
        function: What runs.
        is_async: Whether it is a coroutine function.
        open_calls: Calls that have not ended.
        stopped_by: Why it gets no calls; None if it does.
    """

    def __init__(self, name: str, number: int, weight: float, function: Any) -> None:
        """Make an arm.

        Raises:
            ConfigurationError: The function is none, or a generator function.
        """
        if isinstance(function, RecordedFunction):  # it is recorded as an arm
            function = function.__wrapped__
        if isinstance(function, (type, staticmethod, classmethod)) or not callable(function):
            raise ConfigurationError(f"{function!r} can't be compared: give a function, undecorated by {_KINDS}.")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ConfigurationError(
                f"{function!r} can't be compared: how long a generator takes is up to who consumes it."
            )
        self.name = name
        self.number = number
        self.weight = weight
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function)
        self.open_calls: Final[OpenCalls] = {}
        self.stopped_by: str | None = None
        self._timed: Callable[..., Any]
        self._wrapper: Wrapper
        self.component: Component

    def record(self, experiment: str, layer: Layer, listener: Listener, **captures: bool) -> None:
        """Have calls recorded, and `listener` told of them.

        Raises:
            ConfigurationError: There is no such layer.
        """
        self.component = Component(layer, experiment, self.function, **captures)
        self.component.attributes[names.ARM] = self.name
        self._timed = (_timed_coroutine if self.is_async else _timed)(self, listener)
        self._wrapper = call_wrapper(self.function, self.component)

    def code(self) -> str:
        """Return the hash of the code that a call would run now; an empty text where there is none in Python."""
        return self.component.variant() or ""

    def run(self, slot: Slot | None, counts: bool, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call it, recorded and timed.

        Args:
            slot: What the call is a half of; None for one that stands alone.
            counts: Whether guard rails count it.
            instance: What it is a method of; None for a function.
            args, kwargs: Its arguments.
        """
        if instance is None:
            return self._wrapper(partial(self._timed, slot, counts), None, args, kwargs)
        return self._wrapper(partial(self._timed, slot, counts, instance), instance, args, kwargs)


_KINDS = "@staticmethod or @classmethod, and no class"


def _timed(arm: Arm, listener: Listener) -> Callable[..., Any]:
    number, function, open_calls, ended = arm.number, arm.function, arm.open_calls, listener.add

    def call(slot: Slot | None, counts: bool, /, *args: Any, **kwargs: Any) -> Any:
        began = perf_counter_ns()
        if began >= listener.look_at_ns:
            listener.look(began)
            began = perf_counter_ns()
        if counts and len(open_calls) < MAX_OPEN:
            open_calls[began] = slot
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            ended(number, began, perf_counter_ns() - began, slot, counts, error)
            raise
        ended(number, began, perf_counter_ns() - began, slot, counts, None)
        return result

    return call


def _timed_coroutine(arm: Arm, listener: Listener) -> Callable[..., Any]:
    number, function, open_calls, ended = arm.number, arm.function, arm.open_calls, listener.add

    async def call(slot: Slot | None, counts: bool, /, *args: Any, **kwargs: Any) -> Any:
        began = perf_counter_ns()
        if began >= listener.look_at_ns:
            listener.look(began)
            began = perf_counter_ns()
        if counts and len(open_calls) < MAX_OPEN:
            open_calls[began] = slot
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            ended(number, began, perf_counter_ns() - began, slot, counts, error)
            raise
        ended(number, began, perf_counter_ns() - began, slot, counts, None)
        return result

    return call
