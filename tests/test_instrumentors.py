"""The instrumentors of a host's modules: when they patch, what they leave alone, and what they make of outcomes."""

from __future__ import annotations

import gc
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation

from instrumented import run_instrumented
from otel_debugstore.instrumentors.hooks import (
    HOOKS,
    HookInstrumentor,
    RegistryInstrumentor,
    WorkflowTrackerInstrumentor,
)
from otel_debugstore.instrumentors.parent_context import adopt_parent, forget_parent
from otel_debugstore.recording_settings import recording_settings
from recording import Memory, modules
from stored import stored_spans

REGISTRY = """
    class Registry:
        def __init__(self, registry_path): self.path = registry_path
        def create_node(self, node_id, title, version="1", node_type="x"): return {"node_id": node_id}
        def get_node(self, node_id): raise KeyError(node_id)
        def list_nodes(self): return self.path
"""
RUNNER = """
    import subprocess, sys
    class NodeRunner:
        def __init__(self, nodes_dir): self.nodes_dir = nodes_dir
        def run_node(self, node_id, input_payload, timeout_ms=600000, filename="main.py"):
            if node_id == "raising": raise OSError("no fork")
            env = input_payload.get("env")
            command = [sys.executable, "-c", input_payload["code"]]
            done = subprocess.run(command, env=env, capture_output=True, text=True)
            metrics = {"success": done.returncode == 0 and not done.stderr, "exit_code": done.returncode}
            return done.stdout, done.stderr, metrics | input_payload.get("metrics", {})
"""
RUNTIME = """
    import traceback
    from concurrent.futures import ThreadPoolExecutor
    class NodeRuntime:
        def call_tool(self, tool_name, prompt, **kw):
            if tool_name == "nested": return self.call_tool("inner", prompt)
            try: return str(1 / len(prompt))
            except Exception: return "Sorry:\\n" + traceback.format_exc()
        def call_llm(self, model, prompt, **kw): return prompt
        def call_tools_parallel(self, tool_calls):
            with ThreadPoolExecutor(2) as pool:
                return list(pool.map(lambda call: self.call_tool(*call), tool_calls))
    _runtime = NodeRuntime()
    def call_tool(tool_name, prompt, **kw): return _runtime.call_tool(tool_name, prompt, **kw)
    def call_llm(model, prompt, **kw): return prompt.upper()
    def call_tools_parallel(tool_calls): return _runtime.call_tools_parallel(tool_calls)
"""
MANAGER = """
    class ToolsManager:
        def invoke_llm_tool(self, tool_id, prompt): return prompt
        def invoke_executable_tool(self, tool_id, source_file, **kw):
            if kw: raise ValueError(tool_id)
            return {"success": source_file == "good", "error": "it is bad"}
        async def invoke_openapi_tool(self, tool_id, operation_id, parameters=None, body=None):
            return {"success": bool(parameters)}
"""
TRACKER = """
    class WorkflowTracker:
        def __init__(self, workflow_id, description="", context=None): self.workflow_id, self.steps = workflow_id, []
        def __eq__(self, other): return True
        def add_step(self, step_id, tool_name, description="", inputs=None): self.steps.append(step_id)
        def start_step(self, step_id): pass
        def complete_step(self, step_id, output=None, metadata=None): pass
        def fail_step(self, step_id, error): pass
        def finish(self): return "finished"
"""
ALL = {
    "registry": REGISTRY,
    "node_runner": RUNNER,
    "node_runtime": RUNTIME,
    "tools_manager": MANAGER,
    "workflow_tracker": TRACKER,
}


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def host(tmp_path: Path, memory: Memory) -> Iterator[None]:
    """A host's five modules, importable, and all instrumentors on."""
    with modules(tmp_path, **ALL):
        for kind in HOOKS:
            kind().instrument()
        yield
        for kind in HOOKS:
            if kind().is_instrumented_by_opentelemetry:
                kind().uninstrument()


