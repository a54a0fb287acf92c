"""The example host: unchanged by being recorded, and what was recorded is what it says it did."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from instrumented import run_instrumented, run_python
from otel_debugstore_exporters.batch import SpanRecord
from stored import stored_spans

HOST: Final = Path(__file__).parents[1] / "examples" / "code_evolver"
MAIN: Final = HOST / "main.py"
ERROR: Final = 2
NAMES: Final = {
    "workflow": ("workflow", "{}"),
    "step": ("step", "{}"),
    "run_node": ("node", "{}"),
    "call_tool": ("tool", "call_tool:{}"),
    "call_llm": ("tool", "call_llm:{}"),
    "call_tools_parallel": ("function", "call_tools_parallel"),
    "invoke_llm_tool": ("tool", "{}"),
    "invoke_openapi_tool": ("tool", "{}"),
    "invoke_executable_tool": ("tool", "{}"),
    "invoke_llm_tool_with_fallback": ("function", "ToolsManager.invoke_llm_tool_with_fallback"),
    "save_code": ("function", "NodeRunner.save_code"),
}

Call = tuple[str, str, str]
"""Layer, component, outcome."""
Path_ = tuple[Call, ...]
"""A call below its callers, from the outermost."""


class Recorded:
    """One run of the host under `opentelemetry-instrument`."""

    def __init__(self, folder: Path, child: str = "full") -> None:
        done = run_instrumented(MAIN, "work", folder=folder, debugstore_child=child)
        assert (done.returncode, done.stderr) == (0, "")
        printed = json.loads(done.stdout)
        self.result = printed["result"]
        self.calls: list[dict[str, Any]] = printed["calls"]
        self.spans = stored_spans(folder / "debug_data")


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    return Recorded(tmp_path_factory.mktemp("evolver"))


def said_paths(calls: Iterable[Mapping[str, Any]]) -> Counter[Path_]:
    """Return what the program says: every call below its callers."""
    by_id = {call["id"]: call for call in calls}

    def path(call: Mapping[str, Any]) -> Path_:
        caller = by_id.get(call["caller"])
        return (*(path(caller) if caller else ()), said(call))

    return Counter(path(call) for call in by_id.values())


def said(call: Mapping[str, Any]) -> Call:
    layer, component = NAMES.get(call["kind"], ("function", f"Registry.{call['kind']}"))
    return layer, component.format(call["name"]), call["outcome"]


def recorded_paths(spans: Iterable[SpanRecord]) -> Counter[Path_]:
    """Return the same of spans."""
    by_id = {span.span_id: span for span in spans}

    def path(span: SpanRecord) -> Path_:
        parent = by_id.get(span.parent_id) if span.parent_id else None
        assert parent or not span.parent_id
        return (*(path(parent) if parent else ()), found(span))

    return Counter(path(span) for span in by_id.values())


def found(span: SpanRecord) -> Call:
    attributes = span.attributes
    outcome = attributes.get("debugstore.outcome")
    if outcome in ("closed", "exit"):
        outcome = "unfinished"
    elif outcome is None:
        outcome = "error" if span.status_code == ERROR else "ok"
    return attributes["debugstore.layer"], attributes["debugstore.component"], outcome


def test_the_host_knows_nothing_of_us() -> None:
    """Its sources name neither this project nor OpenTelemetry."""
    sources = [path.read_text() for path in HOST.rglob("*.py")]
    assert len(sources) > 8
    assert not [source for source in sources if re.search("opentelemetry|debugstore|otel", source, re.IGNORECASE)]


@pytest.mark.slow
def test_recording_does_not_change_the_host(recorded: Recorded, tmp_path: Path) -> None:
    """With and without recording it comes to the same result, by the same calls."""
    done = run_python(MAIN, "work", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert printed["result"] == recorded.result
    assert said_paths(printed["calls"]) == said_paths(recorded.calls)


def test_every_call_is_recorded(recorded: Recorded) -> None:
    """Every call that the host counted is one span below the spans of its callers, across threads and processes, and
    ended as the host says; and there are no other spans.
    """
    assert recorded_paths(recorded.spans) == said_paths(recorded.calls)
    outcomes = {outcome for _, _, outcome in map(said, recorded.calls)}
    assert outcomes == {"ok", "error", "timeout", "unfinished"}


def test_calls_are_recorded_in_the_process_that_made_them(recorded: Recorded) -> None:
    """A span is of the process in which the host counted the call; three processes deep."""
    assert Counter(span.pid for span in recorded.spans) == Counter(call["pid"] for call in recorded.calls)
    assert len({span.pid for span in recorded.spans}) == 5


def test_nodes_carry_their_exit_code_and_code(recorded: Recorded) -> None:
    """A node's span says how its process ended, and which code it ran; a node without code has no variant."""
    nodes = {
        span.attributes["debugstore.component"]: span.attributes
        for span in recorded.spans
        if span.attributes["debugstore.layer"] == "node"
    }
    exit_codes = {name: attributes.get("debugstore.child.exit_code") for name, attributes in nodes.items()}
    assert (exit_codes["exits"], exit_codes["raises"], exit_codes["warns"], exit_codes["hangs"]) == (3, 1, 0, -9)
    assert exit_codes["missing"] is None
    assert all(
        attributes["debugstore.child.cpu.time_ns"] > 0 for name, attributes in nodes.items() if name != "missing"
    )
    assert "debugstore.variant" not in nodes["missing"]
    variants = {attributes["debugstore.variant"] for name, attributes in nodes.items() if name != "missing"}
    assert len(variants) == len(nodes) - 1


def test_failures_say_why(recorded: Recorded) -> None:
    """What failed without an exception has its reason all the same: from metrics, texts and results."""
    failed = {
        (span.attributes["debugstore.component"], span.attributes["error.type"], (span.status_message or "")[:40])
        for span in recorded.spans
        if span.status_code == ERROR
    }
    assert {
        ("warns", "node_failed", "deprecated"),
        ("exits", "node_failed", "exit code 3"),
        ("hangs", "timeout", "timed out after 2000 ms"),
        ("call_tool:scriptless", "ValueError", "scriptless has no script"),
        ("scriptless", "ValueError", "ValueError: scriptless has no script"),
        ("call_llm:poet", "empty_answer", "The answer is empty."),
        ("catalogue", "unsuccessful", "catalogue has no operation delete_everyt"),
    } <= failed


@pytest.mark.slow
def test_light_children(tmp_path: Path) -> None:
    """A light child is recorded as a full one is, where it calls what is to be recorded."""
    light = Recorded(tmp_path, child="light")
    assert recorded_paths(light.spans) == said_paths(light.calls)
