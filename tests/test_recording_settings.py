"""Settings of recording: a mistake never keeps more than was asked for; a session's file holds in its children."""

from __future__ import annotations

from pathlib import Path

import pytest

from instrumented import run_instrumented
from otel_debugstore.instrumentors.hooks import HOOKS
from otel_debugstore.recording_settings import RecordingSettings, Rules
from otel_debugstore.setting_values import HOOK_NAMES
from otel_debugstore_exporters.reader import SessionReader
from recording import modules

NOTHING = Rules("none")
TABLE = "[tool.otel-debugstore]\n"


def settings(path: Path, text: str | None = None, **variables: str) -> RecordingSettings:
    """Read variables, and a pyproject.toml of this text."""
    file = path / "pyproject.toml"
    if text is not None:
        file.write_text(text)
    return RecordingSettings.read({f"OTEL_DEBUGSTORE_{name}": value for name, value in variables.items()}, file)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CAPTURE", "digets"),
        ("CAPTURE", "none, tool=digets"),
        ("CAPTURE", "shop.pay*="),
        ("MASK_PATTERNS", "("),
        ("MASK_EMAILS", "ture"),
        ("CAPURE", "none"),
        ("MASKKEY", "ssn"),
        ("CAPTURE_ARGUMENTS", "none"),
    ],
)
def test_a_mistake_in_a_variable_keeps_nothing(name: str, value: str, tmp_path: Path, logged: list[str]) -> None:
    """What it was to keep from being recorded can't be known: one line names it, and nothing is kept."""
    assert settings(tmp_path, **{name: value}).capture == NOTHING
    (line,) = logged
    assert name in line
    assert "o arguments and results are" in line


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (TABLE + 'capture = "digets"', "'digets'"),
        (TABLE + "capture = 5", "capture"),
        (TABLE + "capture = {tool = 'nothing'}", "'nothing'"),
        (TABLE + "mask-keys = 5", "mask-keys"),
        (TABLE + 'mask-patterns = ["ok", "("]', "'('"),
        (TABLE + 'capure = "none"', "capure"),
        (TABLE + 'capture = "none"\n[broken', "pyproject.toml"),
        ('[tool]\notel-debugstore = "none"', "pyproject.toml"),
        (TABLE + 'capture = "none"\n' + "#" * (1 << 20), "larger than 1 MiB"),
        (TABLE + "capture = '\udcff'", "pyproject.toml"),
    ],
)
def test_a_mistake_in_the_table_keeps_nothing(text: str, named: str, tmp_path: Path, logged: list[str]) -> None:
    """The same for a value, for a name that is no setting, and for a file that can't be read."""
    (tmp_path / "pyproject.toml").write_bytes(text.encode(errors="surrogateescape"))
    assert settings(tmp_path).capture == NOTHING
    (line,) = logged
    assert named in line


@pytest.mark.parametrize(
    "text",
    [
        None,
        "[broken",
        "#" * (1 << 21),
        TABLE,
        TABLE + "thresholds = {tool = {p95-ms = 5}}\nchild = 'light'",
        "[project]\nname = 'otel-debugstore'",
    ],
)
def test_what_says_nothing_of_it_changes_nothing(text: str | None, tmp_path: Path, logged: list[str]) -> None:
    """No file, one of somebody else, broken or not, and a table without a mistake."""
    assert settings(tmp_path, text).capture == Rules("full")
    assert logged == []


def test_other_mistakes_leave_what_is_kept(tmp_path: Path, logged: list[str]) -> None:
    """A value that says nothing of what is kept costs a line and its default."""
    found = settings(tmp_path, TABLE + "capture = 'digest'", CHILD="heavy", PAYLOAD_DEPTH="9" * 400)
    assert (found.capture, found.child, found.payload_depth) == (Rules("digest"), "full", 20)
    assert len(logged) == 2


def test_both_ways_to_write_a_name(tmp_path: Path) -> None:
    """`mask_keys` is what `mask-keys` is."""
    assert settings(tmp_path, TABLE + "mask_keys = ['ssn']\nmask-emails = true").mask_keys == ("ssn",)


def test_variables_of_others(tmp_path: Path, logged: list[str]) -> None:
    """What Kubernetes sets beside a Service of our name is no mistake; others cost a line."""
    ports = {f"{name}PORT{end}": "80" for name in ("", "SERVICE_") for end in ("", "_HTTP", "_80_TCP_ADDR")}
    assert settings(tmp_path, SERVICE_HOST="10.0.0.1", **ports).capture == Rules("full")
    assert logged == []
    assert settings(tmp_path, TEST_JAEGER="/bin/jaeger").capture == Rules("full")
    (line,) = logged
    assert "no setting OTEL_DEBUGSTORE_TEST_JAEGER" in line


