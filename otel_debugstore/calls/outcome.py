"""How a call ended, told from the exception that left it."""

from __future__ import annotations

import sys
from typing import Final, NamedTuple


class Outcome(NamedTuple):
    """What an exception means. `name` is None for what is neither special nor more than an error."""

    name: str | None
    is_error: bool


RETURNED: Final = Outcome(None, False)
FAILED: Final = Outcome(None, True)
TIMEOUT: Final = Outcome("timeout", True)
CANCELLED: Final = Outcome("cancelled", False)
INTERRUPTED: Final = Outcome("interrupted", True)
TERMINATED: Final = Outcome("terminated", True)
RETRY: Final = Outcome("retry", False)
CLOSED: Final = Outcome("closed", False)
EXIT: Final = Outcome("exit", False)
FAILED_EXIT: Final = Outcome("exit", True)

BY_NAME: Final = {
    "success": RETURNED,
    "error": FAILED,
    "timeout": TIMEOUT,
    "cancelled": CANCELLED,
    "interrupted": INTERRUPTED,
    "terminated": TERMINATED,
    "retry": RETRY,
    "closed": CLOSED,
    "exit": EXIT,
}
"""What `Call.set_outcome` takes."""

_RETRY_NAMES: Final = frozenset(("Retry", "TryAgain", "RetryTask", "RetryException"))


def outcome_of(error: BaseException) -> Outcome:
    """Return how a call ended that `error` left. It is known by its class: attributes of the exception may raise."""
    kind = type(error)
    if issubclass(kind, Exception):
        if issubclass(kind, (StopIteration, StopAsyncIteration)):  # how a `__next__` returns
            return RETURNED
        names = [base.__name__ for base in kind.__mro__]
        if issubclass(kind, TimeoutError) or any("Timeout" in name for name in names):
            return TIMEOUT
        if not _RETRY_NAMES.isdisjoint(names):
            return RETRY
        if _is_a("concurrent.futures._base", "CancelledError", kind):
            return CANCELLED
        return FAILED
    if issubclass(kind, KeyboardInterrupt):
        return INTERRUPTED
    if issubclass(kind, GeneratorExit):
        return CLOSED
    if isinstance(error, SystemExit):
        return FAILED_EXIT if error.code else EXIT
    return CANCELLED if any("Cancel" in base.__name__ for base in kind.__mro__) else FAILED


def _is_a(module: str, name: str, kind: type[BaseException]) -> bool:
    base = getattr(sys.modules.get(module), name, None)
    return isinstance(base, type) and issubclass(kind, base)


def type_name(error: BaseException) -> str:
    """Return the qualified name of an exception's class, as the SDK writes it."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
