"""What happens to a batch that is recorded, before it is encoded. To one that is imported only the second does.

Threads: any. It is called by whoever writes, never where the observed program works.
"""

from __future__ import annotations

from otel_debugstore.masking import masker
from otel_debugstore_exporters.batch import SpanBatch
from otel_debugstore_exporters.batch_masking import mask_batch
from otel_debugstore_exporters.layer_mapping import assign_layers


def ingested(batch: SpanBatch) -> SpanBatch:
    """Mask the secrets in a batch, give its spans their layers, and return it."""
    mask_batch(batch, masker())
    return assign_layers(batch) if batch.attributes else batch
