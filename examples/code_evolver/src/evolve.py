"""The evolver: has every function analysed, improved and verified by tools and nodes, and keeps what is better."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

from src import material
from src.node_runner import NodeRunner
from src.node_runtime import NodeRuntime, call_tool
from src.registry import Registry
from src.tools_manager import ToolsManager
from src.workflow_tracker import WorkflowTracker

HOME = Path(__file__).parents[1]


class Evolver:
    """One run over the functions in a folder."""

    def __init__(self, workdir: Path) -> None:
        self.functions = workdir / "functions"
        material.write_functions(self.functions)
        material.write_tools(workdir / "tools")
        self.registry = Registry(workdir / "registry")
        self.runner = NodeRunner(workdir / "nodes")
        self.runtime = NodeRuntime(ToolsManager(workdir / "tools"))
        self.shelf = importlib.import_module("registry").Registry(
            workdir / "shelf"
        )  # the same module by its other name
        self.trackers: list[WorkflowTracker] = []

    def run(self) -> dict[str, Any]:
        """Do everything; return what came of it."""
        self._create_nodes()
        found = {
            "survey": self._survey(),
            "improved": self._improve_interleaved("fibonacci", "unique"),
            "abandoned": [self._give_up("mean"), self._give_up("broken")],
            "failures": self._failures(),
            "unfinished": self._leave_open("unique"),
        }
        for tracker in self.trackers:
            if not tracker.is_finished:
                tracker.write_account()
        return found

    def _create_nodes(self) -> None:
        for node_id, code in material.NODES.items():
            path = self.runner.save_code(node_id, code)
            if extra := material.EXTRA_ENVIRONMENT.get(node_id):
                (path.parent / "environment.json").write_text(json.dumps(extra))
            self.registry.create_node(node_id, title=node_id.replace("_", " "), node_type="processor")

    def _survey(self) -> dict[str, Any]:
        """Measure all sources at the same time; one does not compile."""
        names = sorted(material.FUNCTIONS)
        answers = self.runtime.call_tools_parallel([("measure", str(self._path(name)), {}) for name in names])
        return {name: json.loads(answer) for name, answer in zip(names, answers, strict=True)}

    def _improve_interleaved(self, *names: str) -> dict[str, Any]:
        """Improve several functions, a step of each in turn."""
        trackers = {name: self._track(name) for name in names}
        improved = {}
        for name, tracker in trackers.items():
            tracker.start_step("improve")
            stdout, _, _ = self._run("improve", {"source": self._path(name).read_text(), "home": str(HOME)})
            improved[name] = json.loads(stdout)["source"]
        for name, tracker in trackers.items():
            tracker.complete_step("improve", output=improved[name], metadata={"characters": len(improved[name])})
            tracker.start_step("verify")
            tracker.start_step("no such step")
        results = {}
        for name, tracker in trackers.items():
            results[name] = self._verify(name, improved[name])
            tracker.complete_step("verify", output=results[name])
        for tracker in reversed(trackers.values()):
            tracker.finish()
        return results

    def _verify(self, name: str, source: str) -> dict[str, Any]:
        original = self._path(name).read_text()
        task = {"function": name, "cases": material.CASES[name], "sources": [original, source]}
        stdout, _, _ = self._run("verify", task | {"home": str(HOME), "nodes": str(self.runner.nodes_dir)})
        before, after = json.loads(stdout)
        better = not after["failures"] and after["ms"] < before["ms"]
        if better:
            self._path(name).write_text(source)
            self.shelf.create_node(name, title=f"improved {name}", node_type="function")
        return {"failures": len(after["failures"]), "better": better}

    def _give_up(self, name: str) -> str:
        """Test a function that fails, and drop the workflow without finishing it."""
        tracker = self._track(name)
        tracker.start_step("improve")
        task = {"source": self._path(name).read_text(), "function": name, "cases": material.CASES[name]}
        stdout, stderr, metrics = self._run("run_cases", task)
        reason = "its node fails" if not metrics["success"] else f"{len(json.loads(stdout)['failures'])} cases fail"
        tracker.fail_step("improve", stderr or reason)
        self.trackers.append(tracker)
        return f"{name}: {reason}"

    def _failures(self) -> dict[str, Any]:
        """Run everything that fails, each in its own way."""
        nodes = {}
        for node_id in ("exits", "raises", "warns", "hangs", "missing"):
            _, stderr, metrics = self._run(node_id, {}, timeout_ms=2000 if node_id == "hangs" else 60000)
            nodes[node_id] = {"exit_code": metrics["exit_code"], "stderr_lines": len(stderr.splitlines())}
        texts = [
            self.runtime.call_tool("scriptless", str(self._path("mean"))),
            self.runtime.call_tool("catalogue", "delete_everything"),
            call_tool("measure", str(self._path("missing"))),
            call_tool("measure", str(self._path("mean")), only="lines"),
        ]
        try:
            self.registry.get_node("nobody")
        except FileNotFoundError as error:
            texts.append(type(error).__name__)
        return {"nodes": nodes, "texts": [text.splitlines()[0][:40] for text in texts]}

    def _leave_open(self, name: str) -> int:
        tracker = self._track(name)
        tracker.start_step("verify")
        self.trackers.append(tracker)
        return len([step for step in tracker.steps.values() if step["state"] == "running"])

    def _run(self, node_id: str, task: dict[str, Any], timeout_ms: int = 60000) -> tuple[str, str, dict[str, Any]]:
        stdout, stderr, metrics = self.runner.run_node(node_id, task, timeout_ms=timeout_ms)
        if node_id in self.registry.list_nodes():
            self.registry.save_metrics(node_id, metrics)
            self.registry.save_run_log(node_id, stdout + stderr)
            if not metrics["success"]:
                self.registry.save_evaluation(node_id, {"score": 0.0, "error": metrics["error"]})
        return stdout, stderr, metrics

    @staticmethod
    def _track(name: str) -> WorkflowTracker:
        tracker = WorkflowTracker(f"evolve {name}", f"improve and verify {name}", {"function": name})
        tracker.add_step("improve", "coder", "have it rewritten", {"function": name})
        tracker.add_step("verify", "run_cases", "run its cases")
        return tracker

    def _path(self, name: str) -> Path:
        return self.functions / f"{name}.py"
