"""Targets: functions that are recorded because a setting names them."""

from __future__ import annotations

import importlib
import json
import sys
import typing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from instrumented import run_instrumented, run_python
from otel_debugstore import tool
from otel_debugstore.errors import ConfigurationError
from otel_debugstore.instrumentors.target_names import parse_target
from otel_debugstore.instrumentors.targets import TargetInstrumentor
from otel_debugstore.instrumentors.thread_pools import ThreadPoolInstrumentor
from recording import Memory, modules
from stored import stored_spans

TOOLS = """
    import asyncio
    import functools
    from json import dumps
    from shop.other import helper
    def buy(item, count=1): return f"{count} {item}"
    def sell(item): raise KeyError(item)
    def _secret(): return 1
    async def fetch(): return 2
    @functools.lru_cache
    def cached(): return 3
    number = 4
    class Proxy:
        __class__ = property(lambda self: 1 / 0)
        def __getattr__(self, name): raise RuntimeError("working outside of a context")
    current = Proxy()
    class Client:
        def get(self): return 5
        def _get(self): return 6
        @staticmethod
        def make(): return 7
        @classmethod
        def build(cls): return cls.__name__
        @property
        def size(self): return 8
        class Inner:
            def deep(self): return 9
    class Special(Client):
        def get(self): return 10
"""
SHOP = {"shop__tools": TOOLS, "shop__other": "def helper(): return 0"}


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def shop(tmp_path: Path, memory: Memory) -> Iterator[None]:
    with modules(tmp_path, **SHOP):
        yield


@contextmanager
def targets(*texts: str) -> Iterator[Any]:
    """Instrument these, and give the module `shop.tools`."""
    TargetInstrumentor().instrument(targets=texts)
    try:
        yield importlib.import_module("shop.tools")
    finally:
        TargetInstrumentor().uninstrument()


def call_everything(tools: Any) -> None:
    import asyncio

    assert tools.buy("tea", count=2) == "2 tea"
    with pytest.raises(KeyError):
        tools.sell("x")
    assert (tools._secret(), asyncio.run(tools.fetch()), tools.cached(), tools.number) == (1, 2, 3, 4)
    client = tools.Client()
    assert (client.get(), client._get(), client.make(), tools.Client.make(), client.build()) == (5, 6, 7, 7, "Client")
    assert (client.size, tools.Client.Inner().deep(), tools.Special().get()) == (8, 9, 10)
    assert (tools.helper(), tools.dumps(1)) == (0, "1")


@pytest.mark.parametrize(
    ("target", "components"),
    [
        ("shop.tools:buy=tool", ["buy"]),
        ("shop.tools:sell=tool", ["sell"]),
        ("shop.tools:_secret=tool", ["_secret"]),
        ("shop.tools:fetch=tool", ["fetch"]),
        ("shop.tools:Client.get=tool", ["Client.get"]),
        ("shop.tools:Client.make=tool", ["Client.make"] * 2),
        ("shop.tools:Client.build=tool", ["Client.build"]),
        ("shop.tools:Client.Inner.deep=tool", ["Client.Inner.deep"]),
        ("shop.*:*=tool", ["buy", "cached", "fetch", "helper", "sell"]),
        ("*.tools:?uy=tool", ["buy"]),
        ("shop.tools:_*=tool", ["_secret"]),
        ("shop.tools:Client.*=tool", ["Client.build", "Client.get", "Client.make", "Client.make"]),
        ("shop.tools:*.get=tool", ["Client.get", "Special.get"]),
        ("shop.tools : buy = TOOL", ["buy"]),
        ("shop:*=tool", []),
        ("*:dumps=tool", []),
    ],
)
def test_what_a_target_stands_for(target: str, components: list[str], shop: None, memory: Memory) -> None:
    """Functions, methods of every kind, and globs of both; never what a module has imported from elsewhere."""
    with targets(target) as tools:
        call_everything(tools)
    call_everything(tools)
    assert sorted(path.removeprefix("shop.tools.").removeprefix("shop.other.") for path in memory.paths()) == components
    assert {said.layer for said in memory.said()} <= {"tool"}


