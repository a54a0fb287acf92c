"""What every test gets back as it was: OpenTelemetry's globals, the environment, signals, log lines."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util._once import Once

from engines import engines, nezha  # noqa: F401  # fixtures
from faults import Workers, small_disk
from otel_debugstore import lifecycle, log
from otel_debugstore.calls import meter
from otel_debugstore.measures.memory import MEMORY
from otel_debugstore.recording_settings import recording_settings


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Collect the lines that we log, in place of standard error."""
    lines: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    handler = Collect()
    logger = logging.getLogger(log.LOGGER_NAME)
    logger.addHandler(handler)
    yield lines
    logger.removeHandler(handler)


@pytest.fixture(autouse=True)
def restored_globals() -> Iterator[None]:
    """Start with no tracer provider and no setting of ours; undo what the test changed."""
    environ = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("OTEL_", "_OTEL_"))]:
        del os.environ[name]
    trace._TRACER_PROVIDER = None
    trace._TRACER_PROVIDER_SET_ONCE = Once()
    log.forget()
    recording_settings.cache_clear()
    yield
    provider = trace._TRACER_PROVIDER
    if isinstance(provider, TracerProvider):
        provider.shutdown()
    trace._TRACER_PROVIDER = None
    trace._TRACER_PROVIDER_SET_ONCE = Once()
    lifecycle.restore()
    for one in meter._meters.values():
        one.after_fork_in_child()
    meter._meters.clear()  # a component that was sampled is not in the next test
    MEMORY.after_fork_in_child()  # nor is a call open that was torn apart
    log.forget()
    os.environ.clear()
    os.environ.update(environ)
    recording_settings.cache_clear()


@pytest.fixture(scope="session")
def worker_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    workers = Workers(tmp_path_factory.mktemp("workers"))
    yield workers
    workers.close()


@pytest.fixture
def workers(worker_server: Workers) -> Iterator[Workers]:
    """Start processes that are gone when the test ends."""
    yield worker_server
    worker_server.kill_all()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 6 MB."""
    try:
        with small_disk(tmp_path / "disk", 6) as folder:
            yield folder
    except (PermissionError, FileNotFoundError) as error:
        pytest.skip(f"no file system can be mounted here: {error}")
