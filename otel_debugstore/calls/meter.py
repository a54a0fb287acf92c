"""`Meter`: which calls of a component become spans, so that recording stays within its budget.

After 1,000 calls, whenever recording took a larger share of the time than the budget, calls are sampled: each is
recorded with a probability p that was settled before it began, written down as `ot=th` of the span's trace
state. All others are counted exactly, with their errors and the sum of their times. A call that was not sampled,
but failed, or took longer than a limit fixed when sampling began, is written at its end ("late"); so all
late calls have weight 1, and the others 1/p among the calls that are not late. Late spans are bounded by the
budget as well: those beyond it are only counted.
Threads: counters are changed by `+=` between whose load and store CPython does not switch threads.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from math import log1p
from random import Random
from time import perf_counter_ns, time_ns
from typing import Final

from otel_debugstore.fork import reset_after_fork
from otel_debugstore.outbox import OUTBOX, CallCount

SETTLING_CALLS: Final = 1_000
_WINDOW_NS: Final = 100_000_000
_LATE_FACTOR: Final = 10
_MIN_LATE_NS: Final = 1_000_000
_LATE_BURST: Final = 100
_BITS: Final = 56
_MIN_PROBABILITY: Final = 1 / 65_536
_MAX_RISE: Final = 4.0
"""The probability grows at most by this factor at once: few calls say little of what recording costs."""
_NEVER: Final = 1 << 62
_NO_MEAN_NS: Final = float(_NEVER)  # to compare a float with an integer takes twice as long
_SMOOTHING: Final = 1 / 8
_LATER_SMOOTHING: Final = 8
_LATER_NS: Final = 10_000
"""Until the first ones are written."""


class Meter:
    """Counts the calls of one component, and says which become spans.

    Attributes:
        skip: Calls that will not be recorded until the next one that is; 0 records the next.
        call_count, error_count, duration_ns: Of calls that did not become spans, since they were last taken.
        budget: Which share of the time recording may take; None records every call.
        late_ns: Calls that take longer are recorded at their end.
        later_ns: About what a recorded call costs after its end, where that is done later.
        mean_ns: About how long calls took lately; of the first one it is not known, and large.
    """

    __slots__ = (
        "__weakref__",
        "_bare_ns",
        "_calls",
        "_component",
        "_late_left",
        "_layer",
        "_random",
        "_recorded_total",
        "_recording_total_ns",
        "_taken_at_ns",
        "_window_began_ns",
        "_window_calls",
        "_window_later_ns",
        "_window_recording_ns",
        "budget",
        "call_count",
        "duration_ns",
        "error_count",
        "late_ns",
        "later_ns",
        "mean_ns",
        "probability",
        "recorded_count",
        "recording_ns",
        "skip",
    )

    def __init__(self, layer: str, component: str, budget: float | None) -> None:
        """Make a meter.

        Args:
            layer: The component's.
            component: Its name.
            budget: Which share of the time recording may take; None records every call.
        """
        self._layer = layer
        self._component = component
        self.budget = budget
        self.after_fork_in_child()
        reset_after_fork(self)
        OUTBOX.add_counter(self.take)

    def after_fork_in_child(self) -> None:
        """Start over: what was counted belongs to the parent."""
        self._random = Random(os.urandom(16)).random  # not the program's generator, nor the parent's
        self.probability = 1.0
        self.skip = 0
        self.late_ns = _NEVER
        self.mean_ns = _NO_MEAN_NS
        self.later_ns = _LATER_NS
        self._late_left = _LATE_BURST
        self.call_count = self.error_count = self.duration_ns = 0
        self.recorded_count = self.recording_ns = 0
        self._recorded_total = self._recording_total_ns = 0
        self._taken_at_ns = time_ns()
        self._calls = 0  # up to the last window
        self._bare_ns = 0
        self._begin_window()

    @property
    def has_budget(self) -> bool:
        """Whether calls may be sampled."""
        return self.budget is not None

    def recorded(self, duration_ns: int, recording_ns: int, later_ns: int = 0) -> None:
        """Count a call that became a span, what that cost, and what it is going to cost."""
        self.recorded_count += 1
        self.recording_ns += recording_ns
        mean_ns = self.mean_ns
        self.mean_ns = mean_ns + (duration_ns - mean_ns) * _SMOOTHING if mean_ns < _NO_MEAN_NS else duration_ns + 0.0
        if self.budget is None:
            return
        self._window_calls += 1
        self._window_recording_ns += recording_ns
        self._window_later_ns += later_ns
        if self._calls < SETTLING_CALLS:
            self._bare_ns += duration_ns
        if self._calls + self._window_calls >= SETTLING_CALLS:
            now = perf_counter_ns()
            if now - self._window_began_ns >= _WINDOW_NS or self._calls < SETTLING_CALLS:
                self._settle(now)

    def not_recorded(self, duration_ns: int, is_error: bool, recording_ns: int) -> None:
        """Count a call that was to become a span, had not the provider's sampler decided otherwise."""
        OUTBOX.expect_counts()
        self.recorded(duration_ns, recording_ns)
        self.recorded_count -= 1
        self.call_count += 1
        self.error_count += is_error
        self.duration_ns += duration_ns

    def recorded_late(self, recording_ns: int) -> None:
        """Count a call that was not sampled and became a span at its end, and what that cost."""
        self.recorded_count += 1
        self.recording_ns += recording_ns
        self._window_recording_ns += recording_ns

    def recorded_steps(self, recording_ns: int) -> None:
        """Count what steps of a call cost that becomes a span, and has not ended yet."""
        self.recording_ns += recording_ns
        self._window_recording_ns += recording_ns

    def recorded_later(self, count: int, each_ns: int) -> None:
        """Count what so many recorded calls cost after their end.

        That is known up to a second later, when `recorded` has counted a guess already, which is made better by it.
        """
        self.recording_ns += count * each_ns
        self.later_ns += (each_ns - self.later_ns) // _LATER_SMOOTHING

    def affords(self, recording_ns: int, elapsed_ns: int) -> bool:
        """Return whether recording may take so much of that time."""
        return self.budget is None or recording_ns <= self.budget * (elapsed_ns - recording_ns)

    def may_write_late(self) -> bool:
        """Return whether the budget has room for a span of a call that was not sampled."""
        if self._late_left < 1:
            return False
        self._late_left -= 1
        return True

    def sampled(self) -> str:
        """Say that the call which begins now is recorded; return what its trace state says of that, where calls are
        sampled.

        As OpenTelemetry's "TraceState: Probability Sampling" has it: `ot=th:...;rv:...`, the probability and a
        randomness that fits it, sampled where rv >= th. Which call is the next one is drawn here and not when this one
        ends: those that begin meanwhile, in it or beside it, are recorded with the same probability as all others.
        """
        probability = self.probability
        self.skip = self._draw()
        if probability >= 1.0:
            return ""
        threshold = round((1.0 - probability) * (1 << _BITS))
        randomness = threshold + int(self._random() * ((1 << _BITS) - threshold))
        return f"th:{f'{threshold:014x}'.rstrip('0') or '0'};rv:{randomness:014x}"

    def take(self) -> list[CallCount]:
        """Return what was counted since the last time."""
        began, self._taken_at_ns = self._taken_at_ns, time_ns()
        if not (self.call_count or self.recorded_count or self.recording_ns):
            return []
        values = (self.call_count, self.error_count, self.duration_ns, self.recorded_count, self.recording_ns)
        self.call_count -= values[0]
        self.error_count -= values[1]
        self.duration_ns -= values[2]
        self.recorded_count -= values[3]
        self.recording_ns -= values[4]
        return [CallCount(began, self._taken_at_ns, self._layer, self._component, *values)]

    def set_budget(self, budget: float | None) -> float | None:
        """Record every call again, until recording them takes more than the budget; return the one before."""
        before, self.budget = self.budget, budget
        self.probability, self.skip, self.late_ns = 1.0, 0, _NEVER
        self._calls = self._bare_ns = 0
        self._begin_window()
        return before

    def _begin_window(self) -> None:
        self._window_began_ns = perf_counter_ns()
        self._window_calls = self._window_recording_ns = self._window_later_ns = 0

    def _settle(self, now: int) -> None:
        """Choose the probability by what the calls that were recorded in this window cost."""
        if self.probability >= 1.0:
            self._calls += self._window_calls
        elapsed = max(1, now - self._window_began_ns - self._window_recording_ns)
        affordable = (self.budget or 1.0) * elapsed
        cost = self._window_recording_ns + self._window_later_ns
        factor = min(_MAX_RISE, affordable / max(1, cost))
        self.probability = max(_MIN_PROBABILITY, min(1.0, self.probability * factor))
        if self.probability < 1.0 and self.late_ns == _NEVER:
            self.late_ns = max(_MIN_LATE_NS, _LATE_FACTOR * self._bare_ns // self._calls)
            OUTBOX.expect_counts()
        each = cost / max(1, self._window_calls)
        self._late_left = min(_LATE_BURST, self._late_left + max(1, round(affordable / max(1.0, each))))
        self.skip = self._draw()
        self._begin_window()

    def _draw(self) -> int:
        """Return how many calls to skip: geometric, so that each call is recorded with the probability."""
        if self.probability >= 1.0:
            return 0
        return int(log1p(-self._random()) / log1p(-self.probability))


@contextlib.contextmanager
def every_call_recorded() -> Iterator[None]:
    """Sample none of the components that there are, whatever recording costs meanwhile."""
    budgets = [(meter, meter.set_budget(None)) for meter in list(_meters.values()) if meter.has_budget]
    try:
        yield
    finally:
        for meter, budget in budgets:
            meter.set_budget(budget)


_MAX_METERS: Final = 10_000
_meters: Final[dict[tuple[str, str], Meter]] = {}


def meter_of(layer: str, component: str, budget: float | None) -> Meter:
    """Return the meter of all components of that layer and name: a function may be decorated again and again.

    Beyond 10,000 names all further ones of a layer share one.
    """
    key = (layer, component if len(_meters) < _MAX_METERS or (layer, component) in _meters else "(others)")
    found = _meters.get(key)
    return found if found is not None else _meters.setdefault(key, Meter(*key, budget))
