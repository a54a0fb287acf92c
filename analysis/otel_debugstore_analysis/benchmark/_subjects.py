"""The two functions and their inputs, in the process that measures them: loaded, called, and watched.

Standard library only, but for the functions. Where the process is, it writes into a page of memory that the asking
process sees, so that this one can say which function was running when it hung, or died.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import random
import struct
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from otel_debugstore_analysis.benchmark._loading import LoadError, World, load, named, worlds_of
from otel_debugstore_analysis.benchmark._outcome import copy_of, error_name, outcome_of, said, short
from otel_debugstore_analysis.benchmark.model import Case, Check, Job, Outcome

SIDES: Final = ("baseline", "candidate")
IMPORT, SETUP, INPUTS, CALL = 1, 2, 3, 4
STATE: Final = struct.Struct("<QBBHBB")
"""Ticks, phase, side, case, whether it forked, whether a forked process came out of a call."""
FORKED: Final = 12
ESCAPED: Final = 13
NOT_ITS_OWN: Final = (
    "A function wrote into descriptors that are not its own: by some of these the process that measures says what it "
    "does and finds."
)
_ESCAPING_S: Final = 0.1
_MAX_SHOWN: Final = 100


class FailedError(Exception):
    """A function that can't be measured.

    Args:
        cause: One sentence.
        side: Whose fault it is, by its number; None: nobody's.
        case: The number of the input.
        is_wrong: Whether its output is wrong; if not, it has failed.
    """

    def __init__(self, cause: str, side: int | None = None, case: int | None = None, is_wrong: bool = False) -> None:
        super().__init__(cause)
        self.answer = {"cause": cause, "side": side, "case": case, "wrong": is_wrong}


class Input(NamedTuple):
    """What a case calls with, here."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    expected: Outcome | None
    can_copy: bool

    def copied(self) -> tuple[Any, Any]:
        return copy_of((self.args, self.kwargs)) if self.can_copy else (self.args, self.kwargs)


class _Printed(io.RawIOBase):
    """Counts what is printed while it is entered."""

    def __init__(self) -> None:
        self.count = 0
        self._former: tuple[Any, Any] = None, None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.count += len(data)
        return len(data)

    def __enter__(self) -> _Printed:
        self._former = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = io.TextIOWrapper(io.BufferedWriter(self), write_through=True)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):  # the function may have closed it
            sys.stdout.flush()
        sys.stdout, sys.stderr = self._former


class Subjects:
    """The functions, their inputs, and where in their calls this process is."""

    def __init__(self, job: Job, state: mmap.mmap) -> None:
        self._job = job
        self._state = state
        self._ticks = 0
        self.pid = os.getpid()
        self._chance = random.Random(job.seed)
        self._notes: list[str] = []
        self._inputs: list[Input] = []
        self._functions: list[Callable[..., Any]] = []
        self._worlds: Sequence[World] = ()
        self._check = job.check

    def _load(self) -> None:
        self._worlds = worlds_of(self._job.baseline, self._job.candidate)
        for side, reference in enumerate((self._job.baseline, self._job.candidate)):
            self._at(IMPORT, side)
            self._worlds[side].enter()
            try:
                self._functions.append(load(reference))
            except LoadError as error:
                raise FailedError(f"The {SIDES[side]} can't be loaded: {error}.", side) from error
            self._require_same_process(side, None)
        if isinstance(self._check.function, str):
            self._worlds[0].enter()
            self._check = Check("function", function=self._named(self._check.function, "check"))
        _suppress_recording()

    def _named(self, target: Any, what: str) -> Any:
        if callable(target):
            return target
        try:
            return named(target)
        except LoadError as error:
            raise FailedError(f"The {what} can't be loaded: {error}.") from error

    def _hook(self, hook: Any, phase: int) -> None:
        if hook is None:
            return
        self._at(phase)
        outcome = outcome_of(self._named(hook, "setup"))
        if outcome.error is not None:
            raise FailedError(f"The setup or teardown {said(outcome)}.")

    def _make_inputs(self) -> None:
        for number, case in enumerate(self._job.cases):
            self._at(INPUTS, 0, number)
            self._worlds[0].enter()
            args, kwargs, expected = self._made(case, number)
            try:
                copy_of((args, kwargs))
                can_copy = True
            except Exception as error:  # noqa: BLE001  # whatever its classes raise
                can_copy = False
                self._note(
                    f"Inputs can't be copied ({error_name(error)}): both functions get the same, and whether "
                    f"they change "
                    "them is not known."
                )
            self._inputs.append(Input(args, kwargs, expected, can_copy))

    def _made(self, case: Case, number: int) -> tuple[tuple[Any, ...], dict[str, Any], Outcome | None]:
        if case.make is None:
            return tuple(case.args), dict(case.kwargs), case.expected
        maker = self._named(case.make, "maker of inputs")
        made = outcome_of(lambda: maker(case.data))
        if made.error is not None:
            raise FailedError(f"The input of class {case.label!r} can't be made: its maker {said(made)}.", None, number)
        args, kwargs, *rest = made.value
        expected = Outcome(*rest[0]) if rest and rest[0] is not None else case.expected
        return tuple(args), dict(kwargs), expected

    def _outcome(self, number: int, side: int, own: tuple[Any, Any]) -> Outcome:
        self._at(CALL, side, number)
        self._worlds[side].enter()
        with _Printed() as printed:
            outcome = outcome_of(lambda: self._functions[side](*own[0], **own[1]))
        self._require_same_process(side, number, wait=True)
        if printed.count:
            self._note(f"The {SIDES[side]} prints, which takes its time; what it prints is thrown away.")
        return outcome

    def _at(self, phase: int, side: int = 0, case: int = 0) -> None:
        """Say where we are."""
        self._ticks += 1
        STATE.pack_into(self._state, 0, self._ticks, phase, side, case, self._state[FORKED], self._state[ESCAPED])

    def _require_same_process(self, side: int, case: int | None, wait: bool = False) -> None:
        """End a process that a function forked and that returned from it as well.

        Args:
            side, case: Which call it is.
            wait: Whether to give such a process a moment to come.
        """
        if os.getpid() != self.pid:
            self._state[ESCAPED] = 1 + side
            os._exit(0)
        if self._state[FORKED]:
            deadline = time.monotonic() + (_ESCAPING_S if wait else 0)
            while time.monotonic() < deadline and not self._state[ESCAPED]:
                time.sleep(0.005)
            self._state[FORKED] = 0
            self._require_no_escaped(case)

    def _require_no_escaped(self, case: int | None = None) -> None:
        if self._state[ESCAPED]:
            side = self._state[ESCAPED] - 1
            if side >= len(SIDES):
                raise FailedError(NOT_ITS_OWN, None, case)
            raise FailedError(
                f"The {SIDES[side]} forks, and the forked process returns from the call as well; it was ended.",
                side,
                case,
            )

    def _with(self, number: int) -> str:
        given = self._inputs[number]
        shown = ", ".join(
            [*map(short, given.args), *(f"{name}={short(value)}" for name, value in given.kwargs.items())]
        )
        return f" with ({shown if len(shown) <= _MAX_SHOWN else shown[:_MAX_SHOWN] + '...'})"

    def _note(self, text: str) -> None:
        if text not in self._notes:
            self._notes.append(text)


def _suppress_recording() -> None:
    """Have nothing recorded of what the functions call."""
    context = sys.modules.get("opentelemetry.context")
    if context is not None:
        key = context._SUPPRESS_INSTRUMENTATION_KEY
        context.attach(context.set_value(key, True))
