"""OTLP's `AnyValue` as Python values and back, in the JSON encoding.

An attribute value is None, bool, int, float, str, bytes, a list of such values or a dict from str to
such values. JSON spells bytes as base64, 64-bit integers as text, and NaN and the infinities as
"NaN", "Infinity" and "-Infinity". What OTLP can't say is written as its nearest relative: an integer
beyond 64 bits as its decimal text, another type as the type's name in parentheses.
"""

from __future__ import annotations

import binascii
from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from typing import Annotated, Any, Final

import msgspec

from otel_debugstore.errors import MalformedInputError
from otel_debugstore_exporters.batch import Attributes

MAX_DEPTH: Final = 64
"""Values nested deeper than this are malformed."""

MIN_INT64: Final = -(2**63)
MAX_INT64: Final = 2**63 - 1
_URL_SAFE: Final = str.maketrans("-_", "+/", "=")

Int64 = Annotated[int, msgspec.Meta(ge=MIN_INT64, le=MAX_INT64)]


class AnyValue(msgspec.Struct, rename="camel", gc=False):
    """One value; the field that is set tells its kind, none set is the empty value."""

    string_value: str | None = None
    int_value: Int64 | None = None
    double_value: float | None = None
    bool_value: bool | None = None
    array_value: ArrayValue | None = None
    kvlist_value: KeyValueList | None = None
    bytes_value: str | None = None


class ArrayValue(msgspec.Struct, gc=False):
    values: list[AnyValue | None] | None = None


class KeyValue(msgspec.Struct, gc=False):
    key: str
    value: AnyValue | None = None


class KeyValueList(msgspec.Struct, gc=False):
    values: list[KeyValue] | None = None


def attributes_from_json(pairs: list[KeyValue] | None, depth: int = 0) -> Attributes:
    """Return key-value pairs as a dict; of pairs with one key the last counts.

    Raises:
        MalformedInputError: A value is nested too deep, or is not base64 where bytes are meant.
    """
    if not pairs:
        return {}
    return {
        pair.key: text
        if (value := pair.value) is not None and (text := value.string_value) is not None
        else value_from_json(value, depth)
        for pair in pairs
    }


def value_from_json(value: AnyValue | None, depth: int = 0) -> Any:
    """Return the Python value; see `attributes_from_json` for what it raises."""
    if value is None:
        return None
    if value.string_value is not None:
        return value.string_value
    if value.int_value is not None:
        return value.int_value
    if value.double_value is not None:
        return value.double_value
    if value.bool_value is not None:
        return value.bool_value
    if value.bytes_value is not None:
        return bytes_from_base64(value.bytes_value)
    if value.array_value is not None:
        return [value_from_json(element, _deeper(depth)) for element in value.array_value.values or ()]
    if value.kvlist_value is not None:
        return attributes_from_json(value.kvlist_value.values, _deeper(depth))
    return None


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise MalformedInputError(f"an attribute value is nested deeper than {MAX_DEPTH} levels")
    return depth + 1


def bytes_from_base64(text: str) -> bytes:
    """Return what the base64 text stands for: standard or URL-safe alphabet, padded or not.

    Raises:
        MalformedInputError: It is not base64.
    """
    try:
        clean = text.translate(_URL_SAFE)
        return binascii.a2b_base64(clean + "=" * (-len(clean) % 4), strict_mode=True)
    except ValueError as error:
        raise MalformedInputError(f"bytes are not base64: {error}") from error


def attributes_to_json(attributes: Attributes) -> list[dict[str, Any]]:
    """Return a mapping as OTLP's key-value pairs, ready to be written as JSON."""
    return [
        {"key": key if isinstance(key, str) else str(key), "value": value_to_json(value)}
        for key, value in attributes.items()
    ]


def value_to_json(value: Any) -> dict[str, Any]:
    """Return `value` as an `AnyValue` object, ready to be written as JSON."""
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        kind = "intValue" if MIN_INT64 <= value <= MAX_INT64 else "stringValue"
        return {kind: integer_text(value)}
    if isinstance(value, float):
        return {"doubleValue": value if isfinite(value) else _spelled(value)}
    if value is None:
        return {}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return {"bytesValue": binascii.b2a_base64(value, newline=False).decode()}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": attributes_to_json(value)}}
    if isinstance(value, Sequence):
        return {"arrayValue": {"values": [value_to_json(element) for element in value]}}
    return {"stringValue": f"({type(value).__module__}.{type(value).__qualname__})"}


def integer_text(value: int) -> str:
    """Return the integer's decimal text, or hexadecimal beyond what Python converts (4,300 digits)."""
    try:
        return str(int(value))
    except ValueError:
        return hex(value)


def _spelled(value: float) -> str:
    return "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"
