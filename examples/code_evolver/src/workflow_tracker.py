"""`WorkflowTracker`: notes what a workflow does, step by step."""

from __future__ import annotations

from typing import Any

from src import audit


class WorkflowTracker:
    """The steps of one workflow and their states. Ids that it does not know are ignored."""

    def __init__(self, workflow_id: str, description: str = "", context: dict[str, Any] | None = None) -> None:
        self.workflow_id = workflow_id
        self.description = description
        self.context = context or {}
        self.steps: dict[str, dict[str, Any]] = {}
        self.is_finished = False
        self._entry = audit.Entry("workflow", workflow_id, audit.caller(), outcome="unfinished")
        self._entries: dict[str, audit.Entry] = {}

    def add_step(
        self, step_id: str, tool_name: str, description: str = "", inputs: dict[str, Any] | None = None
    ) -> None:
        """Announce a step."""
        self.steps[step_id] = {"tool_name": tool_name, "description": description, "inputs": inputs, "state": "added"}

    def start_step(self, step_id: str) -> None:
        """Note that a step begins."""
        if step_id in self.steps:
            self.steps[step_id]["state"] = "running"
            self._entries[step_id] = audit.Entry("step", step_id, self._entry.id, outcome="unfinished")

    def complete_step(self, step_id: str, output: object = None, metadata: dict[str, Any] | None = None) -> None:
        """Note that a step has done its work."""
        self._end(step_id, "ok", {"output": output, "metadata": metadata})

    def fail_step(self, step_id: str, error: str) -> None:
        """Note that a step has failed."""
        self._end(step_id, "error", {"error": error})

    def finish(self) -> None:
        """Note that the workflow is at its end."""
        self.is_finished = True
        self._entry.outcome = "ok"
        self.write_account()

    def write_account(self) -> None:
        """Account for the workflow, and for the steps that did not end."""
        for entry in [*self._entries.values(), self._entry]:
            entry.write()
        self._entries.clear()

    def _end(self, step_id: str, outcome: str, found: dict[str, Any]) -> None:
        if step_id in self.steps:
            self.steps[step_id] |= {"state": outcome} | found
            if entry := self._entries.pop(step_id, None):
                entry.outcome = outcome
                entry.write()
