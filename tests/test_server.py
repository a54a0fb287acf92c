"""The OTLP/HTTP receiver, over real connections on loopback."""

from __future__ import annotations

import gzip
import json
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from google.protobuf.json_format import MessageToJson  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import SpanBatch, SpanRecord
from otel_debugstore_exporters.journal import Journal, JournalWriteError
from otel_debugstore_exporters.receiver import BatchWriter, Limits, make_app
from otel_debugstore_exporters.server import JournalWriter, check_host, serve
from otel_debugstore_exporters.session import SessionPaths

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
SMALL = Limits(body_bytes=10_000, decompressed_bytes=20_000, pending_bytes=60_000)

Serving = Callable[..., httpx.Client]


def message(*names: str) -> bytes:
    spans = [Span(trace_id=b"t" * 16, span_id=b"s" * 8, name=name) for name in names]
    data: Any = TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])])
    return bytes(data.SerializeToString())


def document(*names: str) -> bytes:
    spans = [{"traceId": "ab" * 16, "spanId": "cd" * 8, "name": name} for name in names]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def deflated(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


class Kept:
    """A writer that keeps batches in memory, and may be told to fail or to wait."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.error: Callable[[list[str]], Exception | None] = lambda _: None
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def write(self, batches: Sequence[SpanBatch]) -> None:
        names = [record.name for batch in batches for record in batch.records()]
        self.entered.set()
        assert self.gate.wait(30)
        if (error := self.error(names)) is not None:
            raise error
        self.calls.append(names)

    @property
    def names(self) -> list[str]:
        return sorted(name for call in self.calls for name in call)


@pytest.fixture
def serving() -> Iterator[Serving]:
    """Runs receivers on free ports; returns a client for each."""
    running: list[tuple[uvicorn.Server, threading.Thread, httpx.Client]] = []

    def start(writer: BatchWriter, limits: Limits | None = None, **options: Any) -> httpx.Client:
        listener = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(make_app(writer, limits=limits, **options), log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        client = httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30)
        running.append((server, thread, client))
        return client

    yield start
    for server, thread, client in running:
        client.close()
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def post(client: httpx.Client, content: bytes, headers: dict[str, str]) -> httpx.Response:
    return client.post("/v1/traces", content=content, headers=headers)


def recorded(journal: Journal) -> list[SpanRecord]:
    return [record for _, blob in journal.blobs() for record in codec.decode(blob).records()]


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (message("a", "b"), PROTOBUF),
        (document("a", "b"), JSON),
        (document("a", "b"), {"content-type": "Application/JSON; charset=utf-8"}),
        (message("a", "b"), PROTOBUF | {"content-encoding": "identity"}),
        (gzip.compress(message("a", "b"), mtime=0), PROTOBUF | {"content-encoding": "gzip"}),
        (gzip.compress(document("a", "b"), mtime=0), JSON | {"content-encoding": "GZIP"}),
        (zlib.compress(message("a", "b")), PROTOBUF | {"content-encoding": "deflate"}),
        (deflated(document("a", "b")), JSON | {"content-encoding": "deflate"}),
    ],
)
def test_spans_are_durable_when_the_request_is_answered(
    serving: Serving, tmp_path: Path, content: bytes, headers: dict[str, str]
) -> None:
    """In all encodings: 200, an empty response in the request's type, and the spans in the journal."""
    with Journal.open(tmp_path / "s.lmdb") as journal:
        response = post(serving(JournalWriter(journal)), content, headers)
        assert response.status_code == 200
        assert [record.name for record in recorded(journal)] == ["a", "b"]
    if "json" in response.request.headers["content-type"].lower():
        assert response.headers["content-type"] == "application/json"
        assert response.json() == {}
    else:
        assert response.headers["content-type"] == "application/x-protobuf"
        assert ExportTraceServiceResponse.FromString(response.content) == ExportTraceServiceResponse()


@pytest.mark.parametrize("compression", list(Compression))
def test_the_sdk_exports_to_it(serving: Serving, tmp_path: Path, compression: Compression) -> None:
    """OpenTelemetry's own exporter delivers what the SDK recorded, every field of it."""
    with Journal.open(tmp_path / "s.lmdb") as journal:
        client = serving(JournalWriter(journal))
        exporter = OTLPSpanExporter(endpoint=f"{client.base_url}/v1/traces", compression=compression)
        provider = TracerProvider(resource=Resource({"service.name": "shop"}), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        with provider.get_tracer("lib", "1").start_as_current_span("parent", attributes={"list": [1, 2]}):
            for number in range(1300):
                provider.get_tracer("lib", "1").start_span(f"child {number}").end()
        assert provider.force_flush()
        provider.shutdown()
        records = recorded(journal)
        assert all(codec.read_header(blob).span_count <= 512 for _, blob in journal.blobs())
    assert sorted(record.name for record in records) == sorted(["parent", *(f"child {n}" for n in range(1300))])
    (parent,) = [record for record in records if record.name == "parent"]
    assert parent.attributes == {"list": [1, 2]}
    assert (parent.kind, parent.scope.name, parent.resource.attributes["service.name"]) == (1, "lib", "shop")
    assert {record.parent_id for record in records} == {None, parent.span_id}


def test_large_requests_are_split_into_small_blobs(serving: Serving, tmp_path: Path) -> None:
    """A request of any size becomes journal blobs of at most 512 spans, in one commit."""
    names = [f"n{number}" for number in range(1500)]
    with Journal.open(tmp_path / "s.lmdb") as journal:
        assert post(serving(JournalWriter(journal)), message(*names), PROTOBUF).status_code == 200
        assert [codec.read_header(blob).span_count for _, blob in journal.blobs()] == [512, 512, 476]
        assert [record.name for record in recorded(journal)] == names


def test_requests_without_spans_are_answered_and_not_written(serving: Serving) -> None:
    """An empty message is a valid request."""
    kept = Kept()
    client = serving(kept)
    assert post(client, b"", PROTOBUF).status_code == 200
    assert post(client, b"{}", JSON).status_code == 200
    assert kept.calls == []


def refused(response: httpx.Response, http: int, rpc: int) -> str:
    """Check the body of an error, which is a `google.rpc.Status` in the request's encoding."""
    assert response.status_code == http
    if response.headers["content-type"] == "application/x-protobuf":
        status = Status.FromString(response.content)
        assert status.code == rpc
        return str(status.message)
    assert response.headers["content-type"] == "application/json"
    assert response.json()["code"] == rpc
    return str(response.json()["message"])


@pytest.mark.parametrize(
    ("content", "headers", "text"),
    [
        (b"{broken", JSON, "not OTLP JSON"),
        (b"", JSON, "not OTLP JSON"),
        (document("a").replace(b"abab", b"ab", 1), JSON, "trace id"),
        (b"\x00\xff" * 50, PROTOBUF, "not OTLP protobuf"),
        (message("a").replace(b"s" * 8, b"s" * 7), PROTOBUF, "not OTLP protobuf"),
        (b"no gzip", PROTOBUF | {"content-encoding": "gzip"}, "damaged"),
        (gzip.compress(message("a"), mtime=0)[:-5], PROTOBUF | {"content-encoding": "gzip"}, "ends early"),
        (b"", JSON | {"content-encoding": "gzip"}, "ends early"),
        (b"x" * 20, JSON | {"content-encoding": "deflate"}, "damaged"),
    ],
)
def test_what_can_not_be_decoded_is_400(serving: Serving, content: bytes, headers: dict[str, str], text: str) -> None:
    """With what is wrong; the client must not send it again."""
    kept = Kept()
    response = post(serving(kept), content, headers)
    assert text in refused(response, 400, 3)
    assert "retry-after" not in response.headers
    assert kept.calls == []


def test_other_types_and_codings_are_415(serving: Serving) -> None:
    """Only protobuf and JSON, only gzip and deflate."""
    client = serving(Kept())
    for headers in ({"content-type": "text/plain"}, {"content-type": "application/grpc"}, {}):
        assert "content type" in refused(post(client, b"{}", headers), 415, 3)
    assert "encoding" in refused(post(client, b"{}", JSON | {"content-encoding": "br"}), 415, 3)
    assert "encoding" in refused(post(client, b"{}", PROTOBUF | {"content-encoding": "gzip, gzip"}), 415, 3)


def test_other_paths_and_methods(serving: Serving) -> None:
    """404 and 405 have a status body too, and no page can ask for permission (CORS)."""
    client = serving(Kept())
    refused(client.post("/v1/logs", content=b"", headers=PROTOBUF), 404, 5)
    refused(client.post("/v1/traces/", content=b"", headers=PROTOBUF), 404, 5)
    refused(client.get("/"), 404, 5)
    response = client.get("/v1/traces")
    refused(response, 405, 12)
    assert response.headers["allow"] == "POST"
    refused(client.options("/v1/traces"), 405, 12)


def test_bodies_that_are_too_large_are_413(serving: Serving) -> None:
    """Whether their length was announced or not; what is just within the limit is taken."""
    kept = Kept()
    client = serving(kept, SMALL)
    large = message("x" * 10_001)
    assert "10000 bytes" in refused(post(client, large, PROTOBUF), 413, 8)
    chunked = client.post("/v1/traces", content=iter([large[:100], large[100:]]), headers=PROTOBUF)
    refused(chunked, 413, 8)
    assert post(client, message("x" * 9_900), PROTOBUF).status_code == 200
    assert len(kept.calls) == 1


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_bombs_are_413(serving: Serving, coding: str) -> None:
    """A small body that would decompress to a gigabyte is refused once it exceeds the limit."""
    compressor = zlib.compressobj(9, wbits=31 if coding == "gzip" else 15)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(1024)) + compressor.flush()
    client = serving(Kept(), Limits(body_bytes=2 << 20, decompressed_bytes=1 << 20))
    response = post(client, bomb, JSON | {"content-encoding": coding})
    assert "when decompressed" in refused(response, 413, 8)


def test_a_journal_that_can_not_be_written_is_503(serving: Serving) -> None:
    """The client is asked to try again, and when it does the spans are kept, once."""
    kept = Kept()
    client = serving(kept)
    kept.error = lambda _: JournalWriteError("The disk is full; free space.")
    response = post(client, message("a"), PROTOBUF)
    assert "disk is full" in refused(response, 503, 14)
    assert response.headers["retry-after"] == "1"
    kept.error = lambda _: None
    assert post(client, message("a"), PROTOBUF).status_code == 200
    assert kept.names == ["a"]


def in_background(client: httpx.Client, name: str, answers: list[httpx.Response]) -> threading.Thread:
    thread = threading.Thread(target=lambda: answers.append(post(client, message(name), PROTOBUF)))
    thread.start()
    return thread


def test_concurrent_requests_are_committed_together(serving: Serving) -> None:
    """While one commit is under way others wait and then share the next; a bad batch spoils only itself."""
    kept = Kept()
    kept.error = lambda names: ValueError("odd") if "bad" in names else None
    client = serving(kept)
    kept.gate.clear()
    answers: list[httpx.Response] = []
    threads = [in_background(client, "first", answers)]
    assert kept.entered.wait(30)
    names = ["second", "third", "bad", "fourth"]
    threads += [in_background(client, name, answers) for name in names]
    time.sleep(0.5)
    kept.gate.set()
    for thread in threads:
        thread.join()
    assert kept.names == ["first", "fourth", "second", "third"]
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 500]


