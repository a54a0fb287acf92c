"""`debugstore push`: sessions and archives come into ClickHouse as a whole, once."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import ibis.expr.types as ir
import pytest

from commands import refused, run, run_well
from engines import Engines, assert_same, both, clickhouse_url, write_synthetic
from otel_debugstore.errors import QueryError
from otel_debugstore.outbox import Code
from otel_debugstore_analysis import push, query
from otel_debugstore_analysis.query import tables
from otel_debugstore_analysis.query._connect import client
from otel_debugstore_exporters import layer_mapping
from otel_debugstore_exporters.archive import archive_session
from otel_debugstore_exporters.batch import batch_from_records
from otel_debugstore_exporters.reader import SessionReader
from otel_debugstore_exporters.segment import SegmentWriter, Source
from otel_debugstore_exporters.session import SessionPaths
from sessions import span, write_journal, write_sealed


@pytest.fixture
def url() -> Iterator[str]:
    with clickhouse_url() as found:
        yield found


def pushed(url: str, base_path: Path, session: str, **how: object) -> push.Pushed:
    with client(url) as connection, SessionReader(base_path, [session]) as reader:
        return push.Pusher(connection, url).push(reader, session, **how)  # type: ignore[arg-type]


def counts(url: str) -> dict[str, int]:
    with query.connect(url) as engine:
        return {row["session"]: row["count"] for row in query.top(engine, "session").dicts()}


def rows_there(url: str) -> int:
    with client(url) as connection:
        return int(connection.query("SELECT count() FROM otel_traces").result_rows[0][0])


def test_a_session_comes_once(tmp_path: Path, url: str) -> None:
    """A second push is skipped and says what came since; `again` replaces."""
    write_sealed(tmp_path, "s", [span(1), span(2)])
    assert pushed(url, tmp_path, "s") == ("s", "pushed", 2, 0)
    write_journal(tmp_path, "s", [span(3)])
    assert pushed(url, tmp_path, "s") == ("s", "skipped", 2, 1)
    assert counts(url) == {"s": 2}
    assert pushed(url, tmp_path, "s", again=True) == ("s", "replaced", 3, 0)
    assert counts(url) == {"s": 3}
    assert rows_there(url) == 3


def test_beside_the_spans_of_a_collector(tmp_path: Path, url: str) -> None:
    """What was in the table stays, whichever session is pushed or replaced."""
    write_sealed(tmp_path, "s", [span(1)])
    pushed(url, tmp_path, "s")
    with client(url) as connection:
        connection.command("INSERT INTO otel_traces (TraceId, SpanId, SpanName) VALUES ('a', 'b', 'collected')")
    pushed(url, tmp_path, "s", again=True)
    assert counts(url) == {"s": 1, None: 1}


def test_an_interrupted_push_leaves_nothing(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was loaded before Ctrl-C is removed; the session can be pushed again."""
    monkeypatch.setattr(push, "BATCH_ROWS", 1)
    write_sealed(tmp_path, "s", [span(1), span(2), span(3)])

    def stop(loaded: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pushed(url, tmp_path, "s", progress=stop)
    assert rows_there(url) == 0
    assert pushed(url, tmp_path, "s").state == "pushed"
    assert counts(url) == {"s": 3}


def test_a_killed_push_does_not_count(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing could be removed, no analysis reads what is there, and the next push removes it."""
    write_synthetic(tmp_path)

    def stop(loaded: int, total: int) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(push.Pusher, "_remove", lambda *_: 1 / 0)
        with pytest.raises(SystemExit):
            pushed(url, tmp_path, "s", progress=stop)
    assert rows_there(url) > 0
    assert counts(url) == {}
    with query.connect(url) as engine:
        assert query.frame(engine).trace_ids == ()
        assert query.ledger(engine).rows == []
    assert pushed(url, tmp_path, "s") == ("s", "pushed", 23, 0)
    assert rows_there(url) == 23


def test_two_pushes_at_once(tmp_path: Path, url: str) -> None:
    """The one that finds its spans gone fails, and the other one counts."""
    write_sealed(tmp_path, "s", [span(1), span(2)])

    def another(loaded: int, total: int) -> None:
        pushed(url, tmp_path, "s")

    with pytest.raises(QueryError, match=r"0 of 2 spans.*same time"):
        pushed(url, tmp_path, "s", progress=another)
    assert counts(url) == {"s": 2}


def test_an_archive(tmp_path: Path) -> None:
    """What was archived comes as it came before."""
    write_synthetic(tmp_path)
    archive_session(SessionPaths(tmp_path, "s"), remove=True)
    with both(tmp_path) as engines:
        assert_same(engines, lambda engine: query.frame(engine))
        assert_same(engines, query.ledger)


def test_layers_by_convention_and_by_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An imported span keeps its layer; only one that its attributes don't tell gets an attribute for it."""
    monkeypatch.setattr(layer_mapping, "layer_mapping", lambda: layer_mapping.LayerMapping({"db.system=*": "tool"}))
    kinds = [("openinference.span.kind", "CHAIN"), ("db.system", "sqlite"), ("other", "x")]
    document = {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {
                        "spans": [
                            {
                                "traceId": f"{number:032x}",
                                "spanId": f"{number:016x}",
                                "name": "n",
                                "startTimeUnixNano": "1700000000000000000",
                                "endTimeUnixNano": "1700000000000000009",
                                "attributes": [{"key": key, "value": {"stringValue": value}}],
                            }
                            for number, (key, value) in enumerate(kinds, 1)
                        ]
                    }
                ]
            }
        ]
    }
    source = tmp_path / "spans.json"
    source.write_text(json.dumps(document))
    run_well("--data-dir", tmp_path / "data", "import", source, "--session", "s")

    def layers() -> object:
        spans = tables.spans(("attributes.debugstore.layer",))
        return spans.select("span_id", "layer", "attributes.debugstore.layer").order_by("span_id")

    with both(tmp_path / "data") as engines:
        rows = {name: tables.run(engine, layers) for name, engine in engines.items()}
    assert [row[1] for row in rows["duckdb"]] == ["step", "tool", None]
    assert [row[1:] for row in rows["clickhouse"]] == [("step", None), ("tool", "tool"), (None, None)]


