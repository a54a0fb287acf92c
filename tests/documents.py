"""Reads the fenced blocks of a Markdown document, so that tests can run what it tells people to do."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_BLOCK: Final = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the line of the document on which it begins."""

    language: str
    text: str
    line: int

    def commands(self) -> list[list[str]]:
        """Return the words of each line that starts with `$ `; a backslash at the end joins the next line."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [shlex.split(line[2:], comments=True) for line in lines if line.startswith("$ ")]


def read_blocks(path: Path) -> list[Block]:
    """Return the fenced blocks of a document that name a language, in order."""
    text = path.read_text(encoding="utf-8")
    return [Block(found[1], found[2], 1 + text.count("\n", 0, found.start())) for found in _BLOCK.finditer(text)]
