"""Whether two functions do the same: outputs, exceptions, and what they do to their input. Standard library only."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from typing import Any

from otel_debugstore_analysis.benchmark import _timing
from otel_debugstore_analysis.benchmark._outcome import (
    NotComparableError,
    difference,
    error_name,
    said,
    values_differ,
)
from otel_debugstore_analysis.benchmark._subjects import SIDES, FailedError, Input, Subjects
from otel_debugstore_analysis.benchmark.model import Job, Outcome


class Comparing(Subjects):
    """Functions that are held against each other, and what is known of them by that."""

    def __init__(self, job: Job, state: mmap.mmap) -> None:
        super().__init__(job, state)
        self._calls: list[list[Any]] = []
        """By case and side what the loop calls; None where each call has an input of its own."""
        self._raises: list[bool] = []
        self._checked = 0

    def _compare(self, number: int, again: bool = False) -> None:
        """Call both with an input, and hold what they do against each other.

        Raises:
            FailedError: One fails, or is wrong.
        """
        case, given = self._job.cases[number], self._inputs[number]
        after = " after it was timed" if again else ""
        outcomes, changed, arguments = [], [], []
        for side in range(2):
            own = given.copied()
            outcome = self._outcome(number, side, own)
            if outcome.error is not None and not case.may_raise and not (given.expected and given.expected.error):
                raise FailedError(f"The {SIDES[side]} {said(outcome)}{after}{self._with(number)}.", side, number)
            outcomes.append(outcome)
            arguments.append(own)
            changed.append(self._changed(given, own))
        if given.expected is not None:
            for side in range(2):
                self._require_same(given.expected, outcomes[side], side, number, ", as it was recorded")
        else:
            self._require_same(outcomes[0], outcomes[1], 1, number, after)
        self._require_same_changes(changed, arguments, number)
        self._checked += self._check.kind != "none"
        if not again:
            self._raises.append(outcomes[0].error is not None)
            self._calls.append([self._call(number, side, given, changed[0] is not None) for side in range(2)])

    def _require_same(self, wanted: Outcome, found: Outcome, side: int, number: int, what: str) -> None:
        try:
            differs = difference(wanted, found, self._check)
        except NotComparableError as error:
            blamed = 0 if type(wanted.value) is type(found.value) else side
            raise FailedError(
                f"The {SIDES[blamed]} returns what can't be compared{self._with(number)}: {error}.", blamed, number
            ) from error
        except Exception as error:
            raise FailedError(
                f"The outputs can't be compared{self._with(number)}: that raised {error_name(error)}: {error}."
            ) from error
        if differs is None:
            return
        if side == 1 and self._is_fickle(wanted, number):
            raise FailedError(
                f"The baseline itself returns something else each time{self._with(number)}, so no output can be called "
                "right: give a check.",
                0,
                number,
            )
        if side == 0:
            cause = f"The baseline does not do what was recorded{self._with(number)}: {differs}."
            raise FailedError(cause, 0, number)
        raise FailedError(f"The candidate is wrong{self._with(number)}: {differs}{what}.", 1, number, is_wrong=True)

    def _is_fickle(self, wanted: Outcome, number: int) -> bool:
        """Return whether the baseline does not do again what it did."""
        if self._inputs[number].expected is not None:
            return False
        again = self._outcome(number, 0, self._inputs[number].copied())
        with contextlib.suppress(Exception):
            return difference(wanted, again, self._check) is not None
        return False

    def _changed(self, given: Input, own: tuple[Any, Any]) -> str | None:
        """Return how a call changed its input, None if it did not or nobody knows."""
        if not given.can_copy:
            return None
        try:
            return values_differ((given.args, given.kwargs), own)
        except NotComparableError:
            return None
        except Exception:  # noqa: BLE001  # their own `==`
            return None

    def _require_same_changes(self, changed: Sequence[str | None], arguments: Sequence[Any], number: int) -> None:
        if changed[0] is None and changed[1] is None:
            return
        with_ = self._with(number)
        if changed[0] is None:
            raise FailedError(
                f"The candidate changes its input, which the baseline does not{with_}: {changed[1]}.", 1, number, True
            )
        if changed[1] is None:
            raise FailedError(
                f"The baseline changes its input, which the candidate does not{with_}: {changed[0]}.", 1, number, True
            )
        differs = values_differ(arguments[0], arguments[1], self._check)
        if differs is not None:
            raise FailedError(f"The two change their input differently{with_}: {differs}.", 1, number, True)
        self._note("Both functions change their input: every call that is timed has a copy of its own.")

    def _call(self, number: int, side: int, given: Input, changes: bool) -> Any:
        if changes:
            return None
        call = _timing.bound(self._functions[side], given.args, given.kwargs)
        return _timing.never_raising(call) if self._raises[number] else call
