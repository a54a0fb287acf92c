"""Secrets are found by name and by look, at any place in what is recorded; what only resembles them is left alone."""

from __future__ import annotations

import random

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_debugstore.masking import Masker, masker
from otel_debugstore.secret_kinds import RULES

MASKER = Masker()
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/==\nabc\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"

SECRET_NAMES = """
    password PASSWORD db_password passwd PGPASSWORD userPassword password_hash pwd secret clientSecret client-secret
    token GITHUB_TOKEN access_token csrfToken authToken authtoken Authorization http.request.header.authorization
    cookie Set-Cookie cookies api_key apiKey APIKey x-api-key openai_api_key_2 aws_secret_access_key AccountKey
    private_key privateKey secret_key credential credentials PHPSESSID JSESSIONID connect.sid passphrase auth
    pass DB_PASS ftp_pass pw pin otp cvv password_list
"""
PLAIN_NAMES = """
    tokens_used max_tokens token_count tokens max_token gen_ai.usage.input_tokens token_type eos_token next_page_token
    author authors keyboard key keys primary_key public_key session.id session_id secretary cookie_policy
    password_length tokenizer monkey passed compass secret_name a 1 _
    first_pass tests_pass forwardPass bypass spin shopping token_list secret_list
"""

SECRETS = {
    "jwt": JWT,
    "private key": PEM,
    "aws key": "AKIAIOSFODNN7EXAMPLE",
    "google key": "AIza" + "Sy-aB_12" * 4 + "xyz",
    "azure signature": "https://x.blob.core.windows.net/c?sv=2022&sig=" + "aB3%2F" * 8,
    "azure secret": "abc8Q~" + "aB3-_~.x" * 4,
    "github token": "ghp_" + "aB3d" * 9,
    "gitlab token": "glpat-" + "aB3-_" * 4,
    "slack token": "xoxb-123456789012-abcdefABCDEF",
    "slack webhook": "https://hooks.slack.com/services/T000/B000/" + "aB3d" * 6,
    "stripe key": "sk_live_" + "aB3d" * 6,
    "anthropic key": "sk-ant-api03-" + "aB3-_" * 8,
    "openai key": "sk-proj-" + "aB3d" * 12,
    "hugging face token": "hf_" + "aBcD" * 9,
    "npm token": "npm_" + "aB3d" * 9,
    "pypi token": "pypi-AgEIcHlwaS5vcmc" + "aB3-_" * 12,
    "sendgrid key": "SG." + "aB3-_" * 4 + "." + "aB3-_" * 8,
    "bearer token": "Bearer abcDEF123456",
    "basic credential": "Basic dXNlcjpwYXNzd29yZA==",
    "url credential": "postgres://bob:hunter2@db.example.com/x",
    "curl credential": "curl -sS -u bob:hunter2 http://x",
    "sql password": "ALTER USER bob WITH PASSWORD 'hunter2'",
}
"""One example of each kind that is known by its look."""


@pytest.mark.parametrize("name", SECRET_NAMES.split())
def test_name_of_a_secret(name: str) -> None:
    """Any style of writing counts, with words before it."""
    assert MASKER.mask_key(name)


@pytest.mark.parametrize(
    ("added", "name"),
    [("guest_list", "guestList"), ("mailing-list", "old_mailing_list"), ("list", "list"), ("address2", "address_2")],
)
def test_added_name_that_ends_as_a_variant_does(added: str, name: str) -> None:
    """It counts as it is, before its last word is taken for one that may follow any name."""
    mask = Masker([added])
    assert mask.mask_key(name)
    assert mask.mask_text(f'{name}="anna-b7"') == f'{name}="(masked: {mask.key_kind(name)})"'
    assert not MASKER.mask_key(name)


@pytest.mark.parametrize("name", PLAIN_NAMES.split())
def test_name_that_resembles_one(name: str) -> None:
    """Whole words count, and the last ones: counts of tokens are what people look for in such a store."""
    assert not MASKER.mask_key(name)


def test_there_is_an_example_of_each_kind() -> None:
    """So that the tests below cover every rule."""
    assert {rule.kind for rule in RULES} == set(SECRETS)


