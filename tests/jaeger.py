"""A real Jaeger v2 for tests: found or built, run on loopback, and asked what it keeps.

Jaeger is no part of the repository. It is taken from, in this order: the environment variable
`OTEL_DEBUGSTORE_TEST_JAEGER` (any version), the cache, the `PATH` (the pinned version only); else it is
built with Go, which takes some minutes once, and kept in `$XDG_CACHE_HOME/otel-debugstore`.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

JAEGER_VERSION: Final = "v2.13.0"
GO_MODULE: Final = "github.com/jaegertracing/jaeger"
GO_VERSION: Final = "v1.76.0"
"""The commit of `JAEGER_VERSION` under the tag that Go's module rules accept (one commit has both)."""

BINARY_VARIABLE: Final = "OTEL_DEBUGSTORE_TEST_JAEGER"
_BUILD_SECONDS: Final = 1500
_START_SECONDS: Final = 30
_DIRECT: Final = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class JaegerUnavailableError(Exception):
    """No Jaeger can be had on this machine; the text says why."""


def find_jaeger() -> Path:
    """Return a Jaeger v2 binary, built where there is none.

    Raises:
        JaegerUnavailableError: There is none, and it can't be built (no Go, no network).
    """
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        return Path(named)
    cached = _cache() / "jaeger"
    if cached.exists():
        return cached
    installed = shutil.which("jaeger")
    if installed and _version(installed) == JAEGER_VERSION:
        return Path(installed)
    return _build(cached)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "otel-debugstore", f"jaeger-{GO_VERSION}")


def _version(binary: str) -> str:
    printed = subprocess.run([binary, "version"], capture_output=True, text=True, timeout=20).stdout
    try:
        return str(json.loads(printed[printed.find("{") : printed.find("}") + 1]).get("gitVersion"))
    except ValueError:
        return ""


def _build(binary: Path) -> Path:
    """Build the pinned version as `binary`; of several processes that try, one builds and the others wait."""
    if not shutil.which("go"):
        raise JaegerUnavailableError(f"no Go to build it with; install Go, or name a binary in {BINARY_VARIABLE}")
    work = binary.parent / "build"
    work.mkdir(parents=True, exist_ok=True)
    with (binary.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.exists():
            _build_module(work)
            (work / "jaeger").rename(binary)
            shutil.rmtree(work)
    return binary


def _build_module(work: Path) -> None:
    """Build `work/jaeger`.

    `go install MODULE@VERSION` refuses a module whose go.mod has `replace` directives, as Jaeger's has. So
    its go.mod becomes that of a module of ours which requires Jaeger, with the same versions of everything.
    """
    source = Path(json.loads(_go(work, "mod", "download", "-json", f"{GO_MODULE}@{GO_VERSION}"))["Dir"])
    for name in ("go.mod", "go.sum"):
        (work / name).write_bytes((source / name).read_bytes())
    _go(work, "mod", "edit", "-module=jaeger.test/build", f"-require={GO_MODULE}@{GO_VERSION}")
    _go(work, "build", "-mod=mod", "-buildvcs=false", "-o", "jaeger", f"{GO_MODULE}/cmd/jaeger")


def _go(work: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["go", *arguments],
            cwd=work,
            env=os.environ | {"CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            timeout=_BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise JaegerUnavailableError(f"`go {arguments[0]}` took more than {_BUILD_SECONDS} s") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise JaegerUnavailableError(f"`go {' '.join(arguments)}` failed: {said[-400:]}")
    return done.stdout


@dataclass(frozen=True)
class Jaeger:
    """A running Jaeger; every address is on loopback."""

    otlp_http: str
    otlp_grpc: str
    query: str

    def spans(self, service: str, expected: int, timeout_seconds: float = 20.0) -> list[dict[str, Any]]:
        """Return the spans Jaeger has of a service as OTLP JSON, each with its `resource` and `scope`.

        Args:
            service: The `service.name`.
            expected: How many to wait for; fewer are returned when the time is over.
            timeout_seconds: How long to wait.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            found = [span for batch in self._find(service) for span in _flat(batch)]
            if len(found) >= expected or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def _find(self, service: str) -> list[dict[str, Any]]:
        query = {
            "query.service_name": service,
            "query.start_time_min": "2000-01-01T00:00:00Z",
            "query.start_time_max": "2200-01-01T00:00:00Z",
            "query.num_traces": "100000",
            "query.raw_traces": "true",  # as they came: not mended, no warnings added
        }
        try:
            answer = _get(f"{self.query}/api/v3/traces?{urllib.parse.urlencode(query)}")
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return []
                raise
        batches: list[dict[str, Any]] = json.loads(answer)["result"]["resourceSpans"]
        return batches


def _flat(batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for scope_spans in batch["scopeSpans"]:
        for span in scope_spans["spans"]:
            yield {**span, "resource": batch.get("resource", {}), "scope": scope_spans.get("scope", {})}


@contextmanager
def running_jaeger(binary: Path, folder: Path) -> Iterator[Jaeger]:
    """Run Jaeger with an empty memory store while the block runs.

    Args:
        binary: What `find_jaeger` returned.
        folder: Where its configuration and its log go.
    """
    grpc, http, query, query_grpc = (f"127.0.0.1:{port}" for port in _free_ports(4))
    config = folder / "jaeger.yaml"
    config.write_text(json.dumps(_configuration(grpc, http, query, query_grpc)))  # JSON is YAML
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    log = folder / "jaeger.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [binary, "--config", config],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            jaeger = Jaeger(f"http://{http}", f"http://{grpc}", f"http://{query}")
            _await_start(process, jaeger, log)
            yield jaeger
        finally:
            process.terminate()
            process.wait(_START_SECONDS)


def _configuration(grpc: str, http: str, query: str, query_grpc: str) -> dict[str, Any]:
    return {
        "service": {
            "extensions": ["jaeger_storage", "jaeger_query"],
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["jaeger_storage_exporter"]}},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "warn"}},
        },
        "extensions": {
            "jaeger_storage": {"backends": {"memory": {"memory": {"max_traces": 100_000}}}},
            "jaeger_query": {
                "storage": {"traces": "memory"},
                "http": {"endpoint": query},
                "grpc": {"endpoint": query_grpc},
                "enable_tracing": False,  # of itself: there is nowhere to send that to
            },
        },
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": grpc}, "http": {"endpoint": http}}}},
        "exporters": {"jaeger_storage_exporter": {"trace_storage": "memory"}},
    }


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [held.getsockname()[1] for held in sockets]
    for held in sockets:
        held.close()
    return ports


def _await_start(process: subprocess.Popen[bytes], jaeger: Jaeger, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        try:
            _get(f"{jaeger.query}/api/v3/services")
            address = urllib.parse.urlsplit(jaeger.otlp_http)
            socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Jaeger did not start; its log ends: {log.read_text()[-2000:]}") from None
            time.sleep(0.05)


def _get(url: str) -> bytes:
    with _DIRECT.open(url, timeout=10) as response:
        body: bytes = response.read()
    return body
