"""`Encoder`: what a process records, as blobs for the journal, with secrets masked.

The exporter loads this with the first batch, in the thread that writes: a process that records nothing, such as
many a child of a program, starts and ends without it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from otel_debugstore.outbox import CallCount, Code, Payload
from otel_debugstore.span_fields import Fields
from otel_debugstore_exporters.batch import SpanBatch
from otel_debugstore_exporters.codec import encode
from otel_debugstore_exporters.ingestion import ingested
from otel_debugstore_exporters.readable import batch_from_fields

_PART_BYTES: Final = 1 << 20


class Encoder(NamedTuple):
    """Encodes what the process `pid` records."""

    pid: int

    def spans(self, fields: Sequence[Fields], beside: SpanBatch | None = None) -> bytes:
        """Return ended spans, and contents that go with them (see `contents`), as one blob."""
        batch = batch_from_fields(fields, self.pid)
        if beside is not None:
            batch.payloads, batch.code = beside.payloads, beside.code
        return self.blob(batch)

    def counts(self, counts: list[CallCount]) -> bytes:
        """Return counts of calls as one blob."""
        return self.blob(SpanBatch(counts=counts, pid=self.pid))

    def contents(self, payloads: Sequence[Payload], code: Iterable[Code]) -> Iterator[SpanBatch]:
        """Yield payloads and code in batches of about 1 MiB at most, or of one payload that is larger."""
        part, size = SpanBatch(pid=self.pid), 0
        total = sum([len(payload.content) for payload in payloads])
        if total <= _PART_BYTES:  # nearly always
            part.payloads, payloads, size = list(payloads), (), total
        for payload in payloads:
            if part.payloads and size + len(payload.content) > _PART_BYTES:
                yield part
                part, size = SpanBatch(pid=self.pid), 0
            part.payloads.append(payload)
            size += len(payload.content)
        for one in code:
            if (part.code or part.payloads) and size + len(one.source or "") > _PART_BYTES:
                yield part
                part, size = SpanBatch(pid=self.pid), 0
            part.code.append(one)
            size += len(one.source or "")
        if not part.is_empty:
            yield part

    def blob(self, batch: SpanBatch) -> bytes:
        """Return a batch as one blob."""
        return encode(ingested(batch), time.time_ns())
