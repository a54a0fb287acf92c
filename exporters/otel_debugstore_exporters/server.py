"""`debugstore serve`: the OTLP/HTTP receiver (see `receiver`) in front of a session's journal.

Needs `pip install 'otel-debugstore[serve]'`.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import SpanBatch
from otel_debugstore_exporters.ingestion import ingested
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.receiver import Limits, is_loopback, make_app
from otel_debugstore_exporters.session import SessionPaths
from otel_debugstore_exporters.split import split_batch

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 4318

_GRACE_SECONDS: Final = 5


class JournalWriter:
    """Writes batches to a journal, in one transaction a call."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def write(self, batches: Sequence[SpanBatch]) -> None:
        now = time.time_ns()
        self._journal.append([codec.encode(ingested(part), now) for batch in batches for part in split_batch(batch)])


def serve(
    paths: SessionPaths,
    host: str = DEFAULT_HOST,
    port: int = DEFAULT_PORT,
    *,
    allow_remote: bool = False,
    limits: Limits | None = None,
    on_start: Callable[[str, int], None] | None = None,
) -> None:
    """Receive spans into a session until Ctrl-C or SIGTERM; requests under way are finished first.

    Args:
        paths: The session.
        host: The address to listen on.
        port: The port; 0 for a free one.
        allow_remote: Listen on addresses that other machines can reach, too. There is no authentication.
        limits: How much is taken.
        on_start: Called with the address and the port once connections are accepted.

    Raises:
        ConfigurationError: The address can be reached from elsewhere and that is not allowed, it can't be
            listened on, or the extra `serve` is not installed.
        DebugStoreError: The session's journal can't be opened.
    """
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigurationError(
            "The receiver needs uvicorn, which is not installed: pip install 'otel-debugstore[serve]'."
        ) from error
    check_host(host, allow_remote)
    with _listening(host, port) as listener, Journal.open(paths.journal) as journal:
        app = make_app(JournalWriter(journal), limits=limits, check_hosts=not allow_remote)
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
        if on_start is not None:
            on_start(*listener.getsockname()[:2])
        with contextlib.suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])


def check_host(host: str, allow_remote: bool) -> None:
    """Raise `ConfigurationError` if `host` is not a loopback address and that is not allowed."""
    if not allow_remote and not is_loopback(host):
        raise ConfigurationError(
            f"{host!r} can be reached from other machines, and there is no authentication: "
            f"listen on {DEFAULT_HOST}, or allow it (--allow-remote, allow_remote=True)."
        )


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    if not 0 <= port <= 65_535:
        raise ConfigurationError(f"{host}:{port} can't be listened on: a port is a number from 0 to 65535.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise ConfigurationError(
            f"{host}:{port} can't be listened on ({error}); choose another port, or end what has it."
        ) from error
    with listener:
        yield listener
