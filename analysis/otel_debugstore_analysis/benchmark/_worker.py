"""A process that measures: it reads requests from one pipe, and writes answers to another, a line of JSON each.

Standard library only, but for the functions it measures. Its standard streams are not the user's: input is empty, and
what is printed is thrown away.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import json
import mmap
import os
import pickle
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, Final, NoReturn

from otel_debugstore_analysis.benchmark import _timing
from otel_debugstore_analysis.benchmark._comparing import Comparing
from otel_debugstore_analysis.benchmark._outcome import error_name, outcome_of, said
from otel_debugstore_analysis.benchmark._subjects import CALL, FORKED, SETUP, SIDES, FailedError
from otel_debugstore_analysis.benchmark.model import Job, Outcome
from otel_debugstore_analysis.processes import keeper

_PR_SET_PDEATHSIG: Final = 1
_TRIES: Final = 4


class Worker(Comparing):
    """What can be asked of a process that measures."""

    def __init__(self, job: Job, state: mmap.mmap) -> None:
        super().__init__(job, state)
        self._loops: list[list[int]] = []

    def prepare(self) -> dict[str, Any]:
        """Import, set up, compare the outputs, and calibrate."""
        self._load()
        self._hook(self._job.setup, SETUP)
        self._make_inputs()
        for number in range(len(self._inputs)):
            self._compare(number)
        self._settle()
        self._calibrate()
        round_ns = 0.0
        if self._job.loops is None:
            round_ns = sum(
                self._time(case, side, loops)
                for case, both in enumerate(self._loops)
                for side, loops in enumerate(both)
            )
        return {
            "round_ns": round_ns,
            "loops": self._loops,
            "notes": self._notes,
            "changes": [call[0] is None for call in self._calls],
        }

    def rounds(self, count: int) -> dict[str, Any]:
        """Time so many pairs of every input; the inputs, and the two of a pair, in random order."""
        found: list[list[tuple[float, float, bool]]] = []
        cases = list(range(len(self._inputs)))
        for _ in range(count):
            times = [(0.0, 0.0, True)] * len(cases)
            self._chance.shuffle(cases)
            for case in cases:
                times[case] = self._pair(case)
            found.append(times)
            if self._job.gc == "disabled":
                gc.collect()
        return {"rounds": found}

    def finish(self) -> dict[str, Any]:
        """Compare the outputs once more: what remembers its inputs may be wrong by now."""
        for number in range(len(self._inputs)):
            self._compare(number, again=True)
        self._hook(self._job.teardown, SETUP)
        self._require_no_escaped()
        return {"notes": self._notes, "checked": self._checked}

    def memory(self) -> dict[str, Any]:
        """Return the most memory that a call takes, and what it keeps, by side: the largest of all inputs."""
        import tracemalloc

        most = [[0, 0], [0, 0]]
        for case, side in ((case, side) for case in range(len(self._inputs)) for side in range(2)):
            call = self._own_call(case, side)
            self._at(CALL, side, case)
            gc.collect()
            tracemalloc.start()
            try:
                blocks, began = sys.getallocatedblocks(), tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
                outcome = outcome_of(call)
                peak = tracemalloc.get_traced_memory()[1] - began
                kept = sys.getallocatedblocks() - blocks
            finally:
                tracemalloc.stop()
            del outcome
            most[side] = [max(most[side][0], peak), max(most[side][1], kept)]
        return {"memory": most}

    def variants(self) -> dict[str, Any]:
        """Return which code ran, by side."""
        from otel_debugstore.code_identity import variant_of

        return {"variants": [variant_of(function) for function in self._functions]}

    def run_only(self, side: int, case: int, calls: int) -> None:
        """Call one side with one input so often."""
        self._load()
        self._hook(self._job.setup, SETUP)
        self._make_inputs()
        given = self._inputs[case]
        self._worlds[side].enter()
        bound = _timing.bound(self._functions[side], given.args, given.kwargs)
        call = _timing.never_raising(bound) if self._job.cases[case].may_raise else bound
        gc.collect()
        gc.disable()
        for _ in range(calls):
            call()

    def _own_call(self, number: int, side: int) -> _timing.Call:
        """Return a call with an input of its own."""
        args, kwargs = self._inputs[number].copied()
        call = _timing.bound(self._functions[side], args, kwargs)
        self._worlds[side].enter()
        return _timing.never_raising(call) if self._raises[number] else call

    def _settle(self) -> None:
        """Put aside what the garbage collector would look through in every collection."""
        gc.collect()
        gc.freeze()
        if self._job.gc == "disabled":
            gc.disable()
        if threading.active_count() > 1:
            self._note("A function, or what it imports, runs threads beside it.")

    def _calibrate(self) -> None:
        if self._job.loops is not None:
            self._loops = [list(loops) for loops in self._job.loops]
            return
        for case in range(len(self._inputs)):
            found = []
            for side in range(2):
                changes = self._calls[case][side] is None
                most = _timing.MAX_COPIES if changes else _timing.MAX_LOOPS
                found.append(_timing.calibrated(functools.partial(self._time, case, side), most))
            if max(found) <= 2 * min(found):  # the same for both, unless they are far apart
                found = [max(found)] * 2
            self._loops.append(found)

    def _pair(self, case: int) -> tuple[float, float, bool]:
        """Return the nanoseconds of a call of each side, and whether no other process had the processor meanwhile.

        Where one had, the pair is timed again, a few times. That says nothing of the functions: whether they wait, and
        how long they take, is not looked at.
        """
        for _ in range(_TRIES):
            before = _timing.preemptions()
            first = self._chance.randrange(2)
            halves = {side: self._half(case, side) for side in (first, 1 - first)}
            if _timing.preemptions() == before:
                return halves[0], halves[1], True
            os.sched_yield()  # and begin with a slice of our own
        return halves[0], halves[1], False

    def _half(self, case: int, side: int) -> float:
        """Return the nanoseconds of a call."""
        loops = self._loops[case][side]
        return self._time(case, side, loops) / loops

    def _time(self, case: int, side: int, loops: int) -> int:
        self._worlds[side].enter()
        call = self._calls[case][side]
        own = [self._own_call(case, side) for _ in range(loops)] if call is None else []
        self._at(CALL, side, case)
        try:
            taken = _timing.time_each_ns(own) if call is None else _timing.time_ns(call, loops)
        except BaseException as error:
            outcome = Outcome(None, error_name(error), str(error))
            raise FailedError(
                f"The {SIDES[side]} {said(outcome)} after it was called again and again{self._with(case)}.", side, case
            ) from error
        self._require_same_process(side, case)
        return taken


def serve(job: Job, requests: int, answers: int, state: int) -> None:
    """Answer requests until there are no more.

    Args:
        job: What to measure.
        requests, answers, state: File descriptors.
    """
    with mmap.mmap(state, mmap.PAGESIZE) as page, os.fdopen(requests, "rb") as asked:
        _prepare_process(page)
        worker = Worker(job, page)
        for line in asked:
            request = json.loads(line)
            nonce = request.pop("nonce")
            try:
                answer = getattr(worker, request.pop("do"))(**request)
            except FailedError as error:
                answer = {"failed": error.answer}
            except BaseException as error:  # noqa: BLE001  # a defect of this file, or no memory
                answer = {
                    "failed": {"cause": f"{error_name(error)}: {error}", "side": None, "case": None, "wrong": False}
                }
                answer["failed"]["trace"] = traceback.format_exc()
            if os.getpid() != worker.pid:
                os._exit(0)
            _write(answers, json.dumps({**answer, "nonce": nonce}).encode() + b"\n")


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _prepare_process(page: mmap.mmap) -> None:
    """Take the user's terminal out of reach, and see to it that this process ends with the one that asks."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nothing, descriptor)
    sys.stdin, sys.stdout, sys.stderr = open(0, closefd=False), open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)

    def forks() -> None:
        page[FORKED] = 1

    os.register_at_fork(before=forks)
    with contextlib.suppress(Exception):  # Linux only
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def keep_serving(serve_: Callable[[], None], status: int, control: int) -> NoReturn:
    """Serve in a fork of this process, which ends whatever that leaves behind, and then itself.

    Args:
        serve_: What the fork does.
        status, control: File descriptors, as `keeper.keep` has them.
    """

    def run() -> None:
        os.close(status)
        serve_()
        os._exit(0)

    try:
        keeper.keep(status, control, run)
    finally:
        os._exit(0)


