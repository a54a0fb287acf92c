"""Secrets in payloads, at any depth."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given

from captured import Color, Login
from otel_debugstore.masking import Masker
from otel_debugstore.payload import capture, capture_arguments, describe, mask_content
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