def test_too_much_at_once_is_503(serving: Serving) -> None:
    """Beyond what may be held in memory the answer is to come back later; nothing that was taken is lost."""
    kept = Kept()
    client = serving(kept, SMALL)
    kept.gate.clear()
    answers: list[httpx.Response] = []
    threads = [in_background(client, f"{number}".ljust(9_000), answers) for number in range(10, 20)]
    while len(answers) < 5:
        time.sleep(0.01)
    kept.gate.set()
    for thread in threads:
        thread.join()
    refusals = [answer for answer in answers if answer.status_code != 200]
    assert 5 <= len(refusals) < 10
    for answer in refusals:
        assert answer.headers["retry-after"] == "1"
        refused(answer, 503, 14)
    assert len(kept.names) == 10 - len(refusals)
    assert post(client, message("a"), PROTOBUF).status_code == 200


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:4318", 200),
        ("127.0.0.1:1", 200),
        ("127.9.9.9", 200),
        ("[::1]:4318", 200),
        ("evil.example", 403),
        ("evil.example:4318", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("", 403),
    ],
)
def test_pages_with_a_name_of_their_own_are_refused(serving: Serving, host: str, status: int) -> None:
    """A Host that is no loopback name means that a name was bent to point here."""
    response = post(serving(Kept()), document("a"), JSON | {"host": host})
    assert response.status_code == status
    if status == 403:
        refused(response, 403, 7)


