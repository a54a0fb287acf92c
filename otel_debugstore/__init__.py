"""otel-debugstore: a flight recorder for Python tools, workflows and agents.

The public names, each imported from its module when it is first used, so that importing this package
costs next to nothing. (`__init__.pyi` says the same to type checkers: this package is the lowest layer
and may not import the others, nor pretend to under `TYPE_CHECKING`.)
"""

from importlib import import_module as _import_module
from typing import Any

_MODULES = {
    "BoundedSpanProcessor": "otel_debugstore.processor",
    "ConfigurationError": "otel_debugstore.errors",
    "CorruptDataError": "otel_debugstore.errors",
    "DebugStore": "otel_debugstore_exporters.store",
    "DebugStoreError": "otel_debugstore.errors",
    "DuckDBSyncProcessor": "otel_debugstore_exporters.sync",
    "FormatVersionError": "otel_debugstore.errors",
    "InvalidSessionIdError": "otel_debugstore.errors",
    "LmdbSpanExporter": "otel_debugstore_exporters.exporter",
    "MalformedInputError": "otel_debugstore.errors",
    "QueryError": "otel_debugstore.errors",
    "SessionNotFoundError": "otel_debugstore.errors",
    "configure": "otel_debugstore_exporters.instrument",
}

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]
    "BoundedSpanProcessor",
    "ConfigurationError",
    "CorruptDataError",
    "DebugStore",
    "DebugStoreError",
    "DuckDBSyncProcessor",
    "FormatVersionError",
    "InvalidSessionIdError",
    "LmdbSpanExporter",
    "MalformedInputError",
    "QueryError",
    "SessionNotFoundError",
    "__version__",
    "configure",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("otel-debugstore")
    elif name in _MODULES:
        value = getattr(_import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
