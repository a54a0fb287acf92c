"""Figure 6: how long a child node takes, from its start to its end, when it does next to nothing.

By the example's own `NodeRunner`, which takes the time itself: without OpenTelemetry (bare), under
`opentelemetry-instrument` without us (stock, with the exporter that loads least), and with us, full and light.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from benchmarks.measure import ROOT, Figure, Options, environment, interleaved, median, scratch
from benchmarks.stock import instrumented, stock_python

_HOST: Final = ROOT / "examples" / "code_evolver"
_RUNS: Final = 5
_PROGRAM: Final = f"""
import json, sys
sys.path.insert(0, {str(_HOST)!r})
from src.node_runner import NodeRunner
runner = NodeRunner("nodes")
runner.save_code("node", "import json, sys\\nprint(json.dumps(json.load(sys.stdin)))\\n")
found = [runner.run_node("node", {{}})[2] for _ in range({_RUNS} + 1)]
assert all(metrics["success"] for metrics in found), found
print(json.dumps([metrics["latency_ms"] for metrics in found[1:]]))
"""
_KINDS: Final = ("bare", "stock", "stock with otlp", "full", "light")


def figures(options: Options) -> list[Figure]:
    """Measure figure 6."""
    with scratch() as folder:
        (folder / "program.py").write_text(_PROGRAM)
        stock = stock_python(folder)
        runs = interleaved(lambda kind: _milliseconds(kind, folder, stock), _KINDS, options.repeats(9))
    bare, plain, otlp, full, light = (median([one for run in runs[kind] for one in run]) for kind in _KINDS)
    detail = f"bare {bare:.0f}, stock {plain:.0f} (with OTLP {otlp:.0f}), full {full:.0f}, light {light:.0f} ms"
    return [
        Figure("6", "a child node's start: full / stock", full / plain, 1.15, "x", detail=detail),
        Figure("6", "a child node's start: full / stock with OTLP over HTTP", full / otlp, None, "x"),
        Figure("6", "a child node's start: light less bare", light - bare, 40, "ms", detail=detail),
    ]


def _milliseconds(kind: str, folder: Path, stock: Path) -> list[float]:
    variables = {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    program = folder / "program.py"
    if kind == "bare":
        command = [sys.executable, str(program)]
    elif kind.startswith("stock"):
        command = instrumented(stock, program, exporter="otlp" if "otlp" in kind else "console")
    else:
        command = instrumented(sys.executable, program, exporter="debugstore")
        variables["OTEL_DEBUGSTORE_CHILD"] = kind
    environ = environment(**variables)
    del environ["PYTHONPATH"]  # the checkout's, which would come before everything that a child imports
    done = subprocess.run(command, env=environ, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    found: list[float] = json.loads(done.stdout)
    return found
