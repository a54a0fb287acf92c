"""What is written by hand as spans: their ids, and what is stored of values of any kind."""

from __future__ import annotations

import hashlib
import os
import secrets
import time
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from otel_debugstore.errors import ConfigurationError
from otel_debugstore_exporters.batch import MAX_TIME, ROOT, UNKNOWN_TIME, Resource, Scope, SpanBatch

_MAX_CONTEXTS: Final = 65_536
_encode_json: Final = msgspec.json.Encoder(enc_hook=str).encode
_EMPTY_AS: Final = (str, bytes, bytearray, int, float, list, tuple, dict, set, frozenset)
_SCOPE: Final = Scope("otel_debugstore.store")


class ContextIds:
    """Trace and span ids for contexts, the same in every process of a session.

    A context's first record gets the span id that children name, whichever is written first; later records
    of the same context get random ones. A context joins the trace of its parent or of its first child.
    """

    def __init__(self, session_id: str) -> None:
        salt = hashlib.blake2b(session_id.encode(), digest_size=16).digest()
        self._hash = hashlib.blake2b(digest_size=24, key=salt)
        self._known: OrderedDict[str, tuple[bytes, bool]] = OrderedDict()  # trace id, whether there is a record

    def of(self, context: str, parent: str | None) -> tuple[bytes, bytes, bytes]:
        """Return trace id, span id and parent id (`ROOT` without a parent) of a new record."""
        new_trace_id, span_id = self._ids(context)
        parent_id, known, parents = ROOT, self._known.get(context), None
        if parent is not None:
            new_trace_id, parent_id = self._ids(parent)
            parents = self._known.get(parent)
        trace_id = (known or parents or (new_trace_id,))[0]
        if parent is not None:
            self._remember(parent, trace_id, parents is not None and parents[1])
        self._remember(context, trace_id, True)
        return trace_id, secrets.token_bytes(8) if known is not None and known[1] else span_id, parent_id

    def _ids(self, context: str) -> tuple[bytes, bytes]:
        """Return the trace id and the span id that follow from a context's name."""
        hashed = self._hash.copy()
        hashed.update(context.encode(errors="replace"))
        digest = hashed.digest()
        return digest[:16], digest[16:]

    def _remember(self, context: str, trace_id: bytes, has_record: bool) -> None:
        self._known[context] = (trace_id, has_record)
        if len(self._known) > _MAX_CONTEXTS:
            self._known.popitem(last=False)


def record_batch(rows: Sequence[tuple[Any, ...]], resource: Resource) -> SpanBatch:
    """Records as columns; a `SpanRecord` each would halve the rate of `write_record`."""
    traces, spans, parents, row_names, starts, ends, codes, errors, found = zip(*rows, strict=True)
    numbers: dict[str, int] = {}
    zeros = bytes(4 * len(rows))
    return SpanBatch(
        trace_ids=b"".join(traces),
        span_ids=b"".join(spans),
        parent_ids=b"".join(parents),
        start_ns=array("q", starts),
        end_ns=array("q", ends),
        kinds=b"\1" * len(rows),
        status_codes=bytes(codes),
        flags=array("I", zeros),
        name_index=array("I", [numbers.setdefault(name, len(numbers)) for name in row_names]),
        names=list(numbers),
        resources=[resource],
        resource_index=array("I", zeros),
        scopes=[_SCOPE],
        scope_index=array("I", zeros),
        attributes=list(found),
        status_messages={row: text for row, text in enumerate(errors) if text},
        pid=os.getpid(),
    )


def times(timestamp: float | None, duration_ms: float | None) -> tuple[int, int]:
    """Start and end in nanoseconds since 1970."""
    try:
        end_ns = time.time_ns() if timestamp is None else int(timestamp * 1e9)
        if duration_ms is None:
            start_ns, end_ns = end_ns, UNKNOWN_TIME
        else:
            start_ns = end_ns - int(duration_ms * 1e6)
        if abs(start_ns) <= MAX_TIME and abs(end_ns) <= MAX_TIME + 1:
            return start_ns, end_ns
    except (TypeError, ValueError, OverflowError):
        pass
    raise ConfigurationError(
        f"A record that ended at {timestamp!r} after {duration_ms!r} can't be kept: give the timestamp in seconds "
        "since 1970 and the duration in milliseconds."
    )


def code_hash(code: str | None) -> str | None:
    """Return what identifies a source."""
    return None if code is None else hashlib.sha256(code.encode(errors="replace")).hexdigest()[:16]


def as_json(value: Any) -> str | None:
    """Return data as text: text as it is, else JSON."""
    if value is None or isinstance(value, str):
        return value
    try:
        return _encode_json(value).decode()
    except Exception:  # noqa: BLE001  # whatever a value's own methods may raise
        return f"({type(value).__name__}: can't be written as JSON)"


def as_text(value: Any) -> str:
    """Return what should be text, whatever it is."""
    if type(value) is str:
        return value
    try:
        return str(value)
    except Exception:  # noqa: BLE001  # whatever a value's own methods may raise
        return f"({type(value).__name__}: has no text)"


def none_if_empty(value: Any) -> Any:
    """Return None for what means that there is nothing: "", False, 0, a container without items."""
    try:
        return None if isinstance(value, _EMPTY_AS) and not value else value
    except Exception:  # noqa: BLE001  # whatever a value's own methods may raise
        return value


def as_number(value: Any) -> Any:
    """Return a measure as a number that can be stored, such as one of numpy or a decimal; what is none as it is."""
    if value is None or isinstance(value, int | float):
        return value
    try:
        return float(value)
    except Exception:  # noqa: BLE001  # whatever a value's own methods may raise
        return value
