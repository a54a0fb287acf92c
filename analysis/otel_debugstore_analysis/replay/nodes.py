"""Nodes of a host, replayed: a node is a process of its own, and its code a folder.

What a node prints is its result: as JSON where it is that, without the keys that may differ from run to run.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from otel_debugstore.errors import NotReplayableError
from otel_debugstore.payload import capture, restore
from otel_debugstore_analysis.replay.node_result import result_of
from otel_debugstore_analysis.replay.recorded import Recorded, RecordedCall
from otel_debugstore_analysis.replay.request import Side
from otel_debugstore_exporters.payloads import StoredPayload

_MODULE: Final = "_debugstore_node"
_FUNCTION: Final = "run_node"


@dataclass(frozen=True)
class NodeHost:
    """How nodes are run.

    Attributes:
        runner: "package.module:Class": what is made with the folder of all nodes, and has `run_node`.
        paths: Where its module is found.
        ignored: Keys of printed JSON that may differ from run to run, such as times.
    """

    runner: str
    paths: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def side(self, folder: Path, nodes: Path) -> Side:
        """Return the version of a node whose code lies in a folder of nodes; `folder` gets a module for it."""
        folder.mkdir(parents=True, exist_ok=True)
        text = (
            "import importlib\n"
            "from otel_debugstore_analysis.replay.node_result import result_of\n"
            f"module, _, name = {self.runner!r}.partition(':')\n"
            f"runner = getattr(importlib.import_module(module), name)({str(nodes)!r})\n"
            f"def {_FUNCTION}(node_id, input_payload, timeout_ms=600000, filename='main.py'):\n"
            "    found = runner.run_node(node_id, input_payload, timeout_ms, filename)\n"
            f"    return result_of(found, {self.ignored!r})\n"
        )
        (folder / f"{_MODULE}.py").write_text(text, encoding="utf-8")
        return Side(f"{_MODULE}:{_FUNCTION}", (str(folder), *self.paths))


def node_calls(recorded: Recorded, ignored: Collection[str] = ()) -> Recorded:
    """Return recorded runs of a node with what counts of their results."""
    return replace(recorded, calls=tuple(_reduced(call, ignored) for call in recorded.calls))


def _reduced(call: RecordedCall, ignored: Collection[str]) -> RecordedCall:
    output = call.output
    try:
        if output is None or not output.replayable:
            raise NotReplayableError("")
        captured = capture(result_of(restore(output.content), ignored))
    except (NotReplayableError, ValueError, TypeError):
        return call._replace(output=None, output_digest=None, error=None)
    stored = StoredPayload(
        captured.digest, captured.media_type, len(captured.content), captured.replayable, captured.content
    )
    return call._replace(output=stored, output_digest=captured.digest, error=None)