def test_what_any_file_wants_masked(tmp_path: Path) -> None:
    """That of a node and that of its session are joined; of `capture` the stricter counts, where both are plain."""
    own, told = tmp_path / "own.toml", tmp_path / "told.toml"
    own.write_text(TABLE + "capture = 'none'\nmask-keys = ['a', 'b']\nmask-patterns = ['x']\nmask-emails = true")
    told.write_text(TABLE + "capture = 'digest'\nmask-keys = ['b', 'c']\nmask-patterns = ['y']\nmask-emails = false")
    for files in ((own, told), (told, own)):
        found = RecordingSettings.read({}, *files)
        assert (found.capture, found.mask_emails) == (NOTHING, True)
        assert (sorted(found.mask_keys), sorted(found.mask_patterns)) == (["a", "b", "c"], ["x", "y"])
    told.write_text(TABLE + "capture = 'digest, tool=full'")
    assert RecordingSettings.read({}, own, told).capture == Rules("digest", {"tool": "full"})


def test_the_last_file_goes_first(tmp_path: Path) -> None:
    """Name by name; a variable goes before all of them."""
    first, last = tmp_path / "first.toml", tmp_path / "last.toml"
    first.write_text(TABLE + "payload-depth = 3\nchild = 'light'\nmask-keys = ['a']")
    last.write_text(TABLE + "payload-depth = 4\nmask-keys = ['b']")
    found = RecordingSettings.read({"OTEL_DEBUGSTORE_MASK_KEYS": "c"}, first, last)
    assert (found.payload_depth, found.child, found.mask_keys) == (4, "light", ("c",))


def test_names_of_hooks(tmp_path: Path, logged: list[str]) -> None:
    """One that there is not is said, with those that there are."""
    assert tuple(kind.hook for kind in HOOKS) == HOOK_NAMES
    assert settings(tmp_path, HOOKS="noderunner=foo").hooks == {}
    (line,) = logged
    assert "noderunner=foo" in line
    assert ", ".join(HOOK_NAMES) in line
    assert settings(tmp_path, HOOKS="Registry=foo").hooks == {"registry": ("foo",)}


@pytest.mark.parametrize(("text", "share"), [("1%", 0.01), ("0.5", 0.5), ("100%", 1.0), ("off", None)])
def test_budget(text: str, share: float | None, tmp_path: Path, logged: list[str]) -> None:
    """A share, as one or in percent."""
    assert settings(tmp_path, OVERHEAD_BUDGET=text).overhead_budget == Rules(share)
    assert logged == []


@pytest.mark.parametrize("text", ["1", "0", "-1%", "101%", "inf", "nan", "9" * 400])
def test_budget_that_is_none(text: str, tmp_path: Path, logged: list[str]) -> None:
    """A plain 1 is hardly meant to be all of the time; it costs a line, and the default is taken."""
    assert settings(tmp_path, OVERHEAD_BUDGET=text).overhead_budget == Rules(0.01)
    assert "such as 1% or 0.01, or off" in logged[0]


RUNNER = """
    import os, subprocess, sys
    class NodeRunner:
        def __init__(self, nodes_dir): self.nodes_dir = nodes_dir
        def run_node(self, node_id, input_payload, timeout_ms=600000, filename="main.py"):
            folder = os.path.join(self.nodes_dir, node_id)
            command = [sys.executable, filename]
            done = subprocess.run(command, cwd=folder, env=input_payload["env"], capture_output=True, text=True)
            return done.stdout, done.stderr, {"success": done.returncode == 0, "exit_code": done.returncode}
"""
NODE = """
import otel_debugstore, shop
@otel_debugstore.tool
def greet(name, ssn, note): return {"note": note}
greet("a", "123-45-6789", "private")
shop.count(5)
"""
APP = """
import os
from node_runner import NodeRunner
os.environ["MINE"] = "1"
for env in (None, {name: value for name, value in os.environ.items() if not name.startswith("_")}):
    assert NodeRunner("nodes").run_node("n", {"env": env})[:2] == ("", "")
"""


@pytest.mark.parametrize("child", ["full", "light"])
@pytest.mark.parametrize("capture", ["none", "full"])
def test_a_node_has_the_settings_of_its_session(capture: str, child: str, tmp_path: Path) -> None:
    """A node runs in its own folder, where there is another pyproject.toml or none: what the program's says of capture,
    masks and targets holds there all the same.
    """
    nodes = tmp_path / "nodes" / "n"
    nodes.mkdir(parents=True)
    (nodes / "main.py").write_text(NODE)
    (nodes / "pyproject.toml").write_text(f"{TABLE}mask-keys = []\n")
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "pyproject.toml").write_text(
        f'{TABLE}capture = "{capture}"\nmask-keys = ["ssn"]\nchild = "{child}"\ntargets = ["shop:count=step"]\n'
    )
    with modules(tmp_path, node_runner=RUNNER, shop="def count(number): return number"):
        done = run_instrumented("app.py", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    with SessionReader(tmp_path / "debug_data") as reader:
        reader.refresh()
        layers = reader.query("SELECT layer, count(*) FROM spans WHERE layer <> 'node' GROUP BY 1 ORDER BY 1").rows
        contents = [bytes(row[0]) for row in reader.query("SELECT content FROM payloads").rows]
    assert [tuple(row) for row in layers] == [("step", 2), ("tool", 2)]
    assert any(b"private" in content for content in contents) == (capture == "full")
    assert not any(b"123-45" in content for content in contents)
