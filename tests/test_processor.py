"""The bounded processor and its queue, over a sink in memory."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import Link, SpanContext, Tracer

from otel_debugstore.processor import AFTER_SHUTDOWN, FAILED, QUEUE_FULL, BoundedSpanProcessor
from otel_debugstore.span_size import span_size


class MemorySink:
    """Keeps what is added; a test can stop it, make it fail, or make it refuse to commit."""

    def __init__(self) -> None:
        self.added: list[ReadableSpan] = []
        self.batches: list[int] = []
        self.committed = 0
        self.drops: Counter[str] = Counter()
        self.flowing = threading.Event()
        self.flowing.set()
        self.disk_works = True
        self.error: BaseException | None = None
        self.is_shut_down = False

    def add(self, spans: Sequence[ReadableSpan]) -> None:
        self.flowing.wait()
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.batches.append(len(spans))
        self.added.extend(spans)

    def drop(self, reason: str, count: int) -> None:
        self.drops[reason] += count

    def commit(self, *, is_asked: bool = True) -> bool:
        self.committed = len(self.added)
        return self.disk_works

    def shutdown(self) -> None:
        self.is_shut_down = True

    def names(self) -> Counter[str]:
        return Counter(span.name for span in self.added)


class Recording:
    """A provider with a bounded processor over a memory sink."""

    def __init__(self, **settings: Any) -> None:
        self.sink = MemorySink()
        self.processor = BoundedSpanProcessor(self.sink, **settings)
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)
        self.tracer = self.provider.get_tracer("test")

    def end_span(self, name: str = "span", **options: Any) -> None:
        self.tracer.start_span(name, **options).end()


@pytest.fixture
def recordings() -> Iterator[Callable[..., Recording]]:
    """Make recordings that are shut down after the test."""
    made: list[Recording] = []

    def make(**settings: Any) -> Recording:
        made.append(Recording(**settings))
        return made[-1]

    yield make
    for recording in made:
        recording.sink.flowing.set()
        recording.provider.shutdown()


def test_every_span_once_from_many_threads(recordings: Callable[..., Recording]) -> None:
    """What eight threads end is added once each, in batches of at most 512, and committed by a flush."""
    recording = recordings()

    def run(number: int) -> None:
        for i in range(2000):
            recording.end_span(f"{number}.{i}", attributes={"i": i})

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recording.processor.force_flush()
    assert recording.sink.committed == 16000
    assert set(recording.sink.names().values()) == {1}
    assert max(recording.sink.batches) <= 512
    assert not recording.sink.drops


def test_spans_are_committed_without_a_flush(recordings: Callable[..., Recording]) -> None:
    """A span that ended is committed after the schedule delay, by itself."""
    recording = recordings(schedule_delay_millis=10)
    recording.end_span("first")
    deadline = time.monotonic() + 10
    while recording.sink.committed < 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    recording.end_span("second")
    while recording.sink.committed < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_program_that_stops_its_clock(recordings: Callable[..., Recording], monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans are committed while time stands still, as freezegun has it, and after that."""
    real = time.monotonic
    for module in [module for name, module in sys.modules.items() if name.startswith(("otel_debugstore", "time"))]:
        for name, value in list(vars(module).items()):
            if value is real:
                monkeypatch.setattr(module, name, lambda: 1e9)
    recording = recordings(schedule_delay_millis=20)
    for ended in (1, 2, 3):
        recording.end_span()
        for _ in range(500):
            if recording.sink.committed == ended:
                break
            time.sleep(0.02)
        assert recording.sink.committed == ended
        if ended == 2:
            monkeypatch.undo()


def test_a_span_that_is_not_sampled_is_left_out() -> None:
    """Only sampled spans are queued."""
    sink = MemorySink()
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(BoundedSpanProcessor(sink))
    provider.get_tracer("test").start_span("x").end()
    provider.shutdown()
    assert not sink.added
    assert sink.is_shut_down


def test_the_program_does_not_see_its_threads(recordings: Callable[..., Recording]) -> None:
    """A program that lists or joins its threads does not meet the worker."""
    before = threading.enumerate()
    recording = recordings()
    recording.end_span()
    assert recording.processor.force_flush()
    assert threading.enumerate() == before


