"""Figure 5: what our instrumentors cost a program of many modules in which they find nothing to record.

Under `opentelemetry-instrument` with the exporter that loads least: the imports of the program, with our instrumentors
and with them disabled; and from start to end, with us installed and in an environment without us.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.measure import Figure, Options, environment, interleaved, median, scratch
from benchmarks.stock import instrumented, stock_python

_MODULES: Final = 400
_PROGRAM: Final = """
import importlib, sys, time
sys.path.insert(0, "modules")
began = time.process_time()
for number in range({count}):
    importlib.import_module(f"package.module_{{number}}")
print((time.process_time() - began) * 1000)
"""
_MODULE: Final = "import json, os\n\ndef function():\n    return json.dumps(os.name)\n\nclass Registry:\n    pass\n"


def figures(options: Options) -> list[Figure]:
    """Measure figure 5."""
    with scratch() as folder:
        _write_program(folder, options.size(_MODULES))
        stock = stock_python(folder)
        kinds = ("with", "disabled", "stock")
        runs = interleaved(lambda kind: _milliseconds(kind, folder, stock), kinds, options.repeats(21))
    imports = {kind: median([run[0] for run in runs[kind]]) for kind in kinds}
    total = {kind: median([run[1] for run in runs[kind]]) for kind in kinds}
    spread = max(run[0] for run in runs["disabled"]) / min(run[0] for run in runs["disabled"])
    return [
        Figure(
            "5",
            f"importing {options.size(_MODULES)} modules, no target: CPU with our instrumentors / with them disabled",
            median([ours[0] / others[0] for ours, others in zip(runs["with"], runs["disabled"], strict=True)]),
            1.05,
            "x",
            detail=f"{imports['with']:.1f} and {imports['disabled']:.1f} ms; the latter's own spread is {spread:.2f}x",
        ),
        Figure(
            "5",
            "the same program from start to end: with us installed, less without us",
            total["with"] - total["stock"],
            None,
            "ms",
            detail=f"{total['with']:.0f}, with our instrumentors disabled {total['disabled']:.0f}, "
            f"without us {total['stock']:.0f} ms",
        ),
    ]


def _write_program(folder: Path, count: int) -> None:
    package = folder / "modules" / "package"
    package.mkdir(parents=True)
    for number in range(count):
        (package / f"module_{number}.py").write_text(_MODULE)
    program = folder / "program.py"
    program.write_text(_PROGRAM.format(count=count))
    subprocess.run([sys.executable, program], cwd=folder, stdout=subprocess.DEVNULL, check=True)  # compiles


def _milliseconds(kind: str, folder: Path, stock: Path) -> tuple[float, float]:
    """Return the CPU time of the imports, and how long the whole process took."""
    hooks = ("registry", "node_runner", "node_runtime", "tools_manager", "workflow_tracker", "targets", "thread_pools")
    disabled = ",".join(f"debugstore_{hook}" for hook in hooks) if kind == "disabled" else ""
    environ = environment(OTEL_PYTHON_DISABLED_INSTRUMENTATIONS=disabled)
    del environ["PYTHONPATH"]
    python = stock if kind == "stock" else sys.executable
    began = time.perf_counter()
    command = instrumented(python, folder / "program.py", exporter="console")
    done = subprocess.run(command, env=environ, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout), (time.perf_counter() - began) * 1000