def test_hosts_are_not_checked_where_remote_access_is_allowed(serving: Serving) -> None:
    """Then any name can be the machine's."""
    client = serving(Kept(), check_hosts=False)
    assert post(client, document("a"), JSON | {"host": "build.example"}).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_addresses_others_can_reach_must_be_allowed(tmp_path: Path, host: str) -> None:
    """Else nothing is listened on, and no session comes to be."""
    with pytest.raises(ConfigurationError, match="no authentication"):
        serve(SessionPaths(tmp_path / "data", "s"), host)
    assert not (tmp_path / "data").exists()
    check_host(host, allow_remote=True)


def test_a_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    """One line that says so, and no session comes to be."""
    with (
        socket.create_server(("127.0.0.1", 0)) as taken,
        pytest.raises(ConfigurationError, match="can't be listened on"),
    ):
        serve(SessionPaths(tmp_path / "data", "s"), port=taken.getsockname()[1])
    with pytest.raises(ConfigurationError, match="can't be listened on"):
        serve(SessionPaths(tmp_path / "data", "s"), port=99_999)
    assert not (tmp_path / "data").exists()


def test_the_extra_is_named_when_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the command that installs it."""
    for module in ("uvicorn", "starlette.applications"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(ConfigurationError, match=r"pip install 'otel-debugstore\[serve\]'"):
                serve(SessionPaths(tmp_path / "data", "s"), port=0)


PROGRAM = """
import sys
from pathlib import Path
from otel_debugstore_exporters.server import serve
from otel_debugstore_exporters.session import SessionPaths
serve(SessionPaths(Path(sys.argv[1]), "s"), port=0, on_start=lambda host, port: print(port, flush=True))
print("ended", flush=True)
"""


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that serves, and its URL."""
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        yield running, f"http://127.0.0.1:{running.stdout.readline().strip()}/v1/traces"
        running.kill()


