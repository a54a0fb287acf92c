"""`NodeRuntime`: what nodes and workflows call tools and models with; and the same as functions."""

from __future__ import annotations

import functools
import json
import os
import traceback
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from src import audit
from src.local_model import generate
from src.tools_manager import ToolsManager

TOOLS_VARIABLE = "EVOLVER_TOOLS"

ToolCall = tuple[str, str, dict[str, Any]]


class NodeRuntime:
    """Calls tools by name. It never raises: what went wrong is in the text that it returns."""

    def __init__(self, tools: ToolsManager | None = None) -> None:
        self.tools = tools or ToolsManager(os.environ[TOOLS_VARIABLE])

    def call_tool(self, tool_name: str, prompt: str, **kw: Any) -> str:
        """Return a tool's answer as text, or the traceback of its failure."""
        with audit.call("call_tool", tool_name) as entry:
            try:
                kind = self.tools.tools.get(tool_name, {}).get("kind")
                if kind == "executable":
                    return json.dumps(self.tools.invoke_executable_tool(tool_name, source_file=prompt, **kw))
                if kind == "openapi":
                    return json.dumps(self.tools.invoke_openapi_tool(tool_name, prompt, parameters=kw))
                return self.tools.invoke_llm_tool_with_fallback(tool_name, prompt, **kw)
            except Exception:  # noqa: BLE001  # it is the caller's to read
                entry.outcome = "error"
                return f"Error: {tool_name} failed\n{traceback.format_exc()}"

    def call_llm(self, model: str, prompt: str, **kw: Any) -> str:
        """Return a model's answer; "" if it fails."""
        with audit.call("call_llm", model) as entry:
            answer = generate(model, prompt)
            entry.outcome = "ok" if answer else "error"
            return answer

    def call_tools_parallel(self, tool_calls: Sequence[ToolCall]) -> list[str]:
        """Return the answers of several tools, called at the same time, in the order of the calls."""
        with audit.call("call_tools_parallel", "") as entry, ThreadPoolExecutor(4) as pool:

            def one(tool_call: ToolCall) -> str:
                tool_name, prompt, kw = tool_call
                with audit.below(entry.id):
                    return self.call_tool(tool_name, prompt, **kw)

            return list(pool.map(one, tool_calls))


@functools.cache
def _runtime() -> NodeRuntime:
    return NodeRuntime()


def call_tool(tool_name: str, prompt: str, **kw: Any) -> str:
    """Return a tool's answer, as `NodeRuntime.call_tool` does."""
    return _runtime().call_tool(tool_name, prompt, **kw)


def call_llm(model: str, prompt: str, **kw: Any) -> str:
    """Return a model's answer, as `NodeRuntime.call_llm` does."""
    return _runtime().call_llm(model, prompt, **kw)


def call_tools_parallel(tool_calls: Sequence[ToolCall]) -> list[str]:
    """Return several tools' answers, as `NodeRuntime.call_tools_parallel` does."""
    return _runtime().call_tools_parallel(tool_calls)
