"""How a function is recorded in the processes of a test command: by its environment, whatever the command is.

A folder with a `sitecustomize` comes first on PYTHONPATH, so each process of Python that the command starts comes by
`start`. That waits for the module of the function, then records into a store that was made for the tests, with the
function as a target (`otel_debugstore.instrumentors.targets`). Until then it costs a test of the name of each module
that is imported. It imports nothing that Python has not imported when it starts, but for what it waits with.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

VARIABLE = "_OTEL_DEBUGSTORE_TRACKED"
"""In the environment of a test command: names of the modules that are waited for, with commas between them."""
SESSION = "tests"
_PYTHONPATH = "PYTHONPATH"


def start() -> None:
    """Wait for the modules that the environment names, and record from then on."""
    from otel_debugstore.instrumentors.module_names import is_called
    from otel_debugstore.instrumentors.on_import import WATCHER, Watch

    names = tuple(name for name in os.environ.get(VARIABLE, "").split(",") if name)

    def found(module: ModuleType) -> None:
        WATCHER.remove(watch)
        from otel_debugstore_exporters.instrument import configure

        configure()

    if names:
        watch = Watch(lambda module: is_called(module, names), found, names)
        WATCHER.add(watch)


def environment(base_path: str, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a test command: ours, but that nothing of it gets into a session of ours."""
    from otel_debugstore.environment_variables import OTEL_DEBUGSTORE_PATH, OTEL_DEBUGSTORE_SESSION

    found = dict(os.environ if environ is None else environ)
    for name in ("TRACEPARENT", "TRACESTATE", "OTEL_DEBUGSTORE_TARGETS", "_OTEL_DEBUGSTORE_OWNER", VARIABLE):
        found.pop(name, None)
    return found | {OTEL_DEBUGSTORE_PATH: base_path, OTEL_DEBUGSTORE_SESSION: SESSION}


def tracked(environ: Mapping[str, str], module: str, qualified_name: str, layer: str) -> dict[str, str]:
    """Return the environment with a function recorded.

    Args:
        environ: What `environment` returned.
        module: The last part of its module's name: tests may import it from another folder than the program does.
        qualified_name: Its name in the module.
        layer: Its layer.
    """
    from otel_debugstore.log import QUIET

    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "start")  # noqa: PTH100, PTH118, PTH120
    targets = f"{module}:{qualified_name}={layer},*.{module}:{qualified_name}={layer}"
    found = {name: value for name, value in environ.items() if name != "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"}
    return found | {
        _PYTHONPATH: os.pathsep.join(filter(None, (folder, environ.get(_PYTHONPATH)))),
        VARIABLE: module,
        "OTEL_DEBUGSTORE_TARGETS": targets,
        "OTEL_DEBUGSTORE_DURABILITY": "interval",
        QUIET: "1",
    }