def names_in(tmp_path: Path) -> list[str]:
    with Journal.open(tmp_path / "s.lmdb") as journal:
        return [record.name for record in recorded(journal)]


def test_ctrl_c_ends_it_cleanly(process: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    """No traceback, exit code 0, and what was acknowledged is there."""
    running, url = process
    assert httpx.post(url, content=message("a"), headers=PROTOBUF).status_code == 200
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=30)
    assert (out, err, running.returncode) == ("ended\n", "", 0)
    assert names_in(tmp_path) == ["a"]


def test_ctrl_c_with_a_slow_client(process: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    """A request that does not come to its end is answered with 503 after the grace period; no traceback."""
    running, url = process
    head = (
        b"POST /v1/traces HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    with socket.create_connection(("127.0.0.1", httpx.URL(url).port or 0)) as client:
        client.sendall(head)
        assert httpx.post(url, content=message("a"), headers=PROTOBUF).status_code == 200
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=30)
        assert client.recv(1000).startswith(b"HTTP/1.1 503 ")
    assert (out, running.returncode) == ("ended\n", 0)
    assert "Traceback" not in err
    assert names_in(tmp_path) == ["a"]


def test_what_was_acknowledged_survives_a_kill(process: tuple[subprocess.Popen[str], str], tmp_path: Path) -> None:
    """Whatever was answered with 200 before `kill -9` is in the journal exactly once."""
    running, url = process
    acknowledged = []
    with httpx.Client() as client:
        killer = threading.Timer(0.5, running.kill)
        killer.start()
        for number in range(100_000):
            try:
                response = client.post(url, content=message(f"n{number}"), headers=PROTOBUF)
            except httpx.HTTPError:
                break
            assert response.status_code == 200
            acknowledged.append(f"n{number}")
        killer.join()
    assert acknowledged
    found = names_in(tmp_path)
    assert found[: len(acknowledged)] == acknowledged
    assert len(found) <= len(acknowledged) + 1


def test_protobuf_and_json_of_one_request_are_the_same(serving: Serving) -> None:
    """What protobuf's own JSON printer writes, with OTLP's hexadecimal ids, is read as the same span."""
    kept = Kept()
    client = serving(kept)
    text = json.loads(MessageToJson(TracesData.FromString(message("a"))))
    span = text["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    span |= {"traceId": (b"t" * 16).hex(), "spanId": (b"s" * 8).hex()}
    assert post(client, json.dumps(text).encode(), JSON).status_code == 200
    assert post(client, message("a"), PROTOBUF).status_code == 200
    assert kept.calls == [["a"], ["a"]]
