"""Drives the two sides of a replay: `python -m otel_debugstore_analysis.replay.runner REQUEST RESULT`.

First every input goes once through both versions, and what came out is held against what was recorded and against each
other. Then, where a version remembers earlier calls, the recorded sequence is timed: in pairs of processes that never
ran it, in random order, with several generations of both sides, each with a hash seed of its own.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any, Final

import msgpack

from otel_debugstore_analysis.replay.frames import FrameTimeout, read_frame, write_frame
from otel_debugstore_analysis.replay.request import Request

_LOAD_TIMEOUT_S: Final = 60.0
_RESTARTS: Final = 3
_REMEMBERED: Final = 0.5
"""A version whose calls take less than this share of their time when they are repeated remembers something."""
_MIN_PROCESSES: Final = 6
_MIN_PAIRS: Final = 3


class SideError(Exception):
    """A side can't go on; the text is a sentence."""


class SideProcess:
    """One version of the function, in a process."""

    def __init__(self, request_path: Path, name: str, hash_seed: int = 0) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "otel_debugstore_analysis.replay.side", str(request_path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONHASHSEED": str(hash_seed)},
            process_group=0,
        )

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def ask(self, kind: str, *rest: Any, timeout_s: float = _LOAD_TIMEOUT_S) -> Any:
        """Return the answer to a question.

        Raises:
            SideError: It can't be answered, or the process ended or hung over it.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            write_frame(self._process.stdin.fileno(), [kind, *rest])
            answer = read_frame(self._process.stdout.fileno(), timeout_s)
        except FrameTimeout:
            self.close()
            raise SideError(f"it did not end within {timeout_s:g} s.") from None
        except OSError:
            answer = None
        if answer is None:
            self.close()
            raise SideError(f"its process {_ending(self._process.returncode)}.")
        if "ok" not in answer:
            raise SideError(next(iter(answer.values())))
        return answer["ok"]

    def close(self) -> None:
        """End it, and what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._process.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.05)
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"


class Checked:
    """One side's calls: how each input ended."""

    def __init__(self, request: Request, path: Path, name: str) -> None:
        self._request, self._path, self._name = request, path, name
        self.calls: dict[int, dict[str, Any]] = {}
        self.failures: dict[int, str] = {}
        self.modules: list[str] = []
        self.parameters: list[str] = []
        self.facts: dict[str, Any] = {}

    def run(self, parameters: list[str] | None, baseline: dict[int, dict[str, Any]] | None) -> None:
        """Run every input, those that take longest last.

        Args:
            parameters: Those of the baseline; None of itself.
            baseline: What the baseline did; of other inputs nothing is run.

        Raises:
            SideError: The function can't be loaded, or ended its process again and again.
        """
        order = [number for number in range(len(self._request.inputs)) if baseline is None or number in baseline]
        while order:
            side = SideProcess(self._path, self._name)
            try:
                self.facts = side.ask("load", [])
                self.parameters = self.facts["parameters"] if parameters is None else parameters
                side.ask("begin", self.parameters)
                self._run(side, order, baseline)
                self.modules = side.ask("end") if not order else []
            finally:
                side.close()
            if len(self.failures) > _RESTARTS:
                raise SideError(f"{len(self.failures)} inputs ended it: {next(iter(self.failures.values()))}")

    def _run(self, side: SideProcess, order: list[int], baseline: dict[int, dict[str, Any]] | None) -> None:
        timeout_s = self._request.timeout_s
        while order:
            number = order.pop(0)
            try:
                against = None if baseline is None else baseline[number]
                call = side.ask("call", number, against, timeout_s=timeout_s)
                self.calls[number] = call | {"again_ns": side.ask("again", number, timeout_s=timeout_s)}
            except SideError as error:
                self.failures[number] = str(error)
                return

    def repeated_share(self) -> float:
        """Return which share of their time calls take when they are repeated; the first call warms up."""
        calls = list(self.calls.values())
        counted = calls[1:] or calls
        first = sum(call["first_ns"] for call in counted)
        return sum(call["again_ns"] for call in counted) / first if first else 1.0


