"""What is recorded of a `WorkflowTracker`: a workflow from its making to `finish()`, and its steps.

The calls are flat, in any order, and workflows interleave in one thread: so neither a workflow nor a step becomes the
current span, and a step hangs below its own tracker's workflow whatever else is open. What is still open when
the tracker is dropped is closed then (outcome "closed"), and at the end of the process: with the outcome "exit", also
where that is `os._exit` or `os.exec*`, and "terminated", an error, where it is SIGTERM.

Loss: what is open when the process is killed by SIGKILL or crashes.
Threads: any. No lock is taken: the garbage collector may drop a tracker anywhere.
Fork: a child forgets its parent's trackers; calls on them begin anew there.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.utils import is_instrumentation_enabled

from otel_debugstore.calls.call import Call, begin
from otel_debugstore.calls.deferred import NO_RESULT
from otel_debugstore.fork import reset_after_fork
from otel_debugstore.instrumentors.arguments import Parameters, text
from otel_debugstore.instrumentors.components import component
from otel_debugstore.instrumentors.observed import Arguments, guarded
from otel_debugstore.instrumentors.outcomes import fail
from otel_debugstore.instrumentors.patching import Patches, Wrapper
from otel_debugstore.lifecycle import has_open

_UNNAMED: Final = "unnamed workflow"
_STEP_ERROR: Final = "step_failed"


class Workflow:
    """What is open of one tracker."""

    def __init__(self, workflow_id: str, inputs: Mapping[str, Any], *, is_whole: bool = True) -> None:
        """Open it.

        Args:
            workflow_id: The component.
            inputs: The tracker's arguments.
            is_whole: Whether the tracker was seen from its beginning, so that all its steps are known.
        """
        self._call = begin(component("workflow", workflow_id), inputs, current=False)
        self.is_closed = False
        self.tracker: Callable[[], Any] = lambda: None
        self._is_whole = is_whole
        self._inputs: dict[Any, dict[str, Any]] = {}
        self._open: dict[Any, Call | None] = {}
        self._ended: set[Any] = set()

    def add_step(self, arguments: Arguments) -> None:
        """Know a step."""
        self._inputs[arguments["step_id"]] = arguments.all()

    def start_step(self, arguments: Arguments) -> None:
        """Open a step, if the tracker knows it; one that is open is run again."""
        step_id = arguments["step_id"]
        if self.is_closed or (self._is_whole and step_id not in self._inputs):
            return
        again = self._open.pop(step_id, None)
        if again is not None:
            again.set_outcome("retry", "It was started again.")
            again.end()
        parent = None if self._call is None else trace.set_span_in_context(self._call.span, Context())
        name = text(step_id, str(step_id))
        self._open[step_id] = begin(component("step", name), self._inputs.get(step_id), parent=parent, current=False)

    def complete_step(self, arguments: Arguments) -> None:
        """Close a step that did its work."""
        call = self._closing(arguments)
        if call is not None:
            output = arguments["output"]
            call.end(NO_RESULT if output is None else output)

    def fail_step(self, arguments: Arguments) -> None:
        """Close a step that failed."""
        call = self._closing(arguments)
        if call is not None:
            error = arguments["error"]
            if isinstance(error, BaseException):
                call.fail(error)
            else:
                fail(call, _STEP_ERROR, str(error))
                call.end()

    def close(self, outcome: str | None = None) -> None:
        """Close everything.

        Args:
            outcome: Of what was open; None for a workflow that is finished, whose open steps are "closed".
        """
        self.is_closed = True
        self._inputs.clear()
        for step_id in list(self._open):
            _close(self._open.pop(step_id, None), outcome or "closed")
        call, self._call = self._call, None
        _close(call, outcome)

    def _closing(self, arguments: Arguments) -> Call | None:
        """Return the open call of a step; one that was announced and never started is opened now."""
        step_id = arguments["step_id"]
        if step_id not in self._open and step_id in self._inputs and step_id not in self._ended:
            self.start_step(arguments)
        self._ended.add(step_id)
        if step_id in self._inputs:
            self._inputs[step_id] = {}  # the program's objects are not ours to keep
        return self._open.pop(step_id, None)


def _close(call: Call | None, outcome: str | None) -> None:
    if call is not None:
        if outcome is not None:
            call.set_outcome(outcome)
        call.end()


class _Workflows:
    """The workflows of all trackers, by the identity of these: they may be of any class, hashable or not."""

    def __init__(self) -> None:
        self._by_tracker: dict[int, Workflow] = {}
        self._open: set[Workflow] = set()
        reset_after_fork(self)

    def after_fork_in_child(self) -> None:
        """Forget the parent's."""
        self._by_tracker = {}
        self._open = set()

    @property
    def is_open(self) -> bool:
        """Whether a workflow is open."""
        return bool(self._open)

    def open(self, tracker: Any, workflow: Workflow) -> Workflow:
        """Keep the workflow of a tracker until it is dropped."""
        key = id(tracker)
        replaced, self._by_tracker[key] = self._by_tracker.get(key), workflow
        if replaced is not None:  # of a tracker that is gone without a word
            self.close(replaced, "closed")
        self._open.add(workflow)
        has_open(self)
        with contextlib.suppress(TypeError):  # no weak references to it: it stays open until it is finished
            weakref.finalize(tracker, self._dropped, key, workflow).atexit = False
            workflow.tracker = weakref.ref(tracker)
        return workflow

    def of(self, tracker: Any) -> Workflow | None:
        """Return the workflow of a tracker, closed or not."""
        return self._by_tracker.get(id(tracker))

    def close(self, workflow: Workflow, outcome: str | None = None) -> None:
        """Close a workflow; see `Workflow.close`."""
        workflow.close(outcome)
        self._open.discard(workflow)

    def close_all(self, outcome: str) -> None:
        """Close what is open at the end of the process."""
        for key in list(self._by_tracker):
            if (workflow := self._by_tracker.pop(key, None)) is not None:
                guarded(self.close, workflow, outcome)

    def _dropped(self, key: int, workflow: Workflow) -> None:
        if self._by_tracker.get(key) is workflow:
            del self._by_tracker[key]
            guarded(self.close, workflow, "closed")


