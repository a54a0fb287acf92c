"""What is recorded of a `ToolsManager`: each invocation is a call of the tool, whose id is its component."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final

from otel_debugstore.attributes import GEN_AI_OPERATION_NAME, GEN_AI_TOOL_NAME
from otel_debugstore.instrumentors.arguments import text
from otel_debugstore.instrumentors.observed import Arguments, Judge, What, recording
from otel_debugstore.instrumentors.outcomes import judge_answer, judge_mapping
from otel_debugstore.instrumentors.patching import Patches

TOOLS: Final[Mapping[str, Judge]] = {
    "invoke_llm_tool": judge_answer,
    "invoke_openapi_tool": judge_mapping,
    "invoke_executable_tool": judge_mapping,
}
WITH_FALLBACK: Final = "invoke_llm_tool_with_fallback"


def is_hook(module: ModuleType) -> bool:
    """Return whether the class is there."""
    return isinstance(getattr(module, "ToolsManager", None), type)


def patch(module: ModuleType, patches: Patches) -> None:
    """Record invocations; the attempts of one with a fallback are tools below a function."""
    kind = module.ToolsManager
    for method, judge in TOOLS.items():
        patches.wrap(kind, method, recording(What("tool", _tool_id, judge, _attributes)))
    patches.wrap(kind, WITH_FALLBACK, recording(What("function", _with_fallback, judge_answer, has_code=True)))


def _tool_id(arguments: Arguments) -> str:
    return text(arguments["tool_id"], "unnamed tool")


def _with_fallback(arguments: Arguments) -> str:
    return f"ToolsManager.{WITH_FALLBACK}"


def _attributes(arguments: Arguments) -> Mapping[str, Any]:
    return {GEN_AI_OPERATION_NAME: "execute_tool", GEN_AI_TOOL_NAME: _tool_id(arguments)}
