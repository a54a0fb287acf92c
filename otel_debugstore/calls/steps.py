"""Coroutines and generators that are recorded: what stands for one, and the call behind it.

They are begun when they first run, not when they are made, and end when they do, or with the process; those that a
plain function returned are part of its call, which ends with them.
A generator stands for a generator: an item costs two resumed frames where the call is not sampled. For what is awaited,
and whatever only looks like a generator, an object stands that hands on everything else.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Generator
from inspect import CO_ITERABLE_COROUTINE
from time import perf_counter_ns
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final

import wrapt

from otel_debugstore.calls.call import Call, begin
from otel_debugstore.calls.component import Component
from otel_debugstore.calls.content import Arguments
from otel_debugstore.calls.trouble import trouble
from otel_debugstore.calls.unfinished import UNFINISHED
from otel_debugstore.calls.unsampled import count_unsampled


class Steps:
    """The call behind a coroutine or generator: begun with its first step, ended with its last."""

    __slots__ = ("_arguments", "_began", "_call", "_component", "_skipped_at_ns", "is_done")

    def __init__(self, component: Component, arguments: Arguments | None = None) -> None:
        self._component = component
        self._arguments = arguments
        self._call: Call | None = None
        self._began = False
        self._skipped_at_ns = 0  # when it began, if it was not sampled
        self.is_done = False
        """Whether the call has ended."""

    @property
    def has_begun(self) -> bool:
        """Whether the first step was run."""
        return self._began

    def go_on(self, call: Call | None, skipped_at_ns: int) -> None:
        """Take over a call that has begun.

        Args:
            call: The call; None if it is not sampled.
            skipped_at_ns: When it began, if it is not.
        """
        self._began = True
        self._call, self._skipped_at_ns = call, skipped_at_ns
        if call is not None:
            UNFINISHED.add(self)

    def begin(self) -> Call | None:
        """Return the call, begun now if it was not; None if it is not sampled, or not recorded."""
        if not self._began:
            self._begin()
        return self._call

    def run(self, step: Callable[..., Any], *args: Any, is_item: bool = False) -> Any:
        """Run one step.

        Args:
            step: What runs it.
            args: Its arguments.
            is_item: Whether it makes one item of an asynchronous generator: `StopIteration` ends the item then.
        """
        if self.is_done:
            return step(*args)
        call = self.begin()
        if call is not None:
            call.resume()
        try:
            result = step(*args)
        except StopIteration as stop:
            if not is_item:
                self.finish(result=stop.value)
            elif call is not None:
                call.suspend()
            raise
        except StopAsyncIteration:
            self.finish()
            raise
        except BaseException as error:
            self.finish(error)
            raise
        return result if call is None else call.suspend(result)

    def finish(self, error: BaseException | None = None, **result: Any) -> None:
        """End the call, unless it has ended, or the interpreter takes itself apart: nothing can be recorded then."""
        if self.is_done or sys is None or sys.is_finalizing():
            return
        self.is_done = True
        call, self._call = self._call, None
        if call is None:
            if self._skipped_at_ns:
                count_unsampled(self._component, perf_counter_ns() - self._skipped_at_ns, error)
            return
        UNFINISHED.discard(self)
        if error is None:
            call.end(**result)
        else:
            call.fail(error)

    def close(self, outcome: str) -> None:
        """End the call with an outcome, as it ends with the process."""
        call = self._call
        if call is not None:
            call.set_outcome(outcome)
            self.finish()

    def _begin(self) -> None:
        self._began = True
        arguments, self._arguments = self._arguments, None
        meter = self._component.meter
        if meter.skip > 0:
            meter.skip -= 1
            self._skipped_at_ns = perf_counter_ns()
            return
        self._call = begin(self._component, arguments=arguments, steps=True)
        if self._call is not None:
            UNFINISHED.add(self)


class _Recorded(wrapt.ObjectProxy):  # type: ignore[type-arg]
    """What stands for a coroutine or generator."""

    _self_steps: Steps

    def __init__(self, wrapped: Any, steps: Steps) -> None:
        super().__init__(wrapped)
        self._self_steps = steps

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


class RecordedCoroutine(_RecordedGenerator):
    def __await__(self) -> Any:
        return self


class RecordedAsyncGenerator(_Recorded):
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

    def __init__(self, awaitable: Any, steps: Steps, is_last: bool = False) -> None:
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


def recorded_generator(made: Any, steps: Steps, *, is_of_call: bool = False) -> Any:
    """Return what stands for a generator.

    Args:
        made: The generator.
        steps: The call behind it.
        is_of_call: Whether that began before it: then it ends with the generator, also if that is never begun.
    """
    if type(made) is not GeneratorType:
        return _RecordedGenerator(made, steps)
    if made.gi_code.co_flags & CO_ITERABLE_COROUTINE:  # it is awaited, as those of `types.coroutine`
        return RecordedCoroutine(made, steps)
    recorded: Any = _generated(made, steps, _Unbegun(steps) if is_of_call else None)
    recorded.__name__, recorded.__qualname__ = made.__name__, made.__qualname__
    return recorded


def _generated(made: GeneratorType[Any, Any, Any], steps: Steps, _: object) -> Generator[Any, Any, Any]:
    """Run a generator step by step: what is sent and thrown into this one goes into it, whatever it does this one does.

    What passes through is held nowhere while the program or the generator has it: an item may be large, and an
    exception would be held by its own traceback. So it goes from hand to hand, and not into variables.
    What is raised before the program was given an item (`is_out`) is not for the generator: recording itself failed.
    """
    send, throw = made.send, made.throw
    hand: list[Any] = [None]
    step, is_out, is_closed = send, False, False
    call = steps.begin()
    while True:
        try:
            if call is not None:
                call.resume()
            hand.append(step(hand.pop()))
            if call is not None:
                call.suspend()
            is_out, is_closed = True, False
            sent = yield hand.pop()
            # Nearly always nothing is sent: that goes the short way.
            if call is None:
                while sent is None:
                    sent = yield send(None)
            else:
                while sent is None:
                    call.resume()
                    sent = yield call.suspend(send(None))
            step, is_out = send, False
            hand.append(sent)
            sent = None
        except BaseException as error:
            if is_out and made.gi_frame is not None and not made.gi_running:  # it is for the generator, not of it
                step, is_out, is_closed = throw, False, isinstance(error, GeneratorExit)
                hand.append(error)
            elif isinstance(error, StopIteration):
                steps.finish(GeneratorExit() if is_closed else None, result=error.value)
                return error.value
            else:
                steps.finish(error)
                raise


class _Unbegun:
    """Ends the call of a generator that is closed or forgotten before its first step: none of its code runs then."""

    __slots__ = ("_steps",)

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __del__(self) -> None:
        try:
            if not self._steps.is_done:
                self._steps.finish(GeneratorExit())
        except AttributeError:  # it was not made completely
            return


_KINDS: Final[dict[type, tuple[Callable[[Any, Steps], Any], str]]] = {
    CoroutineType: (RecordedCoroutine, "cr_suspended"),
    GeneratorType: (functools.partial(recorded_generator, is_of_call=True), "gi_suspended"),
    AsyncGeneratorType: (RecordedAsyncGenerator, "ag_suspended"),
}
"""What stands for what, and the attribute that says that it was begun."""


def continued(made: Any, component: Component, call: Call | None, skipped_at_ns: int = 0) -> Any:
    """Return what stands for a coroutine or generator that a plain function returned, whose call goes on in it.

    Args:
        made: What it returned.
        component: The function's.
        call: The function's call; None if it is not sampled.
        skipped_at_ns: When it began, if it is not.

    Returns:
        None for all else, and where somebody has begun with it already: it is not of this call.
    """
    try:
        kind, is_suspended = _KINDS.get(type(made), (None, ""))
        if kind is None or getattr(made, is_suspended, False):
            return None
        steps = Steps(component)
        recorded = kind(made, steps)
        if call is not None:
            call.suspend()
        steps.go_on(call, skipped_at_ns)
        return recorded
    except Exception as error:  # noqa: BLE001  # see `trouble`
        trouble(error)
        return None