def imported(name: str) -> Any:
    return importlib.import_module(name)


@pytest.mark.parametrize("name", ["registry", "src.registry", "pkg.src.registry"])
@pytest.mark.parametrize("is_imported_before", [True, False])
def test_patched_whatever_its_package(name: str, is_imported_before: bool, tmp_path: Path, memory: Memory) -> None:
    """A hook is found by the end of its name, on import or at once, and is itself again after `uninstrument`."""
    with modules(tmp_path, **{name.replace(".", "__"): REGISTRY}):
        if is_imported_before:
            imported(name)
        RegistryInstrumentor().instrument()
        kind = imported(name).Registry
        assert kind("p").create_node("a", "A") == {"node_id": "a"}
        RegistryInstrumentor().uninstrument()
        assert type(kind.create_node).__name__ == "function"
        kind("p").create_node("b", "B")
    (said,) = memory.said()
    assert (said.layer, said.path, said.outcome) == ("function", ("Registry.create_node",), "ok")
    assert said.attributes["code.function.name"] == f"{name}.Registry.create_node"


def test_a_module_loaded_twice(tmp_path: Path, memory: Memory) -> None:
    """Under each of its names it is recorded, each call once."""
    with modules(tmp_path, src__registry=REGISTRY):
        sys.path.insert(0, str(tmp_path / "src"))
        RegistryInstrumentor().instrument()
        try:
            for name in ("src.registry", "registry"):
                imported(name).Registry("p").create_node("a", "A")
        finally:
            RegistryInstrumentor().uninstrument()
            sys.path.remove(str(tmp_path / "src"))
            del sys.modules["registry"]
    assert memory.paths() == ["Registry.create_node"] * 2


def test_a_class_seen_from_two_modules_is_patched_once(tmp_path: Path, memory: Memory) -> None:
    """A module that passes on the class of another does not make its calls count twice."""
    with modules(tmp_path, pkg__registry=REGISTRY, registry="from pkg.registry import Registry"):
        RegistryInstrumentor().instrument()
        imported("registry").Registry("p").create_node("a", "A")
        RegistryInstrumentor().uninstrument()
    assert memory.paths() == ["Registry.create_node"]


@pytest.mark.parametrize("source", ["", "Registry = 3", "class Registry:\n    def get(self): return 1"])
def test_a_module_of_that_name_with_something_else(source: str, tmp_path: Path, memory: Memory) -> None:
    """Generic names are other programs' too: without the class and its methods nothing is touched."""
    with modules(tmp_path, registry=source):
        RegistryInstrumentor().instrument()
        before = dict(vars(imported("registry")))
        RegistryInstrumentor().uninstrument()
        assert vars(imported("registry")) == before
    assert memory.said() == []


def test_a_reloaded_module(tmp_path: Path, memory: Memory) -> None:
    """What a reload defines anew is recorded."""
    with modules(tmp_path, registry=REGISTRY):
        RegistryInstrumentor().instrument()
        importlib.reload(imported("registry")).Registry("p").create_node("a", "A")
        RegistryInstrumentor().uninstrument()
    assert memory.paths() == ["Registry.create_node"]


