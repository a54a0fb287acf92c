"""`RecordedFunction`: a function that is recorded when it is called, whatever kind of function it is.

For those who look it is the function: its name, signature, docstring and type are those of what it wraps, it can be
pickled by name, and it is a method where the function would be one.
A coroutine or generator is begun when it first runs, not when it is made, and ends when it does, or with the process.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from types import FunctionType
from typing import Any, Final

import wrapt

from otel_debugstore.calls.component import Component
from otel_debugstore.calls.quick import UNBOUND, Wrapper, plain_wrapper
from otel_debugstore.calls.steps import (
    RecordedAsyncGenerator,
    RecordedCoroutine,
    Steps,
    recorded_generator,
)
from otel_debugstore.calls.trouble import trouble
from otel_debugstore.errors import ConfigurationError

_BASE: Final[Any] = wrapt.FunctionWrapper.__mro__[1]
"""Which is told what the function is bound to, and how functions of its kind are."""


class _BoundRecordedFunction(wrapt.BoundFunctionWrapper):  # type: ignore[type-arg]
    """A method of an object."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        return getattr, (self.__self__, self.__name__)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return getattr(copy.deepcopy(self.__self__, memo), self.__name__)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)


class RecordedFunction(wrapt.FunctionWrapper):  # type: ignore[type-arg]
    """A function whose calls are recorded."""

    __bound_function_wrapper__ = _BoundRecordedFunction

    def __init__(self, function: Any, component: Component) -> None:
        self._self_wrap(function, call_wrapper(function, component))

    def _self_wrap(self, function: Any, wrapper: Wrapper, is_on: Callable[[], bool] | None = None) -> None:
        """Have wrapt call `wrapper`, while it `is_on`. (What begins with `_self_` is ours, all else the function's.)

        Of a plain function that is bound to None wrapt asks at each call whether it has a `__self__`, and throws the
        error away that says no: more than half of what a call through wrapt takes. It does not ask if that is known.
        """
        if type(function) is FunctionType:
            _BASE.__init__(self, function, UNBOUND, wrapper, is_on, "function")
        else:
            super().__init__(function, wrapper, is_on)

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__qualname__

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self  # as functions are

    def __repr__(self) -> str:
        return repr(self.__wrapped__)


def check_callable(function: Any) -> None:
    """Check that something can be recorded.

    Raises:
        ConfigurationError: It can't be called, or is a class.
    """
    if isinstance(function, type):
        raise ConfigurationError(f"{function!r} is a class: decorate its methods, or a function that makes it.")
    if not callable(function) and not isinstance(function, (classmethod, staticmethod)):
        raise ConfigurationError(f"{function!r} can't be recorded: it can't be called.")


def call_wrapper(function: Any, component: Component) -> Wrapper:
    """Return what wrapt calls in place of `function`: it calls what it is given, and records that as `component`."""
    plain = function.__func__ if isinstance(function, (classmethod, staticmethod)) else function
    while isinstance(plain, partial):
        plain = plain.func
    if inspect.isasyncgenfunction(plain):
        return _stepwise(component, RecordedAsyncGenerator)
    if inspect.iscoroutinefunction(plain):
        return _stepwise(component, RecordedCoroutine)
    if inspect.isgeneratorfunction(plain):
        return _stepwise(component, recorded_generator)
    return plain_wrapper(component)


def _stepwise(component: Component, kind: Callable[[Any, Steps], Any]) -> Wrapper:
    def call(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made = wrapped(*args, **kwargs)
        try:
            is_bound = instance is not UNBOUND and instance is not None
            parameters = component.bound_parameters if is_bound else component.parameters
            return kind(made, Steps(component, (parameters, args, kwargs)))
        except Exception as error:  # noqa: BLE001  # see `trouble`
            trouble(error)
            return made

    return call
