"""The inputs of recorded calls as they are stored: under the names of the parameters, whatever a program gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from otel_debugstore import configure, tool
from otel_debugstore.instrumentors.hooks import NodeRuntimeInstrumentor
from otel_debugstore.payload import capture_arguments, describe, restore
from otel_debugstore_analysis.replay import loading
from otel_debugstore_exporters.reader import SessionReader
from recording import modules


@pytest.fixture
def inputs(tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """Record into a session; what is returned ends that, and returns the inputs by component."""
    configure(session_id="s", base_path=tmp_path)

    def stored(read: Callable[[bytes], Any] = restore) -> dict[str, Any]:
        provider = trace.get_tracer_provider()
        assert isinstance(provider, TracerProvider)
        provider.shutdown()
        with SessionReader(tmp_path, ["s"]) as reader:
            found = reader.query(
                "SELECT component, content FROM spans LEFT JOIN payloads "
                "ON digest = attributes['debugstore.input.digest']::VARCHAR"
            )
            return {name: None if content is None else read(bytes(content)) for name, content in found.rows}

    return stored


def test_the_names_of_parameters(inputs: Callable[[], dict[str, Any]]) -> None:
    """Keyword-only ones are names like others; only what no parameter takes is under "*" and "**"."""

    @tool(name="mixed")
    def mixed(a: int, b: int = 2, *rest: int, d: int = 1, **named: int) -> None: ...

    class Thing:
        def method(self, a: int, *, b: int = 2) -> None: ...

        recorded = tool(name="method")(method)

    mixed(1, 2, 3, d=4, e=5)
    Thing().recorded(1, b=3)
    tool(name="bound")(Thing().method)(1, b=4)
    assert inputs() == {
        "mixed": {"a": 1, "b": 2, "*": [3], "d": 4, "**": {"e": 5}},
        "method": {"a": 1, "b": 3},
        "bound": {"a": 1, "b": 4},
    }


def test_blocks_and_hooks(inputs: Callable[[], dict[str, Any]], tmp_path: Path) -> None:
    """Their inputs have the names that they were given."""
    host = "class NodeRuntime:\n    def call_tool(self, tool_name, prompt, **kw): return prompt"
    with tool("block", inputs={"a": 1, "b": [2]}):
        pass
    with modules(tmp_path, node_runtime=host):
        NodeRuntimeInstrumentor().instrument()
        try:
            import node_runtime  # type: ignore[import-not-found]

            node_runtime.NodeRuntime().call_tool("t", "p", warm=1)
        finally:
            NodeRuntimeInstrumentor().uninstrument()
    assert inputs() == {
        "block": {"a": 1, "b": [2]},
        "call_tool:t": {"tool_name": "t", "prompt": "p", "warm": 1},
    }


class Hostile(Mapping[str, int]):
    """Raises whatever is asked."""

    def __getitem__(self, key: str) -> int:
        raise RuntimeError(key)

    def __iter__(self) -> Iterator[str]:
        raise SystemExit

    def __len__(self) -> int:
        raise RuntimeError


@pytest.mark.parametrize(("given", "said"), [(Hostile(), "Hostile"), ([27182], "27182"), (31415, "31415")])
def test_inputs_that_are_none(given: Any, said: str, inputs: Callable[..., dict[str, Any]]) -> None:
    """A block whose inputs can't be read by name is recorded; its inputs are what can be said of the object."""
    with tool("block", inputs=given) as block:
        block.set_result(1)
    (stored,) = inputs(lambda content: describe(content, 100)).values()
    assert said in stored


def test_replay_reads_what_was_stored_before() -> None:
    """Keyword-only arguments that lie under "**" are given by name, as those with a name of their own are."""
    before = capture_arguments(("a",), (1,), {"d": 4}).content
    now = capture_arguments(("a", "d"), (1,), {"d": 4}, positional=1).content
    assert restore(before) != restore(now)
    assert loading.arguments(before, ("a",)) == loading.arguments(now, ("a",)) == ([1], {"d": 4})
