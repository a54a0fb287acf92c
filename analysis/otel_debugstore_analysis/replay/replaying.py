"""`replay`: the recorded calls of a component, run again with changed code.

Three things happen, all of them in processes of their own. Every input of a sample goes through recorded and changed
code once, and results, errors and what became of the arguments are held against the record and against each other. If
nothing is wrong, the benchmark says whether the candidate is faster, with a row a class of inputs. But a benchmark
repeats its calls: of a version that remembers earlier calls, or runs in an event loop, the recorded sequence is timed
instead, by processes that never ran it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import msgpack

from otel_debugstore.errors import NotReplayableError
from otel_debugstore_analysis.benchmark import BenchmarkOptions, Case, Check, Comparison, FunctionRef, compare_functions
from otel_debugstore_analysis.processes import Outcome, run_command
from otel_debugstore_analysis.replay import inputs as made_inputs
from otel_debugstore_analysis.replay.recorded import Recorded, RecordedCall
from otel_debugstore_analysis.replay.request import SCRIPT, Request, Side, Wanted
from otel_debugstore_analysis.replay.result import Replay
from otel_debugstore_analysis.replay.sampling import Input, Sample, sampled
from otel_debugstore_analysis.replay.sequence import comparison_of
from otel_debugstore_analysis.replay.shim import recorded_module

_MAX_TRACES: Final = 20
_DIGITS: Final = 12
"""Of a digest: enough to name it."""
_NO_CACHES: Final = {"PYTHONDONTWRITEBYTECODE": "1"}
"""Nothing is written beside the program's modules."""
_SLACK_S: Final = 120.0
_OBJECTS: Final = (b"$dataclass", b"$pydantic", b"$enum", b"$namedtuple")
"""In the content of arguments: objects of the program's classes."""
_ENOUGH_INPUTS: Final = 12
"""The benchmark measures so many inputs, those of all classes: its time is better spent on pairs."""


@dataclass(frozen=True)
class ReplayOptions:
    """How to replay.

    Attributes:
        paths: Where the program's modules lie; by default where they lay when they were recorded.
        extra_paths: Where modules are looked for before that.
        cwd: The directory that the calls run in; by default that of this process.
        setup, teardown: "package.module:function", called before and after the calls in every process that makes some.
        relative: How far numbers in results may differ, as a share; None for not at all.
        min_effect: The least difference that counts, as a share.
        inputs: How many different inputs are run, about.
        sequence: How long the recorded sequence may be.
        timeout_s: How long a call may take.
        max_seconds: What timing may take, about.
        seed: Of all that is left to chance.
        asked_by_name: Whether a person named the component: it may run though nothing was declared of it.
        check_only: Whether nothing is timed.
        always_sequence: Whether the recorded sequence decides in any case.
    """

    paths: tuple[str, ...] = ()
    extra_paths: tuple[str, ...] = ()
    cwd: str | None = None
    setup: str | None = None
    teardown: str | None = None
    relative: float | None = None
    min_effect: float = 0.03
    inputs: int = 60
    sequence: int = 500
    timeout_s: float = 10.0
    max_seconds: float = 60.0
    seed: int = 0
    asked_by_name: bool = False
    check_only: bool = False
    always_sequence: bool = False


def replay(
    recorded: Recorded,
    candidate: str | Side,
    *,
    options: ReplayOptions | None = None,
    baseline: Side | None = None,
) -> Replay:
    """Return what became of a component's recorded calls when changed code ran them.

    Args:
        recorded: The calls; see `recorded_calls`.
        candidate: The changed code: "package.module:function", or where it lies.
        options: How.
        baseline: The original; by default the recorded code.

    Raises:
        NotReplayableError: The calls may not be run again, or none can be.
    """
    options = options or ReplayOptions()
    require_permission(recorded, asked_by_name=options.asked_by_name or options.setup is not None)
    require_calls(recorded)
    if recorded.file_path is not None and not Path(recorded.file_path).is_file():
        recorded = located(recorded, Path(options.cwd or "."))
    baseline = baseline or baseline_of(recorded, options.paths)
    baseline = replace(baseline, paths=(*options.extra_paths, *baseline.paths))
    if isinstance(candidate, str):
        candidate = Side(candidate, baseline.paths, baseline.file if candidate.startswith(f"{SCRIPT}:") else None)
    sample = sampled(recorded.calls, inputs=options.inputs, sequence=options.sequence, seed=options.seed)
    with tempfile.TemporaryDirectory(prefix="debugstore-replay-") as folder:
        return _Replaying(recorded, sample, baseline, candidate, options, Path(folder)).run()


