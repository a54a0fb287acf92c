"""Session ids: which are allowed, and the default one."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from otel_debugstore.errors import InvalidSessionIdError

MAX_LENGTH: Final = 128
_ALLOWED: Final = re.compile(r"[A-Za-z0-9._-]+")
RESERVED: Final = "state"
"""`state.lmdb` is no session's journal: it holds what changes after it was recorded."""
_CHOOSE: Final = "Choose another one."
_FORBIDDEN: Final = re.compile(r"[^A-Za-z0-9._-]+")


def check_session_id(session_id: str) -> str:
    """Return `session_id` if it can be one.

    Raises:
        InvalidSessionIdError: It is no text, empty, too long, reserved, starts with a dot or a hyphen, or holds
            anything but ASCII letters, digits, `.`, `_` and `-`.
    """
    if not isinstance(session_id, str):
        raise InvalidSessionIdError(f"Session id {session_id!r:.{MAX_LENGTH}} can't be used: an id is text. {_CHOOSE}")
    if session_id.lower() == RESERVED:  # some file systems take capitals for small letters
        raise InvalidSessionIdError(
            f"Session id {session_id!r} can't be used: {RESERVED}.lmdb is a file of the store's own. {_CHOOSE}"
        )
    if not _ALLOWED.fullmatch(session_id) or session_id[0] in ".-" or len(session_id) > MAX_LENGTH:
        raise InvalidSessionIdError(
            f"Session id {session_id[:MAX_LENGTH]!r} can't be used: an id has 1 to {MAX_LENGTH} letters, "
            f"digits (ASCII), '.', '_' and '-', and starts with a letter, a digit or '_'. {_CHOOSE}"
        )
    return session_id


def default_session_id(name: str, now: datetime | None = None) -> str:
    """Return `{name}_{UTC time}` with what an id can't hold replaced by `-`.

    Args:
        name: The workflow, tool, service or script.
        now: The time to use; the current one by default.
    """
    now = now or datetime.now(UTC)
    stamp = now.strftime("%Y%m%dT%H%M%S") + f".{now.microsecond // 1000:03d}Z"
    clean = _FORBIDDEN.sub("-", name).strip(".-")[: MAX_LENGTH - len(stamp) - 1]
    return f"{clean or 'session'}_{stamp}"
