"""`Component`: what is known of something before it is called: its layer, name, code, and how it is recorded."""

from __future__ import annotations

import functools
from types import CodeType, FunctionType
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, StaticSampler

from otel_debugstore import attributes as names
from otel_debugstore.calls.meter import meter_of
from otel_debugstore.code_identity import underlying_function, variant_of
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


class Component:
    """A thing that is called, and recorded."""

    __slots__ = (
        "__weakref__",
        "_provider",
        "_tracer",
        "_variant",
        "attributes",
        "attributes_at_start",
        "capture",
        "capture_args",
        "capture_result",
        "function",
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
    ) -> None:
        """Make a component.

        Args:
            layer: One of `LAYERS`.
            name: What it is called in what is recorded; by default the function's qualified name.
            function: The Python function behind it, None where there is none.
            capture_args, capture_result: Whether its inputs and outputs are captured, if the settings want any.

        Raises:
            ConfigurationError: The layer is none.
        """
        settings = recording_settings()
        self.layer: Layer = check_layer(layer)
        self.function = underlying_function(function)
        self.name = name or _qualified_name(self.function or function) or "(unnamed)"
        self.capture: Capture = settings.capture.value(self.layer, self.name)
        self.capture_args = capture_args and self.capture != "none"
        self.capture_result = capture_result and self.capture != "none"
        is_budgeted = self.layer == "function" or settings.overhead_budget.is_set_for(self.name)
        budget = settings.overhead_budget.value(self.layer, self.name) if is_budgeted else None
        self.meter = meter_of(self.layer, self.name, budget)
        self.thrift = Thrift()
        self.parameters = _parameters(self.function)
        self.attributes = self._static_attributes()
        self.attributes_at_start: dict[str, Any] | None = self.attributes
        self._provider: Any = None
        self._tracer: Any = None
        self._variant: tuple[Any, Any, str | None] = (None, None, None)

    @property
    def tracer(self) -> Any:
        """The tracer of the provider that is set now."""
        provider = trace.get_tracer_provider()
        if provider is not self._provider:
            self._tracer = trace.get_tracer(_SCOPE)
            self._provider = provider
            # Only a sampler needs them at the start, where they cost ten times as much; the default one does not.
            self.attributes_at_start = None if _is_default(getattr(provider, "sampler", None)) else self.attributes
        return self._tracer

    def variant(self) -> str | None:
        """Return the hash of the code that a call would run now; the code itself goes into the store once."""
        function = self.function
        if function is None:
            return None
        code, defaults, variant = self._variant
        if code is not function.__code__ or defaults is not function.__defaults__:
            variant = variant_of(function)
            if not function.__closure__:  # else the variant depends on more than these
                self._variant = function.__code__, function.__defaults__, variant
        if variant is not None and not OUTBOX.has_sent(variant) and OUTBOX.is_open:
            OUTBOX.put_code(variant, functools.partial(_describe, function, variant))
        return variant

    def is_measured_now(self) -> bool:
        """Return whether the memory and I/O of the call that begins now are worth reading."""
        if self.layer == "function":
            return self.meter.mean_ns >= LONG_FUNCTION_NS
        return self.thrift.looks()

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
    return code_of(function, variant)


def _is_default(sampler: Any) -> bool:
    return sampler is DEFAULT_ON or type(sampler) is StaticSampler


@functools.lru_cache(maxsize=_MAX_NAMED)
def named_component(layer: str, name: str) -> Component:
    """Return the component of a layer that has no function of its own, such as a `with` block."""
    return Component(layer, name)


def _qualified_name(function: Any) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        return type(function).__qualname__ if function is not None else ""
    return f"{module}.{name}" if isinstance(module, str) and module else name


def _parameters(function: FunctionType | None) -> tuple[str, ...]:
    """Return the names of positional parameters; arguments are captured under them."""
    if function is None:
        return ()
    code = function.__code__
    return code.co_varnames[: code.co_argcount]