def check(request: Request, path: Path) -> dict[str, Any]:
    """Run every input through both sides; return what came of it."""
    baseline, candidate = Checked(request, path, "baseline"), Checked(request, path, "candidate")
    try:
        baseline.run(None, None)
    except SideError as error:
        return {"failed": ["baseline", str(error)]}
    steady = {number: call for number, call in baseline.calls.items() if call["recorded"] in ("", None)}
    for_candidate = {number: {key: call.get(key) for key in _SHOWN} for number, call in steady.items()}
    try:
        candidate.run(baseline.parameters, for_candidate)
    except SideError as error:
        return {"failed": ["candidate", str(error)]}
    return {
        "parameters": baseline.parameters,
        "facts": [baseline.facts, candidate.facts],
        "modules": sorted({*baseline.modules} & {*candidate.modules}),
        "inputs": [_judged(number, baseline, candidate, steady) for number in range(len(request.inputs))],
        "other_texts": sum(
            call["error"] is not None and call["message"] != steady[number]["message"]
            for number, call in candidate.calls.items()
            if call["error"] == steady[number]["error"]
        ),
        "repeated_share": [baseline.repeated_share(), candidate.repeated_share()],
    }


_SHOWN: Final = ("error", "arguments", "pickled", "output")


def _judged(number: int, baseline: Checked, candidate: Checked, steady: dict[int, dict[str, Any]]) -> tuple[str, str]:
    """Return "right", "unknown", "wrong" or "unsteady", and why."""
    if number not in steady:
        return "unsteady", baseline.failures.get(number) or baseline.calls[number]["recorded"]
    if number in candidate.failures:
        return "failed", candidate.failures[number]
    call = candidate.calls[number]
    wrong = call["baseline"] or call["recorded"]
    if wrong:
        return "wrong", wrong
    return ("unknown", "") if call["baseline"] is None and call["recorded"] is None else ("right", "")


def measure(request: Request, path: Path, checked: dict[str, Any]) -> dict[str, Any]:
    """Time the recorded sequence; return the pairs of every process."""
    chance = random.Random(request.seed)
    began, units = time.monotonic(), list[dict[str, Any]]()
    timeout_s = max(_LOAD_TIMEOUT_S, request.timeout_s * 2)
    pairs = request.pairs
    for generation in range(request.processes):
        if len(units) >= _MIN_PROCESSES and time.monotonic() - began > request.max_seconds:
            break
        sides = {name: SideProcess(path, name, generation + 1) for name in ("baseline", "candidate")}
        try:
            for side in sides.values():
                side.ask("load", checked["modules"])
            unit = _unit(sides, request, pairs, checked["parameters"], chance, timeout_s)
        except SideError as error:
            return {"failed": ["candidate", f"The recorded sequence can't be timed: {error}"], "units": units}
        finally:
            for side in sides.values():
                side.close()
        units.append(unit)
        taken = time.monotonic() - began
        if generation == 0 and taken * request.processes > request.max_seconds:
            pairs = max(_MIN_PAIRS, int(pairs * request.max_seconds / (taken * request.processes)))
    return {"units": units}


def _unit(
    sides: dict[str, SideProcess],
    request: Request,
    pairs: int,
    parameters: list[str],
    chance: random.Random,
    timeout_s: float,
) -> dict[str, Any]:
    totals: list[list[int]] = []
    classes: dict[str, list[list[int]]] = defaultdict(list)
    for number in range(pairs + 1):
        order = ["baseline", "candidate"]
        chance.shuffle(order)
        times = {name: sides[name].ask("time", parameters, timeout_s=timeout_s) for name in order}
        if number == 0:  # the first pair of a process warms up what it shares with the others: files, pages
            continue
        totals.append([sum(times["baseline"]), sum(times["candidate"])])
        by_class: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        for place, name in enumerate(("baseline", "candidate")):
            for wanted, taken in zip(request.sequence, times[name], strict=True):
                by_class[request.inputs[wanted].label][place] += taken
        for label, pair in by_class.items():
            classes[label].append(pair)
    return {"pid": sides["candidate"].pid, "pairs": totals, "classes": dict(classes)}


def main() -> None:
    """Run a request, and write its result."""
    path, result_path = Path(sys.argv[1]), Path(sys.argv[2])
    request = Request.read(path)
    found = check(request, path)
    if "failed" not in found and not any(status in ("wrong", "failed") for status, _ in found["inputs"]):
        steady = [number for number in request.sequence if found["inputs"][number][0] != "unsteady"]
        found["remembers"] = min(found["repeated_share"]) < _REMEMBERED
        if (found["remembers"] or request.always_sequence) and steady and not request.check_only:
            timed = Request(**{**vars(request), "sequence": tuple(steady)})
            timed.write(path)
            found |= measure(timed, path, found)
    result_path.write_bytes(msgpack.packb(found))


if __name__ == "__main__":
    main()
