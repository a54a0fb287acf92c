"""Settings: arguments before variables before defaults; bad ones raise or cost a line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from otel_debugstore import environment_variables
from otel_debugstore.active_session import activate_session, owns_session, program_name
from otel_debugstore.config import Settings, parse_bytes, parse_seconds
from otel_debugstore.errors import ConfigurationError, InvalidSessionIdError
from otel_debugstore.recording_settings import RecordingSettings


def test_defaults() -> None:
    """Without variables the defaults are the documented ones, and nothing is deleted."""
    assert Settings.from_environment({}) == Settings()
    assert Settings().base_path == Path("debug_data")
    assert Settings().retention_age_seconds is None


def test_variables_and_overrides() -> None:
    """Every variable sets its field; an override wins; None and empty text count as not given."""
    environ = {
        "OTEL_DEBUGSTORE_PATH": "/data",
        "OTEL_DEBUGSTORE_SESSION": "s1",
        "OTEL_DEBUGSTORE_DURABILITY": "interval",
        "OTEL_DEBUGSTORE_SCHEDULE_DELAY": "250",
        "OTEL_DEBUGSTORE_QUEUE_SIZE": "8 MiB",
        "OTEL_DEBUGSTORE_SEGMENT_SPANS": "1000",
        "OTEL_DEBUGSTORE_RETENTION_AGE": "30d",
        "OTEL_DEBUGSTORE_RETENTION_SIZE": "10GB",
    }
    expected = Settings(Path("/data"), "s1", "interval", 250, 8 << 20, 1000, 30 * 86400.0, 10 * 10**9)
    assert Settings.from_environment(environ) == expected
    overridden = Settings.from_environment(environ, session_id="s2", base_path=None, queue_max_bytes="1KiB")
    assert overridden == expected._replace(session_id="s2", queue_max_bytes=1024)
    assert Settings.from_environment({"OTEL_DEBUGSTORE_PATH": " "}) == Settings()


def test_every_variable_is_a_setting() -> None:
    """The module that makes flags of variables holds exactly those that are read, each named as it is."""
    names = {name: value for name, value in vars(environment_variables).items() if name.startswith("OTEL_")}
    assert all(name == value for name, value in names.items())
    settings = len(Settings._fields) - 1  # the map size is for code
    assert len(names) == settings + len(RecordingSettings._fields)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("durability", "sometimes"),
        ("schedule_delay_millis", "0"),
        ("schedule_delay_millis", 1.5),
        ("queue_max_bytes", "64 parsecs"),
        ("queue_max_bytes", -1),
        ("segment_spans", "many"),
        ("retention_age_seconds", "0"),
        ("retention_size_bytes", []),
        ("base_path", ""),
        ("nonsense", 1),
    ],
)
def test_a_bad_override_raises(name: str, value: Any) -> None:
    """In code a bad value is a ConfigurationError that names the setting."""
    with pytest.raises(ConfigurationError, match=name):
        Settings.from_environment({}, **{name: value})


def test_a_bad_session_id_raises() -> None:
    """A session id with path parts is refused."""
    with pytest.raises(InvalidSessionIdError):
        Settings.from_environment({}, session_id="../x")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_DEBUGSTORE_DURABILITY", "sometimes"),
        ("OTEL_DEBUGSTORE_SESSION", "../x"),
        ("OTEL_DEBUGSTORE_QUEUE_SIZE", "1e3"),
        ("OTEL_DEBUGSTORE_PATH", "~nobody-of-this-name/x"),
    ],
)
def test_a_bad_variable_costs_one_line(variable: str, value: str, logged: list[str]) -> None:
    """In the observed program a bad variable is reported once and the default is used."""
    for _ in range(2):
        assert Settings.from_environment({variable: value}) == Settings()
    (line,) = logged
    assert variable in line
    assert "\n" not in line


def test_tolerant_leaves_bad_overrides_out(logged: list[str]) -> None:
    """What declarative configuration gives is taken as far as it can be, a line for each that can't."""
    settings = Settings.tolerant({}, queue_max_bytes="1MiB", durability="x", nonsense=1)
    assert settings == Settings(queue_max_bytes=1 << 20)
    assert len(logged) == 2


