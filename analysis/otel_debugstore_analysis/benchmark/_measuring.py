"""The processes of a comparison, one after the other, or by turns: what they are asked, and what they found."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import platform
import statistics
import time
from collections.abc import Sequence
from typing import Final

from otel_debugstore.sequential import ConfidenceSequence
from otel_debugstore_analysis.benchmark._decision import LEAST_UNITS, decided
from otel_debugstore_analysis.benchmark._summing import (
    LEAST_PAIRS,
    MeasuredProcess,
    Rounds,
    cause_of,
    classes,
    notes_of,
    sequential,
)
from otel_debugstore_analysis.benchmark._workers import WorkerProcess
from otel_debugstore_analysis.benchmark.model import BenchmarkOptions, Job
from otel_debugstore_analysis.benchmark.results import Comparison, Memory, Unit

_START_S: Final = 0.1
_SEQUENTIAL_PROCESSES: Final = 5


class Measuring:
    """The processes of a comparison, and what they found so far."""

    def __init__(self, job: Job, options: BenchmarkOptions, forked: bool, notes: list[str]) -> None:
        self._job = job
        self._options = options
        self._forked = forked
        self.notes = notes
        self._rounds: list[tuple[int, Rounds]] = []
        self._checked = 0
        self._memory: Memory | None = None
        self._variants: Sequence[str | None] = (None, None)
        self._processes = options.processes
        self._pairs = options.pairs
        self._sequence: ConfidenceSequence | None = None

    def run(self) -> None:
        """Measure.

        Raises:
            WorkerFailedError: That can't be done.
        """
        if self._options.stop_early:
            self._run_sequentially()
            return
        began, number = time.monotonic(), 0
        while number < self._processes:
            with self._worker(number) as worker:
                self._prepare(worker)
                self._rounds.append((worker.pid, worker.ask("rounds", count=self._pairs)["rounds"]))
                number += 1
                self._keep_within(time.monotonic() - began, number)
                self._finish(worker, is_last=number == self._processes)

    def _run_sequentially(self) -> None:
        """Take turns among processes, a pair of each, until the pairs say something."""
        self._sequence = ConfidenceSequence(self._options.confidence)
        with contextlib.ExitStack() as stack:
            workers: list[WorkerProcess] = []
            while len(workers) < min(self._processes, _SEQUENTIAL_PROCESSES):
                workers.append(worker := stack.enter_context(self._worker(len(workers))))
                self._prepare(worker)
                worker.ask("rounds", count=LEAST_PAIRS)  # warm-up: what is seen of each pair must not change later
                self._rounds.append((worker.pid, []))
            for number in range(self._processes * self._pairs):
                place = number % len(workers)
                [times] = workers[place].ask("rounds", count=1)["rounds"]
                self._rounds[place][1].append(times)
                self._sequence.add(self._log_ratio(times))
                if self._sequence.verdict(self._options.min_effect) != "undecided":
                    break
            for number, worker in enumerate(workers):
                self._finish(worker, is_last=number == len(workers) - 1)

    def _worker(self, number: int) -> WorkerProcess:
        job = dataclasses.replace(self._job, seed=self._options.seed * 1_000_003 + number)
        return WorkerProcess(
            job,
            forked=self._forked,
            timeout_s=self._options.timeout_s,
            environment=self._options.environment,
        )

    def _prepare(self, worker: WorkerProcess) -> None:
        answer = worker.ask("prepare")
        self._note(answer["notes"])
        if self._job.loops is None:
            self._job = dataclasses.replace(self._job, loops=tuple((one, other) for one, other in answer["loops"]))
            self._fit(answer["round_ns"])

    def _finish(self, worker: WorkerProcess, *, is_last: bool) -> None:
        answer = worker.ask("finish")
        self._note(answer["notes"])
        self._checked += answer["checked"]
        if not is_last:
            return
        if self._options.memory:
            (one, other) = worker.ask("memory")["memory"]
            self._memory = Memory(one[0], other[0], one[1], other[1])
        self._variants = worker.ask("variants")["variants"]

    def _note(self, notes: Sequence[str]) -> None:
        self.notes += [note for note in notes if note not in self.notes]

    def _fit(self, round_ns: float) -> None:
        """Have fewer pairs, and then fewer processes, where all would take longer than they may."""
        seconds = round_ns / 1e9

        def whole() -> float:
            return self._processes * (_START_S + (self._pairs + 3) * seconds)

        limit = self._options.max_seconds
        if whole() <= limit:
            return
        fit = int((limit / self._processes - _START_S) / max(seconds, 1e-9)) - 3
        self._pairs = min(self._pairs, max(fit, LEAST_PAIRS))
        if whole() > limit:
            fit = int(limit / (_START_S + (self._pairs + 3) * seconds))
            self._processes = min(self._processes, max(fit, LEAST_UNITS))
        self.notes.append(
            f"A pair of all inputs takes {seconds:.3g} s: to stay near {limit:g} s there are {self._pairs} pairs "
            f"of each in {self._processes} processes."
        )

    def _keep_within(self, seconds: float, done: int) -> None:
        """Have fewer processes where those that there were took longer than was thought: the machine is busy."""
        limit = self._options.max_seconds
        possible = max(int(limit / seconds * done), LEAST_UNITS, done)
        if possible < self._processes:
            self.notes.append(
                f"The machine is busy: to stay near {limit:g} s {possible} processes measure, not {self._processes}."
            )
            self._processes = possible

    def _log_ratio(self, times: Sequence[tuple[float, float, bool]]) -> float:
        """Return the log-ratio of a round over all inputs."""
        totals = [
            sum(case.weight * pair[side] for case, pair in zip(self._job.cases, times, strict=True)) for side in (0, 1)
        ]
        return math.log(max(totals[1], 1e-3) / max(totals[0], 1e-3))

    def comparison(self, seconds: float) -> Comparison:
        """Return what was found."""
        is_sequential = self._sequence is not None
        units = [
            MeasuredProcess(pid, rounds, self._job.cases, not is_sequential) for pid, rounds in self._rounds if rounds
        ]
        whole = [unit.whole() for unit in units]
        options = self._options
        if self._sequence is None:
            decision = decided(
                [math.log(b / a) for a, b in whole], options.min_effect, options.confidence, options.seed
            )
            cause = cause_of(decision, options, len(units))
        else:
            decision, cause = sequential(self._sequence, options)
        return Comparison(
            decision.verdict,
            cause,
            decision.ratio,
            decision.low,
            decision.high,
            options.min_effect,
            statistics.median(a for a, _ in whole),
            statistics.median(b for _, b in whole),
            len(units),
            sum(len(unit.kept) for unit in units),
            self._checked,
            classes(units, self._job.cases, options),
            self._memory,
            tuple(
                Unit(unit.pid, platform.node(), *pair, tuple(map(self._log_ratio, unit.kept)), unit.dropped)
                for unit, pair in zip(units, whole, strict=True)
            ),
            (*self.notes, *notes_of(units)),
            seconds,
            baseline_variant=self._variants[0],
            candidate_variant=self._variants[1],
        )
