"""A program that makes spans of every sort with the OpenTelemetry API; prints how many it made."""

from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from opentelemetry import propagate, trace
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AnyValue

THREADS = 4
SPANS_A_THREAD = 100
REMOTE_PARENT = {
    "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "tracestate": "vendor=value,other=1",
}
ATTRIBUTES: dict[str, AnyValue] = {
    "text": "naïve, 日本語, 🜚 and a \u0000 byte",
    "empty": "",
    "integer": 2**62,
    "negative": -7,
    "double": 0.1,
    "whole double": 2.0,
    "infinite": float("-inf"),
    "not a number": float("nan"),
    "true": True,
    "false": False,
    "none": None,
    "bytes": b"\x00\xff",
    "texts": ["a", "", "c"],
    "integers": [1, -2, 3],
    "doubles": [1.0, 2.5],
    "booleans": [True, False],
    "nothing": [],
    "mixed": ["a", 1, 2.5, True, None],
    "nested": {"number": 1, "list": [1, {"deeper": b"\x01"}], "map": {}},
}
LINKED = SpanContext(0xA, 0xB, True, TraceFlags(1), TraceState([("linked", "state")]))

tracer = trace.get_tracer("dual.export", "1.2.3", attributes={"scope": "attribute"})


def every_kind() -> int:
    """Make a span of each kind and status, with attributes, events and links of every sort."""
    for kind in SpanKind:
        with tracer.start_as_current_span(kind.name, kind=kind, attributes=ATTRIBUTES) as span:
            span.add_event("plain")
            span.add_event("dated", ATTRIBUTES, timestamp=1_700_000_000_123_456_789)
            span.add_link(LINKED, {"why": "because"})
            span.set_status(Status(StatusCode.OK if kind is SpanKind.SERVER else StatusCode.UNSET))
    return len(SpanKind)


def failures() -> int:
    """Make spans that fail: one by an exception, one by a status set by hand."""
    try:
        with tracer.start_as_current_span("raises"):
            raise ValueError("on purpose")
    except ValueError:
        pass
    with tracer.start_as_current_span("says so") as span:
        span.set_status(StatusCode.ERROR, "described")
    return 2


def remote_child() -> int:
    """Make a span whose parent is in another program, and its child; the trace has a state."""
    with (
        tracer.start_as_current_span("remote child", context=propagate.extract(REMOTE_PARENT)),
        tracer.start_as_current_span("its child", links=[Link(LINKED)]),
    ):
        return 2


def given_times() -> int:
    """Make a span of one nanosecond and one of a hundred days. (Jaeger mends durations of zero and less.)"""
    start_ns = 1_700_000_000_000_000_001
    for name, duration_ns in (("instant", 1), ("eternity", 100 * 86_400_000_000_000)):
        tracer.start_span(name, start_time=start_ns).end(start_ns + duration_ns)
    return 2


def many() -> int:
    """Make spans in several threads below one parent."""

    def work(thread: int) -> None:
        for number in range(SPANS_A_THREAD):
            with tracer.start_as_current_span("work", attributes={"thread": thread, "number": number}):
                pass

    with tracer.start_as_current_span("parent"), ThreadPoolExecutor(THREADS) as pool:
        for task in [pool.submit(copy_context().run, work, thread) for thread in range(THREADS)]:
            task.result()
    return 1 + THREADS * SPANS_A_THREAD


if __name__ == "__main__":
    print(every_kind() + failures() + remote_child() + given_times() + many())
