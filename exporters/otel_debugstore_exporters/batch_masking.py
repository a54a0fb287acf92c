"""Secrets out of a batch, before it is encoded.

Most batches hold none. That is found out for a batch as a whole: by the names of its attributes, which are few and
remembered, and by one search over all of its texts. Only where that finds something is it gone through row by row.
Attributes are shared with other exporters, so they are replaced and never changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, Final

from otel_debugstore.masking import Masker
from otel_debugstore.outbox import OUTBOX
from otel_debugstore_exporters.batch import Attributes, Event, SpanBatch

_PLAIN: Final = frozenset((str, int, float, bool, type(None)))


def mask_batch(batch: SpanBatch, masker: Masker) -> SpanBatch:
    """Return the batch with the secrets in it masked; it is changed, what it was made of is not.

    Payloads are masked where they are captured, before their digest is made; source code is masked here.
    """
    batch.code = [code._replace(source=masker.mask_text(code.source)) if code.source else code for code in batch.code]
    batch.counts = [count._replace(component=masker.mask_text(count.component)) for count in batch.counts]
    found = list(_attributes(batch))
    named = _secret_names(found, masker)
    if not _texts_hold_secret(batch, found, masker):
        if named:
            batch.attributes = [
                some if named.isdisjoint(some) else _named_masked(some, named, masker) for some in batch.attributes
            ]
            _mask_others(batch, masker)
        return batch
    batch.attributes = list(map(masker.mask_attributes, batch.attributes))
    _mask_others(batch, masker)
    return batch


def may_hold_secret(batch: SpanBatch, masker: Masker) -> bool:
    """Return False if the spans of a batch hold no secret; True asks for a closer look."""
    found = list(_attributes(batch))
    return bool(_secret_names(found, masker)) or _texts_hold_secret(batch, found, masker)


def _secret_names(found: Sequence[Attributes], masker: Masker) -> set[str]:
    return {key for key in set[str]().union(*found) if masker.mask_key(key)}


def _texts_hold_secret(batch: SpanBatch, found: Sequence[Attributes], masker: Masker) -> bool:
    """Return False if no text and no nested name in a batch holds a secret; True asks for a closer look."""
    values: list[Any] = list(chain.from_iterable([some.values() for some in found]))
    texts = [value for value in values if type(value) is str]
    for value in values if not _PLAIN.issuperset(map(type, values)) else ():
        if isinstance(value, (list, tuple)) and _PLAIN.issuperset(map(type, value)):
            items = [item for item in value if type(item) is str]
            if any(item[:1] == "-" for item in items):  # a flag says what the value after it is
                return True
            texts += items
        elif type(value) not in _PLAIN:
            return True
    texts += map(str, batch.names)
    texts += batch.status_messages.values()
    texts += [str(event.name) for some in batch.events.values() for event in some]
    return masker.may_hold_secret(texts, OUTBOX.sent)


def _named_masked(attributes: Attributes, named: set[str], masker: Masker) -> Attributes:
    return {key: masker.mask_value(key, value) if key in named else value for key, value in attributes.items()}


def _mask_others(batch: SpanBatch, masker: Masker) -> None:
    """Mask everything but the attributes of the spans."""
    mask = masker.mask_text
    batch.names = [mask(str(name)) for name in batch.names]
    batch.status_messages = {row: mask(text) for row, text in batch.status_messages.items()}
    batch.events = {row: [mask_event(event, masker) for event in some] for row, some in batch.events.items()}
    batch.links = {
        row: [link._replace(attributes=masker.mask_attributes(link.attributes)) for link in some]
        for row, some in batch.links.items()
    }
    batch.resources = [one._replace(attributes=masker.mask_attributes(one.attributes)) for one in batch.resources]
    batch.scopes = [one._replace(attributes=masker.mask_attributes(one.attributes)) for one in batch.scopes]


def mask_event(event: Event, masker: Masker) -> Event:
    """Return an event without secrets."""
    return event._replace(name=masker.mask_text(str(event.name)), attributes=masker.mask_attributes(event.attributes))


def _attributes(batch: SpanBatch) -> Iterator[Attributes]:
    yield from batch.attributes
    for resource in batch.resources:
        yield resource.attributes
    for scope in batch.scopes:
        yield scope.attributes
    for event in chain.from_iterable(batch.events.values()):
        yield event.attributes
    for link in chain.from_iterable(batch.links.values()):
        yield link.attributes
