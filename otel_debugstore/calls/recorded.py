"""`RecordedFunction`: a function that is recorded when it is called, whatever kind of function it is.

For those who look it is the function: its name, signature, docstring and type are those of what it wraps, it can be
pickled by name, and it is a method where the function would be one.
A coroutine or generator is begun when it first runs, not when it is made, and ends when it does.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from time import perf_counter_ns, time_ns
from types import CoroutineType
from typing import Any

import wrapt

from otel_debugstore.calls.call import Call, begin, write_late
from otel_debugstore.calls.component import Component
from otel_debugstore.errors import ConfigurationError

_Arguments = tuple[tuple[str, ...], tuple[Any, ...], dict[str, Any]]
"""Names of parameters, and arguments by place and by name. What a method is called on is none of them."""

Wrapper = Callable[[Any, Any, tuple[Any, ...], dict[str, Any]], Any]
"""What wrapt calls: the function (bound), what it is bound to, and the arguments."""


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
        super().__init__(function, call_wrapper(function, component))

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.__qualname__

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, memo: Any) -> Any:
        return self  # as functions are

    def __repr__(self) -> str:
        return repr(self.__wrapped__)


def record(function: Any, component: Component) -> Any:
    """Return `function`, recorded as `component`.

    Raises:
        ConfigurationError: It can't be called, or is a class.
    """
    if isinstance(function, type):
        raise ConfigurationError(f"{function!r} is a class: decorate its methods, or a function that makes it.")
    if not callable(function) and not isinstance(function, (classmethod, staticmethod)):
        raise ConfigurationError(f"{function!r} can't be recorded: it can't be called.")
    return RecordedFunction(function, component)


def call_wrapper(function: Any, component: Component) -> Wrapper:
    """Return what wrapt calls in place of `function`: it calls what it is given, and records that as `component`."""
    plain = function.__func__ if isinstance(function, (classmethod, staticmethod)) else function
    while isinstance(plain, partial):
        plain = plain.func
    if inspect.isasyncgenfunction(plain):
        return _stepwise(component, _RecordedAsyncGenerator)
    if inspect.iscoroutinefunction(plain):
        return _stepwise(component, _RecordedCoroutine)
    if inspect.isgeneratorfunction(plain):
        return _stepwise(component, _RecordedGenerator)
    return _plain(component)


def _plain(component: Component) -> Wrapper:
    meter = component.meter

    def call(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if meter.skip > 0:
            # Not sampled. This is the path of a million calls a second: nothing here that could be elsewhere.
            meter.skip -= 1
            began = perf_counter_ns()
            try:
                result = wrapped(*args, **kwargs)
            except BaseException as error:
                count_unsampled(component, perf_counter_ns() - began, error)
                raise
            duration_ns = perf_counter_ns() - began
            if duration_ns > meter.late_ns:
                count_unsampled(component, duration_ns, None)
            else:
                meter.call_count += 1
                meter.duration_ns += duration_ns
            return result
        names = component.parameters if instance is None else component.bound_parameters
        recorded = begin(component, arguments=(names, args, kwargs))
        if recorded is None:
            return wrapped(*args, **kwargs)
        try:
            result = wrapped(*args, **kwargs)
        except BaseException as error:
            recorded.fail(error)
            raise
        if type(result) is CoroutineType:  # a plain function that calls an asynchronous one, such as a lambda
            recorded.suspend()
            return _RecordedCoroutine(result, component, None, recorded)
        recorded.end(result)
        return result

    return call


def count_unsampled(component: Component, duration_ns: int, error: BaseException | None) -> None:
    """Count a call that was not sampled, or write it down late: it failed, or took long."""
    meter = component.meter
    is_error = error is not None and not isinstance(error, (StopIteration, GeneratorExit))
    is_late = (is_error or duration_ns > meter.late_ns) and meter.may_write_late()
    if is_late and write_late(component, time_ns() - duration_ns, duration_ns, error if is_error else None):
        return
    meter.call_count += 1
    meter.error_count += is_error
    meter.duration_ns += duration_ns


def _stepwise(component: Component, kind: Callable[..., Any]) -> Wrapper:
    def call(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        made = wrapped(*args, **kwargs)
        names = component.parameters if instance is None else component.bound_parameters
        return kind(made, component, (names, args, kwargs))

    return call


class _Steps:
    """The call behind a coroutine or generator: begun with its first step, ended with its last."""

    __slots__ = ("_arguments", "_began", "_call", "_component", "_is_done", "_is_sampled", "_running_ns")

    def __init__(self, component: Component, arguments: _Arguments | None, call: Call | None) -> None:
        self._component = component
        self._arguments = arguments
        self._call = call
        self._began = call is not None
        self._is_done = False
        self._is_sampled = True
        self._running_ns = 0

    @property
    def has_begun(self) -> bool:
        """Whether the first step was run."""
        return self._began

    def run(self, step: Callable[..., Any], *args: Any, is_item: bool = False) -> Any:
        """Run one step.

        Args:
            step: What runs it.
            args: Its arguments.
            is_item: Whether it makes one item of an asynchronous generator: `StopIteration` ends the item then.
        """
        if self._is_done:
            return step(*args)
        if not self._began:
            self._begin()
        call = self._call
        if call is None:
            return self._run_unrecorded(step, args, is_item)
        call.resume()
        try:
            result = step(*args)
        except StopIteration as stop:
            if is_item:
                call.suspend()
            else:
                self.finish(result=stop.value)
            raise
        except StopAsyncIteration:
            self.finish()
            raise
        except BaseException as error:
            self.finish(error)
            raise
        call.suspend()
        return result

    def finish(self, error: BaseException | None = None, **result: Any) -> None:
        """End the call."""
        if self._is_done:
            return
        self._is_done = True
        call, self._call = self._call, None
        if call is None:
            return
        if error is None:
            call.end(**result)
        else:
            call.fail(error)

    def _begin(self) -> None:
        self._began = True
        arguments, self._arguments = self._arguments, None
        meter = self._component.meter
        if meter.skip > 0:
            meter.skip -= 1
            self._is_sampled = False
            return
        self._call = begin(self._component, arguments=arguments, steps=True)

    def _run_unrecorded(self, step: Callable[..., Any], args: tuple[Any, ...], is_item: bool) -> Any:
        began = perf_counter_ns()
        try:
            result = step(*args)
        except BaseException as error:
            self._running_ns += perf_counter_ns() - began
            if not (is_item and isinstance(error, StopIteration)):
                self._is_done = True
                if not self._is_sampled:
                    is_return = isinstance(error, (StopIteration, StopAsyncIteration))
                    count_unsampled(self._component, self._running_ns, None if is_return else error)
            raise
        self._running_ns += perf_counter_ns() - began
        return result


class _Recorded(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """What stands for a coroutine or generator."""

    _self_steps: _Steps

    def __init__(
        self, wrapped: Any, component: Component, arguments: _Arguments | None, call: Call | None = None
    ) -> None:
        super().__init__(wrapped)
        self._self_steps = _Steps(component, arguments, call)

    def __del__(self) -> None:
        try:
            self._self_steps.finish(GeneratorExit())
        except AttributeError:  # it was not made completely
            return


class _RecordedGenerator(_Recorded):
    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self._self_steps.run(self.__wrapped__.send, None)

    def send(self, value: Any) -> Any:
        return self._self_steps.run(self.__wrapped__.send, value)

    def throw(self, *error: Any) -> Any:
        if not self._self_steps.has_begun:  # nothing of the function runs
            return self.__wrapped__.throw(*error)
        return self._self_steps.run(self.__wrapped__.throw, *error)

    def close(self) -> Any:
        if not self._self_steps.has_begun:
            return self.__wrapped__.close()
        result = self._self_steps.run(self.__wrapped__.close)
        self._self_steps.finish(GeneratorExit())
        return result


class _RecordedCoroutine(_RecordedGenerator):
    def __await__(self) -> Any:
        return self


class _RecordedAsyncGenerator(_Recorded):
    def __aiter__(self) -> Any:
        return self

    def __anext__(self) -> Any:
        return _Item(self.__wrapped__.__anext__(), self._self_steps)

    def asend(self, value: Any) -> Any:
        return _Item(self.__wrapped__.asend(value), self._self_steps)

    def athrow(self, *error: Any) -> Any:
        made = self.__wrapped__.athrow(*error)
        return _Item(made, self._self_steps) if self._self_steps.has_begun else made

    def aclose(self) -> Any:
        made = self.__wrapped__.aclose()
        return _Item(made, self._self_steps, is_last=True) if self._self_steps.has_begun else made


class _Item:
    """What makes one item of an asynchronous generator; it may itself be suspended many times."""

    __slots__ = ("_awaitable", "_is_last", "_steps")

    def __init__(self, awaitable: Any, steps: _Steps, is_last: bool = False) -> None:
        self._awaitable = awaitable
        self._steps = steps
        self._is_last = is_last

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return self._run(self._awaitable.send, None)

    def send(self, value: Any) -> Any:
        return self._run(self._awaitable.send, value)

    def throw(self, *error: Any) -> Any:
        return self._run(self._awaitable.throw, *error)

    def close(self) -> Any:
        return self._awaitable.close()

    def _run(self, step: Callable[..., Any], *args: Any) -> Any:
        try:
            return self._steps.run(step, *args, is_item=True)
        except StopIteration:
            if self._is_last:
                self._steps.finish(GeneratorExit())
            raise
