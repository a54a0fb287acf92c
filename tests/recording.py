"""Records into memory: spans of calls as what they say, and modules made for a test."""

from __future__ import annotations

import importlib
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from opentelemetry import trace
from opentelemetry.attributes import BoundedAttributes
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from otel_debugstore.calls.deferred import DeferredSpan
from otel_debugstore.outbox import OUTBOX, Payload
from otel_debugstore.processor import BoundedSpanProcessor
from otel_debugstore.span_fields import calls_of
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import SpanRecord
from otel_debugstore_exporters.encoder import Encoder

ERROR = "error"


class Said(NamedTuple):
    """What a span says of a call. `path` holds the components of its callers, and its own."""

    layer: str
    path: tuple[str, ...]
    outcome: str
    attributes: dict[str, Any]
    message: str


class Sink:
    """A `BatchSink` that keeps spans in memory."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []
        self.payloads: list[Payload] = []
        self.dropped: dict[str, int] = {}

    def add(self, spans: Sequence[ReadableSpan]) -> None:
        calls, others = calls_of(spans)
        stored: dict[int, SpanRecord] = {}
        if calls is not None:
            encoder = Encoder(os.getpid())
            batch = codec.decode(encoder.blob(encoder.calls(calls)))
            self.payloads += batch.payloads
            stored = {int.from_bytes(record.span_id, "big"): record for record in batch.records()}
        seen = set(map(id, others))
        for span in spans:
            if not isinstance(span, DeferredSpan):
                self.spans.append(span)
            elif id(span) in seen:
                self.spans.append(span._readable_span())
            else:
                self.spans.append(readable(span, stored[span._context.span_id]))

    def drop(self, reason: str, count: int) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + count

    def commit(self, *, is_asked: bool = True) -> bool:
        return True

    def shutdown(self) -> None:
        pass


def readable(span: DeferredSpan, record: SpanRecord) -> ReadableSpan:
    """Return an ended span that says what was stored of a deferred one, which is all that it holds then."""
    _, deferral, parent, *_ = span._begun
    tracer = deferral.tracer
    assert record.parent_id == (None if parent is None else parent.span_id.to_bytes(8, "big"))
    assert not record.events
    assert not record.links
    context = SpanContext(
        int.from_bytes(record.trace_id, "big"),
        int.from_bytes(record.span_id, "big"),
        is_remote=False,
        trace_flags=TraceFlags(record.flags & 0xFF),
        trace_state=TraceState.from_header([record.trace_state] if record.trace_state else []),
    )
    return ReadableSpan(
        record.name,
        context,
        parent,
        tracer.resource,
        BoundedAttributes(attributes=record.attributes),
        kind=SpanKind(record.kind - 1),
        status=Status(StatusCode(record.status_code)),
        start_time=record.start_ns,
        end_time=record.end_ns,
        instrumentation_scope=tracer._instrumentation_scope,
    )


class Memory:
    """The spans that ended, in the order in which they did.

    Args:
        at_once: Whether the SDK makes each span when its call begins, as it does where others are told of spans.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self._exporter, self._sink = InMemorySpanExporter(), Sink()
        self.provider = TracerProvider()
        at_once_or_later = SimpleSpanProcessor(self._exporter) if at_once else BoundedSpanProcessor(self._sink)
        self.provider.add_span_processor(at_once_or_later)
        trace.set_tracer_provider(self.provider)

    def spans(self) -> list[ReadableSpan]:
        """Return the spans."""
        self.provider.force_flush()
        return [*self._exporter.get_finished_spans(), *self._sink.spans]

    def payloads(self) -> list[Payload]:
        """Return the contents that were kept, those that are part of the spans' blobs first."""
        self.provider.force_flush()
        return [*self._sink.payloads, *OUTBOX.take().payloads]

    def said(self) -> list[Said]:
        """Return what they say."""
        spans = {context.span_id: span for span in self.spans() if (context := span.get_span_context())}

        def path(span: ReadableSpan) -> tuple[str, ...]:
            parent = spans.get(span.parent.span_id) if span.parent else None
            return (
                *(path(parent) if parent else ()),
                str((span.attributes or {}).get("debugstore.component", span.name)),
            )

        return [
            Said(
                str((span.attributes or {}).get("debugstore.layer")),
                path(span),
                _outcome(span),
                dict(span.attributes or {}),
                span.status.description or "",
            )
            for span in spans.values()
        ]

    def paths(self) -> list[str]:
        """Return the components of each call's callers and its own, joined by `>`, sorted."""
        return sorted(" > ".join(said.path) for said in self.said())

    def outcomes(self) -> dict[str, str]:
        """Return by component how its last call ended."""
        return {said.path[-1]: said.outcome for said in self.said()}


def _outcome(span: ReadableSpan) -> str:
    outcome = (span.attributes or {}).get("debugstore.outcome")
    return str(outcome) if outcome else ERROR if span.status.status_code is trace.StatusCode.ERROR else "ok"


@contextmanager
def modules(folder: Path, **sources: str) -> Iterator[None]:
    """Make modules importable: `a__b` is the module `b` of the package `a`. What was imported is forgotten after."""
    before = set(sys.modules)
    for name, source in sources.items():
        path = folder.joinpath(*name.split("__")).with_suffix(".py")
        for package in path.relative_to(folder).parents[-2::-1]:
            (folder / package).mkdir(exist_ok=True)
            (folder / package / "__init__.py").touch()
        path.write_text(textwrap.dedent(source))
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder)):
                del sys.modules[name]
