"""Whatever fails inside of recording, the program's results stay the same."""

from __future__ import annotations

import contextvars
import functools
import gc
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.util._once import Once

import otel_debugstore
import recorded_program
from injected import failing, functions_of
from otel_debugstore import lifecycle
from otel_debugstore.instrumentors.hooks import HOOKS
from otel_debugstore.instrumentors.targets import TargetInstrumentor
from otel_debugstore.instrumentors.thread_pools import ThreadPoolInstrumentor
from otel_debugstore.recording_settings import recording_settings

PATHS = {
    "background": "BackgroundThread._run",
    "calls.call": "begin Call.end Call.fail Call.resume Call.suspend Call.set_attribute Call.set_outcome Call._detach",
    "calls.decorators": "instrument Recording.__init__ Recording._leave RecordedBlock.__init__ RecordedBlock.close "
    "RecordedBlock.set_result RecordedBlock.set_attribute RecordedBlock.set_outcome",
    "calls.quick": "plain_wrapper _as_call _end_torn _let_go _detach",
    "calls.recorded": "check_callable",
    "calls.steps": "continued _generated Steps.has_begun Steps.begin Steps.run Steps.finish Steps._begin "
    "_RecordedGenerator.send _RecordedGenerator.throw _RecordedGenerator.close RecordedAsyncGenerator.asend "
    "RecordedAsyncGenerator.athrow RecordedAsyncGenerator.aclose _Item.__init__ _Item._run",
    "calls.unfinished": "Unfinished.add",
    "calls.unsampled": "count_unsampled",
    "code_identity": "_forget",
    "instrumentors.node_runner": "_start_process",
    "instrumentors.observed": "guarded Observed.__init__",
    "instrumentors.on_import": "Watch.is_wanted Watch.tell ImportWatcher.find_spec ImportWatcher.loaded "
    "ImportWatcher._watched _TellingLoader.__init__ _TellingLoader.create_module _TellingLoader.exec_module",
    "instrumentors.patching": "Patches.is_on",
    "instrumentors.thread_pools": "carrying _run_in _Carrier._submit",
    "instrumentors.workflow_tracker": "_Workflows._dropped",
    "lifecycle": "flush _flush _may_run",
    "measures.popen_patch": "_tell",
    "processor": "BoundedSpanProcessor.force_flush BoundedSpanProcessor._keep_on",
}
"""What lies between the program and what it calls, by module: what fails in these is caught in them, or they do nothing
but to hand on. They can't be said to fail as a whole."""

