"""What users write: `@tool`, `@tool(name=...)`, `with tool("name") as call`, and the same for every layer."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from time import perf_counter_ns
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from otel_debugstore.calls.call import Call, begin
from otel_debugstore.calls.component import Component, named_component
from otel_debugstore.calls.deferred import NO_RESULT
from otel_debugstore.calls.recorded import RecordedFunction, check_callable
from otel_debugstore.calls.trouble import trouble
from otel_debugstore.calls.unsampled import count_unsampled
from otel_debugstore.errors import ConfigurationError
from otel_debugstore.layers import Layer, check_layer

_BLOCKS: Final[ContextVar[tuple[tuple[Recording, RecordedBlock], ...]]] = ContextVar("blocks", default=())
F = TypeVar("F", bound=Callable[..., Any])


class Recording:
    """A decorator, and a context manager, that records what it is around.

    As a context manager it may be used again, and by several threads at once: each `with` is a call of its own.
    """

    __slots__ = ("_capture_args", "_capture_result", "_inputs", "_layer", "_name", "_open", "_pure", "_replayable")

    def __init__(
        self,
        layer: Layer,
        name: str | None = None,
        inputs: Mapping[str, Any] | None = None,
        capture_args: bool = True,
        capture_result: bool = True,
        replayable: bool | None = None,
        pure: bool | None = None,
    ) -> None:
        self._layer = check_layer(layer)
        if name is not None and (not isinstance(name, str) or not name):
            raise ConfigurationError(f"{name!r} can't be the name of a {layer}: it has to be a text.")
        self._name = name
        self._inputs = inputs
        self._capture_args = capture_args
        self._capture_result = capture_result
        self._replayable = replayable
        self._pure = pure
        self._open: list[RecordedBlock] = []

    def __call__(self, function: F, /) -> F:
        """Return the function, recorded; as it is where that fails.

        Raises:
            ConfigurationError: It can't be called, or is a class.
        """
        check_callable(function)
        try:
            component = Component(
                self._layer,
                self._name,
                function,
                capture_args=self._capture_args,
                capture_result=self._capture_result,
                replayable=self._replayable,
                pure=self._pure,
            )
            recorded: Any = RecordedFunction(function, component)
            return recorded  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001  # see `trouble`
            trouble(error)
            return function

    def __enter__(self) -> RecordedBlock:
        block = RecordedBlock()
        try:
            block.begin(named_component(self._layer, self._name or f"(unnamed {self._layer})"), self._inputs)
        except Exception as error:  # noqa: BLE001  # see `trouble`
            trouble(error)
        self._open.append(block)
        _BLOCKS.set((*_BLOCKS.get(), (self, block)))
        return block

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block = self._leave()
        if block is not None:
            block.close(error)

    async def __aenter__(self) -> RecordedBlock:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def _leave(self) -> RecordedBlock | None:
        """Return the block that this thread or task entered last; where none is known, the one entered last of all."""
        blocks = _BLOCKS.get()
        found = next((block for recording, block in reversed(blocks) if recording is self), None)
        if found is not None:
            _BLOCKS.set(tuple(entry for entry in blocks if entry[1] is not found))
            with contextlib.suppress(ValueError):
                self._open.remove(found)
            return found
        return self._open.pop() if self._open else None


class RecordedBlock:
    """What `with tool("name") as block` gives: the call of the block."""

    __slots__ = ("_call", "_counted", "_result")

    def __init__(self) -> None:
        self._result: Any = NO_RESULT
        self._call: Call | None = None
        self._counted: tuple[Component, int] | None = None  # a block that is not sampled, and when it began

    def begin(self, component: Component, inputs: Mapping[str, Any] | None) -> None:
        """Begin the call."""
        if component.meter.skip > 0:
            component.meter.skip -= 1
            self._counted = component, perf_counter_ns()
            return
        self._call = begin(component, inputs)
        if self._call is not None and _is_in_event_loop():
            self._call.without_cpu()

    @property
    def span(self) -> Any:
        """The OpenTelemetry span; None where nothing is recorded."""
        return self._call.span if self._call is not None else None

    def set_result(self, result: Any) -> Self:
        """Say what came out of the block."""
        self._result = result
        return self

    def set_attribute(self, key: str, value: Any) -> Self:
        """Set an attribute of the span."""
        if self._call is not None:
            self._call.set_attribute(key, value)
        return self

    def set_outcome(self, outcome: str, message: str = "") -> Self:
        """Say how it ended, where no exception does; see `Call.set_outcome`."""
        if self._call is not None:
            self._call.set_outcome(outcome, message)
        return self

    def close(self, error: BaseException | None) -> None:
        """End the call."""
        if self._counted is not None:
            component, began = self._counted
            count_unsampled(component, perf_counter_ns() - began, error)
        elif self._call is None:
            return
        elif error is None:
            self._call.end(self._result)
        else:
            self._call.fail(error)


def _is_in_event_loop() -> bool:
    """Whether other tasks may run in this thread before a block ends: its CPU time would be theirs, too."""
    events = sys.modules.get("asyncio.events")
    return events is not None and events._get_running_loop() is not None


class LayerRecording:
    """`tool`, `workflow`, ...: a decorator without arguments, or what makes a `Recording` from them."""

    __slots__ = ("_layer",)

    def __init__(self, layer: Layer) -> None:
        self._layer: Final = layer

    @overload
    def __call__(self, function: F, /) -> F: ...

    @overload
    def __call__(
        self,
        name: str | None = None,
        *,
        inputs: Mapping[str, Any] | None = None,
        capture_args: bool = True,
        capture_result: bool = True,
        replayable: bool | None = None,
        pure: bool | None = None,
    ) -> Recording: ...

    def __call__(self, *target: Any, name: str | None = None, **options: Any) -> Any:
        """Record a function, or return what records one, or a block, under a name.

        Args:
            target: The function; or the name, which may be given as `name`, too.
            name: What it is called in what is recorded; by default the function's qualified name.
            options: `inputs` (of a block, by name), `capture_args`, `capture_result`, `replayable`, `pure`; see
                `instrument`.

        Raises:
            ConfigurationError: The target can't be called.
        """
        if not target:
            return Recording(self._layer, name, **options)
        (only,) = target
        if only is None or isinstance(only, str):
            return Recording(self._layer, name if only is None else only, **options)
        return Recording(self._layer, name, **options)(only)


tool: Final = LayerRecording("tool")
workflow: Final = LayerRecording("workflow")
step: Final = LayerRecording("step")
node: Final = LayerRecording("node")
function: Final = LayerRecording("function")


def instrument(
    layer: Layer = "function",
    name: str | None = None,
    *,
    inputs: Mapping[str, Any] | None = None,
    capture_args: bool = True,
    capture_result: bool = True,
    replayable: bool | None = None,
    pure: bool | None = None,
) -> Recording:
    """Return a decorator, which is a context manager too, that records what it is around.

    Args:
        layer: "workflow", "step", "node", "tool" or "function".
        name: What it is called in what is recorded; by default the function's qualified name.
        inputs: What goes into a block, by name.
        capture_args, capture_result: Whether inputs and outputs are captured, if the settings want any.
        replayable: Whether recorded calls may be run again to prove a change: False where a call changes something
            outside of the program. Without it they are only where somebody asks for them by name.
        pure: Whether equal inputs have equal results, and a call changes nothing. It may then be rewritten to be
            called less often.

    Raises:
        ConfigurationError: There is no such layer.
    """
    return Recording(layer, name, inputs, capture_args, capture_result, replayable, pure)
