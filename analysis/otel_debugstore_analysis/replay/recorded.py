"""`recorded_calls`: what is known of a component's calls, and which of them can be run again."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import ibis
import ibis.expr.types as ir

from otel_debugstore import attributes as names
from otel_debugstore.errors import QueryError
from otel_debugstore_analysis.query import DuckDBEngine, tables
from otel_debugstore_analysis.query._selection import ATTRIBUTE
from otel_debugstore_exporters.payloads import StoredPayload, find_payloads

MAX_CALLS: Final = 50_000
"""Of more, the newest are taken."""
_NAMED: Final = 3

_CUT: Final = b"\x81\xa4$cut"
"""In the content of arguments: a value that was cut, and not these letters in a text."""
_OBJECT: Final = re.compile(rb"\x81\xa7\$object(?:([\xa0-\xbf])|\xd9(.))", re.DOTALL)
"""An object that was not looked into, and how long the name of its type is, which follows."""
_COLUMNS: Final = (
    *("trace_id", "span_id", "parent_id", "session", "pid", "start_ns", "duration_ns", "cpu_ns", "status", "variant"),
)
_ATTRIBUTES: Final = tuple(
    ATTRIBUTE + name
    for name in (
        names.INPUT_DIGEST,
        names.OUTPUT_DIGEST,
        names.ERROR_TYPE,
        names.OUTCOME,
        names.REPLAYABLE,
        names.PURE,
        names.CODE_FUNCTION_NAME,
        names.CODE_FILE_PATH,
    )
)


class _Row(NamedTuple):
    """A row of `_calls`."""

    trace_id: str
    span_id: str
    parent_id: str | None
    session: str
    pid: int | None
    start_ns: int | None
    duration_ns: int | None
    cpu_ns: int | None
    status: str
    variant: str | None
    input_digest: str | None
    output_digest: str | None
    error: str | None
    outcome: str | None
    replayable: str | None
    pure: str | None
    function: str | None
    file_path: str | None


class RecordedCall(NamedTuple):
    """A call that can be run again.

    Attributes:
        input: Its arguments; `payload.restore` makes them.
        output: Its result, as far as it was captured; None of a call that failed, or whose result was not kept.
        error: The type of the exception that left it.
        is_nested: Whether another call of the component called it: it runs when that one does.
        cpu_ns: CPU time of its thread; None where that was not measured.
    """

    trace_id: str
    span_id: str
    session: str
    pid: int | None
    start_ns: int
    duration_ns: int
    variant: str | None
    input: StoredPayload
    output_digest: str | None
    output: StoredPayload | None
    error: str | None
    is_nested: bool
    cpu_ns: int | None


class Source(NamedTuple):
    """The code that calls ran, as it was recorded; None is what is not known."""

    variant: str
    text: str | None


@dataclass(frozen=True)
class Recorded:
    """What is known of a component's calls.

    Attributes:
        component, layer: Which.
        calls: Those that can be run again, as they began.
        skipped: Why others can't be: the reason and how many.
        count: All calls that were recorded.
        replayable: What the program declared last: True, False, or None for nothing.
        pure: Whether it was declared pure.
        function: Its name with its module, such as "shop.tools.parse".
        file_path: Where its code lay.
        source: The code of the newest calls.
    """

    component: str
    layer: str
    calls: tuple[RecordedCall, ...]
    skipped: Mapping[str, int] = field(default_factory=dict)
    count: int = 0
    replayable: bool | None = None
    pure: bool = False
    function: str | None = None
    file_path: str | None = None
    source: Source | None = None


def recorded_calls(engine: DuckDBEngine, component: str, *, limit: int = MAX_CALLS) -> Recorded:
    """Return what is known of a component's calls.

    Args:
        engine: Where they lie. Inputs lie beside spans, on this machine.
        component: Its name.
        limit: How many of the newest are looked at.

    Raises:
        QueryError: No such component was recorded, or the engine refused the query.
    """
    found = tables.run(engine, _calls, limit, component=component)
    layers = {row[-1] for row in found}
    if not found:
        alike = " or ".join(repr(name) for (name,) in tables.run(engine, _alike, component=f".{component}"))
        raise QueryError(
            f"No call of {component!r} was recorded here; "
            + (f"perhaps you mean {alike}. " if alike else "`debugstore top` lists what was. ")
            + "Look in other sessions with --session or --all-sessions."
        )
    rows = sorted((_Row(*row[:-1]) for row in found), key=lambda row: (row.start_ns or 0, row.span_id))
    digests = {digest for row in rows for digest in (row.input_digest, row.output_digest) if digest}
    payloads = find_payloads(engine.reader, digests)
    calls, skipped = _replayable(rows, payloads)
    newest = rows[-1]
    return Recorded(
        component,
        str(max(layers, key=str)),
        tuple(calls),
        skipped,
        len(rows),
        _flag(newest.replayable),
        _flag(newest.pure) is True,
        newest.function,
        newest.file_path,
        _source(engine, newest.variant),
    )


def _calls(limit: int) -> ir.Table:
    spans = tables.spans(_ATTRIBUTES)
    found = spans.filter(spans.component == tables.parameter("component"))
    found = found.order_by(ibis.desc(found.start_ns), found.span_id).limit(limit)
    return found.select(*_COLUMNS, *_ATTRIBUTES, "layer")


def _alike() -> ir.Table:
    """Return components whose names end so."""
    spans = tables.spans()
    found = spans.filter(spans.component.endswith(tables.parameter("component"))).select("component").distinct()
    return found.order_by("component").limit(_NAMED)


def _flag(text: str | None) -> bool | None:
    return None if text is None else text.lower() == "true"


def _replayable(
    rows: Sequence[_Row], payloads: Mapping[str, StoredPayload]
) -> tuple[list[RecordedCall], dict[str, int]]:
    """Return the calls that can be run again, and how many can't be, by reason."""
    ids = {row.span_id for row in rows}
    calls: list[RecordedCall] = []
    skipped: dict[str, int] = {}
    for row in rows:
        payload = payloads.get(row.input_digest or "")
        reason = _obstacle(row, payload)
        if reason is not None or payload is None:
            skipped[reason or ""] = skipped.get(reason or "", 0) + 1
            continue
        # Of what failed without an exception, such as {"success": False}, there is a result.
        is_error = row.status == "ERROR" and row.output_digest is None
        calls.append(
            RecordedCall(
                row.trace_id,
                row.span_id,
                row.session,
                row.pid,
                row.start_ns or 0,
                row.duration_ns or 0,
                row.variant,
                payload,
                row.output_digest,
                payloads.get(row.output_digest or ""),
                (row.error or "Exception") if is_error else None,
                row.parent_id in ids,
                row.cpu_ns,
            )
        )
    return calls, skipped


