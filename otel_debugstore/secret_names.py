"""Which names stand for secrets: keys of maps, arguments, attributes, headers, variables.

A name is cut into its words (`apiKey`, `API_KEY`, `x-api-key`, `http.api.key` are all "api key"), and counts
when it *ends* in the words of a secret: `github_token` does, `token_count`, `max_tokens`, `author` and `keyboard`
don't. `session_id` is no secret name: most are plain numbers of sessions, and what cookies carry is masked as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

_NAMES: Final = """
    password passwords passwd passphrase passcode pwd secret secrets token authorization auth bearer jwt
    cookie cookies credential credentials phpsessid jsessionid sessionid connect_sid
    api_key access_key private_key secret_key signing_key encryption_key master_key account_key ssh_key auth_key
    session_key authtoken accesstoken refreshtoken csrftoken
    pass pw pin otp cvv
"""
SECRET_NAMES: Final = tuple(_NAMES.split())
"""With `_` between the words of one name."""

NOT_IN_TEXT: Final = frozenset(
    {
        "auth",
        "bearer",
        "jwt",
        "secrets",
        "passwords",
        "cookies",
        "credentials",
        "connect_sid",
        "pass",
        "pw",
        "pin",
        "otp",
    }
)
"""Names that are looked for as names only: in running text and in source code they mostly mean something else."""

_IN_TEXT: Final = frozenset(
    {"pass:", "pass =", *(name + end for name in ("pass", "pw", "pin") for end in ("=", '"', "'", "\\"))}
)
"""But as `pass=` and `"pass":` these are looked for in texts too."""

_GLUED: Final = ("password", "passwd", "passphrase", "secret", "apikey")
"""What a single word may end in, as in `PGPASSWORD`."""

_AFTER: Final = "value text string str header hash plain raw base b enc encrypted bytes"
MODIFIERS: Final = frozenset(_AFTER.split())
"""Words after the name that leave it a secret: `password_hash`, `token_b64`."""

_LIST: Final = "list"
_LISTED: Final = frozenset({"password", "passwd", "passphrase", "passcode", "pwd"})
"""A `password_list` holds secrets; a `token_list` mostly words, a `secret_list` names."""

_BEFORE: Final = """
    max min num n total count avg per eos bos pad unk sep cls mask stop special start end first last next page
    continuation id ids
"""
_STAGES: Final = """
    first second third last next prev previous current single one two multi both low high band forward backward fwd bwd
    render boarding season by over under all num n total count test tests check should must may can will would
    assert assertion shrink fusion visit compile compiler opt optimise optimize pre post sub shader depth final to
"""
_OTHERS: Final = {"token": frozenset(_BEFORE.split()), "pass": frozenset(_STAGES.split())}
"""Words before the name that make it something else: a piece of text or a place in a list; a stage or an outcome."""

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_MAX_NAME: Final = 256
"""Of longer names the end is looked at."""


class SecretNames:
    """The names of secrets: ours, and those a user adds."""

    def __init__(self, added: Iterable[str] = ()) -> None:
        """Take further names, written in any of the styles that are recognised."""
        self.added: Final = frozenset("_".join(words(name)) for name in added)
        self.not_in_text: Final = NOT_IN_TEXT - self.added
        self.names: Final = (*SECRET_NAMES, *sorted(self.added))
        self._kinds: Final = {tuple(name.split("_")): name for name in self.names if name}
        self._glued: Final = {name.replace("_", ""): name for name in self.names if "_" in name}
        self._longest: Final = max(map(len, self._kinds))

    def kind(self, name: str) -> str | None:
        """Return which secret a name stands for, or None."""
        found = words(name[-_MAX_NAME:])
        kind = self._modified(found)
        if kind is None and len(found) > 1 and found[-1] == _LIST:
            kind = self._modified(found[:-1])
            return kind if kind in _LISTED else None
        return kind

    def _modified(self, found: list[str]) -> str | None:
        """Look the whole name up first: an added one may end in such a word itself."""
        kind = self._kind(found) if found else None
        while kind is None and len(found) > 1 and (found[-1] in MODIFIERS or found[-1].isdigit()):
            found = found[:-1]
            kind = self._kind(found)
        return kind

    def _kind(self, found: list[str]) -> str | None:
        for count in range(min(self._longest, len(found)), 0, -1):
            kind = self._kinds.get(tuple(found[-count:]))
            if kind is not None:
                is_other = kind not in self.added and found[-2:-1] and found[-2] in _OTHERS.get(kind, ())
                return None if is_other else kind
        return self._glued.get(found[-1]) or next((end for end in _GLUED if found[-1].endswith(end)), None)

    def needles(self) -> set[str]:
        """Return the pieces of lower-case text one of which is wherever such a name is written in a text."""
        ways = _IN_TEXT | _ways(name for name in self.names if name and name not in self.not_in_text)
        return {way for way in ways if not any(other in way for other in ways if other != way)}

    def ordinary_needles(self) -> set[str]:
        """Return those of the needles after which one word of letters, or a number of three digits, is no secret."""
        ends = {name.rpartition("_")[2] for name in self.added}
        return {needle for needle in _IN_TEXT & self.needles() if needle.rstrip(" :=\"'\\") not in ends}

    def only_keys(self) -> set[str]:
        """Return the same for names that are looked for as names only; after it come `MODIFIERS` and digits at most."""
        return _ways(self.not_in_text)


def _ways(names: Iterable[str]) -> set[str]:
    return {name.replace("_", glue) for name in names for glue in ("_", "-", "", ".")}


def words(name: str) -> list[str]:
    """Return the words of a name, in lower case."""
    return [word.lower() for word in _WORD.findall(name)]
