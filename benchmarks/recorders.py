"""What is compared: the SDK alone, with the stock processor, and with ours; and a sink for OTLP/HTTP."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from benchmarks.measure import ROOT, environment

Kind = Literal["none", "stock", "ours", "otlp"]

SESSION: Final = "bench"
QUEUE_SPANS: Final = 1_000_000
"""The stock processor's queue: large enough to lose nothing, since losing is cheap."""


class DroppingExporter(SpanExporter):
    """Takes spans and does nothing with them."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def provider(kind: Kind, base_path: str = "", endpoint: str = "") -> TracerProvider:
    """Return a provider that records as `kind` says.

    Args:
        kind: "none" without a processor; "stock" with the stock processor and an exporter that drops; "otlp" the
            same with the OTLP/HTTP exporter; "ours" as `configure` sets the global provider up.
        base_path: Where ours keeps the session `SESSION`.
        endpoint: Where OTLP goes.
    """
    if kind == "ours":
        from otel_debugstore import configure

        return configure(session_id=SESSION, base_path=base_path)
    made = TracerProvider(resource=Resource.create({"service.name": "shop"}))
    if kind == "stock":
        made.add_span_processor(_stock(DroppingExporter()))
    elif kind == "otlp":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        made.add_span_processor(_stock(OTLPSpanExporter(endpoint=endpoint)))
    return made


def _stock(exporter: SpanExporter) -> BatchSpanProcessor:
    return BatchSpanProcessor(exporter, max_queue_size=QUEUE_SPANS)


def wait_until_sealed(base_path: str, at_most_waiting: int, seconds: float = 60.0) -> None:
    """Wait until the journal of `SESSION` holds no more than so many spans, looking twice a second."""
    from otel_debugstore_exporters.journal import Journal
    from otel_debugstore_exporters.session import SessionPaths

    deadline = time.monotonic() + seconds
    with Journal.open(SessionPaths(Path(base_path), SESSION).journal) as journal:
        while journal.stats().span_count > at_most_waiting and time.monotonic() < deadline:
            time.sleep(0.5)


def dropped(base_path: str) -> int:
    """Return how many spans of `SESSION` were counted as dropped."""
    from otel_debugstore_exporters.journal import Journal
    from otel_debugstore_exporters.session import SessionPaths

    with Journal.open(SessionPaths(Path(base_path), SESSION).journal) as journal:
        return sum(drop.count for drop in journal.drops())


@contextlib.contextmanager
def otlp_sink() -> Iterator[str]:
    """A process that takes OTLP over HTTP and forgets it; yields the endpoint."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.recorders"],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def _serve() -> None:
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    class Sink(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:  # the name that http.server calls
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        log_message: Callable[..., None] = lambda *_: None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    print(f"http://127.0.0.1:{server.server_port}/v1/traces", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    _serve()
