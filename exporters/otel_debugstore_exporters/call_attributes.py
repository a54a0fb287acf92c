"""The attributes of spans of calls, from what those calls have in common, and what each was given and returned.

Digests and attributes of each call are made when its blob is read, mostly by another process: so the observed program
spends less on them. `call_values` says what they are made of, `restored` makes them. Where something may not be
written as it is (secrets, digests without contents, other limits than the usual), `attributes_kept` makes them
before: contents are then looked at one by one, and go through the outbox.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgpack

from otel_debugstore import attributes as names
from otel_debugstore.call_columns import CallKind, Calls
from otel_debugstore.calls.component import Parameters
from otel_debugstore.calls.content import keep_waited, keep_waited_arguments, keep_waited_result
from otel_debugstore.digest import blake2b
from otel_debugstore.guard import swallow
from otel_debugstore.masking import Masker
from otel_debugstore.outbox import Payload
from otel_debugstore.payload.capture import MEDIA_TYPE, bound
from otel_debugstore.payload.limits import DEFAULT_LIMITS, limits_of_settings
from otel_debugstore.payload.walk import PACK
from otel_debugstore.recording_settings import recording_settings
from otel_debugstore_exporters.batch import Attributes, CallValues, SpanBatch
from otel_debugstore_exporters.batch_masking import mask_batch

_MAX_BYTES: Final = 1 << 16
"""Contents of more have blobs of their own: a disk that is nearly full may still have room for the spans."""
_NOT_KEPT: Final = b""


class Restored(NamedTuple):
    """What `restored` returns: attributes by row, and what the digests among them stand for."""

    attributes: list[Attributes]
    payloads: list[Payload]


def call_values(calls: Calls, masker: Masker) -> CallValues | None:
    """Return what the attributes of calls are made of, as it may be written; None if that needs a closer look."""
    if limits_of_settings() is not DEFAULT_LIMITS or recording_settings().export_payloads:
        return None
    try:
        contents = _pack((calls.arguments, calls.arguments_by_name, calls.results, calls.more))
        size = len(contents) + max([len(_pack(kind.parameters)) for kind in calls.kinds])
    except (TypeError, ValueError, OverflowError):  # such as a lone surrogate
        return None
    given_names = [*calls.arguments_by_name.values(), *calls.more.values()]
    if (
        size > min(_MAX_BYTES, DEFAULT_LIMITS.max_bytes)
        or not all(_may_be_kept(kind, masker) for kind in calls.kinds)
        or (given_names and _are_special(set[str]().union(*given_names), masker))
        or masker.may_hold_secret_bytes(contents)
    ):
        return None
    attributes = mask_batch(SpanBatch(attributes=[kind.attributes for kind in calls.kinds]), masker).attributes
    return CallValues(
        [
            (some, kind.parameters, kind.positional, kind.has_result)
            for some, kind in zip(attributes, calls.kinds, strict=True)
        ],
        array("I", calls.kind_index).tobytes(),
        array("q", calls.cpu_ns).tobytes(),
        contents,
    )


def restored(values: CallValues, contents: Sequence[Any]) -> Restored:
    """Return what is made of values that were written.

    Args:
        values: As they were written.
        contents: What `values.contents` holds.

    Raises:
        ValueError, TypeError, LookupError, OverflowError: They are damaged.
    """
    arguments, by_name, results, more = contents
    calls = Calls(
        (),
        (),
        (),
        (),
        array("q", values.cpu_ns),
        [
            CallKind("", attributes, parameters, positional, has_result, True, None, None)
            for attributes, parameters, positional, has_result in values.kinds
        ],
        array("I", values.kind_index),
        arguments,
        by_name,
        results,
        more,
    )
    kept = _contents(calls)
    digests = {content: blake2b(content, digest_size=16).hexdigest() for content in set(kept) - {_NOT_KEPT}}
    return Restored(
        _attributes(calls, kept, digests),
        [Payload(digest, MEDIA_TYPE, True, content) for content, digest in digests.items()],
    )


def attributes_kept(calls: Calls) -> list[Attributes]:
    """Return the attributes of calls. The contents that digests among them stand for are in the outbox then."""
    contents = _contents(calls, are_checked=False)
    kept, not_kept = set[bytes](), set[bytes]()
    for number, *both in zip(calls.kind_index, contents[::2], contents[1::2], strict=True):
        (kept if calls.kinds[number].is_content_kept else not_kept).update(both)
    digests: dict[bytes, str] = {}
    try:
        digests = keep_waited(kept - {_NOT_KEPT}, not_kept - {_NOT_KEPT})
    except Exception as error:  # noqa: BLE001  # they are kept one by one
        swallow(error)
    return _attributes(calls, contents, digests)


def _may_be_kept(kind: CallKind, masker: Masker) -> bool:
    if kind.parameters is not None and _are_special(kind.parameters, masker):
        return False
    return kind.is_content_kept or (kind.parameters is None and not kind.has_result)


def _are_special(given: Iterable[str], masker: Masker) -> bool:
    """Return whether one of the names says that what it is given is secret, or looks like a tag of a payload."""
    return any(name[:1] == "$" or masker.mask_key(name) for name in given)


def _contents(calls: Calls, *, are_checked: bool = True) -> list[bytes]:
    """Return the contents of arguments and result, two a call; nothing where none is kept, or can't be packed.

    Args:
        calls: Of which.
        are_checked: Whether all can be packed.
    """
    found: list[bytes] = []  # no pairs: the garbage collector counts what lives on, and visits it
    kinds, by_name = calls.kinds, calls.arguments_by_name
    for row, (number, args, result) in enumerate(zip(calls.kind_index, calls.arguments, calls.results, strict=True)):
        _, _, parameters, positional, has_result, *_ = kinds[number]
        of_arguments = of_result = _NOT_KEPT
        try:
            if parameters is not None:
                if row in by_name or len(args) > positional:
                    of_arguments = PACK(bound(parameters, args, by_name.get(row, {}), positional))
                else:
                    of_arguments = PACK(dict(zip(parameters, args)))  # noqa: B905  # to ask for the same lengths costs
            if has_result:
                of_result = PACK(result)
        except Exception as error:
            if are_checked:
                raise
            swallow(error)  # such as a lone surrogate; `capture_waited` deals with it
        found += (of_arguments, of_result)
    return found


def _attributes(calls: Calls, contents: Sequence[bytes], digests: Mapping[bytes, str]) -> list[Attributes]:
    """Return the attributes of each call. Contents without a digest are looked at, and kept, one by one."""
    found: list[Attributes] = []
    kinds, more = calls.kinds, calls.more
    rows = zip(calls.kind_index, calls.cpu_ns, contents[::2], contents[1::2], strict=True)
    for row, (number, cpu_ns, of_arguments, of_result) in enumerate(rows):
        kind = kinds[number]
        _, common, parameters, _, has_result, *_ = kind
        attributes: dict[str, Any] = {**common}
        if parameters is not None:
            digest = digests.get(of_arguments)
            if digest is not None:
                attributes[names.INPUT_DIGEST] = digest
            else:
                _keep_arguments(calls, row, kind, attributes)
        if row in more:
            attributes |= more[row]
        if cpu_ns >= 0:
            attributes[names.CPU_TIME_NS] = cpu_ns
        if has_result:
            digest = digests.get(of_result)
            if digest is not None:
                attributes[names.OUTPUT_DIGEST] = digest
            else:
                _keep_result(calls, row, kind, attributes)
        found.append(attributes)
    return found


def _keep_arguments(calls: Calls, row: int, kind: CallKind, attributes: dict[str, Any]) -> None:
    try:
        parameters = Parameters(kind.parameters or (), kind.positional)
        given = parameters, calls.arguments[row], dict(calls.arguments_by_name.get(row, {}))
        keep_waited_arguments(kind.is_content_kept, given, attributes)
    except Exception as error:  # noqa: BLE001  # a span without them is better than none
        swallow(error)


def _keep_result(calls: Calls, row: int, kind: CallKind, attributes: dict[str, Any]) -> None:
    try:
        keep_waited_result(kind.is_content_kept, calls.results[row], attributes)
    except Exception as error:  # noqa: BLE001  # a span without it is better than none
        swallow(error)


def _pack(value: Any) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed
