"""The whole loop on the code evolver: found, changed, proven. See README.md.

python examples/closed_loop/loop.py [FOLDER]
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
EVOLVER = HERE.parent / "code_evolver"
BIN = Path(sys.executable).parent
TESTS = f"{sys.executable} -m pytest -q -p no:cacheprovider tests"

PYPROJECT = """
[tool.otel-debugstore.targets]
"functions.unique:unique" = { layer = "tool", pure = true }
"src.local_model:generate" = { layer = "tool", pure = true }

[tool.otel-debugstore.thresholds.component."functions.unique.unique"]
max-p95-ms = 0.5

[tool.otel-debugstore.thresholds.component."src.local_model.generate"]
max-p95-ms = 0.1
"""

PLANTED = ("wrong", "slower", "breaking")


def main() -> None:
    """Run in the folder of the command line, or in a temporary one, and print what was found and proven."""
    with tempfile.TemporaryDirectory() as temporary:
        project = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve() / "project"
        prepare(project)
        record(project)
        result = {"audit": audit(project), "unique": {}, "generate": {}}
        for name in (*PLANTED, "coder"):
            command = f"{sys.executable} {HERE / 'optimizers' / name}.py"
            result["unique"][name] = optimize(project, "functions.unique.unique", command)
        result["generate"]["mechanical"] = optimize(project, "src.local_model.generate", "mechanical")
        print(json.dumps(result, indent=1))


def prepare(project: Path) -> None:
    """Copy the code evolver, and write the functions that it starts with, tests, and settings."""
    shutil.copytree(EVOLVER, project, ignore=shutil.ignore_patterns("__pycache__"))
    (project / "tests").mkdir()
    shutil.copy(HERE / "test_functions.py", project / "tests")
    shutil.copy(HERE / "workload.py", project)
    (project / "pyproject.toml").write_text(PYPROJECT)
    write = "from pathlib import Path; from src import material; material.write_functions(Path('functions'))"
    subprocess.run([sys.executable, "-c", write], cwd=project, check=True)


def record(project: Path) -> None:
    """Run the workload, recorded."""
    instrument = [BIN / "opentelemetry-instrument", "--traces_exporter", "debugstore"]
    others = ["--metrics_exporter", "none", "--logs_exporter", "none"]
    run([*instrument, *others, sys.executable, "workload.py"], project)


def audit(project: Path) -> dict[str, Any]:
    """Return what does not keep its limits; it is in the queue then."""
    for component in ("functions.unique.unique", "src.local_model.generate"):
        command = [BIN / "debugstore", "audit", component, "--test-command", TESTS, "--format", "json"]
        json.loads(run(command, project, codes=(1,)))
    found = run([BIN / "debugstore", "queue", "list", "--format", "json"], project)
    return {item["component"]: item["state"] for item in json.loads(found)}


def optimize(project: Path, component: str, optimizer: str) -> dict[str, Any]:
    """Have an optimizer work on a component; return what became of it."""
    command = [BIN / "debugstore", "optimize", component, "--with", optimizer, "--seconds", "10", "--format", "json"]
    found = json.loads(run(command, project, codes=(0, 1)))
    attempt = found["attempts"][-1]
    replay = attempt["replay"] or {}
    return {
        "state": found["state"],
        "title": attempt["title"],
        "why": attempt["why"],
        "verdict": replay.get("verdict"),
        "ratio": replay.get("ratio"),
        "interval": [replay.get("low"), replay.get("high")],
        "inputs": replay.get("right"),
        "patch": found["patch"],
    }


def run(command: list[Any], project: Path, codes: tuple[int, ...] = (0,)) -> str:
    """Return what a command prints that ends with one of these exit codes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "_OTEL_"))}
    done = subprocess.run(
        [str(word) for word in command], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in codes:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    main()
