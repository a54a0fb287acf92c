"""Makes small sessions, sealed or still in their journal, as the recording program and the importer do."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from otel_debugstore_exporters import codec
from otel_debugstore_exporters.batch import Event, Resource, SpanRecord, batch_from_records
from otel_debugstore_exporters.journal import Journal
from otel_debugstore_exporters.segment import SegmentWriter, Source
from otel_debugstore_exporters.session import SessionPaths

START_NS: Final = 1_700_000_000_000_000_000
MS: Final = 1_000_000
ERROR: Final = 2


def span(
    number: int,
    name: str = "work",
    *,
    parent: int | None = None,
    trace: int = 1,
    start_ms: float = 0,
    duration_ms: float = 1,
    error: str | None = None,
    attributes: Mapping[str, Any] | None = None,
    service: str | None = None,
    trace_state: str = "",
    start_ns: int | None = START_NS,
) -> SpanRecord:
    """Return a span; times in milliseconds, the start from `start_ns` on (None: not known)."""
    start = None if start_ns is None else start_ns + int(start_ms * MS)
    exception = Event(start or 0, "exception", {"exception.type": error, "exception.message": "it broke"})
    return SpanRecord(
        trace_id=trace.to_bytes(16, "big"),
        span_id=number.to_bytes(8, "big"),
        parent_id=None if parent is None else parent.to_bytes(8, "big"),
        name=name,
        start_ns=start,
        end_ns=None if start is None else start + int(duration_ms * MS),
        status_code=ERROR if error else 0,
        attributes=dict(attributes or {}),
        events=(exception,) if error else (),
        resource=Resource({"service.name": service} if service else {}),
        trace_state=trace_state,
    )


def write_sealed(base_path: Path, session_id: str, spans: Iterable[SpanRecord], pid: int | None = 1) -> None:
    """Write spans as one segment more of a session."""
    with SegmentWriter(SessionPaths(base_path, session_id)) as writer:
        writer.add(batch_from_records(spans, pid))
        writer.add_source(Source(uuid.uuid4().hex, span_count=writer.span_count))
        writer.publish()


def write_journal(base_path: Path, session_id: str, spans: Iterable[SpanRecord], pid: int | None = 1) -> None:
    """Write spans into the journal of a session, as one batch; none make an empty session."""
    base_path.mkdir(parents=True, exist_ok=True)
    with Journal.open(SessionPaths(base_path, session_id).journal) as journal:
        batch = batch_from_records(spans, pid)
        journal.append([codec.encode(batch, START_NS)] if len(batch) else [])


def hex_id(number: int, width: int = 16) -> str:
    """Return the hexadecimal id that `span` gives for a number; 32 digits for traces."""
    return f"{number:0{width}x}"
