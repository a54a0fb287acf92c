"""Python imports this when a process of a test command starts, whose tests are to meet a recorded function."""

import os
import sys


def _import_the_other() -> None:
    """Import what Python would have imported in place of this, if there is any."""
    ours = sys.modules.pop("sitecustomize", None)
    folder = os.path.dirname(__file__)  # noqa: PTH120  # pathlib takes longer to import than all the rest
    sys.path[:] = [entry for entry in sys.path if entry != folder]
    try:
        __import__("sitecustomize")
    except ImportError as error:
        if error.name != "sitecustomize":
            raise
    finally:
        if ours is not None:
            sys.modules.setdefault("sitecustomize", ours)


try:
    from otel_debugstore_analysis.auditor._tracking import start

    start()
except Exception:  # noqa: BLE001  # another interpreter, which has not what we need: it starts as it would
    pass
_import_the_other()