def test_other_names(tmp_path: Path, memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """`OTEL_DEBUGSTORE_HOOKS` says what a host calls its modules."""
    monkeypatch.setenv("OTEL_DEBUGSTORE_HOOKS", "registry=node_index|pkg.*_db")
    recording_settings.cache_clear()
    with modules(tmp_path, node_index=REGISTRY, pkg__nodes_db=REGISTRY, registry=REGISTRY):
        RegistryInstrumentor().instrument()
        for name in ("node_index", "pkg.nodes_db", "registry"):
            imported(name).Registry(name).list_nodes()
        RegistryInstrumentor().uninstrument()
    recording_settings.cache_clear()
    assert sorted(said.attributes["code.function.name"] for said in memory.said()) == [
        "node_index.Registry.list_nodes",
        "pkg.nodes_db.Registry.list_nodes",
    ]


def test_a_module_whose_name_is_no_text(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not meant, and instruments nobody's exception."""
    loaded: dict[Any, ModuleType] = sys.modules
    monkeypatch.setitem(loaded, 42, ModuleType("odd"))
    instrumentor = RegistryInstrumentor()
    instrumentor.instrument()
    instrumentor.uninstrument()


def test_the_module_sees_itself_as_ever(host: None) -> None:
    """Loader, spec, signature and documentation are the program's own."""
    import inspect

    module = imported("registry")
    assert type(module.__loader__).__name__ == type(module.__spec__.loader).__name__ == "SourceFileLoader"
    assert str(inspect.signature(module.Registry.create_node)) == "(self, node_id, title, version='1', node_type='x')"
    assert inspect.getsource(module.Registry.list_nodes).strip() == "def list_nodes(self): return self.path"


def test_the_budget_holds_for_functions(host: None, memory: Memory) -> None:
    """A registry that is asked all the time is sampled, with the probability written down; every call is counted."""
    from otel_debugstore.instrumentors.components import component

    registry = imported("registry").Registry("p")
    assert all(registry.list_nodes() == "p" for _ in range(100_000))
    spans = memory.spans()
    assert 1000 <= len(spans) < 100_000
    assert any("th:" in (span.context.trace_state.get("ot") or "") for span in spans)
    meter = component("function", "Registry.list_nodes", type(registry).list_nodes.__wrapped__).meter
    assert meter.call_count + len(spans) == 100_000


def test_an_exception_goes_through(host: None, memory: Memory) -> None:
    """What the host raises comes out unchanged, and is in the record."""
    with pytest.raises(KeyError, match="nobody"):
        imported("registry").Registry("p").get_node("nobody")
    (said,) = memory.said()
    assert (said.outcome, said.attributes["error.type"]) == ("error", "KeyError")


def test_suppressed(host: None, memory: Memory) -> None:
    """Where instrumentation is suppressed, nothing is recorded."""
    with suppress_instrumentation():
        imported("registry").Registry("p").create_node("a", "A")
        imported("workflow_tracker").WorkflowTracker("w").finish()
    assert memory.said() == []


def test_tools_and_their_outcomes(host: None, memory: Memory) -> None:
    """A traceback as text, an empty answer and `success: False` are failures; a quoted traceback is none."""
    runtime = imported("node_runtime").NodeRuntime()
    manager = imported("tools_manager").ToolsManager()
    assert "ZeroDivisionError" in runtime.call_tool("divide", "")
    assert runtime.call_tool("fine", "abcd") == "0.25"
    quoted = 'Traceback (most recent call last):\n  File "x", line 1\nValueError: no\n\nThat means that x is wrong.'
    assert runtime.call_llm("quoting", quoted) == quoted
    assert runtime.call_llm("silent", "") == ""
    assert manager.invoke_llm_tool("talker", "hello") == "hello"
    assert manager.invoke_executable_tool("script", "bad")["success"] is False
    with pytest.raises(ValueError, match="other"):
        manager.invoke_executable_tool("other", "good", x=1)
    assert memory.outcomes() == {
        "call_tool:divide": "error",
        "call_tool:fine": "ok",
        "call_llm:quoting": "ok",
        "call_llm:silent": "error",
        "talker": "ok",
        "script": "error",
        "other": "error",
    }
    said = {call.path[-1]: call for call in memory.said()}
    assert said["call_tool:divide"].attributes["error.type"] == "ZeroDivisionError"
    assert said["call_tool:divide"].message == "division by zero"
    assert said["script"].message == "it is bad"
    assert said["call_tool:fine"].attributes["gen_ai.tool.name"] == "fine"


def test_an_asynchronous_tool(host: None, memory: Memory) -> None:
    """A coroutine is recorded until it is done, not until it is made."""
    import asyncio

    manager = imported("tools_manager").ToolsManager()
    assert asyncio.run(manager.invoke_openapi_tool("api", "list")) == {"success": False}
    assert memory.outcomes() == {"api": "error"}


def test_functions_beside_the_runtime(host: None, memory: Memory) -> None:
    """A function that calls the method of its name is recorded once, one that does its own work too; what is called
    deeper down is recorded as ever.
    """
    module = imported("node_runtime")
    module.call_tool("plain", "ab")
    module.call_tool("nested", "ab")
    assert module.call_llm("own", "ab") == "AB"
    assert memory.paths() == [
        "call_llm:own",
        "call_tool:nested",
        "call_tool:nested > call_tool:inner",
        "call_tool:plain",
    ]


@pytest.mark.parametrize("is_function", [True, False])
def test_parallel_tools_hang_below_their_call(is_function: bool, host: None, memory: Memory) -> None:
    """The threads of the runtime's pool have the caller's context; those of other pools do not."""
    from concurrent.futures import ThreadPoolExecutor

    module = imported("node_runtime")
    calls = [("a", "1"), ("b", "2")]
    (module if is_function else module.NodeRuntime()).call_tools_parallel(calls)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(module.call_tool, "alone", "x").result()
    assert memory.paths() == [
        "call_tool:alone",
        "call_tools_parallel",
        "call_tools_parallel > call_tool:a",
        "call_tools_parallel > call_tool:b",
    ]


def test_node_outcomes(host: None, memory: Memory, tmp_path: Path) -> None:
    """Metrics say whether a node failed, and of what."""
    runner = imported("node_runner").NodeRunner(tmp_path)
    late = {"success": False, "exit_code": -1, "latency_ms": 10.0, "timeout_ms": 10}
    runner.run_node("good", {"code": "print(1)"})
    runner.run_node("exits", {"code": "import sys; sys.exit(3)"})
    runner.run_node("late", {"code": "", "metrics": late})
    runner.run_node("gone", {"code": "", "metrics": late | {"latency_ms": 1.0, "error": "no code"}})
    with pytest.raises(OSError, match="no fork"):
        runner.run_node("raising", {})
    assert memory.outcomes() == {"good": "ok", "exits": "error", "late": "timeout", "gone": "error", "raising": "error"}
    said = {call.path[-1]: call for call in memory.said()}
    assert said["exits"].attributes["debugstore.child.exit_code"] == 3
    assert said["exits"].attributes["error.type"] == "node_failed"
    assert said["good"].attributes["debugstore.child.cpu.time_ns"] > 0
    assert said["good"].attributes["debugstore.child.memory.peak_bytes"] > 1 << 20


PRINT = "import os; print(os.environ.get('TRACEPARENT'), os.environ.get('MINE'))"


def test_a_node_is_told_its_span(host: None, memory: Memory, tmp_path: Path) -> None:
    """Its process has TRACEPARENT, beside what the host gives it; the host's own environment stays as it is."""
    runner = imported("node_runner").NodeRunner(tmp_path)
    before = dict(os.environ)
    outputs = [
        runner.run_node("inherits", {"code": PRINT})[0],
        runner.run_node("given", {"code": PRINT, "env": {**os.environ, "MINE": "1"}})[0],
        runner.run_node("own", {"code": PRINT, "env": {**os.environ, "TRACEPARENT": "theirs"}})[0],
    ]
    wanted = [f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-0" for span in memory.spans()]
    assert outputs[0].startswith(wanted[0])
    assert outputs[1].startswith(wanted[1])
    assert outputs[1].split()[1] == "1"
    assert outputs[2] == "theirs None\n"
    assert dict(os.environ) == before
    assert (
        subprocess.run([sys.executable, "-c", PRINT], capture_output=True, text=True, check=True).stdout
        == "None None\n"
    )


def test_interleaved_workflows(host: None, memory: Memory) -> None:
    """Steps hang below their own workflow, whatever else is open in the thread; unknown steps are none."""
    kind = imported("workflow_tracker").WorkflowTracker
    first, second = kind("first"), kind("second")
    for tracker in (first, second):
        tracker.add_step("load", "loader", inputs={"path": "/x"})
        tracker.add_step("save", "saver")
    first.start_step("load")
    second.start_step("load")
    first.start_step("nobody knows")
    first.complete_step("load", output=[1])
    imported("registry").Registry("p").create_node("a", "A")
    second.fail_step("load", "disk is full")
    first.start_step("save")
    assert second.finish() == "finished"
    first.complete_step("save")
    first.complete_step("save")
    assert first.finish() == "finished"
    assert memory.paths() == [
        "Registry.create_node",
        "first",
        "first > load",
        "first > save",
        "second",
        "second > load",
    ]
    (failed,) = [said for said in memory.said() if said.outcome != "ok"]
    assert (failed.path, failed.layer, failed.message) == (("second", "load"), "step", "disk is full")


def test_a_workflow_that_does_not_finish(host: None, memory: Memory) -> None:
    """It is closed when its tracker is dropped, and its open steps with it; a step started again was a retry."""
    tracker = imported("workflow_tracker").WorkflowTracker("lost")
    for step in ("done", "open"):
        tracker.add_step(step, "tool")
        tracker.start_step(step)
    tracker.start_step("done")
    tracker.complete_step("done")
    assert len(memory.said()) == 2
    del tracker
    gc.collect()
    assert [(said.path[-1], said.outcome) for said in memory.said()] == [
        ("done", "retry"),
        ("done", "ok"),
        ("open", "closed"),
        ("lost", "closed"),
    ]


def test_a_tracker_from_before(tmp_path: Path, memory: Memory) -> None:
    """A workflow that began before the instrumentor did is recorded from its next step on."""
    with modules(tmp_path, workflow_tracker=TRACKER):
        tracker = imported("workflow_tracker").WorkflowTracker("early")
        WorkflowTrackerInstrumentor().instrument()
        tracker.start_step("x")
        tracker.complete_step("x")
        tracker.finish()
        WorkflowTrackerInstrumentor().uninstrument()
    assert memory.paths() == ["early", "early > x"]


def test_what_fails_in_recording_stays_there(
    host: None, memory: Memory, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every internal call that fails leaves the host's results as they are."""
    from otel_debugstore.instrumentors import child_environment, node_runner, observed, outcomes, workflow_tracker

    def fail(*_: object, **__: object) -> Any:
        raise RuntimeError("ours")

    places = (
        (observed, "begin"),
        (observed, "component"),
        (outcomes, "fail"),
        (workflow_tracker, "begin"),
        (workflow_tracker, "component"),
        (node_runner, "environment_of_child"),
        (node_runner, "_note_code"),
        (node_runner, "_note_children"),
        (child_environment, "carry"),
    )
    for module, name in places:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, fail)
            tracker = imported("workflow_tracker").WorkflowTracker("w")
            tracker.add_step("s", "t")
            tracker.start_step("s")
            assert tracker.fail_step("s", "e") is None
            assert tracker.finish() == "finished"
            assert imported("node_runtime").call_llm("m", "") == ""
            stdout, _, metrics = imported("node_runner").NodeRunner(".").run_node("n", {"code": "print(1)"})
            assert (stdout, metrics["success"]) == ("1\n", True)
    assert any("ours" in line for line in logged)


def test_the_parent_is_in_every_thread(memory: Memory) -> None:
    """TRACEPARENT is the parent of what has none, in threads too; an empty context still makes a root."""
    import threading

    from opentelemetry import context, trace

    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    tracer = trace.get_tracer("t")
    assert adopt_parent({"TRACEPARENT": parent, "TRACESTATE": "ot=th:8"})
    try:
        thread = threading.Thread(target=lambda: tracer.start_span("thread").end())
        thread.start()
        thread.join()
        tracer.start_span("main").end()
        tracer.start_span("root", context=context.Context()).end()
        token = context.attach(context.Context())
        tracer.start_span("attached root").end()
        context.detach(token)
        with tracer.start_as_current_span("outer"):
            tracer.start_span("inner").end()
    finally:
        forget_parent()
    spans = {span.name: span for span in memory.spans()}
    below = [name for name, span in spans.items() if span.parent and f"{span.parent.span_id:016x}" in parent]
    assert sorted(below) == ["main", "outer", "thread"]
    assert [name for name, span in spans.items() if span.parent is None] == ["root", "attached root"]
    assert spans["thread"].context.trace_state.get("ot") == "th:8"
    assert trace.get_current_span() is trace.INVALID_SPAN


@pytest.mark.parametrize("value", ["", "nonsense", "00-00000000000000000000000000000000-b7ad6b7169203331-01"])
def test_no_parent(value: str) -> None:
    """What names no span is ignored."""
    assert adopt_parent({"TRACEPARENT": value}) is False
    assert adopt_parent({}) is False


def test_disabled(tmp_path: Path) -> None:
    """`OTEL_PYTHON_DISABLED_INSTRUMENTATIONS` is honoured, by the names of the entry points."""
    (tmp_path / "app.py").write_text(
        "from registry import Registry\nfrom tools_manager import ToolsManager\n"
        "Registry('p').create_node('a', 'A')\nToolsManager().invoke_llm_tool('t', 'x')\n"
    )
    with modules(tmp_path, registry=REGISTRY, tools_manager=MANAGER):
        done = run_instrumented("app.py", folder=tmp_path, disabled_instrumentations="debugstore_registry")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [span.attributes["debugstore.component"] for span in stored_spans(tmp_path / "debug_data")] == ["t"]


LIGHT_NODE = """
import sys
started = "opentelemetry.sdk" in sys.modules or "opentelemetry.trace" in sys.modules
import json
{statement}
print(started, "opentelemetry.sdk.trace" in sys.modules)
"""


@pytest.mark.parametrize(
    ("statement", "components"),
    [
        ("", []),
        ("from opentelemetry import trace; trace.get_tracer('t').start_span('by hand').end()", ["by hand"]),
        ("import shop.tools; shop.tools.buy()", ["shop.tools.buy"]),
        ("from tools_manager import ToolsManager; ToolsManager().invoke_llm_tool('t', 'x')", ["t"]),
    ],
)
def test_light_child(statement: str, components: list[str], tmp_path: Path) -> None:
    """A light child loads OpenTelemetry when it needs it, not before, and says nothing."""
    sources = {"node_runner": RUNNER, "tools_manager": MANAGER, "shop__tools": "def buy(): return 1"}
    code = LIGHT_NODE.format(statement=statement)
    (tmp_path / "app.py").write_text(
        f"from node_runner import NodeRunner\nprint(NodeRunner('.').run_node('light', {{'code': {code!r}}})[:2])\n"
    )
    with modules(tmp_path, **sources):
        done = run_instrumented(
            "app.py", folder=tmp_path, debugstore_child="light", debugstore_targets="shop.*:*=tool, nowhere:x=tool"
        )
    assert (done.returncode, done.stdout) == (0, f"('False {bool(components)}\\n', '')\n")
    assert done.stderr.count("\n") == 1
    assert "nowhere:x" in done.stderr
    spans = stored_spans(tmp_path / "debug_data")
    (node,) = [span for span in spans if span.attributes.get("debugstore.layer") == "node"]
    below = [span for span in spans if span.parent_id == node.span_id]
    assert [span.attributes.get("debugstore.component", span.name) for span in below] == components
    assert len(spans) == 1 + len(below)


def test_there_is_one_instrumentor_of_each() -> None:
    """Each hook has its own instrumentor."""
    assert len({kind.hook for kind in HOOKS}) == len(HOOKS) == 6
    assert all(issubclass(kind, HookInstrumentor) for kind in HOOKS)
