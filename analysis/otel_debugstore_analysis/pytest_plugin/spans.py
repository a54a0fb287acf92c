"""`RecordedTest`: what a test called, as far as it has got; the fixture `debugstore`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from otel_debugstore import attributes as names
from otel_debugstore.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_MAX_COMPONENTS: Final = 200
_P95: Final = 95


class RecordedSpan(NamedTuple):
    """A span that ended in this process while the test ran.

    Attributes:
        component: What was called; the span's name where it was not recorded by us.
        layer: "tool", "function", ...; None where it was not recorded by us.
        error: The class of the exception, or "error"; None for a call that did not fail.
    """

    name: str
    component: str
    layer: str | None
    start_ns: int
    duration_ns: int
    error: str | None
    trace_id: str
    span_id: str
    parent_id: str | None
    attributes: Mapping[str, Any]


class RecordedTest:
    """What a test called. Components are named as `is_named` says: `http_get`, `shop.http_get`, or `shop.*`.

    Attributes:
        nodeid: The test's id.
        function: The test's function; None where it has none.
        session_id: The session that is recorded into; None without `--debugstore`.
        trace_id: That of the test's own span, hexadecimal; empty before the test runs.
        duration_ns: How long it took; 0 while it runs.
        memory_peak_bytes: By how much the process grew meanwhile, at its peak; None where that is not known.
        has_passed: Whether it ended without an exception.
        broken: Which of its limits it broke, a line each.
        is_seen: Whether its own span came to us. Where the test takes another tracer provider, nothing does.
        left_out: Spans beyond what is kept of a test.
    """

    def __init__(
        self, nodeid: str, function: Any, session_id: str | None, query: Callable[[str, Sequence[Any]], Any]
    ) -> None:
        self.nodeid: Final = nodeid
        self.function: Final = function
        self.session_id: Final = session_id
        self._query = query
        self.reset()

    def reset(self) -> None:
        """Begin anew: a test may be run again."""
        self.trace_id = ""
        self.duration_ns = 0
        self.memory_peak_bytes: int | None = None
        self.has_passed = self.is_seen = False
        self.left_out = 0
        self.broken: list[str] = []
        self.ended: list[ReadableSpan] = []
        self._spans: list[RecordedSpan] = []

    @property
    def spans(self) -> Sequence[RecordedSpan]:
        """All spans that have ended, in the order in which they did."""
        self._spans += [_span(ended) for ended in self.ended[len(self._spans) :]]
        return tuple(self._spans)

    @property
    def components(self) -> dict[str, int]:
        """How many calls there were of each component."""
        return dict(Counter(span.component for span in self.spans))

    def calls(self, component: str = "*") -> list[RecordedSpan]:
        """Return the calls of a component."""
        return [span for span in self.spans if is_named(span.component, component)]

    def errors(self, component: str = "*") -> list[RecordedSpan]:
        """Return the calls of a component that failed."""
        return [span for span in self.calls(component) if span.error is not None]

    def p95_ms(self, component: str = "*") -> float | None:
        """Return what 95 % of the calls of a component did not exceed; of fewer than 20, the slowest; None of none."""
        return p95_ms(self.calls(component))

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> list[dict[str, Any]]:
        """Return the rows of a query over the session (docs/schema.md), to which all processes of the test record.

        Args:
            query: A SELECT; the spans of this test are those whose `trace_id` is that of this object.
            parameters: What its `?` stand for.

        Raises:
            ConfigurationError: No session is recorded.
            QueryError: DuckDB refused the query.
        """
        if self.session_id is None:
            raise ConfigurationError("No session is recorded that SQL could ask: run pytest with --debugstore.")
        result = self._query(query, parameters)
        return [dict(zip(result.columns, row, strict=True)) for row in result.rows]

    def result(self) -> dict[str, Any]:
        """Return what the summary and a baseline need of it, as plain values."""
        found: dict[str, list[int]] = {}
        for span in self.spans:
            counts = found.setdefault(span.component, [0, 0])
            counts[0] += 1
            counts[1] += span.error is not None
        most = sorted(found.items(), key=lambda item: (-item[1][0], item[0]))[:_MAX_COMPONENTS]
        return {
            "duration_ns": self.duration_ns,
            "span_count": len(self.ended),
            "calls": {component: calls for component, (calls, _) in most},
            "errors": {component: errors for component, (_, errors) in most},
            "trace_id": self.trace_id,
            "is_seen": self.is_seen,
        }


def is_named(component: str, name: str) -> bool:
    """Return whether a name, or glob, stands for a component: for its whole name or what follows one of its dots."""
    return fnmatchcase(component, name) or fnmatchcase(component, f"*.{name}")


def p95_ms(calls: Sequence[RecordedSpan]) -> float | None:
    """Return what 95 % of the calls did not exceed; of fewer than 20, the slowest; None of none."""
    durations = sorted(span.duration_ns for span in calls)
    return durations[-(-_P95 * len(durations) // 100) - 1] / 1e6 if durations else None


def _span(ended: ReadableSpan) -> RecordedSpan:
    attributes = dict(ended.attributes or {})
    context, parent = ended.get_span_context(), ended.parent
    error = None
    if not ended.status.is_ok:
        error = str(attributes.get(names.ERROR_TYPE) or "error")
    return RecordedSpan(
        name=ended.name,
        component=str(attributes.get(names.COMPONENT) or ended.name),
        layer=str(attributes[names.LAYER]) if names.LAYER in attributes else None,
        start_ns=ended.start_time or 0,
        duration_ns=(ended.end_time or 0) - (ended.start_time or 0),
        error=error,
        trace_id=f"{context.trace_id:032x}" if context else "",
        span_id=f"{context.span_id:016x}" if context else "",
        parent_id=f"{parent.span_id:016x}" if parent else None,
        attributes=attributes,
    )
