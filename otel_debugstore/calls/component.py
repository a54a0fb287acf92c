"""`Component`: what is known of something before it is called: its layer, name, code, and how it is recorded."""

from __future__ import annotations

import functools
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, NamedTuple

from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, StaticSampler

from otel_debugstore import attributes as names
from otel_debugstore.calls.deferral import Deferral, deferral_of
from otel_debugstore.calls.meter import meter_of
from otel_debugstore.code_identity import underlying_function, variant_of
from otel_debugstore.digest import blake2b
from otel_debugstore.layers import Layer, check_layer
from otel_debugstore.loading import loading
from otel_debugstore.measures.thrift import Thrift
from otel_debugstore.outbox import OUTBOX, Code
from otel_debugstore.recording_settings import Capture, recording_settings

_OPERATIONS: Final = {"tool": "execute_tool", "workflow": "invoke_agent"}
LONG_FUNCTION_NS: Final = 1_000_000
"""Functions that take less have no figures of memory and I/O, which would cost them more than a percent."""

_SCOPE: Final = "otel_debugstore"
_MAX_NAMED: Final = 4096
_MAX_NAME: Final = 512


class Parameters(NamedTuple):
    """The names of a function's parameters, those that are keyword-only last, and how many take arguments by place."""

    names: tuple[str, ...] = ()
    positional: int = 0

    def bound(self) -> Parameters:
        """Return those of a method that is called on something."""
        return Parameters(self.names[1:], self.positional - 1) if self.positional else self


class Component:
    """A thing that is called, and recorded."""

    __slots__ = (
        "__weakref__",
        "_provider",
        "_tracer",
        "attributes",
        "attributes_at_start",
        "bound_parameters",
        "capture",
        "capture_args",
        "capture_result",
        "deferral",
        "function",
        "known_variant",
        "layer",
        "meter",
        "name",
        "parameters",
        "thrift",
    )

    def __init__(
        self,
        layer: str,
        name: str | None = None,
        function: Any = None,
        *,
        capture_args: bool = True,
        capture_result: bool = True,
        replayable: bool | None = None,
        pure: bool | None = None,
    ) -> None:
        """Make a component.

        Args:
            layer: One of `LAYERS`.
            name: What it is called in what is recorded; by default the function's qualified name.
            function: The Python function behind it, None where there is none.
            capture_args, capture_result: Whether its inputs and outputs are captured, if the settings want any.
            replayable, pure: What the program declares of it; None is nothing.

        Raises:
            ConfigurationError: The layer is none.
        """
        settings = recording_settings()
        self.layer: Layer = check_layer(layer)
        self.function = underlying_function(function)
        self.name = _limited(name or _qualified_name(self.function or function) or "(unnamed)")
        self.capture: Capture = settings.capture.value(self.layer, self.name)
        self.capture_args = capture_args and self.capture != "none"
        self.capture_result = capture_result and self.capture != "none"
        is_budgeted = self.layer == "function" or settings.overhead_budget.is_set_for(self.name)
        budget = settings.overhead_budget.value(self.layer, self.name) if is_budgeted else None
        self.meter = meter_of(self.layer, self.name, budget)
        self.thrift = Thrift() if self.layer != "function" else None
        """Which of its calls are measured; of functions those that take long are, see `LONG_FUNCTION_NS`."""
        self.parameters = _parameters(self.function, _given_before(function))
        self.bound_parameters = self.parameters.bound()
        self.attributes = self._static_attributes() | _declared(replayable, pure)
        self.attributes_at_start: dict[str, Any] | None = self.attributes
        self.deferral: Deferral | None = None
        """How spans of `tracer` are deferred, if they can be; known once that was asked for."""
        self._provider: Any = None
        self._tracer: Any = None
        self.known_variant: tuple[Any, Any, Any, str | None] = (None, None, None, None)
        """The code, defaults and keyword-only defaults of which `variant` was asked last, and what it returned."""

    @property
    def tracer(self) -> Any:
        """The tracer of the provider that is set now."""
        provider = trace.get_tracer_provider()
        if provider is not self._provider:
            self._tracer = trace.get_tracer(_SCOPE)
            self.deferral = deferral_of(provider, self._tracer)
            self._provider = provider
            # Only a sampler needs them at the start, where they cost ten times as much; the default one does not.
            self.attributes_at_start = None if _is_default(getattr(provider, "sampler", None)) else self.attributes
        return self._tracer

    def variant(self) -> str | None:
        """Return the hash of the code that a call would run now."""
        function = self.function
        if function is None:
            return None
        code, defaults, keyword_defaults, variant = self.known_variant
        if (
            code is not function.__code__
            or defaults is not function.__defaults__
            or keyword_defaults is not function.__kwdefaults__
        ):
            variant = variant_of(function)
            if not function.__closure__:  # else the variant depends on more than these
                self.known_variant = function.__code__, function.__defaults__, function.__kwdefaults__, variant
        return variant

    def send_code(self, variant: str) -> None:
        """Have the code that `variant` is the hash of written, once."""
        if variant not in OUTBOX.sent and OUTBOX.is_open:
            OUTBOX.put_code(variant, functools.partial(_describe, self.function, variant))

    def is_measured_now(self) -> bool:
        """Return whether the memory and I/O of the call that begins now are worth reading."""
        return self.meter.mean_ns >= LONG_FUNCTION_NS if self.thrift is None else self.thrift.skip <= 0

    def _static_attributes(self) -> dict[str, Any]:
        found: dict[str, Any] = {names.LAYER: self.layer, names.COMPONENT: self.name}
        if (operation := _OPERATIONS.get(self.layer)) is not None:
            found[names.GEN_AI_OPERATION_NAME] = operation
        if self.layer == "tool":
            found[names.GEN_AI_TOOL_NAME] = self.name
        if self.function is not None:
            code: CodeType = self.function.__code__
            found[names.CODE_FUNCTION_NAME] = _qualified_name(self.function)
            found[names.CODE_FILE_PATH] = code.co_filename
            found[names.CODE_LINE_NUMBER] = code.co_firstlineno
        return found


