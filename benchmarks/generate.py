"""Seeded spans: what the attribute figures are measured on.

Requests to a shop of eight services, as traces of five to eight spans with parents; every span carries
ten attributes as instrumentations set them: a method, a route, a status code, a host, a user's id, a
request's id, a size, a wait, a boolean, a zone.
"""

from __future__ import annotations

import itertools
import random
from array import array
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider

    from otel_debugstore_exporters.batch import SpanBatch

SEED: Final = 20_220_822
START_NS: Final = 1_750_000_000_000_000_000
BATCH: Final = 512
TRACE: Final = 6
"""Spans in a trace that the SDK makes here."""

_SERVICES: Final = ("gateway", "cart", "catalog", "payment", "shipping", "currency", "mail", "advice")
_METHODS: Final = ("GET", "GET", "GET", "POST", "PUT", "DELETE")
_OPERATIONS: Final = ("list", "get", "put", "check")
_ROUTES: Final = tuple(f"/api/v1/{s}/{{id}}/{o}" for s in _SERVICES for o in _OPERATIONS)
_STATUS_CODES: Final = (200,) * 90 + (201,) * 4 + (304,) * 3 + (404,) * 2 + (500,)
_HOSTS: Final = tuple(f"shop-{n:02d}.eu-central.internal" for n in range(24))
_ZONES: Final = ("eu-central-1a", "eu-central-1b", "eu-central-1c")
_USERS: Final = 50_000
_LAYERS: Final = ("tool", "function", "step", "workflow")


class Operation(NamedTuple):
    """What a span of the generator is about."""

    service: int
    name: str
    attributes: dict[str, Any]


def operations(seed: int = SEED) -> Iterator[Operation]:
    """Yield operations without end, with a request id that changes with every one of them."""
    chance = random.Random(seed)
    uniform, bits = chance.random, chance.getrandbits
    for number in itertools.count():
        service = int(uniform() * len(_SERVICES))
        route = _ROUTES[service * len(_OPERATIONS) + int(uniform() * len(_OPERATIONS))]
        yield Operation(
            service,
            route.replace("/{id}/", " ").removeprefix("/api/v1/"),
            {
                "http.request.method": _METHODS[int(uniform() * len(_METHODS))],
                "http.route": route,
                "http.response.status_code": _STATUS_CODES[int(uniform() * 100)],
                "server.address": _HOSTS[int(uniform() * len(_HOSTS))],
                "enduser.id": f"user-{int(uniform() * uniform() * _USERS):05d}",
                "request.id": f"{bits(64):016x}",
                "http.response.body.size": int(60 / (uniform() + 0.001)),
                "queue.wait_ms": round(0.5 / (uniform() + 0.01), 3),
                "cache.hit": number % 7 < 5,
                "cloud.availability_zone": _ZONES[number % 3],
            },
        )


def batches(count: int, seed: int = SEED, start_ns: int = START_NS) -> Iterator[SpanBatch]:
    """Yield `count` ended spans without the SDK, as batches of 512.

    Args:
        count: How many spans.
        seed: The same seed gives the same spans.
        start_ns: When the first begins, nanoseconds since 1970; they come at about 2,000 a second.
    """
    source = _spans(seed, start_ns)
    made = operations(seed)
    for first in range(0, count, BATCH):
        yield _batch(list(itertools.islice(source, min(BATCH, count - first))), made)


def wide_batches(traces: int, spans: int, seed: int = SEED) -> Iterator[SpanBatch]:
    """Yield traces of many spans each, whose children overlap, outlive their parents, and call one another deeply."""
    from dataclasses import replace

    source, made = _wide_spans(seed, spans), operations(seed)
    for first in range(0, traces * spans, BATCH):
        batch = _batch(list(itertools.islice(source, min(BATCH, traces * spans - first))), made)
        layers = (_LAYERS[(first + place) % len(_LAYERS)] for place in range(len(batch)))
        attributes: list[Mapping[str, Any]] = [{"debugstore.layer": layer} for layer in layers]
        yield replace(batch, attributes=attributes)


def component_batches(count: int, components: int, processes: int = 8, seed: int = SEED) -> Iterator[SpanBatch]:
    """Yield recorded calls of so many components in several processes, with memory peaks; some take longer."""
    from dataclasses import replace

    chance = random.Random(seed + 3)
    for number, batch in enumerate(batches(count, seed)):
        rows: list[Mapping[str, Any]] = []
        for _ in range(len(batch)):
            component = int(chance.random() * components)
            rows.append(
                {
                    "debugstore.layer": _LAYERS[component % len(_LAYERS)],
                    "debugstore.component": f"shop.part_{component:04d}",
                    "debugstore.variant": f"{component:016x}",
                    "debugstore.memory.peak_bytes": int(chance.random() * 20_000_000),
                }
            )
        yield replace(batch, attributes=rows, pid=4711 + number % processes)


def _wide_spans(seed: int, spans: int) -> Iterator[_Span]:
    chance = random.Random(seed + 2)
    start_ns = START_NS
    while True:
        start_ns += 300_000_000
        trace_id = chance.randbytes(16)
        found = [_Span(trace_id, chance.randbytes(8), bytes(8), start_ns, start_ns + 500_000_000)]
        for number in range(1, spans):
            parent = found[int(chance.random() * number)]
            start = parent.start_ns + int(chance.random() * (parent.end_ns - parent.start_ns))
            end = start + int(chance.random() * (parent.end_ns - start) * 1.1) + 1
            found.append(_Span(trace_id, chance.randbytes(8), parent.span_id, start, end))
        yield from found