def test_force_flush_honours_its_timeout(recordings: Callable[..., Recording]) -> None:
    """A sink that is stuck makes a flush return False; when it goes on, a later one returns True."""
    recording = recordings()
    recording.sink.flowing.clear()
    recording.end_span()
    assert not recording.processor.force_flush(20)
    recording.sink.flowing.set()
    assert recording.processor.force_flush()


def test_force_flush_tells_of_failure(recordings: Callable[..., Recording]) -> None:
    """A flush is False when the sink could not commit."""
    recording = recordings()
    recording.sink.disk_works = False
    recording.end_span()
    assert not recording.processor.force_flush()
    recording.sink.disk_works = True
    assert recording.processor.force_flush()


@pytest.mark.parametrize("thread_count", [1, 4])
def test_a_full_queue_drops_and_counts(recordings: Callable[..., Recording], thread_count: int) -> None:
    """With a sink that is stuck, spans beyond the bound are dropped; kept + dropped = ended."""
    recording = recordings(max_bytes=100_000)
    recording.sink.flowing.clear()

    def run() -> None:
        for _ in range(100):
            recording.end_span(attributes={"text": "x" * 5000})

    threads = [threading.Thread(target=run) for _ in range(thread_count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recording.sink.flowing.set()
    assert recording.processor.force_flush()
    assert 5 <= len(recording.sink.added) <= 20
    assert len(recording.sink.added) + recording.sink.drops[QUEUE_FULL] == 100 * thread_count


def test_it_recovers_from_a_full_queue(recordings: Callable[..., Recording]) -> None:
    """Once the sink goes on, spans are kept again."""
    recording = recordings(max_bytes=100_000)
    recording.sink.flowing.clear()
    for _ in range(50):
        recording.end_span(attributes={"text": "x" * 5000})
    recording.sink.flowing.set()
    assert recording.processor.force_flush()
    kept = len(recording.sink.added)
    for _ in range(10):
        recording.end_span("later")
    assert recording.processor.force_flush()
    assert recording.sink.names()["later"] == 10
    assert len(recording.sink.added) == kept + 10


def test_waiting_spans_are_let_in(recordings: Callable[..., Recording]) -> None:
    """A sink that is slow but moves loses nothing: spans wait for room."""
    recording = recordings(max_bytes=100_000)
    original = recording.sink.add

    def slow(spans: Sequence[ReadableSpan]) -> None:
        time.sleep(0.001)
        original(spans)

    recording.sink.add = slow  # type: ignore[method-assign]
    for _ in range(300):
        recording.end_span(attributes={"text": "x" * 5000})
    assert recording.processor.force_flush()
    assert len(recording.sink.added) == 300


def test_a_span_larger_than_the_bound_is_kept_alone(recordings: Callable[..., Recording]) -> None:
    """A span that could never fit goes in when nothing else is queued."""
    recording = recordings(max_bytes=10_000)
    recording.end_span(attributes={"text": "x" * 100_000})
    assert recording.processor.force_flush()
    assert len(recording.sink.added) == 1


def test_shutdown_commits_and_counts_what_comes_later(recordings: Callable[..., Recording]) -> None:
    """Shutdown keeps what has ended; later spans are dropped, counted, and the count is committed."""
    recording = recordings()
    recording.end_span("in time")
    recording.processor.shutdown()
    assert recording.sink.is_shut_down
    assert recording.sink.committed == 1
    for _ in range(3):
        recording.end_span("late")
    assert recording.sink.drops == {AFTER_SHUTDOWN: 3}
    assert recording.sink.names() == {"in time": 1}
    assert recording.processor.force_flush()


def test_shutdown_before_the_first_span() -> None:
    """A processor that never saw a span shuts down at once."""
    sink = MemorySink()
    processor = BoundedSpanProcessor(sink)
    processor.shutdown()
    processor.shutdown()
    assert sink.is_shut_down


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(1), KeyboardInterrupt()])
def test_the_worker_survives_a_sink_that_raises(
    recordings: Callable[..., Recording], error: BaseException, logged: list[str]
) -> None:
    """What can't be added is counted, in one line; the next spans are kept."""
    recording = recordings()
    recording.sink.error = error
    recording.end_span("lost")
    recording.processor.force_flush()
    recording.end_span("kept")
    assert recording.processor.force_flush()
    assert recording.sink.names() == {"kept": 1}
    assert recording.sink.drops == {FAILED: 1}
    assert len(logged) == 1


