"""What is recorded of a `NodeRunner`: each run is a node, below which hangs what the node's process records.

The process is found by watching `subprocess.Popen` while `run_node` runs, in its thread; a runner that starts processes
in another way gets the node's span, and nothing below it. The node's code, not the runner's, is its variant.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_debugstore.attributes import (
    CHILD_CPU_TIME_NS,
    CHILD_EXIT_CODE,
    CHILD_MEMORY_PEAK_BYTES,
    CHILD_PID,
    CODE_FILE_PATH,
    VARIANT,
)
from otel_debugstore.calls.call import Call
from otel_debugstore.digest import blake2b
from otel_debugstore.instrumentors.arguments import Parameters, text
from otel_debugstore.instrumentors.child_environment import environment_of_child
from otel_debugstore.instrumentors.observed import Arguments, Observed, What, guarded, recording
from otel_debugstore.instrumentors.outcomes import fail
from otel_debugstore.instrumentors.patching import Patches, Wrapper
from otel_debugstore.measures.child import ChildUse, collecting_children, watch_children
from otel_debugstore.outbox import OUTBOX, Code

_MAX_CODE_BYTES: Final = 1 << 20
_ENV_POSITION: Final = 10
_UNKNOWN_EXIT_CODE: Final = -1
"""What a runner says of a process that it killed, or never started."""

_is_running: ContextVar[bool] = ContextVar("otel_debugstore_node", default=False)


def is_hook(module: ModuleType) -> bool:
    """Return whether the class is there."""
    return hasattr(getattr(module, "NodeRunner", None), "run_node")


def patch(module: ModuleType, patches: Patches) -> None:
    """Record runs of nodes, and what writes their code."""
    import subprocess

    patches.wrap(module.NodeRunner, "run_node", _run_node)
    patches.wrap(module.NodeRunner, "save_code", recording(What("function", _save_code, has_code=True)))
    patches.also_undo(watch_children())
    patches.wrap(subprocess.Popen, "__init__", lambda original: _start_process)


def _run_node(original: Any) -> Wrapper:
    parameters = Parameters(original, is_method=True)

    def call(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not is_instrumentation_enabled():
            return wrapped(*args, **kwargs)
        arguments = Arguments(parameters, args, kwargs)
        with Observed(None, What("node", _node_id, judge_run), arguments) as observed, ExitStack() as stack:
            uses = guarded(_collect, stack)
            guarded(_note_code, observed.call, instance, arguments)
            token = _is_running.set(True)
            try:
                observed.result = wrapped(*args, **kwargs)
            finally:
                _is_running.reset(token)
                guarded(_note_children, observed.call, uses)
        return observed.result

    return call


def _collect(stack: ExitStack) -> list[ChildUse]:
    return stack.enter_context(collecting_children())


def _start_process(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Start a process; one of a node is told which."""
    if _is_running.get() and is_instrumentation_enabled():
        is_positional = len(args) > _ENV_POSITION
        given = args[_ENV_POSITION] if is_positional else kwargs.get("env")
        env = guarded(environment_of_child, given)
        if env is not None and is_positional:
            args = (*args[:_ENV_POSITION], env, *args[_ENV_POSITION + 1 :])
        elif env is not None:
            kwargs = {**kwargs, "env": env}
    return wrapped(*args, **kwargs)


def _note_code(call: Call | None, runner: Any, arguments: Arguments) -> None:
    """Say which code the node has now."""
    folder, filename = getattr(runner, "nodes_dir", None), arguments["filename"]
    if call is None or folder is None or not isinstance(filename, str):
        return
    node_id = _node_id(arguments)
    path = Path(folder, node_id, filename)
    if path.is_file() and path.stat().st_size <= _MAX_CODE_BYTES:
        code = path.read_bytes()
        variant = blake2b(code, digest_size=8).hexdigest()
        call.span.set_attributes({VARIANT: variant, CODE_FILE_PATH: str(path)})
        OUTBOX.put_code(variant, functools.partial(_describe, variant, node_id, str(path), code))


def _note_children(call: Call | None, uses: Sequence[ChildUse] | None) -> None:
    """Say what the node's process used; of several, what they used together, and how the last one ended."""
    if call is not None and uses:
        peaks = [use.peak_bytes for use in uses if use.peak_bytes is not None]
        attributes: dict[str, int] = {
            CHILD_PID: uses[-1].pid,
            CHILD_EXIT_CODE: uses[-1].exit_code,
            CHILD_CPU_TIME_NS: sum(use.cpu_ns for use in uses),
        }
        if len(peaks) == len(uses):
            attributes[CHILD_MEMORY_PEAK_BYTES] = max(peaks)
        call.span.set_attributes(attributes)


def _describe(variant: str, node_id: str, path: str, code: bytes) -> Code:
    return Code(variant, node_id, path, 1, None, code.decode(errors="replace"))


def _node_id(arguments: Arguments) -> str:
    return text(arguments["node_id"], "unnamed node")


def _save_code(arguments: Arguments) -> str:
    return "NodeRunner.save_code"


def judge_run(call: Call, result: Any) -> None:
    """A node has failed if its metrics say so; the runner raises nothing."""
    metrics = result[2] if isinstance(result, tuple) and len(result) > 2 else None
    if not isinstance(metrics, Mapping):
        return
    exit_code = metrics.get("exit_code")
    is_seen = CHILD_EXIT_CODE in (getattr(call.span, "attributes", None) or ())
    if type(exit_code) is int and exit_code != _UNKNOWN_EXIT_CODE and not is_seen:
        call.set_attribute(CHILD_EXIT_CODE, exit_code)
    if metrics.get("success") is False:
        message = str(metrics.get("error") or result[1] or "").strip() or f"exit code {exit_code}"
        if _has_timed_out(metrics, message):
            fail(call, "timeout", message, "timeout")
        else:
            fail(call, "node_failed", message)


def _has_timed_out(metrics: Mapping[str, Any], message: str) -> bool:
    if metrics.get("exit_code") not in (None, _UNKNOWN_EXIT_CODE):
        return False
    if "timed out" in message.lower() or "timeout" in message.lower():
        return True
    latency_ms, timeout_ms = metrics.get("latency_ms"), metrics.get("timeout_ms")
    return isinstance(latency_ms, (int, float)) and isinstance(timeout_ms, (int, float)) and latency_ms >= timeout_ms
