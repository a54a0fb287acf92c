"""What is recorded of a `NodeRuntime`, and of the functions beside it that do the same.

The functions mostly call the method of the same name: then the function's call is recorded, and not the
method's too. `call_tools_parallel` carries context into the threads of its pool.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from types import ModuleType
from typing import Any, Final

from otel_debugstore.attributes import GEN_AI_OPERATION_NAME, GEN_AI_TOOL_NAME
from otel_debugstore.instrumentors import thread_pools
from otel_debugstore.instrumentors.arguments import text
from otel_debugstore.instrumentors.observed import Arguments, What, guarded, recording
from otel_debugstore.instrumentors.outcomes import judge_answer, judge_text
from otel_debugstore.instrumentors.patching import Patches, Wrapper

_delegated: ContextVar[tuple[str, object] | None] = ContextVar("otel_debugstore_delegated", default=None)
"""The function that runs here and is recorded, with its first argument, until it calls its method."""


def is_hook(module: ModuleType) -> bool:
    """Return whether the class is there."""
    return isinstance(getattr(module, "NodeRuntime", None), type)


def patch(module: ModuleType, patches: Patches) -> None:
    """Record calls of tools and models."""
    for name, what in _CALLS.items():
        patches.wrap(module.NodeRuntime, name, _unless_delegated(name, recording(what)))
        if getattr(vars(module).get(name), "__module__", None) == module.__name__:
            patches.wrap(module, name, _delegating(name, recording(what, is_method=False)))
    thread_pools.carry_where_asked(patches)


def _tool(arguments: Arguments) -> str:
    return f"call_tool:{text(arguments['tool_name'], 'unnamed tool')}"


def _model(arguments: Arguments) -> str:
    return f"call_llm:{text(arguments['model'], 'unnamed model')}"


def _parallel(arguments: Arguments) -> str:
    return "call_tools_parallel"


def _tool_attributes(arguments: Arguments) -> Mapping[str, Any]:
    return {GEN_AI_OPERATION_NAME: "execute_tool", GEN_AI_TOOL_NAME: text(arguments["tool_name"], "unnamed tool")}


def _model_attributes(arguments: Arguments) -> Mapping[str, Any]:
    return {GEN_AI_OPERATION_NAME: "chat", "gen_ai.request.model": text(arguments["model"], "unnamed model")}


_CALLS: Final = {
    "call_tool": What("tool", _tool, judge_text, _tool_attributes),
    "call_llm": What("tool", _model, judge_answer, _model_attributes),
    "call_tools_parallel": What("function", _parallel, has_code=True),
}


def _delegating(name: str, make: Callable[[Any], Wrapper]) -> Callable[[Any], Wrapper]:
    """Record a function, and note that its method is not to be recorded too."""

    def make_wrapper(original: Any) -> Wrapper:
        record = make(original)
        carries = thread_pools.carrying if name == "call_tools_parallel" else None

        def note(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            def call(*inner: Any, **named: Any) -> Any:
                token = _delegated.set((name, guarded(_first, args, kwargs)))
                try:
                    return carries(wrapped, inner, named) if carries else wrapped(*inner, **named)
                finally:
                    _delegated.reset(token)

            return record(call, instance, args, kwargs)

        return note

    return make_wrapper


def _unless_delegated(name: str, make: Callable[[Any], Wrapper]) -> Callable[[Any], Wrapper]:
    """Record a method, unless the function that is recorded already has called it."""

    def make_wrapper(original: Any) -> Wrapper:
        record = make(original)
        carries = thread_pools.carrying if name == "call_tools_parallel" else None

        def call(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            def run(*inner: Any, **named: Any) -> Any:
                token = _delegated.set(None)
                try:
                    return carries(wrapped, inner, named) if carries else wrapped(*inner, **named)
                finally:
                    _delegated.reset(token)

            found = _delegated.get()
            if found is not None and found[0] == name and found[1] is guarded(_first, args, kwargs):
                return run(*args, **kwargs)
            return record(run, instance, args, kwargs)

        return call

    return make_wrapper


def _first(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> object:
    return args[0] if args else next(iter(kwargs.values()), None)
