"""`optimize`: one item of the queue, an optimizer's candidates for it, and the proof that decides about each.

The item is claimed; the optimizer gets its package; each candidate is applied in a scratch copy of the project, its
tests run there, recorded calls are replayed, and times are compared. A candidate that holds is proven, and its patch
is written beside the sessions for a person to apply; any other is rejected, with what was found. The project's own
files are read and nothing else, unless `apply` is set.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from otel_debugstore.errors import NotReplayableError
from otel_debugstore_analysis.benchmark.results import Comparison
from otel_debugstore_analysis.optimizer.held import given_back, own_name
from otel_debugstore_analysis.optimizer.lines import exact_text, with_ends_of
from otel_debugstore_analysis.optimizer.patch import make_patch
from otel_debugstore_analysis.optimizer.protocol import Candidate, Optimizer, OptimizerError, Task
from otel_debugstore_analysis.optimizer.results import Attempt, Optimization, OptimizeOptions
from otel_debugstore_analysis.optimizer.scratch import Scratch, write_files
from otel_debugstore_analysis.optimizer.testing import decides, run_tests, said
from otel_debugstore_analysis.processes import Outcome
from otel_debugstore_analysis.query import DuckDBEngine
from otel_debugstore_analysis.queue import Evidence, OptimizationQueue, QueueItem, package
from otel_debugstore_analysis.replay import Recorded, Replay, recorded_calls, replay
from otel_debugstore_analysis.replay.replaying import (
    baseline_of,
    import_root,
    located,
    require_calls,
    require_permission,
)
from otel_debugstore_analysis.replay.request import Side
from otel_debugstore_exporters.reader import SessionReader

PATCHES: Final = "patches"
_MAX_CANDIDATES: Final = 8


def optimize(
    base_path: str | os.PathLike[str], which: str, optimizer: Optimizer, *, options: OptimizeOptions | None = None
) -> Optimization:
    """Have an optimizer work on an item of the queue, and prove or reject what it proposes.

    Args:
        base_path: Where the sessions and the queue lie.
        which: The item: its id, the beginning of that, or its component.
        optimizer: Who proposes.
        options: How.

    Raises:
        OptimizerError: The optimizer could not do its work, or the tests fail without any change; the item is released.
        NotReplayableError: The component's calls may not, or can't, be run again; the item is released.
        QueueError: There is no such item, or somebody else has it.
    """
    options = options or OptimizeOptions()
    queue = OptimizationQueue(base_path)
    by = own_name(optimizer.name)
    item = queue.claim(which, by, options.lease_s)
    with given_back(queue, item.id, by), SessionReader(Path(base_path)) as reader:
        engine = DuckDBEngine(reader)
        recorded = located(recorded_calls(engine, item.recorded_name), options.project)
        is_named = which in (item.component, item.recorded_name)
        asked = options.replay.asked_by_name or is_named or options.replay.setup is not None
        require_permission(recorded, asked_by_name=asked)
        require_calls(recorded)
        options = replace(options, replay=replace(options.replay, asked_by_name=asked))
        return _Optimizing(queue, item, by, optimizer, options, recorded, engine).run()


class _Optimizing:
    """One item, on its way."""

    def __init__(
        self,
        queue: OptimizationQueue,
        item: QueueItem,
        by: str,
        optimizer: Optimizer,
        options: OptimizeOptions,
        recorded: Recorded,
        engine: DuckDBEngine,
    ) -> None:
        self._queue = queue
        self._item = item
        self._by = by
        self._optimizer = optimizer
        self._options = options
        self._recorded = recorded
        self._engine = engine
        self._project = options.project.resolve()
        self._tests = tuple(options.tests if options.tests is not None else item.tests)

    def run(self) -> Optimization:
        """Ask for candidates, and try them, one after the other, until one holds.

        The project is copied once; all else is made of that copy, which nobody changes.
        """
        with Scratch(self._project, (self._queue.base_path,)) as original:
            root = self._root(original)
            candidates = self._proposed(original)
            if not candidates:
                return Optimization(self._queue.release(self._item.id, self._by))
            if self._tests:
                with original.another() as scratch:
                    before = self._run_tests(scratch, root)
                if not before.is_ok:
                    raise OptimizerError(f"The tests fail without any change, so they prove nothing: {said(before)}")
            attempts: list[Attempt] = []
            for number, candidate in enumerate(candidates[:_MAX_CANDIDATES]):
                if number:
                    self._item = self._queue.claim(self._item.id, self._by, self._options.lease_s)
                attempts.append(self._try(candidate, original, root))
                if attempts[-1].is_proven:
                    return self._proven(attempts, original)
        return Optimization(self._queue.get(self._item.id), tuple(attempts))

    def _root(self, scratch: Scratch) -> str:
        """Return where modules are imported from, by its path within the project."""
        for path in import_root(self._recorded):
            found = scratch.path_of(path)
            if found is not None:
                return found.relative_to(scratch.folder).as_posix()
        raise OptimizerError(
            f"The code of {self._item.component!r} ({self._recorded.file_path}) is not below {self._project}; name the "
            "project's directory (--path)."
        )

    def _file(self, scratch: Scratch) -> Path | None:
        """Return where the component's file lies in a copy; None if it is none of the project's."""
        return scratch.path_of(self._recorded.file_path) if self._recorded.file_path else None

    def _proposed(self, original: Scratch) -> Sequence[Candidate]:
        with original.another() as scratch:
            file = self._file(scratch)
            item = self._item
            if item.code is not None and file is not None:  # the optimizer is to change the copy that it is in
                name = file.relative_to(scratch.folder).as_posix()
                item = replace(item, code=item.code._replace(file_path=name))
            task = Task(
                item,
                package(item, self._options.max_tokens),
                self._recorded,
                self._engine,
                scratch,
                file if file is not None and file.is_file() else None,
            )
            return self._optimizer.propose(task)

    def _try(self, candidate: Candidate, original: Scratch, root: str) -> Attempt:
        self._queue.propose(self._item.id, candidate.title, self._by, lease_s=self._options.lease_s)
        with original.another() as scratch:
            attempt = self._judged(candidate, original, scratch, root)
        evidence = None if attempt.replay is None else evidence_of(attempt.replay, candidate.title)
        if attempt.is_proven:
            self._item = self._queue.prove(self._item.id, evidence, self._by)
        else:
            self._item = self._queue.reject(self._item.id, attempt.why, evidence, self._by)
        return attempt

    def _judged(self, candidate: Candidate, original: Scratch, scratch: Scratch, root: str) -> Attempt:
        """Apply a candidate, but for what it changes of the tests; test it, and replay."""
        try:
            candidate, note = self._without_tests(candidate, scratch)
            if not candidate.files:
                return Attempt(candidate, False, f"It changes no code.{note}")
            scratch.apply(candidate.files)
            for name, text in candidate.files.items():
                if text is not None and name.endswith(".py"):
                    compile(text, name, "exec", dont_inherit=True)
        except (OptimizerError, SyntaxError, ValueError) as error:
            return Attempt(candidate, False, f"It can't be applied: {error}")
        tests = self._run_tests(scratch, root) if self._tests else None
        if tests is not None and not tests.is_ok:
            return Attempt(candidate, False, f"The tests fail with it: {said(tests)}{note}", tests)
        found = self._replay(original, scratch, root)
        is_proven = found.verdict == "faster" and found.right > 0
        return Attempt(candidate, is_proven, f"{found.cause}{note}", tests, found)

    def _without_tests(self, candidate: Candidate, scratch: Scratch) -> tuple[Candidate, str]:
        """Return a candidate without what decides about it, and a sentence that says what was left out."""
        file = self._file(scratch)
        component = None if file is None else file.relative_to(scratch.folder).as_posix()
        left_out = [
            name for name in candidate.files if decides(scratch.name_of(name), component, self._tests, self._project)
        ]
        if not left_out:
            return candidate, ""
        files = {name: text for name, text in candidate.files.items() if name not in left_out}
        names = ", ".join(left_out)
        return (
            replace(candidate, files=files),
            f" What it changes in {names} was left out: tests and their settings stay as they are.",
        )

    def _run_tests(self, scratch: Scratch, root: str) -> Outcome:
        return run_tests(self._tests, scratch, root, self._options.test_timeout_s)

    def _replay(self, original: Scratch, scratch: Scratch, root: str) -> Replay:
        baseline = baseline_of(self._recorded, (str(original.folder / root),))
        candidate = Side(baseline.target, (str(scratch.folder / root),))
        if baseline.file is not None:
            baseline = replace(baseline, file=_text(original.path_of(baseline.file)))
            candidate = replace(candidate, file=_text(scratch.path_of(self._recorded.file_path or "")))
        options = replace(self._options.replay, cwd=str(scratch.folder))
        try:
            return replay(self._recorded, candidate, options=options, baseline=baseline)
        except NotReplayableError as error:
            return Replay(self._recorded.component, Comparison("failed", str(error)))

    def _proven(self, attempts: Sequence[Attempt], original: Scratch) -> Optimization:
        """Write the patch of the last attempt; apply it if that is wanted, and nobody changed the files meanwhile."""
        files = attempts[-1].candidate.files
        before = {name: exact_text(original.folder / name) for name in files}
        after = {name: None if text is None else with_ends_of(text, before[name]) for name, text in files.items()}
        folder = self._queue.base_path / PATCHES
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._item.id}.patch"
        path.write_bytes(make_patch(before, after).encode("utf-8", "surrogateescape"))
        is_unchanged = before == {name: exact_text(self._project / name) for name in files}
        if self._options.apply and is_unchanged:
            write_files(self._project, files)
        return Optimization(self._item, tuple(attempts), path, self._options.apply and is_unchanged)


def evidence_of(found: Replay, candidate: str) -> Evidence:
    """Return what a replay says of a candidate, for the queue."""
    return replace(Evidence.of(found.to_dict()), candidate=candidate)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
