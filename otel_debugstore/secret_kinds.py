"""What secrets look like: one `Rule` a kind, found by a piece of text that every one of that kind holds.

Time is linear in the text, whatever it holds: a pattern is tried only where its needle is, begins with a check of
what is before it, and has bounded or possessive repetition only. So no pattern here can be made to backtrack.
"""

from __future__ import annotations

import base64
import binascii
import re
import sys
from collections.abc import Callable
from typing import AnyStr, Final, Generic, NamedTuple


class Pattern(Generic[AnyStr]):
    """A regular expression that is compiled when it is first tried: few programs show most kinds of secrets."""

    def __init__(self, expression: AnyStr, flags: int = 0) -> None:
        self._expression: AnyStr = expression
        self._flags = flags
        self._known: re.Pattern[AnyStr] | None = None

    def match(self, text: AnyStr, position: int = 0) -> re.Match[AnyStr] | None:
        """Return what is found at a position of a text."""
        return self._compiled().match(text, position)

    def search(self, text: AnyStr, start: int = 0, end: int = sys.maxsize) -> re.Match[AnyStr] | None:
        """Return what is found first in a part of a text."""
        return self._compiled().search(text, start, end)

    def fullmatch(self, text: AnyStr) -> re.Match[AnyStr] | None:
        """Return the text, if it is what is looked for and nothing else."""
        return self._compiled().fullmatch(text)

    def _compiled(self) -> re.Pattern[AnyStr]:
        if self._known is None:  # no `cached_property`: its lock may be held while another thread forks
            self._known = re.compile(self._expression, self._flags)
        return self._known


class Rule(NamedTuple):
    """How one kind of secret is recognised.

    Attributes:
        kind: What it is called in `(masked: KIND)`.
        needles: Lower-case texts one of which each such secret holds.
        pattern: Matched `lead` characters before the needle. What is masked is its group 1, or all of it.
        lead: How far the secret begins before the needle.
        accept: Whether what was found really is one.
    """

    kind: str
    needles: tuple[str, ...]
    pattern: Pattern[str]
    lead: int = 0
    accept: Callable[[str], bool] | None = None


def _rule(
    kind: str, needles: str, pattern: str, lead: int = 0, accept: Callable[[str], bool] | None = None, flags: int = 0
) -> Rule:
    return Rule(kind, tuple(needles.split()), Pattern(pattern, re.ASCII | flags), lead, accept)


def _is_basic_credential(text: str) -> bool:
    try:
        return b":" in base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return False


def _is_no_placeholder(text: str) -> bool:
    return PLACEHOLDER.fullmatch(text) is None


_EDGE: Final = r"(?<![A-Za-z0-9_])"
_EDGE_DASH: Final = r"(?<![A-Za-z0-9_-])"