def _obstacle(row: _Row, payload: StoredPayload | None) -> str | None:
    """Return why a call can't be run again; None if it can."""
    if row.input_digest is None:
        return "its arguments were not recorded"
    if payload is None:
        return "the content of its arguments was not kept"
    if not payload.replayable:
        return _loss(payload.content)
    if row.outcome is not None:
        return f"it ended by {row.outcome}"
    if row.start_ns is None or row.duration_ns is None:
        return "its times are not known"
    return None


def _loss(content: bytes) -> str:
    """Return what is missing of arguments that can't be made again."""
    if _CUT in content:
        return "its arguments were too large, and were cut"
    if (found := _OBJECT.search(content)) is not None:
        length = found[1][0] & 0x1F if found[1] else found[2][0]
        name = content[found.end() : found.end() + length].decode("utf-8", "replace")
        return f"among its arguments is one of the type {name}, which is only summarised"
    return "its arguments were masked or only summarised"


def _source(engine: DuckDBEngine, variant: str | None) -> Source | None:
    if variant is None:
        return None
    rows = tables.run(engine, _code, variant=variant)
    return Source(variant, rows[0][0] if rows else None)


def _code() -> ir.Table:
    code = tables.code()
    return code.filter(code.variant == tables.parameter("variant")).select("source").limit(1)
