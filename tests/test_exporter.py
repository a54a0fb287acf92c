"""The exporter over a real journal: what is durable, kept for later, dropped and counted."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.trace import SpanKind

from otel_debugstore.active_session import owns_session
from otel_debugstore.outbox import OUTBOX, Code, Payload
from otel_debugstore.payload.capture import MEDIA_TYPE
from otel_debugstore_exporters import codec, pending
from otel_debugstore_exporters.encoder import Encoder
from otel_debugstore_exporters.exporter import LmdbSpanExporter
from otel_debugstore_exporters.journal import Journal, JournalWriteError
from otel_debugstore_exporters.session import SessionPaths


class Keep(SpanProcessor):
    """Keeps ended spans for a test to export."""

    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def on_end(self, span: ReadableSpan) -> None:
        self.spans.append(span)


@pytest.fixture
def keep() -> Keep:
    return Keep()


@pytest.fixture
def provider(keep: Keep) -> TracerProvider:
    provider = TracerProvider(resource=Resource.create({"service.name": "shop"}), shutdown_on_exit=False)
    provider.add_span_processor(keep)
    return provider


@pytest.fixture
def spans(provider: TracerProvider, keep: Keep) -> list[ReadableSpan]:
    """Ten ended spans."""
    tracer = provider.get_tracer("test")
    for i in range(10):
        tracer.start_span(f"span {i}", attributes={"i": i}, kind=SpanKind.CLIENT).end()
    return keep.spans


@pytest.fixture
def exporters(tmp_path: Path) -> Iterator[LmdbSpanExporter]:
    """An exporter into the session "s", shut down after the test."""
    made = LmdbSpanExporter(base_path=tmp_path / "data", session_id="s")
    yield made
    made.shutdown()


def journal_of(base_path: Path, session_id: str = "s") -> Journal:
    return Journal.open(SessionPaths(base_path, session_id).journal)


def names(base_path: Path, session_id: str = "s") -> Counter[str]:
    with journal_of(base_path, session_id) as journal:
        return Counter(span.name for _, blob in journal.blobs() for span in codec.decode(blob).records())


def drops(base_path: Path) -> dict[str, int]:
    with journal_of(base_path) as journal:
        return {drop.reason: drop.count for drop in journal.drops()}


def in_the_way(base_path: Path) -> None:
    """Make a base path that can't be used, for root neither: a file is where the directory should be."""
    base_path.write_text("")


def test_export_is_durable(exporters: LmdbSpanExporter, spans: list[ReadableSpan], tmp_path: Path) -> None:
    """What was answered with SUCCESS is in the journal, each span once, with its process."""
    assert exporters.export(spans) is SpanExportResult.SUCCESS
    assert names(tmp_path / "data") == {f"span {i}": 1 for i in range(10)}
    with journal_of(tmp_path / "data") as journal:
        batches = [codec.decode(blob) for _, blob in journal.blobs()]
    (batch,) = [batch for batch in batches if len(batch)]  # others hold what earlier tests put beside their spans
    assert batch.pid == os.getpid()
    assert batch.record(3).attributes == {"i": 3}
    assert batch.record(3).resource.attributes["service.name"] == "shop"


def test_the_constructor_touches_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An exporter without arguments, that sees no span, leaves no file."""
    monkeypatch.chdir(tmp_path)
    LmdbSpanExporter().shutdown()
    assert not list(tmp_path.iterdir())


def test_the_constructor_never_raises(logged: list[str]) -> None:
    """Arguments that can't be used are logged and left out: a raise would stop all instrumentation."""
    made = LmdbSpanExporter(durability="x", queue_max_bytes="1MiB", nonsense=[1])
    assert made.settings.queue_max_bytes == 1 << 20
    assert len(logged) == 2


