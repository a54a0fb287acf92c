"""Secrets in payloads, at any depth."""

from __future__ import annotations

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from captured import Color, Login
from otel_debugstore.masking import Masker, masker
from otel_debugstore.payload import capture, capture_arguments, describe, mask_content
from otel_debugstore.payload.capture import capture_waited, digests_of_waited, waiting_bytes
from otel_debugstore.payload.walk import PACK
from payload_values import MASKER, VALUES, plain


def test_masking_at_any_depth() -> None:
    """Names of arguments, keys, fields, headers, columns, texts; the digest is that of the masked content."""
    kept = capture_arguments(
        ("password", "config", "text", "max_tokens"),
        (
            "hunter2",
            {
                "logins": [Login("u", "hunter2")],
                "models": ({"api_key": "hunter2", 1: {"token": b"hunter2"}},),
                "headers": [(b"authorization", b"hunter2"), ["Cookie", "hunter2"]],
                "body": b'{"password": "hunter2"}',
                "error": ValueError("https://u:hunter2@h/"),
                b"secret": "hunter2",
                "https://u:hunter2@host/": 1,
                "https://u:hunter3@host/": 2,
            },
            "x" * 40_000,
            5,
        ),
        {},
        MASKER,
    )
    assert b"hunter2" not in kept.content
    assert b"hunter3" not in kept.content
    assert not kept.replayable
    text = describe(kept.content, 100_000)
    assert "Login(user='u', password=(masked: password))" in text
    assert "'max_tokens': 5" in text
    other = capture_arguments(("password", "config"), ("hunter3", {}), {}, MASKER)
    assert other == capture_arguments(("password", "config"), ("hunter4", {}), {}, MASKER)


_GITHUB = "ghp_" + "aB3d" * 9
_SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([_GITHUB, "$x", "hunter2"])
)
_WAITING = _SCALARS | st.dictionaries(st.sampled_from(["a", "b", "password", "n"]), _SCALARS, max_size=3)


@given(_WAITING, st.booleans())
def test_what_waited_is_captured_as_it_would_have_been_at_once(value: Any, twice: bool) -> None:
    """The same content, digest and mark, secrets masked; also when the same was captured before."""
    assume(waiting_bytes(value.values() if isinstance(value, dict) else (value,)) >= 0)
    waited = capture_waited(value)
    if twice:
        waited = capture_waited(value)
    assert waited == capture(value, Masker())
    assert _GITHUB.encode() not in waited.content


@given(st.lists(_WAITING, max_size=8), st.booleans())
def test_what_waited_in_many_calls_has_the_digests_it_has_alone(values: list[Any], twice: bool) -> None:
    """Whatever stands beside it; what holds a secret, or looks like a tag, is left out, and nothing else."""
    contents = set()
    for value in values:
        assume(waiting_bytes(value.values() if isinstance(value, dict) else (value,)) >= 0)
        with contextlib.suppress(UnicodeEncodeError):
            contents.add(PACK(value))
    masker.cache_clear()
    found = digests_of_waited(contents)
    if twice:
        found = digests_of_waited(contents)
    for value in values:
        with contextlib.suppress(UnicodeEncodeError):
            content, alone = PACK(value), capture(value, Masker())
            assert found.get(content) in (None, alone.digest)
            assert content not in found or content == alone.content
            assert content in found or b"$" in content or MASKER.may_hold_secret_bytes(content)


@pytest.mark.parametrize("beside", [",", "x", "secret", 1, -1, None, "token"])
def test_a_secret_beside_other_contents(beside: Any) -> None:
    """What follows in the same search does not make an ordinary word of it."""
    for secret in ("password=hunter2", _GITHUB, {"password": "hunter2"}, {"pin": 1234}, {"token": "abc"}):
        content, other = PACK(secret), PACK(beside)
        assert capture(secret).content != content
        assert content not in digests_of_waited({content, other})
    assert list(digests_of_waited({PACK(_GITHUB), PACK("plain")})) == [PACK("plain")]


