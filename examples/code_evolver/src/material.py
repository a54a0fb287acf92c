"""What the program starts with: functions to improve, tools, and the code of its nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FUNCTIONS = {
    "fibonacci": """
def fibonacci(n):
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)
""",
    "unique": """
def unique(values):
    found = []
    for value in values:
        if value not in found:
            found.append(value)
    return found
""",
    "mean": """
def mean(values):
    return sum(values) // len(values)
""",
    "broken": """
def broken(values)
    return values
""",
}

CASES: dict[str, list[tuple[list[Any], Any]]] = {
    "fibonacci": [([1], 1), ([10], 55), ([21], 10946)],
    "unique": [([[3, 1, 3, 2, 1]], [3, 1, 2]), ([list(range(900)) * 2], list(range(900)))],
    "mean": [([[1, 2]], 1.5)],
    "broken": [([[1]], [1])],
}

TOOLS: dict[str, dict[str, Any]] = {
    "critic": {"kind": "llm", "model": "critic"},
    "coder": {"kind": "llm", "model": "coder"},
    "oracle": {"kind": "llm", "model": "oracle-9000", "fallback": ["coder"]},
    "mute": {"kind": "llm", "model": "oracle-9000"},
    "measure": {"kind": "executable", "script": "measure.py"},
    "scriptless": {"kind": "executable"},
    "catalogue": {"kind": "openapi", "operations": {"list_functions": sorted(FUNCTIONS)}},
}

MEASURE = """
import ast

def run(source, only=""):
    nodes = list(ast.walk(ast.parse(source)))
    loops = sum(isinstance(node, (ast.For, ast.While)) for node in nodes)
    return {"nodes": len(nodes), "loops": loops, "lines": source.count("\\n")}
"""

RUN_CASES = """
import json, sys, time

task = json.load(sys.stdin)
names = {}
exec(task["source"], names)
failures = []
began = time.perf_counter()
for arguments, expected in task["cases"]:
    found = names[task["function"]](*arguments)
    if found != expected:
        failures.append({"arguments": arguments, "found": found, "expected": expected})
print(json.dumps({"failures": failures, "ms": (time.perf_counter() - began) * 1000}))
"""

IMPROVE = """
import json, os, sys

task = json.load(sys.stdin)
sys.path[:0] = [task["home"], task["home"] + "/src"]
from src import audit
from node_runtime import call_llm, call_tool, call_tools_parallel

prompt = os.environ["EVOLVER_ORDER"] + "\\n" + task["source"]
with audit.below(task["caller"]):
    remarks = call_tools_parallel([("critic", prompt, {}), ("mute", prompt, {}), ("oracle", prompt, {})])
    silence = call_llm("poet", prompt)
    improved = call_llm("coder", prompt)
    kept = call_tool("catalogue", "list_functions")
print(json.dumps({"remarks": remarks[0], "silence": silence, "source": improved, "known": json.loads(kept)["data"]}))
"""

VERIFY = """
import json, sys

task = json.load(sys.stdin)
sys.path[:0] = [task["home"], task["home"] + "/src"]
from src import audit
from src.node_runner import NodeRunner

with audit.below(task["caller"]):
    runner = NodeRunner(task["nodes"])
    outputs = [runner.run_node("run_cases", task | {"source": source})[0] for source in task["sources"]]
print(json.dumps([json.loads(output) for output in outputs]))
"""

NODES = {
    "run_cases": RUN_CASES,
    "improve": IMPROVE,
    "verify": VERIFY,
    "exits": "import sys\nsys.exit(3)\n",
    "raises": "raise LookupError('nothing to be found')\n",
    "warns": "import sys\nprint('{}')\nprint('deprecated', file=sys.stderr)\n",
    "hangs": "import time\ntime.sleep(60)\n",
}

EXTRA_ENVIRONMENT = {"improve": {"EVOLVER_ORDER": "Improve this function."}}


def write_functions(folder: Path) -> None:
    """Write the sources of the functions, a file each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in FUNCTIONS.items():
        (folder / f"{name}.py").write_text(source.lstrip())


def write_tools(folder: Path) -> None:
    """Write the declarations of the tools, and the script of one."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, declaration in TOOLS.items():
        (folder / f"{name}.json").write_text(json.dumps(declaration))
    (folder / "measure.py").write_text(MEASURE)
