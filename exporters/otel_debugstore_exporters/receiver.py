"""An OTLP/HTTP receiver: `POST /v1/traces`, protobuf or JSON, answered as the specification says.

Loss: a request is answered with 200 when its spans are durable in the journal; requests that arrive
together are committed together. Any other answer means that nothing of the request was kept. What is
held in memory is bounded (`Limits`); beyond that the answer is 503 with `Retry-After`, which exporters
heed. On a loopback address only requests whose Host is a loopback name are taken, so that no web page
can reach the receiver through a name of its own (DNS rebinding).

Needs `pip install 'otel-debugstore[serve]'`.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from otel_debugstore.errors import ConfigurationError, DebugStoreError, MalformedInputError
from otel_debugstore_exporters.batch import SpanBatch
from otel_debugstore_exporters.formats import otlp_json, otlp_proto
from otel_debugstore_exporters.formats.decompress import gunzip, inflate

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_DECODERS: Final[dict[str, Callable[[bytes], SpanBatch]]] = {
    _PROTOBUF: otlp_proto.decode,
    _JSON: otlp_json.decode,
}
_EMPTY_RESPONSE: Final = {_PROTOBUF: b"", _JSON: b"{}"}
_DECOMPRESSORS: Final[dict[str, Callable[[Iterable[bytes]], Iterable[bytes]]]] = {
    "": iter,
    "identity": iter,
    "gzip": gunzip,
    "deflate": inflate,
}
_RETRY_AFTER_SECONDS: Final = 1
_CONCURRENT_DECODERS: Final = 2


class _Code(NamedTuple):
    """An HTTP status and the `google.rpc.Code` that goes with it."""

    http: int
    rpc: int


_BAD_REQUEST: Final = _Code(400, 3)
_FORBIDDEN: Final = _Code(403, 7)
_TOO_LARGE: Final = _Code(413, 8)
_UNSUPPORTED: Final = _Code(415, 3)
_INTERNAL: Final = _Code(500, 13)
_UNAVAILABLE: Final = _Code(503, 14)
_RPC_CODES: Final = {404: 5, 405: 12}


@dataclass(frozen=True, slots=True)
class Limits:
    """Bytes a request may have, and all requests together."""

    body_bytes: int = 16 << 20
    decompressed_bytes: int = 64 << 20
    pending_bytes: int = 128 << 20


class BatchWriter(Protocol):
    """Where received spans go."""

    def write(self, batches: Sequence[SpanBatch]) -> None:
        """Keep all batches, durably when this returns, or none.

        Raises:
            DebugStoreError: Nothing was kept now; it may work later.
        """


def make_app(writer: BatchWriter, *, limits: Limits | None = None, check_hosts: bool = True) -> Starlette:
    """Return the receiver as an ASGI application.

    Args:
        writer: Where spans go.
        limits: How much is taken.
        check_hosts: Refuse requests whose Host header is no loopback name.

    Raises:
        ConfigurationError: The extra `serve` is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route
    except ImportError as error:
        raise ConfigurationError(
            "The receiver needs starlette, which is not installed: pip install 'otel-debugstore[serve]'."
        ) from error

    receiver = _Receiver(writer, limits or Limits(), check_hosts)
    app = Starlette(
        routes=[Route("/v1/traces", receiver.traces, methods=["POST"])],
        exception_handlers={HTTPException: _http_error},  # type: ignore[dict-item]  # of this exception only
        lifespan=lambda _: receiver.running(),
    )
    app.router.redirect_slashes = False  # an exporter follows no redirect; 404 tells what is wrong
    return app


async def _http_error(request: Request, error: HTTPException) -> Response:
    refusal = _RefusalError(_Code(error.status_code, _RPC_CODES.get(error.status_code, 2)), error.detail)
    return refusal.response(_content_type(request), dict(error.headers or {}))


class _RefusalError(Exception):
    """A request that is answered with an error; nothing of it is kept."""

    def __init__(self, code: _Code, message: str) -> None:
        super().__init__(message)
        self._code = code
        self._message = message

    def response(self, content_type: str, headers: dict[str, str] | None = None) -> Response:
        """Return the error as `google.rpc.Status` in the request's encoding."""
        from starlette.responses import Response

        headers = dict(headers or {})
        if self._code is _UNAVAILABLE:
            headers["Retry-After"] = str(_RETRY_AFTER_SECONDS)
        if content_type == _PROTOBUF:
            body = _status_protobuf(self._code.rpc, self._message)
        else:
            content_type = _JSON
            body = json.dumps({"code": self._code.rpc, "message": self._message}).encode()
        return Response(body, self._code.http, headers, media_type=content_type)


