"""`Registry`: what is known of every node, as JSON files in a folder."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from src import audit


class Registry:
    """Nodes, their metrics, evaluations and run logs."""

    def __init__(self, registry_path: str | Path) -> None:
        self.path = Path(registry_path)
        self.path.mkdir(parents=True, exist_ok=True)

    def create_node(
        self, node_id: str, title: str, version: str = "1.0.0", node_type: str = "processor", tags: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """Add a node, or replace it by another version."""
        with audit.call("create_node", node_id):
            node = {
                "node_id": node_id,
                "title": title,
                "version": version,
                "node_type": node_type,
                "tags": list(tags),
                "created": datetime.now(UTC).isoformat(),
            }
            self._write(node_id, "node", node)
            self.update_index()
            return node

    def get_node(self, node_id: str) -> dict[str, Any]:
        """Return a node.

        Raises:
            FileNotFoundError: There is none of that id.
        """
        with audit.call("get_node", node_id):
            return self._read(node_id, "node")

    def list_nodes(self) -> list[str]:
        """Return the ids of all nodes, sorted."""
        with audit.call("list_nodes", ""):
            return sorted(path.parent.name for path in self.path.glob("*/node.json"))

    def save_metrics(self, node_id: str, metrics: dict[str, Any]) -> None:
        """Append the metrics of one run."""
        with audit.call("save_metrics", node_id):
            path = self.path / node_id / "metrics.json"
            runs = json.loads(path.read_text()) if path.exists() else []
            self._write(node_id, "metrics", [*runs, metrics])

    def get_metrics(self, node_id: str) -> list[dict[str, Any]]:
        """Return the metrics of all runs."""
        with audit.call("get_metrics", node_id):
            path = self.path / node_id / "metrics.json"
            runs: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
            return runs

    def save_evaluation(self, node_id: str, evaluation: dict[str, Any]) -> None:
        """Keep what a node was found to be worth."""
        with audit.call("save_evaluation", node_id):
            self._write(node_id, "evaluation", evaluation)

    def save_run_log(self, node_id: str, log: str) -> None:
        """Keep what a node printed last."""
        with audit.call("save_run_log", node_id):
            self._folder(node_id).joinpath("run.log").write_text(log)

    def update_index(self) -> None:
        """Write the list of all nodes."""
        with audit.call("update_index", ""):
            (self.path / "index.json").write_text(json.dumps(self.list_nodes()))

    def _folder(self, node_id: str) -> Path:
        folder = self.path / node_id
        folder.mkdir(exist_ok=True)
        return folder

    def _write(self, node_id: str, what: str, value: object) -> None:
        self._folder(node_id).joinpath(f"{what}.json").write_text(json.dumps(value, indent=1))

    def _read(self, node_id: str, what: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / node_id / f"{what}.json").read_text())
        return found
