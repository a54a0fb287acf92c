"""Which values are the secrets that their names stand for: `has_password=True` is none, and source code is not.

Names that are ordinary words as well, such as `pass` and `pin`, count only with what can be a password or a code.
"""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from otel_debugstore.secret_kinds import CODE_WORDS, EXPRESSION, IDENTIFIER, PLACEHOLDER

MARK: Final = "(masked: "
"""How what stands in the place of a secret begins."""

HEADERS: Final = frozenset({"authorization", "cookie"})
_PASSWORDS: Final = frozenset({"password", "passwd", "passphrase", "passcode", "pwd", "secret"})
_SHORT_TOO: Final = _PASSWORDS | HEADERS
"""Kinds of which short values are secrets too; a token of a few characters is one of a language."""

_TEXTS: Final = frozenset({"pass", "pw"})
_DIGITS: Final = {"pin": (4, 12), "otp": (4, 12), "cvv": (3, 4)}
"""How many digits such a code has; pins of a board have fewer."""

_NO_PASSWORDS: Final = "yes no ok true false pass passed fail failed skip skipped none null on off"
_OUTCOMES: Final = frozenset(_NO_PASSWORDS.split())
_SHORTEST: Final = 6


class SecretValues:
    """Tells of a value, and of the kind of secret that its name stands for, whether it is one."""

    def __init__(self, added: Set[str]) -> None:
        """Take the names that a user added: whatever they have is secret."""
        self._texts: Final = _TEXTS - added
        self._digits: Final = {kind: count for kind, count in _DIGITS.items() if kind not in added}

    def fits(self, kind: str, value: object) -> bool:
        """Return whether a value can be a secret of this kind; None, flags and floating-point numbers can't."""
        if kind not in self._texts and kind not in self._digits:
            return not (value is None or type(value) in (bool, float) or value in ("", b"", (), []))
        if isinstance(value, (list, tuple)):
            return any(self.fits(kind, item) for item in value)
        if type(value) is int and 0 <= value < 10**12 and kind in self._digits:
            value = str(value)
        if not isinstance(value, (str, bytes)):
            return False
        if kind in self._texts:
            return len(value.split(None, 1)) == 1 and value.strip() == value and value.lower() not in _OUTCOMES
        least, most = self._digits[kind]
        return least <= len(value) <= most and value.isdigit()

    def is_quoted_secret(self, kind: str, value: str) -> bool:
        """Return whether a text in quotes, or its beginning, is a secret."""
        is_none = value.startswith(MARK) or PLACEHOLDER.fullmatch(value)
        return not (is_none or self.is_too_short(kind, value))

    def is_bare_secret(self, kind: str, value: str, *, is_spaced: bool, is_in_text: bool) -> bool:
        """Return whether a value without quotes is a secret, and not source code about one.

        Args:
            kind: What its name stands for.
            value: The value.
            is_spaced: Whether a space is before it.
            is_in_text: Whether a name of this kind is looked for in texts.
        """
        first_word = value.split(None, 1)[0].rstrip(":|,.") if value else ""
        if (
            not value
            or first_word.lower() in CODE_WORDS
            or EXPRESSION.match(value)
            or PLACEHOLDER.fullmatch(value[:80])
        ):
            return False
        is_word = IDENTIFIER.match(value) is not None
        if is_word and (value.lower() in kind or value.lower().endswith(kind.replace("_", ""))):
            return False
        if kind in self._texts:
            return self.fits(kind, value) and not (is_word or (value.isdigit() and len(value) < _SHORTEST))
        if kind in self._digits:
            return self.fits(kind, value)
        if kind in _SHORT_TOO:
            return True
        return not (self.is_too_short(kind, value) or not is_in_text or (is_word and is_spaced))

    def is_too_short(self, kind: str, value: str) -> bool:
        """Return whether a text is too short for a secret of its kind, or no code of so many digits."""
        if kind in self._texts or kind in self._digits:
            return not self.fits(kind, value)
        return len(value) < _SHORTEST and kind not in _SHORT_TOO
