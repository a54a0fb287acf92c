"""`PerformanceAuditor`: holds components against thresholds before they are optimised."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from otel_debugstore.calls.decorators import instrument
from otel_debugstore.calls.recorded import RecordedFunction
from otel_debugstore.code_identity import underlying_function, variant_of
from otel_debugstore.config import Settings
from otel_debugstore.errors import SessionNotFoundError
from otel_debugstore.layers import Layer, check_layer
from otel_debugstore_analysis.auditor._audit import Proposals, audit, audit_subjects
from otel_debugstore_analysis.auditor._checks import Verdict
from otel_debugstore_analysis.auditor._findings import candidate, enqueue
from otel_debugstore_analysis.auditor._history import proposals
from otel_debugstore_analysis.auditor._named import Named, find_by_code, named
from otel_debugstore_analysis.auditor._report import markdown_report
from otel_debugstore_analysis.auditor._result import AuditResult, OptimizationCandidate
from otel_debugstore_analysis.auditor._results import without_calls
from otel_debugstore_analysis.auditor._settings import read_thresholds
from otel_debugstore_analysis.auditor._subjects import Subject, subject_of_code
from otel_debugstore_analysis.auditor._tests import TIMEOUT_S, TestRuns, run_tests
from otel_debugstore_analysis.auditor._threshold import PerformanceThreshold, Thresholds
from otel_debugstore_analysis.auditor._values import COMPONENT, calls
from otel_debugstore_analysis.closing import Closing
from otel_debugstore_analysis.processes import split_command
from otel_debugstore_analysis.query import EVERYTHING

F = TypeVar("F", bound=Callable[..., Any])

OPEN_STATES: Final = ("open", "claimed", "proposed", "rejected")


class PerformanceAuditor(Closing):
    """Holds components against thresholds, and keeps what is to be optimised.

    Args:
        session_id: The session whose calls are audited, and that `create_tracking_version` records into; by default
            that of this process, or a new one named after the program.
        thresholds: Thresholds by layer, or by a glob of component names, in place of the defaults; by default those of
            `[tool.otel-debugstore.thresholds]` in the pyproject.toml of the working directory.
        base_path: Where sessions lie, by default "debug_data".
        optimization_queue_path: A JSON file that gets the queue after every audit. The queue itself is below the base
            path, for all sessions.
        sessions: The sessions whose calls count, in place of `session_id` alone.
        settings: Other fields of `Settings`, for what is recorded.

    Raises:
        ConfigurationError: A threshold can't be used.
    """

    def __init__(
        self,
        session_id: str | None = None,
        thresholds: Mapping[str, PerformanceThreshold] | Thresholds | None = None,
        base_path: str | os.PathLike[str] | None = None,
        optimization_queue_path: str | os.PathLike[str] | None = None,
        *,
        sessions: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        from otel_debugstore_analysis.queue import OptimizationQueue

        if thresholds is None:
            self.thresholds: Thresholds = read_thresholds()
        else:
            self.thresholds = thresholds if isinstance(thresholds, Thresholds) else Thresholds.of(thresholds)
        self._settings = settings
        self._provider: Any = None
        self._session_id = session_id
        self._base_path = Settings.from_environment(base_path=base_path).base_path.absolute()
        self._sessions = sessions
        if session_id is None and sessions is None:
            self._record()
        self.queue: Final = OptimizationQueue(self._base_path)
        self._queue_path = optimization_queue_path
        self.results: Final[list[AuditResult]] = []

    @property
    def session_id(self) -> str | None:
        """The session that is audited; None if several are, and none is recorded into."""
        return self._session_id

    def create_tracking_version(self, func: F, layer: Layer = "tool", tool_name: str | None = None) -> F:
        """Return a twin of a function whose calls are recorded; the function itself stays as it is.

        Args:
            func: The function; of one that is recorded already, what it records.
            layer: "workflow", "step", "node", "tool" or "function".
            tool_name: What it is called in what is recorded; by default its qualified name.

        Raises:
            ConfigurationError: It can't be called, or this process records into another session.
        """
        self._record()
        plain: Any = func.__wrapped__ if isinstance(func, RecordedFunction) else func
        twin: F = instrument(check_layer(layer), tool_name)(plain)
        return twin

    def audit_component(
        self,
        component: Callable[..., Any] | str,
        layer: Layer = "tool",
        component_name: str | None = None,
        run_tests: bool = True,
        test_command: str | Sequence[str] | None = None,
        test_iterations: int = 1,
        *,
        test_timeout_s: float = TIMEOUT_S,
        threshold: PerformanceThreshold | None = None,
    ) -> AuditResult:
        """Hold a component against its threshold, and put it into the queue if it does not keep it.

        Args:
            component: The function, whose calls are found by its code, whatever they were recorded as; or a name.
            layer: Its layer.
            component_name: What it is called in the queue, and in recorded calls that say nothing of their code.
            run_tests: Whether to run the command, if there is one.
            test_command: What runs its tests: words, or a line of them. No shell reads it. It is run with the calls of
                the component recorded, and again without: see `run_tests`.
            test_iterations: How often each way.
            test_timeout_s: When a run is ended.
            threshold: Its threshold; by default that of its name, or of its layer.

        Raises:
            ConfigurationError: The layer is none, or the command can't be used.
            QueryError: The spans can't be read.
        """
        layer = check_layer(layer)
        name = component_name or (component if isinstance(component, str) else _name(component))
        variant = None if isinstance(component, str) else variant_of(component)
        words = split_command(test_command) if test_command is not None else []
        result = self._measured(name, layer, variant, threshold)
        if run_tests and words:
            function = self._named(component, layer, variant, result)
            result = with_tests(result, _run(words, function, test_iterations, test_timeout_s))
        self._keep([result], words)
        return result

    def audit(self, components: Sequence[str] = ()) -> list[AuditResult]:
        """Hold every component that has a threshold against it, those that fail first; put these into the queue.

        Args:
            components: Globs of those to audit; all by default.
        """
        with self._analysis() as analysis:
            results = audit(analysis.engine, self.thresholds, components=components, proposals=self._proposals)
        self._keep(results, ())
        return results

    def get_optimization_queue(self, min_priority: float = 0.0) -> list[OptimizationCandidate]:
        """Return what is to be optimised, the most urgent first: what audits put into the queue and nobody proved yet.

        What keeps its limits by the newest audit is not.

        Args:
            min_priority: Only candidates of at least this priority.
        """
        items = self.queue.items(OPEN_STATES, min_priority=min_priority)
        return [candidate(item) for item in items if not item.keeps_limits]

    def generate_audit_report(self, output_path: str | os.PathLike[str] | None = None) -> str:
        """Return, as Markdown, what was audited so far, and what is in the queue.

        Args:
            output_path: A file to write it to, too.
        """
        report = markdown_report(self.results, self.get_optimization_queue())
        if output_path is not None:
            Path(output_path).write_text(report, encoding="utf-8")
        return report

    def close(self) -> None:
        """Write down what was recorded."""
        if self._provider is not None:
            self._provider.force_flush()

    def _record(self) -> None:
        """Record this process into the session, from the first time on."""
        if self._provider is not None:
            return
        from otel_debugstore_analysis.collector import recorded_session
        from otel_debugstore_exporters.instrument import configure

        self._provider = configure(self._session_id, self._base_path, **self._settings)
        paths = recorded_session(self._provider)
        self._session_id, self._base_path = paths.session_id, paths.base_path

    def _audited(self) -> list[str]:
        if self._sessions is not None:
            return list(self._sessions)
        return [self._session_id] if self._session_id else []

    def _analysis(self) -> Any:
        from otel_debugstore_analysis.analysis import Analysis

        self.close()
        return Analysis(base_path=self._base_path, sessions=self._audited())

    def _measured(
        self, name: str, layer: Layer, variant: str | None, threshold: PerformanceThreshold | None
    ) -> AuditResult:
        threshold = threshold or self.thresholds.value(layer, name)
        try:
            with self._analysis() as analysis:
                groups = calls(analysis.engine, COMPONENT, EVERYTHING)
                subject = subject_of_code(groups, layer, name, variant, threshold)
                if not subject.keys:
                    subject = subject._replace(note=f"Looked at: {', '.join(self._audited()) or 'the newest session'}.")
                return audit_subjects(analysis.engine, COMPONENT, [subject], groups, proposals=self._proposals)[0]
        except SessionNotFoundError:
            if self._provider is None:
                raise
            return without_calls(Subject(name, layer, (), threshold, variant))  # nothing was recorded yet

    def _named(
        self, component: Callable[..., Any] | str, layer: Layer, variant: str | None, result: AuditResult
    ) -> Named | str:
        """Return how tests find the component; or why they can't."""
        if not isinstance(component, str):
            return named(underlying_function(component) or component, layer, variant)
        return find_by_code(result)

    @property
    def _proposals(self) -> Proposals:
        return partial(proposals, self._base_path, self._audited())

    def _keep(self, results: Sequence[AuditResult], tests: Sequence[str]) -> None:
        self.results.extend(results)
        enqueue(self.queue, results, tests)
        if self._queue_path is not None:
            self.queue.export_json(Path(self._queue_path))


