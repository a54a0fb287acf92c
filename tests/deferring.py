"""Helpers of the tests of spans that are made later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import (
    ReadableSpan,
    SpanProcessor,
    TracerProvider,
)
from opentelemetry.trace import SpanContext
from opentelemetry.util._once import Once

from otel_debugstore.calls.call import _CALL_KEY, Call
from otel_debugstore.calls.component import Component
from otel_debugstore.calls.recorded import RecordedFunction
from otel_debugstore.outbox import OUTBOX
from otel_debugstore.processor import BoundedSpanProcessor
from otel_debugstore.recording_settings import recording_settings
from recording import Memory, Sink

INPUT, OUTPUT, CPU = "debugstore.input.digest", "debugstore.output.digest", "debugstore.cpu.time_ns"
MEASURED: Final = ("debugstore.cpu.", "debugstore.memory.", "debugstore.io.")
WAYS: Final = ["long", "quick"]
"""How a call begins: as a `Call`, or the quick way of `plain_wrapper`."""
SDK_LOGGER: Final = "opentelemetry.sdk.trace"


class Recorded(Memory):
    """Spans, those that are new among them, and a processor's loss."""

    def __init__(self, *, at_once: bool = False) -> None:
        super().__init__(at_once=at_once)
        self._known = 0

    def new(self) -> list[ReadableSpan]:
        """Return the spans that ended since the last time."""
        spans = self.spans()
        known, self._known = self._known, len(spans)
        return spans[known:]

    def one(self) -> ReadableSpan:
        """Return the only new span."""
        (span,) = self.new()
        return span


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep arguments and results, and record every call."""
    monkeypatch.setenv("OTEL_DEBUGSTORE_OVERHEAD_BUDGET", "off")
    monkeypatch.setattr(OUTBOX, "is_open", True)
    recording_settings.cache_clear()
    OUTBOX.after_fork_in_child()
    yield
    OUTBOX.after_fork_in_child()


@pytest.fixture
def memory() -> Recorded:
    return Recorded()


@contextlib.contextmanager
def recording(*, at_once: bool) -> Iterator[Recorded]:
    """Record into memory from here on, whatever was recorded before."""
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = None, Once()
    OUTBOX.after_fork_in_child()
    memory = Recorded(at_once=at_once)
    try:
        yield memory
    finally:
        memory.provider.shutdown()


def provided(**options: Any) -> tuple[TracerProvider, Sink]:
    """Return a provider and where our processor of it writes to; it flushes when it is asked to, and not before."""
    sink = Sink()
    provider = TracerProvider(**options)
    provider.add_span_processor(BoundedSpanProcessor(sink, schedule_delay_millis=1e9))
    trace.set_tracer_provider(provider)
    return provider, sink


def begins(way: str, component: Component) -> None:
    """Have the next call of a component begin in that way."""
    _ = component.tracer
    if component.thrift is not None:
        component.thrift.skip = 0 if way == "long" else 1_000
    component.meter.mean_ns = 1e12 if way == "long" else 0.0


def prepared(way: str, work: Callable[..., Any], *, layer: str = "tool", **options: Any) -> Callable[..., Any]:
    """Return a recorded function whose next call begins in that way; it was called once before, and did nothing."""
    is_ready = False

    def body(*args: Any, **kwargs: Any) -> Any:
        return work(*args, **kwargs) if is_ready else None

    component = Component(layer, "work", body, **options)
    made: Callable[..., Any] = RecordedFunction(body, component)
    made()
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.force_flush()
    is_ready = True
    begins(way, component)
    return made


def said(spans: Sequence[ReadableSpan], provider: TracerProvider) -> list[dict[str, Any]]:
    """Return what spans say that is the same in every run: no ids, times or sizes."""
    numbers: dict[int, Any] = {span.context.span_id: number for number, span in enumerate(spans)}
    traces = list(dict.fromkeys(span.context.trace_id for span in spans))
    found = []
    for span in spans:
        attributes = dict(span.attributes or {})
        assert span.start_time is not None
        assert span.end_time is not None
        assert 0 < span.start_time <= span.end_time
        assert span.resource.attributes == provider.resource.attributes
        scope = span.instrumentation_scope
        parent = span.parent
        found.append(
            {
                "kind": (span.name, span.kind),
                "status": (span.status.status_code, span.status.description),
                "parent": parent and numbers.get(parent.span_id, (parent.span_id, parent.is_remote)),
                "trace": traces.index(span.context.trace_id),
                "context": context_of(span.context),
                "attributes": {key: value for key, value in attributes.items() if not key.startswith(MEASURED)},
                "has_cpu_time": CPU in attributes,
                "events": [(event.name, without_stack(event.attributes)) for event in span.events],
                "links": [(link.context, dict(link.attributes or {})) for link in span.links],
                "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
                "scope": scope and (scope.name, scope.version, scope.schema_url, dict(scope.attributes or {})),
            }
        )
    return found


def without_stack(attributes: Any) -> dict[str, Any]:
    return {key: value for key, value in dict(attributes or {}).items() if key != "exception.stacktrace"}


def context_of(context: SpanContext | None) -> Any:
    """Return what a context says but for its ids."""
    assert context is not None
    return int(context.trace_flags), dict(context.trace_state), context.is_remote, context.is_valid


def in_both(run: Callable[[Recorded], Any]) -> tuple[Any, Any]:
    """Return what is said of what `run` does, what it returns, and what was kept: deferred, and made at once."""
    found = []
    for at_once in (False, True):
        with recording(at_once=at_once) as memory:
            returned = run(memory)
            spans = memory.spans()
            payloads = {payload.digest: payload for payload in memory.payloads()}
            found.append((returned, said(spans, memory.provider), payloads))
    return found[0], found[1]


def current() -> Any:
    return trace.get_current_span()


def is_quick() -> bool:
    """Return whether the call that goes on was begun the quick way: there is no `Call` of it."""
    call = otel_context.get_value(_CALL_KEY)
    return not isinstance(call, Call) or call.span is not current()


class Told(SpanProcessor):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, str]] = []
        self.ended: list[ReadableSpan] = []
        self.begun: list[Any] = []

    def on_start(self, span: Any, parent_context: Context | None = None) -> None:
        self.heard.append(("start", span.name))
        self.begun.append(span)

    def _on_ending(self, span: Any) -> None:
        self.heard.append(("ending", span.name))

    def on_end(self, span: ReadableSpan) -> None:
        self.heard.append(("end", span.name))
        self.ended.append(span)