def require_permission(recorded: Recorded, *, asked_by_name: bool) -> None:
    """Return if the calls of a component may be run again.

    Raises:
        NotReplayableError: They may not.
    """
    if recorded.replayable is False:
        raise NotReplayableError(
            f"{recorded.component!r} is declared as not to be run again (replayable=False): its calls change something "
            "outside of the program. Declare it otherwise, and record it anew, to have it replayed."
        )
    if recorded.replayable is None and not asked_by_name:
        raise NotReplayableError(
            f"Nothing says that calls of {recorded.component!r} may be run again. Declare it (@tool(replayable=True), "
            "@tool(pure=True), or in [tool.otel-debugstore.targets]), or ask for it by name: "
            f"debugstore replay {recorded.component}."
        )


def require_calls(recorded: Recorded) -> None:
    """Return if a call of a component can be run again.

    Raises:
        NotReplayableError: None can, and why.
    """
    if not recorded.calls:
        why = "; ".join(f"{count} calls: {reason}" for reason, count in recorded.skipped.items())
        raise NotReplayableError(f"No call of {recorded.component!r} can be run again ({why}).")


def baseline_of(recorded: Recorded, paths: Sequence[str] = ()) -> Side:
    """Return the recorded code of a component.

    Raises:
        NotReplayableError: It is no function that could be found by its name.
    """
    if recorded.function is None:
        raise NotReplayableError(
            f"{recorded.component!r} is no function, but a block or something of a host, and can't be replayed."
        )
    source = recorded.source
    is_script = recorded.function.startswith(f"{SCRIPT}.")
    return Side(
        recorded.function,
        tuple(paths) or import_root(recorded),
        recorded.file_path if is_script else None,
        source.variant if source else None,
        source.text if source else None,
    )


def import_root(recorded: Recorded) -> tuple[str, ...]:
    """Return where a component's module was found when it was recorded; nothing where that can't be told."""
    if recorded.file_path is None or recorded.function is None:
        return ()
    path = Path(recorded.file_path)
    names = recorded.function.split(".")
    if names[0] == SCRIPT:
        return (str(path.parent),)
    parts = path.parent.parts if path.name == "__init__.py" else path.with_suffix("").parts
    for count in range(len(names) - 1, 0, -1):
        if parts[-count:] == tuple(names[:count]):
            return (str(Path(*parts[:-count])),)
    return ()


def located(recorded: Recorded, project: Path) -> Recorded:
    """Return the same, with its file where it lies in a project: it may have been recorded elsewhere."""
    path, project = Path(recorded.file_path or ""), project.resolve()
    if recorded.file_path is None or recorded.function is None or path.resolve().is_relative_to(project):
        return recorded
    names = recorded.function.split(".")
    parts = [path.name] if names[0] == SCRIPT else []
    for count in range(len(names) - 1, 0, -1):
        module = "/".join(names[:count])
        parts += [f"{folder}{module}{end}" for folder in ("", "src/") for end in (".py", "/__init__.py")]
    found = next((project / part for part in parts if (project / part).is_file()), None)
    return recorded if found is None else replace(recorded, file_path=str(found))


