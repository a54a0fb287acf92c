"""`Masker`: takes secrets out of what is recorded, before the first byte of it reaches the disk.

A secret is known by the name it has (`secret_names`), or by what it looks like (`secret_kinds`). In its place
stands `(masked: KIND)`. Masking is a net, not a proof: a secret with neither a telling name nor a known look passes.

Cost: linear in the text, about 15 ns a character, plus about 1 us where something looks like a secret. Long texts
are gone through piece by piece, so that other threads run meanwhile.
Threads: any; a `Masker` has no locks, and its caches hold what can be found again.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

from otel_debugstore.given_values import GivenValues, Span
from otel_debugstore.log import warn_once
from otel_debugstore.recording_settings import recording_settings
from otel_debugstore.secret_kinds import EMAIL, EMAIL_NAME, RULES, Pattern, Rule
from otel_debugstore.secret_names import MODIFIERS, SecretNames
from otel_debugstore.secret_values import MARK, SecretValues

_PIECE: Final = 1 << 16
_LONGEST_FLAG: Final = 64
_HEAD_MARGIN: Final = 1024
"""What is read beyond a cut, so that a secret which lies across it is recognised."""
_MAX_DEPTH: Final = 64
_REMEMBERED: Final = 8192
_REMEMBERED_LENGTH: Final = 128
_PAIRS: Final = tuple((name, value) for value in ("value", "Value") for name in ("name", "key", "Name", "Key"))
_END: Final = "\0"
_LONGEST_END: Final = 4 * (1 + max(map(len, MODIFIERS))) + 1
_END_OF_KEY: Final = f"(?:[_.-]?(?:{'|'.join(sorted(MODIFIERS))}|[0-9])){{0,4}}[\x80-\xff]".encode("latin-1")
"""What follows the name of a secret where that is a key: in MessagePack mostly a byte that is no ASCII."""
_NO_WORD: Final = (
    r"""(?!(?:(?<=[:=])>?|(?<![:=])[\\"'`)\]]{0,8}+[ \t]{0,3}+[:=][=>]?)[ \t]{0,3}+"""
    r"""(?:[a-z_]{1,256}+|[0-9]{1,3}+)[)\]}]{0,8}+[\s,;&<>])"""
)
"""What must not follow an ordinary word: a value that `SecretValues` refuses anyway, but after a slower look."""
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


class Masker:
    """Masks what the built-in rules and those of a user say is secret."""

    def __init__(self, keys: Iterable[str] = (), patterns: Iterable[str] = (), emails: bool = False) -> None:
        """Take a user's rules.

        Args:
            keys: Further names of secrets, such as `ssn` or `customer name`.
            patterns: Regular expressions of further secrets. One that can't be compiled costs a line of log.
            emails: Whether e-mail addresses are masked as well.
        """
        self._names: Final = SecretNames(keys)
        self._values: Final = SecretValues(self._names.added)
        self._given: Final = GivenValues(self._names, self._values, self.key_kind)
        self._patterns: Final = tuple(_compiled(patterns))
        rules = (*RULES, EMAIL) if emails else RULES
        self._by_needle: Final[dict[str, list[Rule | None]]] = _index(rules, self._names.needles())
        ordinary = {needle for needle in self._names.ordinary_needles() if self._by_needle.get(needle) == [None]}
        expression = _alternatives(needle + _END * (needle in ordinary) for needle in self._by_needle)
        self._search: Final[Callable[..., re.Match[str] | None]] = re.compile(expression.replace(_END, _NO_WORD)).search
        only_keys = set(self._names.only_keys())
        with_keys = _alternatives([*self._by_needle, *(name + _END for name in only_keys)])
        self._search_bytes: Final = Pattern(with_keys.encode().replace(_END.encode(), _END_OF_KEY)).search
        needles = (*self._by_needle, *only_keys)
        self._overlap: Final = max([len(needle.encode()) for needle in needles]) + _LONGEST_END
        self._kinds: dict[str, str | None] = {}
        self._clean: set[str] = set()
        self.digests: dict[bytes, str] = {}
        """Of contents of payloads in which nothing was found; who captures keeps them here, since others find more."""

    def key_kind(self, name: object) -> str | None:
        """Return which secret a name stands for, or None; also None if it is no text."""
        try:
            return self._kinds[name]  # type: ignore[index]
        except (KeyError, TypeError):
            if not isinstance(name, str):
                return self.key_kind(name.decode("latin-1")) if isinstance(name, bytes) else None
        if len(self._kinds) >= _REMEMBERED:
            self._kinds = {}
        kind = self._kinds[name] = self._names.kind(name)
        return kind

    def mask_key(self, name: object) -> bool:
        """Return whether what has this name is to be masked."""
        return self.key_kind(name) is not None

    def is_secret(self, kind: str, value: object) -> bool:
        """Return whether a value can be the secret that its name stands for; `has_password=True` is none."""
        return self._values.fits(kind, value)

    def pair_kind(self, pair: Mapping[Any, Any]) -> tuple[str, str] | None:
        """Return the key and the kind of a secret in a map with its name beside it: `{"name": "token", "value": ...}`.

        Numbers are none: such maps are those of metrics, too.
        """
        for name_key, value_key in _PAIRS:
            name = pair.get(name_key)
            if type(name) is str and value_key in pair and (kind := self.key_kind(name)) is not None:
                value = pair[value_key]
                return (value_key, kind) if type(value) is not int and self.is_secret(kind, value) else None
        return None

    def flag_kind(self, flag: object, value: object) -> str | None:
        """Return which secret a value is that comes after a flag in a command line: `["--password", value]`."""
        if not (isinstance(flag, str) and flag[:1] == "-" and len(flag) <= _LONGEST_FLAG and "=" not in flag):
            return None
        kind = None if isinstance(value, str) and value[:2] == "--" else self.key_kind(flag)
        return kind if kind is not None and self.is_secret(kind, value) else None

    def find(self, text: str) -> tuple[str, ...]:
        """Return the kinds of the secrets in a text, in their order."""
        return tuple(kind for _, _, kind in self._spans(text))

    def mask_text(self, text: str) -> str:
        """Return the text without its secrets; the same object if it has none."""
        if len(text) <= _PIECE and not self._patterns and self._search(text.lower()) is None:
            return text
        spans = self._spans(text)
        return _replaced(text, spans, len(text)) if spans else text

    def mask_head(self, text: str, length: int) -> str:
        """Return the first characters of a text, masked as they would be if all of it were."""
        spans = [span for span in self._spans(text[: length + _HEAD_MARGIN]) if span[0] < length]
        return _replaced(text, spans, length)

    def mask_bytes(self, data: bytes) -> bytes:
        """Return bytes without the secrets that are written in them; the same object if there are none."""
        text = data.decode("latin-1")
        masked = self.mask_text(text)
        return data if masked is text else masked.encode("latin-1", "replace")

    def may_hold_secret(self, texts: Iterable[str], hashes: Mapping[str, object] | None = None) -> bool:
        """Return False if none of the texts holds a secret; True means that a closer look is needed.

        Short texts that were found to be clean are remembered, since the attributes of spans are mostly the same.

        Args:
            texts: What to look at.
            hashes: Those that we made ourselves: only a pattern of the user could find something in them.
        """
        new = set(texts) - self._clean
        if hashes and not self._patterns:
            new = new.difference(hashes)
        if not new:
            return False
        if self._spans("\n".join(new)):
            return True
        if len(self._clean) + len(new) > _REMEMBERED:
            self._clean = set()
        self._clean.update([text for text in new if len(text) <= _REMEMBERED_LENGTH][:_REMEMBERED])
        return False

    def may_hold_secret_bytes(self, data: bytes) -> bool:
        """Return whether UTF-8 text in `data`, names included, needs a closer look."""
        if self._patterns:
            return True
        lowered = data.lower()
        if len(data) <= _PIECE:
            return self._search_bytes(lowered) is not None
        return any(self._search_bytes(lowered, start, end) is not None for start, end in self._pieces(len(lowered)))

    def mask_attributes(self, attributes: Mapping[str, Any], depth: int = 0) -> Mapping[str, Any]:
        """Return attributes of a span or an event without secrets; the same object if there are none."""
        changed: dict[str, Any] = {}
        if depth and (pair := self.pair_kind(attributes)) is not None:
            changed[pair[0]] = masked_value(pair[1])
        for key, value in attributes.items():
            if key in changed:
                continue
            masked = self.mask_value(key, value, depth)
            if masked is not value:
                changed[key] = masked
        return {**attributes, **changed} if changed else attributes

    def mask_value(self, key: str, value: Any, depth: int = 0) -> Any:
        """Return the value of an attribute without secrets; the same object if there are none.

        What is nested deeper than `_MAX_DEPTH` is not gone through, and left out.
        """
        kind = self.key_kind(key)
        if kind is not None and self.is_secret(kind, value):
            mask = masked_value(kind)
            return (mask,) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else mask
        if isinstance(value, str):
            return self.mask_text(value)
        if isinstance(value, bytes):
            return self.mask_bytes(value)
        if isinstance(value, (Mapping, Sequence)) and depth >= _MAX_DEPTH:
            return "(nested too deep)"
        if isinstance(value, Mapping):
            return self.mask_attributes(value, depth + 1)
        if isinstance(value, Sequence):
            items = [self.mask_value("", item, depth + 1) for item in value]
            for place, (flag, item) in enumerate(pairwise(value), 1):
                if items[place] is item and (kind := self.flag_kind(flag, item)) is not None:
                    items[place] = masked_value(kind)
            return value if all(map(lambda old, new: old is new, value, items)) else tuple(items)
        return value

    def _spans(self, text: str) -> list[Span]:
        """Return where secrets are, in order and not overlapping."""
        lowered = text.lower()
        if len(lowered) != len(text):  # a few letters have longer lower-case forms; places must stay the same
            lowered = text.translate(_LOWER)
        spans: list[Span] = []
        for start, end in self._pieces(len(lowered)):
            position = max(start, spans[-1][1]) if spans else start
            while (hit := self._search(lowered, position, end)) is not None:
                span = self._span_at(text, hit.start(), hit.group())
                if span is not None and not _is_in_mark(lowered, hit.start()):
                    spans.append(span)
                    position = max(hit.start() + 1, span[1])
                else:
                    position = hit.start() + 1
        for pattern in self._patterns:
            spans += [(*found.span(), "custom") for found in pattern.finditer(text) if found.group()]
        return _merged(spans) if len(spans) > 1 else spans

    def _pieces(self, length: int) -> Iterator[tuple[int, int]]:
        """Yield the parts to search one after the other; each needle lies wholly in one, with what ends a key."""
        for start in range(0, length, _PIECE):
            yield start, min(length, start + _PIECE + self._overlap)

    def _span_at(self, text: str, position: int, needle: str) -> Span | None:
        for rule in self._by_needle[needle]:
            if rule is None:
                span = self._given.span_at(text, position)
            elif rule is EMAIL:
                span = _email(text, position)
            else:
                span = _matched(rule, text, position)
            if span is not None:
                return span
        return None


def masked_value(kind: str) -> str:
    """Return what stands in the place of a secret."""
    return f"{MARK}{kind})"


@functools.cache
def masker() -> Masker:
    """Return the masker of the settings."""
    settings = recording_settings()
    return Masker(settings.mask_keys, settings.mask_patterns, settings.mask_emails)


def _compiled(patterns: Iterable[str]) -> Iterator[re.Pattern[str]]:
    for pattern in patterns:
        try:
            yield re.compile(pattern)
        except (re.error, RecursionError, OverflowError) as error:
            warn_once(
                f"mask pattern {pattern}", f"mask_patterns can't have {pattern!r}: {error}. Nothing is masked by it."
            )


def _index(rules: Iterable[Rule], names: Iterable[str]) -> dict[str, list[Rule | None]]:
    """Return by needle the rules to try where it is found; None is that for values given to names."""
    found: dict[str, list[Rule | None]] = {name: [None] for name in names}
    for rule in rules:
        for needle in rule.needles:
            found.setdefault(needle, []).append(rule)
    # The search finds the shorter of two needles that begin alike.
    short = {needle for needle in found if not any(needle.startswith(other) for other in found if other != needle)}
    return {
        needle: [rule for other, rules_ in found.items() if other.startswith(needle) for rule in rules_]
        for needle in short
    }


def _alternatives(needles: Iterable[str]) -> str:
    """Return an expression for any of the texts, as a tree by their letters: several times faster than a plain one."""
    by_letter: dict[str, list[str]] = {}
    for needle in sorted(needles):
        if not needle:
            return ""
        by_letter.setdefault(needle[0], []).append(needle[1:])
    branches = [re.escape(letter) + _alternatives(rest) for letter, rest in by_letter.items()]
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


def _matched(rule: Rule, text: str, position: int) -> Span | None:
    found = rule.pattern.match(text, position - rule.lead) if position >= rule.lead else None
    if found is None:
        return None
    group = found.lastindex or 0
    start, end = found.span(group)
    return (start, end, rule.kind) if rule.accept is None or rule.accept(found[group]) else None


def _email(text: str, position: int) -> Span | None:
    domain = EMAIL.pattern.match(text, position)
    name = EMAIL_NAME.search(text, max(0, position - 64), position) if domain else None
    return (name.start(), domain.end(), EMAIL.kind) if domain and name else None


def _is_in_mark(lowered: str, position: int) -> bool:
    begin = lowered.rfind(MARK, max(0, position - 64), position)
    return begin >= 0 and ")" not in lowered[begin:position]


def _merged(spans: list[Span]) -> list[Span]:
    spans.sort(key=lambda span: (span[0], -span[1]))
    merged = [spans[0]]
    for start, end, kind in spans[1:]:
        last_start, last_end, last_kind = merged[-1]
        if start < last_end:
            merged[-1] = (last_start, max(end, last_end), last_kind)
        else:
            merged.append((start, end, kind))
    return merged


def _replaced(text: str, spans: Sequence[Span], length: int) -> str:
    """Return the first `length` characters with marks in the place of secrets."""
    parts, position = [], 0
    for start, end, kind in spans:
        parts += [text[position:start], masked_value(kind)]
        position = end
    return "".join([*parts, text[position:length] if position < length else ""])
