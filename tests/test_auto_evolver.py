"""A host's `AutoEvolver`: recorded, and as an optimizer whose evolutions count only if they are proven."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instrumented import run_instrumented
from otel_debugstore import AutoEvolverInstrumentor
from otel_debugstore_analysis.optimizer import Optimizer, ProvenEvolver
from otel_debugstore_analysis.queue import OptimizationQueue
from recording import Memory, modules
from replayed import QUICK, queued

RUNNER = """
    import json
    import subprocess
    import sys
    from pathlib import Path

    class NodeRunner:
        def __init__(self, nodes_dir):
            self.nodes_dir = Path(nodes_dir)

        def run_node(self, node_id, input_payload, timeout_ms=600000, filename="main.py"):
            done = subprocess.run(
                [sys.executable, filename], cwd=self.nodes_dir / node_id, input=json.dumps(input_payload),
                capture_output=True, text=True,
            )
            return done.stdout, done.stderr, {"success": done.returncode == 0 and not done.stderr, "latency_ms": 1.0}
"""
EVOLVER = """
    from pathlib import Path

    class AutoEvolver:
        def __init__(self, nodes_dir, code=""):
            self.nodes_dir, self.code, self.scores = Path(nodes_dir), code, []

        def should_evolve(self, node_id):
            return True

        def record_performance(self, node_id, metrics, score):
            self.scores.append(score)

        def evolve_node(self, node_id):
            if self.code:
                (self.nodes_dir / node_id / "main.py").write_text(self.code)
                (self.nodes_dir / node_id / "notes.py").write_text("# new")
"""
NODE = """
import json, sys, time
task = json.load(sys.stdin)
if task["n"] < 0:
    sys.exit("below zero")
total = 0
for number in range(task["n"]):
    total += number * number
print(json.dumps({"total": total, "ms": time.perf_counter() * 1000}))
"""
LOOP = NODE[NODE.index("total = 0") : NODE.index("print")]
BETTER = NODE.replace(LOOP, 'n = task["n"]\ntotal = (n - 1) * n * (2 * n - 1) // 6 if n else 0\n')
WRONG = NODE.replace(LOOP, "total = 0\n")
SILENT = NODE.replace('sys.exit("below zero")', "task['n'] = 0")
PROGRAM = """
import sys
sys.path.insert(0, ".")
from node_runner import NodeRunner
runner = NodeRunner("nodes")
for n in (0, 5, 900000, 1000000, 1100000, -1):
    runner.run_node("squares", {"n": n})
"""


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A host that was recorded running a node."""
    folder = tmp_path_factory.mktemp("host")
    (folder / "nodes" / "squares").mkdir(parents=True)
    (folder / "nodes" / "squares" / "main.py").write_text(NODE)
    with modules(folder, node_runner=RUNNER, auto_evolver=EVOLVER):
        pass
    (folder / "main.py").write_text(PROGRAM)
    done = run_instrumented("main.py", folder=folder, debugstore_session="s")
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.fixture
def host(recorded: Path) -> Iterator[Path]:
    """The same, its modules importable, and its node as it was."""
    main = recorded / "nodes" / "squares" / "main.py"
    with modules(recorded, node_runner=RUNNER, auto_evolver=EVOLVER):
        yield recorded
    main.write_text(NODE)


def evolver(host: Path, code: str, **options: Any) -> ProvenEvolver:
    """Return the host's object, proven, that writes this code."""
    nodes = host / "nodes"
    runner = importlib.import_module("node_runner").NodeRunner(nodes)
    made = importlib.import_module("auto_evolver").AutoEvolver(nodes, code)
    return ProvenEvolver(made, runner, host / "debug_data", ignored=("ms",), options=QUICK, **options)


