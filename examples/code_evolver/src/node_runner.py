"""`NodeRunner`: runs nodes, each a folder with a `main.py` that reads JSON on stdin and prints JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from src import audit


class NodeRunner:
    """Runs nodes as child processes. What a node prints on stderr is a failure, whatever its exit code."""

    def __init__(self, nodes_dir: str | Path) -> None:
        self.nodes_dir = Path(nodes_dir)
        self.nodes_dir.mkdir(parents=True, exist_ok=True)

    def save_code(self, node_id: str, code: str, filename: str = "main.py") -> Path:
        """Write a node's code."""
        with audit.call("save_code", node_id):
            folder = self.nodes_dir / node_id
            folder.mkdir(exist_ok=True)
            (folder / filename).write_text(code)
            return folder / filename

    def run_node(
        self, node_id: str, input_payload: dict[str, Any], timeout_ms: int = 600000, filename: str = "main.py"
    ) -> tuple[str, str, dict[str, Any]]:
        """Run a node; return its stdout, its stderr and its metrics. It does not raise when the node fails."""
        with audit.call("run_node", node_id) as entry:
            stdout, stderr, exit_code, error, latency_ms = "", "", -1, None, 0.0
            folder = self.nodes_dir / node_id
            if not (folder / filename).exists():
                error = f"{node_id} has no {filename}"
            else:
                began = time.perf_counter()
                process = subprocess.Popen(
                    [sys.executable, filename],
                    cwd=folder,
                    env=self._environment(folder),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                try:
                    stdout, stderr = process.communicate(
                        json.dumps(input_payload | {"caller": entry.id}), timeout=timeout_ms / 1000
                    )
                    exit_code = process.returncode
                    error = stderr.strip() or None
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.communicate()
                    error = f"timed out after {timeout_ms} ms"
                latency_ms = (time.perf_counter() - began) * 1000
            success = exit_code == 0 and not stderr
            if not success:
                error = error or ""
                entry.outcome = "timeout" if error.startswith("timed out") else "error"
            metrics = {
                "timestamp": datetime.now(UTC).isoformat(),
                "latency_ms": latency_ms,
                "cpu_time_ms": 0.0,
                "memory_mb_peak": 0.0,
                "exit_code": exit_code,
                "error": error,
                "timeout_ms": timeout_ms,
                "success": success,
            }
            return stdout, stderr, metrics

    @staticmethod
    def _environment(folder: Path) -> dict[str, str] | None:
        """Return the environment of a node that needs something more than ours."""
        path = folder / "environment.json"
        return os.environ | json.loads(path.read_text()) if path.exists() else None