def _describe(function: Any, variant: str) -> Code:
    with loading("otel_debugstore.source"):  # in the thread that writes: an import reads files
        from otel_debugstore.source import code_of
    if variant_of(function) != variant:  # it was replaced since the call: what it was is not known any more
        return Code(variant, _qualified_name(function))
    return code_of(function, variant)


def _is_default(sampler: Any) -> bool:
    return sampler is DEFAULT_ON or type(sampler) is StaticSampler


@functools.lru_cache(maxsize=_MAX_NAMED)
def named_component(layer: str, name: str) -> Component:
    """Return the component of a layer that has no function of its own, such as a `with` block."""
    return Component(layer, name)


def _limited(name: str) -> str:
    """Return a name of at most `_MAX_NAME` characters; of a longer one the beginning, and what tells it from others."""
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME - 9]}…{blake2b(name.encode(errors='replace'), digest_size=4).hexdigest()}"


def _qualified_name(function: Any) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        return type(function).__qualname__ if function is not None else ""
    return f"{module}.{name}" if isinstance(module, str) and module else name


def _declared(replayable: bool | None, pure: bool | None) -> dict[str, Any]:
    """Return what the program declares, as attributes: what is pure may be run again, unless it says otherwise."""
    if replayable is None and pure:
        replayable = True
    said = {names.REPLAYABLE: replayable, names.PURE: pure}
    return {name: value for name, value in said.items() if value is not None}


def _given_before(function: Any) -> int:
    """Return how many of its parameters a callable fills in itself: those of a partial, and what it is a method of."""
    count, is_inner = 0, False
    while isinstance(function, functools.partial):
        count, function, is_inner = count + len(function.args), function.func, True
    if isinstance(function, MethodType):
        return count + is_inner  # directly recorded, it is called with what it is bound to known
    return count + (not isinstance(function, (FunctionType, classmethod, staticmethod)) and _is_object(function))


def _is_object(function: Any) -> bool:
    """Return whether it is an object with a method `__call__`, and not something around a function."""
    is_wrapper = hasattr(type(function), "__wrapped__") or "__wrapped__" in getattr(function, "__dict__", {})
    return function is not None and not is_wrapper


def _parameters(function: FunctionType | None, given: int) -> Parameters:
    """Return the parameters of a function but the first ones, which are given already."""
    if function is None:
        return Parameters()
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount][given:]
    keyword_only = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
    return Parameters(positional + keyword_only, len(positional))
