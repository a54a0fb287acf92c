"""`Encoder`: what a process records, as blobs for the journal, with secrets masked.

The exporter loads this with the first batch, in the thread that writes: a process that records nothing, such as
many a child of a program, starts and ends without it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from otel_debugstore.call_columns import Calls
from otel_debugstore.loading import loading
from otel_debugstore.masking import masker
from otel_debugstore.outbox import CallCount, Code, Payload
from otel_debugstore.span_fields import Fields
from otel_debugstore_exporters.batch import SpanBatch
from otel_debugstore_exporters.codec import encode
from otel_debugstore_exporters.ingestion import ingested
from otel_debugstore_exporters.readable import batch_from_calls, batch_from_fields

_PART_BYTES: Final = 1 << 20


class Encoder(NamedTuple):
    """Encodes what the process `pid` records."""

    pid: int

    def spans(self, fields: Sequence[Fields]) -> SpanBatch:
        """Return ended spans as a batch."""
        return batch_from_fields(fields, self.pid)

    def calls(self, calls: Calls) -> SpanBatch:
        """Return the spans of ended calls as a batch. Contents that can't be part of it are in the outbox then."""
        with loading("otel_debugstore_exporters.call_attributes"):
            from otel_debugstore_exporters.call_attributes import attributes_kept, call_values

        batch = batch_from_calls(calls, self.pid)
        batch.call_values = call_values(calls, masker())
        if batch.call_values is None:
            batch.attributes = attributes_kept(calls)
        return batch

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

    def blob(self, batch: SpanBatch, beside: SpanBatch | None = None) -> bytes:
        """Return a batch, and contents that go with it (see `contents`), as one blob."""
        if beside is not None:
            batch.payloads, batch.code = beside.payloads, beside.code
        return encode(ingested(batch), time.time_ns())