def test_evolutions_are_recorded(host: Path) -> None:
    """Each is a tool named by its node; what is asked and noted is recorded as functions."""
    memory = Memory()
    AutoEvolverInstrumentor().instrument()
    try:
        made = importlib.import_module("auto_evolver").AutoEvolver(host / "nodes")
        assert made.should_evolve("squares")
        made.record_performance("squares", {}, 0.5)
        assert made.evolve_node(node_id="squares") is None
        assert made.scores == [0.5]
    finally:
        AutoEvolverInstrumentor().uninstrument()
    found = {said.path[-1]: said.layer for said in memory.said()}
    assert found == {
        "AutoEvolver.should_evolve": "function",
        "AutoEvolver.record_performance": "function",
        "evolve_node:squares": "tool",
    }


def test_the_queue_is_asked(host: Path) -> None:
    """A node should evolve if the queue has it, and nobody works on it; all else is the host's."""
    made = evolver(host, "")
    assert isinstance(made, Optimizer)
    assert not made.should_evolve("other")
    item = queued(host / "debug_data", "other", layer="node")
    assert made.should_evolve("other")
    OptimizationQueue(host / "debug_data").claim(item.id, "somebody")
    assert not made.should_evolve("other")
    made.record_performance("other", {}, 0.7)
    assert made.scores == [0.7]


@pytest.mark.parametrize(("code", "said"), [(WRONG, "where .* is right"), (SILENT, "where .* is right")])
def test_a_wrong_evolution_is_undone(host: Path, code: str, said: str) -> None:
    """One that prints something else, or no longer fails where the node did, is rejected; the node is as it was."""
    item = queued(host / "debug_data", "squares", layer="node")
    made = evolver(host, code)
    assert made.evolve_node("squares") is None
    assert made.last
    assert (made.last.verdict, made.last.inputs) == ("wrong", 6)
    assert OptimizationQueue(host / "debug_data").get(item.id).state == "rejected"
    folder = host / "nodes" / "squares"
    assert (folder / "main.py").read_text() == NODE
    assert [path.name for path in folder.iterdir()] == ["main.py"]


def test_no_evolution(host: Path) -> None:
    """Where nothing is written the item is open again."""
    item = queued(host / "debug_data", "squares", layer="node")
    made = evolver(host, "")
    made.evolve_node("squares")
    assert made.last is None
    assert OptimizationQueue(host / "debug_data").get(item.id).state == "open"


def test_nothing_is_raised_at_the_host(host: Path) -> None:
    """Where nothing can be proven the node stays as it is, and `last` says why; a host may ask at any time."""
    queue = OptimizationQueue(host / "debug_data")
    made = evolver(host, WRONG)
    assert made.evolve_node("nobody") is None
    assert made.last
    assert "nobody" in made.last.cause
    item = queued(host / "debug_data", "squares", layer="node")
    queue.claim(item.id, "somebody")
    assert made.evolve_node("squares") is None
    assert made.last
    assert "is claimed by 'somebody'" in made.last.cause
    queue.release(item.id, "somebody")
    proof = {"verdict": "faster", "ratio": 0.5, "low": 0.4, "high": 0.6, "checked": 1, "component": "squares"}
    closed = queue.prove(item.id, proof)
    assert made.evolve_node("squares") is None
    assert made.last
    assert made.last.verdict == "wrong"
    assert queue.get(item.id) == closed
    assert (host / "nodes" / "squares" / "main.py").read_text() == NODE


@pytest.mark.slow
def test_a_better_evolution_is_kept(host: Path) -> None:
    """One that is faster and prints the same is proven, and in its place."""
    item = queued(host / "debug_data", "squares", layer="node")
    made = evolver(host, BETTER)
    made.evolve_node("squares")
    assert made.last
    assert made.last.verdict == "faster", made.last.cause
    assert made.last.right == 6
    proven = OptimizationQueue(host / "debug_data").get(item.id)
    assert proven.state == "proven"
    assert (host / "nodes" / "squares" / "main.py").read_text() == BETTER
    (host / "nodes" / "squares" / "notes.py").unlink()