def test_commands(tmp_path: Path, url: str) -> None:
    """`push` loads the sessions that are named; `top` and `trace` ask the database that `--engine` names."""
    write_sealed(tmp_path, "s", [span(1, "request", duration_ms=100), span(2, "parse", parent=1)])
    arguments = ("--data-dir", tmp_path, "push", "--engine", url, "--format", "csv")
    assert run_well(*arguments).splitlines() == ["session,state,span_count", "s,pushed,2"]
    write_sealed(tmp_path, "s", [span(3, "more")])
    again = run(*arguments)
    assert again.stdout.splitlines()[1] == "s,skipped,2"
    assert "1 more span" in again.stderr
    assert run_well(*arguments, "--again").splitlines()[1] == "s,replaced,3"
    top = run_well("top", "--engine", url, "--order", "self", "--format", "csv")
    assert {line.partition(",")[0] for line in top.splitlines()[1:]} == {"request", "parse", "more"}
    assert "request" in run_well("trace", "--engine", url, "--session", "s", "0000")
    assert "No span is selected" in run("top", "--engine", url, "--session", "other").stderr


def test_push_needs_the_engine(tmp_path: Path) -> None:
    """Without a URL there is nowhere to load to."""
    assert "--engine" in refused("--data-dir", tmp_path, "push")


def test_what_is_beside_spans(tmp_path: Path, url: str) -> None:
    """Code, counters, and of payloads all but the content; also where sessions are named."""
    write_synthetic(tmp_path)
    pushed(url, tmp_path, "s")
    pushed(url, tmp_path, "s", again=True)
    with query.connect(url, ["s"]) as engine, SessionReader(tmp_path, ["s"]) as reader:
        engines: Engines = {"duckdb": query.DuckDBEngine(reader), "clickhouse": engine}
        for ask in (tables.code, _sizes, tables.counters):
            assert len(assert_same(engines, functools.partial(tables.run, build=ask))) == 1
    with client(url) as connection:
        assert "content" not in {row[0] for row in connection.query("DESCRIBE debugstore_payloads").result_rows}


def test_code_that_lies_in_several_places(tmp_path: Path) -> None:
    """Of one version that several sessions found in several files, the same file is named on both engines."""
    for number, session in enumerate(("b", "a", "c")):
        batch = batch_from_records([span(number + 1)], 1)
        batch.code = [Code("v", "module.f", f"/app/{session}.py", 7, None, "def f(): ...")]
        with SegmentWriter(SessionPaths(tmp_path, session)) as writer:
            writer.add(batch)
            writer.add_source(Source(session, span_count=1))
            writer.publish()
    with both(tmp_path) as engines:
        ((_, _, path, *_),) = assert_same(engines, lambda engine: tables.run(engine, tables.code))
    assert path == "/app/a.py"


def _sizes() -> ir.Table:
    return tables.payloads().select("digest", "size_bytes", "replayable")
