"""An environment with all that is installed here but this project: what programs have without us."""

from __future__ import annotations

import sys
import sysconfig
import venv
from pathlib import Path
from typing import Final

_OURS: Final = ("otel_debugstore", "_editable_impl_otel_debugstore")
_INSTRUMENT: Final = "from opentelemetry.instrumentation.auto_instrumentation import run; run()"


def stock_python(folder: Path) -> Path:
    """Make the environment in a folder and return its Python."""
    shadow = folder / "packages"
    shadow.mkdir()
    venv.create(folder / "venv", symlinks=True)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "0-stock.pth").write_text(f"{shadow}\n")  # read first: the others may import what is there
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(_OURS):
            ((packages if entry.suffix == ".pth" else shadow) / entry.name).symlink_to(entry)
    return folder / "venv" / "bin" / Path(sys.executable).name


def instrumented(python: Path | str, *arguments: str | Path, exporter: str) -> list[str]:
    """Return the command that runs a Python under `opentelemetry-instrument`.

    Args:
        python: Of this environment, or of a stock one.
        arguments: Those of the Python.
        exporter: Of traces; metrics and logs go nowhere.
    """
    flags = ("--traces_exporter", exporter, "--metrics_exporter", "none", "--logs_exporter", "none")
    return [str(word) for word in (python, "-c", _INSTRUMENT, *flags, python, *arguments)]