def test_a_module_that_is_imported_already(shop: None, memory: Memory) -> None:
    """It is patched at once, and as it was after `uninstrument`."""
    before = importlib.import_module("shop.tools").buy
    with targets("shop.tools:buy=node") as tools:
        assert tools.buy is not before
        tools.buy("x")
    assert tools.buy is before
    assert [said.layer for said in memory.said()] == ["node"]


def test_named_twice(shop: None, memory: Memory) -> None:
    """Two targets for one function make one span; the first one counts."""
    with targets("shop.tools:buy=tool", "shop.tools:*=function") as tools:
        tools.buy("x")
    assert [said.layer for said in memory.said()] == ["tool"]


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("shop.tools:nothing=tool", "has no nothing"),
        ("shop.tools:helper=tool", "is of shop.other"),
        ("shop.tools:Client=tool", "is a class"),
        ("shop.tools:Nobody.get=tool", "has no Nobody.get"),
        ("shop.tools:number=tool", "number is of the type int"),
        ("shop.tools:current=tool", "current can't be replaced (RuntimeError"),
        ("shop.tools:Client.size=tool", "size is of the type property"),
        ("shop.tools:Special.make=tool", "is inherited; name it as shop.tools:Client.make"),
        ("shop.tools:Client.nothing=tool", "has no Client.nothing"),
        ("shop.tools:buy.get=tool", "has no buy.get"),
        ("__main__:nothing=tool", "functions of the script itself can't be targets"),
    ],
)
def test_a_target_that_is_not_there(target: str, why: str, shop: None, memory: Memory, logged: list[str]) -> None:
    """When its module is imported, one line names it and says why; the others work."""
    with targets(target, "shop.tools:buy=tool") as tools:
        call_everything(tools)
    (line,) = logged
    assert target in line
    assert why in line
    assert memory.paths() == ["shop.tools.buy"]


def test_a_function_that_recording_calls(shop: None, memory: Memory) -> None:
    """It is recorded where the program calls it, also by way of Python's library; recording does not record itself."""
    with targets(
        "typing:cast=tool", "json*:*=tool", "json.encoder:JSONEncoder.encode=tool", "shop.tools:buy=tool"
    ) as tools:
        tools.buy("x")
        assert typing.cast(typing.Any, 1) == 1
        assert json.dumps({}, indent=1) == "{}"
        ThreadPoolInstrumentor().instrument(skip_dep_check=True)
        try:
            with tool("outer"), ThreadPoolExecutor(1) as pool:
                pool.submit(typing.cast, typing.Any, 2).result()
        finally:
            ThreadPoolInstrumentor().uninstrument()
    encoded, *others = memory.paths()
    assert encoded == "json.encoder.JSONEncoder.encode"
    assert others == ["outer", "outer > typing.cast", "shop.tools.buy", "typing.cast"]


@pytest.mark.parametrize("module", ["otel_debugstore.config", "opentelemetry.*", "wrapt"])
def test_what_recording_runs_on_is_no_target(module: str) -> None:
    """It would record itself without end."""
    with pytest.raises(ConfigurationError, match="recording itself runs on"):
        TargetInstrumentor().instrument(targets=[f"{module}:*=tool"])
    assert not parse_target("*:*=tool").is_in("otel_debugstore.config")


WRONG = (
    "",
    "buy",
    "shop.tools",
    "shop.tools:buy",
    "shop.tools=tool",
    ":buy=tool",
    "shop:=tool",
    "a:b=lever",
    "a:b:c=tool",
)


@pytest.mark.parametrize("text", WRONG)
def test_a_target_that_cannot_be_parsed(text: str) -> None:
    """In code it is an error that names the value and what is accepted."""
    with pytest.raises(ConfigurationError) as raised:
        TargetInstrumentor().instrument(targets=[text])
    assert repr(text) in str(raised.value)
    assert "MODULE:CLASS.METHOD=LAYER" in str(raised.value)
    assert "workflow, step, node, tool, function" in str(raised.value)
    assert not TargetInstrumentor().is_instrumented_by_opentelemetry


