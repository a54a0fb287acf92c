"""How a call ended, as its span says it: status, outcome, and the exception as an event.

Exceptions are the program's: their texts and attributes may raise in turn, and then only these are missing.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, Final

from opentelemetry.trace import Status, StatusCode

from otel_debugstore import attributes as names
from otel_debugstore.calls.outcome import Outcome, type_name
from otel_debugstore.guard import swallow
from otel_debugstore.masking import masker

MAX_DESCRIPTION: Final = 1000
_MAX_FRAMES: Final = 100
_MAX_EXCEPTION_CHARACTERS: Final = 32 << 10


def set_error(span: Any, outcome: Outcome, error: BaseException, attributes: dict[str, Any]) -> None:
    """Write down the exception that left a call."""
    attributes[names.ERROR_TYPE] = type_name(error)
    message = text_of(error)
    if outcome.is_error:
        _record_exception(span, error, message)
    set_outcome(span, outcome, f"{type(error).__name__}: {_head(message, MAX_DESCRIPTION)}", attributes)


def set_outcome(span: Any, outcome: Outcome, message: str, attributes: dict[str, Any]) -> None:
    """Write down how a call ended."""
    if outcome.name is not None:
        attributes[names.OUTCOME] = outcome.name
    if outcome.is_error:
        span.set_status(Status(StatusCode.ERROR, message or None))
        said = (span.attributes or {}).get(names.ERROR_TYPE)  # by whoever judged the result
        attributes.setdefault(names.ERROR_TYPE, said or outcome.name or "error")


def text_of(value: object) -> str:
    """Return the text of an exception, or of what stands for one."""
    return _asked(lambda: str(value), "(its text can't be had)")


def _record_exception(span: Any, error: BaseException, message: str) -> None:
    """Do what the SDK's `record_exception` does, within bounds; that one raises what the exception's `__str__` does."""
    stack = _asked(
        lambda: "".join(traceback.format_exception(error, limit=-_MAX_FRAMES)), "(its stack trace can't be had)"
    )
    attributes = {
        "exception.type": type_name(error),
        "exception.message": _head(message, _MAX_EXCEPTION_CHARACTERS),
        "exception.stacktrace": _head(stack, _MAX_EXCEPTION_CHARACTERS),
        "exception.escaped": "False",
    }
    span.add_event("exception", attributes)


def _asked(ask: Callable[[], str], otherwise: str) -> str:
    """Return what code of the program says; what it raises is swallowed, but not Ctrl-C."""
    try:
        return ask()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # the exception's own `__str__`, or its attributes
        swallow(error)
        return otherwise


def _head(text: str, length: int) -> str:
    """Return the beginning of a text, without a part of a secret at its end."""
    return text if len(text) <= length else masker().mask_head(text, length)
