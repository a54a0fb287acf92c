"""`ToolsManager`: the tools that a tools folder declares, and how they are invoked."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

from src import audit
from src.local_model import generate


class ToolsManager:
    """Tools by their id, each declared by a JSON file `{tool_id}.json`."""

    def __init__(self, tools_dir: str | Path) -> None:
        self.tools_dir = Path(tools_dir)
        self.tools: dict[str, dict[str, Any]] = {
            path.stem: json.loads(path.read_text()) for path in sorted(self.tools_dir.glob("*.json"))
        }

    def invoke_llm_tool(self, tool_id: str, prompt: str, temperature: float = 0.0) -> str:
        """Return what the tool's model answers; "" if it fails."""
        with audit.call("invoke_llm_tool", tool_id) as entry:
            answer = generate(self._tool(tool_id, "llm")["model"], prompt)
            entry.outcome = "ok" if answer else "error"
            return answer

    def invoke_llm_tool_with_fallback(self, tool_id: str, prompt: str, temperature: float = 0.0) -> str:
        """Return the first answer among the tool and those that it falls back to."""
        with audit.call("invoke_llm_tool_with_fallback", tool_id) as entry:
            for candidate in [tool_id, *self._tool(tool_id, "llm").get("fallback", [])]:
                if answer := self.invoke_llm_tool(candidate, prompt, temperature=temperature):
                    return answer
            entry.outcome = "error"
            return ""

    def invoke_openapi_tool(
        self, tool_id: str, operation_id: str, parameters: dict[str, Any] | None = None, body: object = None
    ) -> dict[str, Any]:
        """Answer an operation from the file that stands for the service."""
        with audit.call("invoke_openapi_tool", tool_id) as entry:
            operations = self._tool(tool_id, "openapi")["operations"]
            if operation_id not in operations:
                entry.outcome = "error"
                return {"success": False, "error": f"{tool_id} has no operation {operation_id}"}
            return {"success": True, "data": operations[operation_id], "parameters": parameters or {}, "body": body}

    def invoke_executable_tool(self, tool_id: str, source_file: str, **kw: Any) -> dict[str, Any]:
        """Run the tool's script over a source file, in this process.

        Raises:
            ValueError: The tool has no script.
        """
        with audit.call("invoke_executable_tool", tool_id) as entry:
            script = self._tool(tool_id, "executable").get("script")
            if not script:
                raise ValueError(f"{tool_id} has no script")
            try:
                found = runpy.run_path(str(self.tools_dir / script))["run"](Path(source_file).read_text(), **kw)
            except (SyntaxError, OSError) as error:
                entry.outcome = "error"
                return {"success": False, "error": f"{type(error).__name__}: {error}"}
            return {"success": True, "result": found}

    def _tool(self, tool_id: str, kind: str) -> dict[str, Any]:
        tool = self.tools.get(tool_id)
        if tool is None or tool["kind"] != kind:
            raise ValueError(f"there is no {kind} tool {tool_id}")
        return tool