def test_what_a_signal_handler_raises_reaches_the_program(recordings: Callable[..., Recording]) -> None:
    """A time limit that strikes while a span ends is the program's own; what we raise is counted."""

    class TimeIsUpError(Exception):
        pass

    def handle(*_: object) -> None:
        raise TimeIsUpError

    recording = recordings()
    recording.processor._queue.put = lambda span: signal.raise_signal(signal.SIGALRM)  # type: ignore[method-assign]
    previous = signal.signal(signal.SIGALRM, handle)
    try:
        with pytest.raises(TimeIsUpError):
            recording.end_span()
    finally:
        signal.signal(signal.SIGALRM, previous)
    recording.processor.on_end(object())  # type: ignore[arg-type]
    recording.provider.shutdown()
    assert recording.sink.drops == {FAILED: 1}


def test_spans_that_end_in_signal_handlers(recordings: Callable[..., Recording]) -> None:
    """A handler that ends spans, and flushes, inside `on_end` neither deadlocks nor loses any."""
    recording = recordings(schedule_delay_millis=5)
    handled = 0

    def handle(*_: object) -> None:
        nonlocal handled
        handled += 1
        recording.end_span("handler")
        if handled % 10 == 0:
            assert recording.processor.force_flush()

    previous = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        ended = 0
        while handled < 200:
            recording.end_span("main")
            ended += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert recording.processor.force_flush()
    assert recording.sink.names() == {"main": ended, "handler": handled}


def test_spans_that_end_in_finalizers(recordings: Callable[..., Recording]) -> None:
    """Spans ended by the garbage collector in the middle of anything are kept."""
    recording = recordings()

    class Finalized:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            recording.end_span("finalizer")

    for _ in range(2000):
        Finalized()
        recording.end_span("main")
    gc.collect()
    assert recording.processor.force_flush()
    assert recording.sink.names() == {"main": 2000, "finalizer": 2000}


def _shapes() -> dict[str, Callable[[Tracer, int], None]]:
    keys = [f"key.{number}" for number in range(50)]

    def attributes(make: Callable[[int], Any], count: int) -> Callable[[Tracer, int], None]:
        return lambda tracer, i: tracer.start_span(
            "x", attributes={key: make(i * 100 + n) for n, key in enumerate(keys[:count])}
        ).end()

    def events(tracer: Tracer, i: int) -> None:
        span = tracer.start_span("x")
        for number in range(10):
            span.add_event("event", {"a": f"value {number} of {i}"})
        span.end()

    def links(tracer: Tracer, i: int) -> None:
        found = [Link(SpanContext((i << 70) + n, (i << 40) + n, is_remote=False)) for n in range(1, 11)]
        tracer.start_span("x", links=found).end()

    return {
        "bare": lambda tracer, i: tracer.start_span("x").end(),
        "10 numbers": attributes(lambda i: i + 1000, 10),
        "40 floats": attributes(lambda i: i + 0.5, 40),
        "10 texts": attributes(lambda i: f"{i:040d}", 10),
        "10 long texts": attributes(lambda i: f"{i:02000d}", 10),
        "long text beyond ASCII": attributes(lambda i: f"{i:02000d}€", 4),
        "bytes": attributes(lambda i: bytes(500 + i % 2), 5),
        "lists": attributes(lambda i: [f"{i:030d}{n}" for n in range(10)], 5),
        "maps": attributes(lambda i: {f"k{n}": f"{i:030d}" for n in range(5)}, 5),
        "10 events": events,
        "10 links": links,
    }


@pytest.mark.parametrize("shape", _shapes())
def test_span_size_is_what_memory_says(shape: str) -> None:
    """The estimate is within a third of what tracemalloc finds, so that the bound means memory."""

    class Keep(SpanProcessor):
        kept: list[ReadableSpan] = []  # noqa: RUF012

        def on_end(self, span: ReadableSpan) -> None:
            self.kept.append(span)

    keep = Keep()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(keep)
    tracer = provider.get_tracer("test")
    make = _shapes()[shape]
    make(tracer, 0)
    keep.kept.clear()
    gc.collect()
    tracemalloc.start()
    try:
        for i in range(1, 501):
            make(tracer, i)
        gc.collect()
        real = tracemalloc.get_traced_memory()[0] / 500
    finally:
        tracemalloc.stop()
    estimate = sum(map(span_size, keep.kept)) / 500
    keep.kept.clear()
    assert 0.75 < estimate / real < 1.33, f"{estimate:.0f} estimated, {real:.0f} real"
