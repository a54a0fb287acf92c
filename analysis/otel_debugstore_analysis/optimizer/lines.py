"""Lines of files. Python, git and editors end one at a newline; `str.splitlines` ends some at other characters, too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_LINE: Final = re.compile(r"[^\n]*\n|[^\n]+")


def lines_of(text: str) -> list[str]:
    """Return the lines of a text, with their ends."""
    return _LINE.findall(text)


def with_newlines(text: str) -> str:
    """Return a text whose lines end by a newline alone, as Python reads a file."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def with_ends_of(text: str, old: str | None) -> str:
    """Return a text whose lines end as most of those of another one do; by a newline alone where there is none."""
    text = with_newlines(text)
    ends_by_crlf = old is not None and 2 * old.count("\r\n") > old.count("\n")
    return text.replace("\n", "\r\n") if ends_by_crlf else text


def exact_text(path: Path) -> str | None:
    """Return the text of a file with the ends of its lines; None if there is none. What is no UTF-8 can be encoded by
    "surrogateescape" again.
    """
    return path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else None
