"""Dual export: one program sends its spans to our store and to a real Jaeger; both must have the same."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from instrumented import run_instrumented
from jaeger import Jaeger, JaegerUnavailableError, find_jaeger, running_jaeger
from otel_debugstore_exporters.batch import SpanRecord
from stored import stored_spans

PROGRAM = Path(__file__).parent / "programs" / "dual_export.py"
REMOTENESS = 0x300
"""The bits of the span flags that OTLP exporters fill; Python's leaves out the W3C trace flags."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the first run may have to build Jaeger


@pytest.fixture
def jaeger(tmp_path: Path) -> Iterator[Jaeger]:
    try:
        binary = find_jaeger()
    except JaegerUnavailableError as error:
        pytest.skip(f"no Jaeger can be had: {error}")
    with running_jaeger(binary, tmp_path) as running:
        yield running


def test_jaeger_has_the_spans_of_the_store(jaeger: Jaeger, tmp_path: Path) -> None:
    """With both exporters, Jaeger's query API and the store agree in every field of every span."""
    base_path = tmp_path / "data"
    done = run_instrumented(
        PROGRAM,
        folder=tmp_path,
        traces_exporter="debugstore,otlp",
        exporter_otlp_protocol="http/protobuf",
        exporter_otlp_endpoint=jaeger.otlp_http,
        service_name="dual",
        debugstore_path=base_path,
    )
    assert (done.returncode, done.stderr) == (0, "")
    made = int(done.stdout)
    stored = sorted((_of_store(record) for record in stored_spans(base_path)), key=_identity)
    assert len(stored) == made
    assert sorted((_of_otlp(span) for span in jaeger.spans("dual", made)), key=_identity) == stored


def _identity(span: Mapping[str, Any]) -> tuple[str, str]:
    return span["trace_id"], span["span_id"]


def _of_store(span: SpanRecord) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id.hex(),
        "span_id": span.span_id.hex(),
        "parent_id": span.parent_id.hex() if span.parent_id else "",
        "trace_state": span.trace_state,
        "remote": span.flags & REMOTENESS == REMOTENESS,
        "name": span.name,
        "kind": span.kind,
        "start_ns": span.start_ns,
        "end_ns": span.end_ns,
        "status": (span.status_code, span.status_message),
        "attributes": _typed(span.attributes),
        "events": [(e.time_ns, e.name, _typed(e.attributes), e.dropped_attributes) for e in span.events],
        # The OTLP exporter loses the trace state of links.
        "links": [(k.trace_id.hex(), k.span_id.hex(), k.flags & REMOTENESS, _typed(k.attributes)) for k in span.links],
        "dropped": (span.dropped_attributes, span.dropped_events, span.dropped_links),
        "resource": _typed(span.resource.attributes),
        "scope": (span.scope.name, span.scope.version, _typed(span.scope.attributes)),
    }


def _of_otlp(span: Mapping[str, Any]) -> dict[str, Any]:
    scope = span["scope"]
    return {
        "trace_id": span["traceId"],
        "span_id": span["spanId"],
        "parent_id": span.get("parentSpanId", ""),
        "trace_state": span.get("traceState", ""),
        "remote": span.get("flags", 0) & REMOTENESS == REMOTENESS,
        "name": span["name"],
        "kind": span["kind"],
        "start_ns": int(span["startTimeUnixNano"]),
        "end_ns": int(span["endTimeUnixNano"]),
        "status": (span["status"].get("code", 0), span["status"].get("message", "")),
        "attributes": _otlp_map(span),
        "events": [
            (int(e["timeUnixNano"]), e["name"], _otlp_map(e), e.get("droppedAttributesCount", 0))
            for e in span.get("events", [])
        ],
        "links": [
            (k["traceId"], k["spanId"], k.get("flags", 0) & REMOTENESS, _otlp_map(k)) for k in span.get("links", [])
        ],
        "dropped": tuple(span.get(f"dropped{what}Count", 0) for what in ("Attributes", "Events", "Links")),
        "resource": _otlp_map(span["resource"]),
        "scope": (scope.get("name", ""), scope.get("version", ""), _otlp_map(scope)),
    }


def _typed(value: Any) -> Any:
    """Return a value in a form that tells 1, 1.0 and True apart and in which NaN equals itself."""
    match value:
        case None:
            return None
        case bool() | str():
            return value
        case int() | float():
            return type(value).__name__, repr(value)
        case bytes():
            return "bytes", value.hex()
        case Mapping():
            return {key: _typed(member) for key, member in value.items()}
        case Sequence():
            return [_typed(member) for member in value]
    raise TypeError(f"{value!r} is no attribute value")


def _otlp_map(holder: Mapping[str, Any], key: str = "attributes") -> dict[str, Any]:
    return {pair["key"]: _otlp_value(pair["value"]) for pair in holder.get(key, [])}


def _otlp_value(value: Mapping[str, Any]) -> Any:
    """Return an OTLP JSON value as `_typed` would."""
    match value:
        case {"stringValue": text}:
            return text
        case {"boolValue": truth}:
            return truth
        case {"intValue": digits}:
            return _typed(int(digits))
        case {"doubleValue": number}:
            return _typed(float(number))  # also of "NaN" and "-Infinity"
        case {"bytesValue": text}:
            return _typed(base64.b64decode(text))
        case {"arrayValue": array}:
            return [_otlp_value(member) for member in array.get("values", [])]
        case {"kvlistValue": pairs}:
            return _otlp_map(pairs, "values")
    assert value == {}
    return None
