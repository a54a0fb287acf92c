"""Text and numbers for people. Telemetry is untrusted: what could steer a terminal is escaped."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

_STEERING: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f"  # C0, DEL, C1: escape sequences
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional marks and overrides
    "\u00ad\u200b\u2028\u2029\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # invisible
    "\ud800-\udfff]"
)
_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_HEADINGS: Final = {
    "dropped_count": "dropped",
    "malformed_count": "malformed",
    "self_share": "self %",
    "share": "%",
    "error_rate": "errors",
    "call_count": "calls",
    "recorded_count": "recorded",
    "not_recorded_count": "not recorded",
    "recording_share": "recording %",
}
_NS: Final = (
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
)
_NS_SMALL: Final = (("ms", 1_000_000), ("µs", 1_000))
_BARS: Final = "▁▂▃▄▅▆▇█"
_INSTANTS: Final = ("start_ns", "end_ns", "first_ns", "last_ns", "at_ns")
_ID_DIGITS: Final = 8
_SMALL: Final = 0.01
_BYTES: Final = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def printable(text: str) -> str:
    """Return text with control, bidirectional and invisible characters as escapes, on one line."""
    return _STEERING.sub(lambda found: _escape(found[0]), text)


def shortened(text: str, limit: int) -> str:
    """Return printable text of at most so many characters: names tell more by their ends than by their beginnings."""
    plain = printable(text if len(text) <= 2 * limit else f"{text[:limit]}{text[-limit:]}")
    if len(plain) <= limit:
        return plain
    begin = max(limit - 1, 0) // 3
    return f"{plain[:begin]}…{plain[len(plain) - max(limit - 1 - begin, 0) :]}" if limit > 0 else ""


def escape_json(text: str) -> str:
    """Return JSON text with what could steer a terminal as JSON escapes; it means the same."""
    return _STEERING.sub(lambda found: found[0] if found[0] == "\n" else _json_escape(found[0]), text)


def duration(nanoseconds: float) -> str:
    """Return a duration with three digits and its unit, such as "1.23 ms"."""
    size = abs(nanoseconds)
    if size >= 120 * 1_000_000_000:
        for unit, length in _NS:
            if size >= length:
                return f"{_digits(nanoseconds / length)} {unit}"
    for unit, length in (_NS[-1], *_NS_SMALL):
        if size >= length * 0.9995:
            return f"{_digits(nanoseconds / length)} {unit}"
    return f"{round(nanoseconds)} ns"


def size(count: float) -> str:
    """Return a number of bytes with three digits and its unit, such as "12.3 MB"."""
    for unit, length in _BYTES:
        if abs(count) >= length * 0.9995:
            return f"{_digits(count / length)} {unit}"
    return f"{count:.0f} B"


def instant(nanoseconds: int) -> str:
    """Return a time (nanoseconds since 1970) in UTC, to the millisecond."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        stamp = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return f"{nanoseconds} ns"
    return f"{stamp:%Y-%m-%d %H:%M:%S}.{rest // 1_000_000:03d}"


def human(column: str, value: Any) -> str:
    """Return a value as people read it; the column's name says the unit."""
    if value is None:
        return "-"
    if isinstance(value, (tuple, list)):
        return _several(column, value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, (int, float)):
        return printable(str(value))
    if not math.isfinite(value):
        return "-"
    if column in _INSTANTS or column.endswith("_time_ns"):
        return instant(int(value))
    if column.endswith("_ns"):
        return duration(value)
    if column.endswith("_bytes"):
        return size(value)
    if column == "share" or column.endswith(("_share", "_rate")):
        return f"{100 * value:.1f} %"
    if column.endswith("share_difference"):
        return f"{100 * value:+.1f} %"
    if column.endswith("_ns_per_s"):
        return f"{duration(value)}/s"
    if column.endswith("_per_s"):
        return f"{_digits(value)}/s"
    if column == "count" or column.endswith("_count"):
        return f"{value:,.0f}"
    if not isinstance(value, float):
        return str(value)
    return _digits(value) if abs(value) >= _SMALL or not value else f"{value:.1e}"


def sparkline(values: Iterable[float | None]) -> str:
    """Return a line of bars from nothing to the largest of the values; a blank where there is none."""
    heights = [None if value is None or not math.isfinite(value) else max(value, 0.0) for value in values]
    most = max((height for height in heights if height is not None), default=0.0)
    top = len(_BARS) - 1
    return "".join(" " if h is None else _BARS[round(top * h / most) if most else 0] for h in heights)


def _several(column: str, values: Sequence[Any]) -> str:
    """Return several values in a cell; of ids the first digits, which are enough to find what they name."""
    if column.endswith("_ids"):
        return " ".join(printable(str(value)[:_ID_DIGITS]) for value in values) or "-"
    return ", ".join(human(column.removesuffix("s"), value) for value in values) or "-"


def heading(column: str) -> str:
    """Return a column's name without the unit that its values show."""
    if column in _HEADINGS:
        return _HEADINGS[column]
    if column.endswith("_count"):
        return column.removesuffix("_count") + "s"
    if column.endswith("_share"):
        return f"{column.removesuffix('_share').replace('_', ' ')} %"
    if column.endswith("share_difference"):
        return "difference %"
    for suffix in ("_ns_per_s", "_per_s", "_ns", "_bytes"):
        if column.endswith(suffix):
            return column.removesuffix(suffix).replace("_", " ")
    return column.removeprefix("is_").replace("_", " ")


def _digits(value: float) -> str:
    size = abs(value)
    return f"{value:.0f}" if size >= 99.95 else f"{value:.1f}" if size >= 9.995 else f"{value:.2f}"


def _escape(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _json_escape(character: str) -> str:
    code = ord(character)
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