RULES: Final[tuple[Rule, ...]] = (
    _rule("jwt", "eyj", _EDGE_DASH + r"eyJ[\w-]{8,}+\.(?:eyJ[\w-]*+(?:\.[\w-]*+)?|[\w-]*+(?:\.[\w-]*+){3})"),
    Rule(
        "private key",
        ("-----begin",),
        Pattern(
            r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----"
            r"(?:[^-]|-(?!----)){0,16384}+(?:-----END [A-Z0-9 ]{1,40}-----)?"
        ),
    ),
    _rule("aws key", "akia asia abia acca", _EDGE + r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}(?![A-Z0-9])"),
    _rule("google key", "aiza", _EDGE_DASH + r"AIza[\w-]{35}"),
    _rule("google key", "ya29. gocspx-", _EDGE_DASH + r"(?:ya29\.|GOCSPX-)[\w-]{20,}+"),
    _rule("azure signature", "sig=", r"(?<=[?&;])sig=([\w%+/=-]{20,}+)"),
    _rule("azure secret", "q~", r"(?<![\w~.-])[\w~.-]{3}[0-9]Q~[\w~.-]{31,34}(?![\w~.-])", lead=4),
    _rule("github token", "ghp_ gho_ ghu_ ghs_ ghr_", _EDGE + r"gh[pousr]_[A-Za-z0-9]{30,}+"),
    _rule("github token", "github_pat_", _EDGE + r"github_pat_\w{22,}+"),
    _rule("gitlab token", "glpat- gldt- glrt- glcbt- glptt- glsoat- glft-", _EDGE_DASH + r"gl[a-z]{2,5}-[\w.-]{20,}+"),
    _rule("slack token", "xox", _EDGE_DASH + r"xox[abceoprsd](?:\.xox[a-z])?-[\w.-]{10,}+"),
    _rule("slack token", "xapp-", _EDGE_DASH + r"xapp-[0-9]-[\w-]{10,}+"),
    _rule("slack webhook", "hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows|triggers)/([\w/]{20,}+)"),
    _rule("stripe key", "k_live_ k_test_", _EDGE + r"[srp]k_(?:live|test)_[A-Za-z0-9]{10,}+", lead=1),
    _rule("stripe key", "whsec_", _EDGE + r"whsec_[A-Za-z0-9+/=]{20,}+"),
    _rule("anthropic key", "sk-ant-", _EDGE_DASH + r"sk-ant-[\w-]{16,}+"),
    _rule("openai key", "sk-", _EDGE_DASH + r"sk-(?!ant-)(?=[\w-]{0,64}[0-9A-Z])[\w-]{20,}+"),
    _rule("hugging face token", "hf_", _EDGE + r"hf_[A-Za-z0-9]{30,}+"),
    _rule("npm token", "npm_", _EDGE + r"npm_[A-Za-z0-9]{36}"),
    _rule("pypi token", "pypi-age", _EDGE_DASH + r"pypi-AgE[\w-]{50,}+"),
    _rule("sendgrid key", "sg.", _EDGE_DASH + r"SG\.[\w-]{16,}+\.[\w-]{16,}+"),
    _rule(
        "bearer token",
        "bearer",
        _EDGE + r"bearer[ \t]{1,3}((?=[\w.~+/=-]{0,64}[0-9]|[\w.~+/=-]{24})[\w.~+/=-]{8,}+)",
        flags=re.IGNORECASE,
    ),
    _rule(
        "basic credential",
        "basic",
        _EDGE + r"basic[ \t]{1,3}([A-Za-z0-9+/]{6,4096}+={0,2})",
        accept=_is_basic_credential,
        flags=re.IGNORECASE,
    ),
    _rule(
        "url credential",
        "://",
        r"""://(?:[^\s/?#@:"'<>]{0,256}+:(?![0-9]{1,5}[/?#])([^\s/"'<>@]{1,256}+(?:@[^\s/"'<>@]{1,256}+(?=@))*+)"""
        r"|([A-Za-z0-9_-]{20,256}+))@",
    ),
    _rule(
        "curl credential",
        "curl",
        r"""curl(?:\.exe)?[ \t](?:(?!&&)[^\r\n|;]|\\\r?\n){0,256}?(?<=[ \t])(?:-u|--user|-U|--proxy-user)[ =]?["']?"""
        r"""[^\s:"']{1,128}+:(?!\(masked:)([^\s"']{1,256}+)""",
        accept=_is_no_placeholder,
    ),
    _rule("sql password", "password", r"(?<![\w'\"-])password[ \t]{1,3}'([^\s']{1,256}+)'", flags=re.IGNORECASE),
    _rule("sql password", "identified", r"IDENTIFIED[ \t]{1,3}BY[ \t]{1,3}'([^\s']{1,256}+)'"),
)

EMAIL: Final = Rule(
    "e-mail",
    ("@",),
    Pattern(r"@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,8}"),
)
"""The part from the "@" on; `masking` adds what is before it."""

