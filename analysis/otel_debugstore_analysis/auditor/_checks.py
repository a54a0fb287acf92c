"""Whether limits are kept: what was measured, how sure that is, and how many more calls it would take.

A limit of a quantile allows a share of calls above it (5 % of a p95), a limit of a rate a share of failures. It is kept
if the whole interval of that share lies at or below what is allowed, and not kept if all of it lies above. Where none
at all are allowed (a limit of 0 for errors, of 1 for successes, or of a maximum), a single call breaks it, and it is
kept once there are as many calls without one as rule out a share of 1 %: no number of calls rules out every share.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np

from otel_debugstore_analysis.analyses._quantiles import Floats
from otel_debugstore_analysis.analyses.statistics import Interval
from otel_debugstore_analysis.auditor._intervals import (
    MOST,
    Estimate,
    Truths,
    exact,
    exact_sides,
    wilson,
    wilson_sides,
)
from otel_debugstore_analysis.auditor._threshold import ERRORS, SUCCESSES, Limit
from otel_debugstore_analysis.text import human

Verdict = Literal["pass", "fail", "undecided"]
ALLOWED: Final = {"p50": 0.5, "p95": 0.05, "p99": 0.01, "max": 0.0}
"""By statistic the share of calls that may be above its limit."""
NONE_SHARE: Final = 0.01


@dataclass(frozen=True)
class Check:
    """A limit, and if it is kept.

    Attributes:
        name: The figure: `p95_ns`, `p95_memory_peak_bytes`, `error_rate`.
        measured: What it was; None if no call says it.
        limit: What it may be at most (of `success_rate`: at least).
        verdict: "pass", "fail" or "undecided".
        low, high: The 95 % interval of what the verdict rests on: of rates and means of `measured`, of other figures
            of the share of calls above the limit.
        share: That share; None for rates and means.
        allowed: What the interval is compared with: the limit, or the share that may be above it.
        calls: How many recorded calls say it (of calls per parent: callers; of sums: traces).
        processes: In how many processes they were.
        more_calls: About how many more would decide it, if they are like those that were; 0 if it is decided, None if
            no number would.
        cause: All that in a sentence.
    """

    name: str
    measured: float | None
    limit: float
    verdict: Verdict
    low: float
    high: float
    share: float | None
    allowed: float
    calls: int
    processes: int
    more_calls: int | None
    cause: str


class Seen(NamedTuple):
    """What is known of a limit.

    Attributes:
        limit: The limit.
        value: It as a number.
        measured: The figure; None if it is not known.
        estimate: The share of calls above it (of a success rate: of failures), or the mean.
        interval: Of a mean; None for shares.
    """

    limit: Limit
    value: float
    measured: float | None
    estimate: Estimate
    interval: Interval | None = None

    @property
    def is_rate(self) -> bool:
        """Whether it is a rate of failures."""
        return self.limit.measure in (ERRORS, SUCCESSES)

    @property
    def allowed(self) -> float:
        """What share of calls, or what mean, is allowed."""
        if self.interval is not None:
            return self.value
        if not self.is_rate:
            return ALLOWED[self.limit.statistic]
        return self.value if self.limit.measure == ERRORS else round(1 - self.value, 12)


def checked(seen: Sequence[Seen]) -> list[Check]:
    """Return whether limits are kept, in their order. All at once: a thousand take as long as a few."""
    found: dict[int, Check] = {}
    for is_rate, method in ((True, _Method(wilson, wilson_sides)), (False, _Method(exact, exact_sides))):
        places = [place for place, one in enumerate(seen) if one.interval is None and one.is_rate == is_rate]
        found |= zip(places, _shares([seen[place] for place in places], method), strict=True)
    found |= {place: _mean(one) for place, one in enumerate(seen) if one.interval is not None}
    return [found[place] for place in range(len(seen))]


class _Method(NamedTuple):
    """How the interval of a share is computed.

    Attributes:
        ends: Returns the ends of the intervals of shares that were seen in so many calls.
        sides: Returns whether these intervals end at or below other shares, and whether they begin above.
    """

    ends: Callable[[Floats, Floats], tuple[Floats, Floats]]
    sides: Callable[[Floats, Floats, Floats], tuple[Truths, Truths]]


def _shares(seen: Sequence[Seen], method: _Method) -> list[Check]:
    if not seen:
        return []
    has_calls = np.array([one.estimate.effective > 0 for one in seen])
    shares = np.array([one.estimate.value if one.estimate.calls else 0.0 for one in seen])
    counts = np.array([one.estimate.effective for one in seen])
    allowed = np.array([one.allowed for one in seen])
    low, high = np.zeros_like(shares), np.ones_like(shares)
    low[has_calls], high[has_calls] = method.ends(shares[has_calls], counts[has_calls])
    passes = np.where(allowed > 0, high <= allowed, (shares <= 0) & (high <= NONE_SHARE))
    fails = np.where(allowed > 0, low > allowed, shares > 0)
    more = _more(seen, method, shares, counts, allowed, ~passes & ~fails)
    return [
        _check(
            one,
            "pass" if passes[place] else "fail" if fails[place] else "undecided",
            Interval(float(low[place]), float(high[place])),
            None if more[place] < 0 else int(more[place]),
        )
        for place, one in enumerate(seen)
    ]


def _more(
    seen: Sequence[Seen], method: _Method, shares: Floats, counts: Floats, allowed: Floats, is_open: Truths
) -> Floats:
    """Return how many more calls would decide it, if their share were the same; -1 if none would."""
    more = np.zeros(len(seen))
    places = np.flatnonzero(is_open)
    calls = np.array([seen[place].estimate.calls for place in places.tolist()], dtype=np.float64)
    worth = np.where(calls > 0, counts[places] / np.maximum(calls, 1), 1.0)
    bound = np.where(allowed[places] > 0, allowed[places], NONE_SHARE)

    def is_decided(many: Floats) -> Truths:
        below, above = method.sides(shares[places], many * worth, bound)
        return below | above

    least, most = calls.copy(), np.full(len(places), float(MOST))
    is_ever = is_decided(most)
    for _ in range(math.ceil(math.log2(MOST)) + 1):
        middle = np.floor((least + most) / 2)
        decided = is_decided(np.maximum(middle, 1))
        least, most = np.where(decided, least, middle), np.where(decided, middle, most)
    more[places] = np.where(is_ever, np.maximum(most - calls, 1), -1)
    return more


def _mean(seen: Seen) -> Check:
    assert seen.interval is not None
    estimate, interval = seen.estimate, seen.interval
    if interval.high <= seen.value:
        return _check(seen, "pass", interval, 0)
    if interval.low > seen.value:
        return _check(seen, "fail", interval, 0)
    half, distance = (interval.high - interval.low) / 2, abs(estimate.value - seen.value)
    if not math.isfinite(half):
        return _check(seen, "undecided", interval, 2 - estimate.calls)
    if distance <= 0 or estimate.calls * (half / distance) ** 2 > MOST:
        return _check(seen, "undecided", interval, None)
    return _check(seen, "undecided", interval, math.ceil(estimate.calls * (half / distance) ** 2) - estimate.calls)


def _check(seen: Seen, verdict: Verdict, interval: Interval, more_calls: int | None) -> Check:
    if seen.limit.measure == SUCCESSES:
        interval = Interval(1 - interval.high, 1 - interval.low)
    has_share = seen.interval is None and not seen.is_rate
    more_calls = 0 if verdict != "undecided" else more_calls
    return Check(
        name=seen.limit.name,
        measured=seen.measured,
        limit=seen.value,
        verdict=verdict,
        low=interval.low,
        high=interval.high,
        share=seen.estimate.value if has_share and seen.estimate.calls else None,
        allowed=seen.value if seen.limit.measure == SUCCESSES else seen.allowed,
        calls=seen.estimate.calls,
        processes=seen.estimate.processes,
        more_calls=more_calls,
        cause=_cause(seen, verdict, interval, more_calls, has_share),
    )


def _cause(seen: Seen, verdict: Verdict, interval: Interval, more: int | None, has_share: bool) -> str:
    name, estimate = seen.limit.name, seen.estimate
    title = name_of(name)
    limit = shown(name, seen.value)
    if not estimate.calls or seen.measured is None:
        return f"{title} has a limit of {limit}, and no call says what it is; {_wanted(more)}."
    text = f"{title} is {shown(name, seen.measured)}, the limit is {limit}"
    of = f"of {estimate.calls:,} {_COUNTED.get(seen.limit.measure.partition('.')[0], 'calls')}"
    where = "" if estimate.processes == 1 else f" in {estimate.processes} processes"
    if has_share:
        ends = f"{_percent(interval.low)} to {_percent(interval.high)}"
        text += f": {_percent(estimate.value)} {of}{where} are above it (95 % interval {ends}), "
        text += f"{_percent(seen.allowed)} may be"
    else:
        ends = f"{shown(name, interval.low)} to {shown(name, interval.high)}"
        text += f" ({of[3:]}{where}" + (f", 95 % interval {ends})" if math.isfinite(interval.low) else ")")
    return text + (f"; {_wanted(more)}." if verdict == "undecided" else ".")


_COUNTED: Final = {"calls_per_parent": "callers", "sum": "traces"}


def _wanted(more: int | None) -> str:
    if more is None:
        return "it is so near the limit that no number of calls decides it"
    return f"{more:,} more call{'s' if more != 1 else ''} needed"


def name_of(name: str) -> str:
    """Return a figure's name for people: `p95_ns` is "p95 of the duration"."""
    if name in (ERRORS, SUCCESSES):
        return name.replace("_", " ")
    statistic, _, measure = name.partition("_")
    return f"{statistic} of {_TITLES.get(measure) or 'the sum of ' + measure.removeprefix('sum.')}"


_TITLES: Final = {
    "ns": "the duration",
    "cpu_ns": "the CPU time",
    "cpu_percent": "the CPU use",
    "memory_peak_bytes": "the memory peak",
    "calls_per_parent": "the calls per parent",
}


def shown(name: str, value: float) -> str:
    """Return a figure with its unit, for people."""
    if name in (ERRORS, SUCCESSES):
        return _percent(value)
    if name.endswith("cpu_percent"):
        return f"{value:.4g} %"
    if name.endswith(("_ns", "_bytes")):
        return human(name, value)
    return f"{value:,.6g}"


def _percent(share: float) -> str:
    return f"{share:.3g} %" if share == 0 else f"{100 * share:.3g} %"
