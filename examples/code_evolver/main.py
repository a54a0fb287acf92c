"""A code evolver: has small Python functions analysed, tested and improved, by tools and by nodes of its own.

    python examples/code_evolver/main.py                # in a temporary folder
    python examples/code_evolver/main.py FOLDER         # keeps what it made

A node is a child process; a model is a local stand-in, so nothing goes over a network. It prints JSON: what became of
the functions, and every call that it made, with who called it and how it ended, counted by itself (`src/audit.py`).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from pathlib import Path


def main() -> None:
    """Run in the folder of the command line, or in a temporary one, and print what was done."""
    home = Path(__file__).resolve().parent
    sys.path[:0] = [str(home), str(home / "src")]
    with tempfile.TemporaryDirectory() as temporary:
        workdir = Path(sys.argv[1] if len(sys.argv) > 1 else temporary).resolve()
        workdir.mkdir(parents=True, exist_ok=True)
        account = workdir / "audit.jsonl"
        os.environ.update(EVOLVER_AUDIT=str(account), EVOLVER_TOOLS=str(workdir / "tools"))
        found = importlib.import_module("src.evolve").Evolver(workdir).run()
        calls = importlib.import_module("src.audit").read(account)
        print(json.dumps({"result": found, "calls": calls}, indent=1))


if __name__ == "__main__":
    main()