def test_what_a_target_says() -> None:
    """Module, path and layer."""
    target = parse_target("pkg.tools.*:Class.*=step")
    assert (target.module, target.path, target.layer, target.is_glob) == ("pkg.tools.*", ("Class", "*"), "step", True)
    assert target.is_in("pkg.tools.a.b")
    assert not target.is_in("pkg.tools")


APP = "import shop.tools\nprint(shop.tools.buy('tea'), shop.tools.Client().get())\n"


def test_without_code(tmp_path: Path) -> None:
    """Under `opentelemetry-instrument` the variable is enough; a mistake in one costs a line, and one that is not found
    another.
    """
    (tmp_path / "app.py").write_text(APP)
    with modules(tmp_path, **SHOP):
        done = run_instrumented(
            "app.py",
            folder=tmp_path,
            debugstore_targets="shop.tools:buy=tool, shop.tools:Client.*=step, broken, absent.module:f=tool",
        )
    assert (done.returncode, done.stdout) == (0, "1 tea 5\n")
    first, second = done.stderr.splitlines()
    assert "'broken'" in first
    assert "MODULE:FUNCTION=LAYER" in first
    assert "not found in this process: absent.module:f=tool." in second
    assert "children" in second
    found = [(s.attributes["debugstore.layer"], s.name) for s in stored_spans(tmp_path / "debug_data")]
    assert sorted(found) == [("step", "shop.tools.Client.get"), ("tool", "shop.tools.buy")]


def test_from_pyproject(tmp_path: Path) -> None:
    """The same in `[tool.otel-debugstore]` of the working directory's pyproject.toml."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "pyproject.toml").write_text('[tool.otel-debugstore]\ntargets = ["shop.tools:buy=tool"]\n')
    with modules(tmp_path, **SHOP):
        done = run_instrumented("app.py", folder=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 tea 5\n", "")
    assert [span.name for span in stored_spans(tmp_path / "debug_data")] == ["shop.tools.buy"]


def test_no_target_watches_nothing(shop: None) -> None:
    """Without targets no import is looked at."""
    before = list(sys.meta_path)
    with targets():
        assert sys.meta_path == before


IN_CODE = """
import otel_debugstore
otel_debugstore.configure(session_id="s", base_path="debug_data")
otel_debugstore.configure()
with otel_debugstore.step("own"): pass
import node_index, registry, shop.tools
print(shop.tools.buy("tea"), node_index.Registry().list_nodes(), registry.Registry().list_nodes())
"""
REGISTRY = "class Registry:\n    def list_nodes(self): return 3\n    def get_node(self): return 4\n"


@pytest.mark.parametrize(
    ("disabled", "expected"),
    [
        ("", ["node_index.Registry.list_nodes", "own", "shop.tools.buy"]),
        ("debugstore_targets", ["node_index.Registry.list_nodes", "own"]),
        ("*", ["own"]),
    ],
)
def test_by_configure(disabled: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that calls `configure()` gets the targets and hooks that settings name, once and unless they are
    disabled. Hooks that no setting names are left alone.
    """
    (tmp_path / "pyproject.toml").write_text(
        '[tool.otel-debugstore]\ntargets = ["shop.tools:buy=tool"]\nhooks = {registry = "node_index"}\n'
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DISABLED", disabled)
    with modules(tmp_path, **SHOP, node_index=REGISTRY, registry=REGISTRY):
        done = run_python(
            "-c",
            "import os; os.environ['OTEL_PYTHON_DISABLED_INSTRUMENTATIONS'] = os.environ['DISABLED']\n" + IN_CODE,
            folder=tmp_path,
        )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 tea 3 3\n", "")
    names = [
        str(span.attributes.get("code.function.name", span.name)) for span in stored_spans(tmp_path / "debug_data")
    ]
    assert sorted(names) == expected
