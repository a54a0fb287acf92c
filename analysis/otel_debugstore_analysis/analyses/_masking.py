"""What is the same in messages that differ by numbers, ids, paths, quoted texts and addresses.

The patterns are of RE2, which DuckDB, ClickHouse and Arrow have in common: a message is masked to the same text
wherever that is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow as pa

PATTERNS: Final = (
    (r"(?s)^(.{400}).*$", r"\1"),  # the rest of a longer one is mostly data
    (r"\s+", " "),
    (r"(^|\W)'[^']*'", r"\1<text>"),
    (r'"[^"]*"', "<text>"),
    (r"`[^`]*`", "<text>"),
    (r"\b[A-Za-z][A-Za-z0-9+.\-]*://[^\s,;)>\]]+", "<address>"),
    (r"\b[\w.+\-]+@[\w\-]+\.[\w.\-]+", "<address>"),
    (r"\b0[xX][0-9a-fA-F]+\b", "<address>"),
    (r"\b\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(:\d+)?\b", "<address>"),
    (r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b", "<id>"),
    (r"([A-Za-z]:)?[\w.~\-]*([/\\][\w.~\-]+)+[/\\]?", "<path>"),
    (r"\b[0-9a-fA-F]{8,}\b", "<id>"),
    (r"\b([a-zA-Z]+[0-9]|[0-9]+[a-zA-Z])[a-zA-Z0-9]{4,}\b", "<id>"),
    (r"[+\-]?\d+([.,:]\d+)*([eE][+\-]?\d+)?", "<number>"),
    (r"<number>([,;]? ?<number>)+", "<numbers>"),
)
"""Replaced one after the other, in this order."""


def masked(message: ir.Value) -> ir.Value:
    """Return the masked message as an expression; "" for none."""
    text = message.fill_null("")
    for pattern, replacement in PATTERNS:
        text = text.re_replace(pattern, replacement)
    return text.strip()


def masked_array(messages: pa.ChunkedArray) -> list[str]:
    """Return masked messages."""
    import pyarrow.compute as pc

    texts = messages.fill_null("")
    for pattern, replacement in PATTERNS:
        texts = pc.replace_substring_regex(texts, pattern=pattern, replacement=replacement)
    found: list[str] = pc.utf8_trim(texts, " ").to_pylist()
    return found