@pytest.mark.parametrize(("kind", "secret"), SECRETS.items())
def test_secret_in_a_text(kind: str, secret: str) -> None:
    """It is found, named and replaced; the text around it stays."""
    text = f"before {secret} after"
    masked = MASKER.mask_text(text)
    assert MASKER.find(text) == (kind,)
    assert f"(masked: {kind})" in masked
    assert masked.startswith("before ")
    assert masked.endswith(" after")
    assert MASKER.may_hold_secret([text])
    assert MASKER.may_hold_secret_bytes(text.encode())
    assert MASKER.find(masked) == ()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("password=hunter2", "password=(masked: password)"),
        ("host=x password=swordfish dbname=y", "host=x password=(masked: password) dbname=y"),
        ('{"password": "x \\" y", "a": 1}', '{"password": "(masked: password)", "a": 1}'),
        ('"{\\"api_key\\": \\"abcdefgh\\"}"', '"{\\"api_key\\": \\"(masked: api_key)\\"}"'),
        ("{'token': 'abcdef'}", "{'token': '(masked: token)'}"),
        ("GET /x?api_key=abcdefgh&n=1", "GET /x?api_key=(masked: api_key)&n=1"),
        ("Authorization: Digest a=b, c=d\nHost: x", "Authorization: (masked: authorization)\nHost: x"),
        ("Cookie: session_id=1; b=2\r\n", "Cookie: (masked: cookie)\r\n"),
        ("AccountName=x;AccountKey=aGVsbG8xMjM=;y", "AccountName=x;AccountKey=(masked: account_key);y"),
        ("export GITHUB_TOKEN=abc123def", "export GITHUB_TOKEN=(masked: token)"),
        ("https://u:p@ss@h/x", "https://u:(masked: url credential)@h/x"),
        ("https://" + "a1" * 12 + "@h/x", "https://(masked: url credential)@h/x"),
        ("İ password=hunter2", "İ password=(masked: password)"),
        ("export DB_PASS=hunter2", "export DB_PASS=(masked: pass)"),
        ("user=u;pass=hunter2;x", "user=u;pass=(masked: pass);x"),
        ("ftp_pass: hunter2", "ftp_pass: (masked: pass)"),
        ('{"user": "u", "pass": "hunter2"}', '{"user": "u", "pass": "(masked: pass)"}'),
        ('{\\"pw\\": \\"hunter2\\"}', '{\\"pw\\": \\"(masked: pw)\\"}'),
        ("?pin=1234&DB_PASS = 'x1'", "?pin=(masked: pin)&DB_PASS = '(masked: pass)'"),
        ('"cvv": "123"', '"cvv": "(masked: cvv)"'),
        ("<password>hunter2</password>", "<password>(masked: password)</password>"),
        (
            '<wsse:Password Type="x">hunter2</wsse:Password>',
            '<wsse:Password Type="x">(masked: password)</wsse:Password>',
        ),
        ('{"name": "db_password", "value": "hunter2"}', '{"name": "db_password", "value": "(masked: password)"}'),
        ('<add key="api_key" value="abcdefgh"/>', '<add key="api_key" value="(masked: api_key)"/>'),
        ("- name: DB_PASSWORD\n  value: hunter2\n", "- name: DB_PASSWORD\n  value: (masked: password)\n"),
        ("CREATE USER u IDENTIFIED BY 'hunter2'", "CREATE USER u IDENTIFIED BY '(masked: sql password)'"),
        ('curl --user "bob:hunter2" x', 'curl --user "bob:(masked: curl credential)" x'),
        (PEM[:40] + "MIIE" * 50, "(masked: private key)"),
    ],
)
def test_value_given_to_a_name_in_a_text(text: str, masked: str) -> None:
    """JSON, headers, query strings, connection strings, settings: the value goes, the name stays."""
    assert MASKER.mask_text(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        "def login(token: str, password: str | None = None) -> None:",
        "login(user=user, password=password)",
        "password = get_password()",
        "self.password = self.settings.password",
        "token = tokens[i]",
        "raw_token = self.current_token()",
        'if token == "abcdef":',
        'TOKEN = "+"',
        "password: ${DB_PASSWORD}",
        "password={password}",
        "password=****",
        "Basic authentication, Bearer authentication",
        "task-1234567890123456789012",
        "http://host:8080?email=a@b.c",
        "user@example.com",
        "/home/user/keyboard/author.py",
        "eyJhbGciOiJIUzI1NiJ9",
        "class A:\n    pass\n",
        "PASS=12 FAIL=3, pass=True, first_pass=abc123, db_pass = password_of",
        '{"pass": "yes", "fail": "no"}, "pass": "The statement"',
        '"pin": 13, "pin": "D13", spin=1234, otp=26.1',
        "<token>token</token>, <password></password>, <password>${DB}</password>",
        '{"name": "token", "value": 5}',
        "curl -u bob http://x && docker run -u 1000:1000",
        "The user is identified by 'name', curl -u user:$PASSWORD x",
    ],
)
def test_text_without_a_secret(text: str) -> None:
    """Source code, templates and ordinary addresses come out as the same object."""
    assert MASKER.mask_text(text) is text