def test_names_of_arguments_that_waited_are_within_the_limits() -> None:
    """They may be of any length, and stand in what is kept."""
    value = {"k" * 5_000_000: 1}
    assert capture_waited(value) == capture(value)
    assert len(capture_waited(value).content) < 70_000


def test_digests_that_are_remembered_are_bounded_and_of_contents_without_secrets() -> None:
    """What is looked up by its content was found to be clean before, by the same masker."""
    masker = Masker()
    for number in range(10_000):
        capture(number, masker)
    assert len(masker.digests) <= 4096
    capture(_GITHUB, masker)
    capture("x" * 1000, masker)
    assert all(len(content) <= 128 and _GITHUB.encode() not in content for content in masker.digests)
    assert b"masked" in capture({"n": "10-20-30"}, Masker(patterns=["[0-9]+-[0-9]+-[0-9]+"])).content


def test_secret_across_the_cut_of_a_text() -> None:
    """The head that is kept ends with the mark."""
    value = "." * 2040 + " ghp_" + "aB3d" * 9 + "." * 40_000
    assert plain(value)["$cut"]["head"] == "." * 2040 + " (masked: github token)"
    assert plain(value.encode())["$cut"]["head"] == b"." * 2040 + b" (masked: github token)"


def test_names_that_hold_no_secret() -> None:
    """Flags, counts and kinds under such a name are told."""
    value = {"has_password": True, "token": None, "auth": print, "password": "", "tokens": 5, "token_type": Color.RED}
    assert b"masked" not in capture(value, MASKER).content
    assert capture({"max_tokens": 5, "a": "x"}, MASKER).replayable


@given(VALUES)
def test_masking_contents_twice(value: Any) -> None:
    """What is masked stays as it is; what holds no secret is the same object."""
    content = capture(value, MASKER).content
    assert mask_content(content, MASKER) is content


def test_masking_of_stored_contents() -> None:
    """A content from before a rule was added is masked by it."""
    content = capture({"a": [{"iban": "DE1"}], "b": "ACME-1"}, MASKER).content
    masked = mask_content(content, Masker(keys=["iban"], patterns=["ACME-\\d"]))
    assert msgpack.unpackb(masked) == {"a": [{"iban": {"$masked": "iban"}}], "b": "(masked: custom)"}
    with pytest.raises(ValueError, match="not the content of a payload"):
        mask_content(b"\x81\xa4$map\x01", MASKER)


@pytest.mark.parametrize(
    "name",
    ["auth", "jwt", "http_auth", "userAuth", "auth_header", "connect.sid", "bearer", "pass", "DB_PASS", "pw", "otp1"],
)
def test_names_that_are_none_in_texts(name: str) -> None:
    """As names of arguments, keys, fields and columns they are; alone in a payload, too."""
    for value in ({name: "123456"}, [(name, "123456")], {"a": [{name.encode(): b"123456"}]}):
        kept = capture(value, MASKER)
        assert b"123456" not in kept.content
        assert not kept.replayable


def test_name_and_value_beside_each_other() -> None:
    """As settings and headers are often given, in maps and objects."""
    pairs = [{"name": "password", "value": "hunter2"}, {"key": "api_key", "value": {"stringValue": "hunter2"}}]
    assert plain(pairs) == [
        {"name": "password", "value": {"$masked": "password"}},
        {"key": "api_key", "value": {"$masked": "api_key"}},
    ]
    metric = {"name": "token", "value": 5}
    assert plain(metric) == metric
    content = capture(pairs, MASKER).content
    assert mask_content(content, MASKER) is content


def test_values_of_flags() -> None:
    """In a command that is given as a list."""
    assert plain({"command": ["psql", "--password", "s3", "-u", "me"]}) == {
        "command": ["psql", "--password", {"$masked": "password"}, "-u", "me"]
    }
