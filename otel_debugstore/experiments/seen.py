"""`Seen`: what this process has seen of an experiment since the last exchange, and all processes before.

A call that never ends would never be seen. So calls that are open are looked at, 50 times a second at most, when a call
begins: one that has been open for longer than a guard rail allows is slow, however it ends, and counts as that at once;
one that has been open for `FAR` times as long as the other half of its pair took counts as that. Both hold for the
control alike, so neither makes equal arms look different.

Loss: calls that end while another thread takes 65,536 others down are not counted.
Threads: any, and signal handlers: calls that ended wait in a queue, and whoever has the lock takes them down; no caller
waits for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from math import inf, log
from typing import Final, NamedTuple

from otel_debugstore.calls.outcome import outcome_of
from otel_debugstore.experiments.arm import TAKEN, OpenCalls, Slot
from otel_debugstore.experiments.evidence import Pairs, Tally
from otel_debugstore.experiments.judge import Breach, GuardRails, breach, breach_of_ratio
from otel_debugstore.guard import swallow
from otel_debugstore.log import warn_once

_RETURNED, _FAILED, _NEITHER = range(3)  # what was cancelled is neither
_MAX_WAITING: Final = 65_536
_GROWTH: Final = 1.2
"""Evidence is judged again when there is so much more of it."""
_LOCK_SECONDS: Final = 0.1
_LOOK_NS: Final = 20_000_000
FAR: Final = 20.0
"""By how many times a half of a pair is longer than the other, at least, to count before it ended. Logarithms of ratios
are clipped far below this (`sequential.CLIP`), so that it matters no more how much longer it takes."""
_LOG_FAR: Final = log(FAR)

_Ended = tuple[int, int, int, Slot | None, bool, int]
"""The arm's number, when the call began, nanoseconds, what it is a half of, whether it counts, and how it ended."""


class News(NamedTuple):
    """What was seen since the last exchange, by the number of the arm."""

    tallies: list[Tally]
    pairs: list[Pairs]