def _status_protobuf(code: int, message: str) -> bytes:
    """The two fields of `google.rpc.Status` that are used: code (1, varint) and message (2, string)."""
    text = message.encode("utf-8", "replace")
    length = bytearray()
    rest = len(text)
    while rest > 0x7F:
        length.append(rest & 0x7F | 0x80)
        rest >>= 7
    length.append(rest)
    return bytes([0x08, code, 0x12, *length]) + text


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def is_loopback(host: str) -> bool:
    """Say whether a host name or address is this machine's loopback."""
    if host.lower().rstrip(".") == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class _Receiver:
    """Handles requests; runs within one event loop."""

    def __init__(self, writer: BatchWriter, limits: Limits, check_hosts: bool) -> None:
        self._limits = limits
        self._check_hosts = check_hosts
        self._committer = _Committer(writer)
        self._decoders = asyncio.Semaphore(_CONCURRENT_DECODERS)
        self._pending_bytes = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Commit what is received while the block runs, and the rest at its end."""
        committing = asyncio.create_task(self._committer.run())
        try:
            yield
        finally:
            self._committer.stop()
            await committing

    async def traces(self, request: Request) -> Response:
        from starlette.requests import ClientDisconnect
        from starlette.responses import Response

        content_type = _content_type(request)
        reservation = _Reservation(self)
        try:
            self._check(request, content_type)
            batch = await self._received(request, content_type, reservation)
            if len(batch):
                await self._committer.write(batch)
            return Response(_EMPTY_RESPONSE[content_type], media_type=content_type)
        except _RefusalError as refusal:
            return refusal.response(content_type)
        except ClientDisconnect:
            return Response(status_code=_BAD_REQUEST.http)  # nobody reads it
        finally:
            reservation.release()

    def _check(self, request: Request, content_type: str) -> None:
        if self._check_hosts and not is_loopback(_host_name(request.headers.get("host", ""))):
            raise _RefusalError(_FORBIDDEN, "The Host header does not name this machine's loopback address.")
        if content_type not in _DECODERS:
            raise _RefusalError(_UNSUPPORTED, f"The content type must be {_PROTOBUF} or {_JSON}.")
        if _coding(request) not in _DECOMPRESSORS:
            raise _RefusalError(_UNSUPPORTED, "The content encoding must be gzip, deflate or identity.")

    async def _received(self, request: Request, content_type: str, reservation: _Reservation) -> SpanBatch:
        body = await self._body(request, reservation)
        async with self._decoders:
            try:
                content = await asyncio.to_thread(self._decompressed, body, _coding(request))
                reservation.add(len(content))
                return await asyncio.to_thread(_DECODERS[content_type], content)
            except MalformedInputError as error:
                raise _RefusalError(_BAD_REQUEST, str(error)) from error

    async def _body(self, request: Request, reservation: _Reservation) -> bytes:
        """Read the body; of one too large about as much again, so that the client reads the answer."""
        limit = self._limits.body_bytes
        chunks, size = [], 0
        try:
            async for chunk in request.stream():
                size += len(chunk)
                if size > 2 * limit:
                    break
                if size <= limit:
                    reservation.add(len(chunk))
                    chunks.append(chunk)
        except asyncio.CancelledError as error:  # the server ends, and the client is too slow for it
            raise _RefusalError(_UNAVAILABLE, "The receiver is stopping; try again.") from error
        if size > limit:
            raise _RefusalError(_TOO_LARGE, f"The request has more than {limit} bytes.")
        return b"".join(chunks)

    def _decompressed(self, body: bytes, coding: str) -> bytes:
        limit = self._limits.decompressed_bytes
        pieces, size = [], 0
        for piece in _DECOMPRESSORS[coding]([body]):
            size += len(piece)
            if size > limit:
                raise _RefusalError(_TOO_LARGE, f"The request has more than {limit} bytes when decompressed.")
            pieces.append(piece)
        return b"".join(pieces)

    def reserve(self, size: int) -> None:
        """Count bytes that are held; refuse what is beyond the limit of all requests."""
        if self._pending_bytes + size > self._limits.pending_bytes:
            raise _RefusalError(_UNAVAILABLE, "Too many spans are waiting to be written; try again.")
        self._pending_bytes += size

    def release(self, size: int) -> None:
        """Give back what was reserved."""
        self._pending_bytes -= size


class _Reservation:
    """The bytes that one request holds."""

    def __init__(self, receiver: _Receiver) -> None:
        self._receiver = receiver
        self._size = 0

    def add(self, size: int) -> None:
        self._receiver.reserve(size)
        self._size += size

    def release(self) -> None:
        self._receiver.release(self._size)
        self._size = 0


def _coding(request: Request) -> str:
    return request.headers.get("content-encoding", "").strip().lower()


def _host_name(host: str) -> str:
    """The Host header without its port and the brackets of an IPv6 address."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


class _Committer:
    """Commits the batches of concurrent requests together, in a thread, one commit at a time."""

    def __init__(self, writer: BatchWriter) -> None:
        self._writer = writer
        self._waiting: list[tuple[SpanBatch, asyncio.Future[None]]] = []
        self._wake = asyncio.Event()
        self._stopping = False

    async def write(self, batch: SpanBatch) -> None:
        """Return when the batch is durable; raise `_RefusalError` if it is not kept."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, written))
        self._wake.set()
        await written

    async def run(self) -> None:
        while not (self._stopping and not self._waiting):
            await self._wake.wait()
            if not self._stopping:
                self._wake.clear()
            group, self._waiting = self._waiting, []
            if group:
                await self._commit(group)

    def stop(self) -> None:
        """Let `run` end once everything is written."""
        self._stopping = True
        self._wake.set()

    async def _commit(self, group: Sequence[tuple[SpanBatch, asyncio.Future[None]]]) -> None:
        error = await asyncio.to_thread(self._tried, [batch for batch, _ in group])
        if error is not None and error._code is _INTERNAL and len(group) > 1:
            for one in group:  # one batch that can't be written must not take the others with it
                await self._commit([one])
            return
        for _, written in group:
            if written.done():  # its client went away
                continue
            if error is None:
                written.set_result(None)
            else:
                written.set_exception(error)

    def _tried(self, batches: Sequence[SpanBatch]) -> _RefusalError | None:
        try:
            self._writer.write(batches)
        except DebugStoreError as error:
            return _RefusalError(_UNAVAILABLE, str(error))
        except Exception as error:  # noqa: BLE001  # whatever it is, the receiver stays up
            return _RefusalError(_INTERNAL, f"The spans can't be written ({type(error).__name__}: {error}).")
        return None