EMAIL_NAME: Final = Pattern(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}\Z")

ASSIGNMENT: Final = Pattern(
    r"""(?P<name>[\w.-]{0,40}+)(?:\\{0,3}["'`]|[\])]){0,3}[ \t]{0,3}(?P<sep>=>|:=|=(?!=)|:(?![:/]))[ \t]{0,3}""",
    re.ASCII,
)
"""What follows the name of a secret in `name = value`, `"name": value`, `name=value`."""

FLAG: Final = Pattern(
    r"""(?P<name>[\w-]{0,40}+)(?:[ \t]{1,3}(?P<bare>(?!-)[^\s"'`,;]{1,4096}+)"""
    r"""|["'],[ ]{0,3}(?P<quote>["'])(?P<quoted>[^\s"'\\]{1,4096}+)(?P=quote))""",
    re.ASCII,
)
"""What follows the name of a secret in the arguments of a command: `--name value`, `'--name', 'value'`."""

PAIR: Final = Pattern(
    r"""(?P<name>[\w.-]{0,40}+)(?:\\{0,3}["'](?:,\s{0,40}\\{0,3}["']value\\{0,3}["']\s{0,3}:|\s{1,40}value\s?=)"""
    r"""|["']?[ \t]{0,3}\r?\n[ \t]{1,40}["']?value["']?:)[ \t]{0,3}""",
    re.ASCII | re.IGNORECASE,
)
"""What follows the name of a secret where it is a value itself, and the secret is in another one: `"name": "x",
"value": "y"`, also as attributes and in YAML.
"""

TAG: Final = Pattern(
    r"(?P<name>[\w.-]{0,40}+)(?:\s[^<>]{0,256}+)?>\s{0,3}(?P<value>[^\s<>]{1,4096}+)\s{0,3}</", re.ASCII
)
"""What follows the name of a secret where it is that of an element: `<name>value</name>`."""

TAG_BEFORE: Final = Pattern(r"<(?:[\w.-]{1,32}:)?(?P<name>[\w.-]{0,64})\Z", re.ASCII)

NAME_BEFORE: Final = Pattern(r"[\w.-]{1,64}\Z", re.ASCII)

QUOTED: Final = Pattern(
    r"""[bru]{0,2}(?:"((?:[^"\\\r\n]|\\.){1,16384}+)|'((?:[^'\\\r\n]|\\.){1,16384}+)"""
    r"""|\\{1,3}"((?:[^"\\\r\n]|\\{1,3}[^"\\]){1,16384}+))"""
)
BARE: Final = Pattern(r"""[^\s,;&"'`<>{\[(*$%)\]}][^\s,;&"'`<>]{0,4095}+""")
LINE: Final = Pattern(r"""[^\s"'`<>{\[(*$%)\]}][^\r\n"'`]{0,16383}+""")
"""The value of a header: to the end of the line."""

PLACEHOLDER: Final = Pattern(
    r"\$?\{[^{}\r\n]{0,64}\}|<[^<>\r\n]{0,64}>|\$\w{1,64}|%\(\w{0,64}\)s|%s|[*.]{3,}+|x{3,}+|\{\{[^{}\r\n]{0,64}\}\}",
    re.ASCII,
)
"""What stands in the place of a secret, in templates and examples."""

EXPRESSION: Final = Pattern(r"[A-Za-z_][\w.]*+[(\[]|[A-Za-z_]+(?:\.[A-Za-z_]+)+\Z", re.ASCII)
"""Source code that computes a value: a call, an index, a dotted name."""

IDENTIFIER: Final = Pattern(r"[A-Za-z_]+\Z")
_CODE: Final = """
    str int float bool bytes none null nil true false optional any dict list tuple set object string number
    boolean union literal callable type self required undefined
"""
CODE_WORDS: Final = frozenset(_CODE.split())
"""Types and constants that follow the name of a secret in source code, and are none."""