def with_tests(result: AuditResult, tests: TestRuns) -> AuditResult:
    """Return a result together with how its tests ended."""
    if tests.verdict == "pass":
        return replace(result, tests=tests)
    if tests.verdict == "undecided":
        verdict: Verdict = "fail" if result.verdict == "fail" else "undecided"
        causes = (result.cause, tests.cause) if verdict == "fail" else (tests.cause, result.cause)
        return replace(result, tests=tests, passed=False, verdict=verdict, cause=" ".join(causes))
    recommendation = (
        "Don't record it this way: its tests notice."
        if tests.verdict == "rejected"
        else "Make its tests pass first: without them nobody can tell whether a faster version is right."
    )
    return replace(
        result,
        tests=tests,
        passed=False,
        verdict="fail",
        violations=(tests.cause, *result.violations),
        cause=tests.cause,
        recommendation=recommendation,
    )


def _run(words: Sequence[str], function: Named | str, iterations: int, timeout_s: float) -> TestRuns:
    return run_tests(words, function, iterations=iterations, timeout_s=timeout_s)


def _name(component: Callable[..., Any]) -> str:
    """Return the name that calls of a function are recorded under."""
    function: Any = underlying_function(component) or component
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(name, str):
        return type(component).__qualname__
    return f"{module}.{name}" if isinstance(module, str) and module else name
