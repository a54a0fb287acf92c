"""The same spans in both engines: sessions on this machine, and the ClickHouse that runs in this process (chdb).

`engines` and `nezha` are fixtures (of `conftest`): {"duckdb": Engine, "clickhouse": Engine}. `both` makes the same of
any sessions, and `assert_same` compares what an analysis answers on both.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gzip
import json
import math
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from otel_debugstore.outbox import CallCount, Code, Payload
from otel_debugstore_analysis import query
from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import Resource, SpanRecord, batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.session import SessionPaths
from sessions import MS, START_NS, span, write_sealed

Engines = Mapping[str, query.Engine]

TOLERANCE: Final = 1e-9
NEZHA: Final = Path(__file__).parents[2] / "shared" / "data" / "nezha"
NEZHA_PART: Final = "boutique-baseline-2022-08-23.otlp.jsonl.gz"
ODD_ATTRIBUTES: Final[Mapping[str, Any]] = {
    "whole": 3,
    "negative": -5,
    "beyond": 2**63,
    "fraction": 1.5,
    "whole fraction": 1.0,
    "large": 1e300,
    "small": 1e-7,
    "yes": True,
    "no": False,
    "null": None,
    "list": ["a", "b c", 1.5, None],
    "numbers": [1, 2],
    "map": {"x": 1, "y": {"z": "q"}},
    "like a list": "[1,2]",
    "like a map": "{'x': 1}",
    "quotes": 'it\'s "quoted" \\ back',
    "letters": "grüße 🙂",
    "dot.ted/~*": "key",
    "empty": "",
    "lines": "a\nb\tc",
}
"""Attributes of every kind that there is."""


def synthetic() -> list[SpanRecord]:
    """Return a few traces with every odd value that a span can have."""
    state = "vendor=1,ot=th:c;rv:1"
    return [
        span(1, "request", duration_ms=100, service="web", attributes=dict(ODD_ATTRIBUTES)),
        span(2, "parse", parent=1, start_ms=10, duration_ms=20, attributes={"kind": "json"}, service="web"),
        span(3, "parse", parent=1, start_ms=20.5, duration_ms=41, attributes={"kind": "json"}, error="ValueError"),
        span(4, "store", parent=3, start_ms=50, duration_ms=31, attributes={"kind": "row", "debugstore.layer": "tool"}),
        span(5, "longer than its parent", parent=4, start_ms=45, duration_ms=78.125),
        span(6, "one of a circle", parent=7, trace=2, start_ms=1, duration_ms=6),
        span(7, "the other", parent=6, trace=2, start_ms=2, duration_ms=7.5),
        span(8, "its own parent", parent=8, trace=2, duration_ms=8.25),
        span(9, "orphan", parent=99, trace=2, duration_ms=9),
        span(10, "negative", trace=2, start_ms=5, duration_ms=-2),
        span(11, "without start", trace=3, start_ns=None),
        span(12, "without duration", trace=3, start_ms=1, duration_ms=0),
        span(13, "sampled", trace=4, start_ms=3_000, duration_ms=13, trace_state=state),
        span(14, "sampled", trace=4, start_ms=3_001, duration_ms=14.5, error="KeyError", trace_state=state),
        span(
            15,
            "sampled",
            trace=4,
            start_ms=3_002,
            duration_ms=15,
            attributes={"debugstore.late": True},
            trace_state=state,
        ),
        span(16, "agent", trace=5, start_ms=60_000, duration_ms=16, attributes={"openinference.span.kind": "AGENT"}),
        span(17, "chat m", trace=5, parent=16, start_ms=60_001, attributes={"gen_ai.operation.name": "chat"}),
        span(18, "f", trace=5, parent=16, start_ms=60_002, duration_ms=18, attributes=_OF_F),
        span(19, "root", trace=6, start_ms=-3, duration_ms=19),
        replace(span(20, "open", trace=6, start_ms=7), end_ns=None),
        replace(
            span(21, "of a process", trace=6, start_ms=8, duration_ms=21),
            resource=Resource({"service.name": "svc", "process.pid": 4711, "session.id": "not this"}),
        ),
        span(22, "", trace=6, parent=21, start_ms=9, duration_ms=22),
    ]


_OF_F: Final = {
    "debugstore.component": "f",
    "debugstore.layer": "function",
    "debugstore.variant": "abc",
    "debugstore.cpu.time_ns": 17,
    "debugstore.memory.peak_bytes": 18,
    "debugstore.memory.net_bytes": -19,
    "debugstore.io.read_bytes": 20,
    "debugstore.io.write_bytes": 21,
    "thread.id": 22,
    "error.type": "timeout",
}


def write_synthetic(base_path: Path) -> None:
    """Write `synthetic` as the session "s", of two processes, with what is beside spans; and another session "t"."""
    spans = synthetic()
    write_sealed(base_path, "s", spans[:12], pid=1)
    batch = batch_from_records([*spans[12:], _forked()], 2)
    batch.counts = [CallCount(START_NS, START_NS + 10**9, "function", "f", 40, 4, 80 * MS, 1, 280)]
    batch.payloads = [Payload("d1" * 16, "application/msgpack", True, b"content")]
    batch.code = [Code("abc", "module.f", "/app/module.py", 7, "c0ffee", "def f(): ...")]
    with Journal.open(SessionPaths(base_path, "s").journal) as journal:
        journal.append([codec.encode(batch, START_NS)])
    write_sealed(base_path, "t", [span(1, "other", trace=7, start_ms=120_000, duration_ms=1.75, service="web")])


def _forked() -> SpanRecord:
    """A span that was open at a fork, and ended in both processes."""
    return span(3, "parse", parent=1, start_ms=20.5, duration_ms=30)


@functools.cache
def _chdb() -> Path:
    """The directory of this process's chdb, which can have one only."""
    folder = Path(tempfile.mkdtemp(prefix="otel-debugstore-chdb-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextlib.contextmanager
def clickhouse_url() -> Iterator[str]:
    """Make an empty database in chdb and give out its URL."""
    pytest.importorskip("chdb", reason="chdb, the ClickHouse of these tests, is not installed")
    from otel_debugstore_analysis.query._connect import client

    name = f"test_{uuid.uuid4().hex}"
    with client(f"chdb://{_chdb()}") as connection:
        connection.command(f"CREATE DATABASE {name}")
        yield f"chdb://{_chdb()}?database={name}"
        connection.command(f"DROP DATABASE {name}")


@contextlib.contextmanager
def both(base_path: Path, *session_ids: str) -> Iterator[Engines]:
    """Load sessions into ClickHouse (all of them by default), and give out both engines on them."""
    from otel_debugstore_analysis.push import Pusher
    from otel_debugstore_analysis.query._connect import client

    with clickhouse_url() as url, SessionReader(base_path, session_ids or None) as reader:
        reader.refresh()
        with client(url) as connection:
            pusher = Pusher(connection, url)
            for session_id in reader.session_ids:
                with SessionReader(base_path, [session_id]) as one:
                    pusher.push(one, session_id)
        with query.connect(url) as clickhouse:
            yield {"duckdb": query.DuckDBEngine(reader), "clickhouse": clickhouse}


@pytest.fixture(scope="session")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Both engines over `write_synthetic`."""
    base_path = tmp_path_factory.mktemp("synthetic")
    write_synthetic(base_path)
    with both(base_path) as found:
        yield found


@pytest.fixture(scope="session")
def nezha(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    """Both engines over whole traces of a real shop, some 1,400 spans."""
    base_path = tmp_path_factory.mktemp("nezha")
    write_nezha(base_path)
    with both(base_path) as found:
        yield found


def write_nezha(base_path: Path, session_id: str = "nezha", begin: str = "0") -> None:
    """Import the traces of the fault-free minute whose ids begin so."""
    from otel_debugstore_exporters.importer import import_files

    source = NEZHA / NEZHA_PART
    if not source.exists():
        pytest.skip("the Nezha files are not there: expected in ../shared/data/nezha")
    part = base_path / "part.jsonl"
    with gzip.open(source, "rt") as lines, part.open("w") as kept:
        for line in lines:
            unit = json.loads(line)
            for resource in unit["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    scope["spans"] = [s for s in scope["spans"] if s["traceId"].startswith(begin)]
            kept.write(json.dumps(unit) + "\n")
    import_files([part], SessionPaths(base_path, session_id))


def assert_same(engines: Engines, analysis: Callable[[query.Engine], Any]) -> Any:
    """Ask both engines, require equal answers (numbers to `TOLERANCE`), and return DuckDB's."""
    answers = {name: analysis(engine) for name, engine in engines.items()}
    assert_equal(answers["duckdb"], answers["clickhouse"])
    return answers["duckdb"]


def assert_equal(one: Any, other: Any, path: str = "answer") -> None:
    """Require that two answers are equal, numbers to `TOLERANCE`: tables, tuples, mappings, arrays, dataclasses."""
    if is_dataclass(one) and not isinstance(one, type):
        assert type(one) is type(other), path
        for field in fields(one):
            if not field.name.startswith("_"):
                assert_equal(getattr(one, field.name), getattr(other, field.name), f"{path}.{field.name}")
    elif isinstance(one, np.ndarray):
        assert (one.dtype, one.shape) == (other.dtype, other.shape), path
        if one.dtype.kind == "f":
            np.testing.assert_allclose(one, other, rtol=TOLERANCE, err_msg=path)
        else:
            np.testing.assert_array_equal(one, other, err_msg=path)
    elif isinstance(one, Mapping):
        assert one.keys() == other.keys(), path
        for key in one:
            assert_equal(one[key], other[key], f"{path}[{key!r}]")
    elif isinstance(one, Sequence) and not isinstance(one, str | bytes):
        assert len(one) == len(other), f"{path}: {one} and {other}"
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{path}[{number}]")
    elif isinstance(one, float) or isinstance(other, float):
        assert None not in (one, other), f"{path}: {one} and {other}"
        same = math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE) or (one != one and other != other)
        assert same, f"{path}: {one} and {other}"
    else:
        assert one == other, f"{path}: {one!r} and {other!r}"