NOT_OF_CALLS = {
    "calls.call": "Call._let_go Call.end_memory _step_ns",
    "calls.component": "_describe",
    "calls.decorators": "RecordedBlock.span LayerRecording.__init__",
    "calls.meter": "every_call_recorded Meter.has_budget Meter.set_budget",
    "calls.deferral": "TakesDeferred.on_end_deferred",
    "calls.steps": "Steps.close _Item.send _Item.throw _Item.close",
    "calls.unfinished": "Steps.close Unfinished.__init__ Unfinished.close_all",
    "instrumentors.child_environment": "_lighten _hooks _target_modules",
    "instrumentors.hooks": "hook_names HookInstrumentor._instrument HookInstrumentor._uninstrument",
    "instrumentors.module_names": "_matches",
    "instrumentors.node_runner": "_describe",
    "instrumentors.on_import": "_say Watch.__init__ ImportWatcher.__init__ ImportWatcher.add ImportWatcher.remove "
    "ImportWatcher._watch_all",
    "instrumentors.patching": "Patches.__init__ Patches.undo",
    "instrumentors.target_names": "parse_target",
    "instrumentors.targets": "_parsed _of_settings TargetInstrumentor._instrument TargetInstrumentor._uninstrument "
    "TargetInstrumentor._say_what_is_missing",
    "instrumentors.thread_pools": "_Carrier.__init__ _Carrier.release _Carrier._patch "
    "ThreadPoolInstrumentor._instrument ThreadPoolInstrumentor._uninstrument "
    "OptionalThreadPoolInstrumentor._instrument OptionalThreadPoolInstrumentor._uninstrument",
    "instrumentors.workflow_tracker": "_Workflows.__init__ _Workflows.close_all _Workflows.is_open",
    "lifecycle": "_close_all has_saved flush_at_end restore _keeping_ours _flushing _flushing_if_run _replace "
    "Flushable.force_flush Flushable.give_up Flushable.stand_by Closable.is_open Closable.close_all _Unsaved.__init__",
    "background": "BackgroundThread.is_alive BackgroundThread.join",
    "masking": "_email Masker.flag_kind masker _compiled _index _alternatives Masker.__init__ Masker.find "
    "Masker.mask_bytes",
    "measures.child": "child_use watch_children _Children.__init__",
    "measures.high_mark": "HighMark.reset",
    "measures.memory": "_open_ancestor MemoryProbe.__init__ MemoryProbe._get_ready MemoryProbe._remember_peak "
    "MemoryProbe._forget_peak",
    "measures.popen_patch": "uninstall _telling_start _telling_end _waiting_by_wait4 _polling_by_wait4",
    "measures.pread": "_keeping_pread Reader.__init__ Reader.was_slow Reader.retry",
    "measures.sampler": "Sampler.__init__ Sampler.add Sampler._run Sampler._look_on",
    "outbox": "Outbox.__init__ Outbox.open",
    "payload.capture": "_unknown",
    "payload.mask_content": "_table _column_kind",
    "payload.walk": "Walk.data Walk.contained",
    "processor": "BatchSink.add BatchSink.drop BatchSink.commit BatchSink.shutdown BoundedSpanProcessor.__init__ "
    "BoundedSpanProcessor.give_up BoundedSpanProcessor.shutdown BoundedSpanProcessor._count_late "
    "BoundedSpanProcessor._write_down BoundedSpanProcessor.is_busy",
    "recording_settings": "_joined _is_like_private",
    "span_queue": "_reopening_bytes SpanQueue.is_busy SpanQueue._has_room SpanQueue._is_moving _Gate.is_open "
    "_Gate.wait",
    "span_fields": "Deferred.calls _public plain_attributes dropped_count",
    "span_size": "_beyond_ascii",
}
"""What does not run in this program's calls, by module: what is made once before, what begins and ends recording, and
what other programs have."""

