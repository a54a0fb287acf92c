"""`optimize`: one item of the queue, an optimizer's candidates for it, and the proof that decides about each.

The item is claimed; the optimizer gets its package; each candidate is applied in a scratch copy of the project, its
tests run there, recorded calls are replayed, and times are compared. A candidate that holds is proven, and its patch
is written beside the sessions for a person to apply; any other is rejected, with what was found. The project's own
files are read and nothing else, unless `apply` is set.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from otel_debugstore.errors import DebugStoreError, NotReplayableError
from otel_debugstore_analysis.benchmark.results import Comparison
from otel_debugstore_analysis.optimizer.patch import make_patch
from otel_debugstore_analysis.optimizer.protocol import Candidate, Optimizer, OptimizerError, Task
from otel_debugstore_analysis.optimizer.scratch import Scratch, write_files
from otel_debugstore_analysis.processes import Outcome, run_command
from otel_debugstore_analysis.query import DuckDBEngine
from otel_debugstore_analysis.queue import Evidence, OptimizationQueue, QueueItem, package
from otel_debugstore_analysis.replay import Recorded, Replay, ReplayOptions, recorded_calls, replay
from otel_debugstore_analysis.replay.replaying import baseline_of, import_root, located, require_permission
from otel_debugstore_analysis.replay.request import Side
from otel_debugstore_exporters.reader import SessionReader

PATCHES: Final = "patches"
_MAX_CANDIDATES: Final = 8
_MAX_SAID: Final = 400


@dataclass(frozen=True)
class OptimizeOptions:
    """How to optimize.

    Attributes:
        project: The project's directory; its files are copied, and not written to.
        tests: The command that runs its tests; by default that of the item; none runs none.
        test_timeout_s: How long it may take.
        replay: How recorded calls are replayed.
        max_tokens: The budget of the package that the optimizer gets.
        lease_s: For how long the item is claimed.
        apply: Whether a proven candidate is applied to the project.
    """

    project: Path = field(default_factory=Path)
    tests: tuple[str, ...] | None = None
    test_timeout_s: float = 600.0
    replay: ReplayOptions = field(default_factory=ReplayOptions)
    max_tokens: int = 8_000
    lease_s: float = 3600.0
    apply: bool = False


@dataclass(frozen=True)
class Attempt:
    """A candidate and what became of it.

    Attributes:
        candidate: The change.
        is_proven: Whether it holds.
        why: One sentence that says why it does, or does not.
        tests: How the tests ended; None where none ran.
        replay: What the replay found; None where it did not come to that.
    """

    candidate: Candidate
    is_proven: bool
    why: str
    tests: Outcome | None = None
    replay: Replay | None = None


@dataclass(frozen=True)
class Optimization:
    """What became of an item.

    Attributes:
        item: The item as it is by now.
        attempts: The candidates; none where the optimizer had no idea.
        patch: The file with the change that was proven.
        is_applied: Whether the project has it: that was wanted, and its files were as they had been copied.
    """

    item: QueueItem
    attempts: tuple[Attempt, ...] = ()
    patch: Path | None = None
    is_applied: bool = False

    @property
    def proven(self) -> Attempt | None:
        """The candidate that holds."""
        return next((attempt for attempt in self.attempts if attempt.is_proven), None)


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
    item = queue.claim(which, optimizer.name, options.lease_s)
    with _released(queue, item.id, optimizer.name), SessionReader(Path(base_path)) as reader:
        engine = DuckDBEngine(reader)
        recorded = located(recorded_calls(engine, item.component), options.project)
        asked = options.replay.asked_by_name or which == item.component or options.replay.setup is not None
        require_permission(recorded, asked_by_name=asked)
        if not recorded.calls:
            raise NotReplayableError(f"No call of {item.component!r} can be run again, so nothing could be proven.")
        options = replace(options, replay=replace(options.replay, asked_by_name=asked))
        return _Optimizing(queue, item, optimizer, options, recorded, engine).run()


@contextlib.contextmanager
def _released(queue: OptimizationQueue, item_id: str, by: str) -> Iterator[None]:
    """Give the item back when something goes wrong."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(DebugStoreError):
            queue.release(item_id, by)
        raise


