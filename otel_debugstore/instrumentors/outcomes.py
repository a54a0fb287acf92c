"""How calls of a host ended that do not say so by an exception.

A node's failure is in its metrics, a tool's in `{"success": False}`, in the traceback that it returns as text, or in
its empty answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from otel_debugstore.attributes import ERROR_TYPE
from otel_debugstore.calls.call import Call

_MARK: Final = "Traceback (most recent call last):\n"
_FRAME: Final = re.compile(r'^ *File "', re.MULTILINE)
_LAST_LINE: Final = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?")
_MAX_TRACEBACK: Final = 100_000


def error_in_text(text: str) -> tuple[str, str] | None:
    """Return type and message of the error whose traceback is the end of a text; None if it is not.

    A text that only quotes a traceback goes on after it.
    """
    text = text[-_MAX_TRACEBACK:]
    place = text.rfind(_MARK)
    if place < 0 or (place and text[place - 1] != "\n"):
        return None
    lines = text[place + len(_MARK) :].rstrip().splitlines()
    error = next((number for number, line in enumerate(lines) if line and not line[0].isspace()), -1)
    found = _LAST_LINE.fullmatch(lines[error]) if error > 0 else None
    if found is None or not _FRAME.search(lines[0]) or any(not line.strip() for line in lines[error + 1 :]):
        return None
    return found[1], " ".join([found[2] or "", *lines[error + 1 :]]).strip()


def judge_text(call: Call, result: Any) -> None:
    """A tool that answers with a traceback has failed."""
    if isinstance(result, str) and (error := error_in_text(result)):
        fail(call, *error)


def judge_answer(call: Call, result: Any) -> None:
    """A model that answers with nothing, or with a traceback, has failed."""
    if result == "":
        fail(call, "empty_answer", "The answer is empty.")
    else:
        judge_text(call, result)


def judge_mapping(call: Call, result: Any) -> None:
    """A result that says that it is none is a failure."""
    if isinstance(result, Mapping) and result.get("success") is False:
        message = next((str(result[key]) for key in ("error", "stderr", "message") if result.get(key)), "")
        fail(call, "unsuccessful", message)


def fail(call: Call, error_type: str, message: str, outcome: str = "error") -> None:
    """Mark a call as failed."""
    call.set_attribute(ERROR_TYPE, error_type)
    call.set_outcome(outcome, message)
