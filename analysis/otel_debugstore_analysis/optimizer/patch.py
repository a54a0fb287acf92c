"""Unified diffs: made of files, and applied to them. A hunk is found by its lines; its line number is a hint only."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final, NamedTuple

from otel_debugstore_analysis.optimizer.lines import lines_of, with_newlines
from otel_debugstore_analysis.optimizer.protocol import OptimizerError

_HUNK: Final = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
_NOTHING: Final = "/dev/null"
_NO_NEWLINE: Final = "\\ No newline at end of file"


class _Hunk(NamedTuple):
    """A part of a file: where it began, and its lines with their signs."""

    first: int
    lines: tuple[str, ...]

    @property
    def before(self) -> list[str]:
        return [line[1:] for line in self.lines if line[:1] in (" ", "-")]

    @property
    def after(self) -> list[str]:
        return [line[1:] for line in self.lines if line[:1] in (" ", "+")]


def is_patch(text: str) -> bool:
    """Return whether a text is, or holds, a unified diff."""
    return re.search(r"(?m)^--- .+\n\+\+\+ .+\n@@ -", text) is not None


def make_patch(before: Mapping[str, str | None], after: Mapping[str, str | None]) -> str:
    """Return the unified diff of files, by their paths; None is a file that is not there."""
    parts = []
    for name, new in after.items():
        old = before.get(name)
        heads = (_NOTHING if old is None else f"a/{name}", _NOTHING if new is None else f"b/{name}")
        for line in difflib.unified_diff(lines_of(old or ""), lines_of(new or ""), *heads):
            parts.append(line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}\n")
    return "".join(parts)


def patched(patch: str, read: Callable[[str], str | None]) -> dict[str, str | None]:
    """Return the texts of the files that a patch changes.

    Args:
        patch: A unified diff; text around it is ignored.
        read: Returns the text of a file by its path within the project, None if there is none.

    Raises:
        OptimizerError: It fits nowhere, or is no diff.
    """
    found: dict[str, str | None] = {}
    for old, new, hunks in _files([line.removesuffix("\n") for line in lines_of(with_newlines(patch))]):
        source = None if old == _NOTHING else _path(old)
        target = source if new == _NOTHING else _path(new)
        assert target is not None
        text = "" if source is None else found.get(source, read(source))
        if text is None:
            raise OptimizerError(f"The patch changes {source}, which is not there.")
        found[target] = None if new == _NOTHING else _applied(target, text, hunks)
        if source is not None and source != target:
            found[source] = None
    if not found:
        raise OptimizerError("The patch changes nothing.")
    return found


def _files(lines: Sequence[str]) -> list[tuple[str, str, list[_Hunk]]]:
    files: list[tuple[str, str, list[_Hunk]]] = []
    place = 0
    while place < len(lines):
        line = lines[place]
        if line.startswith("--- ") and place + 1 < len(lines) and lines[place + 1].startswith("+++ "):
            files.append((_name(line), _name(lines[place + 1]), []))
            place += 2
        elif files and (head := _HUNK.match(line)):
            hunk, place = _hunk(lines, place, head)
            files[-1][2].append(hunk)
        else:
            place += 1
    return files


def _hunk(lines: Sequence[str], place: int, head: re.Match[str]) -> tuple[_Hunk, int]:
    old, new = (int(head[number]) if head[number] is not None else 1 for number in (2, 4))
    taken: list[str] = []
    place += 1
    while place < len(lines) and (old > 0 or new > 0):
        line = lines[place] or " "  # editors strip the blank of an empty line
        if line.startswith("\\"):
            place += 1
            continue
        if line[0] not in " +-":
            break
        old -= line[0] in " -"
        new -= line[0] in " +"
        taken.append(line)
        place += 1
    if old or new:
        raise OptimizerError(f"A hunk of the patch has other numbers of lines than it says: {head[0]}.")
    return _Hunk(int(head[1]), tuple(taken)), place


def _applied(name: str, text: str, hunks: Sequence[_Hunk]) -> str:
    lines = text.split("\n")
    ends_whole = bool(lines) and lines[-1] == ""
    if ends_whole:
        lines.pop()
    shift = 0
    for hunk in hunks:
        before, after = hunk.before, hunk.after
        place = _place(lines, before, hunk.first - 1 + shift)
        if place is None:
            raise OptimizerError(
                f"The patch does not fit {name}: the lines from {hunk.first} on are other than it says."
            )
        lines[place : place + len(before)] = after
        shift += len(after) - len(before)
    return "\n".join(lines) + ("\n" if lines and (ends_whole or not text) else "")


def _place(lines: Sequence[str], wanted: Sequence[str], hint: int) -> int | None:
    """Return where lines stand, the place nearest to where they should."""
    if not wanted:
        return max(0, min(hint + 1, len(lines)))
    places = [
        place
        for place in range(len(lines) - len(wanted) + 1)
        if list(lines[place : place + len(wanted)]) == list(wanted)
    ]
    return min(places, key=lambda place: abs(place - hint), default=None)


def _name(line: str) -> str:
    return line[4:].split("\t")[0].strip()


def _path(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise OptimizerError(f"The patch changes {name}, which leads out of the project.")
    parts = path.parts[1:] if path.parts and path.parts[0] in ("a", "b") and len(path.parts) > 1 else path.parts
    return str(PurePosixPath(*parts))