class _Optimizing:
    """One item, on its way."""

    def __init__(
        self,
        queue: OptimizationQueue,
        item: QueueItem,
        optimizer: Optimizer,
        options: OptimizeOptions,
        recorded: Recorded,
        engine: DuckDBEngine,
    ) -> None:
        self._queue = queue
        self._item = item
        self._optimizer = optimizer
        self._options = options
        self._recorded = recorded
        self._engine = engine
        self._project = options.project.resolve()
        self._tests = options.tests if options.tests is not None else tuple(item.tests)

    def run(self) -> Optimization:
        """Ask for candidates, and try them, one after the other, until one holds."""
        with self._scratch() as original:
            root = self._root(original)
            candidates = self._proposed()
            if not candidates:
                return Optimization(self._queue.release(self._item.id, self._optimizer.name))
            if self._tests:
                before = self._run_tests(original, root)
                if not before.is_ok:
                    raise OptimizerError(f"The tests fail without any change, so they prove nothing: {_said(before)}")
            attempts: list[Attempt] = []
            for number, candidate in enumerate(candidates[:_MAX_CANDIDATES]):
                if number:
                    self._item = self._queue.claim(self._item.id, self._optimizer.name, self._options.lease_s)
                attempts.append(self._try(candidate, original, root))
                if attempts[-1].is_proven:
                    return self._proven(attempts, original)
        return Optimization(self._queue.get(self._item.id), tuple(attempts))

    def _scratch(self) -> Scratch:
        return Scratch(self._project, (self._queue.base_path,))

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

    def _proposed(self) -> Sequence[Candidate]:
        with self._scratch() as scratch:
            file = scratch.path_of(self._recorded.file_path) if self._recorded.file_path else None
            task = Task(
                self._item,
                package(self._item, self._options.max_tokens),
                self._recorded,
                self._engine,
                scratch,
                file if file is not None and file.is_file() else None,
            )
            return self._optimizer.propose(task)

    def _try(self, candidate: Candidate, original: Scratch, root: str) -> Attempt:
        self._queue.propose(self._item.id, candidate.title, self._optimizer.name)
        with self._scratch() as scratch:
            attempt = self._judged(candidate, original, scratch, root)
        evidence = None if attempt.replay is None else self._evidence(attempt.replay, candidate)
        if attempt.is_proven:
            self._item = self._queue.prove(self._item.id, evidence, self._optimizer.name)
        else:
            self._item = self._queue.reject(self._item.id, attempt.why, evidence, self._optimizer.name)
        return attempt

    def _judged(self, candidate: Candidate, original: Scratch, scratch: Scratch, root: str) -> Attempt:
        """Apply a candidate, test it, and replay."""
        try:
            scratch.apply(candidate.files)
            for name, text in candidate.files.items():
                if text is not None and name.endswith(".py"):
                    compile(text, name, "exec", dont_inherit=True)
        except (OptimizerError, SyntaxError, ValueError) as error:
            return Attempt(candidate, False, f"It can't be applied: {error}")
        tests = self._run_tests(scratch, root) if self._tests else None
        if tests is not None and not tests.is_ok:
            return Attempt(candidate, False, f"The tests fail with it: {_said(tests)}", tests)
        found = self._replay(original, scratch, root)
        is_proven = found.verdict == "faster" and found.right > 0
        return Attempt(candidate, is_proven, found.cause, tests, found)

    def _run_tests(self, scratch: Scratch, root: str) -> Outcome:
        outer = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        paths = [
            str(scratch.folder / root),
            str(scratch.folder),
            *(str(scratch.path_of(path) or path) for path in outer if path),
        ]
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "_OTEL_"))}
        return run_command(
            self._tests,
            cwd=scratch.folder,
            environment=kept | {"PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
            timeout_s=self._options.test_timeout_s,
        )

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
            return Replay(self._item.component, Comparison("failed", str(error)))

    def _evidence(self, found: Replay, candidate: Candidate) -> Evidence:
        return evidence_of(found, candidate.title)

    def _proven(self, attempts: Sequence[Attempt], original: Scratch) -> Optimization:
        """Write the patch of the last attempt; apply it if that is wanted, and nobody changed the files meanwhile."""
        files = attempts[-1].candidate.files
        before = {name: _text_of(original.folder / name) for name in files}
        folder = self._queue.base_path / PATCHES
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self._item.id}.patch"
        path.write_text(make_patch(before, files), encoding="utf-8")
        is_unchanged = before == {name: _text_of(self._project / name) for name in files}
        if self._options.apply and is_unchanged:
            write_files(self._project, files)
        return Optimization(self._item, tuple(attempts), path, self._options.apply and is_unchanged)


def evidence_of(found: Replay, candidate: str) -> Evidence:
    """Return what a replay says of a candidate, for the queue."""
    return replace(Evidence.of(found.to_dict()), candidate=candidate)


def _said(outcome: Outcome) -> str:
    """Return how a command ended, with the last that it printed."""
    printed = (outcome.stdout.text.strip() or outcome.stderr.text.strip()).splitlines()
    failed = next((line for line in reversed(printed) if line.startswith(("FAILED", "E  ", "ERROR"))), "")
    last = failed or (printed[-1] if printed else "")
    return f"{outcome.cause} {last[:_MAX_SAID]}".strip()


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _text_of(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