def test_rules_of_a_user() -> None:
    """Names, in any style and in texts too, and patterns; e-mail addresses if asked for."""
    own = Masker(keys=["customerName", "ssn"], patterns=[r"ACME-\d+"], emails=True)
    assert own.mask_key("CUSTOMER_NAME")
    assert own.mask_key("patient-ssn")
    assert own.mask_text("ssn: 123-45-6789") == "ssn: (masked: ssn)"
    assert own.mask_text("id ACME-77!") == "id (masked: custom)!"
    assert own.mask_text("to bob.x@example.org.") == "to (masked: e-mail)."
    assert own.may_hold_secret(["a", "ACME-1"])
    assert own.mask_attributes({"customer.name": "Bob", "n": 1}) == {"customer.name": "(masked: customer_name)", "n": 1}


def test_pattern_that_cannot_be_compiled(logged: list[str]) -> None:
    """It costs one line; the other rules hold."""
    own = Masker(patterns=["(", "ok"])
    assert own.mask_text("password=abc ok") == "password=(masked: password) (masked: custom)"
    assert len(logged) == 1
    assert "mask_patterns can't have '('" in logged[0]


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """`masker()` follows the environment."""
    from otel_debugstore.recording_settings import recording_settings

    monkeypatch.setenv("OTEL_DEBUGSTORE_MASK_KEYS", "ssn, iban")
    recording_settings.cache_clear()
    masker.cache_clear()
    try:
        assert masker().mask_key("iban")
        assert masker() is masker()
    finally:
        monkeypatch.undo()
        recording_settings.cache_clear()
        masker.cache_clear()


def test_attributes() -> None:
    """By name and by look, in lists and nested maps; numbers, flags and counts stay; unchanged ones are not copied."""
    clean = {"http.method": "GET", "gen_ai.usage.input_tokens": 5, "list": ("a", "b"), "flag": True, "none": None}
    assert MASKER.mask_attributes(clean) is clean
    attributes = {
        "db.password": "x",
        "http.request.header.authorization": ("Bearer x",),
        "has_password": True,
        "url": "https://bob:hunter2@h/",
        "argv": ["--token", "ghp_" + "a" * 36],
        "nested": {"api_key": "k", "n": 1},
        "body": b'{"password": "x"}',
        "token": None,
    }
    assert MASKER.mask_attributes(attributes) == {
        "db.password": "(masked: password)",
        "http.request.header.authorization": ("(masked: authorization)",),
        "has_password": True,
        "url": "https://bob:(masked: url credential)@h/",
        "argv": ("--token", "(masked: github token)"),
        "nested": {"api_key": "(masked: api_key)", "n": 1},
        "body": b'{"password": "(masked: password)"}',
        "token": None,
    }
    assert attributes["db.password"] == "x"


@pytest.mark.parametrize(
    ("name", "secrets", "others"),
    [
        ("pass", ["hunter2", b"hunter2", "123456"], [12, "yes", "PASSED", "in two words", {"a": 1}]),
        ("pin", ["1234", 1234, ("1234",)], [13, "D13", "123", 12345678901234]),
        ("otp", [b"123456"], ["26.1", 26]),
        ("cvv", ["123", 1234], ["12345", "none"]),
        ("password", [1, "yes", {"a": 1}, "in two words"], [None, True, 0.5, ""]),
    ],
)
def test_values_that_a_name_may_stand_for(name: str, secrets: list[object], others: list[object]) -> None:
    """Ordinary words are names of secrets only with what can be one; whatever a user's own names have is secret."""
    for masked, values in ((True, secrets), (False, others)):
        for value in values:
            assert (MASKER.mask_attributes({f"a.{name}": value})[f"a.{name}"] is not value) == masked
    assert Masker(keys=[name]).mask_attributes({name: 13, "b": 1}) == {name: f"(masked: {name})", "b": 1}