@pytest.mark.parametrize("text", ["0", "-1", "many", "1e3", "5GB"])
def test_caps_of_payloads(text: str, tmp_path: Path, logged: list[str]) -> None:
    """They come from variables or pyproject.toml; one that can't be used costs a line, and the default is taken."""
    (tmp_path / "pyproject.toml").write_text("[tool.otel-debugstore]\npayload-items = 7\npayload-bytes = '1MiB'\n")
    settings = RecordingSettings.read({"OTEL_DEBUGSTORE_PAYLOAD_BYTES": "2KiB"}, tmp_path / "pyproject.toml")
    assert (settings.payload_bytes, settings.payload_items, settings.payload_depth) == (2048, 7, 20)
    assert not logged
    names = ("OTEL_DEBUGSTORE_PAYLOAD_BYTES", "OTEL_DEBUGSTORE_PAYLOAD_ITEMS", "OTEL_DEBUGSTORE_PAYLOAD_DEPTH")
    assert RecordingSettings.read(dict.fromkeys(names, text), tmp_path / "none") == RecordingSettings()
    assert len(logged) == 3


@pytest.mark.parametrize(
    ("text", "count"),
    [("1", 1), ("64MiB", 64 << 20), ("1.5 kb", 1500), ("10GB", 10**10), ("2T", 2 * 10**12)],
)
def test_parse_bytes(text: str, count: int) -> None:
    """Sizes are bytes, or a number with a decimal or binary unit."""
    assert parse_bytes(text) == count


@pytest.mark.parametrize(("text", "seconds"), [("90", 90), ("30d", 2592000), ("1.5h", 5400), ("2w", 1209600)])
def test_parse_seconds(text: str, seconds: float) -> None:
    """Ages are seconds, or a number with a unit."""
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["python", "dir/survey.py", "x.py"], "survey"),
        (["python", "-X", "dev", "-O", "survey.py"], "survey"),
        (["python", "-m", "package.tool", "x"], "tool"),
        (["python", "-m", "package.__main__"], "package"),
        (["python", "package/__main__.py"], "package"),
        (["python", "-c", "pass", "x.py"], "python"),
        (["python"], "python"),
    ],
)
def test_program_name(arguments: list[str], name: str) -> None:
    """A program is called what its script or module is called."""
    assert program_name(arguments) == name


def test_a_session_is_passed_on_to_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child in another directory, which chooses for itself, gets the parent's session and path, and
    does not own it.
    """
    monkeypatch.chdir(tmp_path)
    base_path, session_id = activate_session(Settings(), "shop")
    assert session_id.startswith("shop_")
    assert base_path == tmp_path / "debug_data"
    assert owns_session(session_id)
    code = (
        "from otel_debugstore.active_session import *\n"
        "path, session = activate_session(Settings.from_environment())\n"
        "print(path, session, owns_session(session))"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/", check=True)
    assert child.stdout.split() == [str(base_path), session_id, "False"]


def test_a_new_session_in_a_child_is_its_own() -> None:
    """A child that is told to record into another session owns that one."""
    activate_session(Settings(session_id="first"))
    os.environ["_OTEL_DEBUGSTORE_OWNER"] = "1:first"
    assert not owns_session("first")
    activate_session(Settings(session_id="second"))
    assert owns_session("second")
    assert not owns_session("first")


@pytest.mark.parametrize(
    ("service", "variable", "start"), [("shop", "x", "shop_"), ("unknown_service", "x", "x_"), ("", "", "pytest_")]
)
def test_default_session_name(service: str, variable: str, start: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is named after the service, the variable for it, or the script."""
    monkeypatch.setattr(sys, "orig_argv", ["python", "/bin/pytest"])
    os.environ["OTEL_SERVICE_NAME"] = variable
    assert activate_session(Settings(), service)[1].startswith(start)