def test_the_session_is_named_after_the_service(tmp_path: Path, spans: list[ReadableSpan]) -> None:
    """Without an id the first span settles one, and children are told of it."""
    made = LmdbSpanExporter(base_path=tmp_path)
    assert made.export(spans) is SpanExportResult.SUCCESS
    session_id = made.activate().session_id
    made.shutdown()
    assert session_id.startswith("shop_")
    assert os.environ["OTEL_DEBUGSTORE_SESSION"] == session_id
    assert os.environ["OTEL_DEBUGSTORE_PATH"] == str(tmp_path)
    assert owns_session(session_id)
    assert sum(names(tmp_path, session_id).values()) == 10


@pytest.mark.parametrize("durability", ["sync", "interval"])
def test_durabilities(durability: str, tmp_path: Path, spans: list[ReadableSpan]) -> None:
    """Either way an exported span is in the journal for other readers at once."""
    made = LmdbSpanExporter(base_path=tmp_path, session_id="s", durability=durability)
    assert made.export(spans) is SpanExportResult.SUCCESS
    assert made.export(spans) is SpanExportResult.SUCCESS
    assert sum(names(tmp_path).values()) == 20
    assert made.force_flush()
    made.shutdown()


def test_many_threads_through_a_simple_processor(tmp_path: Path) -> None:
    """Behind the SDK's simple processor, which exports from every thread, each span is kept once."""
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(LmdbSpanExporter(base_path=tmp_path, session_id="s")))
    tracer = provider.get_tracer("test")

    def run(number: int) -> None:
        for i in range(50):
            tracer.start_span(f"{number}.{i}").end()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    provider.shutdown()
    found = names(tmp_path)
    assert len(found) == sum(found.values()) == 400


def test_spans_wait_for_a_journal_that_can_be_opened(
    tmp_path: Path, spans: list[ReadableSpan], logged: list[str]
) -> None:
    """What could not be written is kept and written when the path is free; one line says so."""
    in_the_way(tmp_path / "data")
    made = LmdbSpanExporter(base_path=tmp_path / "data", session_id="s")
    assert made.export(spans[:5]) is SpanExportResult.FAILURE
    assert made.export(spans[5:]) is SpanExportResult.FAILURE
    made.drop("queue_full", 3)
    assert not made.force_flush()
    assert len(logged) == 1
    assert str(tmp_path) in logged[0]
    (tmp_path / "data").unlink()
    made.shutdown()
    assert names(tmp_path / "data") == {f"span {i}": 1 for i in range(10)}
    assert drops(tmp_path / "data") == {"queue_full": 3}