class _Replaying:
    """One replay, on its way."""

    def __init__(
        self,
        recorded: Recorded,
        sample: Sample,
        baseline: Side,
        candidate: Side,
        options: ReplayOptions,
        folder: Path,
    ) -> None:
        self._recorded = recorded
        self._sample = sample
        self._baseline, self._candidate = baseline, candidate
        self._options = options
        self._folder = folder
        self._began = time.monotonic()

    def run(self) -> Replay:
        """Check, time, and say."""
        outcome, found = self._run()
        if found is None:
            return self._result({}, Comparison("failed", f"The replay did not come to an end: {outcome.cause}"))
        if "failed" in found and "inputs" not in found:
            side, cause = found["failed"]
            return self._result(found, _failed(side, f"The {side} can't be run: {cause}"))
        comparison = self._judged(found)
        if comparison is None:
            comparison = self._timed(found)
        return self._result(found, replace(comparison, checked=_count(found, "right")))

    def _run(self) -> tuple[Outcome, dict[str, Any] | None]:
        """Run every input through both versions, in processes of their own."""
        options = self._options
        request = Request(
            self._baseline,
            self._candidate,
            tuple(_wanted(one) for one in self._sample.inputs),
            self._sample.sequence,
            options.setup,
            options.teardown,
            options.relative,
            options.timeout_s,
            options.max_seconds,
            seed=options.seed,
            check_only=options.check_only,
            always_sequence=options.always_sequence,
        )
        path, result = self._folder / "request", self._folder / "result"
        request.write(path)
        outcome = run_command(
            [sys.executable, "-P", "-m", "otel_debugstore_analysis.replay.runner", str(path), str(result)],
            cwd=options.cwd,
            environment=environment(),
            timeout_s=4 * options.timeout_s * len(request.inputs) + options.max_seconds + _SLACK_S,
        )
        if not outcome.is_ok or not result.exists():
            return outcome, None
        found: dict[str, Any] = msgpack.unpackb(result.read_bytes(), strict_map_key=False)
        return outcome, found

    def _judged(self, found: Mapping[str, Any]) -> Comparison | None:
        """Return the verdict if times do not matter any more."""
        for status in ("failed", "wrong"):
            for one, (said, why) in zip(self._sample.inputs, found["inputs"], strict=True):
                if said == status:
                    verb = "could not be run" if status == "failed" else "does something else"
                    cause = f"The candidate {verb} with an input of class {one.label!r}: {_sentence(why)}"
                    verdict = _failed("candidate", f"{cause} {_where(one.call)}")
                    verdict = replace(verdict, failed_class=one.label)
                    return replace(verdict, verdict="wrong") if status == "wrong" else verdict
        right, unknown = _count(found, "right"), _count(found, "unknown")
        if not right:
            if unknown:
                cause = "What the calls return was not recorded as a whole, and can't be compared."
                return Comparison("undecided", cause)
            why = next((why for said, why in found["inputs"] if said == "unsteady"), "")
            return _failed("baseline", f"The original itself no longer does what was recorded: {_sentence(why)}")
        if self._options.check_only:
            return Comparison("undecided", f"{right} inputs give what was recorded; nothing was timed.")
        return None

    def _timed(self, found: Mapping[str, Any]) -> Comparison:
        """Return the benchmark's verdict, or that on the recorded sequence."""
        if "units" in found:
            return self._of_sequence(found)
        if not self._needs_sequence(found):
            compared = self._benchmark(found)
            if compared.is_ranked or compared.failed_side == "candidate":
                return compared
        again = replace(self._options, always_sequence=True)
        _, timed = _Replaying(self._recorded, self._sample, self._baseline, self._candidate, again, self._folder)._run()
        if timed is None or "units" not in timed:
            return Comparison("failed", "The recorded sequence could not be timed.")
        return self._of_sequence(timed)

    def _needs_sequence(self, found: Mapping[str, Any]) -> bool:
        """Return whether both versions can't be in one process: objects would be of the other one's classes."""
        facts = found["facts"]
        are_apart = self._baseline.paths != self._candidate.paths or any(fact["is_recorded"] for fact in facts)
        has_objects = any(tag in one.call.input.content for one in self._sample.inputs for tag in _OBJECTS)
        return any(fact["is_coroutine"] for fact in facts) or (are_apart and has_objects)

    def _of_sequence(self, found: Mapping[str, Any]) -> Comparison:
        if "failed" in found:
            side, cause = found["failed"]
            return _failed(side, cause)
        comparison = comparison_of(found["units"], self._options.min_effect, self._options.seed)
        return replace(comparison, seconds=time.monotonic() - self._began)

    def _benchmark(self, found: Mapping[str, Any]) -> Comparison:
        options = self._options
        facts = found["facts"]
        relative = options.relative
        return compare_functions(
            self._reference(self._baseline, facts[0], "baseline"),
            self._reference(self._candidate, facts[1], "candidate"),
            self._cases(found),
            options=BenchmarkOptions(
                min_effect=options.min_effect,
                timeout_s=options.timeout_s,
                max_seconds=options.max_seconds,
                seed=options.seed,
                start="fresh",
                cwd=options.cwd,
                environment=_NO_CACHES,
                setup=options.setup,
                teardown=options.teardown,
            ),
            check=Check() if relative is None else Check("tolerance", relative),
        )

    def _cases(self, found: Mapping[str, Any]) -> list[Case]:
        """Return the inputs that are timed: some of each class, which stand for its calls."""
        by_class: dict[str, list[int]] = {}
        for number, (one, (said, _)) in enumerate(zip(self._sample.inputs, found["inputs"], strict=True)):
            if said == "right":
                by_class.setdefault(one.label, []).append(number)
        each = max(1, _ENOUGH_INPUTS // max(1, len(by_class)))
        cases = []
        for label, numbers in by_class.items():
            calls = self._sample.class_calls[label]
            chosen = [
                numbers[(2 * place + 1) * len(numbers) // (2 * min(each, len(numbers)))]
                for place in range(min(each, len(numbers)))
            ]
            for number in chosen:
                data = made_inputs.packed(self._sample.inputs[number].call.input.content, found["parameters"])
                cases.append(Case(label, weight=calls / len(chosen), may_raise=True, make=made_inputs.MAKER, data=data))
        return cases

    def _reference(self, side: Side, facts: Mapping[str, Any], name: str) -> FunctionRef:
        if not facts["is_recorded"]:
            return FunctionRef(facts["target"], side.paths, side.file)
        folder = self._folder / name
        target = recorded_module(folder, side)
        return FunctionRef(target, (str(folder), *side.paths))

    def _result(self, found: Mapping[str, Any], comparison: Comparison) -> Replay:
        notes = []
        facts = found.get("facts")
        if facts and facts[0]["is_recorded"]:
            notes.append("The file says something else by now: recorded code is the original.")
        if "units" in found:
            notes.append(
                "The recorded sequence was timed, each time by a process that had not run it: a version remembers "
                "earlier calls, runs in an event loop, or takes objects of classes that both versions have."
            )
        if others := found.get("other_texts"):
            notes.append(
                f"With {others:,} inputs it raises an error of the right type with another text than the original; "
                "texts do not count."
            )
        notes += [
            f"With inputs of class {one.label!r} it is slower: {one.ratio:.3g} times the time."
            for one in comparison.per_class
            if one.verdict == "slower" and comparison.verdict != "slower"
        ]
        traces = dict.fromkeys(one.call.trace_id for one in reversed(self._sample.inputs))
        return Replay(
            self._recorded.component,
            comparison,
            len(self._sample.inputs),
            _count(found, "right"),
            _count(found, "unknown"),
            _count(found, "unsteady"),
            self._recorded.skipped,
            self._recorded.count,
            bool(found.get("remembers")),
            self._recorded.source.variant if self._recorded.source else None,
            tuple(traces)[:_MAX_TRACES],
            tuple(notes),
            self._candidate.target,
        )


def environment() -> dict[str, str]:
    """Return the environment for processes that run the program: nothing is recorded there."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "_OTEL_"))}
    return kept | {"OTEL_SDK_DISABLED": "true"} | _NO_CACHES


def _wanted(one: Input) -> Wanted:
    call = one.call
    output = call.output.content if call.output is not None and call.output.replayable else None
    return Wanted(one.label, call.input.content, call.output_digest, output, call.error)


def _where(call: RecordedCall) -> str:
    """Return the command that shows the arguments of a call."""
    return f"Its arguments: debugstore payload {call.input.digest[:_DIGITS]} --session {call.session}"


def _count(found: Mapping[str, Any], status: str) -> int:
    return sum(said == status for said, _ in found.get("inputs", ()))


def _failed(side: Any, cause: str) -> Comparison:
    return Comparison("failed", cause, failed_side=side)


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
