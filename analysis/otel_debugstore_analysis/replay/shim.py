"""`recorded_module`: recorded code as a module that the benchmark can import."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from otel_debugstore_analysis.replay.request import Side

_NAME: Final = "_debugstore_recorded"


def recorded_module(folder: Path, side: Side) -> str:
    """Write a module whose `function` is the code of a side; return its target. Its folder has to be on `sys.path`."""
    folder.mkdir(exist_ok=True)
    text = (
        "from otel_debugstore_analysis.replay.loading import load\n"
        "from otel_debugstore_analysis.replay.request import Side\n"
        f"side = Side({side.target!r}, {side.paths!r}, {side.file!r}, {side.variant!r}, {side.source!r})\n"
        "function = load(side).function\n"
    )
    (folder / f"{_NAME}.py").write_text(text, encoding="utf-8")
    return f"{_NAME}:function"