def main() -> None:
    """Serve, in a fresh interpreter: the arguments are descriptors."""
    requests, answers, state, status, control = (int(text) for text in sys.argv[1:6])
    keep_serving(functools.partial(_receive_and_serve, requests, answers, state), status, control)


def _receive_and_serve(requests: int, answers: int, state: int) -> None:
    """Serve; the job comes first."""
    with os.fdopen(os.dup(requests), "rb", buffering=0) as first:
        size = int(first.read(16))
        data = b""
        while len(data) < size:
            data += first.read(size - len(data))
        try:
            job: Job = pickle.loads(data)
        except BaseException as error:  # noqa: BLE001  # a class of an input that can't be imported
            cause = f"The inputs can't be had in a fresh interpreter ({error_name(error)}: {error})."
            answer = {"failed": {"cause": cause, "side": None, "case": None, "wrong": False}}
            answer["nonce"] = json.loads(first.readline())["nonce"]
            _write(answers, json.dumps(answer).encode() + b"\n")
            return
    serve(job, requests, answers, state)


def call_often(file: str, side: str, case: str, calls: str) -> None:
    """Call one of the functions so often: for counting instructions. Nothing is compared here.

    Args:
        file: Holds the job.
        side, case: Which function, with which input.
        calls: How often.
    """
    with open(file, "rb") as opened:  # noqa: PTH123  # pathlib takes a while to be imported
        job: Job = pickle.load(opened)
    Worker(job, mmap.mmap(-1, mmap.PAGESIZE)).run_only(int(side), int(case), int(calls))
    os._exit(0)