class Seen:
    """See the module's first lines. Arms are numbered; 0 is the control."""

    def __init__(self, stop: Callable[[int, Breach], None]) -> None:
        """Make a place for what is seen.

        Args:
            stop: Is called with the number of an arm that has to be stopped; perhaps more than once.
        """
        self._stop = stop
        self._rails = GuardRails()
        self._limit_ns = inf  # beyond it a call is slow
        self.is_judging_pairs = True
        """Whether pairs are judged in the thread of the call; it takes up to a millisecond, not at every pair."""
        self.look_at_ns = 0
        """When open calls are to be looked at again, by the clock of calls."""
        self._before = News([], [])
        self._open: Sequence[OpenCalls] = ()
        self._late: list[set[int]] = []  # by arm, when open calls began that count as slow already
        self.after_fork_in_child()
        self.begin(())

    def after_fork_in_child(self) -> None:
        """Forget what belongs to the parent."""
        self._lock = threading.Lock()
        self._ended: deque[_Ended] = deque(maxlen=_MAX_WAITING)
        self._forget()
        self._forget_open()

    def begin(self, open_calls: Sequence[OpenCalls]) -> None:
        """Begin anew, with nothing seen; by arm, where its open calls are found."""
        self._open = open_calls
        self._before = _nothing(len(open_calls))
        self._forget()
        self._forget_open()
        self._judge_anew()

    def limit(self, rails: GuardRails) -> None:
        """Stop arms by these guard rails from now on."""
        self._rails = rails
        self._limit_ns = inf if rails.max_p95_ms is None else rails.max_p95_ms * 1e6

    def add(
        self,
        number: int,
        began_ns: int,
        duration_ns: int,
        slot: Slot | None,
        counts: bool,
        error: BaseException | None,
        /,
    ) -> None:
        """Take down a call that ended. Never raises."""
        try:
            outcome = _RETURNED if error is None else _FAILED if outcome_of(error).is_error else _NEITHER
            self._ended.append((number, began_ns, duration_ns, slot, counts, outcome))
            if self._lock.acquire(False):
                try:
                    self._take_down()
                finally:
                    self._lock.release()
        except Exception as trouble:  # noqa: BLE001  # it would reach the program
            _say(trouble)

    def look(self, now_ns: int, /) -> None:
        """Count calls that have been open for too long by now. Never raises."""
        try:
            self.look_at_ns = now_ns + _LOOK_NS
            if any(self._open) and self._lock.acquire(False):
                try:
                    self._take_down()
                    for number in range(len(self._open)):
                        self._count_open(number, now_ns)
                finally:
                    self._lock.release()
        except Exception as trouble:  # noqa: BLE001  # it would reach the program
            _say(trouble)

    def take(self) -> News | None:
        """Return what was seen since the last time, to be kept; None if there is nothing, or it can't be had now."""
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            return None
        try:
            self._take_down()
            if not any(tally.call_count or tally.unit_count for tally in self._news.tallies):
                return None
            news = self._news
            self._forget()
            return news
        finally:
            self._lock.release()

    def put_back(self, news: News) -> None:
        """Return it the next time, too."""
        with self._lock:
            for number, (tally, pairs) in enumerate(zip(*news, strict=True)):
                tally.add(self._news.tallies[number])
                pairs.merge(self._news.pairs[number])
                self._news.tallies[number], self._news.pairs[number] = tally, pairs

    def learn(self, before: News, forget: Sequence[int]) -> bool:
        """Go on from what all processes have seen up to now, and judge that; return whether that was possible now.

        Args:
            before: What they have seen.
            forget: Arms that begin anew: what was seen of them since does not count either.
        """
        if not self._lock.acquire(timeout=_LOCK_SECONDS):
            return False
        try:
            self._before = before
            for number in forget:
                self._news.tallies[number], self._news.pairs[number] = Tally(), Pairs()
                self._open[number].clear()
                self._late[number].clear()
            if forget:
                self._judge_anew()
            for number in range(1, len(before.pairs)):
                self._judge_pairs(number)
            return True
        finally:
            self._lock.release()

    def _forget(self) -> None:
        self._news = _nothing(len(self._before.tallies))

    def _forget_open(self) -> None:
        for calls in self._open:
            calls.clear()
        self._late = [set() for _ in self._open]

    def _judge_anew(self) -> None:
        """Forget what was judged: how many bad calls, or pairs, there have to be in all to be judged again."""
        self._judge_at = [1] * len(self._before.tallies)
        self._judge_pairs_at = [1] * len(self._before.tallies)

    # The lock is held.

    def _take_down(self) -> None:
        if len(self._ended) == _MAX_WAITING:
            self._forget_open()  # the ends of some were lost
        ended, tallies, open_calls, late = self._ended, self._news.tallies, self._open, self._late
        while ended:
            number, began_ns, duration_ns, slot, counts, outcome = ended.popleft()
            tally = tallies[number]
            tally.call_count += 1
            if outcome == _RETURNED and slot is not None:
                self._pair(slot, number, log(duration_ns or 1))
            elif outcome == _FAILED:
                tally.error_count += 1
            if not counts:
                continue
            open_calls[number].pop(began_ns, None)
            is_slow = duration_ns > self._limit_ns
            if began_ns in late[number]:  # it was counted when it got slow
                late[number].remove(began_ns)
                is_slow = False
            elif is_slow or outcome != _NEITHER:
                tally.unit_count += 1
            if is_slow or outcome == _FAILED:
                tally.slow_count += is_slow
                tally.failed_count += outcome == _FAILED
                if number:
                    self._judge(number)

    def _count_open(self, number: int, now_ns: int) -> None:
        late = self._late[number]
        for began_ns, slot in self._open[number].copy().items():
            age_ns = now_ns - began_ns
            if age_ns > self._limit_ns and began_ns not in late:
                late.add(began_ns)
                tally = self._news.tallies[number]
                tally.unit_count += 1
                tally.slow_count += 1
                if number:
                    self._judge(number)
            if slot is not None and slot.number >= 0 and log(max(age_ns, 1)) > slot.log_ns + _LOG_FAR:
                self._pair(slot, number, slot.log_ns + _LOG_FAR)

    def _pair(self, slot: Slot, number: int, log_ns: float) -> None:
        first = slot.number
        if first == TAKEN:
            return
        if first < 0:
            slot.number, slot.log_ns = number, log_ns
            return
        slot.number = TAKEN
        if (first == 0) != (number == 0):
            other = first or number
            self._news.pairs[other].add(log_ns - slot.log_ns if number else slot.log_ns - log_ns)
            if self.is_judging_pairs:
                self._judge_pairs(other)

    def _judge(self, number: int) -> None:
        arm = self._total(number)
        bad = arm.failed_count + arm.slow_count
        if bad >= self._judge_at[number]:
            self._judge_at[number] = max(bad + 1, int(bad * _GROWTH))
            if (found := breach(self._rails, self._total(0), arm, len(self._before.tallies) - 1)) is not None:
                self._stop(number, found)

    def _judge_pairs(self, number: int) -> None:
        count = self._before.pairs[number].count + self._news.pairs[number].count
        if self._rails.max_ratio is None or count < self._judge_pairs_at[number]:
            return
        self._judge_pairs_at[number] = max(count + 1, int(count * _GROWTH))
        pairs = self._before.pairs[number].copy()
        pairs.merge(self._news.pairs[number])
        if (found := breach_of_ratio(self._rails, pairs, len(self._before.pairs) - 1)) is not None:
            self._stop(number, found)

    def _total(self, number: int) -> Tally:
        total = Tally()
        total.add(self._before.tallies[number])
        total.add(self._news.tallies[number])
        return total


def _say(trouble: Exception) -> None:
    swallow(trouble)
    warn_once("ab end", f"A call of an experiment can't be taken down ({trouble!r}); please report this.")


def _nothing(arm_count: int) -> News:
    return News([Tally() for _ in range(arm_count)], [Pairs() for _ in range(arm_count)])
