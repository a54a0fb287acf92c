"""Secrets in what is stored already: where they are, and the same without them.

Every function here takes a `Masker` and says of secrets only where they are and of which kind, never what they are.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgpack

from otel_debugstore.masking import Masker, is_secret_value
from otel_debugstore.outbox import Payload
from otel_debugstore.payload import mask_content
from otel_debugstore_exporters.batch import Attributes, Resource, Scope, SpanBatch, SpanRecord
from otel_debugstore_exporters.batch_masking import mask_batch

Places = Counter[tuple[str, str]]
"""How many values hold a secret, by column (or `attributes.KEY`) and kind."""

_MARK: Final = re.compile(r"\(masked: ([^()]*)\)")
_MAX_DEPTH: Final = 100


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
    new = Counter[str]() if masked is content else _marks(masked) - _marks(content)
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
    batch.counts = [count._replace(component=masker.mask_text(count.component)) for count in batch.counts]
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
        found.update((f"{name}.{key}", kind) for kind in _kinds(key, value, masker))


def _kinds(key: Any, value: Any, masker: Masker, depth: int = 0) -> Iterator[str]:
    """Yield the kinds of the secrets in a value that has this name."""
    if _is_masked(value) or depth > _MAX_DEPTH:
        return
    kind = masker.key_kind(key)
    if kind is not None and is_secret_value(value):
        yield kind
    elif isinstance(value, str):
        yield from masker.find(value)
    elif isinstance(value, bytes):
        yield from masker.find(value.decode("latin-1"))
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _kinds(name, item, masker, depth + 1)
    elif isinstance(value, Sequence):
        for item in value:
            yield from _kinds("", item, masker, depth + 1)


def _is_masked(value: Any) -> bool:
    if isinstance(value, str):
        return _MARK.fullmatch(value) is not None
    return isinstance(value, (list, tuple)) and len(value) == 1 and isinstance(value[0], str) and _is_masked(value[0])


def _masked_content(content: bytes, masker: Masker) -> bytes:
    """The content of a payload without secrets; the same object if there are none."""
    try:
        return mask_content(content, masker)
    except Exception:  # noqa: BLE001  # it is not what our capture writes
        return masker.mask_bytes(content)


def _marks(content: bytes) -> Counter[str]:
    """How often a payload says of which kind that something is masked."""
    try:
        return Counter(_marks_in(msgpack.unpackb(content)))
    except Exception:  # noqa: BLE001  # as above
        return Counter(_MARK.findall(content.decode("latin-1")))


def _marks_in(plain: Any) -> Iterator[str]:
    if isinstance(plain, (str, bytes)):
        yield from _MARK.findall(plain if isinstance(plain, str) else plain.decode("latin-1"))
    elif isinstance(plain, list):
        for item in plain:
            yield from _marks_in(item)
    elif isinstance(plain, dict):
        if len(plain) == 1 and isinstance(plain.get("$masked"), str):
            yield plain["$masked"]
        for key, item in plain.items():
            yield from _marks_in(key)
            yield from _marks_in(item)
