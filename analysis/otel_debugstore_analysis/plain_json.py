"""Values as JSON: what JSON does not know is text, NaN and infinities are null, and no text can steer a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from otel_debugstore_analysis.text import escape_json


def json_text(value: Any, *, indent: int | None = None, ascii_only: bool = False) -> str:
    """Return a value as JSON text; a list of objects with an object a line where it is indented."""
    found = plain(value)
    if indent and isinstance(found, list) and all(isinstance(item, dict) for item in found):
        lines = ",\n  ".join(json.dumps(item, ensure_ascii=ascii_only) for item in found)
        text = f"[\n  {lines}\n]" if found else "[]"
    else:
        text = json.dumps(found, ensure_ascii=ascii_only, indent=indent)
    return escape_json(text)


def plain(value: Any) -> Any:
    """Return a value as JSON knows it."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, (float, Decimal)):
        return float(value) if math.isfinite(value) else None
    for kinds, convert in _CONVERSIONS:
        if isinstance(value, kinds):
            return convert(value)
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


_CONVERSIONS: Final[tuple[tuple[type | tuple[type, ...], Callable[[Any], Any]], ...]] = (
    (Mapping, lambda value: {str(key): plain(item) for key, item in value.items()}),
    ((list, tuple, set), lambda value: [plain(item) for item in value]),
    ((bytes, bytearray, memoryview), lambda value: bytes(value).hex()),
)
