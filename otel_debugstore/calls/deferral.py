"""`deferral_of`: whether spans of a tracer can be made later (see `deferred`), and what they are made with."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Final, Protocol

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.context.contextvars_context import ContextVarsRuntimeContext
from opentelemetry.sdk.trace import SynchronousMultiSpanProcessor, Tracer
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased

from otel_debugstore.payload.capture import capture

_ATTRIBUTES: Final = 64
"""A span of ours has fewer than that."""


class TakesDeferred(Protocol):
    """A processor that takes spans which are made later; its own class, no base, has `takes_deferred` set."""

    def on_end_deferred(self, span: Any, size: int) -> None:
        """Take a span that has ended and takes so many bytes."""


class Deferral:
    """What spans of a tracer are made with. (No named tuple: to read a field of one takes three times as long.)

    Attributes:
        provider, tracer, sampler: The SDK's.
        told: Who is told of spans; others may be added to it.
        processors: Those that were when spans could be deferred.
        processor: The one among them that takes spans.
        current: Holds the current context.
    """

    __slots__ = ("current", "processor", "processors", "provider", "sampler", "told", "tracer")

    def __init__(self, provider: Any, tracer: Tracer, processors: tuple[Any, ...], processor: TakesDeferred) -> None:
        self.provider = provider
        self.tracer = tracer
        self.sampler = tracer.sampler
        self.told: SynchronousMultiSpanProcessor = tracer.span_processor  # type: ignore[assignment]
        self.processors = processors
        self.processor = processor
        self.current: ContextVar[Context] = otel_context._RUNTIME_CONTEXT._current_context  # type: ignore[attr-defined]


def deferral_of(provider: Any, tracer: Any) -> Deferral | None:
    """Return how spans of a tracer are deferred, None where somebody could tell."""
    try:
        runtime = otel_context._RUNTIME_CONTEXT
        told = tracer.span_processor
        processors = told._span_processors
        takes = [one for one in processors if vars(type(one)).get("takes_deferred", False)]
        blind = [one for one in processors if not vars(type(one)).get("sees_spans", True)]
        limits = tracer._span_limits
        is_plain = (
            type(tracer) is Tracer
            and type(told) is SynchronousMultiSpanProcessor
            and len(takes) == 1 == len(processors) - len(blind)
            and _takes_all(tracer.sampler)
            and type(tracer.id_generator) is RandomIdGenerator
            and type(tracer._tracer_metrics).__name__ == "NoOpTracerMetrics"
            and limits.max_span_attribute_length is None
            and (limits.max_span_attributes is None or limits.max_span_attributes >= _ATTRIBUTES)
        )
    except AttributeError:  # a tracer of somebody else
        return None
    if not is_plain or type(runtime) is not ContextVarsRuntimeContext:
        return None
    capture(None)  # what the first one loads is no call's cost
    return Deferral(provider, tracer, processors, takes[0])


def _takes_all(sampler: Any) -> bool:
    """Return whether a sampler takes every span that has no parent, or one that was taken."""
    return sampler is ALWAYS_ON or (
        isinstance(sampler, ParentBased)
        and type(sampler).should_sample is ParentBased.should_sample
        and sampler._root is sampler._remote_parent_sampled is sampler._local_parent_sampled is ALWAYS_ON
    )
