"""Recording programs that do not know us: their modules are patched when they are imported."""

from importlib import import_module as _import_module

_MODULES = {
    "AutoEvolverInstrumentor": "hooks",
    "NodeRunnerInstrumentor": "hooks",
    "NodeRuntimeInstrumentor": "hooks",
    "RegistryInstrumentor": "hooks",
    "TargetInstrumentor": "targets",
    "ThreadPoolInstrumentor": "thread_pools",
    "ToolsManagerInstrumentor": "hooks",
    "WorkflowTrackerInstrumentor": "hooks",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(_import_module(f"{__name__}.{_MODULES[name]}"), name)