def test_what_waits_is_bounded(
    tmp_path: Path, provider: TracerProvider, keep: Keep, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """Beyond its bound the oldest blobs are dropped and counted; kept + dropped = ended."""
    monkeypatch.setattr(pending, "MAX_PENDING_BYTES", 200_000)
    tracer = provider.get_tracer("test")
    in_the_way(tmp_path / "data")
    made = LmdbSpanExporter(base_path=tmp_path / "data", session_id="s")
    for i in range(50):
        tracer.start_span(f"span {i}", attributes={"noise": os.urandom(10_000)}).end()
        made.export([keep.spans.pop()])
    (tmp_path / "data").unlink()
    made.shutdown()
    found = names(tmp_path / "data")
    assert 15 < len(found) < 25
    assert "span 49" in found
    assert "span 0" not in found
    assert len(found) + drops(tmp_path / "data")["disk"] == 50
    assert len(logged) == 1


def test_the_last_commit_counts_what_the_disk_refuses(
    tmp_path: Path, provider: TracerProvider, keep: Keep, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """Of what waits, each blob is written for which there is room, the others are counted: at once, and once."""
    made = LmdbSpanExporter(base_path=tmp_path, session_id="s")
    real = Journal.append

    def append(self: Journal, blobs: Any, dropped: Any = None) -> None:
        if sum(map(len, blobs)) > 5_000:
            raise JournalWriteError("no space")
        real(self, blobs, dropped)

    monkeypatch.setattr(Journal, "append", append)
    for number, size in enumerate((10, 10_000, 20_000, 3_000, 30_000)):
        tracer = provider.get_tracer("test")
        for _ in range(number + 1):
            tracer.start_span(f"span {number}", attributes={"noise": os.urandom(size)}).end()
        made.add(keep.spans[:])
        keep.spans.clear()
    made.drop("queue_full", 3)
    assert not made.commit()
    made.shutdown()
    assert names(tmp_path) == {"span 0": 1}
    assert drops(tmp_path) == {"queue_full": 3, "disk": 14}
    monkeypatch.undo()
    made.drop("queue_full", 2)
    made.shutdown()
    assert names(tmp_path) == {"span 0": 1}
    assert drops(tmp_path) == {"queue_full": 5, "disk": 14}
    assert len(logged) == 1


def test_contents_come_in_parts_of_a_bounded_size() -> None:
    """Payloads and code are counted together."""
    payloads = [Payload(f"{number:032}", MEDIA_TYPE, True, bytes(100_000)) for number in range(10)]
    code = [Code(str(number), "name", source="#" * 100_000) for number in range(15)]
    parts = list(Encoder(1).contents(payloads, code))
    assert [(len(part.payloads), len(part.code)) for part in parts] == [(10, 0), (0, 10), (0, 5)]
    assert [part.content_bytes for part in parts] == [1_000_000, 1_000_000, 500_000]


def test_large_contents_take_no_spans_with_them(
    tmp_path: Path, spans: list[ReadableSpan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is room for the spans of a batch, but not for what they were given, the spans are kept."""
    made = LmdbSpanExporter(base_path=tmp_path, session_id="s")
    real = Journal.append

    def append(self: Journal, blobs: Any, dropped: Any = None) -> None:
        if sum(map(len, blobs)) > 60_000:
            raise JournalWriteError("no space")
        real(self, blobs, dropped)

    monkeypatch.setattr(Journal, "append", append)
    for number in range(10):
        OUTBOX.put_payload(f"{number:032}", MEDIA_TYPE, True, os.urandom(10_000))
    made.add(spans)
    made.shutdown()
    assert names(tmp_path) == {f"span {i}": 1 for i in range(10)}
    assert drops(tmp_path) == {"payload": 10}


def test_the_last_commit_counts_nothing_if_all_fits_in_parts(
    tmp_path: Path, spans: list[ReadableSpan], monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """What is too much for one transaction is written in several."""
    made = LmdbSpanExporter(base_path=tmp_path, session_id="s")
    real = Journal.append

    def append(self: Journal, blobs: Any, dropped: Any = None) -> None:
        if len(blobs) > 1:
            raise JournalWriteError("no space")
        real(self, blobs, dropped)

    monkeypatch.setattr(Journal, "append", append)
    for span in spans:
        made.add([span])
    made.shutdown()
    assert names(tmp_path) == {f"span {i}": 1 for i in range(10)}
    assert drops(tmp_path) == {}


def test_shedding_while_another_thread_commits(
    tmp_path: Path, spans: list[ReadableSpan], monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    """Kept + dropped = ended, also when blobs are shed while another thread takes them to a disk that refuses."""
    monkeypatch.setattr(pending, "MAX_PENDING_BYTES", 6000)
    made = LmdbSpanExporter(base_path=tmp_path, session_id="s")
    made.export(spans[:1])
    real, refusing, stop = Journal.append, threading.Event(), threading.Event()

    def append(self: Journal, blobs: Any, dropped: Any = None) -> None:
        if refusing.is_set():
            raise OSError("no space")
        real(self, blobs, dropped)

    def commit() -> None:
        while not stop.is_set():
            made.commit()

    monkeypatch.setattr(Journal, "append", append)
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread = threading.Thread(target=commit)
    thread.start()
    try:
        for number in range(4000):
            (refusing.set if number % 50 < 45 else refusing.clear)()
            made.add(spans[:1])
            made.drop(("a", "b", "c")[number % 3], 1)
    finally:
        stop.set()
        thread.join()
        sys.setswitchinterval(switch_interval)
    refusing.clear()
    made.shutdown()
    counted = drops(tmp_path)
    assert sum(names(tmp_path).values()) + counted.pop("disk", 0) == 4001
    assert sum(counted.values()) == 4000


def test_a_commit_answers_for_what_came_before_it(
    exporters: LmdbSpanExporter, spans: list[ReadableSpan], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was done although more spans came meanwhile."""
    real = Journal.append

    def append(self: Journal, blobs: Any, dropped: Any = None) -> None:
        real(self, blobs, dropped)
        exporters.add(spans[5:])

    monkeypatch.setattr(Journal, "append", append)
    assert exporters.export(spans[:5]) is SpanExportResult.SUCCESS
    monkeypatch.undo()


def test_a_slow_journal_does_not_lose_what_comes_meanwhile(
    exporters: LmdbSpanExporter, spans: list[ReadableSpan], tmp_path: Path
) -> None:
    """Blobs added while another thread commits are written by the next commit, once."""
    stop = threading.Event()

    def commit() -> None:
        while not stop.is_set():
            exporters.commit()

    thread = threading.Thread(target=commit)
    thread.start()
    for _ in range(200):
        exporters.add(spans)
    stop.set()
    thread.join()
    exporters.shutdown()
    assert set(names(tmp_path / "data").values()) == {200}


class Unprintable:
    """A value whose every use fails."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__
    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("bad", [{"end_time": "yesterday"}, {"name": Unprintable()}])
def test_a_span_that_can_not_be_encoded(
    bad: dict[str, Any],
    exporters: LmdbSpanExporter,
    spans: list[ReadableSpan],
    provider: TracerProvider,
    keep: Keep,
    tmp_path: Path,
    logged: list[str],
) -> None:
    """It alone is dropped and counted, in one line; its neighbours are kept."""
    span = provider.get_tracer("test").start_span(bad.get("name", "bad"))
    span.end(bad.get("end_time"))
    spans.insert(4, spans.pop())
    assert exporters.export(spans) is SpanExportResult.SUCCESS
    assert names(tmp_path / "data") == {f"span {i}": 1 for i in range(10)}
    assert drops(tmp_path / "data") == {"unencodable": 1}
    assert len(logged) == 1


def test_unusual_values_are_kept(
    exporters: LmdbSpanExporter, provider: TracerProvider, keep: Keep, tmp_path: Path
) -> None:
    """None, bytes, big integers, lone surrogates, nested maps and lists come back as they were."""
    attributes: dict[str, Any] = {
        "none": None,
        "bytes": b"\xff\x00",
        "big": 2**80,
        "surrogate": "\ud800",
        "nested": {"list": [1, "a", None, {"deep": [True]}]},
    }
    provider.get_tracer("test").start_span("x", attributes=attributes).end()
    assert exporters.export(keep.spans) is SpanExportResult.SUCCESS
    with journal_of(tmp_path / "data") as journal:
        (_, blob), *_ = journal.blobs()
    assert codec.decode(blob).record(0).attributes == attributes


def test_after_shutdown_a_commit_opens_the_journal_again(
    exporters: LmdbSpanExporter, spans: list[ReadableSpan], tmp_path: Path
) -> None:
    """Counts that come after shutdown are still written."""
    assert exporters.export(spans) is SpanExportResult.SUCCESS
    exporters.shutdown()
    exporters.drop("after_shutdown", 2)
    assert exporters.commit()
    assert drops(tmp_path / "data") == {"after_shutdown": 2}


def test_a_journal_that_is_garbage(tmp_path: Path, spans: list[ReadableSpan], logged: list[str]) -> None:
    """A journal that can't be read costs one line, and no exception."""
    journal = SessionPaths(tmp_path, "s").journal
    journal.mkdir()
    (journal / "data.mdb").write_bytes(os.urandom(100_000))
    made = LmdbSpanExporter(base_path=tmp_path, session_id="s")
    started = time.monotonic()
    for _ in range(3):
        assert made.export(spans) is SpanExportResult.FAILURE
    made.shutdown()
    assert len(logged) == 1
    assert time.monotonic() >= started