def test_name_and_value_beside_each_other() -> None:
    """In nested attributes, as settings and headers are often given; a metric of such a name is none."""
    given = {
        "env": [{"name": "DB_PASSWORD", "value": "x"}, {"Key": "ApiKey", "Value": "y"}, {"name": "token", "value": 5}]
    }
    assert MASKER.mask_attributes(given) == {
        "env": (
            {"name": "DB_PASSWORD", "value": "(masked: password)"},
            {"Key": "ApiKey", "Value": "(masked: api_key)"},
            {"name": "token", "value": 5},
        )
    }


def test_stack_trace() -> None:
    """The message of an exception is masked, the lines of code are kept."""
    trace = (
        'Traceback (most recent call last):\n  File "/a.py", line 3, in connect\n    connect(password=password)\n'
        "OperationalError: connection to postgres://bob:hunter2@db failed"
    )
    assert MASKER.mask_text(trace) == trace.replace("hunter2", "(masked: url credential)")


def test_secret_across_a_cut() -> None:
    """The head of a text ends before a secret that lies across its end, or with the mark of it."""
    secret = "ghp_" + "aB3d" * 9
    text = "x" * 90 + " " + secret + " tail"
    assert MASKER.mask_head(text, 100) == "x" * 90 + " (masked: github token)"
    assert MASKER.mask_head(text, 50) == "x" * 50
    assert MASKER.mask_head(PEM * 3 + " tail", len(PEM) + 10) == "(masked: private key)" * 2


def test_secret_across_pieces_of_a_long_text() -> None:
    """Long texts are searched piece by piece; none is missed where two pieces meet."""
    secret = SECRETS["stripe key"]
    for offset in range(-70, 5):
        text = "." * ((1 << 16) + offset) + " " + secret
        assert MASKER.find(text) == ("stripe key",)
        assert MASKER.may_hold_secret([text])
        assert MASKER.may_hold_secret_bytes(text.encode())


def test_long_name_of_a_secret_across_pieces() -> None:
    """A user's rule may name what is longer than any name of ours; a key may end with more words."""
    name = "abcdefghij" * 9
    with_it = Masker([name])
    for key in (name, "pin_value_value_value_value"):
        for offset in (-130, -100, -90, -70, -29, -20, -10, 0):
            content = msgpack.packb({key: "1234"})
            assert with_it.may_hold_secret_bytes(b"." * ((1 << 16) + offset) + content), (key, offset)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.needles[0])
