"""Layers of spans that others made: by what their conventions say of them. docs/layers.md has the table.

A span's own `debugstore.layer` goes before everything here. Then come the rules of the user
(`OTEL_DEBUGSTORE_LAYERS`), OpenTelemetry's gen_ai operations, OpenInference's kinds and Traceloop's. What is
found is kept beside the span: its attributes stay as they came.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, Final

from otel_debugstore import attributes as names
from otel_debugstore.layers import LAYERS
from otel_debugstore.recording_settings import recording_settings
from otel_debugstore_exporters.batch import SpanBatch

ANY_VALUE: Final = "*"

KNOWN: Final[Mapping[str, Mapping[str, str]]] = {
    names.GEN_AI_OPERATION_NAME: {
        "invoke_workflow": "workflow",
        "invoke_agent": "workflow",
        "execute_tool": "tool",
        "create_agent": "function",
        "chat": "function",
        "text_completion": "function",
        "generate_content": "function",
        "embeddings": "function",
        "retrieval": "function",
    },
    "openinference.span.kind": {
        "AGENT": "workflow",
        "CHAIN": "step",
        "TOOL": "tool",
        "LLM": "function",
        "EMBEDDING": "function",
        "RETRIEVER": "function",
        "RERANKER": "function",
        "GUARDRAIL": "function",
        "EVALUATOR": "function",
        "PROMPT": "function",
    },
    "traceloop.span.kind": {
        "workflow": "workflow",
        "agent": "workflow",
        "task": "step",
        "tool": "tool",
    },
}
"""By attribute and value. An agent works towards a goal of its own, in steps and with tools, so it is a workflow; a
call of a model or an index is the smallest part there is, so it is a function."""


class LayerMapping:
    """Rules by attribute and value.

    Args:
        rules: `attribute=value` -> layer, which go before the known ones; the value `*` is any.
    """

    def __init__(self, rules: Mapping[str, str]) -> None:
        tables: dict[str, dict[str, str]] = {}
        for condition, layer in rules.items():
            key, _, value = condition.partition("=")
            tables.setdefault(key.strip(), {})[value.strip() or ANY_VALUE] = layer
        self._tables: Final = [*tables.items(), *KNOWN.items()]
        self._keys: Final = frozenset(key for key, _ in self._tables)

    def layers(self, batch: SpanBatch) -> dict[int, str]:
        """Return by row the layers of spans that name none of `LAYERS` themselves."""
        present = self._keys & set().union(*batch.attributes)
        if not present:
            return {}
        tables = [(key, values) for key, values in self._tables if key in present]
        found = {}
        for row, some in enumerate(batch.attributes):
            if some.get(names.LAYER) in LAYERS:
                continue
            for key, values in tables:
                if key in some and (layer := values.get(_text(some[key])) or values.get(ANY_VALUE)):
                    found[row] = layer
                    break
        return found


@functools.cache
def layer_mapping() -> LayerMapping:
    """Return the mapping of this process's settings."""
    return LayerMapping(recording_settings().layers)


def assign_layers(batch: SpanBatch) -> SpanBatch:
    """Give the spans of a batch that comes in the layers they have by their conventions; return it."""
    layers = layer_mapping().layers(batch)
    if layers:
        batch.layers = {**layers, **batch.layers}
    return batch


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
