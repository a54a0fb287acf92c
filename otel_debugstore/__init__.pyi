from otel_debugstore.errors import ConfigurationError as ConfigurationError
from otel_debugstore.errors import CorruptDataError as CorruptDataError
from otel_debugstore.errors import DebugStoreError as DebugStoreError
from otel_debugstore.errors import FormatVersionError as FormatVersionError
from otel_debugstore.errors import InvalidSessionIdError as InvalidSessionIdError
from otel_debugstore.errors import MalformedInputError as MalformedInputError
from otel_debugstore.errors import QueryError as QueryError
from otel_debugstore.errors import SessionNotFoundError as SessionNotFoundError
from otel_debugstore.processor import BoundedSpanProcessor as BoundedSpanProcessor
from otel_debugstore_exporters.exporter import LmdbSpanExporter as LmdbSpanExporter
from otel_debugstore_exporters.instrument import configure as configure
from otel_debugstore_exporters.store import DebugStore as DebugStore
from otel_debugstore_exporters.sync import DuckDBSyncProcessor as DuckDBSyncProcessor

__all__ = [
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

__version__: str
