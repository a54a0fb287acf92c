"""Putting the recorder into a tracer provider: with zero code, and by `configure()`.

Zero code (`zero_code`): the SDK gives our exporter a stock processor, which loses spans at full blast and waits
5 s. `take_over`, called when the provider is there, replaces that one and no other by a `BoundedSpanProcessor`,
and adds the processor that seals. It changes private attributes of the SDK; where these have another shape, the
stock processor stays, with its limits, and one line says so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.sdk.environment_variables import OTEL_SERVICE_NAME
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor

from otel_debugstore.active_session import owns_session, program_name
from otel_debugstore.attributes import SERVICE_NAME
from otel_debugstore.config import Settings
from otel_debugstore.errors import ConfigurationError
from otel_debugstore.instrumentors.by_settings import instrument_by_settings
from otel_debugstore.instrumentors.parent_context import adopt_parent
from otel_debugstore.lifecycle import flush_at_end
from otel_debugstore.processor import BoundedSpanProcessor
from otel_debugstore_exporters.exporter import LmdbSpanExporter
from otel_debugstore_exporters.session import SessionPaths

_RETIRE_SECONDS: Final = 1.0


def configure(
    session_id: str | None = None, base_path: str | os.PathLike[str] | None = None, **settings: Any
) -> TracerProvider:
    """Record the spans of this program from now on; return the tracer provider.

    The global SDK provider is used if there is one, else one is made and set. Targets, hooks and thread pools
    that the settings name are instrumented. Calling it again for the same session changes nothing.

    Args:
        session_id: The session to record into; by default that of the environment, or a new one named
            after the service or script.
        base_path: The directory of the sessions, by default "debug_data".
        settings: Other fields of `Settings`.

    Raises:
        ConfigurationError: A setting can't be used, this process records into another session, or its
            provider was shut down.
        InvalidSessionIdError: `session_id` can't be one.
    """
    chosen = Settings.from_environment(session_id=session_id, base_path=base_path, **settings)
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = _new_provider()
    adopt_parent()
    for exporter in _exporters(provider):
        _refuse_another(exporter.activate(_service_name(provider)), session_id, chosen.base_path if base_path else None)
        take_over(provider)
        instrument_by_settings()
        return provider
    exporter = LmdbSpanExporter(chosen)
    processor = _recorder(provider, exporter)
    provider.add_span_processor(processor)
    _complete(provider, processor, exporter)
    instrument_by_settings()
    return provider


def _refuse_another(recorded: SessionPaths, session_id: str | None, base_path: Path | None) -> None:
    wanted = SessionPaths(base_path.absolute() if base_path else recorded.base_path, session_id or recorded.session_id)
    if wanted != recorded:
        raise ConfigurationError(
            f"Session {wanted.session_id!r} below {wanted.base_path} can't be recorded: this process records into "
            f"{recorded.session_id!r} below {recorded.base_path} already, and into one only, until it ends. Give "
            f"{recorded.session_id!r} or no session_id here, or run this part in a process of its own; where it is the "
            "right one, call configure() before other set-up, or set OTEL_DEBUGSTORE_SESSION and OTEL_DEBUGSTORE_PATH."
        )


def _new_provider() -> TracerProvider:
    named = os.environ.get(OTEL_SERVICE_NAME) or SERVICE_NAME in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    provider = TracerProvider(resource=Resource.create({} if named else {SERVICE_NAME: program_name()}))
    trace.set_tracer_provider(provider)
    return provider


def take_over(provider: TracerProvider) -> None:
    """Replace the stock processors of a provider that hold our exporter. Idempotent."""
    multi = provider._active_span_processor
    retired = []
    with multi._lock:
        processors = []
        for processor in multi._span_processors:
            exporter = _stock_exporter(processor)
            if exporter is None:
                processors.append(processor)
            else:
                recorder = _recorder(provider, exporter)
                processors.append(recorder)
                retired.append((processor, recorder, exporter))
        multi._span_processors = tuple(processors)
    for processor, recorder, exporter in retired:
        _retire(processor)
        _complete(provider, recorder, exporter)


def _recorder(provider: TracerProvider, exporter: LmdbSpanExporter) -> BoundedSpanProcessor:
    exporter.activate(_service_name(provider))
    settings = exporter.settings
    return BoundedSpanProcessor(
        exporter, max_bytes=settings.queue_max_bytes, schedule_delay_millis=settings.schedule_delay_millis
    )


def _complete(provider: TracerProvider, recorder: BoundedSpanProcessor, exporter: LmdbSpanExporter) -> None:
    """Add what seals, after what records, so that a shutdown commits before it seals."""
    from otel_debugstore_exporters.sync import DuckDBSyncProcessor

    paths = exporter.activate()
    flush_at_end(recorder)
    provider.add_span_processor(
        DuckDBSyncProcessor(paths, exporter.settings, owns_session(paths.session_id), recorder.is_busy)
    )


def _stock_exporter(processor: SpanProcessor) -> LmdbSpanExporter | None:
    """Return our exporter if a stock processor (not a subclass, which may do more) holds it."""
    if type(processor) in (BatchSpanProcessor, SimpleSpanProcessor):
        exporter = processor.span_exporter  # type: ignore[attr-defined]
        return exporter if isinstance(exporter, LmdbSpanExporter) else None
    return None


def _retire(processor: Any) -> None:
    """Stop a stock processor; its worker exports what it has, and the exporter stays open."""
    if isinstance(processor, BatchSpanProcessor):
        worker = processor._batch_processor
        worker._shutdown = True
        worker._worker_awaken.set()
        worker._worker_thread.join(_RETIRE_SECONDS)


def exporter_of(provider: TracerProvider) -> LmdbSpanExporter:
    """Return the exporter by which a provider records into a session.

    Raises:
        ConfigurationError: There is none.
    """
    for exporter in _exporters(provider):
        return exporter
    raise ConfigurationError("The tracer provider of this process records into no session: call configure() first.")


def _exporters(provider: TracerProvider) -> Iterator[LmdbSpanExporter]:
    for processor in provider._active_span_processor._span_processors:
        if isinstance(processor, BoundedSpanProcessor) and isinstance(processor.sink, LmdbSpanExporter):
            if processor.is_shut_down:
                raise ConfigurationError(
                    "The tracer provider of this process was shut down, and records nothing any more: "
                    "set a new one before you call configure() again."
                )
            yield processor.sink
        elif exporter := _stock_exporter(processor):
            yield exporter


def _service_name(provider: TracerProvider) -> str:
    name = provider.resource.attributes.get(SERVICE_NAME, "")
    return name if isinstance(name, str) else ""
