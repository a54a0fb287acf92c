"""`Run`: records tests, each as a span of its own, and keeps the spans that end meanwhile for the test to look at.

With a session the spans go into it, too. Without one they go nowhere else, and no payload is captured.
Capacity: 200,000 spans of a test are kept for it to look at; of further ones it is said that they were left out.
Threads: spans of any thread of this process that end while a test runs are taken for its.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider

from otel_debugstore import attributes as names
from otel_debugstore.calls.call import Call, begin
from otel_debugstore.calls.component import Component
from otel_debugstore.calls.meter import every_call_recorded
from otel_debugstore.errors import DebugStoreError
from otel_debugstore_analysis.pytest_plugin.spans import RecordedTest

MAX_SPANS: Final = 200_000
_LAYER: Final = "workflow"
_FLUSH_MILLIS: Final = 10_000


class _Collector(SpanProcessor):
    """Gives spans that end to the test that runs."""

    def __init__(self) -> None:
        self.test: RecordedTest | None = None
        self.own_span_id = 0

    def on_end(self, span: ReadableSpan) -> None:
        test = self.test
        if test is None:
            return
        if span.context is not None and span.context.span_id == self.own_span_id:
            test.is_seen = True
            test.duration_ns = (span.end_time or 0) - (span.start_time or 0)
            test.memory_peak_bytes = (span.attributes or {}).get(names.MEMORY_PEAK_BYTES)  # type: ignore[assignment]
        elif len(test.ended) < MAX_SPANS:
            test.ended.append(span)
        else:
            test.left_out += 1


class Run:
    """A run of tests, in one process."""

    def __init__(self, base_path: Path, session_id: str | None) -> None:
        self._base_path = base_path
        self._session_id = session_id
        self._collector = _Collector()
        self._provider: TracerProvider | None = None

    def start(self) -> None:
        """Record from now on.

        Raises:
            pytest.UsageError: This process records into another session, or none can be written there.
        """
        if self._provider is not None:
            return
        provider = trace.get_tracer_provider()
        if self._session_id is not None:
            from otel_debugstore_exporters.instrument import configure

            try:
                provider = configure(session_id=self._session_id, base_path=self._base_path)
            except DebugStoreError as error:
                raise pytest.UsageError(f"--debugstore: {error}") from error
        elif not isinstance(provider, TracerProvider):
            provider = TracerProvider()
            trace.set_tracer_provider(provider)
        provider.add_span_processor(self._collector)
        self._provider = provider

    def recorded(self, nodeid: str, function: Any) -> RecordedTest:
        """Return what will hold what a test calls."""
        return RecordedTest(nodeid, function, self._session_id, self._query)

    @contextlib.contextmanager
    def test(
        self, recorded: RecordedTest, broken_by: Callable[[RecordedTest], list[str]], *, is_exact: bool
    ) -> Iterator[RecordedTest]:
        """Record what runs within as a test.

        Args:
            recorded: What takes the spans.
            broken_by: Says which limits it broke, if it passed by itself: with any its span does not pass.
            is_exact: Whether all calls have to be there, also of functions that are otherwise sampled.
        """
        recorded.reset()
        with every_call_recorded() if is_exact else contextlib.nullcontext():
            call = self._begin(recorded)
            try:
                yield recorded
            except BaseException as error:
                self._end(call, error)
                raise
            else:
                self._judge(call, recorded, broken_by)

    def finish(self) -> None:
        """Write down what was recorded."""
        if self._provider is not None:
            self._provider.force_flush(_FLUSH_MILLIS)

    def _begin(self, recorded: RecordedTest) -> Call | None:
        component = Component(_LAYER, recorded.nodeid, recorded.function, capture_args=False, capture_result=False)
        call = begin(component)
        if call is not None:
            context = call.span.get_span_context()
            recorded.trace_id = f"{context.trace_id:032x}"
            self._collector.own_span_id = context.span_id
            call.set_attribute(names.TEST_CASE_NAME, recorded.nodeid)
        self._collector.test = recorded
        return call

    def _judge(self, call: Call | None, recorded: RecordedTest, broken_by: Callable[[RecordedTest], list[str]]) -> None:
        """End a test that passed by itself: its span says if it broke a limit."""
        if call is not None:
            recorded.memory_peak_bytes = call.end_memory()
        recorded.broken = broken_by(recorded)
        if call is not None and recorded.broken:
            call.set_outcome("error", "\n".join(recorded.broken))
        self._end(call, None, has_broken=bool(recorded.broken))

    def _end(self, call: Call | None, error: BaseException | None, *, has_broken: bool = False) -> None:
        if call is not None:
            is_failed = error is not None and not isinstance(error, pytest.skip.Exception)
            call.set_attribute(names.TEST_CASE_RESULT, "fail" if is_failed or has_broken else "pass")
            if error is not None and is_failed:
                call.fail(error)
            else:
                call.end()
        self._collector.test = None

    def _query(self, query: str, parameters: Sequence[Any]) -> Any:
        from otel_debugstore_exporters.reader import SessionReader

        self.finish()
        with SessionReader(self._base_path, [self._session_id or ""]) as reader:
            return reader.query(query, parameters)