class _Span(NamedTuple):
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    start_ns: int
    end_ns: int


def _spans(seed: int, start_ns: int) -> Iterator[_Span]:
    """Yield the skeletons of traces: a root, and children that lie within their parent."""
    chance = random.Random(seed + 1)
    while True:
        start_ns += chance.randrange(6_000_000)
        trace_id = chance.randbytes(16)
        duration = int(chance.lognormvariate(16.5, 0.8))
        parents = [_Span(trace_id, chance.randbytes(8), bytes(8), start_ns, start_ns + duration)]
        yield parents[0]
        for number in range(chance.randrange(4, 8)):
            parent = parents[number // 2]
            length = parent.end_ns - parent.start_ns
            start = parent.start_ns + int(length * 0.4 * (number % 2) + length * 0.1 * chance.random())
            end = start + int(length * 0.4 * chance.random())
            parents.append(_Span(trace_id, chance.randbytes(8), parent.span_id, start, end))
            yield parents[-1]


def _batch(spans: list[_Span], made: Iterator[Operation]) -> SpanBatch:
    from otel_debugstore_exporters.batch import Resource, Scope, SpanBatch

    chosen = list(itertools.islice(made, len(spans)))
    numbers: dict[str, int] = {}
    trace_ids, span_ids, parent_ids, starts, ends = zip(*spans, strict=True)
    zeros = bytes(4 * len(spans))
    return SpanBatch(
        trace_ids=b"".join(trace_ids),
        span_ids=b"".join(span_ids),
        parent_ids=b"".join(parent_ids),
        start_ns=array("q", starts),
        end_ns=array("q", ends),
        kinds=bytes(2 if parent == bytes(8) else 1 for parent in parent_ids),
        status_codes=bytes(2 if o.attributes["http.response.status_code"] == 500 else 0 for o in chosen),
        flags=array("I", zeros),
        name_index=array("I", [numbers.setdefault(o.name, len(numbers)) for o in chosen]),
        names=list(numbers),
        resources=[Resource({"service.name": service, "telemetry.sdk.language": "python"}) for service in _SERVICES],
        resource_index=array("I", [o.service for o in chosen]),
        scopes=[Scope("shop", "1.0")],
        scope_index=array("I", zeros),
        attributes=[o.attributes for o in chosen],
        pid=4711,
    )


class Emitter:
    """Makes spans with the SDK, from operations that were made before: what costs is the SDK."""

    def __init__(self, provider: TracerProvider, seed: int = SEED, variety: int = 4098) -> None:
        """Prepare `variety` operations, which are used in turn, as traces of a root and five children."""
        from opentelemetry import trace

        self._tracer = provider.get_tracer("shop", "1.0")
        self._in_context = trace.set_span_in_context
        made = [(o.name, o.attributes) for o in itertools.islice(operations(seed), variety)]
        self._traces = [made[first : first + TRACE] for first in range(0, variety, TRACE)]

    def emit(self, count: int) -> None:
        """Start and end `count` spans with ten attributes each."""
        start_span = self._tracer.start_span
        for (root_name, root_attributes), *children in self._some(count):
            root = start_span(root_name, attributes=root_attributes)
            context = self._in_context(root)
            for name, attributes in children:
                start_span(name, context=context, attributes=attributes).end()
            root.end()

    def latencies_ns(self, count: int) -> array[int]:
        """Start and end `count` spans, and return how long each of them took the caller."""
        from time import perf_counter_ns

        start_span = self._tracer.start_span
        found = array("q")
        for (root_name, root_attributes), *children in self._some(count):
            began = perf_counter_ns()
            root = start_span(root_name, attributes=root_attributes)
            root_ns = perf_counter_ns() - began
            context = self._in_context(root)
            for name, attributes in children:
                began = perf_counter_ns()
                start_span(name, context=context, attributes=attributes).end()
                found.append(perf_counter_ns() - began)
            began = perf_counter_ns()
            root.end()
            found.append(perf_counter_ns() - began + root_ns)
        return found

    def _some(self, count: int) -> Iterator[list[tuple[str, dict[str, Any]]]]:
        """Yield the operations of traces, `count` operations in all."""
        for trace in itertools.cycle(self._traces):
            yield trace[:count]
            count -= TRACE
            if count <= 0:
                return


def readable_spans(count: int, seed: int = SEED) -> list[ReadableSpan]:
    """Return ended spans of the SDK, in traces with parents."""
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Span, SpanProcessor, TracerProvider

    ended: list[ReadableSpan] = []

    class Collector(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            ended.append(span)

    provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(Collector())
    tracer = provider.get_tracer("shop", "1.0")
    open_spans: list[trace.Span] = []
    for number, operation in enumerate(itertools.islice(operations(seed), count)):
        place = number % TRACE
        parent = trace.set_span_in_context(open_spans[place // 2]) if place else None
        span = tracer.start_span(operation.name, context=parent, attributes=operation.attributes)
        assert isinstance(span, Span)
        open_spans.append(span)
        if place == TRACE - 1 or number == count - 1:
            for one in reversed(open_spans):
                one.end()
            open_spans.clear()
    return ended