PLAIN = [
    *(f"calls.{name}" for name in ("call", "component", "content", "decorators", "deferral", "deferred", "meter")),
    *(f"calls.{name}" for name in ("outcome", "quick", "recorded", "sdk_span", "status", "steps", "unfinished")),
    "calls.unsampled",
    *("code_identity", "masking", "outbox", "recording_settings"),
    *(f"instrumentors.{name}" for name in ("arguments", "auto_evolver", "child_environment", "components", "hooks")),
    *(f"instrumentors.{name}" for name in ("module_names", "node_runner", "node_runtime", "observed", "on_import")),
    *(f"instrumentors.{name}" for name in ("outcomes", "patching", "registry", "target_names", "targets")),
    *(f"instrumentors.{name}" for name in ("thread_pools", "tools_manager", "workflow_tracker")),
    *(f"measures.{name}" for name in ("child", "high_mark", "io", "memory", "own_reads", "popen_patch", "pread")),
    *(f"measures.{name}" for name in ("proc_file", "sampler", "thrift")),
    *(f"payload.{name}" for name in ("capture", "mask_content", "walk")),
]
WRITING = ["background", "lifecycle", "processor", "span_fields", "span_queue", "span_size"]
"""What runs in threads of ours, which may not outlive an error: each failure has a session of its own."""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The program's modules and its settings."""
    (tmp_path / "host.py").write_text(recorded_program.HOST)
    (tmp_path / "targeted.py").write_text(recorded_program.TARGETED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("OTEL_DEBUGSTORE_OVERHEAD_BUDGET", "5%")
    monkeypatch.setenv(
        "OTEL_DEBUGSTORE_TARGETS",
        "targeted:plain=tool,targeted:cached=function,targeted:Thing.*=step,targeted:none=tool",
    )
    monkeypatch.setenv("OTEL_DEBUGSTORE_HOOKS", ",".join(f"{kind.hook}=host" for kind in HOOKS))
    monkeypatch.setenv("OTEL_DEBUGSTORE_THREAD_POOLS", "true")
    recording_settings.cache_clear()
    yield
    for kind in (*HOOKS, TargetInstrumentor, ThreadPoolInstrumentor):
        if kind().is_instrumented_by_opentelemetry:
            kind().uninstrument()
    for name in ("host", "targeted"):
        sys.modules.pop(name, None)
    recording_settings.cache_clear()


def start_recording(number: int) -> None:
    """Record into a new session, with threads of its own."""
    provider = trace._TRACER_PROVIDER
    if isinstance(provider, TracerProvider):
        provider.shutdown()
    trace._TRACER_PROVIDER, trace._TRACER_PROVIDER_SET_ONCE = None, Once()
    lifecycle.restore()
    for name in ("OTEL_DEBUGSTORE_SESSION", "OTEL_DEBUGSTORE_PATH", "_OTEL_DEBUGSTORE_OWNER"):
        os.environ.pop(name, None)
    otel_debugstore.configure(session_id=f"s{number}")


def run(part: Callable[[], list[object]]) -> list[object]:
    """Run a part of the program; what it leaves in the context is gone after it."""
    return contextvars.copy_context().run(part)


@functools.cache
def expected(part: Callable[[], list[object]]) -> list[object]:
    """Return what a part of the program gets where nothing fails."""
    return run(part)


@pytest.mark.parametrize("module", [*PLAIN, *WRITING])
def test_every_internal_call_fails_in_turn(module: str, program: None) -> None:
    """Each function of ours is reached while it fails, and the program's results are those of a run without that."""
    left_out = {*PATHS.get(module, "").split(), *NOT_OF_CALLS.get(module, "").split()}
    functions = functions_of(f"otel_debugstore.{module}")
    assert left_out <= set(functions)
    start_recording(0)
    wrong, unreached = [], []
    for number, (name, function) in enumerate(functions.items(), 1):
        if name in left_out:
            continue
        if module in WRITING:
            start_recording(number)
        for part in recorded_program.PARTS:
            expected(part)
            with failing(function) as reached:
                found = run(part)
            if found != expected(part):
                wrong.append((name, part.__name__, found))
            if reached:
                assert run(part) == expected(part)
                break
        else:
            unreached.append(name)
    assert wrong == []
    assert unreached == []


def test_a_time_limit_of_the_program(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that strikes in the middle of recording is not swallowed."""

    class TimeIsUpError(Exception):
        pass

    def handle(*_: object) -> None:
        raise TimeIsUpError

    monkeypatch.chdir(tmp_path)
    otel_debugstore.configure(session_id="s")
    previous = signal.signal(signal.SIGALRM, handle)
    gc.disable()  # what strikes in a finalizer Python itself swallows
    try:
        # In a context of its own: between two instructions of ours it may strike where nothing can be put back.
        assert contextvars.copy_context().run(_strike, TimeIsUpError) >= 198
    finally:
        gc.enable()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def _strike(kind: type[Exception]) -> int:
    """Return in how many of 200 runs what the handler raised came through."""
    call: Callable[[str], int] = recorded_program.parse
    call("1")  # what Python swallows while it imports is not ours
    struck = 0
    for number in range(200):
        end = time.monotonic() + 1
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.0002 + number * 1e-6)
            while time.monotonic() < end:
                call("1")
        except kind:
            struck += 1
    return struck
