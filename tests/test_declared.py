"""What a program declares of its functions: whether they are pure, and whether their calls may be run again."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from otel_debugstore import function, instrument, tool
from otel_debugstore.errors import ConfigurationError
from otel_debugstore.instrumentors.target_names import parse_target
from otel_debugstore.instrumentors.targets import TargetInstrumentor
from otel_debugstore.recording_settings import RecordingSettings
from recording import Memory, modules

NAMES = ("debugstore.replayable", "debugstore.pure")


def declared(memory: Memory) -> dict[str, tuple[Any, Any]]:
    """Return by component what its last call says."""
    return {said.path[-1]: (said.attributes.get(NAMES[0]), said.attributes.get(NAMES[1])) for said in memory.said()}


def test_decorators() -> None:
    """A call says what was declared and nothing else; what is pure may be run again, unless it says otherwise."""
    memory = Memory()

    def named(name: str, make: Callable[..., Any], **said: bool) -> None:
        make(name=name, **said)(lambda: None)()

    named("nothing", tool)
    named("replayable", tool, replayable=True)
    named("not replayable", function, replayable=False)
    named("pure", tool, pure=True)
    named("not pure", tool, pure=False)
    named("pure but not replayable", instrument, pure=True, replayable=False)
    assert declared(memory) == {
        "nothing": (None, None),
        "replayable": (True, None),
        "not replayable": (False, None),
        "pure": (True, True),
        "not pure": (None, False),
        "pure but not replayable": (False, True),
    }


def test_long_names() -> None:
    """A component's name keeps its beginning, and stays another one than those that begin alike."""
    memory = Memory()
    for name in ("a" * 512, "a" * 513, "a" * 3_000_000):
        tool(name=name)(lambda: None)()
    paths = {said.path[-1] for said in memory.said()}
    assert len(paths) == 3
    assert {len(path) for path in paths} == {512}
    assert {path[:500] for path in paths} == {"a" * 500}


def test_targets(tmp_path: Path) -> None:
    """A target declares the same, for functions of a program that knows nothing of it."""
    memory = Memory()
    with modules(tmp_path, shop__tools="def parse(a): return a\ndef send(a): return a\ndef other(a): return a\n"):
        texts = ("shop.tools:parse=tool pure", "shop.tools:send=tool  not-replayable ", "shop.tools:other=step")
        TargetInstrumentor().instrument(targets=texts)
        try:
            tools = importlib.import_module("shop.tools")
            tools.parse(1), tools.send(1), tools.other(1)
        finally:
            TargetInstrumentor().uninstrument()
    assert declared(memory) == {
        "shop.tools.parse": (True, True),
        "shop.tools.send": (False, None),
        "shop.tools.other": (None, None),
    }


def test_targets_in_pyproject(tmp_path: Path, logged: list[str]) -> None:
    """There a target is a layer, or a table of it and what is declared."""
    path = tmp_path / "pyproject.toml"
    path.write_text(
        '[tool.otel-debugstore.targets]\n"shop:parse" = {layer = "tool", pure = true}\n'
        '"shop:send" = {layer = "step", replayable = false}\n'
        '"shop:f" = {replayable = true, pure = false}\n"shop:g" = "node"\n'
    )
    targets = RecordingSettings.read({}, path).targets
    assert targets == (
        "shop:parse=tool pure",
        "shop:send=step not-replayable",
        "shop:f=function replayable",
        "shop:g=node",
    )
    found = [parse_target(text) for text in targets]
    assert [(one.layer, one.replayable, one.pure) for one in found] == [
        ("tool", None, True),
        ("step", False, None),
        ("function", True, None),
        ("node", None, None),
    ]
    path.write_text('[tool.otel-debugstore.targets]\n"shop:parse" = {layer = "tool", cached = true}\n')
    assert RecordingSettings.read({}, path).targets == ()
    assert "cached" in logged[0]


def test_a_declaration_that_is_none() -> None:
    """It is an error that names what may stand there."""
    with pytest.raises(ConfigurationError, match="pure, replayable, not-replayable may stand"):
        parse_target("shop:parse=tool fast")


def test_arguments_of_methods() -> None:
    """Arguments are captured under their own names, whatever a method is called on."""
    from otel_debugstore.outbox import OUTBOX
    from otel_debugstore.payload import describe

    class Client:
        @tool(name="method")
        def get(self, path: str, count: int = 1) -> int:
            return count

        @tool(name="of the class")
        @classmethod
        def make(cls, path: str) -> str:
            return path

        @tool(name="static")
        @staticmethod
        def parse(path: str) -> str:
            return path

        def __call__(self, path: str) -> str:
            return path

    def numbered(number: int, path: str) -> str:
        return path

    memory = Memory()
    is_open, OUTBOX.is_open = OUTBOX.is_open, True
    try:
        OUTBOX.take()
        Client().get("/a", 2)
        Client.get(Client(), "/b")
        Client.make("/c")
        Client.parse("/d")
        tool(name="callable")(Client())("/e")
        bound: Any = Client().get
        tool(name="bound")(bound.__wrapped__)("/f")
        tool(name="partial")(functools.partial(numbered, 1))("/g")
        tool(name="partial method")(functools.partial(Client().__call__))("/h")
        memory.spans()  # what waits is captured when its span is written
        contents = {payload.digest: describe(payload.content) for payload in memory.payloads()}
    finally:
        OUTBOX.is_open = is_open
    inputs = [contents[said.attributes["debugstore.input.digest"]] for said in memory.said()]
    assert [text.count("path") for text in inputs] == [1] * 8
    assert "number" not in inputs[6]
    assert "count" in inputs[0]
    assert not [text for text in inputs if "self" in text or "cls" in text]