_WORKFLOWS: Final = _Workflows()


def is_hook(module: ModuleType) -> bool:
    """Return whether the class is there."""
    return isinstance(getattr(module, "WorkflowTracker", None), type)


def patch(module: ModuleType, patches: Patches) -> None:
    """Record workflows and steps."""
    kind = module.WorkflowTracker
    patches.wrap(kind, "__init__", _after(_made))
    patches.wrap(kind, "finish", _after(_finished))
    for name in ("add_step", "start_step", "complete_step", "fail_step"):
        patches.wrap(kind, name, _after(_step(name)))


def _after(note: Callable[[Any, Arguments], None]) -> Callable[[Any], Wrapper]:
    """Return what makes a wrapper that notes a call once it has succeeded."""

    def make(original: Any) -> Wrapper:
        parameters = Parameters(original, is_method=True)

        def call(wrapped: Any, instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            result = wrapped(*args, **kwargs)
            if instance is not None and is_instrumentation_enabled():
                guarded(note, instance, Arguments(parameters, args, kwargs))
            return result

        return call

    return make


def _made(tracker: Any, arguments: Arguments) -> None:
    workflow = _WORKFLOWS.of(tracker)
    if workflow is None or workflow.tracker() is not tracker:  # else two classes of it have wrapped `__init__`
        workflow_id = text(arguments["workflow_id"], _UNNAMED)
        _WORKFLOWS.open(tracker, Workflow(workflow_id, arguments.all()))


def _finished(tracker: Any, arguments: Arguments) -> None:
    if (workflow := _WORKFLOWS.of(tracker)) is not None:
        _WORKFLOWS.close(workflow)


def _step(name: str) -> Callable[[Any, Arguments], None]:
    def note(tracker: Any, arguments: Arguments) -> None:
        workflow = _WORKFLOWS.of(tracker)
        if workflow is None:  # it was made before it could be recorded
            workflow_id = text(getattr(tracker, "workflow_id", None), _UNNAMED)
            workflow = _WORKFLOWS.open(tracker, Workflow(workflow_id, {}, is_whole=False))
        getattr(workflow, name)(arguments)

    return note