def test_no_text_makes_a_rule_slow(rule: object) -> None:
    """What would make patterns go back and forth: the test would not end before its timeout."""
    for needle in rule.needles:  # type: ignore[attr-defined]
        for form in (needle, needle.upper(), f" {needle}a1", f'{needle}:"', f"{needle}=", f"a.{needle}-"):
            MASKER.mask_text(form * (100_000 // len(form)))
        for filler in ("a", "A1", "-", ".", " ", "@", '\\"', "\n", "="):
            MASKER.mask_text((needle + filler * 50_000) * 2)
            MASKER.mask_text((filler * 50_000 + needle) * 2)


@pytest.mark.parametrize(
    "form", ["password", "password=", 'password="', "password: a", "api_key\\", "token = (", "a@", "@a."]
)
def test_no_text_makes_names_slow(form: str) -> None:
    """The same for values that are given to names, and for e-mail addresses."""
    own = Masker(emails=True)
    own.mask_text(form * 20_000)
    own.mask_text(form + "\\" * 100_000)
    own.mask_text(form + "a" * 200_000)


@pytest.mark.parametrize("text", ["pass: a_b\n", "pass: a.b\n", "pin=12\n", "pin=1z\n", "'pw': x, ", "'pw': ()"])
def test_ordinary_words(text: str) -> None:
    """What passes, pins and such are, and no password."""
    assert MASKER.find(text * 3) == ()


@pytest.mark.parametrize(
    "text", ["pass: a1\n", "pass=a_b.c1,", "pin=>1234 ", "{'pw': b'x'}", '"pw", "value": "ab"', '"pw" value = "ab"']
)
def test_values_after_ordinary_words(text: str) -> None:
    """What may be a secret is seen, in each of the forms."""
    assert len(MASKER.find(text)) == 1


_PIECES = st.sampled_from(
    [*SECRETS.values(), *SECRET_NAMES.split(), "=", ": ", '"', "'", "\\", "(masked: ", ")", " ", "\n", "@", "://", "x1"]
)
_TEXTS = st.lists(_PIECES | st.text(max_size=8), max_size=12).map("".join)


@given(_TEXTS)
def test_any_text(text: str) -> None:
    """Masking never fails; the mark is where `find` says; the prefilter never overlooks what it finds."""
    kinds = MASKER.find(text)
    masked = MASKER.mask_text(text)
    assert (masked is text) == (not kinds)
    assert [kind for kind in kinds if f"(masked: {kind})" not in masked] == []
    if kinds:
        assert MASKER.may_hold_secret([text])
        assert MASKER.may_hold_secret_bytes(text.encode("utf-8", "surrogatepass"))


_AROUND = st.lists(
    st.sampled_from([*SECRET_NAMES.split(), "=", ": ", '"', "'", "\\", "://", "@"]) | st.text(max_size=8)
)


@given(_AROUND.map("".join), st.sampled_from(sorted(SECRETS)))
def test_secret_between_any_texts(around: str, kind: str) -> None:
    """Nothing that stands on other lines hides a secret."""
    secret = SECRETS[kind]
    core = {"bearer token": secret[7:], "basic credential": secret[6:]}.get(kind, secret[-20:])
    core = "hunter2" if "hunter2" in secret else core
    assert core not in MASKER.mask_text(f"{around}\n{secret}\n")


def test_prefilter_remembers_clean_texts_only() -> None:
    """A text that was clean is not looked at again; one with a secret is found every time."""
    own = Masker()
    for _ in range(2):
        assert not own.may_hold_secret(["GET", "/path"])
        assert own.may_hold_secret(["GET", JWT])


def test_prefilter_forgets() -> None:
    """What it remembers has an end."""
    own = Masker()
    chosen = random.Random(0)
    for _ in range(20):
        assert not own.may_hold_secret([f"{chosen.getrandbits(64):x}"[:12].replace("e", "0") for _ in range(1000)])
    assert len(own._clean) <= 8192


def test_values_of_flags() -> None:
    """In the arguments of a command a flag tells what the next one is."""
    command = ("psql", "--password", "s3", "-u", "me", "--api-key", "k", "--token", "--max-tokens", "5", "--secret")
    masked = MASKER.mask_attributes({"process.command_args": command})["process.command_args"]
    assert masked == (
        *("psql", "--password", "(masked: password)", "-u", "me", "--api-key", "(masked: api_key)"),
        *("--token", "--max-tokens", "5", "--secret"),
    )


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("mysql --password hunter2 -u me", "mysql --password (masked: password) -u me"),
        (
            "Command '['x', '--api-key', 'ab12cd', '-v']' returned",
            "Command '['x', '--api-key', '(masked: api_key)', '-v']' returned",
        ),
        ('["--client-secret", "a1b2c3"]', '["--client-secret", "(masked: secret)"]'),
        ("--password (masked: password)", None),
        ("use --password to set it, --token TOKEN --max-tokens 500000", None),
        ('add_argument("--password", "-p", help="--secret: none")', None),
        ('option("--token", "token")', None),
        ("--password --user", None),
        ("--password\nhunter2", None),
        ("--password ${PASSWORD_1}", None),
    ],
)
def test_flags_in_texts(text: str, masked: str | None) -> None:
    """A command line, or a list of its words as Python writes one; help texts and source code are left alone."""
    assert MASKER.mask_text(text) == (text if masked is None else masked)
    assert MASKER.mask_text(MASKER.mask_text(text)) == MASKER.mask_text(text)
