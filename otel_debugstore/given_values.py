"""Where in a text a value is given to the name of a secret: `name=value`, `"name": "value"`, `--name value`, ..."""

from __future__ import annotations

import re
from collections.abc import Callable

from otel_debugstore.secret_kinds import (
    ASSIGNMENT,
    BARE,
    FLAG,
    LINE,
    NAME_BEFORE,
    PAIR,
    PLACEHOLDER,
    QUOTED,
    TAG,
    TAG_BEFORE,
)
from otel_debugstore.secret_names import SecretNames
from otel_debugstore.secret_values import HEADERS, MARK, SecretValues

Span = tuple[int, int, str]
"""Start, end and kind of a secret in a text."""


class GivenValues:
    """Finds the value, once a piece of a name was found."""

    def __init__(self, names: SecretNames, values: SecretValues, kind_of: Callable[[str], str | None]) -> None:
        """Take the names, and what tells which secret one stands for."""
        self._not_in_text = names.not_in_text
        self._values = values
        self._kind_of = kind_of

    def span_at(self, text: str, position: int) -> Span | None:
        """Return the place of the value, if the name of a secret is here and a value is given to it."""
        found = ASSIGNMENT.match(text, position)
        if found is not None:
            return self._after(found, text, position)
        found = PAIR.match(text, position)
        if found is not None:
            return self._after(found, text, position)
        return self._after_flag(text, position) or self._in_tag(text, position)

    def _after(self, found: re.Match[str], text: str, position: int) -> Span | None:
        before = NAME_BEFORE.search(text, max(0, position - 64), position)
        kind = self._kind_of(text[before.start() if before else position : found.end("name")])
        if kind is None:
            return None
        quoted = QUOTED.match(text, found.end())
        if quoted is not None:
            start, end = quoted.span(quoted.lastindex or 0)
            return (
                (start, end, kind) if self._values.is_quoted_secret(kind, text[start : min(end, start + 80)]) else None
            )
        bare = (LINE if kind in HEADERS else BARE).match(text, found.end())
        if bare is None:
            return None
        end = bare.start() + len(bare.group().rstrip(")]}" if kind not in HEADERS else " \t"))
        is_secret = self._values.is_bare_secret(
            kind,
            text[bare.start() : end],
            is_spaced=found.group()[-1] in " \t",
            is_in_text=kind not in self._not_in_text,
        )
        return (bare.start(), end, kind) if is_secret else None

    def _after_flag(self, text: str, position: int) -> Span | None:
        """Return the place of the value, if a flag that is named like a secret is here and a value after it.

        Words of letters only are none: help texts and source code are full of flags.
        """
        if "--" not in text[max(0, position - 64) : position]:
            return None
        found = FLAG.match(text, position)
        before = NAME_BEFORE.search(text, max(0, position - 64), position)
        if found is None or before is None or not before.group().startswith("--"):
            return None
        kind = self._kind_of(before.group() + found["name"])
        group = "quoted" if found["quoted"] else "bare"
        value = found[group]
        if kind is None or value.isalpha() or value.startswith(("-", MARK.strip())):
            return None
        is_none = self._values.is_too_short(kind, value) or PLACEHOLDER.fullmatch(value[:80])
        return None if is_none else (*found.span(group), kind)

    def _in_tag(self, text: str, position: int) -> Span | None:
        """Return the place of what is in an element, if that is named like a secret."""
        before = TAG_BEFORE.search(text, max(0, position - 100), position)
        found = TAG.match(text, position) if before else None
        if before is None or found is None:
            return None
        kind, value = self._kind_of(before["name"] + found["name"]), found["value"]
        is_secret = kind and self._values.is_bare_secret(
            kind, value, is_spaced=False, is_in_text=kind not in self._not_in_text
        )
        return (*found.span("value"), kind) if kind and is_secret and not value.startswith(MARK.strip()) else None
