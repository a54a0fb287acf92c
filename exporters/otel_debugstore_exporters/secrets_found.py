"""Secrets in what is stored already: where they are, and the same without them.

Every function here takes a `Masker` and says of secrets only where they are and of which kind, never what they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgpack

from otel_debugstore.masking import Masker
from otel_debugstore.outbox import Payload
from otel_debugstore.payload import mask_content
from otel_debugstore_exporters.batch import Attributes, Resource, Scope, SpanBatch, SpanRecord
from otel_debugstore_exporters.batch_masking import mask_batch

Places = Counter[tuple[str, str]]
"""How many values hold a secret, by column (or `attributes.KEY`) and kind."""

_MARK: Final = re.compile(r"\(masked: ([^()]*)\)")


def of_record(record: SpanRecord, masker: Masker) -> Places:
    """Return the places of the secrets in a span; its resource and scope are not looked at."""
    found = Places()
    for column, text in (("name", record.name), ("status_message", record.status_message)):
        found.update((column, kind) for kind in masker.find(text))
    _add(found, "attributes", record.attributes, masker)
    for event in record.events:
        found.update(("events.name", kind) for kind in masker.find(event.name))
        _add(found, "events", event.attributes, masker)
    for link in record.links:
        _add(found, "links", link.attributes, masker)
    return found


def of_shared(name: str, shared: Resource | Scope, masker: Masker) -> Places:
    """Return the places of the secrets in a resource or a scope, which is called `name`."""
    found = Places()
    _add(found, name, shared.attributes, masker)
    return found


def of_payload(content: bytes, masker: Masker) -> Places:
    """Return the places of the secrets in the content of a payload."""
    masked = _masked_content(content, masker)
    new = Counter[str]() if masked is content else _new_marks(_unpacked(content), _unpacked(masked))
    return Places({("payloads.content", kind): count for kind, count in new.items()})


def of_batch(batch: SpanBatch, masker: Masker) -> Places:
    """Return the places of the secrets in a batch as the journal holds it."""
    found = Places()
    for record in batch.records():
        found += of_record(record, masker)
    for name, shared in (("resources", batch.resources), ("scopes", batch.scopes)):
        for one in shared:
            found += of_shared(name, one, masker)
    for payload in batch.payloads:
        found += of_payload(payload.content, masker)
    for code in batch.code:
        found.update(("code.source", kind) for kind in masker.find(code.source or ""))
    for count in batch.counts:
        found.update(("counters.component", kind) for kind in masker.find(count.component))
    return found


def masked_batch(batch: SpanBatch, masker: Masker) -> SpanBatch:
    """Mask the secrets in a batch of the journal, payloads too, and return it."""
    batch.payloads = [masked_payload(payload, masker) for payload in batch.payloads]
    return mask_batch(batch, masker)


def masked_payload(payload: Payload, masker: Masker) -> Payload:
    """Return a payload without secrets; the same object if it has none. The digest stays: spans name it."""
    masked = _masked_content(payload.content, masker)
    return payload if masked is payload.content else payload._replace(content=masked, replayable=False)


def masked_shared(shared: Any, masker: Masker) -> Any:
    """Return a resource or a scope without secrets."""
    return shared._replace(attributes=masker.mask_attributes(shared.attributes))


def _add(found: Places, name: str, attributes: Attributes, masker: Masker) -> None:
    for key, value in attributes.items():
        masked = masker.mask_value(key, value)
        if masked is not value:
            found.update({(f"{name}.{key}", kind): count for kind, count in _new_marks(value, masked).items()})


def _masked_content(content: bytes, masker: Masker) -> bytes:
    """The content of a payload without secrets; the same object if there are none."""
    try:
        return mask_content(content, masker)
    except Exception:  # noqa: BLE001  # it is not what our capture writes
        return masker.mask_bytes(content)


def _unpacked(content: bytes) -> Any:
    try:
        return msgpack.unpackb(content)
    except Exception:  # noqa: BLE001  # as above
        return content


def _new_marks(value: Any, masked: Any) -> Counter[str]:
    """Return how often masking a value has put something of which kind in the place of a secret."""
    return Counter(_marks(masked)) - Counter(_marks(value))


def _marks(plain: Any) -> Iterator[str]:
    """Yield of which kind that is which a value says to be masked."""
    if isinstance(plain, (str, bytes)):
        yield from _MARK.findall(plain if isinstance(plain, str) else plain.decode("latin-1"))
    elif isinstance(plain, Mapping):
        if len(plain) == 1 and isinstance(plain.get("$masked"), str):
            yield plain["$masked"]
        for key, item in plain.items():
            yield from _marks(key)
            yield from _marks(item)
    elif isinstance(plain, Sequence):
        for item in plain:
            yield from _marks(item)
